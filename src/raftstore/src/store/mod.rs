//! A store: every region replica of one process, stepped by messages, speaking in turns.
//!
//! # Vocabulary
//! A *message* goes in ([`Store::handle`]), a [`Turn`](crate::msg::Turn) comes out ([`Store::turn`]); the edge feeds whatever has queued up,
//! then takes one turn and carries it out. *Dirty*: a peer that has something for the next turn. *Held*: waiting for a log
//! write.
//!
//! # Invariants
//! 1. One turn makes at most one log write, for all regions. Writes are numbered without gaps and completed in order.
//! 2. A vote, an acknowledgement of entries or anything else that promises durability leaves after its write is (R2).
//! 3. After the first failed write nothing is sent, written or served any more, and everybody who waits is told (D3).
//! 4. Nothing here reads a clock, draws a random number, or depends on more than its inputs and the engine.
//!
//! # Life of a write
//! `handle(Write)` checks and queues → `turn` merges what is queued into one entry per region, proposes, collects every
//! dirty peer's Ready into one batch; the leader's appends are in the same turn's messages → `handle(Persisted)` →
//! `handle(Raft)` with the followers' answers → `turn` hands committed entries to the applier, which replies.
//!
//! # Life of a peer
//! [`creation`]: by a first message, or by the bootstrap. [`stale`]: does the region still want it? [`destroy`]: its end.
//!
//! [`split`]: parts that come to be. [`merge`]: a region that is taken over by its neighbour.
//!
//! Tests: `tests/`.

/// What a store's peers need of it, without keeping its other fields from being changed.
macro_rules! context {
    ($store:expr) => {
        crate::peer::Context {
            config: &$store.config,
            registry: &$store.registry,
            stores: &$store.liveness,
            now: $store.now,
            tick: $store.clock.count(),
        }
    };
}

mod admission;
mod creation;
mod destroy;
mod hibernate;
mod ident;
mod liveness;
mod log_writes;
mod merge;
mod open;
mod orders;
mod scans;
mod sleepers;
mod split;
mod stale;
mod status;
mod ticks;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::{Engine, WriteBatch};
use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb;
use proto::raft_serverpb::RaftMessage;

pub use self::admission::DropReason;
pub(crate) use self::creation::is_first_message;
pub use self::ident::{IdentError, format};
pub(crate) use self::liveness::Liveness;
pub use self::open::OpenError;
pub use self::status::{StoreCounters, StoreStatus};

use self::creation::Births;
use self::destroy::Graves;
use self::log_writes::LogWrites;
use self::merge::Merges;
use self::sleepers::Sleepers;
use self::split::EarlyMessages;
use self::ticks::TickClock;
use crate::apply::{ApplyResult, ApplyTask, Effect, SnapshotReady};
use crate::config::Config;
use crate::error::RegionError;
use crate::local_reader::{LocalReader, ReadRegistry};
use crate::msg::{AdminRequest, ReadRequest, RequestHeader, SplitRequest, StoreMsg, WriteRequest};
use crate::peer::{Context, Held, Peer};
use crate::reply::Reply;
use crate::time::Instant;

/// See the module header.
#[derive(Debug)]
pub struct Store {
    config: Config,
    engine: Arc<dyn Engine>,
    registry: Arc<ReadRegistry>,
    peers: BTreeMap<RegionId, Peer>,
    graves: Graves,
    births: Births,
    dirty: BTreeSet<RegionId>,
    sleepers: Sleepers,
    liveness: Liveness,

    log_writes: LogWrites,
    /// Records of peers that come or go, for the next log write, and what waits for them.
    records: WriteBatch,
    records_held: Vec<Held>,
    /// Released by a completed log write, for the next turn.
    messages: Vec<RaftMessage>,
    tasks: Vec<ApplyTask>,
    discarded: Vec<crate::snapshot::ReceivedSnapshot>,
    split_requests: Vec<SplitRequest>,
    split_reports: Vec<Vec<metapb::Region>>,
    early: EarlyMessages,
    merges: Merges,

    clock: TickClock,
    now: Instant,
    /// Snapshots given to the sender.
    sending: BTreeSet<(RegionId, PeerId)>,
    /// Regions whose snapshot is with the installer.
    installing: BTreeSet<RegionId>,
    /// The tick at which a store was last reported as unreachable.
    unreachable: BTreeMap<StoreId, u64>,
    draining: Drain,
    poisoned: Option<String>,
    counters: StoreCounters,
}

/// How far the store is with handing its leads away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    Running,
    Told,
}

impl Store {
    /// The delegates for reads by lease.
    pub fn registry(&self) -> Arc<ReadRegistry> {
        self.registry.clone()
    }

    /// A reader by lease; cheap to clone, usable on any thread.
    pub fn local_reader(&self) -> LocalReader {
        LocalReader::new(self.config.store_id, self.registry.clone())
    }

    /// Takes one input. `now` never goes backwards; an earlier one counts as the latest so far.
    pub fn handle(&mut self, msg: StoreMsg, now: Instant) {
        self.now = self.now.max(now);
        if self.poisoned.is_some() {
            return self.refuse(msg);
        }
        match msg {
            StoreMsg::Tick => self.on_tick(),
            StoreMsg::Raft(message) => self.on_raft(message),
            StoreMsg::Write(write) => self.on_write(write),
            StoreMsg::Read(read) => self.on_read(read),
            StoreMsg::Persisted { number } => self.on_persisted(number),
            StoreMsg::WriteFailed { reason } => self.poison(reason),
            StoreMsg::Applied(results) => self.on_applied(results),
            StoreMsg::SnapshotReady(ready) => self.on_snapshot_ready(ready),
            StoreMsg::SnapshotReceived { message, file } => self.on_snapshot(message, file),
            StoreMsg::SnapshotSent { region, to, ok } => self.on_snapshot_sent(region, to, ok),
            StoreMsg::SnapshotInstalled { region } => self.on_snapshot_installed(region),
            StoreMsg::Unreachable { store } => self.on_unreachable(store),
            StoreMsg::Bootstrap { region, reply } => self.on_bootstrap(region, reply),
            StoreMsg::TransferLeader { header, to, reply } => {
                self.on_transfer(&header, to, reply);
            }
            StoreMsg::Admin(request) => self.on_admin(request),
            StoreMsg::CheckConsistency { header, reply } => {
                self.on_check_consistency(&header, reply);
            }
            StoreMsg::SplitIds { request, ids } => self.on_split_ids(&request, ids),
            StoreMsg::SplitChecked(checked) => self.on_split_checked(checked),
            StoreMsg::HashComputed { region, index, hash } => {
                self.on_hash_computed(region, index, hash);
            }
            StoreMsg::RegionAnswer { asked, holder } => self.on_region_answer(asked, &holder),
            StoreMsg::ReportRegions => self.report_all(),
            StoreMsg::Drain => self.on_drain(),
            StoreMsg::Status(reply) => reply.send(Ok(self.status())),
        }
    }

    /// Calls `act` on a region's peer, if there is one, and has it looked at in the next turn.
    fn with_peer<T>(
        &mut self,
        region: RegionId,
        act: impl FnOnce(&mut Peer, &Context<'_>) -> T,
    ) -> Option<T> {
        self.wake(region, false);
        let context = context!(self);
        let peer = self.peers.get_mut(&region)?;
        self.dirty.insert(region);
        Some(act(peer, &context))
    }

    fn on_tick(&mut self) {
        if !self.clock.accept(self.now, self.config.tick()) {
            self.counters.ticks_early += 1;
            return;
        }
        self.counters.ticks += 1;
        self.tick_awake();
        self.tick_sleepers();
        self.drive_merges();
    }

    fn on_write(&mut self, write: WriteRequest) {
        let region = write.header.region;
        if !self.peers.contains_key(&region) {
            let error = self.no_peer(&write.header);
            return write.reply.fail(error);
        }
        self.with_peer(region, |peer, context| peer.queue_write(write, context));
    }

    fn on_read(&mut self, read: ReadRequest) {
        let region = read.header.region;
        if !self.peers.contains_key(&region) {
            let error = self.no_peer(&read.header);
            return read.reply.fail(error);
        }
        self.with_peer(region, |peer, context| peer.queue_read(read, context));
    }

    /// The error for a region that has no peer here. The store is checked first: a client with the wrong address learns
    /// more from that.
    fn no_peer(&self, header: &RequestHeader) -> RegionError {
        let wrong_store = header.check_store(self.config.store_id).err();
        wrong_store.unwrap_or(RegionError::RegionNotFound { region: header.region })
    }

    fn on_persisted(&mut self, number: u64) {
        self.graves.on_written(number);
        for (number, held) in self.log_writes.finish(number) {
            let Held { region, ready, messages, tasks, reply } = held;
            match ready {
                Some(ready) => self
                    .with_peer(region, |peer, context| peer.on_persisted(number, ready, context)),
                None => self.with_peer(region, |peer, _| peer.on_settled(number)),
            };
            self.messages.extend(messages);
            self.tasks.extend(tasks);
            if let Some(reply) = reply {
                reply.send(Ok(()));
            }
        }
    }

    fn on_applied(&mut self, results: Vec<ApplyResult>) {
        for result in results {
            let region = result.region;
            match result.effects.as_slice() {
                [Effect::Created { peer, created }] => {
                    self.on_created(region, *peer, *created);
                    continue;
                }
                [Effect::Destroyed { peer, removed_at }] => {
                    self.bury(region, PeerId::from(peer.id), *removed_at);
                    continue;
                }
                _ => {}
            }
            let for_store = if self.peers.contains_key(&region) {
                self.with_peer(region, |peer, context| peer.on_applied(result, context))
            } else {
                // It is on its way out; what its last entries mean to other regions holds.
                Some(result.effects)
            };
            for effect in for_store.into_iter().flatten() {
                self.on_effect(region, effect);
            }
        }
    }

    /// The peers of a region have changed.
    fn on_members_changed(&mut self, region: RegionId) {
        self.counters.conf_changes += 1;
        if self.peers.get(&region).is_some_and(Peer::is_removed) {
            self.doom(region);
        }
    }

    /// What an entry of `region` means beyond its own peer.
    fn on_effect(&mut self, region: RegionId, effect: Effect) {
        match effect {
            Effect::Split { regions, created } => self.on_split(region, regions, created),
            Effect::VerifyHash { index, hash } => self.on_verify_hash(region, index, hash),
            Effect::ConfChange { .. } => self.on_members_changed(region),
            Effect::CompactLog { .. } | Effect::Created { .. } | Effect::Destroyed { .. } => {}
            Effect::Frozen { .. }
            | Effect::NewVersion { .. }
            | Effect::AwaitsSource { .. }
            | Effect::Merged { .. } => self.on_merge_effect(region, effect),
        }
    }

    fn on_snapshot_ready(&mut self, ready: SnapshotReady) {
        self.with_peer(ready.region, |peer, _| peer.on_snapshot_made(ready));
    }

    fn on_snapshot_sent(&mut self, region: RegionId, to: PeerId, ok: bool) {
        self.sending.remove(&(region, to));
        self.with_peer(region, |peer, _| peer.on_snapshot_sent(to, ok));
    }

    fn on_snapshot_installed(&mut self, region: RegionId) {
        self.installing.remove(&region);
        self.with_peer(region, |peer, context| peer.on_installed(context));
    }

    /// Reports are rare: a broken connection fails many messages at once.
    fn on_unreachable(&mut self, store: StoreId) {
        let (tick, period) = (self.clock.count(), u64::from(self.config.unreachable_report_ticks));
        let last = self.unreachable.get(&store);
        if last.is_some_and(|last| tick < last + period) {
            return;
        }
        self.unreachable.insert(store, tick);
        // Those that sleep have sent nothing.
        for region in self.sleepers.awake() {
            if let Some(peer) = self.peers.get_mut(region) {
                peer.on_unreachable(store);
            }
        }
    }

    fn on_bootstrap(&mut self, region: metapb::Region, reply: Reply<()>) {
        let id = RegionId::from(region.id);
        if self.peers.contains_key(&id) {
            return self.answer_when_written(id, reply);
        }
        if self.graves.tombstone(id).is_some() {
            // It was here, and is gone for good: that is a state, too.
            return reply.send(Ok(()));
        }
        if id.is_none() || self.is_occupied(id) || self.overlapping(&region).next().is_some() {
            return reply.fail(RegionError::RegionNotFound { region: id });
        }
        let (engine, batch) = (self.engine.clone(), &mut self.records);
        match Peer::create(region, engine, &self.config, batch) {
            Ok((peer, register)) => {
                let (messages, tasks) = (Vec::new(), vec![register]);
                let held = Held { region: id, ready: None, messages, tasks, reply: Some(reply) };
                self.records_held.push(held);
                self.peers.insert(id, peer);
                self.dirty.insert(id);
            }
            Err(_) => reply.fail(RegionError::RegionNotFound { region: id }),
        }
    }

    /// Answers once every log write that has begun, and the records of new peers, are durable.
    fn answer_when_written(&mut self, region: RegionId, reply: Reply<()>) {
        let (messages, tasks) = (Vec::new(), Vec::new());
        let held = Held { region, ready: None, messages, tasks, reply: Some(reply) };
        if !self.records.is_empty() {
            self.records_held.push(held);
        } else if self.log_writes.in_flight() > 0 {
            self.log_writes.hold_by_newest(vec![held]);
        } else if let Some(reply) = held.reply {
            reply.send(Ok(()));
        }
    }

    fn on_transfer(&mut self, header: &RequestHeader, to: PeerId, reply: Reply<()>) {
        if !self.peers.contains_key(&header.region) {
            return reply.fail(self.no_peer(header));
        }
        self.with_peer(header.region, |peer, context| {
            peer.transfer_by_request(header, to, reply, context);
        });
    }

    fn on_drain(&mut self) {
        if self.draining == Drain::No {
            self.draining = Drain::Running;
            let led = self.peers.iter().filter(|(_, peer)| peer.is_leader());
            let regions: Vec<_> = led.map(|(region, _)| *region).collect();
            for region in regions {
                self.with_peer(region, |peer, context| peer.drain(context));
            }
        }
    }

    /// A write has failed: what is on disk is not known any more, so nothing may be promised or answered (D3).
    fn poison(&mut self, reason: String) {
        self.registry.withdraw_all();
        let error = RegionError::StoreStopped { reason: reason.clone() };
        for peer in self.peers.values_mut() {
            peer.fail_all(&error);
        }
        let held = self.log_writes.abandon();
        for reply in held.into_iter().chain(self.records_held.drain(..)).filter_map(|h| h.reply) {
            reply.fail(error.clone());
        }
        self.messages.clear();
        self.tasks.clear();
        self.poisoned = Some(reason);
    }

    /// What a poisoned store answers.
    fn refuse(&self, msg: StoreMsg) {
        let reason = self.poisoned.clone().unwrap_or_default();
        let error = RegionError::StoreStopped { reason };
        match msg {
            StoreMsg::Write(write) => write.reply.fail(error),
            StoreMsg::Read(read) => read.reply.fail(error),
            StoreMsg::Bootstrap { reply, .. } | StoreMsg::TransferLeader { reply, .. } => {
                reply.fail(error);
            }
            StoreMsg::Admin(AdminRequest { reply, .. }) => reply.fail(error),
            StoreMsg::CheckConsistency { reply, .. } => reply.fail(error),
            StoreMsg::Status(reply) => reply.send(Ok(self.status())),
            StoreMsg::SplitIds { .. }
            | StoreMsg::SplitChecked(_)
            | StoreMsg::HashComputed { .. }
            | StoreMsg::RegionAnswer { .. }
            | StoreMsg::Tick
            | StoreMsg::Raft(_)
            | StoreMsg::Persisted { .. }
            | StoreMsg::WriteFailed { .. }
            | StoreMsg::Applied(_)
            | StoreMsg::SnapshotReady(_)
            | StoreMsg::SnapshotReceived { .. }
            | StoreMsg::SnapshotSent { .. }
            | StoreMsg::SnapshotInstalled { .. }
            | StoreMsg::Unreachable { .. }
            | StoreMsg::ReportRegions
            | StoreMsg::Drain => {}
        }
    }
}

//! A peer: this store's replica of one region.
//!
//! # Vocabulary
//! *Leading* means being the Raft leader of a term; *serving* means leading and having applied everything of earlier terms.
//! *Handed*: given to the applier. *Applied*: reported back by it.
//!
//! # Invariants
//! 1. truncated ≤ applied ≤ handed ≤ commit, as seen by the store loop; entries are handed once, in order.
//! 2. The read delegate is published only while serving. It is withdrawn before anything else is done about a lost lead.
//! 3. Whoever waits is answered: with the applier's reply, or at once when the lead is lost, the peer goes, or the store is
//!    poisoned.
//! 4. While a snapshot is installed nothing is handed to the applier (M20).
//!
//! # One file per verb
//! [`propose`] writes, [`order`] orders, [`split`] division, [`read`] reads, [`ready`] a turn, [`install`] snapshots from
//! others, [`log_gc`] log compaction, [`size`] and [`load`] how much there is and is done, [`consistency`] comparing data,
//! [`open`] creation and restart, [`lead`] gaining, keeping and losing the lead, [`change`] the members, [`farewell`] those
//! who no longer are, [`silence`] when nobody leads, [`hibernate`] when nothing happens, [`status`] what is told to others.

mod change;
mod consistency;
mod entry_cache;
mod farewell;
mod heard;
mod hibernate;
mod install;
mod lead;
mod load;
mod log_gc;
mod merge;
mod open;
mod order;
mod proposals;
mod propose;
mod read;
mod ready;
pub(crate) mod records;
mod silence;
mod size;
mod snapshot_desk;
mod split;
mod status;
mod storage;

use std::sync::Arc;

use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raft::{LogIndex, NodeId, RawNode, Term};

pub(crate) use self::hibernate::Asleep;
pub use self::open::{INITIAL_INDEX, INITIAL_TERM, PeerOpenError};
pub(crate) use self::order::refused;
pub(crate) use self::ready::{Held, TurnBuilder};
pub use self::status::RegionStatus;

use self::change::Settling;
use self::consistency::Consistency;
use self::farewell::Farewells;
use self::heard::Heard;
use self::hibernate::Sleep;
use self::install::{Install, Received};
use self::load::Load;
use self::log_gc::LogGc;
use self::proposals::Proposals;
use self::propose::WriteQueue;
use self::read::Reads;
use self::silence::Silence;
use self::size::Size;
use self::storage::PeerStorage;
use crate::apply::{ApplyResult, ApplyTask, Effect, Merging};
use crate::config::Config;
use crate::error::RegionError;
use crate::lease::Lease;
use crate::local_reader::{ReadDelegate, ReadRegistry};
use crate::msg::{RegionQuestion, RequestHeader};
use crate::planted::{Bug, planted};
use crate::store::Liveness;
use crate::time::Instant;

/// What a peer needs of its store for one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) registry: &'a ReadRegistry,
    pub(crate) stores: &'a Liveness,
    pub(crate) now: Instant,
    /// Ticks the store has counted.
    pub(crate) tick: u64,
}

/// See the module header.
pub(crate) struct Peer {
    id: RegionId,
    me: metapb::Peer,
    region: Arc<metapb::Region>,
    /// What the region was cut into beside `region`, as of the last cut; for clients that still know the whole.
    siblings: Vec<metapb::Region>,
    raft: RawNode<PeerStorage>,

    /// The term led, as last noticed.
    leading: Option<Term>,
    lease: Option<Lease>,
    delegate: Option<Arc<ReadDelegate>>,
    /// A transfer of the lead was started and has not been seen to end.
    transferring: bool,
    heartbeat_due: bool,
    /// Peers that the last report called down or pending.
    reported_ailing: Vec<PeerId>,

    writes: WriteQueue,
    proposals: Proposals,
    reads: Reads,
    /// The last change of boundaries proposed here.
    boundary_index: LogIndex,
    /// Present while the region waits to be taken over.
    merging: Option<Merging>,
    merging_since: u64,
    /// The region's epoch when its state last came by a snapshot; see [`records::RegionRecord`].
    snapshot_epoch: Option<metapb::RegionEpoch>,

    handed_index: LogIndex,
    applied_index: LogIndex,
    applied_term: Term,
    state_hash: u64,
    /// The applier has been told of the region anew and has not answered.
    registering: bool,
    /// Log writes under way that hold something of this peer.
    writes_in_flight: usize,
    log_gc: LogGc,
    size: Size,
    /// Rare.
    consistency: Option<Box<Consistency>>,
    load: Load,
    sleep: Sleep,

    received: Option<Received>,
    install: Option<Install>,
    /// Tasks for the applier, for the next turn.
    tasks: Vec<ApplyTask>,

    heard: Heard,
    settling: Settling,
    farewells: Farewells,
    /// What is said to other stores beside Raft's messages, for the next turn.
    notices: Vec<RaftMessage>,
    silence: Silence,
    /// For the scheduler, for the next turn.
    questions: Vec<RegionQuestion>,
}

impl Peer {
    /// The region as of what is applied.
    pub(crate) fn region(&self) -> &metapb::Region {
        &self.region
    }

    /// This peer's id.
    pub(crate) fn peer_id(&self) -> PeerId {
        PeerId::from(self.me.id)
    }

    /// Whether this peer leads.
    pub(crate) fn is_leader(&self) -> bool {
        self.leading.is_some()
    }

    /// Whether this peer knows its region: it was there from the region's beginning, or a snapshot has arrived.
    pub(crate) fn is_initialized(&self) -> bool {
        !self.region.peers.is_empty()
    }

    /// The peer of the region with this id.
    pub(crate) fn find_peer(&self, id: PeerId) -> Option<&metapb::Peer> {
        self.region.peers.iter().find(|peer| peer.id == id.get())
    }

    /// A message from another peer, already admitted and decoded.
    pub(crate) fn step(
        &mut self,
        message: raft::Message,
        context: &Context<'_>,
    ) -> Result<(), raft::Error> {
        self.heard.note(PeerId::from(message.from.0), context.tick);
        self.hear(&message);
        let outcome = self.raft.step(message);
        self.observe_lead(context);
        outcome
    }

    /// A tick has passed.
    pub(crate) fn tick(&mut self, context: &Context<'_>) {
        // A leader that asks whether the others would sleep must not keep them awake.
        if !self.sleep.is_asking() {
            self.raft.tick();
            self.observe_lead(context);
        }
        if self.is_leader() {
            self.tick_transfer();
            self.tick_reads(context);
            self.tick_log_gc(context);
            self.tick_farewells();
            self.tick_ailing(context);
            if (context.tick + self.id.get())
                .is_multiple_of(context.config.split_check_ticks.into())
            {
                self.tick_size(context);
                self.tick_load(context);
            }
            let keep_ticks = context.config.snapshot_keep_ticks;
            self.raft.storage_mut().desk_mut().tick(keep_ticks);
            let period = u64::from(context.config.region_heartbeat_ticks);
            // Regions take turns, so that a store's reports are spread over the period.
            self.heartbeat_due |= (context.tick + self.id.get()).is_multiple_of(period);
        } else {
            self.tick_silence(context);
        }
        self.trim_entry_cache(context);
    }

    /// A log write is durable in which this peer had a part.
    pub(crate) fn on_persisted(&mut self, number: u64, ready: u64, context: &Context<'_>) {
        self.writes_in_flight -= 1;
        self.raft.storage_mut().on_written(number);
        self.raft.on_persist(ready);
        self.observe_lead(context);
        self.on_install_written(number);
    }

    /// The applier has got further. Returns what concerns the store.
    pub(crate) fn on_applied(&mut self, result: ApplyResult, context: &Context<'_>) -> Vec<Effect> {
        let ApplyResult { region: _, applied_index, applied_term, state_hash, effects, growth } =
            result;
        assert!(applied_index >= self.applied_index, "applied positions do not go back");
        assert!(applied_index <= self.handed_index, "applied what was never handed over");
        self.applied_index = applied_index;
        self.applied_term = applied_term;
        self.state_hash = state_hash;
        self.registering = false;
        self.size.grow(growth);
        if self.is_leader() {
            self.load.applied(&growth);
        }
        let mut for_store = Vec::new();
        for effect in effects {
            match effect {
                Effect::CompactLog { index, term } => self.log_gc.on_compacted(index, term),
                Effect::VerifyHash { .. } => for_store.push(effect),
                // One that was refused leaves Raft as it is: it looks at the applied index to see that it is over (R24).
                Effect::ConfChange { region: None, .. } => {}
                Effect::ConfChange { entry, region: Some(region) } => {
                    self.change_membership(&entry, region.clone(), context);
                    for_store.push(Effect::ConfChange { entry, region: Some(region) });
                }
                Effect::Split { regions, created } => {
                    self.on_split(&regions, context);
                    for_store.push(Effect::Split { regions, created });
                }
                // Those are the store's.
                Effect::Created { .. } | Effect::Destroyed { .. } => {}
                Effect::Frozen { .. }
                | Effect::NewVersion { .. }
                | Effect::AwaitsSource { .. }
                | Effect::Merged { .. } => {
                    self.on_merge_effect(&effect, context);
                    for_store.push(effect);
                }
            }
        }
        self.raft.advance_apply_to(applied_index);
        self.observe_lead(context);
        self.publish_delegate(context);
        self.release_reads();
        for_store
    }

    /// The region has changed: everybody who reads must see the new one.
    fn set_region(&mut self, region: metapb::Region, context: &Context<'_>) {
        self.withdraw_delegate(context);
        self.forget_cuts();
        if let Some(me) = region.peers.iter().find(|peer| peer.id == self.me.id) {
            self.me = *me;
        }
        self.region = Arc::new(region);
        self.heard.follow(context.tick, &self.region);
        self.silence.forget_strangers();
        self.heartbeat_due = true;
    }

    /// Messages to this store do not arrive.
    pub(crate) fn on_unreachable(&mut self, store: StoreId) {
        if !self.is_leader() {
            return;
        }
        let there = self.region.peers.iter().filter(|peer| peer.store_id == store.get());
        for peer in there {
            self.raft.report_unreachable(NodeId(peer.id));
        }
    }

    /// Checks a request's header, in the order that helps a client most.
    fn check_leader(
        &self,
        header: &RequestHeader,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        self.check_lead(header, context)?;
        if self.is_merging() {
            return Err(RegionError::Merging { region: self.id });
        }
        self.check_version(header)
    }

    fn check_lead(&self, header: &RequestHeader, context: &Context<'_>) -> Result<(), RegionError> {
        header.check_store(context.config.store_id)?;
        header.check_peer(self.peer_id())?;
        let term = self.leading.ok_or_else(|| self.not_leader())?;
        header.check_term(term)?;
        if self.is_transferring() {
            return Err(RegionError::NotLeader { region: self.id, leader: None });
        }
        Ok(())
    }

    /// The peer leaves the store: nobody reads from it any more, and whoever waits is answered.
    pub(crate) fn end(&mut self, context: &Context<'_>) {
        if !planted(Bug::DelegateOutlivesPeer) {
            self.withdraw_delegate(context);
        }
        self.fail_all(&RegionError::RegionNotFound { region: self.id });
    }

    /// Whether the peer can be destroyed now: the applier knows it, or was never told of it, and no snapshot is on its way
    /// into its data.
    pub(crate) fn can_end(&self) -> bool {
        self.install.is_none() && (!self.registering || !self.is_initialized())
    }

    /// This store's peer.
    pub(crate) fn me(&self) -> metapb::Peer {
        self.me
    }

    /// The store is poisoned, or the peer goes: answers everybody.
    pub(crate) fn fail_all(&mut self, error: &RegionError) {
        let writes = self.writes.take_replies();
        for reply in writes.into_iter().chain(self.proposals.take_replies()) {
            reply.fail(error.clone());
        }
        for reply in self.reads.take_replies() {
            reply.fail(error.clone());
        }
        self.fail_comparisons(error);
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("region", &self.id)
            .field("peer", &self.me.id)
            .field("leading", &self.leading)
            .field("applied_index", &self.applied_index)
            .finish_non_exhaustive()
    }
}

//! Sleeping: a region in which nothing happens costs nothing.
//!
//! # How a region falls asleep
//! The leader of a region that has rested for `hibernate_ticks` asks the followers on live stores whether they would sleep
//! too (`MsgHibernateRequest`, with the index of its last entry), and holds its heartbeats back meanwhile. A follower that has
//! everything up to this index applied answers and sleeps; when all have answered, the leader sleeps. If an answer does not
//! come, the leader goes on as before, which wakes those that sleep already. Followers on silent stores are left out, as long
//! as the others are a quorum: they are brought up to date when their store is back.
//!
//! # How it wakes
//! Whatever comes in wakes a peer: a message, a write, a read, an order. A leader that wakes sends heartbeats at once; a
//! follower that somebody else than its leader woke tells the leader (`MsgRegionWakeUp`), and so does one that has not heard
//! of its leader for half of an election timeout, so no follower starts an election against a leader that only sleeps. A
//! leader's store that falls silent wakes all it led ([`crate::store`]'s liveness), with their patience at its end.
//!
//! # Invariants
//! 1. A sleeping leader holds no lease: its clock-based rights rest on rounds that it does not run (R11, R12).
//! 2. A sleeping peer has nothing to do that needs ticks: nothing is proposed, waited for, handed over or being written.

use proto::ids::{PeerId, StoreId};
use proto::metapb::{self, PeerRole};
use proto::raft_serverpb::{ExtraMessage, ExtraMessageType, RaftMessage};
use raft::{LogIndex, NodeId, ProgressState, ProgressStatus, Role, Term};

use super::{Context, Peer};
use crate::config::Config;
use crate::planted::{Bug, planted};

/// Ticks between the first campaigns of two peers that lost the same leader.
const CAMPAIGN_STEP_TICKS: u32 = 3;

/// Ticks that a leader waits for answers, and that a follower waits for its leader before it asks whether it sleeps: some
/// heartbeats, but less than anybody's patience.
fn ask_ticks(config: &Config) -> u32 {
    (3 * config.heartbeat_ticks).min(config.election_timeout_ticks / 2)
}

/// What the store has to know of a peer that falls asleep.
#[derive(Debug)]
pub(crate) struct Asleep {
    /// The store of the leader; none if it is led here.
    pub(crate) leader: Option<StoreId>,
    /// The stores of the other peers.
    pub(crate) others: Box<[StoreId]>,
    /// Led here: stores that were silent, whose peers may lack something.
    pub(crate) without: Box<[StoreId]>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Awake,
    /// Followers have been asked.
    Asking(Box<Asking>),
    Asleep,
}

#[derive(Debug)]
struct Asking {
    index: LogIndex,
    ticks: u32,
    /// Who has not answered.
    open: Vec<PeerId>,
}

/// Whether a peer sleeps, and for how long it has rested.
#[derive(Debug, Default)]
pub(super) struct Sleep {
    state: State,
    rest_ticks: u32,
    /// As of the last tick: if these change, somebody does something here.
    seen: (Term, LogIndex, u64),
    /// Counts what leaves no trace in the log.
    stirs: u64,
    /// Whether the store ticks this peer.
    pub(super) ticked: bool,
}

impl Sleep {
    /// Somebody reads, or orders something.
    pub(super) fn stir(&mut self) {
        self.stirs += 1;
    }

    /// The lead is lost.
    pub(super) fn stop_asking(&mut self) {
        if self.is_asking() {
            self.state = State::Awake;
        }
    }

    pub(super) fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking(_))
    }
}

impl Peer {
    pub(crate) fn is_asleep(&self) -> bool {
        matches!(self.sleep.state, State::Asleep)
    }

    /// Notes that the store ticks this peer; whether it did not.
    pub(crate) fn mark_ticked(&mut self) -> bool {
        !std::mem::replace(&mut self.sleep.ticked, true)
    }

    /// A tick has passed, after everything else that ticks.
    pub(crate) fn tick_sleep(&mut self, context: &Context<'_>) -> Option<Asleep> {
        if context.config.hibernate_ticks == 0 {
            return None;
        }
        let seen = (self.raft.term(), self.raft.last_index(), self.sleep.stirs);
        let rests = std::mem::replace(&mut self.sleep.seen, seen) == seen;
        self.sleep.rest_ticks = if rests { self.sleep.rest_ticks + 1 } else { 0 };
        match self.raft.role() {
            Role::Leader => self.tick_sleepy_leader(rests, context),
            Role::Follower => {
                self.tick_lonely(context);
                None
            }
            Role::Candidate | Role::PreCandidate => None,
        }
    }

    fn tick_sleepy_leader(&mut self, rests: bool, context: &Context<'_>) -> Option<Asleep> {
        if let State::Asking(asking) = &mut self.sleep.state {
            asking.ticks += 1;
            if !rests || asking.ticks > ask_ticks(context.config) {
                self.give_up_asking();
            }
            return None;
        }
        if self.sleep.rest_ticks < context.config.hibernate_ticks || !self.may_sleep(context) {
            return None;
        }
        let open: Vec<metapb::Peer> = self.live_others(context).copied().collect();
        if open.is_empty() {
            return Some(self.fall_asleep(context));
        }
        let index = self.raft.last_index();
        let kind = ExtraMessageType::MsgHibernateRequest;
        let requests: Vec<_> = open.iter().map(|peer| self.extra(peer, kind, index)).collect();
        self.notices.extend(requests);
        let open = open.iter().map(|peer| PeerId::from(peer.id)).collect();
        self.sleep.state = State::Asking(Box::new(Asking { index, ticks: 0, open }));
        None
    }

    /// Goes on as before; whoever sleeps already is woken.
    fn give_up_asking(&mut self) {
        self.sleep.state = State::Awake;
        self.sleep.rest_ticks = 0;
        self.raft.ping();
    }

    /// A follower that misses its leader asks whether it sleeps; one that knows none asks everybody, once.
    fn tick_lonely(&mut self, context: &Context<'_>) {
        let silence = self.raft.election_elapsed_ticks();
        if self.raft.leader_id().is_some() {
            if silence == ask_ticks(context.config) {
                self.wake_leader();
            }
        } else if silence == 1 {
            let me = self.me.id;
            let others = self.region.peers.iter().filter(|peer| peer.id != me);
            let kind = ExtraMessageType::MsgRegionWakeUp;
            let asked: Vec<_> = others.map(|peer| self.extra(peer, kind, LogIndex(0))).collect();
            self.notices.extend(asked);
        }
    }

    fn wake_leader(&mut self) {
        let leader = self.raft.leader_id().filter(|leader| leader.0 != self.me.id);
        let leader = leader.and_then(|id| self.find_peer(PeerId::from(id.0)));
        if let Some(leader) = leader {
            let message = self.extra(leader, ExtraMessageType::MsgRegionWakeUp, LogIndex(0));
            self.notices.push(message);
        }
    }

    /// The other peers on stores that are alive.
    fn live_others<'a>(
        &'a self,
        context: &'a Context<'_>,
    ) -> impl Iterator<Item = &'a metapb::Peer> {
        let others = self.region.peers.iter().filter(|peer| peer.id != self.me.id);
        others.filter(|peer| !context.stores.is_silent(StoreId::from(peer.store_id)))
    }

    /// Whether nothing is under way in this peer, whatever its role.
    fn is_at_rest(&self) -> bool {
        let (commit, last) = (self.raft.commit_index(), self.raft.last_index());
        commit == last
            && self.raft.persisted_index() == last
            && self.applied_index == last
            && self.writes_in_flight == 0
            && self.writes.is_empty()
            && self.proposals.len() == 0
            && self.reads.is_idle()
            && self.tasks.is_empty()
            && self.notices.is_empty()
            && self.questions.is_empty()
            && self.is_initialized()
            && !self.is_merging()
            && !self.registering
            && self.install.is_none()
            && self.received.is_none()
            && self.consistency.is_none()
            && !self.log_gc.has_compacted()
            && !self.raft.has_ready()
    }

    /// Whether this leader may sleep: nothing is under way, and every live peer has everything and knows that it is
    /// committed.
    fn may_sleep(&mut self, context: &Context<'_>) -> bool {
        let plain =
            |peer: &metapb::Peer| matches!(peer.role(), PeerRole::Voter | PeerRole::Learner);
        let settled = self.is_at_rest()
            && self.is_caught_up()
            && !self.is_transferring()
            && !self.is_changing_boundaries()
            && !self.size.is_busy(context.config)
            && self.is_settled()
            && self.farewells.is_empty()
            && !self.wants_snapshot()
            && self.snapshots_open() == 0
            && self.region.peers.iter().all(plain);
        if !settled {
            return false;
        }
        let live: Vec<PeerId> =
            self.live_others(context).map(|peer| PeerId::from(peer.id)).collect();
        let voters = self.region.peers.iter().filter(|peer| peer.role() == PeerRole::Voter);
        let (count, alive) = voters.fold((0, 0), |(count, alive), peer| {
            let lives = peer.id == self.me.id || live.contains(&PeerId::from(peer.id));
            (count + 1, alive + usize::from(lives))
        });
        let last = self.raft.last_index();
        let has_all = |progress: &ProgressStatus| {
            progress.state == ProgressState::Replicate
                && progress.matched == last
                && progress.commit == last
        };
        let progress = self.raft.status().progress;
        let mut alive_ones = progress.iter().filter(|p| live.contains(&PeerId::from(p.id.0)));
        2 * alive > count && (alive_ones.all(has_all) || planted(Bug::SleepWhileBehind))
    }

    /// The leader would like to sleep. The answer, if this peer sleeps from now on.
    pub(crate) fn on_hibernate_request(
        &mut self,
        from: &metapb::Peer,
        index: LogIndex,
        context: &Context<'_>,
    ) -> Option<(Asleep, RaftMessage)> {
        let follows = self.raft.role() == Role::Follower
            && self.raft.leader_id() == Some(NodeId(from.id))
            && context.config.hibernate_ticks > 0;
        let has_all = (self.is_at_rest() && self.raft.last_index() == index)
            || planted(Bug::SleepWhileBehind);
        if !follows || !has_all {
            return None;
        }
        let answer = self.extra(from, ExtraMessageType::MsgHibernateResponse, index);
        Some((self.fall_asleep(context), answer))
    }

    /// A follower sleeps. When it was the last one, so does this leader.
    pub(crate) fn on_hibernate_response(
        &mut self,
        from: &metapb::Peer,
        index: LogIndex,
        context: &Context<'_>,
    ) -> Option<Asleep> {
        let State::Asking(asking) = &mut self.sleep.state else { return None };
        if asking.index != index {
            return None;
        }
        asking.open.retain(|peer| *peer != PeerId::from(from.id));
        if !asking.open.is_empty() {
            return None;
        }
        let unchanged =
            self.sleep.seen == (self.raft.term(), self.raft.last_index(), self.sleep.stirs);
        if unchanged && self.is_leader() && self.may_sleep(context) {
            return Some(self.fall_asleep(context));
        }
        self.give_up_asking();
        None
    }

    fn fall_asleep(&mut self, context: &Context<'_>) -> Asleep {
        if let Some(lease) = &mut self.lease {
            lease.suspend();
        }
        self.show_lease(context);
        if planted(Bug::LeaseKeptAsleep)
            && let Some(delegate) = &self.delegate
        {
            delegate.set_lease(Some(crate::time::Instant::from_ns(u64::MAX)));
        }
        self.raft.storage_mut().trim_cache(self.applied_index, 0);
        self.proposals.shrink();
        self.sleep = Sleep { state: State::Asleep, stirs: self.sleep.stirs, ..Sleep::default() };
        let others = self.region.peers.iter().filter(|peer| peer.id != self.me.id);
        let silent = |store: &StoreId| self.is_leader() && context.stores.is_silent(*store);
        let others: Box<[StoreId]> = others.map(|peer| StoreId::from(peer.store_id)).collect();
        let without = others.iter().copied().filter(silent).collect();
        let leader = self.raft.leader_id().and_then(|id| self.find_peer(PeerId::from(id.0)));
        let leader = leader.filter(|_| !self.is_leader());
        Asleep { leader: leader.map(|peer| StoreId::from(peer.store_id)), others, without }
    }

    /// Something has come in for a sleeping peer. `by_leader`: its leader is awake.
    pub(crate) fn wake(&mut self, by_leader: bool, context: &Context<'_>) {
        self.hear_stores(context);
        self.sleep.state = State::Awake;
        self.sleep.rest_ticks = 0;
        if self.is_leader() {
            self.raft.ping();
        } else if !by_leader {
            self.wake_leader();
        }
    }

    /// Whether a message comes from the leader that this peer follows.
    pub(crate) fn follows(&self, message: &raft::Message) -> bool {
        self.raft.leader_id() == Some(message.from) && message.term >= self.raft.term()
    }

    /// Somebody asks this peer to be awake.
    pub(crate) fn on_wake_up(&mut self) {
        if self.sleep.is_asking() {
            self.give_up_asking();
        }
    }

    /// The store of this peer's leader has been silent for an election timeout: its patience is over. Those that could
    /// take over begin one after the other.
    pub(crate) fn give_up_leader(&mut self, context: &Context<'_>) {
        self.sleep.state = State::Awake;
        let rank = {
            let voters = self.live_others(context).filter(|peer| peer.role() == PeerRole::Voter);
            // Another order in each region, so that the leads are spread.
            let turn =
                |peer: u64| (peer.wrapping_add(self.id.get())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let me = turn(self.me.id);
            voters.filter(|peer| turn(peer.id) < me).count()
        };
        self.raft.give_up_leader(1 + rank as u32 * CAMPAIGN_STEP_TICKS);
        self.observe_lead(context);
    }

    /// While a region sleeps its peers say nothing, but their stores do.
    fn hear_stores(&mut self, context: &Context<'_>) {
        for peer in &self.region.peers {
            let tick = context.stores.heard_tick(StoreId::from(peer.store_id));
            self.heard.note_store(PeerId::from(peer.id), tick);
        }
    }

    /// A report is due of a peer that sleeps, or that is told to.
    pub(crate) fn report(&mut self, context: &Context<'_>) {
        if self.is_asleep() {
            self.hear_stores(context);
        }
        self.heartbeat_due = true;
    }

    /// From time to time even a sleeper says something: a leader reports to the scheduler; others ask whether they are still
    /// members, because the region may have gone on without them while nothing reached this store.
    pub(crate) fn speak_in_sleep(&mut self, context: &Context<'_>) {
        if self.is_leader() {
            self.report(context);
        } else {
            self.notices.extend(self.stale_questions());
        }
    }

    fn extra(&self, to: &metapb::Peer, kind: ExtraMessageType, index: LogIndex) -> RaftMessage {
        RaftMessage {
            region_id: self.id.get(),
            from_peer: Some(self.me),
            to_peer: Some(*to),
            region_epoch: self.region.region_epoch,
            extra_msg: Some(ExtraMessage {
                r#type: kind.into(),
                index: index.0,
                ..ExtraMessage::default()
            }),
            ..RaftMessage::default()
        }
    }
}

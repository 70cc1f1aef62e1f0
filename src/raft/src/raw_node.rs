//! The one type a driver holds: calls and messages in, [`Ready`] out.
//!
//! Order of calls: any number of inputs (`tick`, `step`, `propose`, …), then `ready` if
//! `has_ready`; the driver carries the Ready out as described there and reports back with
//! `advance_append_async`, `on_persist` and `advance_apply_to`, or, if it does everything at once,
//! with `advance`. Several Readies may be under way.

use bytes::Bytes;

use crate::core::Raft;
use crate::election::Campaign;
use crate::log::RaftLog;
use crate::planted::{Bug, planted};
use crate::writes::Write;
use crate::{
    ConfChangeV2, ConfState, Config, Error, HardState, LogIndex, Message, NodeId, Ready, Role,
    SoftState, Status, Storage, Term,
};

/// One member of a group.
pub struct RawNode<S: Storage> {
    raft: Raft<S>,
    /// Number of the last Ready.
    number: u64,
    /// As of the last Ready.
    soft_state: SoftState,
    /// As of the last Ready.
    hard_state: HardState,
}

impl<S: Storage> RawNode<S> {
    /// A node as its storage describes it, as a follower that knows no leader.
    pub fn new(config: &Config, storage: S) -> Result<RawNode<S>, Error> {
        let raft = Raft::new(config, storage)?;
        let (soft_state, hard_state) = (raft.soft_state(), raft.hard_state());
        Ok(RawNode { raft, number: 0, soft_state, hard_state })
    }

    /// One tick has passed. True if there is something to do.
    pub fn tick(&mut self) -> bool {
        self.raft.tick();
        self.has_ready()
    }

    /// Campaigns now, if this node may: it is a voter, has applied every committed membership
    /// change and, with `check_quorum`, has not promised to defend a leader. False if it may not,
    /// or leads already.
    pub fn campaign(&mut self) -> bool {
        self.raft.campaign(Campaign::Timeout)
    }

    /// Gives a node that has no membership and no log its beginning: everything up to `index`, whose
    /// term was `term`, is committed and applied. Its storage says so already. Its term and its vote
    /// stay, or the term rises to `term`.
    ///
    /// # Panics
    /// If the node has a log or a membership.
    pub fn begin_at(&mut self, index: LogIndex, term: Term, state: &ConfState) {
        self.raft.begin_at(index, term, state);
    }

    /// A message has come in. On an error it was dropped; the node is as before.
    pub fn step(&mut self, message: Message) -> Result<(), Error> {
        self.raft.step(message)
    }

    /// Proposes a command. Returns the index it will have if it is committed in this term.
    pub fn propose(&mut self, context: Bytes, data: Bytes) -> Result<LogIndex, Error> {
        self.raft.propose(context, data)
    }

    /// Proposes a membership change. Returns the index it will have if it is committed in this
    /// term.
    pub fn propose_conf_change(
        &mut self,
        context: Bytes,
        change: &ConfChangeV2,
    ) -> Result<LogIndex, Error> {
        self.raft.propose_conf_change(context, change)
    }

    /// Takes a committed membership change into effect; to be called when its entry is applied,
    /// before `advance_apply_to`. A driver that decides, as all its peers do, that the change shall
    /// have no effect does not call this.
    pub fn apply_conf_change(&mut self, change: &ConfChangeV2) -> Result<ConfState, Error> {
        self.raft.apply_conf_change(change)
    }

    /// Asks for a point at which a read is linearizable. The answer is a read state with this
    /// context, or the context among the dropped reads. Contexts should be unique.
    pub fn read_index(&mut self, context: Bytes) {
        self.raft.read_index(context);
    }

    /// Hands leadership to `to`; on a follower, asks the leader to.
    pub fn transfer_leader(&mut self, to: NodeId) {
        self.raft.transfer_leader(to);
    }

    /// A message to `id` could not be delivered.
    pub fn report_unreachable(&mut self, id: NodeId) {
        self.raft.report_unreachable(id);
    }

    /// The snapshot sent to `id` was delivered, or was not. Until this is called, or `id` answers,
    /// it is sent nothing.
    pub fn report_snapshot(&mut self, id: NodeId, ok: bool) {
        self.raft.report_snapshot(id, ok);
    }

    /// Asks the leader for a snapshot, to replace a state machine that is damaged.
    pub fn request_snapshot(&mut self) -> Result<(), Error> {
        self.raft.request_snapshot()
    }

    /// Somebody knows the entry at `index`, of `term`, to be committed: so does this node, if it has
    /// that very entry. Returns whether its commit index is there now.
    pub fn learn_commit(&mut self, index: LogIndex, term: Term) -> bool {
        self.raft.learn_commit(index, term);
        self.raft.log.committed() >= index
    }

    /// The leader has been silent for an election timeout, as the driver knows from somewhere else than this node's ticks:
    /// forgets it, owes it no patience any more, and campaigns after `wait_ticks`. Only a follower that knows a leader does.
    pub fn give_up_leader(&mut self, wait_ticks: u32) {
        self.raft.give_up_leader(wait_ticks);
    }

    /// Sends heartbeats now, if this node leads.
    pub fn ping(&mut self) {
        if self.raft.role == Role::Leader {
            self.raft.heartbeat();
        }
    }

    /// Whether `ready` would have anything to say.
    pub fn has_ready(&self) -> bool {
        let raft = &self.raft;
        !raft.messages.is_empty()
            || !raft.persisted_messages.is_empty()
            || raft.replicate_due
            || raft.reads.needs_round()
            || raft.log.tail.has_unwritten_entries()
            || raft.log.tail.has_unwritten_snapshot()
            || raft.log.applicable() > raft.log.handed_out
            || raft.hard_state() != self.hard_state
            || raft.soft_state() != self.soft_state
            || !raft.read_states.is_empty()
            || !raft.dropped_reads.is_empty()
    }

    /// Takes everything there is to do. Panics if the storage cannot read its own log: the node
    /// must not go on.
    pub fn ready(&mut self) -> Ready {
        self.number += 1;
        let raft = &mut self.raft;
        raft.replicate();
        raft.begin_read_round();
        let mut ready = Ready { number: self.number, ..Ready::default() };

        let soft_state = raft.soft_state();
        ready.soft_state = (soft_state != self.soft_state).then_some(soft_state);
        self.soft_state = soft_state;

        let hard_state = raft.hard_state();
        let promised =
            (hard_state.term, hard_state.vote) != (self.hard_state.term, self.hard_state.vote);
        ready.hard_state = (hard_state != self.hard_state).then_some(hard_state);
        self.hard_state = hard_state;

        ready.snapshot = raft.log.tail.take_unwritten_snapshot();
        ready.entries = raft.log.tail.take_unwritten();
        let must_sync_state = promised && !planted(Bug::HardStateNotSynced);
        ready.must_sync = must_sync_state || !ready.entries.is_empty() || ready.snapshot.is_some();
        if ready.has_write() {
            raft.writes.push(Write {
                number: ready.number,
                last_index: ready.entries.last().map(|entry| entry.index),
                snapshot_index: ready.snapshot.as_ref().map(|snapshot| snapshot.index),
                term: ready.hard_state.map(|state| state.term),
            });
        }

        ready.committed_entries = raft.take_committed();
        ready.read_states = std::mem::take(&mut raft.read_states);
        ready.dropped_reads = std::mem::take(&mut raft.dropped_reads);
        ready.messages = std::mem::take(&mut raft.messages);
        ready.persisted_messages = std::mem::take(&mut raft.persisted_messages);
        if cfg!(debug_assertions) {
            raft.check_invariants();
        }
        ready
    }

    /// The write of this Ready is under way.
    pub fn advance_append_async(&mut self, ready: &Ready) {
        assert!(ready.number <= self.number, "a Ready this node never made");
    }

    /// Everything up to and including Ready `number` is durable and readable through the storage.
    pub fn on_persist(&mut self, number: u64) {
        assert!(number <= self.number, "a Ready this node never made");
        self.raft.on_persist(number);
    }

    /// Everything up to `index` is applied: committed entries handed out, or a snapshot.
    pub fn advance_apply_to(&mut self, index: LogIndex) {
        self.raft.log.applied_to(index);
        self.raft.leave_joint_if_due();
    }

    /// For drivers that write, sync and apply a Ready before they go on: all of it is done.
    pub fn advance(&mut self, ready: Ready) {
        self.advance_append_async(&ready);
        self.on_persist(ready.number);
        let snapshot = ready.snapshot.map(|snapshot| snapshot.index);
        if let Some(index) = ready.committed_entries.last().map(|entry| entry.index).or(snapshot) {
            self.advance_apply_to(index);
        }
    }

    /// The log as this node sees it, written or not.
    pub fn log(&self) -> &RaftLog<S> {
        &self.raft.log
    }

    /// The storage given to `new`.
    pub fn storage(&self) -> &S {
        &self.raft.log.storage
    }

    /// The storage given to `new`, for the driver's writes.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.raft.log.storage
    }

    /// Everything worth showing. Allocates; not for the hot path.
    pub fn status(&self) -> Status {
        let raft = &self.raft;
        let leads = raft.role == Role::Leader;
        Status {
            id: raft.id,
            term: raft.term,
            vote: raft.vote,
            role: raft.role,
            leader: raft.leader,
            commit: raft.log.committed,
            applied: raft.log.applied,
            persisted: raft.log.persisted,
            first_index: raft.log.first_index(),
            last_index: raft.log.last_index(),
            last_term: raft.log.last_term(),
            conf_state: raft.tracker.membership().conf_state(),
            transferee: raft.transferee,
            lease_void: raft.lease_void,
            election_elapsed_ticks: raft.election_elapsed_ticks,
            election_timeout_ticks: raft.election_timeout_ticks,
            pending_reads: raft.reads.len(),
            progress: if leads { raft.tracker.status(raft.window_max()) } else { Vec::new() },
        }
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.raft.id
    }

    /// Its role.
    pub fn role(&self) -> Role {
        self.raft.role
    }

    /// The leader it knows.
    pub fn leader_id(&self) -> Option<NodeId> {
        self.raft.leader
    }

    /// Ticks since the last sign of a leader (on a leader: since the last quorum check).
    pub fn election_elapsed_ticks(&self) -> u32 {
        self.raft.election_elapsed_ticks
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.raft.term
    }

    /// Highest index it knows to be committed.
    pub fn commit_index(&self) -> LogIndex {
        self.raft.log.committed
    }

    /// Highest index reported as applied.
    pub fn applied_index(&self) -> LogIndex {
        self.raft.log.applied
    }

    /// Highest index known to be on its own disk.
    pub fn persisted_index(&self) -> LogIndex {
        self.raft.log.persisted
    }

    /// Index of the last entry of its log.
    pub fn last_index(&self) -> LogIndex {
        self.raft.log.last_index()
    }

    /// Whether an entry of its own term is committed on this leader: only then is its commit index
    /// the group's.
    pub fn is_term_committed(&self) -> bool {
        self.raft.role == Role::Leader && self.raft.is_term_committed()
    }
}

//! The state of one node and the transitions between roles. What a role does lives in a file of its
//! own.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use bytes::Bytes;

use crate::conf_change::Membership;
use crate::error::ConfigError;
use crate::log::RaftLog;
use crate::planted::{Bug, planted};
use crate::progress::WindowMax;
use crate::reads::{ForwardedReads, LeaderReads};
use crate::tracker::Tracker;
use crate::writes::Writes;
use crate::{
    Config, Entry, EntryKind, Error, HardState, LogIndex, Message, MessageBody, NodeId, ReadState,
    Role, SoftState, Storage, StorageError, Term,
};

/// One node: everything but the bookkeeping of Readies.
pub(crate) struct Raft<S> {
    pub(crate) config: Config,
    pub(crate) id: NodeId,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    pub(crate) role: Role,
    pub(crate) leader: Option<NodeId>,
    pub(crate) log: RaftLog<S>,
    pub(crate) tracker: Tracker,
    pub(crate) writes: Writes,

    pub(crate) election_elapsed_ticks: u32,
    pub(crate) election_timeout_ticks: u32,
    pub(crate) heartbeat_elapsed_ticks: u32,
    /// For how long this node still defends the leader it last heard, or may have heard before it
    /// restarted.
    pub(crate) defends_ticks: u32,

    /// Leader: index of the first entry of its own term.
    pub(crate) term_start: LogIndex,
    /// Leader: no membership change is pending once this is applied.
    pub(crate) pending_conf_index: LogIndex,
    /// Leader: to whom leadership is being handed over.
    pub(crate) transferee: Option<NodeId>,
    /// Leader: another node was told to campaign in this term.
    pub(crate) lease_void: bool,
    /// Leader: payload bytes proposed in this term and not handed out for applying.
    pub(crate) uncommitted_bytes: u64,
    /// Leader: followers may need entries or the commit index; looked at when the next Ready is
    /// made.
    pub(crate) replicate_due: bool,
    pub(crate) reads: LeaderReads,
    pub(crate) forwarded: ForwardedReads,
    /// Follower: not 0 if it asked for a snapshot at or after this index.
    pub(crate) requested_snapshot: LogIndex,

    pub(crate) read_states: Vec<ReadState>,
    pub(crate) dropped_reads: Vec<Bytes>,
    pub(crate) messages: Vec<Message>,
    pub(crate) persisted_messages: Vec<Message>,
    rng: ChaCha8Rng,
}

impl<S: Storage> Raft<S> {
    pub(crate) fn new(config: &Config, storage: S) -> Result<Raft<S>, Error> {
        config.validate()?;
        let initial = storage.initial_state()?;
        let hard_state = initial.hard_state;
        let membership = Membership::restore(&initial.conf_state)
            .map_err(|error| StorageError::Corrupt(format!("membership: {error}")))?;
        let mut log = RaftLog::new(storage)?;
        load_positions(&mut log, hard_state, config)?;
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let nonce = rng.next_u64();
        let mut raft = Raft {
            config: config.clone(),
            id: config.id,
            term: hard_state.term,
            vote: hard_state.vote,
            role: Role::Follower,
            leader: None,
            tracker: Tracker::new(membership, log.last_index().next()),
            log,
            writes: Writes::new(hard_state.term),
            election_elapsed_ticks: 0,
            election_timeout_ticks: 0,
            heartbeat_elapsed_ticks: 0,
            defends_ticks: 0,
            term_start: LogIndex(0),
            pending_conf_index: LogIndex(0),
            transferee: None,
            lease_void: false,
            uncommitted_bytes: 0,
            replicate_due: false,
            reads: LeaderReads::default(),
            forwarded: ForwardedReads::new(nonce),
            requested_snapshot: LogIndex(0),
            read_states: Vec::new(),
            dropped_reads: Vec::new(),
            messages: Vec::new(),
            persisted_messages: Vec::new(),
            rng,
        };
        raft.draw_election_timeout();
        if raft.may_have_promised() && !planted(Bug::RestartVotesAtOnce) {
            raft.defends_ticks = config.election_timeout_ticks;
        }
        Ok(raft)
    }

    /// Whether this node may have told a leader, before it restarted, that it would defend it.
    fn may_have_promised(&self) -> bool {
        let log = &self.log;
        let untouched = self.vote.is_none()
            && self.term == log.last_term()
            && log.last_index() == log.first_index().prev()
            && [LogIndex(0), self.config.bootstrap_index].contains(&log.last_index());
        self.config.check_quorum && self.config.vote_cooldown_after_restart && !untouched
    }

    pub(crate) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed }
    }

    pub(crate) fn soft_state(&self) -> SoftState {
        SoftState { leader: self.leader, role: self.role }
    }

    pub(crate) fn window_max(&self) -> WindowMax {
        WindowMax {
            messages: self.config.inflight_messages_max,
            bytes: self.config.inflight_bytes_max,
        }
    }

    /// Whether this node may campaign: a voter that is not waiting for a snapshot to reach its
    /// disk.
    pub(crate) fn is_promotable(&self) -> bool {
        self.tracker.is_voter(self.id) && self.log.tail.snapshot.is_none()
    }

    pub(crate) fn is_only_voter(&self) -> bool {
        self.tracker.membership().voters.is_only(self.id)
    }

    /// Whether votes are refused because a leader was heard less than an election timeout ago.
    pub(crate) fn defends_leader(&self) -> bool {
        self.config.check_quorum && (self.role == Role::Leader || self.defends_ticks > 0)
    }

    /// Queues a message of this term.
    pub(crate) fn send(&mut self, to: NodeId, body: MessageBody) {
        self.send_in_term(to, self.term, body);
    }

    /// Queues a message. What a durable leader says to replicate and to lead may leave at once
    /// (thesis §10.2.1), and so may what promises nothing; all else waits for the Ready it is part
    /// of to be durable.
    pub(crate) fn send_in_term(&mut self, to: NodeId, term: Term, body: MessageBody) {
        let at_once = match &body {
            MessageBody::Propose(_)
            | MessageBody::ReadIndex { .. }
            | MessageBody::TransferLeader => true,
            MessageBody::Append(_)
            | MessageBody::Heartbeat { .. }
            | MessageBody::Snapshot(_)
            | MessageBody::TimeoutNow
            | MessageBody::ReadIndexResponse { .. } => self.writes.durable_term == self.term,
            MessageBody::AppendResponse(_)
            | MessageBody::HeartbeatResponse { .. }
            | MessageBody::RequestVote(_)
            | MessageBody::RequestVoteResponse(_)
            | MessageBody::RequestPreVote(_)
            | MessageBody::RequestPreVoteResponse(_) => planted(Bug::AckBeforePersist),
        };
        let queue = if at_once { &mut self.messages } else { &mut self.persisted_messages };
        queue.push(Message { to, from: self.id, term, body });
    }

    pub(crate) fn draw_election_timeout(&mut self) {
        let base = self.config.election_timeout_ticks;
        // The bias of a modulo by a small number is far below what an election timeout could
        // notice.
        self.election_timeout_ticks = base + (self.rng.next_u64() % u64::from(base)) as u32;
    }

    /// Notes a sign of life of this term's leader, which from now on is defended for an election
    /// timeout.
    pub(crate) fn heard_leader(&mut self) {
        self.election_elapsed_ticks = 0;
        self.defends_ticks = self.config.election_timeout_ticks;
    }

    /// Gives up a leader that is known, by other means than ticks, to have been silent for an election timeout.
    pub(crate) fn give_up_leader(&mut self, wait_ticks: u32) {
        if self.role != Role::Follower || self.leader.is_none() {
            return;
        }
        self.leader = None;
        self.defends_ticks = 0;
        self.election_elapsed_ticks = self.election_timeout_ticks.saturating_sub(wait_ticks);
        self.dropped_reads.extend(self.forwarded.reset());
    }

    /// Leaves whatever role it had, for `term`.
    fn reset(&mut self, term: Term) {
        assert!(term >= self.term, "terms never fall");
        if term != self.term {
            self.term = term;
            self.vote = None;
        }
        if self.role == Role::Leader {
            self.tracker.reset(self.log.last_index().next());
        }
        self.leader = None;
        self.election_elapsed_ticks = 0;
        self.heartbeat_elapsed_ticks = 0;
        self.draw_election_timeout();
        self.tracker.clear_votes();
        self.term_start = LogIndex(0);
        self.pending_conf_index = LogIndex(0);
        self.transferee = None;
        self.lease_void = false;
        self.uncommitted_bytes = 0;
        self.replicate_due = false;
        self.dropped_reads.extend(self.reads.reset());
        self.dropped_reads.extend(self.forwarded.reset());
    }

    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        self.reset(term);
        self.role = Role::Follower;
        self.leader = leader;
    }

    pub(crate) fn become_pre_candidate(&mut self) {
        assert_ne!(self.role, Role::Leader);
        self.reset(self.term);
        self.role = Role::PreCandidate;
    }

    pub(crate) fn become_candidate(&mut self) {
        assert_ne!(self.role, Role::Leader);
        self.reset(self.term.next());
        self.role = Role::Candidate;
        self.vote = Some(self.id);
    }

    /// Starts to lead, with an empty entry of its own term: only that commits what earlier terms
    /// left (thesis §3.6.2).
    pub(crate) fn become_leader(&mut self) {
        assert_eq!(self.role, Role::Candidate);
        self.reset(self.term);
        self.role = Role::Leader;
        self.leader = Some(self.id);
        let last = self.log.last_index();
        self.tracker.reset(last.next());
        self.pending_conf_index = last;
        self.term_start = last.next();
        let persisted = self.log.persisted;
        if let Some(own) = self.tracker.get_mut(self.id) {
            own.become_replicate();
            own.acknowledge(persisted);
        }
        for (_, progress) in self.tracker.iter_mut() {
            // Nobody has had a chance to speak up before the first quorum check.
            progress.recent_active = true;
        }
        self.append_own(EntryKind::Normal, Bytes::new(), Bytes::new());
    }

    /// Adds an entry of this leader's term to its log.
    pub(crate) fn append_own(&mut self, kind: EntryKind, context: Bytes, data: Bytes) -> LogIndex {
        assert_eq!(self.role, Role::Leader);
        let index = self.log.last_index().next();
        self.log.extend([Entry { index, term: self.term, kind, data, context }]);
        self.replicate_due = true;
        index
    }

    pub(crate) fn check_invariants(&self) {
        self.log.check_invariants();
        assert!(self.log.last_term() <= self.term, "an entry is newer than the term");
        if self.role == Role::Leader {
            self.tracker.check_invariants();
            assert_eq!(self.vote, Some(self.id), "a leader voted for itself");
        }
    }
}

/// Takes over commit and applied index, if they fit the log.
fn load_positions<S: Storage>(
    log: &mut RaftLog<S>,
    hard_state: HardState,
    config: &Config,
) -> Result<(), Error> {
    let (start, last_index) = (log.first_index().prev(), log.last_index());
    let applied = config.applied.max(start);
    if applied > last_index {
        return Err(ConfigError::AppliedBeyondLog { applied, last_index }.into());
    }
    // The stored commit index may lag behind: it is not synced for its own sake.
    let commit = hard_state.commit.max(applied);
    if commit > last_index {
        let text = format!("commit index {commit} is beyond the last entry {last_index}");
        return Err(StorageError::Corrupt(text).into());
    }
    if log.last_term() > hard_state.term {
        let (last, term) = (log.last_term(), hard_state.term);
        let text = format!("last entry has term {last}, the hard state {term}");
        return Err(StorageError::Corrupt(text).into());
    }
    (log.committed, log.handed_out, log.applied) = (commit, applied, applied);
    Ok(())
}

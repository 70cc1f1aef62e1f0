//! Linearizable reads without log entries (thesis §6.4).
//!
//! Vocabulary: a *round* is one broadcast of heartbeats that carry the same context, the term and a
//! sequence number; it serves every read that came before it. A majority's answers to a round, or
//! to any later one, prove that this node led when the round began.
//!
//! Invariants: 1. a context is used for one round of one term only, so neither a duplicated nor a
//! late answer can confirm a read that came after its round; 2. no read is answered before an entry
//! of the leader's own term is committed; 3. every read ends: in a read state, or in
//! `Ready::dropped_reads`; 4. an answer from the leader counts only for a question of this run of
//! this node that is still open. Tests: `testscripts/read_*`.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::core::Raft;
use crate::planted::{Bug, planted};
use crate::{LogIndex, MessageBody, NodeId, ReadOnlyOption, ReadState, Role, Storage, Term};

/// Reads that wait at one node; more are dropped, visibly.
const WAITING_READS_MAX: usize = 65_536;
/// Bytes of a round's context, and of the prefix of a forwarded read's.
const CONTEXT_BYTES: usize = 16;

/// A read of this node (`from` is none) or of another one.
#[derive(Clone, Debug)]
struct Read {
    round: u64,
    index: LogIndex,
    from: Option<NodeId>,
    context: Bytes,
}

/// Reads a leader has to confirm.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaderReads {
    /// The last round begun in this term.
    round: u64,
    /// Waiting for a round, in order of rounds.
    waiting: VecDeque<Read>,
    /// Waiting for the first commit of the term.
    postponed: Vec<(Option<NodeId>, Bytes)>,
    /// The newest round each member has answered.
    acks: Vec<(NodeId, u64)>,
    /// Rounds begun and the tick at which they were, for the lease.
    begun: VecDeque<(u64, u64)>,
    /// Ticks of this leadership.
    pub(crate) tick: u64,
    /// The tick from which on no lease holds.
    lease_end_tick: u64,
}

impl LeaderReads {
    /// Whether a read waits for a round that has not begun.
    pub(crate) fn needs_round(&self) -> bool {
        self.waiting.back().is_some_and(|read| read.round > self.round)
    }

    /// Reads not answered yet.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.postponed.len()
    }

    fn ack(&self, id: NodeId) -> u64 {
        self.acks.iter().find(|(node, _)| *node == id).map_or(0, |(_, round)| *round)
    }

    fn record_ack(&mut self, id: NodeId, round: u64) {
        match self.acks.iter_mut().find(|(node, _)| *node == id) {
            Some((_, newest)) => *newest = round.max(*newest),
            None => self.acks.push((id, round)),
        }
    }

    /// Ends the leadership. Returns the contexts of this node's reads that were not answered.
    pub(crate) fn reset(&mut self) -> Vec<Bytes> {
        let reads = std::mem::take(self);
        let waiting = reads.waiting.into_iter().map(|read| (read.from, read.context));
        let all = waiting.chain(reads.postponed);
        all.filter(|(from, _)| from.is_none()).map(|(_, context)| context).collect()
    }
}

/// Reads a follower has forwarded to the leader.
#[derive(Clone, Debug)]
pub(crate) struct ForwardedReads {
    /// Differs between two starts of this node, if their seeds do.
    nonce: u64,
    sequence: u64,
    open: VecDeque<(u64, u32, Bytes)>,
}

impl ForwardedReads {
    pub(crate) fn new(nonce: u64) -> ForwardedReads {
        ForwardedReads { nonce, sequence: 0, open: VecDeque::new() }
    }

    /// Notes a read; returns the context to send.
    fn open(&mut self, context: &Bytes) -> Bytes {
        self.sequence += 1;
        self.open.push_back((self.sequence, 0, context.clone()));
        let mut sent = BytesMut::with_capacity(CONTEXT_BYTES + context.len());
        sent.put_u64(self.nonce);
        sent.put_u64(self.sequence);
        sent.extend_from_slice(context);
        sent.freeze()
    }

    /// The caller's context of an open read that the leader has answered.
    pub(crate) fn answer(&mut self, sent: &Bytes) -> Option<Bytes> {
        let (nonce, sequence) = split_context(sent)?;
        let at = self.open.iter().position(|(open, ..)| *open == sequence)?;
        let genuine = nonce == self.nonce && self.open[at].2 == sent[CONTEXT_BYTES..];
        if genuine { self.open.remove(at).map(|(_, _, context)| context) } else { None }
    }

    /// One tick has passed. Returns the contexts of reads that waited for longer than
    /// `age_ticks_max`.
    pub(crate) fn tick(&mut self, age_ticks_max: u32) -> Vec<Bytes> {
        for (_, age_ticks, _) in &mut self.open {
            *age_ticks += 1;
        }
        let old = self.open.iter().take_while(|(_, age_ticks, _)| *age_ticks > age_ticks_max);
        let count = old.count();
        self.open.drain(..count).map(|(_, _, context)| context).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Leader or term changed: gives up all open reads and returns their contexts.
    pub(crate) fn reset(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.open).into_iter().map(|(_, _, context)| context).collect()
    }
}

fn split_context(context: &[u8]) -> Option<(u64, u64)> {
    let (first, rest) = context.split_first_chunk::<8>()?;
    let (second, _) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*first), u64::from_be_bytes(*second)))
}

fn round_context(term: Term, round: u64) -> Bytes {
    let mut context = BytesMut::with_capacity(CONTEXT_BYTES);
    context.put_u64(term.0);
    context.put_u64(round);
    context.freeze()
}

fn pop_confirmed<T>(queue: &mut VecDeque<T>, confirmed: impl Fn(&T) -> bool) -> Option<T> {
    if queue.front().is_some_and(confirmed) { queue.pop_front() } else { None }
}

impl<S: Storage> Raft<S> {
    /// A read of this node.
    pub(crate) fn read_index(&mut self, context: Bytes) {
        match (self.role, self.leader) {
            (Role::Leader, _) => self.lead_read(None, context),
            (_, Some(leader)) if self.forwarded.open.len() < WAITING_READS_MAX => {
                let context = self.forwarded.open(&context);
                self.send_in_term(leader, Term(0), MessageBody::ReadIndex { context });
            }
            _ => self.dropped_reads.push(context),
        }
    }

    /// A read that this leader confirms, its own or another node's.
    pub(crate) fn lead_read(&mut self, from: Option<NodeId>, context: Bytes) {
        if self.reads.len() >= WAITING_READS_MAX {
            self.drop_read(from, context);
        } else if !self.is_term_committed() && !planted(Bug::ReadIndexBeforeOwnTermCommit) {
            // Until then this leader's commit index may lag behind what its predecessors have
            // acknowledged.
            self.reads.postponed.push((from, context));
        } else if self.is_only_voter() || self.holds_lease() {
            self.answer_read(from, self.log.committed, context);
        } else {
            let (round, index) = (self.reads.round + 1, self.log.committed);
            self.reads.waiting.push_back(Read { round, index, from, context });
        }
    }

    fn holds_lease(&self) -> bool {
        self.config.read_only == ReadOnlyOption::LeaseBased
            && !self.lease_void
            && self.transferee.is_none()
            && self.reads.tick < self.reads.lease_end_tick
    }

    fn drop_read(&mut self, from: Option<NodeId>, context: Bytes) {
        // Another node's read ends there, by age.
        if from.is_none() {
            self.dropped_reads.push(context);
        }
    }

    fn answer_read(&mut self, from: Option<NodeId>, index: LogIndex, context: Bytes) {
        match from {
            None => self.read_states.push(ReadState { index, context }),
            Some(id) => self.send(id, MessageBody::ReadIndexResponse { index, context }),
        }
    }

    /// The first entry of this term is committed: reads that waited for it go on.
    pub(crate) fn release_postponed_reads(&mut self) {
        for (from, context) in std::mem::take(&mut self.reads.postponed) {
            self.lead_read(from, context);
        }
    }

    /// Begins the round that waiting reads need.
    pub(crate) fn begin_read_round(&mut self) {
        if self.role == Role::Leader && self.reads.needs_round() {
            let context = self.next_round();
            self.send_heartbeats(&context);
        }
    }

    fn next_round(&mut self) -> Bytes {
        self.reads.round += 1;
        if self.config.read_only == ReadOnlyOption::LeaseBased {
            self.reads.begun.push_back((self.reads.round, self.reads.tick));
        }
        round_context(self.term, self.reads.round)
    }

    /// What a regular heartbeat carries: the awaited round again, or a new one that keeps the
    /// lease.
    pub(crate) fn round_context_for_heartbeat(&mut self) -> Bytes {
        if self.config.read_only == ReadOnlyOption::LeaseBased || self.reads.needs_round() {
            self.next_round()
        } else if !self.reads.waiting.is_empty() {
            round_context(self.term, self.reads.round)
        } else {
            Bytes::new()
        }
    }

    /// A member has answered a heartbeat.
    pub(crate) fn take_read_ack(&mut self, from: NodeId, context: &Bytes) {
        let Some((term, mut round)) = split_context(context) else { return };
        if planted(Bug::ReadIndexStaleContext) {
            round = self.reads.round;
        }
        if context.len() == CONTEXT_BYTES && term == self.term.0 && round <= self.reads.round {
            self.reads.record_ack(from, round);
            self.confirm_reads();
        }
    }

    /// Answers the reads whose round a majority has answered.
    pub(crate) fn confirm_reads(&mut self) {
        let own = self.id;
        let voters = &self.tracker.membership().voters;
        let ack = |id| if id == own { u64::MAX } else { self.reads.ack(id) };
        let confirmed = voters.reached(ack).min(self.reads.round);
        while let Some((_, tick)) =
            pop_confirmed(&mut self.reads.begun, |begun| begun.0 <= confirmed)
        {
            // The voters defend this leader from when they heard the round, which is after it
            // began. One tick for phase.
            let lease_ticks = u64::from(self.config.election_timeout_ticks) - 1;
            self.reads.lease_end_tick = self.reads.lease_end_tick.max(tick + lease_ticks);
        }
        while let Some(read) =
            pop_confirmed(&mut self.reads.waiting, |read| read.round <= confirmed)
        {
            self.answer_read(read.from, read.index, read.context);
        }
    }
}

//! Reads that no lease covers: one round of heartbeats confirms the lead for all that wait (Raft thesis §6.4).
//!
//! A read waits → a round starts at the end of the turn and takes all that wait → Raft confirms it (`ReadState`) with an
//! index → when that index is applied here, every read of the round gets its permit. A confirmed round also vouches for the
//! rounds before it: they started earlier. A round that started at `t` and was confirmed renews the lease from `t`.
//!
//! No read waits for ever (R16): losing the lead answers all; a round that stays unconfirmed is followed by another one;
//! a read older than the deadline is answered "not ready".

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use raft::{LogIndex, ReadState};

use super::{Context, Peer};
use crate::config::{READ_ROUNDS_MAX, ReadMode, WAITING_READS_MAX};
use crate::error::RegionError;
use crate::local_reader::ReadPermit;
use crate::msg::{ReadRequest, RequestHeader};
use crate::planted::{Bug, planted};
use crate::reply::Reply;
use crate::time::Instant;

/// A read on its way.
#[derive(Debug)]
pub(super) struct WaitingRead {
    header: RequestHeader,
    reply: Reply<ReadPermit>,
    /// Ticks it has waited.
    age_ticks: u32,
}

/// One confirmation under way.
#[derive(Debug)]
struct Round {
    number: u64,
    started: Instant,
    age_ticks: u32,
    reads: Vec<WaitingRead>,
}

/// The reads of one region.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: Vec<WaitingRead>,
    /// Unconfirmed, oldest first.
    rounds: VecDeque<Round>,
    /// Confirmed, to be let through once their index is applied; in the order of their confirmation.
    confirmed: VecDeque<(LogIndex, Vec<WaitingRead>)>,
    last_round: u64,
    waiting_count: usize,
}

impl Reads {
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether nobody waits, and no round is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.rounds.is_empty() && self.confirmed.is_empty()
    }

    /// Whether a turn has something to do here.
    fn wants_round(&self) -> bool {
        self.has_waiting() && self.rounds.len() < READ_ROUNDS_MAX
    }

    /// Every reply, for an answer that ends the wait.
    pub(super) fn take_replies(&mut self) -> Vec<Reply<ReadPermit>> {
        let rounds = self.rounds.drain(..).flat_map(|round| round.reads);
        let confirmed = self.confirmed.drain(..).flat_map(|(_, reads)| reads);
        let reads = self.waiting.drain(..).chain(rounds).chain(confirmed);
        self.waiting_count = 0;
        reads.map(|read| read.reply).collect()
    }

    /// A tick has passed: takes out what has waited longer than `deadline_ticks`. Returns those, and whether an
    /// unconfirmed round deserves a successor.
    fn tick(&mut self, deadline_ticks: u32, retry_ticks: u32) -> (Vec<WaitingRead>, bool) {
        let mut late = Vec::new();
        let rounds = self.rounds.iter_mut().map(|round| &mut round.reads);
        let confirmed = self.confirmed.iter_mut().map(|(_, reads)| reads);
        for reads in std::iter::once(&mut self.waiting).chain(rounds).chain(confirmed) {
            reads.iter_mut().for_each(|read| read.age_ticks += 1);
            late.extend(reads.extract_if(.., |read| read.age_ticks > deadline_ticks));
        }
        self.waiting_count -= late.len();
        self.rounds.iter_mut().for_each(|round| round.age_ticks += 1);
        self.rounds.retain(|round| !round.reads.is_empty() || round.age_ticks <= deadline_ticks);
        let retry = self.rounds.back().is_some_and(|round| round.age_ticks >= retry_ticks);
        (late, retry)
    }
}

/// What Raft is given to recognise a round: unique for the leadership, because the number never repeats in a process and
/// another process's leadership is another term.
fn round_context(term: raft::Term, number: u64) -> Bytes {
    let mut context = BytesMut::with_capacity(16);
    context.put_u64(term.0);
    context.put_u64(number);
    context.freeze()
}

fn round_number(context: &[u8]) -> Option<u64> {
    let number: [u8; 8] = context.get(8..16)?.try_into().ok()?;
    Some(u64::from_be_bytes(number))
}

impl Peer {
    /// A client's read: answered at once if it cannot succeed, else it waits for the turn.
    pub(crate) fn queue_read(&mut self, read: ReadRequest, context: &Context<'_>) {
        let ReadRequest { header, reply } = read;
        if let Err(error) = self.check_leader(&header, context) {
            return reply.fail(error);
        }
        if self.reads.waiting_count >= WAITING_READS_MAX {
            return reply.fail(RegionError::ReadIndexNotReady { region: self.id });
        }
        self.sleep.stir();
        self.reads.waiting_count += 1;
        self.reads.waiting.push(WaitingRead { header, reply, age_ticks: 0 });
    }

    /// Starts a round for all that wait.
    pub(super) fn start_read_round(&mut self, context: &Context<'_>) {
        if self.reads.wants_round() {
            self.force_read_round(context.now);
        }
    }

    fn force_read_round(&mut self, now: Instant) {
        self.reads.last_round += 1;
        let number = self.reads.last_round;
        self.raft.read_index(round_context(self.raft.term(), number));
        let reads = std::mem::take(&mut self.reads.waiting);
        self.reads.rounds.push_back(Round { number, started: now, age_ticks: 0, reads });
    }

    /// Raft has confirmed a round.
    pub(super) fn on_read_state(&mut self, state: &ReadState, context: &Context<'_>) {
        let Some(number) = round_number(&state.context) else { return };
        let mut confirmed = Vec::new();
        let mut started = None;
        while self.reads.rounds.front().is_some_and(|round| round.number <= number) {
            if let Some(round) = self.reads.rounds.pop_front() {
                started = (round.number == number).then_some(round.started);
                confirmed.extend(round.reads);
            }
        }
        if let Some(started) = started {
            self.renew_lease(started, context);
        }
        if !confirmed.is_empty() {
            self.reads.confirmed.push_back((state.index, confirmed));
        }
        self.release_reads();
    }

    /// Raft has given a round up; its reads wait for another one.
    pub(super) fn on_read_dropped(&mut self, context: &[u8]) {
        let Some(number) = round_number(context) else { return };
        if let Some(at) = self.reads.rounds.iter().position(|round| round.number == number)
            && let Some(round) = self.reads.rounds.remove(at)
        {
            self.reads.waiting.extend(round.reads);
        }
    }

    /// Lets through every confirmed read whose index is applied.
    pub(super) fn release_reads(&mut self) {
        while let Some((index, _)) = self.reads.confirmed.front() {
            if *index > self.applied_index && !planted(Bug::ReadBeforeApplied) {
                return;
            }
            let Some(delegate) = self.permit_delegate() else { return };
            let Some((_, reads)) = self.reads.confirmed.pop_front() else { return };
            self.reads.waiting_count -= reads.len();
            for WaitingRead { header, reply, .. } in reads {
                match self.check_version(&header) {
                    Ok(()) => reply.send(Ok(ReadPermit::new(delegate.clone()))),
                    Err(error) => reply.fail(error),
                }
            }
        }
    }

    /// A tick has passed for the reads, and for a lease that is in use and about to end.
    pub(super) fn tick_reads(&mut self, context: &Context<'_>) {
        let config = context.config;
        let (late, retry) = self.reads.tick(config.read_deadline_ticks, 2 * config.heartbeat_ticks);
        for read in late {
            read.reply.fail(RegionError::ReadIndexNotReady { region: self.id });
        }
        let used = self.delegate.as_ref().is_some_and(|delegate| delegate.take_used());
        if used || !self.reads.is_idle() {
            self.sleep.stir();
        }
        let lease = self.lease.filter(|_| config.reads == ReadMode::Lease);
        let renew = used && lease.is_some_and(|lease| lease.is_running_out(context.now));
        if retry || (renew && self.reads.rounds.is_empty()) {
            self.force_read_round(context.now);
        }
    }
}

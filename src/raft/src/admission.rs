//! The door: what a message must look like before any of it is believed. Everything behind may
//! assume it.
//!
//! Invariants behind the door: receiver and sender fit; the term fits the kind and is not absurd;
//! no index can overflow; entries are consecutive, of rising terms, none newer than the message; a
//! snapshot's membership is consistent, has voters and includes this node. Tests:
//! `tests/hostile.rs`.

use crate::conf_change::Membership;
use crate::core::Raft;
use crate::{
    Append, Error, LogIndex, Message, MessageBody, NodeId, Refusal, Snapshot, Storage, Term,
};

/// How far ahead of the own term a message of a node outside the membership may be.
const TERM_JUMP_UNKNOWN_MAX: u64 = 1_000_000;
/// How far ahead a member's may be. No honest group elects this often; 2^32 such messages would be
/// needed to exhaust terms.
const TERM_JUMP_MAX: u64 = 1 << 32;
/// Log positions beyond this are absurd; below it, no sum in this crate overflows.
const INDEX_MAX: LogIndex = LogIndex(1 << 62);

impl<S: Storage> Raft<S> {
    pub(crate) fn admit(&self, message: &Message) -> Result<(), Error> {
        self.inspect(message).map_err(|reason| Error::MessageRefused { from: message.from, reason })
    }

    fn inspect(&self, message: &Message) -> Result<(), Refusal> {
        if message.to != self.id {
            return Err(Refusal::WrongReceiver(message.to));
        }
        let names_transferee = message.body == MessageBody::TransferLeader;
        if message.from == NodeId(0) || (message.from == self.id && !names_transferee) {
            return Err(Refusal::WrongSender);
        }
        self.inspect_term(message)?;
        match &message.body {
            MessageBody::Append(append) => inspect_append(append, message.term),
            MessageBody::Snapshot(snapshot) => self.inspect_snapshot(snapshot, message.term),
            MessageBody::Propose(entries) if entries.is_empty() => Err(Refusal::MalformedProposal),
            MessageBody::AppendResponse(response) => {
                sane(response.index)?;
                sane(response.commit)?;
                sane(response.request_snapshot)?;
                response.reject.map_or(Ok(()), |reject| sane(reject.hint_index))
            }
            MessageBody::RequestVote(request) | MessageBody::RequestPreVote(request) => {
                sane(request.last_index)?;
                sane(request.commit)?;
                if request.last_term >= message.term {
                    return Err(Refusal::WrongTerm(request.last_term));
                }
                Ok(())
            }
            MessageBody::RequestVoteResponse(response)
            | MessageBody::RequestPreVoteResponse(response) => sane(response.commit),
            MessageBody::Heartbeat { commit: index, .. }
            | MessageBody::HeartbeatResponse { commit: index, .. }
            | MessageBody::ReadIndexResponse { index, .. } => sane(*index),
            MessageBody::Propose(_)
            | MessageBody::TransferLeader
            | MessageBody::TimeoutNow
            | MessageBody::ReadIndex { .. } => Ok(()),
        }
    }

    fn inspect_term(&self, message: &Message) -> Result<(), Refusal> {
        let term = message.term;
        let fits = match &message.body {
            MessageBody::Propose(_) | MessageBody::ReadIndex { .. } => term == Term(0),
            MessageBody::TransferLeader => true,
            MessageBody::RequestPreVoteResponse(response) => response.reject || term > Term(0),
            _ => term > Term(0),
        };
        if !fits {
            return Err(Refusal::WrongTerm(term));
        }
        let known = self.tracker.get(message.from).is_some();
        let jump_max = if known { TERM_JUMP_MAX } else { TERM_JUMP_UNKNOWN_MAX };
        if term.0.saturating_sub(self.term.0) > jump_max {
            return Err(Refusal::TermJump(term));
        }
        Ok(())
    }

    fn inspect_snapshot(&self, snapshot: &Snapshot, term: Term) -> Result<(), Refusal> {
        sane(snapshot.index)?;
        if snapshot.index == LogIndex(0) {
            return Err(Refusal::EntriesBroken(snapshot.index));
        }
        if snapshot.term > term || snapshot.term == Term(0) {
            return Err(Refusal::WrongTerm(snapshot.term));
        }
        match Membership::restore(&snapshot.conf_state) {
            Ok(members) if !members.voters.incoming.is_empty() && members.contains(self.id) => {
                Ok(())
            }
            Ok(_) | Err(_) => Err(Refusal::SnapshotMembership),
        }
    }
}

fn sane(index: LogIndex) -> Result<(), Refusal> {
    if index > INDEX_MAX { Err(Refusal::IndexTooLarge(index)) } else { Ok(()) }
}

fn inspect_append(append: &Append, term: Term) -> Result<(), Refusal> {
    sane(append.prev_index)?;
    sane(append.commit)?;
    let mut before = (append.prev_index, append.prev_term);
    if before.1 > term {
        return Err(Refusal::WrongTerm(before.1));
    }
    for entry in &append.entries {
        let follows = entry.index.0 == before.0.0 + 1;
        if !follows || entry.term < before.1 || entry.term > term || entry.term == Term(0) {
            return Err(Refusal::EntriesBroken(entry.index));
        }
        before = (entry.index, entry.term);
    }
    Ok(())
}

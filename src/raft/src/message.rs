//! What nodes of a group say to each other: one variant per `eraftpb.MessageType` that travels.
//!
//! [`crate::wire`] is the one mapping to and from the protobuf message, in which the meaning of a
//! field depends on the type.

use bytes::Bytes;

use crate::{Entry, LogIndex, NodeId, Snapshot, Term};

/// A message between two nodes of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Receiver.
    pub to: NodeId,
    /// Sender; for [`MessageBody::TransferLeader`] the transferee.
    pub from: NodeId,
    /// The sender's term (for pre-votes the term asked for). 0 for `Propose` and `ReadIndex`, which
    /// belong to no term.
    pub term: Term,
    /// What it says.
    pub body: MessageBody,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// A proposal forwarded to the leader. This crate accepts them and never sends one.
    Propose(Vec<Entry>),
    /// Replicate entries (Raft thesis §3.5).
    Append(Append),
    /// Answer to `Append` and `Snapshot`.
    AppendResponse(AppendResponse),
    /// Ask for a vote (§3.4).
    RequestVote(VoteRequest),
    /// Answer to `RequestVote`.
    RequestVoteResponse(VoteResponse),
    /// Ask whether a vote would be granted (§9.6).
    RequestPreVote(VoteRequest),
    /// Answer to `RequestPreVote`; carries the asked term if granted, else the answerer's.
    RequestPreVoteResponse(VoteResponse),
    /// Replace the receiver's log and state (§5).
    Snapshot(Snapshot),
    /// Assert leadership, tell the commit index, open a read round.
    Heartbeat {
        /// Commit index, never beyond what the receiver is known to hold.
        commit: LogIndex,
        /// Read round; echoed by the receiver.
        context: Bytes,
    },
    /// Answer to `Heartbeat`.
    HeartbeatResponse {
        /// The answerer's commit index.
        commit: LogIndex,
        /// The heartbeat's context.
        context: Bytes,
    },
    /// Ask the leader to hand over to `Message::from` (§3.10).
    TransferLeader,
    /// Campaign at once: the leader asks for it.
    TimeoutNow,
    /// A follower asks the leader for a read index (§6.4).
    ReadIndex {
        /// Opaque to the leader; returned in the answer.
        context: Bytes,
    },
    /// Answer to `ReadIndex`.
    ReadIndexResponse {
        /// A read is linearizable once this index is applied.
        index: LogIndex,
        /// The request's context.
        context: Bytes,
    },
}

/// Entries that follow `prev_index` in the leader's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append {
    /// Index of the entry before the first one carried.
    pub prev_index: LogIndex,
    /// That entry's term.
    pub prev_term: Term,
    /// Consecutive entries from `prev_index + 1`; may be empty.
    pub entries: Vec<Entry>,
    /// The leader's commit index.
    pub commit: LogIndex,
}

/// How a follower's log stands after an append or a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppendResponse {
    /// Accepted: the last index known to match. Rejected: the `prev_index` that did not match.
    pub index: LogIndex,
    /// Present if the append was rejected.
    pub reject: Option<Reject>,
    /// The follower's commit index.
    pub commit: LogIndex,
    /// Not 0: the follower asks for a snapshot at or after this index.
    pub request_snapshot: LogIndex,
}

/// Where a rejecting follower's log may match the leader's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reject {
    /// The largest index at which the logs may agree.
    pub hint_index: LogIndex,
    /// The follower's term there; 0 if unknown.
    pub hint_term: Term,
}

/// A candidate's claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoteRequest {
    /// Index of the candidate's last entry.
    pub last_index: LogIndex,
    /// Term of that entry.
    pub last_term: Term,
    /// The candidate's commit index, 0 if not told.
    pub commit: LogIndex,
    /// Term of the entry there.
    pub commit_term: Term,
    /// The candidate's election priority.
    pub priority: i64,
    /// The leader asked for this election: do not defend it.
    pub transfer: bool,
}

/// A voter's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoteResponse {
    /// Whether the vote was refused.
    pub reject: bool,
    /// When refused, the voter's commit index; else 0.
    pub commit: LogIndex,
    /// Term of the entry there.
    pub commit_term: Term,
}

impl MessageBody {
    /// The name of the variant, for status pages and tests.
    pub fn name(&self) -> &'static str {
        match self {
            MessageBody::Propose(_) => "Propose",
            MessageBody::Append(_) => "Append",
            MessageBody::AppendResponse(_) => "AppendResponse",
            MessageBody::RequestVote(_) => "RequestVote",
            MessageBody::RequestVoteResponse(_) => "RequestVoteResponse",
            MessageBody::RequestPreVote(_) => "RequestPreVote",
            MessageBody::RequestPreVoteResponse(_) => "RequestPreVoteResponse",
            MessageBody::Snapshot(_) => "Snapshot",
            MessageBody::Heartbeat { .. } => "Heartbeat",
            MessageBody::HeartbeatResponse { .. } => "HeartbeatResponse",
            MessageBody::TransferLeader => "TransferLeader",
            MessageBody::TimeoutNow => "TimeoutNow",
            MessageBody::ReadIndex { .. } => "ReadIndex",
            MessageBody::ReadIndexResponse { .. } => "ReadIndexResponse",
        }
    }
}

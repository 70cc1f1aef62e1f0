//! A node's state as a value, for operators, heartbeats and tests.

use crate::{ConfState, LogIndex, NodeId, Term};

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Follows the leader of its term, if there is one.
    #[default]
    Follower,
    /// Asks whether it would win an election.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads its term.
    Leader,
}

/// The part of a node's state that is lost in a crash and interesting to its driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftState {
    /// The leader this node knows.
    pub leader: Option<NodeId>,
    /// This node's role.
    pub role: Role,
}

/// How the leader feeds one follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressState {
    /// One append at a time until the logs are known to match.
    #[default]
    Probe,
    /// A window of appends in flight.
    Replicate,
    /// Waiting for a snapshot to arrive.
    Snapshot,
}

/// One member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressStatus {
    /// The member.
    pub id: NodeId,
    /// Highest index known to be on its disk.
    pub matched: LogIndex,
    /// Next index to send.
    pub next: LogIndex,
    /// The commit index it last told.
    pub commit: LogIndex,
    /// How it is fed.
    pub state: ProgressState,
    /// Index of the snapshot on its way; 0 if none.
    pub pending_snapshot: LogIndex,
    /// Whether it was heard in this election timeout.
    pub recent_active: bool,
    /// Whether nothing more can be sent before it answers.
    pub paused: bool,
    /// Appends in flight.
    pub inflight_messages: usize,
    /// Bytes of entries in flight.
    pub inflight_bytes: u64,
    /// Whether it is a learner.
    pub is_learner: bool,
}

/// A node's whole state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// Its term.
    pub term: Term,
    /// Its vote in that term.
    pub vote: Option<NodeId>,
    /// Its role.
    pub role: Role,
    /// The leader it knows.
    pub leader: Option<NodeId>,
    /// Highest committed index it knows.
    pub commit: LogIndex,
    /// Highest index its driver reported as applied.
    pub applied: LogIndex,
    /// Highest index known to be on its own disk.
    pub persisted: LogIndex,
    /// First index of its log.
    pub first_index: LogIndex,
    /// Last index of its log.
    pub last_index: LogIndex,
    /// Term of the last entry.
    pub last_term: Term,
    /// The membership it has applied.
    pub conf_state: ConfState,
    /// To whom leadership is being handed over.
    pub transferee: Option<NodeId>,
    /// Whether this leader has told another node to campaign in this term: no lease may be used any
    /// more.
    pub lease_void: bool,
    /// Ticks since the last sign of a leader (on a leader: since the last quorum check).
    pub election_elapsed_ticks: u32,
    /// The election timeout drawn for this round.
    pub election_timeout_ticks: u32,
    /// Reads waiting for confirmation.
    pub pending_reads: usize,
    /// Members as the leader sees them, ordered by id; empty on other nodes.
    pub progress: Vec<ProgressStatus>,
}

//! Why the core refuses something, classified by what the caller must do.

use crate::conf_change::ConfChangeError;
use crate::{LogIndex, NodeId, StorageError, Term};

/// Why a call was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Ask the leader.
    #[error("node is not the leader")]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over: ask again shortly, possibly elsewhere.
    #[error("leadership is being transferred to node {transferee}")]
    TransferInProgress {
        /// Who is about to lead.
        transferee: NodeId,
    },
    /// Too much is uncommitted: ask again later.
    #[error("uncommitted entries hold {bytes} bytes, the limit is {bytes_max}")]
    UncommittedFull {
        /// Payload bytes uncommitted now.
        bytes: u64,
        /// `Config::uncommitted_bytes_max`.
        bytes_max: u64,
    },
    /// An earlier membership change has not been applied: ask again later.
    #[error("membership change at index {index} is still pending")]
    ConfChangePending {
        /// The change awaited, or the last entry that may be one.
        index: LogIndex,
    },
    /// The leader has not committed an entry of its own term yet: ask again shortly.
    #[error("leader of term {term} has not committed an entry of its own yet")]
    TermNotCommitted {
        /// The leader's term.
        term: Term,
    },
    /// The membership change makes no sense now.
    #[error("invalid membership change: {0}")]
    ConfChangeInvalid(#[from] ConfChangeError),
    /// A snapshot cannot be asked for now.
    #[error("a snapshot cannot be requested: {reason}")]
    RequestSnapshot {
        /// What is in the way.
        reason: &'static str,
    },
    /// The message is malformed, hostile, or contradicts what this node knows. It was dropped.
    #[error("message from node {from} refused: {reason}")]
    MessageRefused {
        /// Who claims to have sent it.
        from: NodeId,
        /// What is wrong with it.
        reason: Refusal,
    },
    /// The storage failed. Fatal for the node unless the error says it is temporary.
    #[error("storage: {0}")]
    Storage(#[from] StorageError),
    /// The settings contradict each other.
    #[error("config: {0}")]
    Config(#[from] ConfigError),
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Sent to somebody else.
    #[error("it is addressed to node {0}")]
    WrongReceiver(NodeId),
    /// The sender claims to be nobody or this node itself.
    #[error("its sender is not a peer")]
    WrongSender,
    /// The term is 0 where one is needed, or set where none may be.
    #[error("its term {0} does not fit its kind")]
    WrongTerm(Term),
    /// The term is too far ahead.
    #[error("its term {0} is too far ahead")]
    TermJump(Term),
    /// A log position beyond any sane log.
    #[error("its log index {0} is too large")]
    IndexTooLarge(LogIndex),
    /// Entries do not follow each other, or are newer than the message.
    #[error("its entry at index {0} does not follow the one before")]
    EntriesBroken(LogIndex),
    /// Entries differ from committed ones.
    #[error("its entry at index {index} contradicts the log committed up to {commit}")]
    ContradictsCommitted {
        /// First entry that differs.
        index: LogIndex,
        /// Commit index here.
        commit: LogIndex,
    },
    /// The commit index covers entries this node does not have.
    #[error("its commit index {commit} is beyond the last entry {last_index}")]
    CommitBeyondLog {
        /// The commit index told.
        commit: LogIndex,
        /// Last entry here.
        last_index: LogIndex,
    },
    /// An answer about entries this leader never sent.
    #[error("it acknowledges index {index}, the last entry is {last_index}")]
    AcknowledgesUnknown {
        /// The index acknowledged.
        index: LogIndex,
        /// Last entry here.
        last_index: LogIndex,
    },
    /// Another node leads this term.
    #[error("node {0} leads this term")]
    SecondLeader(NodeId),
    /// The snapshot's membership is not valid, or leaves this node out.
    #[error("its snapshot's membership is unusable")]
    SnapshotMembership,
    /// A proposal without entries or of an unusable kind.
    #[error("its proposal is empty or malformed")]
    MalformedProposal,
}

/// Settings that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `id` must not be 0.
    #[error("id must not be 0")]
    ZeroId,
    /// `heartbeat_interval_ticks` must not be 0.
    #[error("heartbeat_interval_ticks must be at least 1")]
    ZeroHeartbeatInterval,
    /// A follower must not time out between two heartbeats.
    #[error(
        "election_timeout_ticks ({election_timeout_ticks}) must exceed heartbeat_interval_ticks \
         ({heartbeat_interval_ticks})"
    )]
    ElectionTimeoutTooShort {
        /// As configured.
        election_timeout_ticks: u32,
        /// As configured.
        heartbeat_interval_ticks: u32,
    },
    /// Nothing could ever be sent.
    #[error("inflight_messages_max and inflight_bytes_max must be at least 1")]
    ZeroInflight,
    /// A lease is only as good as the followers' promise.
    #[error("read_only = LeaseBased needs check_quorum")]
    LeaseWithoutCheckQuorum,
    /// What is applied must be in the log.
    #[error("applied index {applied} is beyond the last entry {last_index}")]
    AppliedBeyondLog {
        /// As configured.
        applied: LogIndex,
        /// As stored.
        last_index: LogIndex,
    },
}

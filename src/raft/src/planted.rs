//! Planted bugs: each reverses one line of a defence, so that the simulator can prove it would
//! notice.
//!
//! Without the feature `planted` the question is answered `false` at compile time. With it, one bug
//! at a time can be selected per thread.

/// A defence that can be switched off. The hazard it guards against is named beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A leader commits entries of earlier terms by counting replicas (R1, thesis figure 3.7).
    CommitPriorTerm,
    /// An append skips the check of the entry before it (log matching).
    AppendWithoutPrevCheck,
    /// Promises leave before what they promise is on disk (R2).
    AckBeforePersist,
    /// A change of term or vote does not ask for a sync (R4).
    HardStateNotSynced,
    /// The commit index may move back (R3).
    CommitRegress,
    /// A node campaigns although a committed membership change is not applied (R5).
    CampaignWithPendingConfChange,
    /// Two membership changes may be under way (R7).
    ManyPendingConfChanges,
    /// While joint, the outgoing majority is not asked (R8).
    JointQuorumWithoutOutgoing,
    /// A restarted node votes at once although it may have promised not to (R11).
    RestartVotesAtOnce,
    /// A follower that hears a leader grants votes (R11, R12).
    VoteInsideLease,
    /// A leader answers reads before it has committed an entry of its term (R6, R13).
    ReadIndexBeforeOwnTermCommit,
    /// Any heartbeat answer confirms the newest read (R15).
    ReadIndexStaleContext,
    /// Proposals are accepted while leadership is handed over (R17).
    TransferDoesNotBlockProposals,
    /// An older snapshot rolls the log back (R18).
    SnapshotRollback,
    /// A persisted write counts although it was overwritten since (R19).
    AsyncAppendAba,
    /// A rejected append may move `next` below what is known to match (R20).
    NextBelowMatch,
    /// Committed entries are applied before they are on this node's disk (R22).
    ApplyBeforePersist,
    /// A leader that applied its own removal goes on (R23).
    RemovedLeaderStays,
    /// A vote does not look at the candidate's log (R26).
    LogCompareWrong,
    /// A node votes twice in one term (R26).
    VoteTwice,
    /// A heartbeat tells a commit index the follower may not hold.
    HeartbeatCommitUnmatched,
    /// A leader hears no majority and stays (check-quorum off).
    LeaderIgnoresLostQuorum,
}

impl Bug {
    /// Every planted bug of this crate.
    pub const ALL: [Bug; 22] = [
        Bug::CommitPriorTerm,
        Bug::AppendWithoutPrevCheck,
        Bug::AckBeforePersist,
        Bug::HardStateNotSynced,
        Bug::CommitRegress,
        Bug::CampaignWithPendingConfChange,
        Bug::ManyPendingConfChanges,
        Bug::JointQuorumWithoutOutgoing,
        Bug::RestartVotesAtOnce,
        Bug::VoteInsideLease,
        Bug::ReadIndexBeforeOwnTermCommit,
        Bug::ReadIndexStaleContext,
        Bug::TransferDoesNotBlockProposals,
        Bug::SnapshotRollback,
        Bug::AsyncAppendAba,
        Bug::NextBelowMatch,
        Bug::ApplyBeforePersist,
        Bug::RemovedLeaderStays,
        Bug::LogCompareWrong,
        Bug::VoteTwice,
        Bug::HeartbeatCommitUnmatched,
        Bug::LeaderIgnoresLostQuorum,
    ];
}

#[cfg(feature = "planted")]
mod selection {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Selects the bug of this thread, or none.
    pub fn activate(bug: Option<Bug>) {
        ACTIVE.with(|active| active.set(bug));
    }

    /// Whether `bug` is selected on this thread.
    pub fn planted(bug: Bug) -> bool {
        ACTIVE.with(|active| active.get() == Some(bug))
    }
}

#[cfg(feature = "planted")]
pub use selection::{activate, planted};

/// Never: the feature `planted` is off.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

//! Planted bugs: each reverses one line of a defence, so that the simulator's power to find mistakes can be measured.
//!
//! Without the feature `planted` every question below is the constant `false` and the compiler removes the branch. With
//! it, a test selects at most one bug for its own thread; the simulator runs a whole cluster in one thread.

/// The defences that can be reversed in this crate; the core has its own (`raft::planted`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// R2: votes and append acknowledgements leave before what they promise is durable.
    AckBeforeSync,
    /// R2, R19: what has nothing to write of its own does not wait for the writes before it.
    PromiseOvertakesWrite,
    /// R12: the lease runs from the confirmation of a round instead of its start.
    LeaseFromReceiveTime,
    /// R12, R17: a started leader transfer leaves the lease alone.
    LeaseKeptDuringTransfer,
    /// R13: a new leader reads by lease before it has applied what earlier terms committed.
    LeaseBeforeOwnTermApplied,
    /// R14: a read is let through before its index is applied.
    ReadBeforeApplied,
    /// M24: a reply is matched to whatever entry comes to stand at its index.
    ProposalMatchedByIndexOnly,
    /// A write is acknowledged when it is proposed.
    ReplyBeforeCommit,
    /// The hard state of a term change is not written.
    HardStateNotWritten,
    /// M20: a snapshot is installed while the applier still has older entries in hand.
    InstallWhileApplying,
    /// A follower's overwritten log suffix stays on disk.
    StaleSuffixKept,
    /// M17: the applier trusts the epoch check made when the command was proposed.
    EpochNotCheckedAtApply,
    /// I10: the applied position is written apart from the data it speaks about.
    ApplyStateNotInBatch,
    /// M25: a retried request of a session is applied again.
    SessionNotDeduplicated,
    /// M10: a snapshot claims an index later than its data.
    SnapshotWrongIndex,
    /// M10: a snapshot lacks a key.
    SnapshotMissesRange,
    /// A write is acknowledged when it is executed, before it is written to the engine.
    ReplyBeforeWritten,
    /// M2: a peer that was created by a message forgets its vote when a split makes it real.
    SplitForgetsVote,
    /// M3: a split brings back a peer that was removed from this store.
    SplitIgnoresTombstone,
    /// M5: a split writes the new regions apart from the one it divides.
    SplitNotAtomic,
    /// M18: the new part of a split keeps the version of the whole.
    VersionNotBumped,
    /// M19: the delegate for reads of the whole outlives the split.
    SplitKeepsDelegate,
    /// The lease is renewed while a split is committed and not applied here.
    LeaseDuringSplit,
    /// The new part of a split knows no sessions.
    SessionsNotCopied,
    /// M13: a region that waits to be taken over serves reads by its lease.
    SourceServesWhileMerging,
    /// M14: a region is merged although some of its peers lag or are gone.
    MergeNotAllMatched,
    /// M15: a merge is rolled back though the target may still carry it out.
    RollbackUncertain,
    /// M16: a target takes its source over before the source has applied its last entries here.
    MergeBeforeSource,
    /// The sessions of a region that is taken over are forgotten.
    SessionsNotMerged,
    /// A region is cut where no key boundary is.
    SplitAtInvalidBoundary,
    /// R12: a leader that sleeps keeps its lease.
    LeaseKeptAsleep,
    /// M22: a peer that is woken is not ticked.
    WokenPeerNotTicked,
    /// A region sleeps although a live follower lacks entries.
    SleepWhileBehind,
    /// M22: a store that falls silent wakes nobody.
    SilentStoreIgnored,
    /// M6: a tombstone does not keep a destroyed peer from coming back.
    TombstoneIgnored,
    /// M7: destroying a peer deletes everything behind its region, too.
    DestroyClearsNeighbour,
    /// M8: a peer is destroyed before what it was handed earlier has been written.
    DestroyBeforeApplied,
    /// R6, M18: a change of peers takes effect though the region's epoch is no longer the one it was decided for.
    StaleChangePeersApplied,
    /// M19: the delegate of a destroyed peer goes on permitting reads.
    DelegateOutlivesPeer,
    /// M21: a leader proposes a change of peers that leaves no majority of live ones.
    ChangeWithoutQuorum,
    /// M1: a peer is created, and takes its snapshot, though its range belongs to another region here.
    CreatedOverNeighbour,
    /// A removed peer is not told, and does not ask.
    RemovedPeerNotTold,
    /// M16: a region that was merged away lives on beside the snapshot that holds its keys.
    MergedRegionSurvives,
    /// R8: a change that a snapshot has overtaken is applied to the later membership that came with it.
    OvertakenChangeApplied,
    /// A destroyed peer keeps to itself that its removal is committed.
    TombstoneIsSilent,
}

impl Bug {
    /// Every bug, in the order of the report.
    pub const ALL: &'static [Bug] = &[
        Bug::AckBeforeSync,
        Bug::PromiseOvertakesWrite,
        Bug::LeaseFromReceiveTime,
        Bug::LeaseKeptDuringTransfer,
        Bug::LeaseBeforeOwnTermApplied,
        Bug::ReadBeforeApplied,
        Bug::ProposalMatchedByIndexOnly,
        Bug::ReplyBeforeCommit,
        Bug::HardStateNotWritten,
        Bug::InstallWhileApplying,
        Bug::StaleSuffixKept,
        Bug::EpochNotCheckedAtApply,
        Bug::ApplyStateNotInBatch,
        Bug::SessionNotDeduplicated,
        Bug::SnapshotWrongIndex,
        Bug::SnapshotMissesRange,
        Bug::ReplyBeforeWritten,
        Bug::SplitForgetsVote,
        Bug::SplitIgnoresTombstone,
        Bug::SplitNotAtomic,
        Bug::VersionNotBumped,
        Bug::SplitKeepsDelegate,
        Bug::LeaseDuringSplit,
        Bug::SessionsNotCopied,
        Bug::SourceServesWhileMerging,
        Bug::MergeNotAllMatched,
        Bug::RollbackUncertain,
        Bug::MergeBeforeSource,
        Bug::SessionsNotMerged,
        Bug::SplitAtInvalidBoundary,
        Bug::LeaseKeptAsleep,
        Bug::WokenPeerNotTicked,
        Bug::SleepWhileBehind,
        Bug::SilentStoreIgnored,
        Bug::TombstoneIgnored,
        Bug::DestroyClearsNeighbour,
        Bug::DestroyBeforeApplied,
        Bug::StaleChangePeersApplied,
        Bug::DelegateOutlivesPeer,
        Bug::ChangeWithoutQuorum,
        Bug::CreatedOverNeighbour,
        Bug::RemovedPeerNotTold,
        Bug::MergedRegionSurvives,
        Bug::OvertakenChangeApplied,
        Bug::TombstoneIsSilent,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Selects the bug of this thread.
#[cfg(feature = "planted")]
pub fn activate(bug: Option<Bug>) {
    ACTIVE.with(|active| active.set(bug));
}

/// Whether `bug` is selected.
#[cfg(feature = "planted")]
pub(crate) fn planted(bug: Bug) -> bool {
    ACTIVE.with(|active| active.get() == Some(bug))
}

/// Whether `bug` is selected: never, in a build without the feature.
#[cfg(not(feature = "planted"))]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}

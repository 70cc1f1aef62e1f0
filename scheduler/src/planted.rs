//! Planted bugs: each reverses one line of a defence, so that the simulator's power to find mistakes can
//! be measured.
//!
//! Without the feature `planted` every question below is the constant `false` and the compiler removes
//! the branch. With it, a test selects at most one bug for its own thread; the simulator runs a whole
//! cluster in one thread.

/// The defences that can be reversed in this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// S1: a new leader takes its timestamps from the clock, not from above the durable window.
    TsoFallsBack,
    /// S2: timestamps and ids are served beyond the window that is durable.
    WindowBeforeJournal,
    /// S3: a new leader goes on inside of the old one's window of ids.
    IdsReused,
    /// S4: an operator goes on although the region was changed by somebody else, by the peers it knew.
    OldEpoch,
    /// S5: a jump of the clock counts as time that has passed.
    ClockJump,
    /// The half of a split that has not reported yet belongs to nobody.
    HoleAfterSplit,
    /// Peers of a dead store are never replaced.
    DownStoreKept,
    /// A new peer counts before it has the data.
    PendingPeerCounts,
}

impl Bug {
    /// Every bug, in the order of the report.
    pub const ALL: [Bug; 8] = [
        Bug::TsoFallsBack,
        Bug::WindowBeforeJournal,
        Bug::IdsReused,
        Bug::OldEpoch,
        Bug::ClockJump,
        Bug::HoleAfterSplit,
        Bug::DownStoreKept,
        Bug::PendingPeerCounts,
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

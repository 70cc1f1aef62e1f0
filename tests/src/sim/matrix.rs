//! Which faults fell near which changes: a run is worth something only if its faults meet the cluster in the middle of
//! something. A *meeting* is a fault and a change within a window of time of each other.

use super::faults::FaultKind;
use super::time::Nanos;
use std::collections::{BTreeMap, VecDeque};

/// What a cluster goes through. Seen from its effects, not from orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A region was cut.
    Split,
    /// A region was frozen, taken over, or thawed.
    Merge,
    /// A membership changed.
    ConfChange,
    /// A lead is handed over on purpose.
    Transfer,
    /// A snapshot is on its way or installed.
    Snapshot,
    /// A log was compacted.
    LogGc,
    /// A region fell asleep or woke.
    Sleep,
    /// Another node of the scheduler's began to lead.
    SchedulerFailover,
    /// A peer was destroyed.
    Destroy,
    /// Peers compare their data.
    ConsistencyCheck,
}

impl Change {
    /// Every kind.
    pub const ALL: [Change; 10] = [
        Change::Split,
        Change::Merge,
        Change::ConfChange,
        Change::Transfer,
        Change::Snapshot,
        Change::LogGc,
        Change::Sleep,
        Change::SchedulerFailover,
        Change::Destroy,
        Change::ConsistencyCheck,
    ];
}

/// Meetings by fault and change.
pub type Meetings = BTreeMap<(FaultKind, Change), u64>;

/// Counts meetings.
#[derive(Debug, Default)]
pub struct Matrix {
    window: Nanos,
    faults: VecDeque<(Nanos, FaultKind)>,
    changes: VecDeque<(Nanos, Change)>,
    /// So far.
    pub meetings: Meetings,
}

impl Matrix {
    /// Nothing has met yet.
    pub fn new(window: Nanos) -> Matrix {
        Matrix { window, ..Matrix::default() }
    }

    /// A fault begins.
    pub fn fault(&mut self, now: Nanos, kind: FaultKind) {
        self.forget(now);
        for (_, change) in &self.changes {
            *self.meetings.entry((kind, *change)).or_default() += 1;
        }
        self.faults.push_back((now, kind));
    }

    /// A change is seen.
    pub fn change(&mut self, now: Nanos, change: Change) {
        self.forget(now);
        for (_, kind) in &self.faults {
            *self.meetings.entry((*kind, change)).or_default() += 1;
        }
        if self.changes.back() != Some(&(now, change)) {
            self.changes.push_back((now, change));
        }
    }

    fn forget(&mut self, now: Nanos) {
        let window = self.window;
        let old = |at: Nanos| now.saturating_sub(at) > window;
        while self.faults.front().is_some_and(|(at, _)| old(*at)) {
            self.faults.pop_front();
        }
        while self.changes.front().is_some_and(|(at, _)| old(*at)) {
            self.changes.pop_front();
        }
    }
}

/// The table: a row for each kind of fault.
pub fn table(meetings: &Meetings) -> String {
    use std::fmt::Write;
    let mut text = format!("{:18}", "fault × change");
    for change in Change::ALL {
        let _ = write!(text, " {:>10.10}", format!("{change:?}"));
    }
    for kind in FaultKind::ALL {
        let _ = write!(text, "\n{:18}", format!("{kind:?}"));
        for change in Change::ALL {
            let count = meetings.get(&(kind, change)).copied().unwrap_or_default();
            let _ = write!(text, " {count:>10}");
        }
    }
    text
}

/// The cells that nothing fell into.
pub fn empty_cells(meetings: &Meetings) -> Vec<(FaultKind, Change)> {
    let cells =
        FaultKind::ALL.into_iter().flat_map(|kind| Change::ALL.map(|change| (kind, change)));
    cells.filter(|cell| !meetings.contains_key(cell)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_in_time_meets() {
        let mut matrix = Matrix::new(Nanos::secs(1));
        matrix.change(Nanos::secs(1), Change::Split);
        matrix.fault(Nanos::secs(2), FaultKind::Crash);
        matrix.change(Nanos::secs(3), Change::Merge);
        matrix.change(Nanos::secs(9), Change::Destroy);
        let met: Vec<_> = matrix.meetings.keys().copied().collect();
        let expected = [(FaultKind::Crash, Change::Split), (FaultKind::Crash, Change::Merge)];
        assert_eq!(met, expected);
        let empty = empty_cells(&matrix.meetings);
        assert_eq!(empty.len(), FaultKind::ALL.len() * Change::ALL.len() - 2);
        assert!(table(&matrix.meetings).lines().count() == FaultKind::ALL.len() + 1);
    }
}

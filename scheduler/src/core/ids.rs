//! Ids for stores, regions, peers and clients: one sequence, no id twice.
//!
//! Ids are taken from a window whose end is durable. A restart begins at the end of the last window
//! and so skips what was left of it.

use std::ops::Range;

use super::record::{Change, Record};
use crate::planted::{Bug, planted};

/// Ids made durable at once.
pub const ID_WINDOW: u64 = 1000;
/// With fewer left than this, the window is extended ahead of need.
const LOW: u64 = 200;
/// The first id ever; 0 means "none" on the wire.
const FIRST: u64 = 1;

/// Hands ids out. Invariant: `next <= durable_end`, except between a decision that took more and the
/// application of its change.
#[derive(Debug)]
pub(super) struct IdAllocator {
    next: u64,
    durable_end: u64,
    /// The largest end in any change made so far; at least `durable_end`.
    decided_end: u64,
}

impl IdAllocator {
    pub(super) fn new() -> Self {
        Self { next: FIRST, durable_end: FIRST, decided_end: FIRST }
    }

    /// A window became durable.
    pub(super) fn apply(&mut self, end: u64) {
        self.durable_end = self.durable_end.max(end);
        self.decided_end = self.decided_end.max(end);
    }

    /// After the records of an earlier life: whatever its window held may be in use.
    pub(super) fn skip_window(&mut self) {
        self.next = self.durable_end;
        if planted(Bug::IdsReused) {
            self.next = self.durable_end.saturating_sub(ID_WINDOW).max(FIRST);
        }
    }

    /// Ids from the durable part of the window, or nothing.
    pub(super) fn try_take(&mut self, count: u64) -> Option<Range<u64>> {
        let end = self.next.checked_add(count)?;
        if end > self.durable_end && !planted(Bug::WindowBeforeJournal) {
            return None;
        }
        Some(std::mem::replace(&mut self.next, end)..end)
    }

    /// Ids that may be told once `change` has been committed and applied.
    pub(super) fn take(&mut self, count: u64, change: &mut Change) -> Range<u64> {
        let end = self.next + count;
        if end > self.decided_end {
            self.extend_to(end + ID_WINDOW, change);
        }
        std::mem::replace(&mut self.next, end)..end
    }

    /// Extends the window if it runs low.
    pub(super) fn maintain(&mut self, change: &mut Change) {
        if self.decided_end.saturating_sub(self.next) < LOW {
            self.extend_to(self.next + ID_WINDOW, change);
        }
    }

    fn extend_to(&mut self, end: u64, change: &mut Change) {
        assert!(end > self.decided_end, "an id window never shrinks");
        self.decided_end = end;
        change.put(Record::IdWindow(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(ids: &mut IdAllocator, change: Change) -> u64 {
        let mut end = 0;
        for record in change.puts {
            let Record::IdWindow(window) = record else { panic!("{record:?}") };
            ids.apply(window);
            end = window;
        }
        end
    }

    #[test]
    fn nothing_is_handed_out_beyond_the_durable_window() {
        let mut ids = IdAllocator::new();
        assert_eq!(ids.try_take(1), None);
        let mut change = Change::default();
        assert_eq!(ids.take(3, &mut change), 1..4);
        assert_eq!(ids.try_take(1), None, "the window is decided, not yet durable");
        assert_eq!(commit(&mut ids, change), 4 + ID_WINDOW);
        assert_eq!(ids.try_take(ID_WINDOW), Some(4..4 + ID_WINDOW));
        assert_eq!(ids.try_take(1), None);
        assert_eq!(ids.try_take(u64::MAX), None);
    }

    #[test]
    fn a_restart_begins_where_the_durable_window_ended() {
        let mut before = IdAllocator::new();
        let mut change = Change::default();
        let used = before.take(10, &mut change);
        let end = commit(&mut before, change);

        let mut after = IdAllocator::new();
        after.apply(end);
        after.skip_window();
        let mut change = Change::default();
        assert!(after.take(1, &mut change).start >= used.end);
        assert!(!change.is_empty());
    }

    #[test]
    fn the_window_is_extended_ahead_of_need_and_only_then() {
        let mut ids = IdAllocator::new();
        let mut change = Change::default();
        ids.maintain(&mut change);
        commit(&mut ids, change);
        let mut change = Change::default();
        ids.maintain(&mut change);
        assert!(change.is_empty());
        ids.try_take(ID_WINDOW - LOW + 1).unwrap();
        ids.maintain(&mut change);
        assert!(!change.is_empty());
    }
}

//! The event queue: what happens next. Ties of time are broken by the order of scheduling, so a run has one order.

use super::time::Nanos;
use std::collections::BTreeMap;

/// Events by time, then by the order in which they were scheduled.
#[derive(Debug)]
pub struct Queue<E> {
    events: BTreeMap<(Nanos, u64), E>,
    scheduled: u64,
    now: Nanos,
}

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue { events: BTreeMap::new(), scheduled: 0, now: Nanos::ZERO }
    }
}

impl<E> Queue<E> {
    /// The time of the event taken last.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Schedules `event` at `at`, or now if that is past.
    pub fn at(&mut self, at: Nanos, event: E) {
        self.scheduled += 1;
        self.events.insert((at.max(self.now), self.scheduled), event);
    }

    /// Schedules `event` after `delay`.
    pub fn after(&mut self, delay: Nanos, event: E) {
        self.at(self.now + delay, event);
    }

    /// Takes the next event no later than `end` and moves the clock to it; at `None` the clock is at `end`.
    pub fn next_until(&mut self, end: Nanos) -> Option<E> {
        let due = self.events.first_key_value().is_some_and(|((at, _), _)| *at <= end);
        if !due {
            self.now = self.now.max(end);
            return None;
        }
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }

    /// Number of events waiting.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True when nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

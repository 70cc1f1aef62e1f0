//! Timestamps: 46 bits of milliseconds, 18 bits of counter; each is larger than all before it, also
//! across restarts and whatever the clock does.
//!
//! - **Window.** Every timestamp's physical part lies below a durable limit. A restart begins at that
//!   limit, so it cannot repeat what the last life handed out, whatever its clock says.
//! - **Clock.** Time is what the caller says it is, except that it never goes back: when the clock
//!   falls behind what was already handed out, physical time goes on at half the clock's speed until
//!   the clock has caught up. It must go on: the age of a lock is measured with it.
//! - **Overflow.** More than 2^18 timestamps in a millisecond borrow from the next one.
//!
//! Left out: timestamps local to a data centre (`dc_location`), suffix bits.

use proto::limits::TSO_COUNT_MAX;

use super::error::Error;
use super::record::{Change, Record};
use crate::planted::{Bug, planted};

/// How far ahead of now the durable limit is set.
pub const TIMESTAMP_WINDOW_MS: u64 = 3000;
/// With less than this left, the window is extended ahead of need.
const LOW_MS: u64 = 1500;
/// Bits of the logical part.
pub const LOGICAL_BITS: u32 = 18;
const LOGICAL_END: u64 = 1 << LOGICAL_BITS;
/// The largest step of the clock that moves time on while it runs ahead of the clock.
const STEP_MS_MAX: u64 = 1000;
/// The first time, in Unix milliseconds, that no timestamp can express (the year 4199).
const PHYSICAL_END_MS: u64 = 1 << (64 - LOGICAL_BITS);

/// A timestamp, or the largest of several that differ in `logical` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Unix milliseconds.
    pub physical_ms: u64,
    /// Below 2^18.
    pub logical: u64,
}

impl Timestamp {
    /// As one number, the form transactions use.
    pub fn get(self) -> u64 {
        self.physical_ms << LOGICAL_BITS | self.logical
    }
}

/// Why there is no timestamp.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// Commit and apply [`super::Scheduler::extend_timestamps`], then ask again.
    #[error("the durable timestamp window is used up")]
    WindowUsedUp,
    /// The request is wrong.
    #[error(transparent)]
    Invalid(#[from] Error),
}

/// The caller's clock, made to go forward only.
#[derive(Debug, Default)]
struct ForwardClock {
    /// What the caller said last.
    seen_ms: u64,
    /// Half milliseconds.
    time_halves: u64,
}

impl ForwardClock {
    fn observe(&mut self, now_ms: u64) -> u64 {
        let step_ms = now_ms.saturating_sub(self.seen_ms).min(STEP_MS_MAX);
        self.seen_ms = now_ms;
        // On time, the second term wins; ahead of time, the first one does, at half speed.
        self.time_halves = (self.time_halves + step_ms).max(now_ms * 2);
        self.time_halves / 2
    }

    fn at_least(&mut self, time_ms: u64) {
        self.time_halves = self.time_halves.max(time_ms * 2);
    }
}

/// Hands timestamps out. Invariant: `last.physical_ms < durable_end_ms` once anything was handed out.
#[derive(Debug, Default)]
pub(super) struct TimestampOracle {
    clock: ForwardClock,
    last: Timestamp,
    durable_end_ms: u64,
}

impl TimestampOracle {
    /// A window became durable.
    pub(super) fn apply(&mut self, end_ms: u64) {
        self.durable_end_ms = self.durable_end_ms.max(end_ms);
    }

    /// After the records of an earlier life: whatever lies in its window may be in use.
    pub(super) fn skip_window(&mut self) {
        if planted(Bug::TsoFallsBack) {
            return;
        }
        self.clock.at_least(self.durable_end_ms);
        if let Some(physical_ms) = self.durable_end_ms.checked_sub(1) {
            self.last = Timestamp { physical_ms, logical: LOGICAL_END - 1 };
        }
    }

    /// The largest of `count` new timestamps.
    pub(super) fn take(&mut self, count: u32, now_ms: u64) -> Result<Timestamp, TimestampError> {
        if count == 0 || count > TSO_COUNT_MAX {
            let reason = format!("must be between 1 and {TSO_COUNT_MAX}, not {count}");
            return Err(Error::invalid("count", reason).into());
        }
        let time_ms = self.observe(now_ms)?;
        let count = u64::from(count);
        let next = if time_ms > self.last.physical_ms {
            Timestamp { physical_ms: time_ms, logical: count - 1 }
        } else if self.last.logical + count < LOGICAL_END {
            Timestamp { physical_ms: self.last.physical_ms, logical: self.last.logical + count }
        } else {
            Timestamp { physical_ms: self.last.physical_ms + 1, logical: count - 1 }
        };
        if next.physical_ms >= self.durable_end_ms && !planted(Bug::WindowBeforeJournal) {
            return Err(TimestampError::WindowUsedUp);
        }
        assert!(next > self.last, "timestamps only grow");
        self.last = next;
        Ok(next)
    }

    /// Moves the durable limit ahead of now.
    pub(super) fn extend(&mut self, now_ms: u64, change: &mut Change) -> Result<(), Error> {
        let end_ms = self.observe(now_ms)?.max(self.last.physical_ms) + TIMESTAMP_WINDOW_MS;
        if end_ms > self.durable_end_ms {
            change.put(Record::TimestampWindow(end_ms));
        }
        Ok(())
    }

    /// Extends the window if it runs low.
    pub(super) fn maintain(&mut self, now_ms: u64, change: &mut Change) -> Result<(), Error> {
        if self.observe(now_ms)?.max(self.last.physical_ms) + LOW_MS > self.durable_end_ms {
            self.extend(now_ms, change)?;
        }
        Ok(())
    }

    fn observe(&mut self, now_ms: u64) -> Result<u64, Error> {
        if now_ms >= PHYSICAL_END_MS / 2 {
            let reason = format!("the clock says {now_ms} ms, more than a timestamp can hold");
            return Err(Error::invalid("now_ms", reason));
        }
        Ok(self.clock.observe(now_ms))
    }
}

#[cfg(test)]
mod tests;

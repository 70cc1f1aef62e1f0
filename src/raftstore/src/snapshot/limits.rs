//! How many snapshots move at once, and how fast. Pure: time is passed in, waiting is the caller's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::time::Instant;

/// A limited number of places. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Slots {
    taken: Arc<AtomicUsize>,
    max: usize,
}

/// A place, free again when dropped.
#[derive(Debug)]
pub struct Slot {
    taken: Arc<AtomicUsize>,
}

impl Slots {
    /// `max` free places.
    pub fn new(max: usize) -> Slots {
        Slots { taken: Arc::default(), max }
    }

    /// A place, if one is free.
    pub fn take(&self) -> Option<Slot> {
        let free = |taken| (taken < self.max).then_some(taken + 1);
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        self.taken.fetch_update(set, fetch, free).ok()?;
        Some(Slot { taken: self.taken.clone() })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Spreads bytes over time: on average at most `bytes_per_second`, at once at most `burst_bytes`.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    bytes_per_second: u64,
    /// When the bucket will be full again: the later, the emptier it is now.
    full_at: Instant,
    burst: Duration,
}

impl TokenBucket {
    /// A full bucket. A rate of 0 means no limit.
    pub fn new(bytes_per_second: u64, burst_bytes: u64) -> TokenBucket {
        let mut bucket =
            TokenBucket { bytes_per_second, full_at: Instant::ZERO, burst: Duration::ZERO };
        bucket.burst = bucket.time_for(burst_bytes);
        bucket
    }

    /// Takes `bytes` and says how long to wait before they are used. Waits add up: whoever comes next waits longer.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        self.full_at = self.full_at.max(now) + self.time_for(bytes);
        self.full_at.since(now + self.burst)
    }

    fn time_for(&self, bytes: u64) -> Duration {
        match self.bytes_per_second {
            0 => Duration::ZERO,
            rate => {
                let ns = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
                Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let slots = Slots::new(2);
        let (first, second) = (slots.take(), slots.clone().take());
        assert!(first.is_some() && second.is_some() && slots.take().is_none());
        drop(first);
        assert_eq!(slots.taken(), 1);
        assert!(slots.take().is_some());
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = TokenBucket::new(1000, 500);
        let at = Instant::from_ms;
        assert_eq!(bucket.take(500, at(10_000)), Duration::ZERO);
        assert_eq!(bucket.take(100, at(10_000)), Duration::from_millis(100));
        assert_eq!(bucket.take(100, at(10_000)), Duration::from_millis(200), "waits add up");
        assert_eq!(bucket.take(100, at(10_300)), Duration::ZERO);
        assert_eq!(bucket.take(500, at(99_000)), Duration::ZERO, "full again, but not fuller");
        assert_eq!(bucket.take(1, at(99_000)), Duration::from_millis(1));
    }

    #[test]
    fn rate_zero_is_no_limit() {
        let mut bucket = TokenBucket::new(0, 0);
        assert_eq!(bucket.take(u64::MAX, Instant::from_ms(1)), Duration::ZERO);
    }
}

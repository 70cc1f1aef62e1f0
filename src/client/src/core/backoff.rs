//! How long to wait before the next attempt: doubling, capped, with jitter from an injected seed so that a crowd of
//! callers woken by one failure does not come back in step, and so that a simulated run replays.

use std::time::Duration;

/// A small seeded generator (splitmix64): the same seed gives the same waits on every platform.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A stream of its own for `seed`.
    pub fn new(seed: u64) -> Self {
        Jitter(seed)
    }

    /// The next 64 bits of the stream.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

/// The waits of one call.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// Waits start at `min` and double up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        debug_assert!(min <= max, "backoff: min above max");
        Backoff { next: min, min, max }
    }

    /// The next wait: between half of the current step and all of it.
    pub fn delay(&mut self, jitter: &mut Jitter) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.max);
        let half = step / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(jitter.next_u64() % spread)
    }

    /// Starts over, after something has gone right.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_stay_within_the_step() {
        let (min, max) = (Duration::from_millis(4), Duration::from_millis(64));
        let mut backoff = Backoff::new(min, max);
        let mut jitter = Jitter::new(7);
        let mut step = min;
        for _ in 0..12 {
            let wait = backoff.delay(&mut jitter);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} outside of step {step:?}");
            step = (step * 2).min(max);
        }
        backoff.reset();
        assert!(backoff.delay(&mut jitter) <= min);
    }

    #[test]
    fn a_seed_replays_and_another_differs() {
        let waits = |seed| {
            let mut jitter = Jitter::new(seed);
            let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));
            (0..20).map(|_| backoff.delay(&mut jitter)).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}

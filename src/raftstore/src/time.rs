//! Time as a value: the reading of a monotonic clock that somebody at the edge took and passed in.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since an origin of the process's own choosing. Never comes from another machine and never goes backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Instant = Instant(0);

    /// A reading of `ns` nanoseconds.
    pub const fn from_ns(ns: u64) -> Instant {
        Instant(ns)
    }

    /// A reading of `ms` milliseconds.
    pub const fn from_ms(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    /// The reading in nanoseconds.
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the end of time (584 years).
    fn add(self, duration: Duration) -> Instant {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(ns))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the origin.
    fn sub(self, duration: Duration) -> Instant {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let at = Instant::from_ms(5);
        assert_eq!(at + Duration::from_millis(2), Instant::from_ms(7));
        assert_eq!(at - Duration::from_millis(9), Instant::ZERO);
        assert_eq!(at.since(Instant::from_ms(3)), Duration::from_millis(2));
        assert_eq!(at.since(Instant::from_ms(9)), Duration::ZERO);
        assert_eq!(Instant::from_ns(u64::MAX) + Duration::MAX, Instant::from_ns(u64::MAX));
    }
}

//! The clock of one process: monotonic, with an origin of its own, running a little fast or slow all the time.

use super::time::Nanos;
use raftstore::Instant;

/// Parts per million in one.
const PPM: u64 = 1_000_000;

/// A drifting monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows at the start of the run.
    origin: Nanos,
    /// Its nanoseconds per million real ones.
    rate_ppm: u64,
}

impl Clock {
    /// A clock that starts at `origin` and runs `drift_ppm` parts per million fast (or, if negative, slow).
    pub fn new(origin: Nanos, drift_ppm: i64) -> Clock {
        let rate_ppm = PPM.saturating_add_signed(drift_ppm);
        assert!(rate_ppm > 0, "a clock never stands still");
        Clock { origin, rate_ppm }
    }

    /// What it shows at `now`.
    pub fn read(&self, now: Nanos) -> Instant {
        // Split so that the product stays far below 2^64 for days of virtual time.
        let (millions, rest) = (now.0 / PPM, now.0 % PPM);
        let shown = millions * self.rate_ppm + rest * self.rate_ppm / PPM;
        Instant::from_ns(self.origin.0 + shown)
    }

    /// How much real time passes while it counts `span`.
    pub fn real_span(&self, span: Nanos) -> Nanos {
        Nanos(span.0 / self.rate_ppm * PPM + span.0 % self.rate_ppm * PPM / self.rate_ppm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_shows_more_and_waits_less() {
        let clock = Clock::new(Nanos::secs(5), 100_000);
        assert_eq!(clock.read(Nanos::ZERO), Instant::from_ms(5_000));
        assert_eq!(clock.read(Nanos::secs(10)), Instant::from_ms(16_000));
        assert_eq!(clock.real_span(Nanos::secs(11)), Nanos::secs(10));
        let slow = Clock::new(Nanos::ZERO, -100_000);
        assert_eq!(slow.read(Nanos::secs(10)), Instant::from_ms(9_000));
    }
}

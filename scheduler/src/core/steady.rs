//! The scheduler's own time: it begins with the caller's clock and follows only its steps forward, none
//! longer than [`STEP_MS_MAX`].
//!
//! Silence and patience are measured with it. So a clock that jumps hours ahead, or a process that was
//! stopped for a while, does not make every store look dead at once.

use crate::planted::{Bug, planted};

/// The longest step that counts.
const STEP_MS_MAX: u64 = 2000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct SteadyTime {
    /// What the caller said last.
    seen_ms: u64,
    now_ms: u64,
}

impl SteadyTime {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { seen_ms: now_ms, now_ms }
    }

    /// Takes the caller's clock in; what time it is.
    pub(super) fn observe(&mut self, now_ms: u64) -> u64 {
        self.now_ms = self.at(now_ms);
        self.seen_ms = now_ms;
        self.now_ms
    }

    /// What time it was when it was last observed.
    pub(super) fn now_ms(self) -> u64 {
        self.now_ms
    }

    /// What time it would be.
    pub(super) fn at(self, now_ms: u64) -> u64 {
        let step_ms = now_ms.saturating_sub(self.seen_ms);
        if planted(Bug::ClockJump) {
            return self.now_ms + step_ms;
        }
        self.now_ms + step_ms.min(STEP_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_steps_forward_count() {
        let mut time = SteadyTime::new(1000);
        assert_eq!(time.observe(1500), 1500);
        assert_eq!(time.observe(3_600_000), 3500, "a jump is a short step");
        assert_eq!(time.observe(1500), 3500, "back is no step");
        assert_eq!(time.observe(1600), 3600, "and goes on from there");
    }
}

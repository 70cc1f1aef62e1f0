//! Counts ticks, and refuses those that come too early.
//!
//! A follower's patience is counted in ticks and a leader's lease in time, so ticks must not run ahead of time: after a
//! pause a timer may deliver the ones it owes all at once, and a burst of them would end the patience that the lease rests
//! on (R12). Between one accepted tick and the `n`-th after it lie at least `n` intervals less two slacks.

use std::time::Duration;

use crate::config::TICK_SLACK_DIVISOR;
use crate::time::Instant;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TickClock {
    count: u64,
    /// When the next tick is due; `None` before the first.
    due: Option<Instant>,
}

impl TickClock {
    /// Accepted ticks.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// A tick has come at `now`; whether it counts.
    pub(super) fn accept(&mut self, now: Instant, interval: Duration) -> bool {
        let slack = interval / TICK_SLACK_DIVISOR;
        let due = self.due.unwrap_or(now);
        if now + slack < due {
            return false;
        }
        self.count += 1;
        self.due = Some((due + interval).max(now + interval - slack));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(40);

    fn accepted(times_ms: &[u64]) -> Vec<bool> {
        let mut clock = TickClock::default();
        times_ms.iter().map(|ms| clock.accept(Instant::from_ms(*ms), TICK)).collect()
    }

    #[test]
    fn a_timer_that_jitters_loses_no_tick() {
        assert_eq!(accepted(&[0, 38, 85, 119, 160, 199]), [true; 6]);
    }

    #[test]
    fn a_burst_after_a_pause_counts_once() {
        assert_eq!(
            accepted(&[0, 40, 1000, 1000, 1001, 1019, 1020]),
            [true, true, true, false, false, false, true]
        );
    }

    #[test]
    fn a_fast_timer_cannot_run_ahead_of_time() {
        let mut clock = TickClock::default();
        for ms in 0..4000 {
            clock.accept(Instant::from_ms(ms), TICK);
        }
        assert!(clock.count() <= 4000 / 40 + 2, "{} ticks in 4 s", clock.count());
    }
}

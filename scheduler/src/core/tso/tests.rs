//! The oracle over clocks that stand, jump and fall back, and over restarts.

use super::*;

const NOON: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

/// An oracle with its disk.
#[derive(Default)]
struct Rig {
    oracle: TimestampOracle,
    disk_ms: u64,
    last: u64,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self::default();
        rig.extend(NOON);
        rig
    }

    fn extend(&mut self, now_ms: u64) {
        let mut change = Change::default();
        self.oracle.extend(now_ms, &mut change).unwrap();
        for record in change.puts {
            let Record::TimestampWindow(end_ms) = record else { panic!("{record:?}") };
            self.disk_ms = end_ms;
            self.oracle.apply(end_ms);
        }
    }

    /// Takes timestamps, extending when told to, and checks that all of them are new.
    fn take(&mut self, count: u32, now_ms: u64) -> Timestamp {
        let largest = match self.oracle.take(count, now_ms) {
            Ok(timestamp) => timestamp,
            Err(TimestampError::WindowUsedUp) => {
                self.extend(now_ms);
                self.oracle.take(count, now_ms).expect("there is a window now")
            }
            Err(error) => panic!("{error}"),
        };
        assert!(largest.logical + 1 >= u64::from(count) && largest.logical < LOGICAL_END);
        assert!(largest.physical_ms < self.disk_ms, "beyond what is durable");
        let smallest = largest.get() - u64::from(count - 1);
        assert!(smallest > self.last, "{smallest} after {}", self.last);
        self.last = largest.get();
        largest
    }

    fn restart(&mut self) {
        self.oracle = TimestampOracle::default();
        self.oracle.apply(self.disk_ms);
        self.oracle.skip_window();
    }
}

#[test]
fn a_batch_is_contiguous_and_ends_at_the_one_returned() {
    let mut rig = Rig::new();
    assert_eq!(rig.take(1, NOON), Timestamp { physical_ms: NOON, logical: 0 });
    assert_eq!(rig.take(5, NOON), Timestamp { physical_ms: NOON, logical: 5 });
    assert_eq!(rig.take(5, NOON + 1), Timestamp { physical_ms: NOON + 1, logical: 4 });
}

#[test]
fn a_count_of_zero_or_beyond_a_millisecond_is_refused_with_the_limit() {
    let mut rig = Rig::new();
    for count in [0, TSO_COUNT_MAX + 1, u32::MAX] {
        let error = rig.oracle.take(count, NOON).unwrap_err().to_string();
        assert_eq!(error, format!("count: must be between 1 and 262143, not {count}"));
    }
    rig.take(TSO_COUNT_MAX, NOON);
}

#[test]
fn the_logical_part_borrows_from_the_next_millisecond() {
    let mut rig = Rig::new();
    rig.take(TSO_COUNT_MAX, NOON);
    let borrowed = rig.take(TSO_COUNT_MAX, NOON);
    assert_eq!(borrowed.physical_ms, NOON + 1);
    // More than a window's worth at one standing moment.
    for _ in 0..2 * TIMESTAMP_WINDOW_MS {
        rig.take(TSO_COUNT_MAX, NOON);
    }
}

#[test]
fn a_restart_goes_on_above_everything_handed_out_even_with_a_clock_behind() {
    let mut rig = Rig::new();
    for now_ms in [NOON, NOON + 10, NOON - HOUR, NOON - 2 * HOUR, NOON + HOUR, NOON] {
        rig.take(100, now_ms);
        rig.restart();
        assert_eq!(rig.oracle.take(1, now_ms), Err(TimestampError::WindowUsedUp));
        rig.take(1, now_ms);
    }
}

#[test]
fn nothing_is_served_from_a_window_that_was_lost_before_it_was_durable() {
    let mut rig = Rig::new();
    rig.take(1, NOON);
    let mut lost = Change::default();
    rig.oracle.extend(NOON + 10_000, &mut lost).unwrap();
    assert!(!lost.is_empty());
    // Decided, not applied: not served.
    let refused = rig.oracle.take(1, NOON + 10_000);
    assert_eq!(refused, Err(TimestampError::WindowUsedUp));
    rig.restart();
    rig.take(1, NOON);
}

#[test]
fn a_clock_that_jumps_ahead_and_back_neither_stops_time_nor_turns_it() {
    let mut rig = Rig::new();
    rig.take(1, NOON);
    let ahead = rig.take(1, NOON + HOUR).physical_ms;
    let back = rig.take(1, NOON + 10).physical_ms;
    assert_eq!((ahead, back), (NOON + HOUR, NOON + HOUR));
    let mut later = 0;
    for step in 1..=100 {
        later = rig.take(1, NOON + 10 + step * 100).physical_ms;
    }
    assert_eq!(later, NOON + HOUR + 5000, "half speed while ahead");
    assert_eq!(rig.take(1, NOON + 3 * HOUR).physical_ms, NOON + 3 * HOUR, "caught up");
}

#[test]
fn the_window_is_extended_before_it_is_used_up() {
    let mut rig = Rig::new();
    let mut change = Change::default();
    rig.oracle.maintain(NOON + TIMESTAMP_WINDOW_MS - LOW_MS, &mut change).unwrap();
    assert!(change.is_empty());
    rig.oracle.maintain(NOON + TIMESTAMP_WINDOW_MS - LOW_MS + 1, &mut change).unwrap();
    assert!(!change.is_empty());
}

#[test]
fn a_clock_beyond_every_timestamp_is_an_error() {
    let mut rig = Rig::new();
    assert!(rig.oracle.take(1, u64::MAX).is_err());
    rig.take(1, NOON);
}

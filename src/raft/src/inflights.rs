//! The window of appends sent to one follower and not answered yet, limited in messages and in
//! bytes.
//!
//! Invariants: last indexes rise strictly from oldest to newest; `bytes` is the sum over the
//! window, so nothing leaks.

use std::collections::VecDeque;

use crate::LogIndex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flight {
    last_index: LogIndex,
    bytes: u64,
}

/// Appends in flight to one follower.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inflights {
    flights: VecDeque<Flight>,
    bytes: u64,
}

impl Inflights {
    /// Notes an append whose last entry is `last_index`.
    pub(crate) fn add(&mut self, last_index: LogIndex, bytes: u64) {
        let newest = self.flights.back().map_or(LogIndex(0), |flight| flight.last_index);
        assert!(last_index > newest, "appends in flight must rise: {last_index} after {newest}");
        self.flights.push_back(Flight { last_index, bytes });
        self.bytes += bytes;
    }

    /// Forgets every append that is answered by an acknowledgement of `index`.
    pub(crate) fn free_to(&mut self, index: LogIndex) {
        while self.flights.front().is_some_and(|flight| flight.last_index <= index) {
            self.free_oldest();
        }
    }

    fn free_oldest(&mut self) {
        if let Some(flight) = self.flights.pop_front() {
            self.bytes -= flight.bytes;
        }
    }

    /// Whether the window admits no further append. One append always fits, whatever its size.
    pub(crate) fn is_full(&self, messages_max: usize, bytes_max: u64) -> bool {
        self.flights.len() >= messages_max || self.bytes >= bytes_max
    }

    /// Forgets everything, and gives the memory back.
    pub(crate) fn reset(&mut self) {
        *self = Inflights::default();
    }

    /// Appends in flight.
    pub(crate) fn messages(&self) -> usize {
        self.flights.len()
    }

    /// Bytes in flight.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(flights: &[(u64, u64)]) -> Inflights {
        let mut window = Inflights::default();
        for (index, bytes) in flights {
            window.add(LogIndex(*index), *bytes);
        }
        window
    }

    #[test]
    fn acknowledgement_frees_everything_up_to_its_index() {
        let mut window = window(&[(3, 10), (5, 20), (9, 40)]);
        window.free_to(LogIndex(2));
        assert_eq!((window.messages(), window.bytes()), (3, 70));
        window.free_to(LogIndex(8));
        assert_eq!((window.messages(), window.bytes()), (1, 40));
        window.free_to(LogIndex(9));
        assert_eq!((window.messages(), window.bytes()), (0, 0));
    }

    #[test]
    fn window_is_full_by_messages_or_by_bytes() {
        let window = window(&[(1, 10), (2, 20)]);
        assert!(window.is_full(2, 1_000));
        assert!(window.is_full(100, 30));
        assert!(!window.is_full(3, 31));
        assert!(!Inflights::default().is_full(1, 1), "one append always fits");
    }

    #[test]
    #[should_panic(expected = "must rise")]
    fn indexes_in_flight_rise() {
        window(&[(4, 1), (4, 1)]);
    }
}

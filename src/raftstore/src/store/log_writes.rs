//! The log writes under way, and what waits for each.
//!
//! Invariants: 1. numbers count from 1 without gaps; 2. writes finish in order.

use std::collections::VecDeque;

use crate::peer::Held;

#[derive(Debug, Default)]
pub(super) struct LogWrites {
    last_number: u64,
    in_flight: VecDeque<(u64, Vec<Held>)>,
}

impl LogWrites {
    /// The number of the write that would begin next.
    pub(super) fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    /// A write begins.
    pub(super) fn begin(&mut self, number: u64, held: Vec<Held>) {
        assert_eq!(number, self.next_number(), "log writes are numbered without gaps");
        self.last_number = number;
        self.in_flight.push_back((number, held));
    }

    /// These wait for the newest write that has begun.
    pub(super) fn hold_by_newest(&mut self, mut held: Vec<Held>) {
        if held.is_empty() {
            return;
        }
        let newest = self.in_flight.back_mut().expect("a peer waits for a write under way");
        newest.1.append(&mut held);
    }

    /// The writes up to `number` are done: what waited for them, each with its write's number, in order.
    pub(super) fn finish(&mut self, number: u64) -> Vec<(u64, Held)> {
        assert!(number <= self.last_number, "log write {number} was never begun");
        let mut released = Vec::new();
        while self.in_flight.front().is_some_and(|(first, _)| *first <= number) {
            if let Some((first, held)) = self.in_flight.pop_front() {
                released.extend(held.into_iter().map(|held| (first, held)));
            }
        }
        released
    }

    /// None of them will be done.
    pub(super) fn abandon(&mut self) -> Vec<Held> {
        self.in_flight.drain(..).flat_map(|(_, held)| held).collect()
    }

    /// How many are under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

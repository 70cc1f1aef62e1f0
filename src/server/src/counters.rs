//! What a store has done, counted. Handles are built once and passed down; nothing is global.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `count` more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of the key-value services.
#[derive(Debug, Default)]
pub struct Counters {
    /// Reads answered on the receiving thread.
    pub reads_by_lease: Counter,
    /// Reads that asked a quorum.
    pub reads_by_quorum: Counter,
    /// Writes handed to the store.
    pub writes: Counter,
    /// Requests refused for what they asked.
    pub refused: Counter,
    /// Requests answered with a region error.
    pub region_errors: Counter,
}

impl Counters {
    /// All of them, by name.
    pub fn list(&self) -> [(&'static str, u64); 5] {
        [
            ("reads_by_lease", self.reads_by_lease.get()),
            ("reads_by_quorum", self.reads_by_quorum.get()),
            ("writes", self.writes.get()),
            ("requests_refused", self.refused.get()),
            ("region_errors", self.region_errors.get()),
        ]
    }
}

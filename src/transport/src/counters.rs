//! What the transport has done, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one transport, both halves. They only grow.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) messages_sent: AtomicU64,
    pub(crate) batches_sent: AtomicU64,
    pub(crate) messages_dropped: AtomicU64,
    pub(crate) messages_received: AtomicU64,
    pub(crate) connections_failed: AtomicU64,
    pub(crate) streams_refused: AtomicU64,
    pub(crate) snapshots_sent: AtomicU64,
    pub(crate) snapshots_received: AtomicU64,
    pub(crate) snapshots_failed: AtomicU64,
    pub(crate) snapshot_bytes_sent: AtomicU64,
    pub(crate) snapshot_bytes_received: AtomicU64,
}

impl Counters {
    /// All of them, by name.
    pub fn list(&self) -> [(&'static str, u64); 11] {
        [
            ("messages_sent", get(&self.messages_sent)),
            ("message_batches_sent", get(&self.batches_sent)),
            ("messages_dropped", get(&self.messages_dropped)),
            ("messages_received", get(&self.messages_received)),
            ("connections_failed", get(&self.connections_failed)),
            ("streams_refused", get(&self.streams_refused)),
            ("snapshots_sent", get(&self.snapshots_sent)),
            ("snapshots_received", get(&self.snapshots_received)),
            ("snapshots_failed", get(&self.snapshots_failed)),
            ("snapshot_bytes_sent", get(&self.snapshot_bytes_sent)),
            ("snapshot_bytes_received", get(&self.snapshot_bytes_received)),
        ]
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

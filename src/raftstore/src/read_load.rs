//! What readers do to a region, counted without a lock and sampled with one that nobody waits for.
//!
//! A reader is given a [`ReadMeter`] for one read; what it says there is added to the region's [`ReadCounters`] when the
//! read is over. The store loop collects the counters now and then.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// One in so many reads is sampled.
const SAMPLE_EVERY: u64 = 16;

/// Keys that a sample keeps: enough to find the middle of what is busy.
const SAMPLE_MAX: usize = 128;

/// The newest of the keys that were sampled.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySample {
    keys: Vec<Bytes>,
    next: usize,
}

impl KeySample {
    /// Takes a key in, in place of the oldest if there are too many.
    pub(crate) fn add(&mut self, key: Bytes) {
        // A sample outlives the message its keys came with.
        let key = Bytes::copy_from_slice(&key);
        if self.keys.len() < SAMPLE_MAX {
            self.keys.push(key);
        } else {
            self.keys[self.next] = key;
            self.next = (self.next + 1) % SAMPLE_MAX;
        }
    }

    /// The keys, in no order.
    pub(crate) fn into_keys(self) -> Vec<Bytes> {
        self.keys
    }
}

/// What one read found. Not for sharing between threads.
#[derive(Debug, Default)]
pub struct ReadMeter {
    keys: Cell<u64>,
    bytes: Cell<u64>,
    sampled: bool,
    sample: RefCell<Option<Bytes>>,
}

impl ReadMeter {
    /// The read has looked for `key` and found so many bytes of value, or none.
    pub fn count(&self, key: &[u8], value_bytes: usize) {
        self.keys.set(self.keys.get() + 1);
        self.bytes.set(self.bytes.get() + (key.len() + value_bytes) as u64);
        if self.sampled && self.sample.borrow().is_none() {
            *self.sample.borrow_mut() = Some(Bytes::copy_from_slice(key));
        }
    }
}

/// What was read since it was last collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadLoad {
    /// Reads, of one key or many.
    pub(crate) reads: u64,
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
    /// Some of the keys.
    pub(crate) sample: Vec<Bytes>,
}

/// The counters of one region's readers.
#[derive(Debug, Default)]
pub(crate) struct ReadCounters {
    reads: AtomicU64,
    keys: AtomicU64,
    bytes: AtomicU64,
    sample: Mutex<KeySample>,
}

impl ReadCounters {
    /// A meter for the read that begins.
    pub(crate) fn meter(&self) -> ReadMeter {
        let sampled = self.reads.load(Ordering::Relaxed).is_multiple_of(SAMPLE_EVERY);
        ReadMeter { sampled, ..ReadMeter::default() }
    }

    /// The read is over.
    pub(crate) fn add(&self, meter: ReadMeter) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.keys.fetch_add(meter.keys.get(), Ordering::Relaxed);
        self.bytes.fetch_add(meter.bytes.get(), Ordering::Relaxed);
        if let Some(key) = meter.sample.into_inner()
            && let Some(mut sample) = self.sample.try_lock()
        {
            sample.add(key);
        }
    }

    /// What was counted since the last call, if anything.
    pub(crate) fn take(&self) -> Option<ReadLoad> {
        if self.reads.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let sample = std::mem::take(&mut *self.sample.lock()).into_keys();
        let (reads, keys, bytes) = (take(&self.reads), take(&self.keys), take(&self.bytes));
        Some(ReadLoad { reads, keys, bytes, sample })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_counted_and_some_keys_kept() {
        let counters = ReadCounters::default();
        assert_eq!(counters.take(), None);
        for i in 0..32 {
            let meter = counters.meter();
            meter.count(format!("k{i:02}").as_bytes(), 7);
            meter.count(b"abc", 0);
            counters.add(meter);
        }
        let load = counters.take().expect("something");
        assert_eq!((load.reads, load.keys, load.bytes), (32, 64, 32 * 13));
        assert_eq!(load.sample, ["k00", "k16"]);
        assert_eq!(counters.take(), None);
    }

    #[test]
    fn a_sample_keeps_the_newest() {
        let mut sample = KeySample::default();
        (0..SAMPLE_MAX + 3).for_each(|i| sample.add(i.to_string().into()));
        let keys = sample.into_keys();
        assert_eq!(keys.len(), SAMPLE_MAX);
        assert!(!keys.contains(&Bytes::from("2")) && keys.contains(&Bytes::from("130")));
    }
}

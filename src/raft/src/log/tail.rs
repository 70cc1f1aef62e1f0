//! The newest part of the log, in memory: from the first entry that is not yet both durable and
//! handed out for applying.
//!
//! Keeping entries until both have happened means that on the usual path an entry is never read
//! back from the storage, and that the storage never has to serve what it was not told is durable.
//!
//! Invariants: entries are consecutive from `first`; a snapshot, if present, ends right before an
//! entry at `first` or stands alone; everything before `unwritten` was put into a [`crate::Ready`].

use crate::{Entry, LogIndex, Snapshot, Term};

/// The newest part of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    /// Replaces everything before; not yet durable.
    pub(crate) snapshot: Option<Snapshot>,
    /// Whether the snapshot was put into a Ready.
    pub(crate) snapshot_written: bool,
    /// Index of the first entry held, or of the next one if none is.
    pub(crate) first: LogIndex,
    /// First index that was not put into a Ready.
    pub(crate) unwritten: LogIndex,
    entries: Vec<Entry>,
}

impl Tail {
    pub(crate) fn new(first: LogIndex) -> Tail {
        Tail { first, unwritten: first, ..Tail::default() }
    }

    /// The index after the last entry.
    pub(crate) fn end(&self) -> LogIndex {
        self.first + self.entries.len() as u64
    }

    fn at(&self, index: LogIndex) -> usize {
        (index - self.first) as usize
    }

    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        if index >= self.first {
            return self.entries.get(self.at(index)).map(|entry| entry.term);
        }
        self.snapshot.as_ref().filter(|snapshot| snapshot.index == index).map(|s| s.term)
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.end(), "the tail has no gaps");
        self.entries.push(entry);
    }

    /// Entries of `[from, to)`, cut after `max_bytes` but at least one if there is any.
    pub(crate) fn entries(&self, from: LogIndex, to: LogIndex, max_bytes: u64) -> Vec<Entry> {
        let wanted = &self.entries[self.at(from)..self.at(to)];
        let mut bytes = 0;
        let fitting = wanted.iter().take_while(|entry| {
            bytes += entry.size_bytes();
            bytes <= max_bytes
        });
        let count = fitting.count().max(1).min(wanted.len());
        wanted[..count].to_vec()
    }

    /// Like `entries`, but none if the first one does not fit.
    pub(crate) fn entries_within(
        &self,
        from: LogIndex,
        to: LogIndex,
        max_bytes: u64,
    ) -> Vec<Entry> {
        let found = self.entries(from, to, max_bytes);
        let fits = found.len() != 1 || found[0].size_bytes() <= max_bytes;
        if fits { found } else { Vec::new() }
    }

    /// Drops everything from `from` on; it was overwritten.
    pub(crate) fn truncate_from(&mut self, from: LogIndex) {
        if from <= self.first {
            assert!(self.snapshot.is_none() || from == self.first, "cutting into a snapshot");
            self.first = from;
            self.entries.clear();
        } else {
            let kept = self.at(from);
            self.entries.truncate(kept);
        }
        self.unwritten = self.unwritten.min(from);
    }

    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        self.entries.clear();
        self.first = snapshot.index.next();
        self.unwritten = self.first;
        self.snapshot = Some(snapshot);
        self.snapshot_written = false;
    }

    /// The snapshot to write, if it was not given out yet.
    pub(crate) fn take_unwritten_snapshot(&mut self) -> Option<Snapshot> {
        if self.snapshot_written {
            return None;
        }
        let snapshot = self.snapshot.clone();
        self.snapshot_written = snapshot.is_some();
        snapshot
    }

    /// The entries to write that were not given out yet.
    pub(crate) fn take_unwritten(&mut self) -> Vec<Entry> {
        if !self.has_unwritten_entries() {
            return Vec::new();
        }
        let entries = self.entries[self.at(self.unwritten)..].to_vec();
        self.unwritten = self.end();
        entries
    }

    pub(crate) fn has_unwritten_entries(&self) -> bool {
        self.unwritten < self.end()
    }

    pub(crate) fn has_unwritten_snapshot(&self) -> bool {
        self.snapshot.is_some() && !self.snapshot_written
    }

    /// The snapshot at `index` is durable.
    pub(crate) fn persist_snapshot(&mut self, index: LogIndex) {
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.index == index) {
            self.snapshot = None;
            self.snapshot_written = false;
        }
    }

    /// Entries up to `index` are durable and handed out: let them go.
    pub(crate) fn release_to(&mut self, index: LogIndex) {
        if index < self.first {
            return;
        }
        let released = self.at(index.next()).min(self.entries.len());
        self.entries.drain(..released);
        self.first += released as u64;
        if self.entries.is_empty() && self.entries.capacity() > RETAINED_CAPACITY_MAX {
            self.entries = Vec::new();
        }
    }
}

/// Entries' worth of memory an idle tail keeps.
const RETAINED_CAPACITY_MAX: usize = 64;

//! The newest end of a region's log, kept in memory: what is about to be applied and sent is read from here.
//!
//! Invariants: 1. indexes are contiguous; 2. the last entry is the log's last, or the cache is empty; 3. entries are let go
//! from the front only, and only when somebody says that the engine has them.

use std::collections::VecDeque;

use raft::{Entry, LogIndex, Term};

#[derive(Debug, Default)]
pub(crate) struct EntryCache {
    entries: VecDeque<Entry>,
    size_bytes: u64,
}

impl EntryCache {
    /// The first index held.
    pub(crate) fn first_index(&self) -> Option<LogIndex> {
        self.entries.front().map(|entry| entry.index)
    }

    /// Bytes held.
    #[cfg(test)]
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Puts `entries` at the end, in place of whatever stood at their indexes and after.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        while self.entries.back().is_some_and(|last| last.index >= first) {
            self.pop_back();
        }
        if self.entries.back().is_some_and(|last| last.index.next() != first) {
            // The log was cut below what is held and continues elsewhere; the front is no longer its end.
            self.clear();
        }
        for entry in entries {
            self.size_bytes += entry.size_bytes();
            self.entries.push_back(entry.clone());
        }
    }

    /// The entries of `[from, to)` up to `bytes_max`, at least one; `None` if not all of the range is held.
    pub(crate) fn range(&self, from: LogIndex, to: LogIndex, bytes_max: u64) -> Option<Vec<Entry>> {
        let first = self.first_index()?;
        if from < first || to > first + self.entries.len() as u64 || from >= to {
            return None;
        }
        let (start, count) = ((from - first) as usize, (to - from) as usize);
        let mut found = Vec::with_capacity(count.min(1024));
        let mut size_bytes = 0;
        for entry in self.entries.range(start..start + count) {
            size_bytes += entry.size_bytes();
            if size_bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Some(found)
    }

    /// The term of the entry at `index`, if it is held.
    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        let first = self.first_index()?;
        if index < first {
            return None;
        }
        self.entries.get((index - first) as usize).map(|entry| entry.term)
    }

    /// Lets the oldest entries up to and including `last` go until no more than `bytes_max` are held.
    pub(crate) fn trim(&mut self, last: LogIndex, bytes_max: u64) {
        while self.size_bytes > bytes_max
            && self.entries.front().is_some_and(|entry| entry.index <= last)
        {
            if let Some(entry) = self.entries.pop_front() {
                self.size_bytes -= entry.size_bytes();
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.size_bytes = 0;
    }

    fn pop_back(&mut self) {
        if let Some(entry) = self.entries.pop_back() {
            self.size_bytes -= entry.size_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index: LogIndex(index),
            term: Term(term),
            data: vec![0; 76].into(),
            ..Entry::default()
        }
    }

    fn cache(indexes: std::ops::Range<u64>) -> EntryCache {
        let mut cache = EntryCache::default();
        cache.append(&indexes.map(|index| entry(index, 1)).collect::<Vec<_>>());
        cache
    }

    fn indexes(cache: &EntryCache, from: u64, to: u64, bytes_max: u64) -> Option<Vec<u64>> {
        let found = cache.range(LogIndex(from), LogIndex(to), bytes_max)?;
        Some(found.iter().map(|entry| entry.index.0).collect())
    }

    #[test]
    fn a_range_is_served_whole_or_not_at_all() {
        let cache = cache(6..10);
        assert_eq!(indexes(&cache, 7, 9, u64::MAX), Some(vec![7, 8]));
        assert_eq!(indexes(&cache, 6, 10, 250), Some(vec![6, 7]), "100 bytes each");
        assert_eq!(indexes(&cache, 6, 10, 0), Some(vec![6]), "at least one");
        assert_eq!(indexes(&cache, 5, 9, u64::MAX), None);
        assert_eq!(indexes(&cache, 6, 11, u64::MAX), None);
        assert_eq!(cache.term(LogIndex(9)), Some(Term(1)));
        assert_eq!(cache.term(LogIndex(10)), None);
    }

    #[test]
    fn an_overwritten_suffix_is_gone() {
        let mut cache = cache(6..10);
        cache.append(&[entry(8, 2)]);
        assert_eq!(indexes(&cache, 6, 9, u64::MAX), Some(vec![6, 7, 8]));
        assert_eq!(cache.term(LogIndex(8)), Some(Term(2)));
        assert_eq!(cache.term(LogIndex(9)), None);
        assert_eq!(cache.size_bytes(), 300);
        cache.append(&[entry(3, 3)]);
        assert_eq!(cache.first_index(), Some(LogIndex(3)));
        assert_eq!(cache.size_bytes(), 100);
    }

    #[test]
    fn trimming_stops_at_the_given_entry() {
        let mut cache = cache(6..10);
        cache.trim(LogIndex(7), 0);
        assert_eq!(cache.first_index(), Some(LogIndex(8)));
        cache.trim(LogIndex(9), 150);
        assert_eq!((cache.first_index(), cache.size_bytes()), (Some(LogIndex(9)), 100));
    }
}

//! The log of one node: its durable part, read through [`Storage`], and its newest part, held in
//! memory.
//!
//! Vocabulary: the *tail* is the newest part (see [`tail`]); *committed* is what no election can
//! take back; *persisted* is what is known to be on this node's disk; *handed out* is what the
//! driver was given to apply; *applied* is what it said it did.
//!
//! Invariants ([`RaftLog::check_invariants`]):
//! 1. `applied <= handed_out <= min(committed, persisted)`, save that a restored snapshot counts as
//!    handed out at once;
//! 2. `committed <= last_index`, and it never falls; 3. an entry at or below `committed` is never
//!    overwritten;
//! 4. `persisted` falls only when an unpersisted append overwrites a persisted suffix.
//!
//! Tests: `log/tests.rs`.

pub(crate) mod tail;
#[cfg(test)]
mod tests;

use crate::planted::{Bug, planted};
use crate::{Entry, LogIndex, Refusal, Snapshot, Storage, StorageError, Term};

use tail::Tail;

/// The log of one node.
#[derive(Debug)]
pub struct RaftLog<S> {
    pub(crate) storage: S,
    pub(crate) tail: Tail,
    pub(crate) committed: LogIndex,
    pub(crate) persisted: LogIndex,
    pub(crate) handed_out: LogIndex,
    pub(crate) applied: LogIndex,
    last: (LogIndex, Term),
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// The logs agree up to this index.
    Match {
        last_new: LogIndex,
        /// First index at which the log was cut or extended.
        written_from: Option<LogIndex>,
    },
    /// The entry before the append is missing or differs.
    Mismatch,
}

impl<S: Storage> RaftLog<S> {
    pub(crate) fn new(storage: S) -> Result<RaftLog<S>, StorageError> {
        let (first, last) = (storage.first_index(), storage.last_index());
        if first == LogIndex(0) || last.next() < first {
            return Err(StorageError::Corrupt(format!("log starts at {first}, ends at {last}")));
        }
        let last_term = storage.term(last)?;
        Ok(RaftLog {
            storage,
            tail: Tail::new(last.next()),
            committed: first.prev(),
            persisted: last,
            handed_out: first.prev(),
            applied: first.prev(),
            last: (last, last_term),
        })
    }

    /// Index of the first entry that is still there.
    pub fn first_index(&self) -> LogIndex {
        match &self.tail.snapshot {
            Some(snapshot) => snapshot.index.next(),
            None => self.storage.first_index(),
        }
    }

    /// Index of the last entry.
    pub fn last_index(&self) -> LogIndex {
        self.last.0
    }

    /// Term of the last entry.
    pub fn last_term(&self) -> Term {
        self.last.1
    }

    /// Highest index known to be committed.
    pub fn committed(&self) -> LogIndex {
        self.committed
    }

    /// Highest index known to be on this node's disk.
    pub fn persisted(&self) -> LogIndex {
        self.persisted
    }

    /// Highest index reported as applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Term of the entry at `index`, which may be the one before the first.
    pub fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        if index == self.last.0 {
            return Ok(self.last.1);
        }
        if index > self.last.0 {
            return Err(StorageError::Unavailable);
        }
        if let Some(term) = self.tail.term(index) {
            return Ok(term);
        }
        if self.tail.snapshot.is_some() {
            return Err(StorageError::Compacted);
        }
        self.storage.term(index)
    }

    /// Whether the entry at `index` has this term.
    pub fn matches(&self, index: LogIndex, term: Term) -> bool {
        self.term(index) == Ok(term)
    }

    /// Entries of `[from, to)`, cut after `max_bytes` but at least one if there is any.
    pub fn entries(
        &self,
        from: LogIndex,
        to: LogIndex,
        max_bytes: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        if from < self.first_index() {
            return Err(StorageError::Compacted);
        }
        if to > self.last.0.next() {
            return Err(StorageError::Unavailable);
        }
        if from >= to {
            return Ok(Vec::new());
        }
        if from >= self.tail.first {
            return Ok(self.tail.entries(from, to, max_bytes));
        }
        let stored_to = to.min(self.tail.first);
        let mut found = self.storage.entries(from, stored_to, max_bytes)?;
        check_run(&found, from, stored_to)?;
        if from + found.len() as u64 == stored_to && stored_to < to {
            let bytes: u64 = found.iter().map(Entry::size_bytes).sum();
            found.extend(self.tail.entries_within(stored_to, to, max_bytes.saturating_sub(bytes)));
        }
        Ok(found)
    }

    /// Whether a log ending with (`term`, `index`) holds at least everything committed here could
    /// be (thesis §3.6.1).
    pub(crate) fn is_up_to_date(&self, index: LogIndex, term: Term) -> bool {
        if planted(Bug::LogCompareWrong) {
            return index >= self.last.0;
        }
        (term, index) >= (self.last.1, self.last.0)
    }

    /// Adds entries behind the last one.
    pub(crate) fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            assert_eq!(entry.index, self.last.0.next(), "entries must follow each other");
            assert!(entry.term >= self.last.1, "terms must not fall");
            self.last = (entry.index, entry.term);
            self.tail.push(entry);
        }
    }

    /// Takes over a leader's entries after (`prev_index`, `prev_term`), if that entry is here
    /// (thesis §3.5).
    pub(crate) fn append(
        &mut self,
        (prev_index, prev_term): (LogIndex, Term),
        mut entries: Vec<Entry>,
    ) -> Result<Appended, Refusal> {
        let prev_fits = prev_index <= self.last.0
            && (self.matches(prev_index, prev_term) || planted(Bug::AppendWithoutPrevCheck));
        if !prev_fits {
            return Ok(Appended::Mismatch);
        }
        let last_new = prev_index + entries.len() as u64;
        let differs = entries.iter().position(|entry| !self.matches(entry.index, entry.term));
        let Some(at) = differs else {
            return Ok(Appended::Match { last_new, written_from: None });
        };
        let from = entries[at].index;
        if from <= self.committed {
            return Err(Refusal::ContradictsCommitted { index: from, commit: self.committed });
        }
        self.truncate_from(from);
        self.extend(entries.drain(at..));
        Ok(Appended::Match { last_new, written_from: Some(from) })
    }

    fn truncate_from(&mut self, from: LogIndex) {
        if from > self.last.0 {
            return;
        }
        assert!(from > self.committed, "cutting committed entries from {from}");
        // The entry before the cut was matched a moment ago, so its term is at hand.
        let term = self.term(from.prev()).expect("the entry before a cut is known");
        self.tail.truncate_from(from);
        self.persisted = self.persisted.min(from.prev());
        self.last = (from.prev(), term);
    }

    /// The last position at or before `index` whose entry is not newer than `term`, and its term: a
    /// log whose entry at `index` has that term cannot agree behind it. Looks no further back than
    /// `floor`.
    pub(crate) fn last_not_after_term(
        &self,
        mut index: LogIndex,
        term: Term,
        floor: LogIndex,
    ) -> (LogIndex, Term) {
        loop {
            match self.term(index) {
                Ok(found) if found > term && index > floor => index = index.prev(),
                Ok(found) => return (index, found),
                Err(_) => return (index, Term(0)),
            }
        }
    }

    /// Raises the commit index. Never lowers it.
    pub(crate) fn commit_to(&mut self, index: LogIndex) {
        if index > self.committed || planted(Bug::CommitRegress) {
            assert!(index <= self.last.0, "commit {index} beyond the last entry {}", self.last.0);
            self.committed = index;
        }
    }

    /// Replaces the whole log by a snapshot.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        self.persisted = self.persisted.min(self.committed);
        self.committed = snapshot.index;
        self.handed_out = snapshot.index;
        self.last = (snapshot.index, snapshot.term);
        self.tail.restore(snapshot);
    }

    /// A log without a beginning begins behind (`index`, `term`); the storage knows.
    pub(crate) fn begin_at(&mut self, index: LogIndex, term: Term) {
        assert!(self.last.0 == LogIndex(0) && self.tail.snapshot.is_none(), "the log has begun");
        (self.committed, self.persisted, self.handed_out, self.applied) =
            (index, index, index, index);
        self.last = (index, term);
        self.tail = Tail::new(index.next());
    }

    /// Everything up to `index` is on this node's disk.
    pub(crate) fn persist_to(&mut self, index: LogIndex) {
        if index > self.persisted {
            assert!(index <= self.last.0, "persisted {index} beyond the last entry");
            self.persisted = index;
            self.release_tail();
        }
    }

    /// The highest index that may be handed out for applying.
    pub(crate) fn applicable(&self) -> LogIndex {
        if self.tail.snapshot.is_some() {
            // Nothing is applied on top of a snapshot that is not on disk yet.
            return self.handed_out;
        }
        if planted(Bug::ApplyBeforePersist) {
            return self.committed;
        }
        self.committed.min(self.persisted)
    }

    /// The next committed entries to apply.
    pub(crate) fn next_committed(&mut self, max_bytes: u64) -> Result<Vec<Entry>, StorageError> {
        let to = self.applicable();
        if to <= self.handed_out {
            return Ok(Vec::new());
        }
        let entries = self.entries(self.handed_out.next(), to.next(), max_bytes)?;
        self.handed_out += entries.len() as u64;
        self.release_tail();
        Ok(entries)
    }

    pub(crate) fn applied_to(&mut self, index: LogIndex) {
        assert!(index <= self.handed_out, "applied {index}, handed out {}", self.handed_out);
        self.applied = self.applied.max(index);
    }

    fn release_tail(&mut self) {
        self.tail.release_to(self.persisted.min(self.handed_out));
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.applied <= self.handed_out);
        assert!(self.handed_out <= self.committed);
        assert!(self.committed <= self.last.0);
        assert!(self.persisted <= self.last.0);
        assert!(self.tail.snapshot.is_some() || self.handed_out <= self.persisted);
        assert_eq!(self.tail.end(), self.last.0.next());
    }
}

/// Refuses an answer of the storage that is not the run of entries asked for.
fn check_run(entries: &[Entry], from: LogIndex, to: LogIndex) -> Result<(), StorageError> {
    let consecutive = entries.iter().enumerate().all(|(at, entry)| entry.index == from + at as u64);
    if consecutive && !entries.is_empty() && from + entries.len() as u64 <= to {
        Ok(())
    } else {
        Err(StorageError::Corrupt(format!("entries from {from} to {to} are not consecutive")))
    }
}

//! A region's Raft log over the shared engine: what Raft reads, and the write operations for what it wants written.
//!
//! # Vocabulary
//! *Truncated*: the last position the log no longer holds. *Appended*: put into a log write, perhaps not yet carried out.
//! *Written*: reported back by the log writer.
//!
//! # Invariants
//! 1. truncated < first index <= last index + 1.
//! 2. Appended entries that are not written are in the cache, so a read never asks the engine for them.
//! 3. When a shorter suffix replaces a longer one, the rest of the longer one is deleted in the same batch: the last key of
//!    the log's range is the last index.
//! 4. What a log write reports is only what no later one has replaced (R19).
//! 5. Only term and vote force a write of the hard state. A commit index alone rides with the next write: after a crash it
//!    is at least the applied index, and the leader tells the rest.
//!
//! Tests: `storage/tests.rs`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use engine::{Cf, Engine, WriteBatch};
use proto::ids::{PeerId, RegionId};
use raft::{
    ConfState, Entry, HardState, InitialState, LogIndex, NodeId, Snapshot, Storage, StorageError,
    Term,
};

use super::entry_cache::EntryCache;
use super::records::{self, Corruption, ReadError};
use super::snapshot_desk::SnapshotDesk;
use super::{INITIAL_INDEX, INITIAL_TERM};
use crate::apply::ApplyState;
use crate::keys::{self, Key};
use crate::planted::{Bug, planted};

/// Above this many overwritten entries a range deletion is cheaper than single ones.
const SINGLE_DELETES_MAX: u64 = 64;

/// See the module header.
#[derive(Debug)]
pub(crate) struct PeerStorage {
    engine: Arc<dyn Engine>,
    region: RegionId,
    initial: InitialState,
    truncated_index: LogIndex,
    truncated_term: Term,
    /// Everything below has been deleted by this process; `None` before its first deletion.
    deleted_below: Option<LogIndex>,
    last_index: LogIndex,
    last_term: Term,
    cache: EntryCache,
    written_index: LogIndex,
    /// Log writes under way, by number, and the last entry each leaves behind.
    writing: VecDeque<(u64, LogIndex)>,
    /// As last put into a log write.
    hard_state: HardState,
    desk: RefCell<SnapshotDesk>,
}

/// Where a log begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogStart {
    pub(crate) index: LogIndex,
    pub(crate) term: Term,
}

impl PeerStorage {
    /// Reads a region's log position from the engine. `start` is its truncated position, `applied` its applied index.
    pub(crate) fn load(
        engine: Arc<dyn Engine>,
        region: RegionId,
        conf_state: ConfState,
        start: LogStart,
        applied: LogIndex,
    ) -> Result<PeerStorage, ReadError> {
        let damaged = |detail: String| Corruption { region, what: "Raft log", detail };
        let stored = records::read_hard_state(engine.as_ref(), region)?.unwrap_or_default();
        let mut hard_state = HardState { commit: stored.commit.max(applied), ..stored };
        if (start.index, start.term) == (INITIAL_INDEX, INITIAL_TERM) && stored.term < start.term {
            // Cut from another region, and nothing written since: it starts like all such peers.
            hard_state.term = start.term;
            hard_state.vote = None;
        }
        let (last_index, last_term) = match last_entry(engine.as_ref(), region)? {
            Some(entry) if entry.index > start.index => (entry.index, entry.term),
            _ => (start.index, start.term),
        };
        if last_index < hard_state.commit {
            // Acknowledged entries are missing: serving on would be amnesia (R27, M12).
            let commit = hard_state.commit;
            let detail = format!("it ends at {last_index}, but {commit} was committed");
            return Err(damaged(detail).into());
        }
        if hard_state.term < last_term {
            let detail = format!("its last term {last_term} is ahead of {}", hard_state.term);
            return Err(damaged(detail).into());
        }
        let mut storage = PeerStorage::initial(engine, region, conf_state, start, hard_state);
        storage.last_index = last_index;
        storage.last_term = last_term;
        storage.written_index = last_index;
        Ok(storage)
    }

    /// The log of a peer that is just being created.
    pub(crate) fn initial(
        engine: Arc<dyn Engine>,
        region: RegionId,
        conf_state: ConfState,
        start: LogStart,
        hard_state: HardState,
    ) -> PeerStorage {
        PeerStorage {
            engine,
            region,
            initial: InitialState { hard_state, conf_state },
            truncated_index: start.index,
            truncated_term: start.term,
            deleted_below: None,
            last_index: start.index,
            last_term: start.term,
            cache: EntryCache::default(),
            written_index: start.index,
            writing: VecDeque::new(),
            hard_state,
            desk: RefCell::default(),
        }
    }

    /// Adds the hard state to `batch` if `force` (something else is being written anyway) or if it must not be lost.
    /// Returns whether it was added.
    pub(crate) fn put_hard_state(
        &mut self,
        state: &HardState,
        force: bool,
        batch: &mut WriteBatch,
    ) -> bool {
        let promised = (state.term, state.vote) != (self.hard_state.term, self.hard_state.vote);
        if promised && planted(Bug::HardStateNotWritten) {
            return false;
        }
        if !force && !promised {
            return false;
        }
        let key = Key::HardState(self.region).encode();
        batch.put(Cf::Raft, key, records::encode_hard_state(state));
        self.hard_state = *state;
        true
    }

    /// Adds new entries to `batch`, which is log write `number`; they replace whatever stood at their indexes and after.
    pub(crate) fn append(&mut self, entries: &[Entry], number: u64, batch: &mut WriteBatch) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        assert!(first.index > self.truncated_index, "appending below the log's start");
        assert!(first.index <= self.last_index.next(), "appending leaves a gap");
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(entry.index, first.index + at as u64, "entries are contiguous");
            let key = Key::LogEntry(self.region, entry.index).encode();
            batch.put(Cf::Raft, key, records::encode_entry(entry));
        }
        self.delete_suffix(last.index.next(), batch);
        self.cache.append(entries);
        self.written_index = self.written_index.min(first.index.prev());
        for (_, left) in &mut self.writing {
            *left = (*left).min(first.index.prev());
        }
        self.writing.push_back((number, last.index));
        self.last_index = last.index;
        self.last_term = last.term;
    }

    /// Deletes `[from, last_index]`.
    fn delete_suffix(&self, from: LogIndex, batch: &mut WriteBatch) {
        if planted(Bug::StaleSuffixKept) {
            return;
        }
        let count = self.last_index.next().distance_from(from);
        if count > SINGLE_DELETES_MAX {
            self.delete_range(from, self.last_index.next(), batch);
            return;
        }
        for index in from.0..=self.last_index.0 {
            batch.delete(Cf::Raft, Key::LogEntry(self.region, LogIndex(index)).encode());
        }
    }

    fn delete_range(&self, from: LogIndex, to: LogIndex, batch: &mut WriteBatch) {
        let range = keys::log_range(self.region, from, to);
        batch.delete_range(Cf::Raft, range.lower, range.upper.unwrap_or_default());
    }

    /// The log up to `index` is no longer needed, and the record that says so is written: deletes it.
    pub(crate) fn truncate(&mut self, index: LogIndex, term: Term, batch: &mut WriteBatch) {
        if index <= self.truncated_index {
            return;
        }
        assert!(index <= self.last_index, "truncating beyond the log's end");
        let from = self.deleted_below.unwrap_or(LogIndex(0));
        self.delete_range(from, index.next(), batch);
        self.deleted_below = Some(index.next());
        self.truncated_index = index;
        self.truncated_term = term;
        self.cache.trim(index, 0);
    }

    /// A snapshot takes the place of the whole log.
    pub(crate) fn restart_at(&mut self, start: LogStart, batch: &mut WriteBatch) {
        let range = keys::log_range_all(self.region);
        batch.delete_range(Cf::Raft, range.lower, range.upper.unwrap_or_default());
        self.deleted_below = Some(start.index.next());
        self.truncated_index = start.index;
        self.truncated_term = start.term;
        self.last_index = start.index;
        self.last_term = start.term;
        self.written_index = start.index;
        self.writing.clear();
        self.cache.clear();
    }

    /// A log that was empty, and began nowhere, begins behind `start`.
    pub(crate) fn begin_at(&mut self, start: LogStart) {
        assert_eq!(self.last_index, LogIndex(0), "a peer without a region has no log");
        self.truncated_index = start.index;
        self.truncated_term = start.term;
        self.last_index = start.index;
        self.last_term = start.term;
        self.written_index = start.index;
    }

    /// The log writes up to `number` have been carried out.
    pub(crate) fn on_written(&mut self, number: u64) {
        while self.writing.front().is_some_and(|(first, _)| *first <= number) {
            if let Some((_, last)) = self.writing.pop_front() {
                self.written_index = self.written_index.max(last);
            }
        }
    }

    /// Lets cached entries go that are both written and applied.
    pub(crate) fn trim_cache(&mut self, applied: LogIndex, bytes_max: u64) {
        self.cache.trim(applied.min(self.written_index), bytes_max);
    }

    /// The last position the log no longer holds.
    pub(crate) fn truncated_index(&self) -> LogIndex {
        self.truncated_index
    }

    /// The desk where snapshots for other peers are ordered and picked up.
    pub(crate) fn desk_mut(&mut self) -> &mut SnapshotDesk {
        self.desk.get_mut()
    }

    /// Whether Raft wants snapshots that nobody was told about.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.desk.borrow().has_wanted()
    }

    /// Bytes of the log in memory.
    #[cfg(test)]
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cache.size_bytes()
    }

    fn read_entry(&self, index: LogIndex) -> Result<Entry, StorageError> {
        let key = Key::LogEntry(self.region, index).encode();
        let stored = self.engine.get(Cf::Raft, &key).map_err(|e| corrupt(&e.to_string()))?;
        let bytes = stored.ok_or_else(|| corrupt(&format!("entry {index} is missing")))?;
        let entry = records::decode_entry(bytes).map_err(|e| corrupt(&e))?;
        if entry.index != index {
            return Err(corrupt(&format!("entry {index} says it is {}", entry.index)));
        }
        Ok(entry)
    }

    fn read_entries(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut found = Vec::new();
        let mut size_bytes = 0;
        for index in from.0..to.0 {
            // The newer part of a range may be cached and not yet written.
            let held = self.cache.range(LogIndex(index), LogIndex(index).next(), u64::MAX);
            let entry = match held.and_then(|mut entries| entries.pop()) {
                Some(entry) => entry,
                None => self.read_entry(LogIndex(index))?,
            };
            size_bytes += entry.size_bytes();
            if size_bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry);
        }
        Ok(found)
    }
}

fn corrupt(detail: &str) -> StorageError {
    StorageError::Corrupt(detail.to_owned())
}

/// The entry with the highest index in the region's log range.
fn last_entry(engine: &dyn Engine, region: RegionId) -> Result<Option<Entry>, ReadError> {
    let snapshot = engine.snapshot();
    let mut iter = snapshot.iter(Cf::Raft, keys::log_range_all(region));
    if !iter.seek_to_last()? {
        return Ok(None);
    }
    let bytes = Bytes::copy_from_slice(iter.value());
    let entry = records::decode_entry(bytes).map_err(|detail| Corruption {
        region,
        what: "last log entry",
        detail,
    })?;
    Ok(Some(entry))
}

/// Where the log of a region begins that has this apply state.
pub(crate) fn log_start(state: &ApplyState) -> LogStart {
    LogStart { index: state.truncated_index, term: state.truncated_term }
}

impl Storage for PeerStorage {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        from: LogIndex,
        to: LogIndex,
        max_bytes: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        if from <= self.truncated_index {
            return Err(StorageError::Compacted);
        }
        if to > self.last_index.next() {
            return Err(StorageError::Unavailable);
        }
        match self.cache.range(from, to, max_bytes) {
            Some(entries) => Ok(entries),
            None => self.read_entries(from, to, max_bytes),
        }
    }

    fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        if index == self.truncated_index {
            return Ok(self.truncated_term);
        }
        if index == self.last_index {
            return Ok(self.last_term);
        }
        if index < self.truncated_index {
            return Err(StorageError::Compacted);
        }
        if index > self.last_index {
            return Err(StorageError::Unavailable);
        }
        match self.cache.term(index) {
            Some(term) => Ok(term),
            None => Ok(self.read_entry(index)?.term),
        }
    }

    fn first_index(&self) -> LogIndex {
        self.truncated_index.next()
    }

    fn last_index(&self) -> LogIndex {
        self.last_index
    }

    fn snapshot(&self, at_least: LogIndex, to: NodeId) -> Result<Snapshot, StorageError> {
        let at_least = at_least.max(self.truncated_index);
        let taken = self.desk.borrow_mut().take(PeerId::from(to.0), at_least);
        taken.ok_or(StorageError::SnapshotTemporarilyUnavailable)
    }
}

#[cfg(test)]
mod tests;

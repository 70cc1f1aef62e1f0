//! A log in memory, for tests and for drivers that keep no disk.

use crate::{
    ConfState, Entry, HardState, InitialState, LogIndex, NodeId, Snapshot, Storage, StorageError,
    Term,
};

/// A log in memory. Its fields are its state: tests set up whatever they need.
#[derive(Clone, Debug, Default)]
pub struct MemStorage {
    /// What `initial_state` answers.
    pub hard_state: HardState,
    /// What `initial_state` answers; also the membership of snapshots made by `snapshot`.
    pub conf_state: ConfState,
    /// Position the log starts after: the last compacted entry, or 0.
    pub start: (LogIndex, Term),
    /// The entries after `start`, consecutive.
    pub entries: Vec<Entry>,
    /// What `snapshot` answers; `None` makes one at the hard state's commit index.
    pub snapshot: Option<Snapshot>,
    /// Answer `snapshot` with "not ready yet".
    pub snapshot_unavailable: bool,
}

impl MemStorage {
    /// An empty log of a group with these voters.
    pub fn with_voters(voters: impl IntoIterator<Item = u64>) -> MemStorage {
        MemStorage { conf_state: ConfState::simple(voters, []), ..MemStorage::default() }
    }

    /// Writes entries, cutting whatever is stored from the first one's index on. Panics on a gap.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.start.0, "append before the start of the log");
        let kept = (first.index - self.start.0 - 1) as usize;
        assert!(kept <= self.entries.len(), "append leaves a gap before {}", first.index);
        self.entries.truncate(kept);
        self.entries.extend_from_slice(entries);
    }

    /// Drops entries up to and including `index`. Panics if it is not in the log.
    pub fn compact(&mut self, index: LogIndex) {
        if index <= self.start.0 {
            return;
        }
        let dropped = (index - self.start.0) as usize;
        assert!(dropped <= self.entries.len(), "compact beyond the last entry");
        let term = self.entries[dropped - 1].term;
        self.entries.drain(..dropped);
        self.start = (index, term);
    }

    /// Replaces the log by a snapshot.
    pub fn install(&mut self, snapshot: &Snapshot) {
        self.entries.clear();
        self.start = (snapshot.index, snapshot.term);
        self.conf_state = snapshot.conf_state.clone();
        self.hard_state.commit = self.hard_state.commit.max(snapshot.index);
        self.hard_state.term = self.hard_state.term.max(snapshot.term);
    }
}

impl Storage for MemStorage {
    fn initial_state(&self) -> Result<InitialState, StorageError> {
        Ok(InitialState { hard_state: self.hard_state, conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        from: LogIndex,
        to: LogIndex,
        max_bytes: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        if from <= self.start.0 {
            return Err(StorageError::Compacted);
        }
        if to > self.last_index().next() {
            return Err(StorageError::Unavailable);
        }
        let at = |index: LogIndex| (index - self.start.0 - 1) as usize;
        let mut found = Vec::new();
        let mut bytes = 0;
        for entry in &self.entries[at(from)..at(to)] {
            bytes += entry.size_bytes();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: LogIndex) -> Result<Term, StorageError> {
        if index < self.start.0 {
            return Err(StorageError::Compacted);
        }
        if index == self.start.0 {
            return Ok(self.start.1);
        }
        let at = (index - self.start.0 - 1) as usize;
        self.entries.get(at).map(|entry| entry.term).ok_or(StorageError::Unavailable)
    }

    fn first_index(&self) -> LogIndex {
        self.start.0.next()
    }

    fn last_index(&self) -> LogIndex {
        self.start.0 + self.entries.len() as u64
    }

    fn snapshot(&self, at_least: LogIndex, _to: NodeId) -> Result<Snapshot, StorageError> {
        if self.snapshot_unavailable {
            return Err(StorageError::SnapshotTemporarilyUnavailable);
        }
        let snapshot = match &self.snapshot {
            Some(snapshot) => snapshot.clone(),
            None => Snapshot {
                index: self.hard_state.commit,
                term: self.term(self.hard_state.commit)?,
                conf_state: self.conf_state.clone(),
                ..Snapshot::default()
            },
        };
        if snapshot.index < at_least {
            return Err(StorageError::SnapshotTemporarilyUnavailable);
        }
        Ok(snapshot)
    }
}

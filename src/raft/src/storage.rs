//! How the core reads the log it asked its driver to write.
//!
//! Writes leave as values in [`crate::Ready`]; only reads come back through this trait. Everything
//! of a Ready must be visible here before [`crate::RawNode::on_persist`] is called with its number;
//! it may be visible earlier. What has not been persisted the core keeps in memory, so an
//! implementation never has to serve it.

use crate::{ConfState, Entry, HardState, LogIndex, NodeId, Snapshot, Term};

/// What a node starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitialState {
    /// The last persisted hard state.
    pub hard_state: HardState,
    /// The membership at the applied index.
    pub conf_state: ConfState,
}

/// The durable log of one node, read-only.
pub trait Storage {
    /// Hard state and membership at start. Called once.
    fn initial_state(&self) -> Result<InitialState, StorageError>;

    /// Entries of `[from, to)`, cut after `max_bytes` (as [`Entry::size_bytes`] counts) but at
    /// least one if there is any.
    fn entries(
        &self,
        from: LogIndex,
        to: LogIndex,
        max_bytes: u64,
    ) -> Result<Vec<Entry>, StorageError>;

    /// Term of the entry at `index`, which may be `first_index() - 1`.
    fn term(&self, index: LogIndex) -> Result<Term, StorageError>;

    /// Index of the first entry that has not been compacted away; `last_index() + 1` if the log is
    /// empty.
    fn first_index(&self) -> LogIndex;

    /// Index of the last entry; `first_index() - 1` if the log is empty.
    fn last_index(&self) -> LogIndex;

    /// A snapshot at or after `at_least`, to be sent to `to`.
    fn snapshot(&self, at_least: LogIndex, to: NodeId) -> Result<Snapshot, StorageError>;
}

/// Why the storage has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The index lies before the first one kept.
    #[error("log entry has been compacted away")]
    Compacted,
    /// The index lies after the last one.
    #[error("log entry is not available")]
    Unavailable,
    /// A snapshot is being prepared: ask again later.
    #[error("snapshot is not ready yet")]
    SnapshotTemporarilyUnavailable,
    /// Entries are being fetched: ask again later.
    #[error("log entries are not ready yet")]
    LogTemporarilyUnavailable,
    /// The stored state contradicts itself. Fatal for the node.
    #[error("log is corrupt: {0}")]
    Corrupt(String),
}

//! What the core wants done: a plain value, taken with [`crate::RawNode::ready`].

use bytes::Bytes;

use crate::{Entry, HardState, LogIndex, Message, Snapshot, SoftState};

/// A read that is linearizable once `index` is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// Apply up to here first.
    pub index: LogIndex,
    /// What the caller passed to `read_index`.
    pub context: Bytes,
}

/// One batch of effects. The driver
/// 1. sends `messages` and answers reads at once;
/// 2. writes `snapshot`, `entries` (cutting whatever its log holds from `entries[0].index` on) and
///    `hard_state` in one atomic write, synced if `must_sync`, in the order of `number`;
/// 3. calls `advance_append_async` as soon as the write is under way;
/// 4. when the write is durable, calls `on_persist(number)`, then sends `persisted_messages`;
/// 5. applies `snapshot`, then `committed_entries`, and calls `advance_apply_to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Consecutive, from 1.
    pub number: u64,
    /// Role and leader, if they changed.
    pub soft_state: Option<SoftState>,
    /// Term, vote and commit, if they changed.
    pub hard_state: Option<HardState>,
    /// Reads that may be served.
    pub read_states: Vec<ReadState>,
    /// Contexts of reads that never will be: no leader, leadership lost, or no answer in an
    /// election timeout.
    pub dropped_reads: Vec<Bytes>,
    /// Entries to write.
    pub entries: Vec<Entry>,
    /// A snapshot to write in place of the whole log and state.
    pub snapshot: Option<Snapshot>,
    /// Entries to apply, already on this node's disk.
    pub committed_entries: Vec<Entry>,
    /// Messages that may leave at once.
    pub messages: Vec<Message>,
    /// Messages that promise what this Ready writes: they leave once it is durable.
    pub persisted_messages: Vec<Message>,
    /// Whether the write must be synced before it counts as durable.
    pub must_sync: bool,
}

impl Ready {
    /// Whether there is anything to write.
    pub fn has_write(&self) -> bool {
        self.hard_state.is_some() || !self.entries.is_empty() || self.snapshot.is_some()
    }
}

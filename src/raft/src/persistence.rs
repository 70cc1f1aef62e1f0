//! What becomes possible when a write is durable, and the way of committed entries to the driver.
//!
//! Several writes may be under way; their completions come in order (thesis §10.2.1). Tests:
//! `testscripts/async_append`, `tests/persistence.rs`.

use crate::core::Raft;
use crate::{Entry, Role, Storage, StorageError};

impl<S: Storage> Raft<S> {
    pub(crate) fn on_persist(&mut self, number: u64) {
        while let Some(write) = self.writes.pop_to(number) {
            if let Some(index) = write.snapshot_index {
                self.log.tail.persist_snapshot(index);
                self.log.persist_to(index);
            }
            if let Some(index) = write.last_index {
                self.log.persist_to(index);
            }
        }
        if self.role == Role::Leader {
            self.acknowledge_own();
        }
    }

    /// The next committed entries, if there are any and they are readable now.
    pub(crate) fn take_committed(&mut self) -> Vec<Entry> {
        let entries = match self.log.next_committed(self.config.ready_committed_bytes_max) {
            Ok(entries) => entries,
            Err(StorageError::LogTemporarilyUnavailable) => Vec::new(),
            Err(error) => panic!("committed entries of node {} are not readable: {error}", self.id),
        };
        self.refund(&entries);
        entries
    }
}

//! Write batches: plain data, so that what decides can build them without knowing an engine.

use bytes::Bytes;

use crate::Cf;

/// One operation of a batch. Later operations win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// Family.
        cf: Cf,
        /// Key.
        key: Bytes,
        /// Value.
        value: Bytes,
    },
    /// Removes a key if it is there.
    Delete {
        /// Family.
        cf: Cf,
        /// Key.
        key: Bytes,
    },
    /// Removes every key in `[start, end)`.
    DeleteRange {
        /// Family.
        cf: Cf,
        /// First key that goes.
        start: Bytes,
        /// First key that stays.
        end: Bytes,
    },
}

impl Op {
    /// Bytes of keys and values.
    fn payload_bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
            Self::DeleteRange { start, end, .. } => start.len() + end.len(),
        }
    }
}

/// Operations to be applied atomically, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    ops: Vec<Op>,
    payload_bytes: usize,
}

impl WriteBatch {
    /// What an operation costs in a log beside its keys and values: tag, family, two lengths. An estimate.
    const OP_OVERHEAD_BYTES: usize = 8;

    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, cf: Cf, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.push(Op::Put { cf, key: key.into(), value: value.into() });
    }

    /// Removes `key`.
    pub fn delete(&mut self, cf: Cf, key: impl Into<Bytes>) {
        self.push(Op::Delete { cf, key: key.into() });
    }

    /// Removes every key in `[start, end)`. A range that holds nothing adds nothing.
    pub fn delete_range(&mut self, cf: Cf, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        let (start, end) = (start.into(), end.into());
        if start < end {
            self.push(Op::DeleteRange { cf, start, end });
        }
    }

    fn push(&mut self, op: Op) {
        self.payload_bytes += op.payload_bytes();
        self.ops.push(op);
    }

    /// The operations, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Moves all operations of `other` behind our own; `other` is empty afterwards.
    pub fn append(&mut self, other: &mut Self) {
        self.payload_bytes += std::mem::take(&mut other.payload_bytes);
        self.ops.append(&mut other.ops);
    }

    /// Forgets all operations, keeping the memory.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.payload_bytes = 0;
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// About how many bytes the batch takes in a log. Never less than its keys and values.
    pub fn size_bytes(&self) -> usize {
        self.payload_bytes + self.ops.len() * Self::OP_OVERHEAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn append_moves_everything_and_keeps_the_order() {
        let (mut first, mut second) = (WriteBatch::new(), WriteBatch::new());
        first.put(Cf::Raw, "a", "1");
        second.delete(Cf::Raw, "a");
        second.delete_range(Cf::Raft, "b", "c");
        let size_bytes = first.size_bytes() + second.size_bytes();
        first.append(&mut second);
        assert_eq!((first.len(), first.size_bytes()), (3, size_bytes));
        assert!(matches!(first.ops()[1], Op::Delete { .. }));
        assert_eq!(second, WriteBatch::new());
        first.clear();
        assert_eq!(first, WriteBatch::new());
    }

    #[test]
    fn a_range_that_holds_nothing_adds_nothing() {
        let mut batch = WriteBatch::new();
        batch.delete_range(Cf::Raw, "b", "b");
        batch.delete_range(Cf::Raw, "b", "a");
        assert!(batch.is_empty());
    }
}

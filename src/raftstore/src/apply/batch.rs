//! The write batch of one apply call, readable while it grows.
//!
//! An append reads what it extends, and what it extends may have been written earlier in the same batch, where the engine
//! does not see it yet. The first append of a batch therefore builds an index over the batch (the *overlay*); batches
//! without appends never pay for one.
//!
//! Operations are *staged* per request and join the batch when the request is accepted: a refused request leaves nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::{Cf, Engine, KeyRange, Op, WriteBatch};

use super::hash::StateHash;

/// The batch under construction.
#[derive(Debug, Default)]
pub(super) struct ApplyBatch {
    /// Accepted operations.
    accepted: WriteBatch,
    /// Operations of the request being executed.
    staged: WriteBatch,
    /// What `accepted` and `staged` do to the raw data; `None` until somebody reads.
    overlay: Option<Overlay>,
}

/// The newest state of every key the batch touches.
#[derive(Debug, Default)]
struct Overlay {
    /// Keys written after the last range deletion that covers them; `None` is a deletion.
    keys: BTreeMap<Bytes, Option<Bytes>>,
    /// Ranges deleted.
    ranges: Vec<KeyRange>,
}

impl Overlay {
    fn note(&mut self, op: &Op) {
        match op {
            Op::Put { cf: Cf::Raw, key, value } => {
                self.keys.insert(key.clone(), Some(value.clone()));
            }
            Op::Delete { cf: Cf::Raw, key } => {
                self.keys.insert(key.clone(), None);
            }
            Op::DeleteRange { cf: Cf::Raw, start, end } => {
                let range = KeyRange::new(start.clone(), end.clone());
                self.keys.retain(|key, _| !range.contains(key));
                self.ranges.push(range);
            }
            Op::Put { .. } | Op::Delete { .. } | Op::DeleteRange { .. } => {}
        }
    }

    /// What the batch says about `key`; `None` if it says nothing.
    fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let deleted = || self.ranges.iter().any(|range| range.contains(key)).then_some(None);
        self.keys.get(key).cloned().or_else(deleted)
    }
}

impl ApplyBatch {
    /// Stages an operation on raw data.
    pub(super) fn stage(&mut self, op: Op) {
        if let Some(overlay) = &mut self.overlay {
            overlay.note(&op);
        }
        match op {
            Op::Put { cf, key, value } => self.staged.put(cf, key, value),
            Op::Delete { cf, key } => self.staged.delete(cf, key),
            Op::DeleteRange { cf, start, end } => self.staged.delete_range(cf, start, end),
        }
    }

    /// Reads a raw key as it will be once everything accepted and staged is written.
    pub(super) fn read(
        &mut self,
        engine: &dyn Engine,
        key: &[u8],
    ) -> engine::Result<Option<Bytes>> {
        let overlay = self.overlay.get_or_insert_with(|| {
            let mut overlay = Overlay::default();
            self.accepted.ops().iter().chain(self.staged.ops()).for_each(|op| overlay.note(op));
            overlay
        });
        match overlay.get(key) {
            Some(written) => Ok(written),
            None => engine.get(Cf::Raw, key),
        }
    }

    /// The operations of the request being executed.
    pub(super) fn staged(&self) -> &[Op] {
        self.staged.ops()
    }

    /// The request is accepted: what it staged joins the batch and the digest.
    pub(super) fn accept(&mut self, hash: &mut StateHash) {
        self.staged.ops().iter().for_each(|op| hash.op(op));
        self.accepted.append(&mut self.staged);
    }

    /// The request is refused: what it staged is forgotten.
    pub(super) fn refuse(&mut self) {
        self.staged.clear();
        // It may speak of staged operations; the next read builds it anew.
        self.overlay = None;
    }

    /// Adds a local record.
    pub(super) fn put_local(&mut self, key: Bytes, value: Vec<u8>) {
        self.accepted.put(Cf::Raft, key, value);
    }

    /// Removes a local record.
    pub(super) fn delete_local(&mut self, key: Bytes) {
        self.accepted.delete(Cf::Raft, key);
    }

    /// Removes a whole range, of no request: it is not part of the digest.
    pub(super) fn delete_range(&mut self, cf: Cf, range: KeyRange) {
        self.accepted.delete_range(cf, range.lower, range.upper.unwrap_or_default());
        self.overlay = None;
    }

    /// About how many bytes have been accepted.
    pub(super) fn size_bytes(&self) -> usize {
        self.accepted.size_bytes()
    }

    /// Writes everything accepted and starts over, keeping the memory.
    pub(super) fn write(&mut self, engine: &dyn Engine) -> engine::Result<()> {
        assert!(self.staged.is_empty(), "a request is either accepted or refused");
        if !self.accepted.is_empty() {
            engine.write(&self.accepted)?;
            self.accepted.clear();
        }
        self.overlay = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use engine::mem::MemEngine;

    use super::*;

    fn put(key: &'static str, value: &'static str) -> Op {
        Op::Put { cf: Cf::Raw, key: key.into(), value: value.into() }
    }

    #[test]
    fn a_read_sees_the_engine_the_batch_and_the_request() {
        let engine = MemEngine::new();
        let mut stored = WriteBatch::new();
        stored.put(Cf::Raw, "a", "old");
        stored.put(Cf::Raw, "b", "old");
        engine.write(&stored).expect("write");
        let mut batch = ApplyBatch::default();
        let mut hash = StateHash(0);
        batch.stage(put("a", "accepted"));
        batch.accept(&mut hash);
        let read = |batch: &mut ApplyBatch, key: &str| {
            batch.read(&engine, key.as_bytes()).expect("read").map(|v| v.to_vec())
        };
        assert_eq!(read(&mut batch, "a").as_deref(), Some(&b"accepted"[..]));
        assert_eq!(read(&mut batch, "b").as_deref(), Some(&b"old"[..]));
        batch.stage(Op::DeleteRange { cf: Cf::Raw, start: "a".into(), end: "c".into() });
        batch.stage(put("b", "staged"));
        assert_eq!(read(&mut batch, "a"), None);
        assert_eq!(read(&mut batch, "b").as_deref(), Some(&b"staged"[..]));
        batch.refuse();
        assert_eq!(read(&mut batch, "a").as_deref(), Some(&b"accepted"[..]));
        assert_eq!(read(&mut batch, "b").as_deref(), Some(&b"old"[..]));
        batch.write(&engine).expect("write");
        assert_eq!(engine.get(Cf::Raw, b"a").expect("get").as_deref(), Some(&b"accepted"[..]));
    }
}

//! The running digest of a region's state machine: equal on all peers at the same index, or a replica has diverged (I4).
//!
//! It covers positions, effects (what was written, after appends were resolved) and verdicts, chained in log order. It is a
//! guard against our own mistakes, not against an adversary: a checksum per step, mixed into 64 bits, cheap enough to be
//! always on. It is stored with the apply state and travels in snapshots, so the chain never breaks.

use crc32fast::Hasher;
use engine::Op;
use raft::{LogIndex, Term};

use crate::command::WriteResult;

/// An odd constant whose multiples spread over all bits (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateHash(pub(super) u64);

impl StateHash {
    /// Adds one number.
    fn mix(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(SPREAD);
    }

    /// Adds the position of an entry.
    pub(super) fn entry(&mut self, index: LogIndex, term: Term) {
        self.mix(index.0);
        self.mix(term.0);
    }

    /// Adds one operation on the region's data.
    pub(super) fn op(&mut self, op: &Op) {
        let (tag, first, second): (u8, &[u8], &[u8]) = match op {
            Op::Put { key, value, .. } => (1, key, value),
            Op::Delete { key, .. } => (2, key, &[]),
            Op::DeleteRange { start, end, .. } => (3, start, end),
        };
        let mut hasher = Hasher::new();
        hasher.update(&[tag]);
        hasher.update(&(first.len() as u64).to_be_bytes());
        hasher.update(first);
        hasher.update(second);
        self.mix(u64::from(hasher.finalize()));
    }

    /// Adds an id or a version: what a change of boundaries made of the region.
    pub(super) fn number(&mut self, number: u64) {
        self.mix(number);
    }

    /// Adds the verdict on a request.
    pub(super) fn verdict(&mut self, result: &WriteResult) {
        match result {
            WriteResult::Applied => self.mix(0),
            WriteResult::Appended { value_bytes } => self.mix(*value_bytes),
            WriteResult::SessionExpired { client } => self.mix(!client.0),
            WriteResult::StaleSequence { last } => self.mix(!last),
            WriteResult::Refused { reason } => self.mix(reason.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::Cf;

    use super::*;

    fn of(ops: &[Op]) -> u64 {
        let mut hash = StateHash(0);
        ops.iter().for_each(|op| hash.op(op));
        hash.0
    }

    #[test]
    fn order_content_and_boundaries_count() {
        let put = |key: &'static str, value: &'static str| Op::Put {
            cf: Cf::Raw,
            key: key.into(),
            value: value.into(),
        };
        let ab = of(&[put("a", "1"), put("b", "2")]);
        assert_eq!(ab, of(&[put("a", "1"), put("b", "2")]));
        assert_ne!(ab, of(&[put("b", "2"), put("a", "1")]), "order");
        assert_ne!(of(&[put("a", "bc")]), of(&[put("ab", "c")]), "boundary of key and value");
        assert_ne!(of(&[put("a", "")]), of(&[Op::Delete { cf: Cf::Raw, key: "a".into() }]));
    }
}

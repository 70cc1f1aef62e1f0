//! Chooses cuts in one pass and bounded memory.
//!
//! While the keys go by, boundaries are noted with what lies before them; when there are too many, every other one is
//! forgotten and the distance between notes doubles. Only at the end, when the total is known, the region is divided
//! evenly, at the noted boundaries nearest to where the parts should end.

use bytes::Bytes;

use super::boundary::boundary_between;

/// Parts that one check cuts a region into at most; a larger one is looked at again.
pub const SPLIT_PARTS_MAX: usize = 64;

/// Notes kept: several for each part.
const NOTES_MAX: usize = 16 * SPLIT_PARTS_MAX;

/// What lies before a place in a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    /// Bytes of keys and values.
    pub(super) bytes: u64,
    /// Keys.
    pub(super) keys: u64,
}

/// A boundary and what lies before it.
#[derive(Debug)]
struct Note {
    boundary: Bytes,
    before: Amount,
}

/// Sees every key of a region in order.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    total: Amount,
    notes: Vec<Note>,
    /// Bytes between notes.
    stride: u64,
    previous: Vec<u8>,
}

impl Cuts {
    /// The next key, with the bytes of key and value. Keys ascend; in several column families they may be equal.
    pub(super) fn see(&mut self, key: &[u8], bytes: u64) {
        let noted = self.notes.last().map_or(0, |note| note.before.bytes);
        if self.total.keys > 0
            && self.total.bytes - noted >= self.stride
            && let Some(boundary) = boundary_between(&self.previous, key)
        {
            self.notes.push(Note { boundary, before: self.total });
            if self.notes.len() > NOTES_MAX {
                self.thin_out();
            }
        }
        self.total.bytes += bytes;
        self.total.keys += 1;
        self.previous.clear();
        self.previous.extend_from_slice(key);
    }

    fn thin_out(&mut self) {
        let mut number = 0;
        self.notes.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        self.stride = (2 * self.stride).max(self.total.bytes / NOTES_MAX as u64);
    }

    /// Everything seen.
    pub(super) fn total(&self) -> Amount {
        self.total
    }

    /// Where to cut, so that no part has many more than `part_bytes` or `part_keys`; 0 for both means two parts.
    pub(super) fn choose(self, part_bytes: u64, part_keys: u64) -> Vec<Bytes> {
        let parts = |total: u64, part: u64| if part == 0 { 0 } else { total.div_ceil(part) };
        let by_bytes = parts(self.total.bytes, part_bytes);
        let by_keys = parts(self.total.keys, part_keys);
        let halve = part_bytes == 0 && part_keys == 0;
        let count = if halve { 2 } else { by_bytes.max(by_keys).min(SPLIT_PARTS_MAX as u64) };
        let weigh = |amount: &Amount| if by_keys > by_bytes { amount.keys } else { amount.bytes };
        let total = weigh(&self.total);
        let mut chosen: Vec<&Note> = Vec::new();
        for part in 1..count {
            // As 128 bits: a product of two large numbers.
            let target = (u128::from(total) * u128::from(part) / u128::from(count)) as u64;
            let after = self.notes.partition_point(|note| weigh(&note.before) < target);
            let around = self.notes[after.saturating_sub(1)..].iter().take(2);
            let nearest = around.min_by_key(|note| weigh(&note.before).abs_diff(target));
            let Some(nearest) = nearest else { continue };
            if chosen.last().is_none_or(|last| last.boundary < nearest.boundary) {
                chosen.push(nearest);
            }
        }
        chosen.into_iter().map(|note| note.boundary.clone()).collect()
    }
}

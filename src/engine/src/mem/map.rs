//! A persistent ordered map: cloning costs one reference count, changing a clone copies only what it touches.
//!
//! Two levels: a spine of shared chunks, each a sorted vector of at most [`CHUNK_MAX`] pairs. A change to a map whose
//! clone is alive copies the spine (one pointer per chunk) and one chunk; a change to an unshared map copies nothing.
//! With thousands of keys, as simulations have, that is a microsecond; a tree would only pay off for millions.
//!
//! **Invariants.** 1. No chunk is empty or above [`CHUNK_MAX`]. 2. Keys ascend strictly within and across chunks.
//! 3. Two neighbours never both shrink below a quarter: they are joined, so the spine stays short under deletions.

use std::sync::Arc;

use bytes::Bytes;

/// Most pairs of a chunk.
const CHUNK_MAX: usize = 64;

/// Neighbours that together hold at most this are joined.
const JOIN_MAX: usize = CHUNK_MAX / 2;

type Chunk = Vec<(Bytes, Bytes)>;

/// The map.
#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    spine: Arc<Vec<Arc<Chunk>>>,
}

/// Where a pair stands: chunk, then position inside. Ordered as the keys are. The end is `(number of chunks, 0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(usize, usize);

impl Map {
    /// The position of the first key at or after `key`.
    pub(super) fn lower_bound(&self, key: &[u8]) -> Position {
        // The chunk before the first one that begins behind `key` is the only one that can hold it.
        let behind = self.spine.partition_point(|chunk| chunk[0].0 <= key);
        if behind == 0 {
            return Position(0, 0);
        }
        let within = self.spine[behind - 1].partition_point(|(k, _)| k < key);
        self.normal(behind - 1, within)
    }

    /// The position behind the last pair.
    pub(super) fn end(&self) -> Position {
        Position(self.spine.len(), 0)
    }

    /// The position behind `position`.
    pub(super) fn after(&self, position: Position) -> Position {
        self.normal(position.0, position.1 + 1)
    }

    /// The position before `position`, if there is one.
    pub(super) fn before(&self, position: Position) -> Option<Position> {
        match position {
            Position(0, 0) => None,
            Position(chunk, 0) => Some(Position(chunk - 1, self.spine[chunk - 1].len() - 1)),
            Position(chunk, within) => Some(Position(chunk, within - 1)),
        }
    }

    /// The pair at a position before the end.
    pub(super) fn at(&self, position: Position) -> (&Bytes, &Bytes) {
        let (key, value) = &self.spine[position.0][position.1];
        (key, value)
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let position = self.lower_bound(key);
        if position == self.end() {
            return None;
        }
        let (found, value) = self.at(position);
        (found == key).then_some(value)
    }

    /// Sets `key` to `value`.
    pub(super) fn insert(&mut self, key: Bytes, value: Bytes) {
        let spine = Arc::make_mut(&mut self.spine);
        let behind = spine.partition_point(|chunk| chunk[0].0 <= key);
        let Some(target) = spine.get_mut(behind.saturating_sub(1)) else {
            spine.push(Arc::new(vec![(key, value)]));
            return;
        };
        let chunk = Arc::make_mut(target);
        match chunk.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => chunk[at].1 = value,
            // Ascending keys, as logs have, leave full chunks behind instead of halves.
            Err(CHUNK_MAX) => spine.insert(behind, Arc::new(vec![(key, value)])),
            Err(at) => {
                chunk.insert(at, (key, value));
                if chunk.len() > CHUNK_MAX {
                    let upper = chunk.split_off(CHUNK_MAX / 2);
                    spine.insert(behind.max(1), Arc::new(upper));
                }
            }
        }
    }

    /// Removes `key` if it is there.
    pub(super) fn remove(&mut self, key: &[u8]) {
        let position = self.lower_bound(key);
        if position < self.end() && self.at(position).0 == key {
            self.remove_between(position, self.after(position));
        }
    }

    /// Removes the keys in `[start, end)`.
    pub(super) fn remove_range(&mut self, start: &[u8], end: &[u8]) {
        let (from, to) = (self.lower_bound(start), self.lower_bound(end));
        if from < to {
            self.remove_between(from, to);
        }
    }

    fn remove_between(&mut self, from: Position, to: Position) {
        let spine = Arc::make_mut(&mut self.spine);
        if from.0 == to.0 {
            Arc::make_mut(&mut spine[from.0]).drain(from.1..to.1);
        } else {
            if to.1 > 0 {
                Arc::make_mut(&mut spine[to.0]).drain(..to.1);
            }
            if from.1 > 0 {
                Arc::make_mut(&mut spine[from.0]).truncate(from.1);
            }
            let first_whole = if from.1 > 0 { from.0 + 1 } else { from.0 };
            spine.drain(first_whole..to.0);
        }
        if spine.get(from.0).is_some_and(|chunk| chunk.is_empty()) {
            spine.remove(from.0);
        }
        join_around(spine, from.0);
    }

    /// The pairs in `[start, end)`; no end means all that follow.
    pub(super) fn range<'a>(
        &'a self,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
        let to = end.map_or(self.end(), |end| self.lower_bound(end));
        let mut position = self.lower_bound(start);
        std::iter::from_fn(move || {
            let current = (position < to).then_some(position)?;
            position = self.after(current);
            Some(self.at(current))
        })
    }

    fn normal(&self, chunk: usize, within: usize) -> Position {
        if self.spine.get(chunk).is_some_and(|c| within == c.len()) {
            Position(chunk + 1, 0)
        } else {
            Position(chunk, within)
        }
    }

    /// Panics when an invariant is broken.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.spine.iter().all(|chunk| (1..=CHUNK_MAX).contains(&chunk.len())));
        let keys: Vec<_> = self.spine.iter().flat_map(|chunk| chunk.iter().map(|p| &p.0)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
    }
}

/// Joins the chunk at `index` with a neighbour when both are small.
fn join_around(spine: &mut Vec<Arc<Chunk>>, index: usize) {
    for left in [index, index.wrapping_sub(1)] {
        let (Some(a), Some(b)) = (spine.get(left), spine.get(left.wrapping_add(1))) else {
            continue;
        };
        if a.len() + b.len() <= JOIN_MAX {
            let right = spine.remove(left + 1);
            Arc::make_mut(&mut spine[left]).extend(right.iter().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u16) -> Bytes {
        Bytes::copy_from_slice(&number.to_be_bytes())
    }

    #[derive(Clone, Debug)]
    enum Change {
        Insert(u16, u8),
        Remove(u16),
        RemoveRange(u16, u16),
        Fork,
    }

    fn change() -> impl Strategy<Value = Change> {
        let number = 0..600u16;
        prop_oneof![
            12 => (number.clone(), any::<u8>()).prop_map(|(k, v)| Change::Insert(k, v)),
            6 => number.clone().prop_map(Change::Remove),
            1 => (number.clone(), 0..300u16).prop_map(|(k, n)| Change::RemoveRange(k, k + n)),
            1 => Just(Change::Fork),
        ]
    }

    fn contents(map: &Map) -> Vec<(Bytes, Bytes)> {
        map.range(b"", None).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    fn expected(model: &BTreeMap<Bytes, Bytes>) -> Vec<(Bytes, Bytes)> {
        model.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_tree_and_never_disturbs_a_clone(
            changes in prop::collection::vec(change(), 0..1500),
        ) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            let mut forks = Vec::new();
            for change in changes {
                match change {
                    Change::Insert(k, v) => {
                        map.insert(key(k), Bytes::copy_from_slice(&[v]));
                        model.insert(key(k), Bytes::copy_from_slice(&[v]));
                    }
                    Change::Remove(k) => {
                        map.remove(&key(k));
                        model.remove(&key(k));
                    }
                    Change::RemoveRange(from, to) => {
                        map.remove_range(&key(from), &key(to));
                        model.retain(|k, _| *k < key(from) || *k >= key(to));
                    }
                    Change::Fork => forks.push((map.clone(), model.clone())),
                }
                map.check();
            }
            forks.push((map, model));
            for (map, model) in &forks {
                prop_assert_eq!(contents(map), expected(model));
                for probe in (0..620).step_by(7).map(key) {
                    prop_assert_eq!(map.get(&probe), model.get(&probe));
                }
            }
        }
    }

    #[test]
    fn ascending_keys_fill_their_chunks() {
        let mut map = Map::default();
        (0..6_400).for_each(|number| map.insert(key(number), Bytes::new()));
        assert_eq!(map.spine.len(), 100);
    }

    #[test]
    fn walking_back_meets_every_key() {
        let mut map = Map::default();
        (0..300).for_each(|number| map.insert(key(number), Bytes::new()));
        let mut position = map.end();
        for number in (0..300).rev() {
            position = map.before(position).expect("a key remains");
            assert_eq!(map.at(position).0, &key(number));
        }
        assert_eq!(map.before(position), None);
    }
}

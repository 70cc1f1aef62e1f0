//! Snapshots and iterators of the in-memory engine.

use bytes::Bytes;

use super::Image;
use super::map::{Map, Position};
use crate::{Cf, Iter, KeyRange, Result, Snapshot};

/// An image, shared with the engine until one of them changes.
#[derive(Debug)]
pub(super) struct MemSnapshot {
    image: Image,
}

impl MemSnapshot {
    pub(super) fn new(image: Image) -> Self {
        Self { image }
    }
}

impl Snapshot for MemSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.image.map(cf).get(key).cloned())
    }

    fn iter(&self, cf: Cf, range: KeyRange) -> Box<dyn Iter + '_> {
        Box::new(MemIter::new(self.image.map(cf), &range))
    }
}

/// A cursor between two positions of a map that no longer changes.
#[derive(Debug)]
struct MemIter<'a> {
    map: &'a Map,
    /// First position of the range.
    first: Position,
    /// Position behind the range.
    end: Position,
    /// Where the cursor stands; `None` when nowhere.
    current: Option<Position>,
}

impl<'a> MemIter<'a> {
    fn new(map: &'a Map, range: &KeyRange) -> Self {
        let first = map.lower_bound(&range.lower);
        let end = range.upper.as_ref().map_or(map.end(), |upper| map.lower_bound(upper));
        Self { map, first, end: end.max(first), current: None }
    }

    fn stand_at(&mut self, position: Option<Position>) -> Result<bool> {
        self.current = position.filter(|p| (self.first..self.end).contains(p));
        Ok(self.valid())
    }

    fn stood_at(&self) -> Position {
        self.current.expect("the iterator must be valid")
    }
}

impl Iter for MemIter<'_> {
    fn seek_to_first(&mut self) -> Result<bool> {
        self.stand_at(Some(self.first))
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        self.stand_at(self.map.before(self.end))
    }

    fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.stand_at(Some(self.map.lower_bound(key).max(self.first)))
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        let at_or_after = self.map.lower_bound(key);
        let exact = at_or_after < self.map.end() && self.map.at(at_or_after).0 == key;
        if exact && at_or_after < self.end {
            self.stand_at(Some(at_or_after))
        } else {
            self.stand_at(self.map.before(at_or_after.min(self.end)))
        }
    }

    fn next(&mut self) -> Result<bool> {
        self.stand_at(Some(self.map.after(self.stood_at())))
    }

    fn prev(&mut self) -> Result<bool> {
        self.stand_at(self.map.before(self.stood_at()))
    }

    fn valid(&self) -> bool {
        self.current.is_some()
    }

    fn key(&self) -> &[u8] {
        self.map.at(self.stood_at()).0
    }

    fn value(&self) -> &[u8] {
        self.map.at(self.stood_at()).1
    }
}

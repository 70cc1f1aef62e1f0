//! Snapshots that own their database, and iterators over them.
//!
//! RocksDB's snapshot borrows the database. Ours are handed to other threads and outlive the call, so each holds a
//! counted reference to the database *and* the snapshot that borrows it; `self_cell` ties the two without `unsafe` here.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DB, DBRawIterator, ReadOptions};
use self_cell::self_cell;

use super::{classify, handle};
use crate::{Cf, Iter, KeyRange, Result, Snapshot};

/// A snapshot, and the options that read from it, made once.
struct View<'db> {
    snapshot: rocksdb::Snapshot<'db>,
    options: ReadOptions,
}

self_cell!(
    /// A snapshot that keeps its database open.
    pub(super) struct RocksSnapshot {
        owner: Arc<DB>,

        #[covariant]
        dependent: View,
    }
);

impl RocksSnapshot {
    pub(super) fn of(db: Arc<DB>) -> Self {
        Self::new(db, |db| {
            let snapshot = db.snapshot();
            let mut options = ReadOptions::default();
            options.set_snapshot(&snapshot);
            View { snapshot, options }
        })
    }
}

impl Snapshot for RocksSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        let db = self.borrow_owner();
        let options = &self.borrow_dependent().options;
        let found = db.get_pinned_cf_opt(handle(db, cf), key, options);
        let value = found.map_err(|error| classify("read a key", error))?;
        Ok(value.map(|pinned| Bytes::copy_from_slice(&pinned)))
    }

    fn iter(&self, cf: Cf, range: KeyRange) -> Box<dyn Iter + '_> {
        if range.is_empty() {
            return Box::new(NoKeys);
        }
        let mut options = ReadOptions::default();
        if !range.lower.is_empty() {
            options.set_iterate_lower_bound(range.lower);
        }
        if let Some(upper) = range.upper {
            options.set_iterate_upper_bound(upper);
        }
        let family = handle(self.borrow_owner(), cf);
        let inner = self.borrow_dependent().snapshot.raw_iterator_cf_opt(family, options);
        Box::new(RocksIter { inner })
    }
}

struct RocksIter<'a> {
    inner: DBRawIterator<'a>,
}

impl RocksIter<'_> {
    /// An iterator that failed looks like one at its end; only its status tells.
    fn settled(&self) -> Result<bool> {
        if self.inner.valid() {
            return Ok(true);
        }
        self.inner.status().map_err(|error| classify("iterate", error))?;
        Ok(false)
    }
}

impl Iter for RocksIter<'_> {
    fn seek_to_first(&mut self) -> Result<bool> {
        self.inner.seek_to_first();
        self.settled()
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        self.inner.seek_to_last();
        self.settled()
    }

    fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.inner.seek(key);
        self.settled()
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        self.inner.seek_for_prev(key);
        self.settled()
    }

    fn next(&mut self) -> Result<bool> {
        assert!(self.inner.valid(), "the iterator must be valid");
        self.inner.next();
        self.settled()
    }

    fn prev(&mut self) -> Result<bool> {
        assert!(self.inner.valid(), "the iterator must be valid");
        self.inner.prev();
        self.settled()
    }

    fn valid(&self) -> bool {
        self.inner.valid()
    }

    fn key(&self) -> &[u8] {
        self.inner.key().expect("the iterator must be valid")
    }

    fn value(&self) -> &[u8] {
        self.inner.value().expect("the iterator must be valid")
    }
}

/// The iterator over a range that holds nothing: RocksDB does not define what bounds in the wrong order mean.
struct NoKeys;

impl Iter for NoKeys {
    fn seek_to_first(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn seek(&mut self, _key: &[u8]) -> Result<bool> {
        Ok(false)
    }

    fn seek_for_prev(&mut self, _key: &[u8]) -> Result<bool> {
        Ok(false)
    }

    fn next(&mut self) -> Result<bool> {
        unreachable!("the iterator must be valid")
    }

    fn prev(&mut self) -> Result<bool> {
        unreachable!("the iterator must be valid")
    }

    fn valid(&self) -> bool {
        false
    }

    fn key(&self) -> &[u8] {
        unreachable!("the iterator must be valid")
    }

    fn value(&self) -> &[u8] {
        unreachable!("the iterator must be valid")
    }
}

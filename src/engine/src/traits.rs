//! The three traits: [`Engine`], [`Snapshot`], [`Iter`]. Trait objects, not type parameters: the seam is crossed once per
//! batch or read, and the layers above stay readable.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Cf, KeyRange, Result, WriteBatch};

/// A storage engine. See the crate's documentation for the invariants.
///
/// Bytes handed in are copied where the engine keeps them; bytes handed out are owned by the caller.
pub trait Engine: Send + Sync + Debug {
    /// Applies a batch atomically. Visible at once; durable only after a later [`Engine::sync`].
    fn write(&self, batch: &WriteBatch) -> Result<()>;

    /// Returns when every write that returned before this call is durable. Does not hold up concurrent writes.
    fn sync(&self) -> Result<()>;

    /// Reads the newest visible value.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>>;

    /// A frozen view of every family. Cheap; but hold it briefly, it keeps old versions alive.
    fn snapshot(&self) -> Arc<dyn Snapshot>;

    /// Loads strictly ascending pairs in bulk, over whatever the keys held before. Visible and durable on return, even
    /// if writes made earlier are not; after a crash it still wins over those. All of it or, after a failure or a crash
    /// inside the call, none of it. An error from `sorted` itself ends the call and harms nothing.
    fn ingest(
        &self,
        cf: Cf,
        sorted: &mut dyn Iterator<Item = Result<(Bytes, Bytes)>>,
    ) -> Result<()>;

    /// About how many bytes the keys in `[start, end)` take; an empty `end` means "to the end of the family". For
    /// decisions such as where to split, never for correctness: RocksDB counts compressed bytes.
    fn approximate_size_bytes(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64>;

    /// What the engine has done since it was opened.
    fn counters(&self) -> Counters;
}

/// Counts since the engine was opened. Only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches written.
    pub writes: u64,
    /// Bytes of those batches, as [`WriteBatch::size_bytes`] counts.
    pub written_bytes: u64,
    /// Syncs of the log that were asked for and succeeded.
    pub syncs: u64,
    /// Bulk loads.
    pub ingests: u64,
}

/// A frozen, consistent view of every family.
pub trait Snapshot: Send + Sync {
    /// Reads a value.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>>;

    /// An iterator over the keys of `range`, not yet positioned: seek first.
    fn iter(&self, cf: Cf, range: KeyRange) -> Box<dyn Iter + '_>;
}

/// A cursor over the keys of a range, in byte order. It never leaves the range. Every movement answers whether it now
/// stands on a key, that is, [`Iter::valid`].
pub trait Iter {
    /// To the first key.
    fn seek_to_first(&mut self) -> Result<bool>;
    /// To the last key.
    fn seek_to_last(&mut self) -> Result<bool>;
    /// To the first key at or after `key`.
    fn seek(&mut self, key: &[u8]) -> Result<bool>;
    /// To the last key at or before `key`.
    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool>;
    /// To the following key. Must be [`Iter::valid`].
    fn next(&mut self) -> Result<bool>;
    /// To the preceding key. Must be [`Iter::valid`].
    fn prev(&mut self) -> Result<bool>;
    /// Whether the cursor stands on a key.
    fn valid(&self) -> bool;
    /// The key stood on. Must be [`Iter::valid`].
    fn key(&self) -> &[u8];
    /// Its value. Must be [`Iter::valid`].
    fn value(&self) -> &[u8];
}

//! The real engine: one RocksDB per store, one column family per [`Cf`], one write-ahead log under all of them.
//!
//! **What keeps the crate's invariants here**
//! - *Atomic batch, one order.* Every write goes through the one WAL. When a memtable is flushed while the log is not yet
//!   synced, RocksDB first syncs the closed logs (it does so whenever there is more than one family), so a family's flush
//!   never lets a part of a batch, or a batch out of order, survive. Flushing families together ("atomic flush") would
//!   only be needed if writes went past the WAL; none does.
//! - *Sync beside writes.* [`Engine::sync`] is `FlushWAL(sync = true)`. It syncs the log file without holding the write
//!   queue, so the applier writes while the log writer syncs.
//! - *Poison.* The first failure of a write, sync or ingest is kept and answered to every later one. What it left on the
//!   disk is unknown; a restart finds out.
//! - *A damaged log is refused, not shortened* (`options.rs` has the reasoning), and so is a directory whose data are
//!   there but whose `CURRENT` file is gone: RocksDB would otherwise begin an empty database on top, and a store that
//!   forgot its votes breaks Raft.
//!
//! **Life of a bulk load.** Pairs go into an SST file in `ingest/` below the data directory (same file system, so that it
//! can be linked in), the file is synced and handed over. Leftovers of a crash are removed when opening.
//!
//! **Memory.** Blocks, indexes, filters and memtables share one budget, see [`RocksConfig::memory_budget_bytes`].
//!
//! **Left out.** Separate databases for log and data: a quarter more puts per second in measurements, but two orders of
//! durability to reconcile after a crash. Direct IO, pipelined and unordered writes: no gain measured, or no snapshots.

mod ingest;
mod options;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rocksdb::{ColumnFamilyDescriptor, DB, Range, ReadOptions, WriteOptions};

use crate::{Cf, Counters, Engine, Error, Op, Result, Snapshot, WriteBatch};
use options::Tuning;
use snapshot::RocksSnapshot;

/// The smallest memory budget accepted: below it memtables become so small that flushing dominates.
pub const MEMORY_BUDGET_BYTES_MIN: usize = 16 << 20;

/// What a user may want to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksConfig {
    /// Memory for cached blocks, indexes, filters and memtables together. Default 128 MiB, at least
    /// [`MEMORY_BUDGET_BYTES_MIN`]. A little more is used for a moment while large batches are written.
    pub memory_budget_bytes: usize,
    /// Added to every sync, to see how a store behaves on a slower disk. Default none; only for measurements.
    pub sync_delay: Duration,
}

impl Default for RocksConfig {
    fn default() -> Self {
        Self { memory_budget_bytes: 128 << 20, sync_delay: Duration::ZERO }
    }
}

/// A RocksDB. Cheap to share by reference; closing it means dropping the last handle and the last snapshot.
#[derive(Debug)]
pub struct RocksEngine {
    db: Arc<DB>,
    path: PathBuf,
    tuning: Tuning,
    sync_delay: Duration,
    read_options: PlainReads,
    poison: OnceLock<String>,
    ingest_number: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
    ingests: AtomicU64,
}

/// The options of every read outside a snapshot, made once: RocksDB would allocate them anew for every get.
struct PlainReads(ReadOptions);

impl std::fmt::Debug for PlainReads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainReads")
    }
}

impl RocksEngine {
    /// Opens the database in `path`, creating directory and database when there is none.
    pub fn open(path: &Path, config: &RocksConfig) -> Result<Self> {
        assert!(config.memory_budget_bytes >= MEMORY_BUDGET_BYTES_MIN, "the budget is validated");
        std::fs::create_dir_all(path).map_err(|e| io_error("create the data directory", &e))?;
        check_layout(path)?;
        let tuning = Tuning::new(config.memory_budget_bytes);
        let families =
            Cf::ALL.map(|cf| ColumnFamilyDescriptor::new(cf.name(), tuning.family_options(cf)));
        let db = DB::open_cf_descriptors(&tuning.database_options()?, path, families)
            .map_err(|error| opening_error(path, error))?;
        // Only after the lock is ours: another process may be in the middle of a bulk load.
        ingest::clear_leftovers(path)?;
        Ok(Self {
            db: Arc::new(db),
            path: path.to_owned(),
            tuning,
            sync_delay: config.sync_delay,
            read_options: PlainReads(ReadOptions::default()),
            poison: OnceLock::new(),
            ingest_number: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            ingests: AtomicU64::new(0),
        })
    }

    /// Writes all memtables to files: a restart has no log to replay then. Optional, for a clean shutdown.
    pub fn flush(&self) -> Result<()> {
        self.check_poison()?;
        for cf in Cf::ALL {
            self.db.flush_cf(handle(&self.db, cf)).map_err(|e| self.fail("flush", e))?;
        }
        Ok(())
    }

    /// Bytes of memory in use for blocks, indexes, filters and memtables.
    pub fn memory_bytes(&self) -> usize {
        self.tuning.memory_bytes()
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_poison(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |reason| Err(Error::Poisoned(reason.clone())))
    }

    /// Poisons the engine with its first failure.
    fn fail(&self, action: &'static str, error: rocksdb::Error) -> Error {
        self.poison_with(classify(action, error))
    }

    fn poison_with(&self, error: Error) -> Error {
        // Of two failures at once, either may be called the first.
        let _ = self.poison.set(error.to_string());
        error
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: &WriteBatch) -> Result<()> {
        self.check_poison()?;
        if batch.is_empty() {
            return Ok(());
        }
        let native = native_batch(&self.db, batch);
        self.db
            .write_opt(native, &WriteOptions::default())
            .map_err(|error| self.fail("write a batch", error))?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(batch.size_bytes() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.check_poison()?;
        self.db.flush_wal(true).map_err(|error| self.fail("sync the write-ahead log", error))?;
        if !self.sync_delay.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "the real engine is an edge")]
            std::thread::sleep(self.sync_delay);
        }
        // A sync that overlapped with a failing one proves nothing.
        self.check_poison()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        let family = handle(&self.db, cf);
        let found = self.db.get_pinned_cf_opt(family, key, &self.read_options.0);
        let value = found.map_err(|error| classify("read a key", error))?;
        Ok(value.map(|pinned| Bytes::copy_from_slice(&pinned)))
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(RocksSnapshot::of(Arc::clone(&self.db)))
    }

    fn ingest(
        &self,
        cf: Cf,
        sorted: &mut dyn Iterator<Item = Result<(Bytes, Bytes)>>,
    ) -> Result<()> {
        self.check_poison()?;
        self.ingest_sorted(cf, sorted)
    }

    fn approximate_size_bytes(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64> {
        /// Stands for "behind every key": no layer above has keys that begin with so many 0xff.
        const LAST_KEY: &[u8] = &[u8::MAX; 256];
        let end = if end.is_empty() { LAST_KEY } else { end };
        let sizes =
            self.db.get_approximate_sizes_cf(handle(&self.db, cf), &[Range::new(start, end)]);
        Ok(sizes.iter().sum())
    }

    fn counters(&self) -> Counters {
        Counters {
            writes: self.writes.load(Ordering::Relaxed),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            ingests: self.ingests.load(Ordering::Relaxed),
        }
    }
}

/// The open family: all of them are created on open and never dropped.
fn handle(db: &DB, cf: Cf) -> &rocksdb::ColumnFamily {
    db.cf_handle(cf.name()).expect("every family is open")
}

fn native_batch(db: &DB, batch: &WriteBatch) -> rocksdb::WriteBatch {
    let mut native = rocksdb::WriteBatch::with_capacity_bytes(batch.size_bytes());
    let families = Cf::ALL.map(|cf| handle(db, cf));
    for op in batch.ops() {
        match op {
            Op::Put { cf, key, value } => native.put_cf(families[cf.index()], key, value),
            Op::Delete { cf, key } => native.delete_cf(families[cf.index()], key),
            Op::DeleteRange { cf, start, end } => {
                native.delete_range_cf(families[cf.index()], start, end);
            }
        }
    }
    native
}

/// Refuses what RocksDB would open in a way that loses or ignores data.
fn check_layout(path: &Path) -> Result<()> {
    if path.join("CURRENT").exists() {
        let stored = DB::list_cf(&rocksdb::Options::default(), path)
            .map_err(|error| opening_error(path, error))?;
        let known = |name: &String| Cf::ALL.iter().any(|cf| cf.name() == name);
        return match stored.iter().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => {
                let detail = format!("it holds a column family {name:?}");
                Err(Error::Incompatible { path: path.to_owned(), detail })
            }
        };
    }
    // `MANIFEST-000001` alone is what a crash in the very first start may leave.
    let entries = std::fs::read_dir(path).map_err(|e| io_error("read the data directory", &e))?;
    for entry in entries {
        let name = entry.map_err(|e| io_error("read the data directory", &e))?.file_name();
        let name = name.to_string_lossy();
        let later_manifest = name.starts_with("MANIFEST-") && name != "MANIFEST-000001";
        if name.ends_with(".sst") || name.ends_with(".log") || later_manifest {
            let detail = format!("{} holds {name} but no CURRENT file", path.display());
            return Err(Error::Corruption { action: "open the data directory", detail });
        }
    }
    Ok(())
}

/// Why a database could not be opened, in one line.
fn opening_error(path: &Path, error: rocksdb::Error) -> Error {
    let detail = error.to_string();
    // RocksDB words it so both for another process and for a second opening within this one.
    if detail.contains("lock file") || detail.contains("lock hold by") {
        return Error::Locked { path: path.to_owned() };
    }
    match classify("open the data directory", error) {
        Error::Corruption { action, detail } => {
            let detail = format!("{}: {detail}", path.display());
            Error::Corruption { action, detail }
        }
        other => other,
    }
}

/// Sorts RocksDB's errors into ours.
fn classify(action: &'static str, error: rocksdb::Error) -> Error {
    let kind = error.kind();
    let detail = error.into_string();
    match kind {
        rocksdb::ErrorKind::Corruption => Error::Corruption { action, detail },
        _ => Error::Io { action, detail },
    }
}

fn io_error(action: &'static str, error: &std::io::Error) -> Error {
    Error::Io { action, detail: error.to_string() }
}

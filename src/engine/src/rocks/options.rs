//! RocksDB's options, each with its reason.
//!
//! **Recovery.** The WAL is read in mode `TolerateCorruptedTailRecords`: an incomplete last record, as a crash in the
//! middle of a write leaves it, is dropped; anything else that is wrong makes opening fail. The default, point-in-time,
//! would stop at the first bad record wherever it stands and silently drop *synced* records behind it: votes and log
//! entries that were promised to other peers. A store that cannot open is replaced under a new identity; a store that
//! forgot is a wrong answer waiting. For the same reason the sizes of synced log files are recorded in the manifest and
//! verified (a log that is missing or too short is refused), and log files are never recycled, which would blur their end.
//!
//! **Memory.** One cache holds data blocks, indexes, filters, and, through a write buffer manager that charges it, all
//! memtables. Memtables may take half of the budget. A full budget flushes early, it never stalls writers.
//!
//! **Families.** `raft` is written by every put and its entries die young: a large memtable lets most of them die before
//! they reach a file. Its point reads nearly always hit, so it has no filters on the last level. The others hold data.

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options,
    WriteBufferManager,
};

use crate::{Cf, Error, Result};

/// Bits per key of the bloom filters: one false positive in a hundred.
const BLOOM_BITS: f64 = 10.0;

/// A block is what one cache look-up finds. Four times RocksDB's default: a scan of a hundred small rows then needs two
/// look-ups in each file it merges instead of eight, and a point read only searches a little longer.
const BLOCK_BYTES: usize = 16 << 10;

/// Files whose readers stay open. Their indexes and filters live in the cache, so this bounds descriptors, not memory.
const OPEN_FILES_MAX: i32 = 1000;

/// Size of RocksDB's own text log before it is rotated, and how many are kept.
const INFO_LOG_BYTES_MAX: usize = 4 << 20;
const INFO_LOG_FILES_MAX: usize = 4;

/// The cache and the write buffer manager, from which every family's options are made.
pub(super) struct Tuning {
    memory_budget_bytes: usize,
    cache: Cache,
    write_buffers: WriteBufferManager,
}

impl std::fmt::Debug for Tuning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tuning").field("memory_budget_bytes", &self.memory_budget_bytes).finish()
    }
}

impl Tuning {
    pub(super) fn new(memory_budget_bytes: usize) -> Self {
        let cache = Cache::new_lru_cache(memory_budget_bytes);
        let allow_stall = false;
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            memory_budget_bytes / 2,
            allow_stall,
            cache.clone(),
        );
        Self { memory_budget_bytes, cache, write_buffers }
    }

    /// Bytes in use. Memtables are charged to the cache, so this is all of it.
    pub(super) fn memory_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    /// Options of the database as a whole.
    pub(super) fn database_options(&self) -> Result<Options> {
        // Settable only by name through the C interface. First, because it begins from a fresh set.
        let mut options = Options::default()
            .get_options_from_string("track_and_verify_wals_in_manifest=true")
            .map_err(|error| Error::Io { action: "set an option", detail: error.to_string() })?;
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_paranoid_checks(true);
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_recycle_log_file_num(0);
        options.set_write_buffer_manager(&self.write_buffers);
        // A family that is hardly written keeps old logs alive; this bounds them, and with them the replay at a restart.
        options.set_max_total_wal_size(self.memory_budget_bytes as u64);
        // Two writers (log, apply): one after the other is half as fast again as both at once, in measurements.
        options.set_allow_concurrent_memtable_write(false);
        options.set_max_background_jobs(2);
        // Write files out as they grow, so that a log sync does not wait behind a whole compaction's output.
        options.set_bytes_per_sync(1 << 20);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_log_level(LogLevel::Warn);
        options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
        options.set_keep_log_file_num(INFO_LOG_FILES_MAX);
        options.set_stats_dump_period_sec(0);
        Ok(options)
    }

    /// Options of one family; also of the files that are ingested into it.
    pub(super) fn family_options(&self, cf: Cf) -> Options {
        let mut options = Options::default();
        options.set_block_based_table_factory(&self.table_options());
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_level_compaction_dynamic_level_bytes(true);
        let budget_bytes = self.memory_budget_bytes;
        let (memtable_bytes, memtables_max) = match cf {
            Cf::Raft => (budget_bytes / 4, 4),
            Cf::Raw | Cf::Default => (budget_bytes / 8, 4),
            Cf::Write => (budget_bytes / 16, 4),
            Cf::Lock => (budget_bytes / 32, 4),
        };
        options.set_write_buffer_size(memtable_bytes);
        options.set_max_write_buffer_number(memtables_max);
        options.set_target_file_size_base((memtable_bytes as u64).max(4 << 20));
        options.set_max_bytes_for_level_base(4 * memtable_bytes as u64);
        options.set_optimize_filters_for_hits(cf == Cf::Raft);
        options
    }

    fn table_options(&self) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_bloom_filter(BLOOM_BITS, false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_block_size(BLOCK_BYTES);
        table.set_format_version(5);
        table
    }
}

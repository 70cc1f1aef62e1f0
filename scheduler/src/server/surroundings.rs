//! What a scheduler runs on: an engine and spool files, a listener, a clock, a log.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use engine::Engine;
use engine::mem::MemEngine;
use raftstore::snapshot::{MemFiles, SnapshotFiles};
use slog::Logger;
use tokio::net::TcpListener;

/// Unix milliseconds, from a clock that may jump.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// See the module header.
pub struct Surroundings {
    /// Holds nothing but this member's data.
    pub engine: Arc<dyn Engine>,
    /// Where snapshots of the state from other members are spooled.
    pub files: Arc<dyn SnapshotFiles>,
    /// Where it serves clients and members.
    pub listener: TcpListener,
    /// For timestamps, and for how long ago a store was heard of.
    pub clock: WallClock,
    /// Where it logs.
    pub logger: Logger,
}

/// The clock of the operating system.
fn system_clock() -> WallClock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

impl Surroundings {
    /// With everything in memory: the state lives as long as the process.
    pub fn in_memory(listener: TcpListener, logger: Logger) -> Surroundings {
        let (engine, files) = (Arc::new(MemEngine::new()), Arc::new(MemFiles::new()));
        Surroundings { engine, files, listener, clock: system_clock(), logger }
    }

    /// With the state in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be used, or was written by a version whose scheduler was not replicated.
    #[cfg(feature = "rocksdb")]
    pub fn on_disk(
        dir: &std::path::Path,
        listener: TcpListener,
        logger: Logger,
    ) -> Result<Surroundings, super::Error> {
        use engine::rocks::{RocksConfig, RocksEngine};
        use raftstore::snapshot::DirFiles;
        /// The state is small.
        const MEMORY_BUDGET_BYTES: usize = 16 << 20;
        // RocksDB's own file, which earlier versions kept at the top.
        if dir.join("CURRENT").exists() {
            return Err(super::replica::earlier_version());
        }
        let config = RocksConfig { memory_budget_bytes: MEMORY_BUDGET_BYTES, ..Default::default() };
        let engine = Arc::new(RocksEngine::open(&dir.join("db"), &config)?);
        let files = Arc::new(DirFiles::open(&dir.join("snapshots"))?);
        Ok(Surroundings { engine, files, listener, clock: system_clock(), logger })
    }
}

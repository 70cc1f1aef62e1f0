//! Engines under test that can be closed and opened again, as a store's process is.

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Engine, Iter};

/// An engine and what it lives on.
pub(crate) trait Lab {
    /// The open engine.
    fn engine(&self) -> &dyn Engine;
    /// Ends the process and starts it anew. No snapshot may be held.
    fn reopen(&mut self);
}

pub(crate) struct MemLab(MemEngine);

impl MemLab {
    pub(crate) fn new() -> Self {
        Self(MemEngine::new())
    }
}

impl Lab for MemLab {
    fn engine(&self) -> &dyn Engine {
        &self.0
    }

    fn reopen(&mut self) {
        self.0 = self.0.reopen();
    }
}

#[cfg(feature = "rocksdb")]
pub(crate) struct RocksLab {
    engine: Option<engine::rocks::RocksEngine>,
    directory: tempfile::TempDir,
}

#[cfg(feature = "rocksdb")]
impl RocksLab {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut lab = Self { engine: None, directory };
        lab.reopen();
        lab
    }
}

#[cfg(feature = "rocksdb")]
impl Lab for RocksLab {
    fn engine(&self) -> &dyn Engine {
        self.engine.as_ref().expect("open")
    }

    fn reopen(&mut self) {
        use engine::rocks::{MEMORY_BUDGET_BYTES_MIN, RocksConfig, RocksEngine};
        self.engine = None;
        let config =
            RocksConfig { memory_budget_bytes: MEMORY_BUDGET_BYTES_MIN, ..RocksConfig::default() };
        self.engine = Some(RocksEngine::open(self.directory.path(), &config).expect("opens"));
    }
}

/// Every pair from the first to the last.
pub(crate) fn forward(iter: &mut dyn Iter) -> engine::Result<Vec<(Bytes, Bytes)>> {
    let mut pairs = Vec::new();
    let mut valid = iter.seek_to_first()?;
    while valid {
        pairs.push(pair(iter));
        valid = iter.next()?;
    }
    Ok(pairs)
}

/// Every pair from the last to the first.
pub(crate) fn backward(iter: &mut dyn Iter) -> engine::Result<Vec<(Bytes, Bytes)>> {
    let mut pairs = Vec::new();
    let mut valid = iter.seek_to_last()?;
    while valid {
        pairs.push(pair(iter));
        valid = iter.prev()?;
    }
    Ok(pairs)
}

fn pair(iter: &dyn Iter) -> (Bytes, Bytes) {
    (Bytes::copy_from_slice(iter.key()), Bytes::copy_from_slice(iter.value()))
}

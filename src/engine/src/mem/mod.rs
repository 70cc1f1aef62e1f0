//! The in-memory engine, which models a disk.
//!
//! **Vocabulary.** An *image* is the contents of all families. *Current* is what readers see. *Durable* is what a loss of
//! power leaves at least. Between them stand the *unsynced* images, one after each batch not yet synced.
//!
//! **Invariants**
//! 1. `durable`, then `unsynced` in order, is one history; the last is `current` (or, after a failed write, is one ahead).
//! 2. A crash picks one image of that history: a prefix of the batches, each whole ([`MemEngine::crash`]).
//! 3. A sync makes durable what was written when it *began*: [`MemEngine::begin_sync`] and [`MemEngine::finish_sync`] are
//!    apart, so that a simulator can let writes, and the crash, fall in between.
//! 4. After an injected failure nothing more is accepted. A failed write may or may not be on the disk, and so may any
//!    prefix of a failed sync: both are left to the crash to decide.
//! 5. Ingested pairs are durable at once and newer than every batch before them, so they go into every image.
//!
//! Images share structure ([`map`]): a snapshot, a crash or an unsynced batch costs a few reference counts. No threads,
//! no clock, nothing random: the same calls give the same engine.
//!
//! **Left out.** Torn batches: RocksDB's log has a checksum per record, a torn one is no batch. Bit rot: an engine that
//! served wrong bytes would prove nothing about what is above.
//!
//! **Tests.** `mem/tests.rs`; agreement with RocksDB in `tests/`.

mod map;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Cf, Counters, Engine, Error, Op, Result, Snapshot, WriteBatch};
use map::Map;
use snapshot::MemSnapshot;

/// The in-memory engine.
#[derive(Debug, Default)]
pub struct MemEngine {
    state: Mutex<State>,
}

/// A sync that has begun: how far the log reached then. Belongs to the engine that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "a sync that is not finished makes nothing durable"]
pub struct SyncToken {
    end: u64,
}

/// The contents of all families, by [`Cf::index`].
#[derive(Clone, Debug, Default)]
struct Image {
    maps: [Map; Cf::COUNT],
}

#[derive(Debug, Default)]
struct State {
    current: Image,
    durable: Image,
    /// After each unsynced batch, oldest first. The first belongs to batch number `synced_end`.
    unsynced: VecDeque<Image>,
    /// Number of batches that are durable.
    synced_end: u64,
    counters: Counters,
    poison: Option<String>,
    write_fault: Option<String>,
    sync_fault: Option<String>,
}

impl MemEngine {
    /// An empty engine.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a sync: what has been written so far will be durable once [`MemEngine::finish_sync`] succeeds.
    pub fn begin_sync(&self) -> Result<SyncToken> {
        let state = self.state.lock();
        state.check_poison()?;
        Ok(SyncToken { end: state.end() })
    }

    /// Ends a sync. Syncs may overlap and end in any order.
    pub fn finish_sync(&self, token: SyncToken) -> Result<()> {
        let mut state = self.state.lock();
        state.check_poison()?;
        if let Some(reason) = state.sync_fault.take() {
            return Err(state.fail("sync the write-ahead log", reason));
        }
        assert!(token.end <= state.end(), "a sync cannot reach beyond what was written");
        while state.synced_end < token.end {
            let image = state.unsynced.pop_front();
            state.durable = image.expect("an image for every unsynced batch");
            state.synced_end += 1;
        }
        state.counters.syncs += 1;
        Ok(())
    }

    /// Power is lost: what the disk holds, if `keep` of the unsynced batches reached it (at most all of them). The engine
    /// itself is dead from here on; snapshots of it stay readable.
    pub fn crash(&self, keep: usize) -> Self {
        let mut state = self.state.lock();
        let survivor = match keep.min(state.unsynced.len()) {
            0 => state.durable.clone(),
            kept => state.unsynced[kept - 1].clone(),
        };
        state.poison.get_or_insert_with(|| "the machine lost power".to_owned());
        Self::with_image(survivor)
    }

    /// The process ends and starts anew on a machine that stays up: everything written is still there.
    pub fn reopen(&self) -> Self {
        self.crash(usize::MAX)
    }

    /// A copy of what is durable, as if the disk had been cloned. This engine goes on.
    pub fn fork(&self) -> Self {
        Self::with_image(self.state.lock().durable.clone())
    }

    /// How many batches would be at stake if power were lost now.
    pub fn unsynced_batches(&self) -> usize {
        self.state.lock().unsynced.len()
    }

    /// The next write fails, and poisons the engine.
    pub fn fail_next_write(&self, reason: impl Into<String>) {
        self.state.lock().write_fault = Some(reason.into());
    }

    /// The next sync (or bulk load) fails, and poisons the engine.
    pub fn fail_next_sync(&self, reason: impl Into<String>) {
        self.state.lock().sync_fault = Some(reason.into());
    }

    /// Why nothing more is accepted, if so.
    pub fn poison(&self) -> Option<String> {
        self.state.lock().poison.clone()
    }

    fn with_image(image: Image) -> Self {
        let state = State { current: image.clone(), durable: image, ..State::default() };
        Self { state: Mutex::new(state) }
    }
}

impl Engine for MemEngine {
    fn write(&self, batch: &WriteBatch) -> Result<()> {
        let mut state = self.state.lock();
        state.check_poison()?;
        if let Some(reason) = state.write_fault.take() {
            let mut torn = state.current.clone();
            torn.apply(batch);
            state.unsynced.push_back(torn);
            return Err(state.fail("write a batch", reason));
        }
        if batch.is_empty() {
            return Ok(());
        }
        state.current.apply(batch);
        let image = state.current.clone();
        state.unsynced.push_back(image);
        state.counters.writes += 1;
        state.counters.written_bytes += batch.size_bytes() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.finish_sync(self.begin_sync()?)
    }

    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.state.lock().current.map(cf).get(key).cloned())
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(MemSnapshot::new(self.state.lock().current.clone()))
    }

    fn ingest(
        &self,
        cf: Cf,
        sorted: &mut dyn Iterator<Item = Result<(Bytes, Bytes)>>,
    ) -> Result<()> {
        let pairs = read_ascending(sorted)?;
        let mut state = self.state.lock();
        state.check_poison()?;
        if pairs.is_empty() {
            return Ok(());
        }
        if let Some(reason) = state.sync_fault.take() {
            return Err(state.fail("ingest a file", reason));
        }
        state.for_each_image(|image| {
            for (key, value) in &pairs {
                image.maps[cf.index()].insert(key.clone(), value.clone());
            }
        });
        state.counters.ingests += 1;
        Ok(())
    }

    fn approximate_size_bytes(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<u64> {
        let state = self.state.lock();
        let end = (!end.is_empty()).then_some(end);
        let pairs = state.current.map(cf).range(start, end);
        Ok(pairs.map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }

    fn counters(&self) -> Counters {
        self.state.lock().counters
    }
}

/// Drains `sorted`, refusing keys that do not ascend strictly.
fn read_ascending(
    sorted: &mut dyn Iterator<Item = Result<(Bytes, Bytes)>>,
) -> Result<Vec<(Bytes, Bytes)>> {
    let mut pairs: Vec<(Bytes, Bytes)> = Vec::new();
    for pair in sorted {
        let (key, value) = pair?;
        if pairs.last().is_some_and(|(last, _)| *last >= key) {
            return Err(Error::Unsorted { position: pairs.len() as u64 });
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

impl Image {
    fn map(&self, cf: Cf) -> &Map {
        &self.maps[cf.index()]
    }

    fn apply(&mut self, batch: &WriteBatch) {
        for op in batch.ops() {
            match op {
                Op::Put { cf, key, value } => {
                    self.maps[cf.index()].insert(key.clone(), value.clone());
                }
                Op::Delete { cf, key } => self.maps[cf.index()].remove(key),
                Op::DeleteRange { cf, start, end } => {
                    self.maps[cf.index()].remove_range(start, end);
                }
            }
        }
    }
}

impl State {
    /// Number of batches written.
    fn end(&self) -> u64 {
        self.synced_end + self.unsynced.len() as u64
    }

    fn check_poison(&self) -> Result<()> {
        self.poison.clone().map_or(Ok(()), |reason| Err(Error::Poisoned(reason)))
    }

    fn fail(&mut self, action: &'static str, detail: String) -> Error {
        let error = Error::Io { action, detail };
        self.poison = Some(error.to_string());
        error
    }

    fn for_each_image(&mut self, mut change: impl FnMut(&mut Image)) {
        change(&mut self.durable);
        self.unsynced.iter_mut().for_each(&mut change);
        change(&mut self.current);
    }
}

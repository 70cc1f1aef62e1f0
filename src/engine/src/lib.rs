//! The storage engine of a store, behind one object-safe trait.
//!
//! **Vocabulary.** A *column family* ([`Cf`]) is an ordered key space of its own. A [`WriteBatch`] is a list of operations
//! applied atomically across families. *Visible* means that a reader sees it; *durable* means that it survives the loss
//! of power. A *snapshot* is a frozen, consistent view of every family.
//!
//! **Invariants every engine keeps**
//! 1. A batch is atomic: after a crash it is there as a whole or not at all, in all families.
//! 2. One log: the order of [`Engine::write`] calls is the order of durability. What survives a crash is a *prefix* of
//!    the batches written, and it contains every batch whose `write` returned before a successful [`Engine::sync`] began.
//!    ([`Engine::ingest`] stands beside that order; see there.)
//! 3. The first write, sync or ingest that fails poisons the engine: every later one answers [`Error::Poisoned`]. A failed
//!    `fsync` is never tried again, because the kernel may have dropped the dirty pages and would then report success.
//! 4. Snapshots and iterators are not disturbed by later writes.
//!
//! **Life of a write.** The log writer hands over one batch for all regions: [`Engine::write`] appends it to the engine's
//! write-ahead log and makes it visible; [`Engine::sync`] then flushes that log while other writes go on; only after it
//! may anything be promised to anybody. Applied data takes the same road without its own sync.
//!
//! **Engines.** [`mem::MemEngine`] keeps ordered maps and models a crash: a durable image and a volatile suffix. It
//! serves the simulator and the fast tests. [`rocks::RocksEngine`] (feature `rocksdb`, on by default) is the real one.
//!
//! **Left out.** Transactions, merge operators, compaction filters: nothing above needs them. No clock, no threads.
//!
//! **Tests.** `tests/testscripts/` run over both engines and must print the same; `tests/engines/agreement.rs` compares
//! both with plain maps under random operations; `mem/tests.rs` and `tests/engines/rocks.rs` hold crashes and faults.

mod batch;
mod cf;
mod error;
pub mod mem;
mod range;
#[cfg(feature = "rocksdb")]
pub mod rocks;
mod traits;

pub use batch::{Op, WriteBatch};
pub use cf::Cf;
pub use error::{Error, Result};
pub use range::KeyRange;
pub use traits::{Counters, Engine, Iter, Snapshot};

//! The scheduler: what a cluster needs one of. Ids that are never used twice, timestamps that never
//! go back, who the stores are, where the regions are, and the first regions of a new cluster.
//!
//! **Halves.** [`core`] decides and is pure: time comes in as `now_ms`, what must be remembered goes
//! out as a [`core::Change`]; no clock, thread, socket or hash map, so the simulator runs the same
//! code. [`server`] is the edge: gRPC, the clock, the disk. Between them stands one seam,
//! [`journal::Journal`]: a change is committed there before anybody may see what it promises. Today a
//! journal is a synced write to an [`engine::Engine`]; replicating the scheduler means putting an
//! embedded region behind the same seam, not a second consensus driver.
//!
//! **Life of a change.** decide (state → `Change`) → [`journal::Journal::commit`] → apply (`Change` →
//! state) → answer. Recovery is the same `apply` over every record on the disk.
//!
//! **Invariants.** No id and no timestamp is handed out beyond a limit that is already durable
//! (hazards: window served before it is on disk, clock that jumps, overflow of the logical part). The
//! plan for the first regions is made once. A key that had a region once never has none.
//!
//! **Left out.** Operators (balance, replica repair): region heartbeats are taken in, nothing is sent
//! down yet. TLS.
//!
//! **Tests.** Beside the core's modules; `tests/service.rs` runs the service over gRPC with restarts.

pub mod core;
pub mod journal;
pub mod planted;
pub mod server;

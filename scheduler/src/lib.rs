//! The scheduler: what a cluster needs one of. Ids that are never used twice, timestamps that never
//! go back, who the stores are, where the regions are, and the first regions of a new cluster.
//!
//! **Halves.** [`core`] decides and is pure: time comes in as `now_ms`, what must be remembered goes
//! out as a [`core::Change`]; no clock, thread, socket or hash map. [`journal`] says how records live in
//! a replicated region, and [`lead`] follows who leads it: pure too, so the simulator runs the same
//! code. [`server`] is the edge: gRPC, the clock, and a store of its own with that one region, driven by
//! the same code as every other store.
//!
//! **Life of a change.** decide (state → `Change`) → committed in the region's log → apply (`Change` →
//! state) → answer. Recovery, at a start and at a change of leaders, is the same `apply` over every record.
//!
//! **Invariants.** No id and no timestamp is handed out beyond a limit that is already durable on a majority
//! of the members, nor by one that no longer leads (hazards: window served before it is on disk, clock that jumps, overflow of the logical part). The
//! plan for the first regions is made once. A key that had a region once never has none.
//!
//! **Placement.** Regions are repaired, moved, cut and merged by operators: `docs/placement.md`.
//!
//! **Left out.** TLS. Followers' load (only leaders' reads and writes are evened out).
//!
//! **Tests.** Beside the core's modules; `core/model` is a cluster that obeys, from random beginnings to rest;
//! `tests/service.rs` runs the service over gRPC with restarts. Stage 3c is `tests/tests/project3c.rs`.

pub mod core;
pub mod journal;
pub mod lead;
pub mod planted;
pub mod server;

//! The deterministic simulator: whole stores under faults, in one thread, on a virtual clock.
//!
//! # Vocabulary
//! A *seed* names a run: it draws the knobs ([`knobs`]), the faults ([`faults`]), the network's and disks' habits and what
//! the clients do. A *trace* is the hash over all events of a run. A *void* run is one in which too little happened to mean
//! anything; it counts as failed.
//!
//! # Life of a run
//! 1. Stores start with empty disks and bootstrap the regions; clients open sessions and begin.
//! 2. Faults: messages are lost, delayed, duplicated and overtake each other; links are cut; processes crash (losing what was
//!    not synced), stop, and start again; disks are slow or fail; clocks run fast or slow.
//! 3. Everything is healed. Every region must serve again within a bounded number of election timeouts, every open call must
//!    end, every replica must catch up (I14).
//! 4. The audit: replicas equal, logs equal, histories linearizable ([`crate::checkers`]), every acknowledged write there.
//!
//! The invariants of [`invariants`] are watched all along.
//!
//! # Determinism
//! One queue, ordered by time and then by scheduling; no maps with random order; every die descends from the seed. The same
//! seed gives the same trace on every machine; `sim --twice` and a test insist on it. A failing seed is therefore its own
//! reproduction: it is run again with the timeline on.
//!
//! # Files
//! `queue time rng trace` (the machine) · `network process clock` (the models) · `cluster/` (all of it together) ·
//! `knobs faults operations` (what varies) · `matrix` (which faults met which changes) · `call record` (clients) · `workload run report` (a seed from start to verdict) · `course`
//! (the stage tests' harness) · `model` (what the regions must be) · `scheduler` (the scheduler's nodes) · `planted` (proof
//! that it finds bugs).

pub mod call;
pub mod clock;
pub mod cluster;
pub mod course;
pub mod event;
pub mod faults;
pub mod invariants;
pub mod knobs;
pub mod layout;
pub mod matrix;
pub mod model;
pub mod network;
pub mod operations;
#[cfg(feature = "planted")]
pub mod planted;
pub mod process;
pub mod queue;
pub mod record;
pub mod report;
pub mod rng;
pub mod run;
pub mod scheduler;
pub mod time;
pub mod trace;
pub mod workload;

pub use report::Report;
pub use run::{explain, run, run_with};

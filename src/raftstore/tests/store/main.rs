//! Stores as a whole, three in a row, on the in-memory engine: one module per promise. The network delivers at once and in
//! order unless a test cuts it; time passes only when a test says so. The simulator (`tests/sim`) is where everything goes
//! wrong at random; here each fault is staged.
#![allow(clippy::unwrap_used, reason = "tests")]

mod absorbed;
mod boundaries;
mod cluster;
mod consistency;
mod creation;
mod crowd;
mod faults;
mod hibernate;
mod hostile;
mod leads;
mod many;
mod members;
mod merge_chains;
mod merges;
mod mixed;
mod parts;
#[cfg(feature = "planted")]
mod planted;
#[cfg(feature = "planted")]
mod planted_boundaries;
#[cfg(feature = "planted")]
mod planted_members;
#[cfg(feature = "planted")]
mod planted_sleep;
mod reads;
mod regions;
mod removal;
mod sizes;
mod snapshots;
mod splits;
mod writes;

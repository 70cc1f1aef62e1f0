//! Stage 2a: the consensus core. Leader election (2aa), log replication (2ab), the interface to its driver (2ac); one test per
//! scenario of the course, named after it. Run with `make project2a`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod raft_group;

#[path = "project2a/aa.rs"]
mod aa;
#[path = "project2a/ab.rs"]
mod ab;
#[path = "project2a/ac.rs"]
mod ac;

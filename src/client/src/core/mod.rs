//! The deciding half of the client: no sockets, no clock, no threads, no randomness but an injected seed, so the simulator
//! runs the same code that talks to real stores.
//!
//! Vocabulary: a [`Call`] is one request to one region until it has an outcome; an *attempt* is one message to one store; a
//! *route* is a region and its believed leader; a *lane* is a client id with one write in flight; a write is *ambiguous* once
//! an attempt may have been applied.
//!
//! Invariants: see [`call`] (what may be repeated) and [`cache`] (what may be believed).
//!
//! Left out: follower reads, request hedging. Tests: next to each file; `call/tests.rs` drives calls against a model of
//! regions that fail in every way the wire allows; `tests/moving_regions.rs` lets whole clients run in a world of regions that
//! split, merge and move.

pub mod backoff;
pub mod batch;
pub mod cache;
pub mod call;
pub mod classify;
pub mod lane;
pub mod request;
pub mod scan;
pub mod state;
pub mod time;
pub mod wire;

pub use call::{Call, Question, Step};
pub use request::{Anchor, Attempt, Body, Mutation, Page, Pair, Reply, Request, Send, Wanted};
pub use state::{Core, Settings, WriteMode};
pub use time::Instant;

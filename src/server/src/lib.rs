//! The store process: services over a replicated store, or over a bare engine.
//!
//! # Where things are
//! [`kv`] the key-value services and their verbs, [`backend`] what they stand on, [`limits`] what they refuse,
//! [`node`] how a process is put together, [`config`] its settings, [`diagnostics`] what it tells about itself,
//! `scheduler` what it asks of the scheduler.
//!
//! # What happens where
//! One thread (or a few) does everything of the network: decodes requests, serves reads by lease, sends responses. The
//! store's own threads (`raftstore::worker`) do the rest and answer into the connection's queue. There is no task per
//! request on a batched stream.
//!
//! Region errors are mapped to the protocol by `raftstore::error`, the only place that does.

pub mod backend;
pub mod config;
pub mod counters;
pub mod diagnostics;
pub mod kv;
pub mod limits;
pub mod node;
mod scheduler;

pub use config::{Config, ConfigError, Reads};
pub use node::standalone::run_standalone_on;
pub use node::store::run_store_on;
pub use node::{Hooks, Ready, RunError};
pub use node::{standalone::run_standalone, store::run_store};
pub use scheduler::SchedulerError;

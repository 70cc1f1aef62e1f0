//! The client library: region cache, retries within a time budget, exactly-once writes.
//!
//! [`core`] decides and is free of IO; the rest of the crate carries its decisions out over gRPC. A killed leader costs time,
//! not errors: a call is retried by the kind of the error until its budget (10 seconds by default) is used up.
//!
//! A write whose outcome cannot be known ends as [`Error::Undetermined`], never as a plain failure. With the default
//! [`WriteMode::ExactlyOnce`] that takes a budget used up in the middle of a retry or a session that the region forgot in the
//! meantime; with [`WriteMode::Plain`] any lost answer is enough.

mod client;
pub mod core;
mod driver;
mod error;
mod link;
mod scanner;
mod scheduler;
mod status;
mod stores;
mod tso;
mod unary;

pub use self::core::{Mutation, Pair, Settings, WriteMode};
pub use client::Client;
pub use error::{Class, Error, Result};
pub use scanner::{ScanOptions, Scanner};
pub use status::{ClusterStatus, MemberStatus, RegionRow, StoreRow};

//! Both halves over real sockets on the loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;
mod messages;
mod snapshots;

//! A scheduler of three members, each on a runtime of its own, over the engine in memory and real sockets. Members are
//! killed, started again, cut off; what clients hold on to must stay true.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "real members, a real clock, deadlines")]

mod failover;
mod followers;
mod group;
mod majority;
mod pages;

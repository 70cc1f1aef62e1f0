//! The apply side: committed entries become data.
//!
//! # Vocabulary
//! A *task* is an instruction of the store loop; a *turn* is the answer to a list of them. The *state hash* is a running
//! digest by which peers can be compared. An *effect* is what an entry means to the peer beyond its data.
//!
//! # Invariants
//! 1. Entries of a region are applied once, in order, without gaps (asserted).
//! 2. What an entry changes (data, sessions) and the position after it are written in one batch (I10). Batches are not
//!    synced: after a crash the log, which is, is applied again from wherever the batches end.
//! 3. A reply is handed out only after the batch it speaks about is written.
//! 4. The same entries give the same data, sessions, replies and state hash on every peer (I4). Nothing local takes part:
//!    no clock, no limits from the configuration, no order of tasks between regions.
//! 5. A write whose epoch is not the region's changes nothing, whatever was checked when it was proposed (M17).
//! 6. A failure of the engine, or an entry that is not understood, ends the applier; it is never told to a client as a
//!    verdict on its request (the entry is committed, and other peers may well apply it).
//! 7. A snapshot's data is exactly the state at its index (I11): it is taken after the batch is written, before the next.
//!
//! # Life of an entry
//! [`Applier::handle`] → `region`: decode, check the epoch, per request look up the session, stage the mutations
//! (`batch`), extend the `hash`, record the reply in the `session` → with all other regions' entries of the call one
//! engine write, the `state` records in it → results to the store loop, replies to the clients.
//!
//! # Left out
//! Deleting compacted log entries is the store loop's part: it alone knows what is durable.
//!
//! Tests: `apply/tests.rs`, and beside each part.

mod applier;
mod batch;
mod hash;
mod life;
mod membership;
pub(crate) mod merge;
mod region;
mod session;
pub(crate) mod split;
mod state;
mod task;
#[cfg(test)]
mod tests;

pub use applier::{Applier, ApplyError};
pub(crate) use life::bury;
pub use merge::Merging;
pub(crate) use session::is_session;
pub use session::{SESSIONS_MAX, SessionDecodeError};
pub use state::ApplyState;
pub use task::{
    Answered, ApplyResult, ApplyTask, ApplyTurn, Effect, Growth, HashTask, Proposal, SnapshotMeta,
    SnapshotReady,
};

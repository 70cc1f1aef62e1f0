//! Snapshots of a region: made from a frozen engine, streamed in checked chunks, spooled to a file, installed.
//!
//! # Vocabulary
//! The *content* of a snapshot is one stream of bytes (`records`): the apply state, the sessions, the data. A *chunk* is a
//! piece of it with a sequence number and a checksum. A *spool file* holds the chunks of one received snapshot (`files`).
//! The *marker* ([`Key::PendingSnapshot`](crate::keys::Key)) says that an installation has begun.
//!
//! # Invariants
//! 1. The content is exactly the state at the index it claims (I11): the applier freezes the engine right after writing.
//! 2. Nothing of a received snapshot is believed before all of it is on disk and checked (`receive`, P2, D5).
//! 3. Once the marker is durable the region must not act until the installation is done; it may be repeated from any point
//!    (`install`, M9). The spool file is deleted only after the result is durable.
//! 4. Bytes that changed on disk are found by their checksum and never installed (I15).
//!
//! # Life of a snapshot
//! leader: Raft asks → `ApplyTask::Snapshot` → `SnapshotReady` → `SnapshotSend` → [`SnapshotSource`] yields chunks to the
//! transport, under the limits of `limits`. follower: [`SnapshotReceiver`] → spool file → `StoreMsg::SnapshotReceived` → Raft
//! accepts → one log write holds the marker, the new Raft state and an empty log → durable → [`MergedAway, SnapshotInstall`] →
//! [`install()`] → `StoreMsg::SnapshotInstalled` → the applier is told anew.
//!
//! # Left out
//! Resuming a broken stream: it starts again. Several regions in one snapshot.

mod files;
mod install;
mod limits;
mod meta;
mod receive;
mod records;
mod source;
mod spool;
#[cfg(test)]
mod tests;

pub use files::{DirFiles, MemFiles, SnapshotFileId, SnapshotFiles, SpoolWriter};
pub use install::{InstallError, MergedAway, SnapshotInstall, finish_pending, install, put_marker};
pub use limits::{Slot, Slots, TokenBucket};
pub use meta::{MetaError, decode_meta, encode_meta};
pub use receive::{ReceiveError, ReceiveLimits, ReceivedSnapshot, SnapshotReceiver};
pub use source::{SNAPSHOT_CHUNK_BYTES, SnapshotSource};

//! The consensus core: Raft as a library that does no IO.
//!
//! # Purpose
//! A group of nodes agrees on one sequence of entries, and goes on agreeing while fewer than half
//! of its voters are down, cut off, slow, or have just lost everything that was not synced.
//! Messages, clock ticks and proposals come in; messages to send, entries to write and entries to
//! apply leave as a plain value, the [`Ready`]. This crate opens no file or socket, starts no
//! thread, reads no clock, writes no log line and draws no randomness but from [`Config::seed`]:
//! the same inputs give the same outputs, on every machine.
//!
//! # Vocabulary
//! - *Node*: a member of one group; a [`RawNode`] is one node. *Driver*: whoever holds it and
//!   carries out its Readies.
//! - *Voter*: counts in majorities. *Learner*: replicates only. *Joint*: a membership with two
//!   majorities, while it changes.
//! - *Term*: logical time of elections; *leader*, *follower*, *candidate* and *pre-candidate* are
//!   roles within one.
//! - *Committed*: on disk at a majority under the rule of invariant 5. *Persisted*: on this node's
//!   disk. *Handed out*: given to the driver to apply. *Applied*: the driver said it did.
//! - *Tail*: the newest part of the log, in memory. *Window*: what a leader has sent a follower and
//!   not heard about.
//!
//! # Invariants
//! Those of Raft (thesis figure 3.2), with the file that keeps each:
//! 1. **Election safety**: at most one leader per term. A node votes once per term, for a log at
//!    least as new as its own, and its vote leaves when it is on disk (`election`, `core`).
//! 2. **Leader append-only**: a leader only adds to its log (`log`).
//! 3. **Log matching**: logs with the same entry at an index are the same up to it; an append is
//!    taken only if the entry before it is here (`follower`, `log`).
//! 4. **Leader completeness** and **state machine safety**: what is committed stays, and everybody
//!    applies the same.
//! 5. A leader counts replicas only for entries of its own term; earlier ones are committed with
//!    them (`leader`).
//! 6. A promise (vote, acknowledgement, term) leaves only when everything it rests on is durable:
//!    [`Ready::persisted_messages`]. A leader's own log counts in the majority only as far as it is
//!    durable (`persistence`).
//! 7. The commit index never falls; an entry at or below it is never overwritten; asked to, the
//!    node refuses the message.
//! 8. A completed write vouches only for entries that nothing has overwritten since it was handed
//!    out (`writes`).
//! 9. One membership change at a time; it takes effect when applied; nobody campaigns while one is
//!    committed and unapplied; a leader proposes none before it has committed an entry of its own
//!    term (`membership`, `election`).
//! 10. While joint, both majorities must agree, on elections, commits, reads and quorum checks
//!     (`quorum`).
//! 11. A read index is given out only by a leader that has committed an entry of its own term and
//!     then heard a majority in a round that began after the read came in, or holds a lease
//!     (`reads`). Every read is answered or reported as dropped.
//! 12. With check-quorum a node that hears a leader, or may have heard one before it restarted,
//!     grants no vote for an election timeout, unless the leader itself asks for the election
//!     (`core`, `step`).
//! 13. Nothing a message says can make a node panic: messages are inspected before they are
//!     believed (`admission`). What this crate asserts, it asserts of itself.
//!
//! # Life of one entry
//! `propose` checks that this node leads, is not handing over and is not over its limit, and adds
//! the entry to the tail. The next `ready` puts all new entries into one append per follower
//! ([`Ready::messages`], to be sent at once) and into [`Ready::entries`] (to be written): the
//! leader's disk and the followers' work in parallel (thesis §10.2.1). A follower finds the entry
//! before it, adds the new ones to its tail, and its next Ready carries them to its disk and the
//! acknowledgement behind them. `on_persist` on the leader and acknowledgements from followers
//! raise `matched` per member; when a majority of them reaches the entry, it is committed. The next
//! Ready hands it out in [`Ready::committed_entries`], read from the tail, which lets it go; the
//! followers learn of the commit with the next append or heartbeat. `advance_apply_to` ends its
//! life here.
//!
//! # Asynchronous persistence
//! Readies are numbered. Any number of them may be written at the same time, as long as they become
//! durable in order; `on_persist(n)` reports the first `n`. Nothing waits: the leader goes on
//! proposing and sending, a follower goes on receiving. What a Ready promises leaves when that
//! Ready is durable. Committed entries are handed out only up to the locally durable index, so that
//! no state machine is ever ahead of its own log. Entries stay in the tail until they are durable
//! *and* handed out, so the [`Storage`] is read only for slow followers and after a restart.
//!
//! # Reads
//! `read_index` on the leader waits for the next `ready`, which begins one round of heartbeats for
//! all reads that came in meanwhile. A round's context is the term and a sequence number, used
//! once; an answer to a round confirms it and all earlier ones. With `LeaseBased` the answers to
//! regular heartbeats extend a lease of one election timeout from when the heartbeat *began*, and
//! reads within it are answered at once; a transfer voids it. Followers forward reads and give up
//! on them, visibly, when the leader changes or is silent for an election timeout.
//!
//! # The wire
//! Messages mean what they mean in raft-rs 0.7 and etcd's raft, field by field ([`wire`]); nodes of
//! either can be peers in one group. Differences that peers cannot observe as anything but timing:
//! appends are sent per Ready and not per proposal; a stale leader is always told so; a node
//! without any membership asks for a snapshot instead of taking entries.
//!
//! # Left out
//! - Forwarding of proposals: followers refuse them and name the leader; clients know better where
//!   to go (thesis §6.2).
//! - Group commit by labels, witnesses, unpersisted applying: nothing here needs them yet.
//! - Logging and metrics: [`RawNode::status`] and [`Ready`] tell everything; drivers decide what to
//!   say.
//! - Recovery of a node that lost its disk: it must come back under a new id. No vote rule can make
//!   up for lost votes.
//!
//! # Tests
//! `testscripts/` (behaviour, run by `tests/scripts`), `tests/safety` (random schedules, all
//! invariants, then convergence), `tests/hostile.rs` (input nobody should send),
//! `tests/persistence.rs` (writes and syncs), and unit tests beside the pure parts. The feature `planted` turns single defences off ([`planted`]).

mod admission;
mod candidate;
mod clock;
pub mod conf_change;
mod config;
mod core;
mod election;
mod entry;
mod error;
mod follower;
mod inflights;
mod leader;
mod log;
mod mem_storage;
mod membership;
mod message;
mod persistence;
pub mod planted;
mod progress;
pub mod quorum;
mod raw_node;
mod reads;
mod ready;
mod replication;
mod status;
mod step;
mod storage;
mod tracker;
mod transfer;
mod types;
pub mod wire;
mod writes;

pub use conf_change::{ConfChange, ConfChangeError, ConfChangeKind, ConfChangeV2, Transition};
pub use config::{Config, ReadOnlyOption};
pub use entry::{ConfState, ENTRY_OVERHEAD_BYTES, Entry, EntryKind, HardState, Snapshot};
pub use error::{ConfigError, Error, Refusal};
pub use log::RaftLog;
pub use mem_storage::MemStorage;
pub use message::{
    Append, AppendResponse, Message, MessageBody, Reject, VoteRequest, VoteResponse,
};
pub use raw_node::RawNode;
pub use ready::{ReadState, Ready};
pub use status::{ProgressState, ProgressStatus, Role, SoftState, Status};
pub use storage::{InitialState, Storage, StorageError};
pub use types::{LogIndex, NodeId, Term};

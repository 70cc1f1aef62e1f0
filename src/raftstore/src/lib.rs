//! The store: region peers over one engine.
//!
//! Everything here is step-able. A [`Store`] takes messages and yields turns; an [`apply::Applier`] takes tasks and yields
//! replies; whoever drives them owns the threads, the clock, the network and the disk. Production ([`worker`]) and the
//! simulator drive the same code.
//!
//! # Vocabulary
//! *Store*: a process's identity and all its peers. *Region*: a key range and its epoch. *Peer*: a region's replica on a
//! store. *Proposal*: a command given to Raft, with those who wait for it. *Apply*: what committed entries do to the data.
//!
//! # Where things are
//! [`store`] the loop's decisions, [`peer`] one replica, [`apply`] the state machine, [`snapshot`] moving a whole region, [`scan`] reading one,
//! [`local_reader`] reads without the loop, [`msg`] all inputs and outputs, [`keys`] every key on disk, [`command`] what is
//! in the log, [`config`] settings and limits, [`error`] what clients are told, [`worker`] the threads.

pub mod apply;
pub mod command;
pub mod config;
pub mod error;
pub mod keys;
mod lease;
pub mod local_reader;
pub mod membership;
pub mod msg;
mod peer;
pub mod planted;
mod read_load;
pub mod reply;
pub mod scan;
pub mod snapshot;
pub mod store;
pub mod time;
pub mod worker;

pub use apply::{Applier, ApplyTask};
pub use config::{Config, ReadMode};
pub use error::RegionError;
pub use local_reader::{LocalReader, ReadMiss, ReadPermit};
pub use msg::{
    AdminRequest, NewRegion, Order, ReadRequest, RequestHeader, SnapshotSend, StoreMsg, Turn,
    WriteRequest,
};
pub use peer::records::{Corruption, ReadError};
pub use peer::{INITIAL_INDEX, INITIAL_TERM, PeerOpenError, RegionStatus};
pub use read_load::ReadMeter;
pub use reply::Reply;
pub use snapshot::{
    DirFiles, MemFiles, ReceiveError, ReceiveLimits, ReceivedSnapshot, Slots, SnapshotFiles,
    SnapshotReceiver, SnapshotSource, TokenBucket,
};
pub use store::{Store, StoreStatus};
pub use time::Instant;
pub use worker::Worker;

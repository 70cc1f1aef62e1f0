//! The consensus core.
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

//! What can happen at one instant of a run.

use super::faults::Fault;
use super::scheduler::{Advice, Consult};
use bytes::Bytes;
use proto::flotillapb::snapshot_chunk::Part;
use proto::ids::{PeerId, RegionId};
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raftstore::ReadPermit;
use raftstore::apply::HashTask;
use raftstore::command::{Request, WriteResult};
use raftstore::error::RegionError;
use raftstore::msg::{RequestHeader, SplitCheck};
use raftstore::snapshot::SnapshotInstall;

/// An event of the queue.
#[derive(Debug)]
pub enum Event {
    /// Something reaches a store's process. With a `life`, only the process of that life is meant: another one knows nothing
    /// of it.
    Store {
        /// Which store.
        store: usize,
        /// Which of its lives, if that matters.
        life: Option<u64>,
        /// What.
        event: StoreEvent,
    },
    /// An answer reaches a client.
    Answer {
        /// To which attempt.
        attempt: u64,
        /// What it says.
        answer: Answer,
    },
    /// A client stops waiting for an attempt.
    GiveUp {
        /// Which attempt.
        attempt: u64,
    },
    /// A client tries a call again.
    Retry {
        /// Which call.
        call: u64,
    },
    /// Somebody asked to be woken.
    Wake {
        /// By this name.
        name: u64,
    },
    /// The nemesis acts.
    Fault(Fault),
    /// The nemesis draws its next fault.
    Strike,
    /// The steward draws its next operation.
    Operate,
}

/// Something that reaches a store's process.
#[derive(Debug)]
pub enum StoreEvent {
    /// A message of another store.
    Raft(Box<RaftMessage>),
    /// A timer interval has passed.
    Tick,
    /// The loop takes a turn.
    Turn,
    /// The sync under way ends.
    Synced,
    /// The applier takes its tasks.
    Apply,
    /// A client asks.
    Ask(Ask),
    /// A reader has been given leave to read.
    ReadNow(Ask, Box<ReadPermit>),
    /// A snapshot arrives: the message it belongs to, the parts of its stream, and whether the sender still waits.
    Snapshot(Box<RaftMessage>, Vec<Part>, bool),
    /// The attempt to send a snapshot to this peer is over.
    SnapshotSent(RegionId, PeerId, bool),
    /// The installer takes its task.
    Install(Box<SnapshotInstall>),
    /// Another store could not be reached.
    Unreachable(usize),
    /// The scanner looks how large a region is.
    Measure(Box<SplitCheck>),
    /// The scanner computes the hash of a region.
    Hash(Box<HashTask>),
    /// The store tells the scheduler that it lives.
    Heartbeat,
    /// The scheduler answers a store.
    Advice(Box<Advice>),
    /// Somebody asks a node of the scheduler's.
    Consult(Box<Consult>),
    /// A node of the scheduler's looks around.
    BrainTick,
    /// A node of the scheduler's goes on thinking.
    Think,
}

impl StoreEvent {
    /// The number of the kind, for the hash.
    pub fn number(&self) -> u64 {
        match self {
            StoreEvent::Raft(_) => 1,
            StoreEvent::Tick => 2,
            StoreEvent::Turn => 3,
            StoreEvent::Synced => 4,
            StoreEvent::Apply => 5,
            StoreEvent::Ask(_) => 6,
            StoreEvent::ReadNow(..) => 7,
            StoreEvent::Snapshot(..) => 8,
            StoreEvent::SnapshotSent(..) => 9,
            StoreEvent::Install(_) => 10,
            StoreEvent::Unreachable(_) => 11,
            StoreEvent::Heartbeat => 12,
            StoreEvent::Advice(_) => 13,
            StoreEvent::Consult(_) => 14,
            StoreEvent::BrainTick => 15,
            StoreEvent::Think => 16,
            StoreEvent::Measure(_) => 17,
            StoreEvent::Hash(_) => 18,
        }
    }
}

/// A client's request as it travels.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Which attempt it is.
    pub attempt: u64,
    /// For whom.
    pub header: RequestHeader,
    /// Whether a read may use the lease.
    pub lease: bool,
    /// What a read must at least see: the position acknowledged when it reached the store.
    pub position: u64,
    /// What is asked.
    pub what: AskWhat,
}

/// What a request asks.
#[derive(Clone, Debug)]
pub enum AskWhat {
    /// To change something.
    Write(Request),
    /// For the value of a key.
    Get(Bytes),
    /// For the pairs of a range inside the region.
    Scan(Bytes, Bytes),
}

/// An answer as it travels.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A write was decided.
    Wrote(WriteResult),
    /// A key holds this.
    Value(Option<Bytes>),
    /// A range holds this.
    Pairs(Vec<(Bytes, Bytes)>),
    /// The scheduler knows this region and leader.
    Located(Option<Box<(metapb::Region, Option<metapb::Peer>)>>),
    /// The first of the ids asked for.
    Ids(u64),
    /// The last of so many timestamps.
    Timestamps(u64, u32),
    /// Another node of the scheduler's leads, perhaps this one.
    NotLeading(Option<usize>),
    /// The store refuses.
    Error(RegionError),
    /// Nobody listens there.
    Unreachable,
}

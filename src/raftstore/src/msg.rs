//! What goes into a store and what comes out: the values between the step-able store and its edges.
//!
//! In: [`StoreMsg`]. Out: [`Turn`], which the edge carries out. The order that matters is written at the fields of `Turn`.

use std::sync::Arc;

use engine::WriteBatch;
use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raft::Term;

use crate::apply::{ApplyResult, ApplyTask, SnapshotReady};
use crate::command::{Request, WriteResult};
use crate::error::RegionError;
use crate::local_reader::ReadPermit;
use crate::reply::Reply;
use crate::snapshot::{ReceivedSnapshot, SnapshotInstall};
use crate::store::StoreStatus;

/// For whom a request is meant, as the client sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestHeader {
    /// Which region.
    pub region: RegionId,
    /// Of which generation.
    pub epoch: metapb::RegionEpoch,
    /// Which peer of it, if the client says.
    pub peer: Option<PeerId>,
    /// Which store, if the client says.
    pub store: Option<StoreId>,
    /// The leader's term, if the client says: an older one is refused as stale.
    pub term: Option<Term>,
}

impl RequestHeader {
    /// A header that names a region and its epoch only.
    pub fn new(region: RegionId, epoch: metapb::RegionEpoch) -> RequestHeader {
        RequestHeader { region, epoch, peer: None, store: None, term: None }
    }

    pub(crate) fn check_store(&self, actual: StoreId) -> Result<(), RegionError> {
        match self.store {
            Some(request) if request != actual => {
                Err(RegionError::StoreNotMatch { request, actual })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn check_peer(&self, actual: PeerId) -> Result<(), RegionError> {
        match self.peer {
            Some(request) if request != actual => {
                Err(RegionError::MismatchPeerId { request, actual })
            }
            _ => Ok(()),
        }
    }

    /// A client that has seen a later term than ours talks to a deposed leader; one that has seen an earlier one decided on
    /// an old state.
    pub(crate) fn check_term(&self, actual: Term) -> Result<(), RegionError> {
        match self.term {
            Some(request) if request != actual => Err(RegionError::StaleCommand),
            _ => Ok(()),
        }
    }

    /// Requests for data care about the key range only, so only `version` counts, not `conf_ver`.
    pub(crate) fn check_version(&self, region: &metapb::Region) -> Result<(), RegionError> {
        let current = region.region_epoch.unwrap_or_default();
        if self.epoch.version == current.version {
            Ok(())
        } else {
            Err(RegionError::epoch_not_match(region))
        }
    }
}

/// A change to one region's data.
#[derive(Debug)]
pub struct WriteRequest {
    /// For whom.
    pub header: RequestHeader,
    /// What to do; its keys are within the limits of the protocol.
    pub request: Request,
    /// Answered when it is applied, or can no longer be.
    pub reply: Reply<WriteResult>,
}

/// Asks for leave to read a region.
#[derive(Debug)]
pub struct ReadRequest {
    /// For whom.
    pub header: RequestHeader,
    /// Answered when this store's data holds everything acknowledged before the request came.
    pub reply: Reply<ReadPermit>,
}

/// One input of the store.
#[derive(Debug)]
pub enum StoreMsg {
    /// A timer interval has passed.
    Tick,
    /// From another store.
    Raft(RaftMessage),
    /// From a client.
    Write(WriteRequest),
    /// From a client whose read the lease did not cover.
    Read(ReadRequest),
    /// The log write of this number, and all before it, are durable.
    Persisted {
        /// [`LogWrite::number`].
        number: u64,
    },
    /// A write or a sync of the log or of the applier failed; the store is poisoned (D3).
    WriteFailed {
        /// What failed, for people.
        reason: String,
    },
    /// From the applier.
    Applied(Vec<ApplyResult>),
    /// From the applier: a snapshot that was asked for.
    SnapshotReady(SnapshotReady),
    /// A snapshot has arrived as a checked file, with the Raft message it belongs to.
    SnapshotReceived {
        /// The message (`MsgSnapshot`).
        message: RaftMessage,
        /// The file.
        file: ReceivedSnapshot,
    },
    /// The attempt to send a snapshot is over.
    SnapshotSent {
        /// Whose.
        region: RegionId,
        /// To which peer.
        to: PeerId,
        /// Whether it arrived.
        ok: bool,
    },
    /// An installation ([`Turn::installs`]) is complete and durable.
    SnapshotInstalled {
        /// Whose.
        region: RegionId,
    },
    /// Messages to this store could not be delivered.
    Unreachable {
        /// Which store.
        store: StoreId,
    },
    /// Creates this store's peer of a region of the initial key space; again changes nothing.
    Bootstrap {
        /// The region, with a peer on this store.
        region: metapb::Region,
        /// Answered when the peer is durable.
        reply: Reply<()>,
    },
    /// Hands the lead of a region to another peer.
    TransferLeader {
        /// For whom.
        header: RequestHeader,
        /// To which peer.
        to: PeerId,
        /// Answered when the transfer has begun.
        reply: Reply<()>,
    },
    /// Start to hand every lead away; [`Turn::drained`] says when none is left.
    Drain,
    /// Asks how the store is.
    Status(Reply<StoreStatus>),
}

/// Everything the log needs for all regions of one turn: one write, one sync.
#[derive(Debug)]
pub struct LogWrite {
    /// From 1, without gaps. Writes are carried out, and reported as [`StoreMsg::Persisted`], in this order.
    pub number: u64,
    /// What to write.
    pub batch: WriteBatch,
    /// Whether it must be durable before it is reported. If not, having been written is enough.
    pub sync: bool,
}

/// A snapshot to be streamed to another store.
#[derive(Debug)]
pub struct SnapshotSend {
    /// Whose.
    pub region: RegionId,
    /// To which peer; its store is where the stream goes.
    pub to: metapb::Peer,
    /// The Raft message that carries its metadata.
    pub message: RaftMessage,
    /// The data.
    pub source: SnapshotReady,
}

/// A leader's report on its region, for the scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionHeartbeat {
    /// The region as of what is applied.
    pub region: Arc<metapb::Region>,
    /// This peer.
    pub leader: metapb::Peer,
    /// Its term.
    pub term: Term,
    /// Peers that have not been heard of for an election timeout.
    pub down_peers: Vec<metapb::Peer>,
    /// Peers that need a snapshot.
    pub pending_peers: Vec<metapb::Peer>,
}

/// What a turn of the store asks of its edges.
#[derive(Debug, Default)]
pub struct Turn {
    /// To the log writer. May be carried out while further turns are taken.
    pub log_write: Option<LogWrite>,
    /// To the other stores, in order; any of them may be lost. They do not wait for `log_write`.
    pub messages: Vec<RaftMessage>,
    /// To the applier, in order.
    pub apply: Vec<ApplyTask>,
    /// To the snapshot sender; each ends with [`StoreMsg::SnapshotSent`].
    pub snapshots: Vec<SnapshotSend>,
    /// To the snapshot installer; each ends with [`StoreMsg::SnapshotInstalled`] or poisons the store. What they rest on is
    /// durable, and the applier has nothing of their regions in hand.
    pub installs: Vec<SnapshotInstall>,
    /// Snapshot files that Raft had no use for: to be deleted.
    pub discarded_snapshots: Vec<ReceivedSnapshot>,
    /// To the scheduler; any of them may be lost.
    pub heartbeats: Vec<RegionHeartbeat>,
    /// Set once, after [`StoreMsg::Drain`]: this store leads nothing any more.
    pub drained: bool,
    /// Set for good once a write has failed: stop the process. A poisoned turn asks for nothing else.
    pub poisoned: Option<String>,
}

impl Turn {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let Turn {
            log_write,
            messages,
            apply,
            snapshots,
            installs,
            discarded_snapshots,
            heartbeats,
            drained,
            poisoned,
        } = self;
        log_write.is_none()
            && messages.is_empty()
            && apply.is_empty()
            && snapshots.is_empty()
            && installs.is_empty()
            && discarded_snapshots.is_empty()
            && heartbeats.is_empty()
            && !drained
            && poisoned.is_none()
    }
}

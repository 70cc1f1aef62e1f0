//! What goes into a store and what comes out: the values between the step-able store and its edges.
//!
//! In: [`StoreMsg`]. Out: [`Turn`], which the edge carries out. The order that matters is written at the fields of `Turn`.

use std::sync::Arc;

use bytes::Bytes;
use engine::WriteBatch;
use proto::ids::{PeerId, RegionId, StoreId};
use proto::raft_serverpb::RaftMessage;
use proto::{metapb, pdpb};
use raft::{LogIndex, Term};

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
    /// An administrator's or the scheduler's order to one region.
    Admin(AdminRequest),
    /// The scheduler's answer to a [`SplitRequest`].
    SplitIds {
        /// What was asked.
        request: SplitRequest,
        /// One for each key; or why there are none.
        ids: Result<Vec<NewRegion>, String>,
    },
    /// A [`SplitCheck`] has been carried out.
    SplitChecked(SplitChecked),
    /// From the scanner: the hash of a region's data, ordered by a `ComputeHash` in its log.
    HashComputed {
        /// Whose.
        region: RegionId,
        /// Of the `ComputeHash`.
        index: LogIndex,
        /// Of the data as of `index`.
        hash: u64,
    },
    /// Have all peers of a region compare their data; answered when the leader's hash is committed.
    CheckConsistency {
        /// For whom.
        header: RequestHeader,
        /// The index compared at, and the hash.
        reply: Reply<ConsistencyHash>,
    },
    /// The scheduler's answer to a [`RegionQuestion`]: the region that holds the asked region's start key now.
    RegionAnswer {
        /// The region asked about.
        asked: RegionId,
        /// Who holds its start key; another id with a later version means that `asked` was merged away.
        holder: metapb::Region,
    },
    /// The scheduler has forgotten what it was told (another of its nodes leads): every region that is led here reports
    /// within some ticks, also those that sleep.
    ReportRegions,
    /// Start to hand every lead away; [`Turn::drained`] says when none is left.
    Drain,
    /// Asks how the store is.
    Status(Reply<StoreStatus>),
}

/// An order to one region. Both numbers of the header's epoch must be the current ones.
#[derive(Debug)]
pub struct AdminRequest {
    /// For whom.
    pub header: RequestHeader,
    /// What.
    pub order: Order,
    /// Answered when the order has been proposed (not yet applied), or refused with the reason.
    pub reply: Reply<()>,
}

/// What can be ordered.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// One change (or several through a joint membership); none leaves a joint membership.
    ChangePeers(Vec<pdpb::ChangePeer>),
    /// Cut at these keys; none means where the data are halved. The ids are asked for ([`Turn::split_requests`]).
    Split {
        /// Ascending, valid memcomparable encodings, inside of the region, none at its start.
        keys: Vec<Bytes>,
    },
    /// Be taken over by this neighbour.
    Merge {
        /// As the scheduler knows it.
        target: metapb::Region,
    },
}

/// Ids of a new region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRegion {
    /// The region's.
    pub region: RegionId,
    /// Its peers', one for each peer of the divided region, in the order of its list.
    pub peers: Vec<PeerId>,
}

/// A leader wants to cut its region and needs ids for the parts.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitRequest {
    /// The region as of the request.
    pub region: Arc<metapb::Region>,
    /// Where to cut.
    pub keys: Vec<Bytes>,
}

/// A region to be measured, off the loop.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitCheck {
    /// The region as of the request.
    pub region: Arc<metapb::Region>,
    /// Bytes of data each part should have; 0 halves whatever there is.
    pub part_bytes: u64,
    /// The same in keys.
    pub part_keys: u64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitChecked {
    /// What was asked.
    pub check: SplitCheck,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Number of keys.
    pub keys: u64,
    /// Where to cut; valid encodings. Empty if it is small enough or cannot be cut.
    pub split_keys: Vec<Bytes>,
}

/// The outcome of a consistency check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistencyHash {
    /// Where in the log.
    pub index: LogIndex,
    /// The leader's hash.
    pub hash: u64,
}

/// A peer without a leader wonders whether its region still wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionQuestion {
    /// The region as this store knows it.
    pub region: Arc<metapb::Region>,
    /// The peer that asks.
    pub peer: metapb::Peer,
}

/// What clients did to a region since its last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of keys and values written.
    pub bytes_written: u64,
    /// Keys written.
    pub keys_written: u64,
    /// Bytes of keys and values read.
    pub bytes_read: u64,
    /// Keys read.
    pub keys_read: u64,
    /// Over how long.
    pub interval_ms: u64,
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
    /// Peers that have not been heard of for an election timeout, and for how many seconds in all.
    pub down_peers: Vec<(metapb::Peer, u64)>,
    /// Peers that need a snapshot, or have not yet what was committed when they were added.
    pub pending_peers: Vec<metapb::Peer>,
    /// About how many bytes of keys and values it holds.
    pub approximate_bytes: u64,
    /// About how many keys.
    pub approximate_keys: u64,
    /// What clients did.
    pub flow: Flow,
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
    /// To the scanner; each ends with [`StoreMsg::SplitChecked`], or never.
    pub split_checks: Vec<SplitCheck>,
    /// To the scheduler; each ends with [`StoreMsg::SplitIds`], or never.
    pub split_requests: Vec<SplitRequest>,
    /// To the scheduler, all parts of one split together: so it never sees a hole. May be lost.
    pub split_reports: Vec<Vec<metapb::Region>>,
    /// To the scheduler; each ends with [`StoreMsg::RegionAnswer`], or never.
    pub region_questions: Vec<RegionQuestion>,
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
            split_checks,
            split_requests,
            split_reports,
            region_questions,
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
            && split_checks.is_empty()
            && split_requests.is_empty()
            && split_reports.is_empty()
            && region_questions.is_empty()
            && !drained
            && poisoned.is_none()
    }
}

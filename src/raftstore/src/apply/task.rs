//! What the apply side is asked to do, and what it answers: the values that cross between the store loop and the applier.
//!
//! Tasks of one region arrive in order; the order between regions carries no meaning.

use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;

use engine::Op;
use proto::ids::{PeerId, RegionId};
use proto::metapb;
use raft::{ConfState, Entry, LogIndex, Term};

use super::merge::Merging;
use super::state::ApplyState;
use crate::command::WriteResult;
use crate::error::RegionError;
use crate::keys::raw_user_key;
use crate::msg::StoreMsg;
use crate::reply::Reply;
use crate::scan::data_hash;

/// One instruction to the applier.
#[derive(Debug)]
pub enum ApplyTask {
    /// A region was opened, bootstrapped or restored from a snapshot. What the applier knew about it is forgotten; sessions
    /// are loaded from the engine, where everything `state` promises already is. Answered by a result: until it is, nothing
    /// may replace the region's data.
    Register {
        /// The region as of `state`.
        region: metapb::Region,
        /// This store's peer of it.
        peer: PeerId,
        /// Where its state machine stands.
        state: ApplyState,
    },
    /// Entries that are committed and, on this store, durable; they continue where the last ones ended.
    Committed {
        /// Whose entries.
        region: RegionId,
        /// In index order, without gaps, never empty.
        entries: Vec<Entry>,
        /// Those of `entries` that somebody here waits for, in index order.
        proposals: Vec<Proposal>,
    },
    /// Produce a consistent view of what has been applied so far.
    Snapshot {
        /// Of this region.
        region: RegionId,
        /// For this peer.
        to: PeerId,
    },
    /// Record a peer that a first message asks for. Answered by [`Effect::Created`].
    Create {
        /// What the message said: id, range, epoch; no peers.
        region: metapb::Region,
        /// The new peer.
        peer: metapb::Peer,
    },
    /// Destroy this store's peer of a region; it gets no more tasks. Answered by [`Effect::Destroyed`].
    Destroy {
        /// As the store loop knows it.
        region: metapb::Region,
        /// This store's peer of it.
        peer: metapb::Peer,
        /// A committed entry at or behind the one that removed the peer, if the store was told.
        removed_at: Option<(LogIndex, Term)>,
    },
}

/// Somebody waits for the entry at `index`, if it is still the one of `term` (hazard M24).
#[derive(Debug)]
pub struct Proposal {
    /// Where the entry was proposed.
    pub index: LogIndex,
    /// In which term: another term's entry at this index is somebody else's, and the replies are stale.
    pub term: Term,
    /// In the order of the entry's requests, one for each; empty for an entry nobody waits for.
    pub replies: Vec<Reply<WriteResult>>,
}

/// How far a region has got, told to the store loop.
///
/// A result with [`Effect::Created`] or [`Effect::Destroyed`] has no other effect, and its positions mean nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyResult {
    /// Which region.
    pub region: RegionId,
    /// The last entry applied.
    pub applied_index: LogIndex,
    /// Its term.
    pub applied_term: Term,
    /// Digest of everything applied so far; equal on all peers at the same index (invariant I4).
    pub state_hash: u64,
    /// What the entries mean to the peer itself, in log order.
    pub effects: Vec<Effect>,
    /// What they did to the amount of data.
    pub growth: Growth,
}

/// What entries did to the amount of a region's data, as far as that is known without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Bytes of keys and values written, over others or not.
    pub written_bytes: u64,
    /// Keys written.
    pub written_keys: u64,
    /// Keys deleted, whether they were there or not.
    pub deleted_keys: u64,
    /// Ranges deleted: nobody knows what was in them.
    pub deleted_ranges: u64,
}

impl Growth {
    /// Adds one operation on the data.
    pub(super) fn add(&mut self, op: &Op) {
        match op {
            Op::Put { key, value, .. } => {
                self.written_bytes += (raw_user_key(key).len() + value.len()) as u64;
                self.written_keys += 1;
            }
            Op::Delete { .. } => self.deleted_keys += 1,
            Op::DeleteRange { .. } => self.deleted_ranges += 1,
        }
    }
}

impl AddAssign for Growth {
    fn add_assign(&mut self, more: Growth) {
        self.written_bytes += more.written_bytes;
        self.written_keys += more.written_keys;
        self.deleted_keys += more.deleted_keys;
        self.deleted_ranges += more.deleted_ranges;
    }
}

impl SubAssign for Growth {
    fn sub_assign(&mut self, less: Growth) {
        self.written_bytes -= less.written_bytes;
        self.written_keys -= less.written_keys;
        self.deleted_keys -= less.deleted_keys;
        self.deleted_ranges -= less.deleted_ranges;
    }
}

impl ApplyResult {
    /// Whether it tells of regions that came to be, or went.
    pub(super) fn concerns_others(&self) -> bool {
        let others =
            |effect: &Effect| matches!(effect, Effect::Split { .. } | Effect::Merged { .. });
        self.effects.iter().any(others)
    }

    /// The beginning or the end of a region's life on this store.
    pub(super) fn of_life(region: RegionId, effect: Effect) -> ApplyResult {
        let effects = vec![effect];
        let (applied_index, applied_term) = Default::default();
        let (state_hash, growth) = Default::default();
        ApplyResult { region, applied_index, applied_term, state_hash, effects, growth }
    }
}

/// A consequence of an entry for the peer, beyond the data.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The log up to and including `index` is no longer needed: the truncated position is recorded, the entries may be
    /// deleted once that record is durable.
    CompactLog {
        /// The last entry that may go.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// The leader's hash of the region's data as of `index`, to be compared with this peer's.
    VerifyHash {
        /// Of the `ComputeHash`.
        index: LogIndex,
        /// The leader's hash.
        hash: u64,
    },
    /// A membership change reached its place in the log. Raft must be told in any case (hazard R24): of `region`'s
    /// configuration if it took effect, of an unchanged one if it was refused.
    ConfChange {
        /// The entry: position, kind and the encoded change.
        entry: Entry,
        /// The region afterwards; `None` if the change was refused. Until membership changes have an administrative
        /// command of their own, every one is.
        region: Option<metapb::Region>,
    },
    /// The region waits to be taken over, and serves nobody meanwhile.
    Frozen {
        /// The region, in its next epoch.
        region: metapb::Region,
        /// By whom, and since when.
        merging: Merging,
    },
    /// The region has a new version, and is what it was: a merge of it, or with it, was called off.
    NewVersion {
        /// The region.
        region: metapb::Region,
    },
    /// The region is to take over `source`, which has not applied its `PrepareMerge` here: nothing goes on until it has.
    AwaitsSource {
        /// Who must get further.
        source: RegionId,
        /// Of the `PrepareMerge`, which is committed.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// The region has taken over `source`, which is gone from this store but for its hard state and its log.
    Merged {
        /// The region, with the source's range.
        region: metapb::Region,
        /// The source as it was.
        source: metapb::Region,
    },
    /// The region was cut.
    Split {
        /// All parts in key order; the first one keeps the id.
        regions: Vec<metapb::Region>,
        /// Those new parts that this store has a peer of, and where they stand. They are registered already.
        created: Vec<(RegionId, ApplyState)>,
    },
    /// The peer asked for is recorded, or something stands in its way.
    Created {
        /// Which peer.
        peer: metapb::Peer,
        /// Whether it is.
        created: bool,
    },
    /// The region's data are gone from this store and a tombstone is written.
    Destroyed {
        /// The tombstone's peer.
        peer: metapb::Peer,
        /// The entry that removed it, if that was applied here.
        removed_at: Option<(LogIndex, Term)>,
    },
}

/// A reply together with what it will say. Handed out only after the batch it speaks about is written.
pub type Answered = (Reply<WriteResult>, Result<WriteResult, RegionError>);

/// The consequences of one call.
#[derive(Debug, Default)]
pub struct ApplyTurn {
    /// One for every region that moved, in region order.
    pub results: Vec<ApplyResult>,
    /// Every reply that fell due.
    pub replies: Vec<Answered>,
    /// Snapshots asked for.
    pub snapshots: Vec<SnapshotReady>,
    /// For the scanner: data to be hashed.
    pub hashes: Vec<HashTask>,
}

/// The data of a region at one index, to be hashed for a comparison with the other peers.
#[derive(Clone)]
pub struct HashTask {
    /// The region at `index`.
    pub region: metapb::Region,
    /// Of the `ComputeHash`.
    pub index: LogIndex,
    /// The frozen data; holds exactly the state at `index`.
    pub engine: Arc<dyn engine::Snapshot>,
}

impl HashTask {
    /// Hashes the data: the input for the store that it becomes.
    pub fn carry_out(&self) -> engine::Result<StoreMsg> {
        let hash = data_hash(&self.region, self.engine.as_ref())?;
        Ok(StoreMsg::HashComputed { region: self.region.id.into(), index: self.index, hash })
    }
}

impl std::fmt::Debug for HashTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { region, index, engine: _ } = self;
        f.debug_struct("HashTask")
            .field("region", region)
            .field("index", index)
            .finish_non_exhaustive()
    }
}

/// A consistent view of one region.
#[derive(Clone)]
pub struct SnapshotReady {
    /// Which region.
    pub region: RegionId,
    /// For whom it was made.
    pub to: PeerId,
    /// What it is a snapshot of.
    pub meta: SnapshotMeta,
    /// The frozen data; holds exactly the state at `meta.index` (invariant I11).
    pub engine: Arc<dyn engine::Snapshot>,
}

impl std::fmt::Debug for SnapshotReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { region, to, meta, engine: _ } = self;
        f.debug_struct("SnapshotReady")
            .field("region", region)
            .field("to", to)
            .field("meta", meta)
            .finish_non_exhaustive()
    }
}

/// The position a snapshot stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotMeta {
    /// The last entry it contains.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// The configuration at `index`.
    pub conf_state: ConfState,
    /// The region at `index`: range, epoch, peers.
    pub region: metapb::Region,
    /// Digest of everything applied up to `index`.
    pub state_hash: u64,
}

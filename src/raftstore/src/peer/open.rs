//! How a peer comes to be: created with its region's initial state, by a first message, or read back from the engine.
//!
//! A peer that a first message created is *uninitialised*: it knows its ids and a generation of its region, but no members
//! and no data. It votes, because it may be a voter; a snapshot makes it a peer like any other.
//!
//! Every peer of an initial region starts from the same state: nothing applied, the log empty after ([`INITIAL_INDEX`],
//! [`INITIAL_TERM`]). Creating it again changes nothing, and a peer that has left this state never returns to it.

use std::sync::Arc;

use engine::{Cf, Engine, WriteBatch};
use proto::ids::{RegionId, StoreId};
use proto::metapb;
use raft::{ConfState, HardState, LogIndex, NodeId, RawNode, Term};

use super::records::{Corruption, ReadError, RegionRecord};
use super::storage::{PeerStorage, log_start};
use super::{Peer, records};
use crate::apply::{ApplyState, ApplyTask};
use crate::config::Config;
use crate::keys::Key;
use crate::membership::conf_state;

/// The log of an initial region begins after this index …
pub const INITIAL_INDEX: LogIndex = LogIndex(5);

/// … and this term.
pub const INITIAL_TERM: Term = Term(5);

/// Why a peer cannot be opened.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PeerOpenError {
    /// Its records cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The region has no peer on this store.
    #[error("region {region} has no peer on store {store}")]
    NotAMember {
        /// Which region.
        region: RegionId,
        /// Which store.
        store: StoreId,
    },
    /// Raft refuses what was read.
    #[error("region {region}: {source}")]
    Raft {
        /// Which region.
        region: RegionId,
        /// Why.
        source: raft::Error,
    },
}

impl Peer {
    /// Reads a peer back from the engine.
    pub(crate) fn open(
        record: RegionRecord,
        engine: Arc<dyn Engine>,
        config: &Config,
    ) -> Result<Peer, PeerOpenError> {
        let RegionRecord { region, peer, merging, snapshot_epoch, .. } = record;
        let peer = peer.unwrap_or_default();
        if region.peers.is_empty() {
            return Peer::open_uninitialized(region, peer, engine, config);
        }
        let id = RegionId::from(region.id);
        let me = region.peers.iter().find(|member| member.id == peer.id).copied();
        let me = me.ok_or(PeerOpenError::NotAMember { region: id, store: config.store_id })?;
        let damaged = |detail: &str| {
            let detail = detail.to_owned();
            ReadError::from(Corruption { region: id, what: "apply state", detail })
        };
        let stored =
            engine.get(Cf::Raft, &Key::ApplyState(id).encode()).map_err(ReadError::from)?;
        let stored = stored.ok_or_else(|| damaged("it is missing"))?;
        let state = ApplyState::decode(&stored).ok_or_else(|| damaged("it is malformed"))?;
        let storage = PeerStorage::load(
            engine,
            id,
            conf_state(&region),
            log_start(&state),
            state.applied_index,
        )?;
        let mut peer = Peer::new(region, me, storage, state, config)?;
        peer.merging = merging;
        peer.snapshot_epoch = snapshot_epoch;
        peer.tasks.push(peer.register(state));
        Ok(peer)
    }

    /// A peer whose first snapshot has not arrived; what it has voted counts. The applier does not know of it.
    pub(crate) fn open_uninitialized(
        region: metapb::Region,
        me: metapb::Peer,
        engine: Arc<dyn Engine>,
        config: &Config,
    ) -> Result<Peer, PeerOpenError> {
        let (id, state) = (RegionId::from(region.id), ApplyState::default());
        let (members, start) = (ConfState::default(), log_start(&state));
        let storage = PeerStorage::load(engine, id, members, start, state.applied_index)?;
        let mut peer = Peer::new(region, me, storage, state, config)?;
        peer.registering = false;
        Ok(peer)
    }

    /// Creates a peer of an initial region. Its records are added to `batch`; the applier must be told of it (the task
    /// returned) once they are written.
    pub(crate) fn create(
        region: metapb::Region,
        engine: Arc<dyn Engine>,
        config: &Config,
        batch: &mut WriteBatch,
    ) -> Result<(Peer, ApplyTask), PeerOpenError> {
        let id = RegionId::from(region.id);
        let state = ApplyState::initial(INITIAL_INDEX, INITIAL_TERM);
        let hard_state = HardState { term: INITIAL_TERM, vote: None, commit: INITIAL_INDEX };
        let me = member_here(&region, config)?;
        let record = RegionRecord::normal(region.clone(), Some(me));
        let members = conf_state(&region);
        let storage = PeerStorage::initial(engine, id, members, log_start(&state), hard_state);
        let peer = Peer::new(region, me, storage, state, config)?;
        batch.put(Cf::Raft, Key::RegionState(id).encode(), record.encode());
        batch.put(Cf::Raft, Key::ApplyState(id).encode(), state.encode());
        let hard_state = records::encode_hard_state(&hard_state);
        batch.put(Cf::Raft, Key::HardState(id).encode(), hard_state);
        let register = peer.register(state);
        Ok((peer, register))
    }

    fn register(&self, state: ApplyState) -> ApplyTask {
        let region = metapb::Region::clone(&self.region);
        ApplyTask::Register { region, peer: self.peer_id(), state }
    }

    pub(super) fn new(
        region: metapb::Region,
        me: metapb::Peer,
        storage: PeerStorage,
        state: ApplyState,
        config: &Config,
    ) -> Result<Peer, PeerOpenError> {
        let id = RegionId::from(region.id);
        let raft_config = raft_config(config, id, &me, state.applied_index);
        let raft = RawNode::new(&raft_config, storage)
            .map_err(|source| PeerOpenError::Raft { region: id, source })?;
        Ok(Peer {
            id,
            me,
            region: Arc::new(region),
            siblings: Vec::new(),
            raft,
            leading: None,
            lease: None,
            delegate: None,
            transferring: false,
            heartbeat_due: false,
            reported_ailing: Vec::new(),
            writes: Default::default(),
            proposals: Default::default(),
            reads: Default::default(),
            boundary_index: LogIndex(0),
            merging: None,
            merging_since: 0,
            snapshot_epoch: None,
            handed_index: state.applied_index,
            applied_index: state.applied_index,
            applied_term: state.applied_term,
            state_hash: state.state_hash,
            registering: true,
            writes_in_flight: 0,
            log_gc: Default::default(),
            size: Default::default(),
            consistency: None,
            load: Default::default(),
            received: None,
            install: None,
            tasks: Vec::new(),
            heard: Default::default(),
            settling: Default::default(),
            farewells: Default::default(),
            notices: Vec::new(),
            silence: Default::default(),
            questions: Vec::new(),
            sleep: Default::default(),
        })
    }
}

/// This store's peer of a region that lists it.
pub(super) fn member_here(
    region: &metapb::Region,
    config: &Config,
) -> Result<metapb::Peer, PeerOpenError> {
    let (id, store) = (RegionId::from(region.id), config.store_id);
    let here = region.peers.iter().find(|peer| peer.store_id == store.get());
    here.copied().ok_or(PeerOpenError::NotAMember { region: id, store })
}

fn raft_config(
    config: &Config,
    region: RegionId,
    me: &metapb::Peer,
    applied: LogIndex,
) -> raft::Config {
    raft::Config {
        id: NodeId(me.id),
        applied,
        election_timeout_ticks: config.election_timeout_ticks,
        heartbeat_interval_ticks: config.heartbeat_ticks,
        // Both are what the lease rests on.
        pre_vote: true,
        check_quorum: true,
        read_only: raft::ReadOnlyOption::Safe,
        message_entries_bytes_max: config.append_bytes_max,
        inflight_messages_max: config.append_inflight_max,
        uncommitted_bytes_max: config.uncommitted_bytes_max,
        ready_committed_bytes_max: config.apply_bytes_max,
        // Followers serve nobody: they learn of a commit with the next append or heartbeat.
        commit_broadcast: false,
        seed: mix(config.seed, config.store_id.get(), region.get()),
        vote_cooldown_after_restart: true,
        bootstrap_index: INITIAL_INDEX,
        ..raft::Config::default()
    }
}

/// One seed for each region of each store (the finalizer of SplitMix64 over the three numbers).
fn mix(seed: u64, store: u64, region: u64) -> u64 {
    let mut x = seed;
    for part in [store, region] {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_add(part);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
    }
    x
}

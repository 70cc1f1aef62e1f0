//! Opening a store: its identity is checked, interrupted installations and destructions are finished, every peer is read
//! back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use engine::{Cf, Engine};
use proto::ids::RegionId;

use super::creation::Births;
use super::destroy::{self, Graves};
use super::ident::{self, IdentError};
use super::log_writes::LogWrites;
use super::merge::Merges;
use super::ticks::TickClock;
use super::{Drain, Store, StoreCounters};
use crate::config::{Config, ConfigError};
use crate::keys::{self, Key, KeyDecodeError};
use crate::peer::records::{ReadError, RegionRecord};
use crate::peer::{Peer, PeerOpenError};
use crate::snapshot::{self, InstallError, SnapshotFiles};
use crate::time::Instant;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data is not this store's.
    #[error(transparent)]
    Ident(#[from] IdentError),
    /// An interrupted installation cannot be finished.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The engine holds something this version did not write.
    #[error(transparent)]
    Key(#[from] KeyDecodeError),
    /// A peer cannot be read back.
    #[error(transparent)]
    Peer(#[from] PeerOpenError),
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> OpenError {
        OpenError::Peer(error.into())
    }
}

impl From<engine::Error> for OpenError {
    fn from(error: engine::Error) -> OpenError {
        ReadError::from(error).into()
    }
}

impl Store {
    /// Opens the store whose data `engine` and `files` hold; the engine has been given to it by [`super::format`]. Its
    /// applier starts empty and learns of every region in the first turn.
    pub fn open(
        config: Config,
        engine: Arc<dyn Engine>,
        files: &dyn SnapshotFiles,
    ) -> Result<Store, OpenError> {
        config.validate()?;
        ident::check(engine.as_ref(), config.cluster_id, config.store_id)?;
        snapshot::finish_pending(&engine, files)?;
        let (mut peers, mut graves) = (BTreeMap::new(), Graves::default());
        for record in region_records(engine.as_ref())? {
            let id = RegionId::from(record.region.id);
            if let Some(record) = destroy::finish(record, engine.as_ref(), &mut graves)? {
                peers.insert(id, Peer::open(record, engine.clone(), &config)?);
            }
        }
        let frozen: Vec<_> =
            peers.iter().filter(|(_, peer)| peer.is_merging()).map(|(id, _)| *id).collect();
        Ok(Store {
            config,
            engine,
            registry: Arc::default(),
            dirty: peers.keys().copied().collect(),
            peers,
            graves,
            births: Births::default(),
            sleepers: Default::default(),
            liveness: Default::default(),
            log_writes: LogWrites::default(),
            records: Default::default(),
            records_held: Vec::new(),
            messages: Vec::new(),
            tasks: Vec::new(),
            discarded: Vec::new(),
            split_requests: Vec::new(),
            split_reports: Vec::new(),
            early: Default::default(),
            merges: Merges::frozen_at_start(frozen),
            clock: TickClock::default(),
            now: Instant::ZERO,
            sending: BTreeSet::new(),
            installing: BTreeSet::new(),
            unreachable: BTreeMap::new(),
            draining: Drain::No,
            poisoned: None,
            counters: StoreCounters::default(),
        })
    }
}

/// The record of every region, in order of their ids.
fn region_records(engine: &dyn Engine) -> Result<Vec<RegionRecord>, OpenError> {
    let snapshot = engine.snapshot();
    let mut iter = snapshot.iter(Cf::Raft, keys::region_state_range());
    let mut found = Vec::new();
    let mut more = iter.seek_to_first()?;
    while more {
        if let Key::RegionState(region) = Key::decode(Cf::Raft, iter.key())? {
            let bytes = Bytes::copy_from_slice(iter.value());
            found.push(RegionRecord::decode(region, bytes).map_err(ReadError::from)?);
        }
        more = iter.next()?;
    }
    Ok(found)
}

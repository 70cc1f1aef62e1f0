//! What a peer keeps on disk beside the applier's records: the stored forms of log entries, hard state and region state.
//!
//! Reading is total: bytes that are no such record are a [`Corruption`] that names the record, never a panic.

use bytes::Bytes;
use engine::{Cf, Engine};
use prost::Message as _;
use proto::flotillapb::{PeerState, RegionLocalState};
use proto::ids::RegionId;
use proto::{eraftpb, metapb};
use raft::{Entry, HardState};

use crate::keys::Key;

/// Something on disk is not what this version writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} of region {region} is damaged: {detail}")]
pub struct Corruption {
    /// Whose record.
    pub region: RegionId,
    /// Which record.
    pub what: &'static str,
    /// What is wrong with it.
    pub detail: String,
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The record is damaged.
    #[error(transparent)]
    Corruption(#[from] Corruption),
}

pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    raft::wire::entry_to_proto(entry.clone()).encode_to_vec().into()
}

pub(crate) fn decode_entry(bytes: Bytes) -> Result<Entry, String> {
    let wire = eraftpb::Entry::decode(bytes).map_err(|e| e.to_string())?;
    raft::wire::entry_from_proto(wire).map_err(|e| e.to_string())
}

pub(crate) fn encode_hard_state(state: &HardState) -> Bytes {
    raft::wire::hard_state_to_proto(*state).encode_to_vec().into()
}

pub(crate) fn encode_region_state(region: &metapb::Region, state: PeerState) -> Bytes {
    let record = RegionLocalState {
        state: state.into(),
        region: Some(region.clone()),
        ..RegionLocalState::default()
    };
    record.encode_to_vec().into()
}

pub(crate) fn read_hard_state(
    engine: &dyn Engine,
    region: RegionId,
) -> Result<Option<HardState>, ReadError> {
    let Some(bytes) = engine.get(Cf::Raft, &Key::HardState(region).encode())? else {
        return Ok(None);
    };
    let wire = eraftpb::HardState::decode(bytes).map_err(|e| Corruption {
        region,
        what: "hard state",
        detail: e.to_string(),
    })?;
    Ok(Some(raft::wire::hard_state_from_proto(wire)))
}

/// The region and its state in the record stored under `region`.
pub(crate) fn decode_region_state(
    region: RegionId,
    bytes: Bytes,
) -> Result<(metapb::Region, PeerState), Corruption> {
    let damaged = |detail: String| Corruption { region, what: "region state", detail };
    let record = RegionLocalState::decode(bytes).map_err(|e| damaged(e.to_string()))?;
    let state = PeerState::try_from(record.state).map_err(|e| damaged(e.to_string()))?;
    match record.region {
        Some(found) if found.id == region.get() => Ok((found, state)),
        Some(found) => Err(damaged(format!("it speaks of region {}", found.id))),
        None => Err(damaged("it names no region".to_owned())),
    }
}

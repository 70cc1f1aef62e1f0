//! What a peer keeps on disk beside the applier's records: the stored forms of log entries, hard state and region state.
//!
//! Reading is total: bytes that are no such record are a [`Corruption`] that names the record, never a panic.

use bytes::Bytes;
use engine::{Cf, Engine};
use prost::Message as _;
use proto::flotillapb::{self, PeerState, RegionLocalState};
use proto::ids::RegionId;
use proto::{eraftpb, metapb};
use raft::{Entry, HardState, LogIndex, Term};

use crate::apply::Merging;
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

/// A region's life on this store, and this store's peer of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RegionRecord {
    pub(crate) region: metapb::Region,
    pub(crate) state: PeerState,
    /// This store's peer; for a tombstone the last one.
    pub(crate) peer: Option<metapb::Peer>,
    /// Present while the state is `Merging`.
    pub(crate) merging: Option<Merging>,
    /// The entry that removed this store's peer, if that was applied.
    pub(crate) removed_at: Option<(LogIndex, Term)>,
    /// The region's epoch when its state last came by a snapshot: all changes since were applied from the log. `None` if all
    /// were.
    pub(crate) snapshot_epoch: Option<metapb::RegionEpoch>,
}

/// Later than any: of a region whose history is not known.
const UNKNOWN_HISTORY: metapb::RegionEpoch =
    metapb::RegionEpoch { conf_ver: u64::MAX, version: u64::MAX };

impl RegionRecord {
    /// A region that serves, or would.
    pub(crate) fn normal(region: metapb::Region, peer: Option<metapb::Peer>) -> RegionRecord {
        RegionRecord {
            region,
            state: PeerState::Normal,
            peer,
            merging: None,
            removed_at: None,
            snapshot_epoch: None,
        }
    }

    /// A destroyed peer.
    pub(crate) fn tombstone(
        region: metapb::Region,
        peer: Option<metapb::Peer>,
        removed_at: Option<(LogIndex, Term)>,
    ) -> RegionRecord {
        RegionRecord {
            state: PeerState::Tombstone,
            removed_at,
            snapshot_epoch: Some(UNKNOWN_HISTORY),
            ..RegionRecord::normal(region, peer)
        }
    }

    /// Whether this store has seen the region pass on from `epoch`, change by change, from its log.
    pub(crate) fn has_passed(&self, epoch: metapb::RegionEpoch) -> bool {
        has_passed(&self.region, self.snapshot_epoch, epoch)
    }

    /// Whether the peer waits for its first snapshot.
    pub(crate) fn is_uninitialized(&self) -> bool {
        self.region.peers.is_empty()
    }

    pub(crate) fn encode(&self) -> Bytes {
        self.to_wire().encode_to_vec().into()
    }

    pub(crate) fn to_wire(&self) -> RegionLocalState {
        let merging = self.merging.as_ref().map(|merging| flotillapb::Merging {
            target: Some(merging.target.clone()),
            index: merging.index.0,
            term: merging.term.0,
        });
        let (removed_index, removed_term) = self.removed_at.unwrap_or_default();
        RegionLocalState {
            state: self.state.into(),
            region: Some(self.region.clone()),
            peer: self.peer,
            merging,
            removed_index: removed_index.0,
            removed_term: removed_term.0,
            snapshot_epoch: self.snapshot_epoch,
        }
    }

    /// The record stored under `region`.
    pub(crate) fn decode(region: RegionId, bytes: Bytes) -> Result<RegionRecord, Corruption> {
        let damaged = |detail: String| Corruption { region, what: "region state", detail };
        let record = RegionLocalState::decode(bytes).map_err(|e| damaged(e.to_string()))?;
        let state = PeerState::try_from(record.state).map_err(|e| damaged(e.to_string()))?;
        let found = record.region.ok_or_else(|| damaged("it names no region".to_owned()))?;
        if found.id != region.get() {
            return Err(damaged(format!("it speaks of region {}", found.id)));
        }
        let merging = match (record.merging, state) {
            (Some(flotillapb::Merging { target: Some(target), index, term }), _) => {
                Some(Merging { target, index: LogIndex(index), term: Term(term) })
            }
            (_, PeerState::Merging) => return Err(damaged("it merges with nobody".to_owned())),
            _ => None,
        };
        let removed_at = (LogIndex(record.removed_index), Term(record.removed_term));
        let removed_at = (removed_at.0 != LogIndex(0)).then_some(removed_at);
        let (peer, snapshot_epoch) = (record.peer, record.snapshot_epoch);
        Ok(RegionRecord { region: found, state, peer, merging, removed_at, snapshot_epoch })
    }

    /// The record of `region`, if there is one.
    pub(crate) fn read(
        engine: &dyn engine::Snapshot,
        region: RegionId,
    ) -> Result<Option<RegionRecord>, ReadError> {
        let stored = engine.get(Cf::Raft, &Key::RegionState(region).encode())?;
        Ok(stored.map(|bytes| RegionRecord::decode(region, bytes)).transpose()?)
    }
}

/// Whether `epoch` is past `other`. Both numbers only grow, so one that is behind in either has not been there yet.
pub(crate) fn is_past(epoch: metapb::RegionEpoch, other: metapb::RegionEpoch) -> bool {
    epoch.version > other.version || epoch.conf_ver > other.conf_ver
}

/// Whether `region`, whose state last came by a snapshot at `since`, is past `epoch`, and became so by what was applied from
/// its log here.
pub(crate) fn has_passed(
    region: &metapb::Region,
    since: Option<metapb::RegionEpoch>,
    epoch: metapb::RegionEpoch,
) -> bool {
    let since = since.unwrap_or_default();
    // A peer that waits for its first snapshot has only been told an epoch.
    !region.peers.is_empty()
        && is_past(region.region_epoch.unwrap_or_default(), epoch)
        && since.version <= epoch.version
        && since.conf_ver <= epoch.conf_ver
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_record_survives_a_round_trip_and_names_what_is_wrong() {
        let region = metapb::Region { id: 7, end_key: "m".into(), ..Default::default() };
        let peer = Some(metapb::Peer { id: 3, store_id: 1, ..Default::default() });
        let tombstone = RegionRecord::tombstone(region.clone(), peer, Some((LogIndex(9), Term(6))));
        for record in [RegionRecord::normal(region, peer), tombstone] {
            assert_eq!(RegionRecord::decode(7.into(), record.encode()), Ok(record.clone()));
            let foreign = RegionRecord::decode(8.into(), record.encode()).unwrap_err();
            assert_eq!(foreign.detail, "it speaks of region 7");
        }
    }

    #[test]
    fn only_what_came_by_the_log_is_known_to_have_passed() {
        let epoch = |conf_ver, version| metapb::RegionEpoch { conf_ver, version };
        let at = |now, since| {
            let peers = vec![metapb::Peer { id: 3, store_id: 1, ..Default::default() }];
            let region =
                metapb::Region { id: 7, region_epoch: Some(now), peers, ..Default::default() };
            RegionRecord { snapshot_epoch: since, ..RegionRecord::normal(region, None) }
        };
        let expected = epoch(3, 5);
        assert!(!at(expected, None).has_passed(expected), "it is there");
        assert!(!at(epoch(3, 4), None).has_passed(expected), "it has not got there");
        assert!(!at(epoch(2, 5), None).has_passed(expected), "it has not got there");
        assert!(at(epoch(3, 6), None).has_passed(expected));
        assert!(at(epoch(4, 5), Some(expected)).has_passed(expected));
        assert!(
            !at(epoch(3, 9), Some(epoch(3, 6))).has_passed(expected),
            "it came from a snapshot"
        );
        assert!(
            !at(epoch(5, 5), Some(epoch(4, 5))).has_passed(expected),
            "it came from a snapshot"
        );
        let told = RegionRecord { region: metapb::Region::default(), ..at(epoch(9, 9), None) };
        assert!(!told.has_passed(expected), "an epoch it was told");
        let region = at(epoch(9, 9), None).region;
        assert!(!RegionRecord::tombstone(region, None, None).has_passed(expected));
    }
}

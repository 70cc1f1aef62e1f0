//! How a region's records come to be on a store, and how they go.
//!
//! # Creation
//! A peer that was created by a first message is recorded before it does anything: its ids and the generation it was told,
//! no peers, no data. The stored record decides, because a split that is being applied may have created the region meanwhile,
//! and a tombstone stands in the way for ever.
//!
//! # Destruction
//! One batch: the region's data, sessions and apply state go, the tombstone takes the place of its record. It comes after
//! everything the region was handed before (M8) and deletes the range that the region has *now*, which may be smaller than
//! what the store loop knows (M7). Log and hard state are the store loop's: deleted once it has heard of the tombstone, or
//! when the store opens and finds them beside one.

use engine::{Cf, WriteBatch};
use proto::flotillapb::PeerState;
use proto::ids::RegionId;
use proto::metapb;
use raft::{LogIndex, Term};

use super::ApplyError;
use super::applier::Applier;
use super::task::{ApplyResult, Effect};
use crate::keys::{self, Key};
use crate::peer::records::RegionRecord;
use crate::planted::{Bug, planted};

/// Adds to `batch` what makes a destroyed peer of an initialised, or never initialised, one. `tombstone` holds its region as
/// it was last.
pub(crate) fn bury(tombstone: &RegionRecord, batch: &mut WriteBatch) {
    assert_eq!(tombstone.state, PeerState::Tombstone, "only the dead are buried");
    let region = &tombstone.region;
    let id = RegionId::from(region.id);
    let sessions = (Cf::Raft, keys::session_range(id));
    // A peer that was never initialised owns no keys, whatever range it was told (M7).
    let owned = if tombstone.is_uninitialized() { Vec::new() } else { data_ranges(region) };
    for (cf, range) in std::iter::once(sessions).chain(owned) {
        batch.delete_range(cf, range.lower, range.upper.unwrap_or_default());
    }
    batch.delete(Cf::Raft, Key::ApplyState(id).encode());
    batch.put(Cf::Raft, Key::RegionState(id).encode(), tombstone.encode());
}

/// The seam of the planted bug that deletes beyond the region's end.
fn data_ranges(region: &metapb::Region) -> Vec<(Cf, engine::KeyRange)> {
    if planted(Bug::DestroyClearsNeighbour) {
        let end_key = bytes::Bytes::new();
        return keys::data_ranges(&metapb::Region { end_key, ..region.clone() });
    }
    keys::data_ranges(region)
}

impl Applier {
    /// The record of a region, with everything executed so far in it.
    fn stored_record(&self, region: RegionId) -> Result<Option<RegionRecord>, ApplyError> {
        Ok(RegionRecord::read(self.engine.snapshot().as_ref(), region)?)
    }

    /// Records a peer that a first message asks for, unless something stands in its way.
    pub(super) fn create(
        &mut self,
        region: metapb::Region,
        peer: metapb::Peer,
    ) -> Result<ApplyResult, ApplyError> {
        self.flush()?;
        assert!(region.peers.is_empty(), "a peer is created without knowing its region");
        let id = RegionId::from(region.id);
        let free = match self.stored_record(id)? {
            None => true,
            Some(found) => {
                found.state == PeerState::Tombstone
                    && (found.peer.is_some_and(|last| last.id < peer.id)
                        || planted(Bug::TombstoneIgnored))
            }
        };
        if free {
            let mut batch = WriteBatch::new();
            let record = RegionRecord::normal(region, Some(peer));
            batch.put(Cf::Raft, Key::RegionState(id).encode(), record.encode());
            self.engine.write(&batch)?;
        }
        Ok(ApplyResult::of_life(id, Effect::Created { peer, created: free }))
    }

    /// Destroys the peer `peer` of a region; what the store loop knows of the region counts only if the applier knows
    /// nothing.
    pub(super) fn destroy(
        &mut self,
        region: metapb::Region,
        peer: metapb::Peer,
        told: Option<(LogIndex, Term)>,
    ) -> Result<ApplyResult, ApplyError> {
        if !planted(Bug::DestroyBeforeApplied) {
            self.flush()?;
        }
        let id = RegionId::from(region.id);
        let applied = self.regions.remove(&id);
        let stored = self.stored_record(id)?;
        if let Some(found) = stored.filter(|found| found.state == PeerState::Tombstone) {
            // Merged away, or destroyed by an earlier order.
            let (peer, removed_at) = (found.peer.unwrap_or(peer), found.removed_at);
            return Ok(ApplyResult::of_life(id, Effect::Destroyed { peer, removed_at }));
        }
        let (region, removed_at) = match applied {
            Some(apply) => (apply.region().clone(), apply.removed_at().or(told)),
            None => (region, told),
        };
        let mut batch = WriteBatch::new();
        bury(&RegionRecord::tombstone(region, Some(peer), removed_at), &mut batch);
        self.engine.write(&batch)?;
        Ok(ApplyResult::of_life(id, Effect::Destroyed { peer, removed_at }))
    }
}

//! I10 and I11 (Raft thesis §5.1, §6.3): the data of a region is what the entries up to the applied index say, each executed
//! once, whether it came by log, by snapshot, by a split, a merge, or out of a crash. Its description is, too (I8).
//!
//! What is on a store is compared with the [`World`] at the index that is recorded beside it.

use super::Broken;
use crate::sim::model::{World, digest_of};
use engine::{Cf, Engine};
use prost::Message;
use proto::flotillapb::{PeerState, RegionLocalState};
use proto::ids::RegionId;
use raftstore::apply::ApplyState;
use raftstore::keys::Key;

/// Compares a region in `engine` with the model at the applied index recorded beside it. A region that is not there, or
/// only half, is not compared.
pub fn compare(
    world: &World,
    store: usize,
    region: u64,
    engine: &dyn Engine,
) -> Result<(), Broken> {
    let snapshot = engine.snapshot();
    let id = RegionId::from(region);
    let get = |key: Key| snapshot.get(Cf::Raft, &key.encode()).ok().flatten();
    let Some(state) = get(Key::ApplyState(id)).as_deref().and_then(ApplyState::decode) else {
        return Ok(());
    };
    if get(Key::PendingSnapshot(id)).is_some() {
        // Half installed; the store must finish that before it does anything with the data.
        return Ok(());
    }
    let local = get(Key::RegionState(id)).and_then(|bytes| RegionLocalState::decode(bytes).ok());
    let Some(local) = local else { return Ok(()) };
    let described = local.region.clone().unwrap_or_default();
    if local.state() == PeerState::Tombstone || described.peers.is_empty() {
        return Ok(());
    }
    let index = state.applied_index.0;
    let Some(point) = world.region(region).and_then(|model| model.at(index)) else {
        let what = format!(
            "store {} claims to have applied {index} of region {region}, which nobody has",
            store + 1,
        );
        return Err(Broken::new("I10 exactly once", what));
    };
    if *point.region != described {
        let what = format!(
            "store {} describes region {region} at {index} as {described:?}; its entries say {:?}",
            store + 1,
            point.region
        );
        return Err(Broken::new("I8 region as its log says", what));
    }
    if digest_of(snapshot.as_ref(), &point.region) == point.digest {
        return Ok(());
    }
    let what = format!(
        "the data of region {region} on store {} is not what its entries up to {index} say",
        store + 1,
    );
    Err(Broken::new("I10 exactly once / I11 snapshot equals state", what))
}

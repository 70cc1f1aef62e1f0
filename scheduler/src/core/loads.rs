//! What each store carries, kept up to date region by region, so that nobody has to count.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{RegionId, StoreId};

use super::regions::RegionInfo;

/// What a region weighs beyond its data: so that regions count, not only bytes.
pub(super) const REGION_WEIGHT: u64 = 1 << 20;

/// What one store carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoreLoad {
    /// Regions with a peer there.
    pub(super) regions: BTreeSet<RegionId>,
    /// Those of them whose leader is there.
    pub(super) led: BTreeSet<RegionId>,
    /// Estimated bytes of the former.
    pub(super) region_bytes: u64,
    /// Estimated bytes of the latter.
    pub(super) leader_bytes: u64,
    /// Peers that lag too far behind to count.
    pub(super) pending: u64,
    /// Bytes per second that clients read and write at its leaders.
    pub(super) flow: u64,
}

impl StoreLoad {
    /// What balancing compares.
    pub(super) fn weight(&self) -> u64 {
        self.region_bytes + self.regions.len() as u64 * REGION_WEIGHT
    }
}

/// What every store carries.
#[derive(Debug, Default)]
pub(super) struct Loads {
    by_store: BTreeMap<StoreId, StoreLoad>,
}

impl Loads {
    pub(super) fn of(&self, store: StoreId) -> Option<&StoreLoad> {
        self.by_store.get(&store)
    }

    pub(super) fn add(&mut self, info: &RegionInfo) {
        let id = info.id();
        for peer in &info.meta.peers {
            let load = self.by_store.entry(peer.store_id.into()).or_default();
            if load.regions.insert(id) {
                load.region_bytes += info.approximate_size;
            }
        }
        for peer in &info.pending_peers {
            self.by_store.entry(peer.store_id.into()).or_default().pending += 1;
        }
        if let Some(leader) = &info.leader {
            let load = self.by_store.entry(leader.store_id.into()).or_default();
            load.led.insert(id);
            load.leader_bytes += info.approximate_size;
            load.flow += info.flow.bytes();
        }
    }

    /// Takes out what [`Self::add`] put in.
    pub(super) fn remove(&mut self, info: &RegionInfo) {
        let id = info.id();
        for peer in &info.meta.peers {
            let Some(load) = self.by_store.get_mut(&peer.store_id.into()) else { continue };
            if load.regions.remove(&id) {
                load.region_bytes -= info.approximate_size;
            }
        }
        for peer in &info.pending_peers {
            if let Some(load) = self.by_store.get_mut(&peer.store_id.into()) {
                load.pending -= 1;
            }
        }
        let leader = info.leader.as_ref().map(|leader| StoreId::new(leader.store_id));
        if let Some(load) = leader.and_then(|store| self.by_store.get_mut(&store)) {
            load.led.remove(&id);
            load.leader_bytes -= info.approximate_size;
            load.flow -= info.flow.bytes();
        }
    }
}

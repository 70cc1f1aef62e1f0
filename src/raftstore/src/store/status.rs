//! What a store tells about itself.

use std::collections::BTreeMap;

use proto::ids::{RegionId, StoreId};

use super::{DropReason, Store};
use crate::peer::RegionStatus;

/// What has happened since the store was opened. Only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Ticks counted.
    pub ticks: u64,
    /// Ticks that came too early and were not.
    pub ticks_early: u64,
    /// Raft messages received.
    pub messages_received: u64,
    /// Raft messages received and dropped.
    pub messages_dropped: BTreeMap<DropReason, u64>,
    /// Raft messages given to the transport, without snapshots.
    pub messages_sent: u64,
    /// Log writes begun.
    pub log_writes: u64,
    /// Their bytes.
    pub log_write_bytes: u64,
    /// Snapshots given to the sender.
    pub snapshots_sent: u64,
    /// Snapshots given to the installer.
    pub snapshots_installed: u64,
    /// Sleeping peers woken.
    pub wakes: u64,
    /// Regions divided, as applied here.
    pub splits: u64,
    /// Regions that took a neighbour over, as applied here.
    pub merges: u64,
    /// Changes of a membership, as applied here.
    pub conf_changes: u64,
    /// Peers that came to be here, by a first message or by a split.
    pub peers_created: u64,
    /// Peers of this store that ended, by removal or by merge.
    pub peers_destroyed: u64,
}

/// A store's state, for operators and tests.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreStatus {
    /// The cluster.
    pub cluster_id: u64,
    /// The store.
    pub store_id: StoreId,
    /// Its regions, by id.
    pub regions: Vec<RegionStatus>,
    /// Peers that sleep.
    pub asleep: usize,
    /// Log writes under way.
    pub log_writes_in_flight: usize,
    /// Snapshots being sent.
    pub snapshots_sending: usize,
    /// Snapshots being installed.
    pub snapshots_installing: usize,
    /// What has happened so far.
    pub counters: StoreCounters,
    /// Why it has stopped serving, if it has.
    pub poisoned: Option<String>,
}

impl Store {
    /// How many peers sleep.
    pub fn sleepers(&self) -> usize {
        self.sleepers.asleep_count()
    }

    /// The regions led here.
    pub fn led_regions(&self) -> impl Iterator<Item = RegionId> {
        self.peers.iter().filter(|(_, peer)| peer.is_leader()).map(|(id, _)| *id)
    }

    /// One region's state, if it has a peer here.
    pub fn region_status(&self, region: RegionId) -> Option<RegionStatus> {
        self.peers.get(&region).map(|peer| peer.status())
    }

    /// The store's state.
    pub fn status(&self) -> StoreStatus {
        StoreStatus {
            cluster_id: self.config.cluster_id,
            store_id: self.config.store_id,
            regions: self.peers.values().map(|peer| peer.status()).collect(),
            asleep: self.sleepers.asleep_count(),
            log_writes_in_flight: self.log_writes.in_flight(),
            snapshots_sending: self.sending.len(),
            snapshots_installing: self.installing.len(),
            counters: self.counters.clone(),
            poisoned: self.poisoned.clone(),
        }
    }
}

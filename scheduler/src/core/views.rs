//! What people see of regions and stores.

use proto::flotillapb::{DrainBlocker, RegionView, StoreView};
use proto::ids::{PeerId, RegionId};

use super::Scheduler;
use super::checkers::Blocked;
use super::operator::Kind;
use super::regions::RegionInfo;
use super::stores::StoreInfo;

/// Regions of one store whose obstacles are told.
const BLOCKERS: usize = 32;

impl Scheduler {
    pub(super) fn region_view(&self, info: &RegionInfo, now_ms: u64) -> RegionView {
        let operator = self.agenda.operators.of_region(info.id());
        RegionView {
            region: Some(info.meta.clone()),
            leader: info.leader,
            down_peers: info.down_peers.clone(),
            pending_peers: info.pending_peers.clone(),
            approximate_bytes: info.approximate_size,
            approximate_keys: info.approximate_keys,
            write_bytes_rate: info.flow.write_bytes,
            read_bytes_rate: info.flow.read_bytes,
            write_ops_rate: info.flow.write_keys,
            read_ops_rate: info.flow.read_keys,
            term: info.term,
            heard_ms_ago: info.silent_ms(now_ms).unwrap_or_default(),
            operator: operator.map(|operator| operator.show(now_ms)),
        }
    }

    pub(super) fn store_view(&self, store: &StoreInfo, now_ms: u64) -> StoreView {
        let id = store.id();
        let load = self.regions.load(id).cloned().unwrap_or_default();
        let mut view = StoreView {
            store: Some(store.meta.clone()),
            leader_count: load.led.len() as u64,
            region_count: load.regions.len() as u64,
            region_bytes: load.region_bytes,
            leader_bytes: load.leader_bytes,
            pending_peer_count: load.pending,
            stats: store.stats,
            heard_ms_ago: store.silent_ms(now_ms),
            ..StoreView::default()
        };
        view.set_life(store.life(&self.settings, now_ms));
        if store.is_leaving() && !store.is_tombstone() {
            view.drain_peers_left = view.region_count;
            let total = self.agenda.drains.get(&id).copied().unwrap_or_default();
            view.drain_peers_total = total.max(view.region_count);
            view.blockers = self.blockers(load.regions.iter().copied(), now_ms);
        }
        view
    }

    /// Why regions do not get away from a store that is being emptied.
    fn blockers(&self, regions: impl Iterator<Item = RegionId>, now_ms: u64) -> Vec<DrainBlocker> {
        let view = self.view(now_ms);
        let full = view.operators.count(Kind::Replica) >= self.settings.replica_schedule_limit;
        let blocked = |region: RegionId| {
            let info = self.regions.by_id(region)?;
            if self.agenda.operators.of_region(region).is_some() {
                return None;
            }
            let mut any = || Some(PeerId::new(u64::MAX));
            let reason = match view.check(info, &mut any) {
                Err(Blocked(reason)) => reason,
                Ok(Some(_)) if full => "waiting for limits".into(),
                Ok(_) => return None,
            };
            Some(DrainBlocker { region_id: region.get(), reason })
        };
        regions.filter_map(blocked).take(BLOCKERS).collect()
    }
}

//! Regions that are too large are cut, regions that are too small are taken over by a neighbour.

use proto::metapb::PeerRole;

use super::bootstrap::sentinel;
use super::builder::{self, Goal};
use super::checkers::Fresh;
use super::operator::{Kind, Plan};
use super::placement::{View, stores_of};
use super::regions::RegionInfo;
use super::step::Step;

/// Two regions with more reads and writes of keys per second than this are left apart: a store may have
/// cut them for their load.
const MERGED_KEYS_PER_S_MAX: u64 = 5000;
/// A region whose range is younger than this is not cut by an operator.
const SPLIT_PAUSE_MS: u64 = 60_000;

impl View<'_> {
    /// A region that grew beyond its bounds although its store should have cut it.
    pub(super) fn check_large(&self, info: &RegionInfo) -> Option<Plan> {
        let large = info.approximate_size > self.settings.region_max_bytes;
        // Estimates lag behind a split; and a region whose data cannot be cut is not asked all the time.
        let settled = self.now_ms.saturating_sub(info.range_since_ms) >= SPLIT_PAUSE_MS;
        let plan = Plan {
            region: info.id(),
            partner: None,
            kind: Kind::Split,
            origin: "split-large",
            description: format!("split: {} bytes", info.approximate_size),
            steps: vec![Step::Split { keys: Vec::new(), version: info.epoch().version }],
        };
        (large && settled && self.is_healthy(info)).then_some(plan)
    }

    /// A region small enough to be taken over by one of its neighbours, with the moves that bring its
    /// peers to the same stores first.
    pub(super) fn check_small(&self, info: &RegionInfo, fresh: Fresh<'_>) -> Option<Plan> {
        let settings = self.settings;
        if info.approximate_size > settings.merge_max_bytes
            || info.approximate_keys > settings.merge_max_keys
            || self.operators.count(Kind::Merge) >= settings.merge_schedule_limit
            || !self.may_merge(info)
        {
            return None;
        }
        let held = stores_of(&info.meta);
        let neighbours = self.tree.neighbours(info).into_iter().flatten();
        let targets = neighbours.filter(|target| {
            let together = target.approximate_size + info.approximate_size;
            let keys = target.approximate_keys + info.approximate_keys;
            // What comes together must not be cut again at once, for its size or for its load.
            join(info, target).is_ok()
                && self.may_merge(target)
                && together <= settings.region_max_bytes / 4
                && keys <= settings.merge_max_keys.saturating_mul(4)
                && target.flow.keys() + info.flow.keys() <= MERGED_KEYS_PER_S_MAX
        });
        // The same stores first, then the smaller one.
        let rank = |target: &&RegionInfo| {
            (stores_of(&target.meta) != held, target.approximate_size, target.id())
        };
        let target = targets.min_by_key(rank)?;
        self.merge_plan(info, target, Kind::Merge, "merge-small", fresh)
    }

    fn may_merge(&self, info: &RegionInfo) -> bool {
        let settled_ms = self.now_ms.saturating_sub(info.range_since_ms);
        settled_ms >= self.settings.split_merge_interval_ms
            && self.is_healthy(info)
            && info.meta.peers.len() == self.wanted()
            && self.operators.of_region(info.id()).is_none()
    }

    /// All peers are voters that are heard of and follow, and somebody leads.
    pub(super) fn is_healthy(&self, info: &RegionInfo) -> bool {
        info.leader.is_some()
            && info.down_peers.is_empty()
            && info.pending_peers.is_empty()
            && info.meta.peers.iter().all(|peer| peer.role() == PeerRole::Voter)
            && !info.meta.peers.iter().any(|peer| self.is_dead(peer.store_id.into()))
    }

    /// The steps that bring one region's peers to where the other's are, and then merge it.
    pub(super) fn merge_plan(
        &self,
        source: &RegionInfo,
        target: &RegionInfo,
        kind: Kind,
        origin: &'static str,
        fresh: Fresh<'_>,
    ) -> Option<Plan> {
        let goal = Goal { stores: stores_of(&target.meta), leader: None };
        let mut steps = builder::steps(source, &goal, fresh)?;
        let moved: Vec<_> = goal.stores.difference(&stores_of(&source.meta)).copied().collect();
        if kind != Kind::Admin && moved.iter().any(|&store| self.fit(store, true).is_err()) {
            return None;
        }
        steps.push(Step::Merge { target: target.id() });
        Some(Plan {
            region: source.id(),
            partner: Some(target.id()),
            kind,
            origin,
            description: format!("merge region {} into region {}", source.id(), target.id()),
            steps,
        })
    }
}

/// Whether two regions may become one at all; or why not.
pub(super) fn join(source: &RegionInfo, target: &RegionInfo) -> Result<(), String> {
    let (source, target) = (&source.meta, &target.meta);
    let boundary = if source.end_key == target.start_key && !source.end_key.is_empty() {
        &source.end_key
    } else if target.end_key == source.start_key && !target.end_key.is_empty() {
        &target.end_key
    } else {
        return Err(format!("regions {} and {} are not neighbours", source.id, target.id));
    };
    if *boundary == sentinel() {
        return Err(format!(
            "regions {} and {} are kept apart: the boundary between them ends every scan",
            source.id, target.id
        ));
    }
    Ok(())
}

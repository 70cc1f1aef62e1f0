//! The operators that run, at most one per region, and the last of those that ended.
//!
//! They live in memory only. A new scheduler begins without any: what an abandoned one left half done is
//! a state of its region, and the checkers go on from there.

use std::collections::{BTreeMap, VecDeque};

use proto::flotillapb::{self, OperatorState};
use proto::ids::{RegionId, StoreId};
use proto::pdpb;

use super::operator::{Influence, Kind, Operator, Plan, Progress};
use super::regions::RegionTree;

/// Ended operators that are kept.
const HISTORY: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Operators {
    running: BTreeMap<u64, Operator>,
    by_region: BTreeMap<RegionId, u64>,
    ended: VecDeque<(u64, Operator)>,
    /// How many were made, by origin.
    made: BTreeMap<&'static str, u64>,
}

impl Operators {
    pub(super) fn of_region(&self, region: RegionId) -> Option<&Operator> {
        self.running.get(self.by_region.get(&region)?)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Operator> {
        self.running.values()
    }

    /// Those that ended, newest first, with the time of their end.
    pub(super) fn ended(&self) -> impl Iterator<Item = &(u64, Operator)> {
        self.ended.iter().rev()
    }

    pub(super) fn count(&self, kind: Kind) -> u64 {
        self.running().filter(|operator| operator.plan.kind == kind).count() as u64
    }

    pub(super) fn count_by_origin(&self, origin: &str) -> u64 {
        self.running().filter(|operator| operator.plan.origin == origin).count() as u64
    }

    pub(super) fn made(&self, origin: &str) -> u64 {
        self.made.get(origin).copied().unwrap_or(0)
    }

    /// Operators for which a peer still comes to or goes from this store.
    pub(super) fn count_on(&self, store: StoreId) -> u64 {
        self.running().filter(|operator| operator.stores_moved().contains(&store)).count() as u64
    }

    /// What is under way for each store.
    pub(super) fn influence(&self, tree: &RegionTree) -> BTreeMap<StoreId, Influence> {
        let mut sums: BTreeMap<StoreId, Influence> = BTreeMap::new();
        for operator in self.running() {
            let Some(info) = tree.by_id(operator.plan.region) else { continue };
            operator.influence(info, |store, more| {
                let sum = sums.entry(store).or_default();
                sum.regions += more.regions;
                sum.weight += more.weight;
                sum.leaders += more.leaders;
                sum.flow += more.flow;
            });
        }
        sums
    }

    /// Begins a plan; false if one of its regions has an operator that does not give way.
    pub(super) fn begin(&mut self, id: u64, plan: Plan, tree: &RegionTree, now_ms: u64) -> bool {
        let Some(origin) = tree.by_id(plan.region).cloned() else { return false };
        let regions: Vec<RegionId> =
            [Some(plan.region), plan.partner].into_iter().flatten().collect();
        let holders: Vec<u64> =
            regions.iter().filter_map(|region| self.by_region.get(region)).copied().collect();
        if holders.iter().any(|holder| self.running[holder].plan.kind >= plan.kind) {
            return false;
        }
        for holder in holders {
            let reason = format!("gives way to operator {id}");
            self.end(holder, OperatorState::Cancelled, reason, now_ms);
        }
        *self.made.entry(plan.origin).or_default() += 1;
        for region in regions {
            self.by_region.insert(region, id);
        }
        self.running.insert(id, Operator::new(id, plan, origin, now_ms));
        true
    }

    /// Ends an operator.
    pub(super) fn end(&mut self, id: u64, state: OperatorState, reason: String, now_ms: u64) {
        let Some(mut operator) = self.running.remove(&id) else { return };
        for region in operator.regions() {
            self.by_region.remove(&region);
        }
        (operator.state, operator.reason) = (state, reason);
        if self.ended.len() == HISTORY {
            self.ended.pop_front();
        }
        self.ended.push_back((now_ms, operator));
    }

    /// Looks at the operator of a region; what to tell its leader.
    pub(super) fn advance(
        &mut self,
        region: RegionId,
        tree: &RegionTree,
        now_ms: u64,
    ) -> Option<pdpb::RegionHeartbeatResponse> {
        let id = *self.by_region.get(&region)?;
        let operator = self.running.get_mut(&id)?;
        // The target of a merge is looked at as well; its leader is told nothing.
        let tell = operator.plan.region == region;
        match operator.progress(tree, tell, now_ms) {
            Progress::Running(told) => told.map(|told| *told),
            Progress::Ended(state, reason) => {
                self.end(id, state, reason, now_ms);
                None
            }
        }
    }

    /// Looks at all of them; `lost` says why a store cannot be waited for.
    pub(super) fn advance_all(
        &mut self,
        tree: &RegionTree,
        lost: impl Fn(StoreId) -> Option<String>,
        now_ms: u64,
    ) -> Vec<pdpb::RegionHeartbeatResponse> {
        let ids: Vec<(u64, RegionId)> =
            self.running().map(|operator| (operator.id, operator.plan.region)).collect();
        let mut told = Vec::new();
        for (id, region) in ids {
            let needs = self.running[&id].needs();
            if let Some(reason) = needs.into_iter().find_map(&lost) {
                self.end(id, OperatorState::Cancelled, reason, now_ms);
            } else {
                told.extend(self.advance(region, tree, now_ms));
            }
        }
        told
    }

    /// As messages: those that run, or those that ended, newest first.
    pub(super) fn show(
        &self,
        history: bool,
        limit: usize,
        now_ms: u64,
    ) -> Vec<flotillapb::Operator> {
        if history {
            return self
                .ended()
                .take(limit)
                .map(|(ended_ms, operator)| operator.show(*ended_ms))
                .collect();
        }
        self.running().take(limit).map(|operator| operator.show(now_ms)).collect()
    }
}

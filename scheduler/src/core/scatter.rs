//! Spreads the peers and leaders of a set of regions evenly over the stores, as counted within the set.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::StoreId;
use proto::metapb::PeerRole;

use super::builder::{self, Goal};
use super::checkers::Fresh;
use super::operator::{Kind, Plan};
use super::placement::{View, stores_of};
use super::regions::RegionInfo;
use super::step::is_joint;

impl View<'_> {
    /// One plan for each region that should change; `set` are regions with a leader.
    pub(super) fn scatter(&self, set: &[&RegionInfo], fresh: Fresh<'_>) -> Vec<Plan> {
        let mut peers: BTreeMap<StoreId, i64> = BTreeMap::new();
        for store in self.stores.iter().filter(|store| self.fit(store.id(), false).is_ok()) {
            peers.insert(store.id(), 0);
        }
        for store in set.iter().flat_map(|info| stores_of(&info.meta)) {
            *peers.entry(store).or_default() += 1;
        }
        let mut leaders: BTreeMap<StoreId, i64> = peers.keys().map(|&store| (store, 0)).collect();
        let mut goals: Vec<Goal> =
            set.iter().map(|info| self.scattered(info, &mut peers, &mut leaders)).collect();
        while self.even_out(&mut goals, &mut leaders) {}
        let mut plans = Vec::new();
        for (info, goal) in set.iter().zip(goals) {
            let steps = builder::steps(info, &goal, fresh).unwrap_or_default();
            if steps.is_empty() {
                continue;
            }
            plans.push(Plan {
                region: info.id(),
                partner: None,
                kind: Kind::Admin,
                origin: "scatter",
                description: format!("scatter to stores {}", show(&goal.stores)),
                steps,
            });
        }
        plans
    }

    fn scattered(
        &self,
        info: &RegionInfo,
        peers: &mut BTreeMap<StoreId, i64>,
        leaders: &mut BTreeMap<StoreId, i64>,
    ) -> Goal {
        let mut goal = Goal::of(info);
        let settled =
            !is_joint(info) && info.meta.peers.iter().all(|peer| peer.role() == PeerRole::Voter);
        if settled {
            let most = goal.stores.iter().copied().max_by_key(|store| (peers[store], *store));
            let least = peers
                .keys()
                .copied()
                .filter(|&store| most.is_some_and(|from| self.may_replace(info, from, store)))
                .min_by_key(|store| (peers[store], *store));
            if let (Some(from), Some(to)) = (most, least)
                && peers[&from] - peers[&to] >= 2
            {
                *peers.entry(from).or_default() -= 1;
                *peers.entry(to).or_default() += 1;
                goal = goal.without(from).with(to);
            }
        }
        let leader = goal.stores.iter().copied().filter(|&store| self.fit(store, false).is_ok());
        goal.leader = leader.min_by_key(|store| (leaders[store], *store));
        if let Some(leads) = goal.leader {
            *leaders.entry(leads).or_default() += 1;
        }
        goal
    }

    /// Gives one region a leader on a store that leads two fewer; false if there is none such.
    fn even_out(&self, goals: &mut [Goal], leaders: &mut BTreeMap<StoreId, i64>) -> bool {
        for goal in goals {
            let Some(from) = goal.leader else { continue };
            let Some(&to) = goal
                .stores
                .iter()
                .filter(|store| self.fit(**store, false).is_ok())
                .min_by_key(|store| (leaders[store], **store))
            else {
                continue;
            };
            if leaders[&from] - leaders[&to] >= 2 {
                *leaders.entry(from).or_default() -= 1;
                *leaders.entry(to).or_default() += 1;
                goal.leader = Some(to);
                return true;
            }
        }
        false
    }
}

fn show(stores: &BTreeSet<StoreId>) -> String {
    stores.iter().map(StoreId::to_string).collect::<Vec<_>>().join(", ")
}

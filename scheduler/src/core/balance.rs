//! Even loads: leaders by number, peers by number and size, hot leaders by what clients do.
//!
//! **No ping-pong.** A move is made only if it strictly lowers the sum of squares of what it balances, by
//! more than an estimate may be off, and with what is under way counted in. Hot leaders are exchanged for
//! cold ones, so that their number stays even and the balancers do not undo each other's work.
//!
//! Candidates on one store are a bounded number of regions from a place that moves on, not all of them.

use std::collections::BTreeMap;

use proto::flotillapb::StoreLife;
use proto::ids::{RegionId, StoreId};

use super::builder::{self, Goal};
use super::checkers::Fresh;
use super::loads::REGION_WEIGHT;
use super::operator::{Influence, Kind, Plan};
use super::placement::View;
use super::regions::RegionInfo;
use super::step::{Step, can_lead, is_pending};

/// Regions of one store that one round looks at.
const CANDIDATES: usize = 256;

/// What one round saw and wants.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) plans: Vec<Plan>,
    /// For people.
    pub(super) view: String,
}

type Sums = BTreeMap<StoreId, i64>;

impl<'a> View<'a> {
    /// The stores that take part in balancing.
    fn balanced_stores(&self) -> Vec<StoreId> {
        let up = |store: &StoreId| self.life(*store) == StoreLife::Up;
        self.stores.iter().map(|store| store.id()).filter(up).collect()
    }

    fn sums(&self, now: impl Fn(StoreId) -> i64, more: impl Fn(&Influence) -> i64) -> Sums {
        let influence = self.operators.influence(self.tree);
        let sum = |store: StoreId| now(store) + influence.get(&store).map_or(0, &more);
        self.balanced_stores().into_iter().map(|store| (store, sum(store))).collect()
    }

    /// Regions led by a store that nobody works on, from a place that moves on with `turn`.
    fn free_regions(
        &self,
        regions: impl Iterator<Item = RegionId> + Clone,
        count: usize,
        turn: u64,
    ) -> Vec<&'a RegionInfo> {
        let skip =
            if count > CANDIDATES { (turn as usize).wrapping_mul(CANDIDATES) % count } else { 0 };
        let tree = self.tree;
        let in_turn = regions.clone().skip(skip).chain(regions.take(skip)).take(CANDIDATES);
        in_turn
            .filter(|region| self.operators.of_region(*region).is_none())
            .filter_map(|region| tree.by_id(region))
            .collect()
    }

    fn led_by(&self, store: StoreId, turn: u64) -> Vec<&'a RegionInfo> {
        let Some(load) = self.tree.load(store) else { return Vec::new() };
        self.free_regions(load.led.iter().copied(), load.led.len(), turn)
    }

    /// One region of each pair of stores whose lead could go from the first to the second.
    fn transfers(&self, sums: &Sums, turn: u64) -> BTreeMap<(StoreId, StoreId), &'a RegionInfo> {
        let mut found = BTreeMap::new();
        for &from in sums.keys() {
            for info in self.led_by(from, turn) {
                for peer in info.meta.peers.iter().filter(|peer| can_lead(info, peer)) {
                    let to = StoreId::new(peer.store_id);
                    if to != from && sums.contains_key(&to) {
                        found.entry((from, to)).or_insert(info);
                    }
                }
            }
        }
        found
    }

    /// Evens out how many regions each store leads.
    pub(super) fn balance_leaders(&self, turn: u64) -> Round {
        let leads = |store| self.tree.load(store).map_or(0, |load| load.led.len() as i64);
        let sums = self.sums(leads, |more| more.leaders);
        let mut round = Round { view: show("leader counts", &sums), ..Round::default() };
        let (Some((&most, high)), Some((&least, low))) =
            (sums.iter().max_by_key(|(_, sum)| **sum), sums.iter().min_by_key(|(_, sum)| **sum))
        else {
            return round;
        };
        if high - low < 2 {
            return round;
        }
        let edges = self.transfers(&sums, turn);
        // The lead may have to pass over stores in between: all of these change together.
        let direct = edges.keys().filter(|(from, to)| sums[from] - sums[to] >= 2);
        let best = direct.max_by_key(|(from, to)| (sums[from] - sums[to], *from, *to));
        let path = match best {
            Some(&edge) => vec![edge],
            None => path(&edges, most, least),
        };
        let mut used = Vec::new();
        for edge in path {
            let info = edges[&edge];
            if used.contains(&info.id()) {
                return round;
            }
            used.push(info.id());
            round.plans.push(transfer(info, edge.1, "balance-leader"));
        }
        round
    }

    /// Evens out how much each store holds.
    pub(super) fn balance_regions(&self, turn: u64, fresh: Fresh<'_>) -> Round {
        let influence = self.operators.influence(self.tree);
        let stores = self.balanced_stores();
        let sums: Sums =
            stores.iter().map(|&store| (store, self.weight(store, &influence))).collect();
        let mut round = Round { view: self.show_regions(&stores), ..Round::default() };
        let mut by_weight: Vec<StoreId> = stores;
        by_weight.sort_by_key(|store| (sums[store], *store));
        for &from in by_weight.iter().rev() {
            let Some(load) = self.tree.load(from) else { continue };
            let candidates =
                self.free_regions(load.regions.iter().copied(), load.regions.len(), turn);
            let mut movable: Vec<&RegionInfo> =
                candidates.into_iter().filter(|info| self.may_move(info, from)).collect();
            let rank = |info: &&RegionInfo| {
                let pending = info
                    .meta
                    .peers
                    .iter()
                    .any(|peer| peer.store_id == from.get() && is_pending(info, peer.id));
                let leads = info.leader.is_some_and(|leader| leader.store_id == from.get());
                (!pending, leads)
            };
            movable.sort_by_key(rank);
            for &to in by_weight.iter().take_while(|&&to| to != from) {
                let gap = sums[&from] - sums[&to];
                let fits = |info: &&&RegionInfo| {
                    let weight = (info.approximate_size + REGION_WEIGHT) as i64;
                    // Half of its weight more than would only exchange the two.
                    2 * gap > 3 * weight && self.may_replace(info, from, to)
                };
                let Some(info) = movable.iter().find(fits) else { continue };
                let goal = Goal::of(info).without(from).with(to);
                let Some(steps) = builder::steps(info, &goal, fresh) else { return round };
                round.plans.push(Plan {
                    region: info.id(),
                    partner: None,
                    kind: Kind::Region,
                    origin: "balance-region",
                    description: format!("move peer from store {from} to store {to}"),
                    steps,
                });
                return round;
            }
        }
        round
    }

    /// Whether a region is whole enough to give a peer away; the one that goes may be behind.
    fn may_move(&self, info: &RegionInfo, from: StoreId) -> bool {
        let others_follow = info.pending_peers.iter().all(|peer| peer.store_id == from.get());
        let voters =
            info.meta.peers.iter().all(|peer| peer.role() == proto::metapb::PeerRole::Voter);
        info.leader.is_some()
            && info.down_peers.is_empty()
            && others_follow
            && voters
            && info.meta.peers.len() == self.wanted()
    }

    fn show_regions(&self, stores: &[StoreId]) -> String {
        let load = |store: &StoreId| match self.tree.load(*store) {
            Some(load) => format!("{} ({} MiB)", load.regions.len(), load.region_bytes >> 20),
            None => "0".into(),
        };
        format!("peers {}", stores.iter().map(load).collect::<Vec<_>>().join(", "))
    }

    /// Evens out what clients do, by exchanging leaders.
    pub(super) fn balance_hot(&self, hot: impl Iterator<Item = RegionId>, turn: u64) -> Round {
        let flow = |store| self.tree.load(store).map_or(0, |load| load.flow as i64);
        let sums = self.sums(flow, |more| more.flow);
        let leads = |store| self.tree.load(store).map_or(0, |load| load.led.len() as i64);
        let counts = self.sums(leads, |more| more.leaders);
        let mut round = Round { view: show("bytes per second", &sums), ..Round::default() };
        let free = |region: &RegionId| self.operators.of_region(*region).is_none();
        for info in hot.filter(free).filter_map(|region| self.tree.by_id(region)) {
            let rate = info.flow.bytes() as i64;
            let Some(from) = info.leader.map(|leader| StoreId::new(leader.store_id)) else {
                continue;
            };
            let Some(&here) = sums.get(&from) else { continue };
            let heirs = info.meta.peers.iter().filter(|peer| can_lead(info, peer));
            let heirs = heirs.filter_map(|peer| sums.get_key_value(&peer.store_id.into()));
            let Some((&to, &there)) = heirs.min_by_key(|(store, sum)| (**sum, **store)) else {
                continue;
            };
            // Rates are no more than an impression: half of the rate must be gained.
            if to == from || 2 * (here - there) <= 3 * rate {
                continue;
            }
            if counts[&from] <= counts[&to] {
                let cold = self.led_by(to, turn).into_iter().find(|cold| {
                    let back = |peer: &proto::metapb::Peer| {
                        peer.store_id == from.get() && can_lead(cold, peer)
                    };
                    cold.flow.bytes() as i64 * 8 < rate && cold.meta.peers.iter().any(back)
                });
                let Some(cold) = cold else { continue };
                round.plans.push(transfer(cold, from, "balance-hot"));
            }
            round.plans.push(transfer(info, to, "balance-hot"));
            return round;
        }
        round
    }
}

fn transfer(info: &RegionInfo, to: StoreId, origin: &'static str) -> Plan {
    Plan {
        region: info.id(),
        partner: None,
        kind: Kind::Leader,
        origin,
        description: format!("transfer leader to store {to}"),
        steps: vec![Step::Transfer { to, leave: None }],
    }
}

/// The shortest way from one store to another; empty if there is none.
fn path(
    edges: &BTreeMap<(StoreId, StoreId), &RegionInfo>,
    from: StoreId,
    to: StoreId,
) -> Vec<(StoreId, StoreId)> {
    let mut came_from: BTreeMap<StoreId, StoreId> = BTreeMap::new();
    let mut reached = vec![from];
    let mut next = 0;
    while let Some(&here) = reached.get(next) {
        next += 1;
        for &(_, there) in edges.keys().filter(|(start, _)| *start == here) {
            if there != from && !came_from.contains_key(&there) {
                came_from.insert(there, here);
                reached.push(there);
            }
        }
    }
    let mut path = Vec::new();
    let mut at = to;
    while let Some(&before) = came_from.get(&at) {
        path.push((before, at));
        at = before;
    }
    path
}

fn show(what: &str, sums: &Sums) -> String {
    let sums: Vec<String> = sums.values().map(i64::to_string).collect();
    format!("{what} {}", sums.join(", "))
}

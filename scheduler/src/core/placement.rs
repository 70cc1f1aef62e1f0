//! Which store may get a peer, and which is the best: the one place where states, space, limits and
//! location labels are weighed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use proto::flotillapb::StoreLife;
use proto::ids::StoreId;
use proto::metapb;

use super::operator::Influence;
use super::operators::Operators;
use super::regions::{RegionInfo, RegionTree};
use super::settings::Settings;
use super::stores::{StoreInfo, Stores};

/// Peers of a region while nobody has set a number.
const REPLICAS: usize = 3;

/// A better spread, then less to carry, then the lower id.
type Rank = (u64, Reverse<i64>, Reverse<StoreId>);

/// All that a decision looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) settings: &'a Settings,
    pub(super) stores: &'a Stores,
    pub(super) tree: &'a RegionTree,
    pub(super) operators: &'a Operators,
    /// Peers of the first regions: more than three are kept.
    pub(super) first_replicas: usize,
    pub(super) now_ms: u64,
}

/// Why a store does not get a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    Unknown,
    Life(StoreLife),
    /// Percent that are free.
    Full(u64),
    /// Operators that move peers there.
    Limit(u64),
    /// The label and the value that it would share.
    Shares(String, String),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => write!(out, "is not registered"),
            Self::Life(life) => write!(out, "is {}", life_name(*life)),
            Self::Full(percent) => write!(out, "has only {percent} % of its space free"),
            Self::Limit(count) => write!(out, "has {count} operators under way already"),
            Self::Shares(label, value) => write!(out, "shares {label} {value} with another peer"),
        }
    }
}

/// As people read it.
pub(super) fn life_name(life: StoreLife) -> &'static str {
    match life {
        StoreLife::Up => "up",
        StoreLife::Disconnected => "disconnected",
        StoreLife::Down => "down",
        StoreLife::Draining => "draining",
        StoreLife::Offline => "offline",
        StoreLife::Tombstone => "a tombstone",
    }
}

impl<'a> View<'a> {
    /// Where a store is in its life; a tombstone if it is not known.
    pub(super) fn life(&self, store: StoreId) -> StoreLife {
        let known = self.stores.get(store);
        known.map_or(StoreLife::Tombstone, |store| store.life(self.settings, self.now_ms))
    }

    /// Whether nobody waits for a store any more, whatever people decided about it.
    pub(super) fn is_dead(&self, store: StoreId) -> bool {
        match self.life(store) {
            StoreLife::Down | StoreLife::Offline | StoreLife::Tombstone => true,
            StoreLife::Draining => self.stores.get(store).is_none_or(|store| {
                store.silent_ms(self.now_ms) >= self.settings.max_store_down_ms
            }),
            StoreLife::Up | StoreLife::Disconnected => false,
        }
    }

    /// How many peers a region should have.
    pub(super) fn wanted(&self) -> usize {
        if self.settings.max_replicas > 0 {
            return self.settings.max_replicas as usize;
        }
        // A store that is down may come back: it still counts.
        let counts = |store: &&StoreInfo| {
            matches!(
                store.life(self.settings, self.now_ms),
                StoreLife::Up | StoreLife::Disconnected | StoreLife::Down
            )
        };
        self.stores.iter().filter(counts).count().clamp(1, REPLICAS.max(self.first_replicas))
    }

    /// Whether a store may get a peer at all; `limits`: also whether it may now.
    pub(super) fn fit(&self, store: StoreId, limits: bool) -> Result<&'a StoreInfo, Unfit> {
        let info = self.stores.get(store).ok_or(Unfit::Unknown)?;
        match self.life(store) {
            StoreLife::Up => {}
            life => return Err(Unfit::Life(life)),
        }
        match info.free_percent() {
            Some(percent) if percent < self.settings.low_space_percent => {
                return Err(Unfit::Full(percent));
            }
            _ => {}
        }
        let under_way = self.operators.count_on(store);
        if limits && under_way >= self.settings.store_operator_limit {
            return Err(Unfit::Limit(under_way));
        }
        Ok(info)
    }

    /// Whether a peer on `store` would share what no two peers may share with one of `others`.
    pub(super) fn shares(&self, store: &StoreInfo, others: &BTreeSet<StoreId>) -> Option<Unfit> {
        let label = self.settings.isolation_label.first()?;
        let value = store.label(label);
        let same = |other: &StoreId| {
            *other != store.id()
                && self.stores.get(*other).is_some_and(|other| other.label(label) == value)
        };
        let shares = !value.is_empty() && others.iter().any(same);
        shares.then(|| Unfit::Shares(label.clone(), value.to_owned()))
    }

    /// How well a set of stores is spread: every pair counts by the largest unit in which it differs.
    pub(super) fn spread(&self, stores: &BTreeSet<StoreId>) -> u64 {
        let labels = &self.settings.location_labels;
        let known: Vec<&StoreInfo> = stores.iter().filter_map(|&id| self.stores.get(id)).collect();
        let mut sum = 0;
        for (at, one) in known.iter().enumerate() {
            for other in &known[at + 1..] {
                let differs =
                    labels.iter().position(|label| one.label(label) != other.label(label));
                // A region has at most 64 peers, so no number of pairs outweighs a larger unit.
                sum += differs.map_or(0, |level| 1u64 << (11 * (labels.len() - 1 - level).min(4)));
            }
        }
        sum
    }

    /// What a store carries, with what is under way.
    pub(super) fn weight(&self, store: StoreId, influence: &BTreeMap<StoreId, Influence>) -> i64 {
        let now = self.tree.load(store).map_or(0, |load| load.weight() as i64);
        now + influence.get(&store).map_or(0, |more| more.weight)
    }

    /// The best store for one more peer beside those on `others`; or why there is none.
    pub(super) fn best_target(
        &self,
        info: &RegionInfo,
        others: &BTreeSet<StoreId>,
    ) -> Result<StoreId, String> {
        let held = stores_of(&info.meta);
        let influence = self.operators.influence(self.tree);
        let mut best: Option<(Rank, StoreId)> = None;
        let mut reasons = Vec::new();
        for store in self.stores.iter().filter(|store| !held.contains(&store.id())) {
            let id = store.id();
            if let Err(unfit) = self.fit(id, true) {
                reasons.push(unfit);
            } else if let Some(unfit) = self.shares(store, others) {
                reasons.push(unfit);
            } else {
                let mut with = others.clone();
                with.insert(id);
                let weight = self.weight(id, &influence);
                let rank = (self.spread(&with), Reverse(weight), Reverse(id));
                if best.as_ref().is_none_or(|(known, _)| rank > *known) {
                    best = Some((rank, id));
                }
            }
        }
        best.map(|(_, id)| id).ok_or_else(|| self.explain(&reasons))
    }

    fn explain(&self, reasons: &[Unfit]) -> String {
        if reasons.iter().any(|reason| matches!(reason, Unfit::Limit(_))) {
            "waiting for limits".into()
        } else if let Some(label) = reasons.iter().find_map(|reason| match reason {
            Unfit::Shares(label, _) => Some(label),
            _ => None,
        }) {
            format!("no store satisfies {label} isolation")
        } else if reasons.iter().any(|reason| matches!(reason, Unfit::Full(_))) {
            "no other store has enough free space".into()
        } else {
            "no other store is up".into()
        }
    }

    /// Whether `store` may take the place of `from`: fit, and the peers are spread no worse.
    pub(super) fn may_replace(&self, info: &RegionInfo, from: StoreId, store: StoreId) -> bool {
        let held = stores_of(&info.meta);
        if held.contains(&store) {
            return false;
        }
        let Ok(target) = self.fit(store, true) else { return false };
        let mut after = held.clone();
        after.remove(&from);
        if self.shares(target, &after).is_some() {
            return false;
        }
        after.insert(store);
        self.spread(&after) >= self.spread(&held)
    }
}

/// Where a region has peers.
pub(super) fn stores_of(meta: &metapb::Region) -> BTreeSet<StoreId> {
    meta.peers.iter().map(|peer| peer.store_id.into()).collect()
}

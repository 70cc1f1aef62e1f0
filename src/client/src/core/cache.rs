//! Which region holds a key, and who is believed to lead it.
//!
//! Vocabulary: a *route* is a region as some server described it, plus the believed leader. A route is *doubtful* when
//! an attempt suggested that it is out of date; it stays usable, because the scheduler that could confirm it may be away.
//!
//! Invariants: 1. routes do not overlap. 2. `by_id` and `by_start` name the same routes. 3. a route is never replaced by
//! an older description of the same keys (epochs of regions that share a key are comparable: all parts of a divided region
//! have a higher version than it had, and one that took over another a higher one than either).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use proto::ids::{RegionId, StoreId};
use proto::metapb::{Peer, Region, RegionEpoch};

use super::time::Instant;

/// Several callers that doubt one route ask the scheduler once in this time.
const REFRESH_INTERVAL: Duration = Duration::from_millis(50);

/// Routes kept, of a few hundred bytes each.
const ROUTES_MAX: usize = 64 << 10;

/// A region and its believed leader.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The region as last described.
    pub region: Region,
    /// The epoch of `region`, always there.
    pub epoch: RegionEpoch,
    /// The peer to ask first.
    pub leader: Option<Peer>,
    doubtful: bool,
    asked_at: Option<Instant>,
}

impl Route {
    /// The region's id.
    pub fn id(&self) -> RegionId {
        RegionId::from(self.region.id)
    }

    /// Whether `key` lies in the region.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.region.start_key[..]
            && (self.region.end_key.is_empty() || key < &self.region.end_key[..])
    }

    /// Whether the scheduler should be asked before the route is used. Says so once per interval, not to every caller.
    pub fn wants_refresh(&mut self, now: Instant) -> bool {
        let recently = self.asked_at.is_some_and(|at| now.since(at) < REFRESH_INTERVAL);
        if !self.doubtful || recently {
            return false;
        }
        self.asked_at = Some(now);
        true
    }
}

/// Region routes by key range and by id.
#[derive(Debug, Default)]
pub struct RegionCache {
    by_start: BTreeMap<Bytes, Route>,
    by_id: BTreeMap<RegionId, Bytes>,
    hand: Bytes,
}

impl RegionCache {
    /// The route for the region that holds `key`.
    pub fn locate(&mut self, key: &[u8]) -> Option<&mut Route> {
        let (_, route) = self
            .by_start
            .range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()?;
        route.contains(key).then_some(route)
    }

    /// The route for the region that holds the keys just below `end` (exclusive); an empty `end` is +inf.
    pub fn locate_before(&mut self, end: &[u8]) -> Option<&mut Route> {
        let bound = match end {
            [] => Bound::Unbounded,
            _ => Bound::Excluded(end),
        };
        let (_, route) =
            self.by_start.range_mut::<[u8], _>((Bound::Unbounded, bound)).next_back()?;
        let reaches = match (&route.region.end_key[..], end) {
            ([], _) => true,
            (_, []) => false,
            (region_end, end) => region_end >= end,
        };
        reaches.then_some(route)
    }

    /// The route of a region.
    pub fn get_mut(&mut self, id: RegionId) -> Option<&mut Route> {
        let start = self.by_id.get(&id)?;
        self.by_start.get_mut(start)
    }

    /// Every route, in key order.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.by_start.values()
    }

    /// Takes over a description of a region, unless it is refused: see [`RegionCache::adopt`].
    pub fn insert(&mut self, region: Region, leader: Option<Peer>) -> bool {
        self.adopt(region, leader).is_some()
    }

    /// Takes over a description of a region, in the place of every other that shares a key with it; the ids of those. None:
    /// it is no newer than what is known about one of its keys under another id, it is older than what is known about the
    /// region, or it has no id, epoch or peer. Without a leader, the known one stays if it is still a peer.
    pub fn adopt(&mut self, region: Region, leader: Option<Peer>) -> Option<Vec<RegionId>> {
        let epoch = region.region_epoch?;
        let id = RegionId::from(region.id);
        let empty_range = !region.end_key.is_empty() && region.end_key <= region.start_key;
        if region.id == 0 || region.peers.is_empty() || empty_range {
            return None;
        }
        let mut displaced = self.overlapping(&region.start_key, &region.end_key);
        if let Some(start) = self.by_id.get(&id)
            && !displaced.contains(start)
        {
            displaced.push(start.clone());
        }
        if displaced.iter().any(|start| !is_newer(id, epoch, &self.by_start[start])) {
            return None;
        }
        let mut leader = leader.filter(|leader| region.peers.iter().any(|p| p.id == leader.id));
        let mut asked_at = None;
        let mut others = Vec::new();
        for start in displaced {
            let Some(old) = self.remove(&start) else { continue };
            if old.id() != id {
                others.push(old.id());
                continue;
            }
            asked_at = old.asked_at;
            if leader.is_none() {
                leader = old.leader.filter(|l| region.peers.iter().any(|p| p.id == l.id));
            }
        }
        self.make_room();
        let start = region.start_key.clone();
        self.by_id.insert(id, start.clone());
        self.by_start.insert(start, Route { region, epoch, leader, doubtful: false, asked_at });
        Some(others)
    }

    /// Other regions, as they are known, of which `region` would take keys over.
    pub fn predecessors(&self, region: &Region) -> Vec<RegionId> {
        let (id, epoch) = (RegionId::from(region.id), region.region_epoch.unwrap_or_default());
        let shared = self.overlapping(&region.start_key, &region.end_key);
        let routes = shared.iter().map(|start| &self.by_start[start]);
        routes.filter(|old| old.id() != id && is_newer(id, epoch, old)).map(Route::id).collect()
    }

    fn remove(&mut self, start: &Bytes) -> Option<Route> {
        let old = self.by_start.remove(start)?;
        self.by_id.remove(&old.id());
        Some(old)
    }

    /// One route goes when there are too many: the next one behind the last that went, in key order.
    fn make_room(&mut self) {
        if self.by_start.len() < ROUTES_MAX {
            return;
        }
        let behind = (Bound::Excluded(&self.hand[..]), Bound::Unbounded);
        let next = self.by_start.range::<[u8], _>(behind).next();
        let victim = next.or_else(|| self.by_start.first_key_value()).map(|(key, _)| key.clone());
        if let Some(victim) = victim {
            self.remove(&victim);
            self.hand = victim;
        }
    }

    /// Believes `leader` from now on, if it is one of the region's peers.
    pub fn set_leader(&mut self, id: RegionId, leader: Peer) -> bool {
        let Some(route) = self.get_mut(id) else { return false };
        match route.region.peers.iter().find(|peer| peer.id == leader.id) {
            Some(peer) => {
                route.leader = Some(*peer);
                true
            }
            None => false,
        }
    }

    /// Forgets that `store` leads the region.
    pub fn unset_leader(&mut self, id: RegionId, store: StoreId) {
        if let Some(route) = self.get_mut(id)
            && route.leader.is_some_and(|leader| leader.store_id == store.get())
        {
            route.leader = None;
        }
    }

    /// Marks the region's route as doubtful.
    pub fn doubt(&mut self, id: RegionId) {
        if let Some(route) = self.get_mut(id) {
            route.doubtful = true;
        }
    }

    /// Start keys of the routes that share a key with [start, end).
    fn overlapping(&self, start: &[u8], end: &[u8]) -> Vec<Bytes> {
        let from = self
            .by_start
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(start)))
            .next_back()
            .filter(|(_, route)| route.contains(start))
            .map(|(key, _)| key.clone());
        let after = self
            .by_start
            .range::<[u8], _>((Bound::Excluded(start), Bound::Unbounded))
            .map(|(key, _)| key.clone())
            .take_while(|key| end.is_empty() || &key[..] < end);
        from.into_iter().chain(after).collect()
    }
}

/// Whether a description may take the place of `known`, with which it shares a key or the id. Who takes keys over from
/// another region has a version above that one's; so equal versions of two regions contradict each other, and the first
/// one stays.
fn is_newer(id: RegionId, epoch: RegionEpoch, known: &Route) -> bool {
    if known.id() == id {
        epoch.version >= known.epoch.version && epoch.conf_ver >= known.epoch.conf_ver
    } else {
        epoch.version > known.epoch.version
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;

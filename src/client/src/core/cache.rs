//! Which region holds a key, and who is believed to lead it.
//!
//! Vocabulary: a *route* is a region as some server described it, plus the believed leader. A route is *doubtful* when
//! an attempt suggested that it is out of date; it stays usable, because the scheduler that could confirm it may be away.
//!
//! Invariants: 1. routes do not overlap. 2. `by_id` and `by_start` name the same routes. 3. a route is never replaced by
//! an older description of the same keys (epochs of overlapping regions are comparable: a split raises both halves).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proto::ids::{RegionId, StoreId};
use proto::metapb::{Peer, Region, RegionEpoch};

use super::time::Instant;

/// Several callers that doubt one route ask the scheduler once in this time.
const REFRESH_INTERVAL: Duration = Duration::from_millis(50);

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
}

impl RegionCache {
    /// The route for the region that holds `key`.
    pub fn locate(&mut self, key: &[u8]) -> Option<&mut Route> {
        let (_, route) = self
            .by_start
            .range_mut::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key)))
            .next_back()?;
        route.contains(key).then_some(route)
    }

    /// The route for the region that holds the keys just below `end` (exclusive); an empty `end` is +inf.
    pub fn locate_before(&mut self, end: &[u8]) -> Option<&mut Route> {
        let bound = match end {
            [] => std::ops::Bound::Unbounded,
            _ => std::ops::Bound::Excluded(end),
        };
        let (_, route) =
            self.by_start.range_mut::<[u8], _>((std::ops::Bound::Unbounded, bound)).next_back()?;
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

    /// Takes over a description of a region. Says no to one that is older than what is known about any of its keys, and
    /// to one without an id, an epoch or a peer. Without a leader, the known one stays if it is still a peer.
    pub fn insert(&mut self, region: Region, leader: Option<Peer>) -> bool {
        let Some(epoch) = region.region_epoch else { return false };
        let id = RegionId::from(region.id);
        let empty_range = !region.end_key.is_empty() && region.end_key <= region.start_key;
        if region.id == 0 || region.peers.is_empty() || empty_range {
            return false;
        }
        let mut displaced = self.overlapping(&region.start_key, &region.end_key);
        if let Some(start) = self.by_id.get(&id)
            && !displaced.contains(start)
        {
            displaced.push(start.clone());
        }
        for start in &displaced {
            let known = &self.by_start[start];
            let older = epoch.version < known.epoch.version
                || (known.id() == id && epoch.conf_ver < known.epoch.conf_ver);
            if older {
                return false;
            }
        }
        let mut leader = leader.filter(|leader| region.peers.iter().any(|p| p.id == leader.id));
        let mut asked_at = None;
        for start in displaced {
            let Some(old) = self.by_start.remove(&start) else { continue };
            self.by_id.remove(&old.id());
            if old.id() == id {
                asked_at = old.asked_at;
                if leader.is_none() {
                    leader = old.leader.filter(|l| region.peers.iter().any(|p| p.id == l.id));
                }
            }
        }
        let start = region.start_key.clone();
        self.by_id.insert(id, start.clone());
        self.by_start.insert(start, Route { region, epoch, leader, doubtful: false, asked_at });
        true
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
            .range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(start)))
            .next_back()
            .filter(|(_, route)| route.contains(start))
            .map(|(key, _)| key.clone());
        let after = self
            .by_start
            .range::<[u8], _>((std::ops::Bound::Excluded(start), std::ops::Bound::Unbounded))
            .map(|(key, _)| key.clone())
            .take_while(|key| end.is_empty() || &key[..] < end);
        from.into_iter().chain(after).collect()
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;

//! A cluster of the simplest kind that obeys the scheduler: peers catch up in an instant or two, leaders
//! change by decree. It refuses, loudly, whatever a real store could not do, so it tests the instructions
//! as much as where they lead.

mod convergence;
mod lives;
mod merging;
mod obey;
mod operators;
mod refusals;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::ids::StoreId;
use proto::metapb::{self, PeerRole};
use proto::{codec, flotillapb, pdpb};

use super::{Config, RegionInfo, Scheduler};

const START_MS: u64 = 1_700_000_000_000;
const STEP_MS: u64 = 100;

/// Numbers that look random and are the same in every run.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

#[derive(Clone, Debug)]
struct Group {
    meta: metapb::Region,
    /// Peer id; 0 while there is none.
    leader: u64,
    term: u64,
    /// Peers without the data, and the steps until they have them.
    pending: BTreeMap<u64, u64>,
    bytes: u64,
    flow: u64,
}

/// The cluster and its scheduler.
pub(super) struct Model {
    pub(super) core: Scheduler,
    now_ms: u64,
    alive: BTreeSet<u64>,
    /// Milliseconds since when stores are dead.
    groups: BTreeMap<u64, Group>,
    next_id: u64,
    steps: u64,
    /// Steps that a new peer takes to catch up.
    lag: u64,
    /// Regions freeze when they are to be merged, and that is all.
    refuses_merges: bool,
}

impl Model {
    pub(super) fn new(stores: u64) -> Self {
        let config = Config { max_store_down_ms: 30_000, ..Config::default() };
        let (core, change) = Scheduler::open(config, vec![], 7, START_MS).unwrap();
        let mut model = Self {
            core,
            now_ms: START_MS,
            alive: BTreeSet::new(),
            groups: BTreeMap::new(),
            next_id: 1_000_000,
            steps: 0,
            lag: 2,
            refuses_merges: false,
        };
        model.core.apply(change, START_MS);
        (1..=stores).for_each(|id| model.add_store(id, &[]));
        model
    }

    fn add_store(&mut self, id: u64, labels: &[(&str, &str)]) {
        let label = |&(key, value): &(&str, &str)| metapb::StoreLabel {
            key: key.into(),
            value: value.into(),
        };
        let store = metapb::Store {
            id,
            address: format!("store-{id}:1"),
            labels: labels.iter().map(label).collect(),
            ..Default::default()
        };
        // Registered as if it were the last of many, so that no first regions are planned.
        let mut change = super::Change::default();
        for record in self.core.stores.register(store, self.now_ms, 1).unwrap() {
            change.put(super::Record::Store(record));
        }
        self.core.apply(change, self.now_ms);
        self.alive.insert(id);
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Regions side by side, each with peers on the given stores, led by the first.
    fn lay(&mut self, homes: &[Vec<u64>], bytes: u64) {
        let bound = |at: usize| match at {
            0 => Bytes::new(),
            at if at == homes.len() => Bytes::new(),
            at => codec::encode(format!("{at:06}").as_bytes()),
        };
        for (at, stores) in homes.iter().enumerate() {
            let peers: Vec<_> = stores
                .iter()
                .map(|&store_id| metapb::Peer { id: self.id(), store_id, ..Default::default() })
                .collect();
            let meta = metapb::Region {
                id: at as u64 + 1,
                start_key: bound(at),
                end_key: bound(at + 1),
                region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
                peers,
            };
            let leader = meta.peers[0].id;
            let group = Group { leader, term: 5, pending: BTreeMap::new(), bytes, flow: 0, meta };
            self.groups.insert(group.meta.id, group);
        }
    }

    fn is_alive(&self, peer: &metapb::Peer) -> bool {
        self.alive.contains(&peer.store_id)
    }

    /// Leaders of dead stores are replaced, if a majority lives.
    fn elect(&mut self) {
        let alive = self.alive.clone();
        for group in self.groups.values_mut() {
            let lives = |peer: &metapb::Peer| alive.contains(&peer.store_id);
            let leads = group.meta.peers.iter().find(|peer| peer.id == group.leader);
            if leads.is_some_and(lives) {
                continue;
            }
            let voters: Vec<_> =
                group.meta.peers.iter().filter(|peer| peer.role() != PeerRole::Learner).collect();
            let living = voters.iter().filter(|peer| lives(peer)).count();
            let heir = voters
                .iter()
                .find(|peer| lives(peer) && !group.pending.contains_key(&peer.id))
                .filter(|_| living * 2 > voters.len());
            group.leader = heir.map_or(0, |peer| peer.id);
            group.term += 1;
        }
    }

    fn report(&self, group: &Group) -> Option<RegionInfo> {
        let leader = group.meta.peers.iter().find(|peer| peer.id == group.leader)?;
        let down = group.meta.peers.iter().filter(|peer| !self.is_alive(peer));
        let down = down.map(|peer| pdpb::PeerStats { peer: Some(*peer), down_seconds: 1 });
        let pending =
            group.meta.peers.iter().filter(|peer| group.pending.contains_key(&peer.id)).copied();
        let request = pdpb::RegionHeartbeatRequest {
            region: Some(group.meta.clone()),
            leader: Some(*leader),
            term: group.term,
            down_peers: down.collect(),
            pending_peers: pending.collect(),
            approximate_size: group.bytes,
            approximate_keys: group.bytes / 100,
            bytes_written: group.flow,
            interval: Some(pdpb::TimeInterval { start_timestamp: 1, end_timestamp: 2 }),
            ..Default::default()
        };
        Some(request.into())
    }

    fn heartbeat(&mut self, region: u64) {
        let Some(group) = self.groups.get(&region) else { return };
        let Some(report) = self.report(group) else { return };
        let known = self.core.knows_region(&report.meta);
        let (change, told) = self.core.region_heartbeat(report, self.now_ms).unwrap();
        assert!(!known || change.is_empty(), "what is known as it stands changes nothing");
        self.core.apply(change, self.now_ms);
        if let Some(told) = told {
            self.obey(told);
        }
    }

    /// A tenth of a second.
    fn step(&mut self) {
        self.now_ms += STEP_MS;
        self.steps += 1;
        let change = self.core.maintain(self.now_ms).unwrap();
        self.core.apply(change, self.now_ms);
        self.elect();
        for group in self.groups.values_mut() {
            group.pending.retain(|_, left| {
                *left = left.saturating_sub(1);
                *left > 0
            });
        }
        if self.steps.is_multiple_of(5) {
            for &store_id in &self.alive.clone() {
                let stats = pdpb::StoreStats { store_id, ..Default::default() };
                // A tombstone's heartbeat is refused.
                let _ = self.core.store_heartbeat(stats, self.now_ms);
            }
        }
        let turn = |region: &u64| (region + self.steps).is_multiple_of(10);
        let regions: Vec<u64> = self.groups.keys().copied().filter(turn).collect();
        for region in regions {
            self.heartbeat(region);
        }
        let (change, told) = self.core.tick(self.now_ms);
        self.core.apply(change, self.now_ms);
        for told in told {
            self.obey(told);
        }
    }

    pub(super) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 1000 / STEP_MS {
            self.step();
        }
    }

    /// Runs until nothing has been under way for a while; the seconds it took, less that while.
    pub(super) fn settle(&mut self, seconds_max: u64) -> u64 {
        let mut quiet = 0;
        for second in 0..seconds_max {
            self.run(1);
            quiet =
                if self.core.agenda.operators.running().next().is_none() { quiet + 1 } else { 0 };
            if quiet == 20 {
                return second + 1 - quiet;
            }
        }
        let running: Vec<_> = self.core.agenda.operators.show(false, 9, self.now_ms);
        panic!("still busy after {seconds_max} s: {running:#?}");
    }

    /// Regions led, and peers held, by each living store.
    fn counts(&self) -> BTreeMap<u64, (u64, u64)> {
        let mut counts: BTreeMap<u64, (u64, u64)> =
            self.alive.iter().map(|&store| (store, (0, 0))).collect();
        for group in self.groups.values() {
            for peer in &group.meta.peers {
                let Some(count) = counts.get_mut(&peer.store_id) else { continue };
                count.0 += u64::from(peer.id == group.leader);
                count.1 += 1;
            }
        }
        counts
    }

    fn made(&self) -> usize {
        self.core.agenda.operators.ended().count() + self.core.agenda.operators.running().count()
    }

    fn set(&mut self, name: &str, value: &str) {
        let item =
            flotillapb::ConfigItem { name: name.into(), value: value.into(), ..Default::default() };
        let request = flotillapb::ConfigRequest { set: vec![item], ..Default::default() };
        let (change, _) = self.core.configure(&request).unwrap();
        self.core.apply(change, self.now_ms);
    }

    fn change_store(&mut self, id: u64, change: flotillapb::change_store_request::Change) {
        let request = flotillapb::ChangeStoreRequest {
            store_id: id,
            change: Some(change),
            ..Default::default()
        };
        let (change, _) = self.core.change_store(request, self.now_ms).unwrap();
        self.core.apply(change, self.now_ms);
    }

    fn store_view(&self, id: u64) -> flotillapb::StoreView {
        let request = flotillapb::ListStoresRequest { store_id: id, ..Default::default() };
        self.core.list_stores(&request, self.now_ms).unwrap().stores.remove(0)
    }

    fn operators_that_ended(&self) -> Vec<flotillapb::Operator> {
        self.core.agenda.operators.show(true, usize::MAX, self.now_ms)
    }

    /// All peers vote, on living stores of their own, `wanted` of them.
    fn assert_sound(&self, wanted: usize) {
        for group in self.groups.values() {
            let meta = &group.meta;
            assert_eq!(meta.peers.len(), wanted, "{meta:?}");
            assert!(meta.peers.iter().all(|peer| peer.role() == PeerRole::Voter), "{meta:?}");
            assert!(meta.peers.iter().all(|peer| self.is_alive(peer)), "{meta:?}");
            assert_eq!(super::placement::stores_of(meta).len(), wanted, "{meta:?}");
        }
    }

    fn assert_even(&self, stores: impl Fn(u64) -> bool, within: u64) {
        let counts: Vec<_> =
            self.counts().into_iter().filter(|(store, _)| stores(*store)).map(|(_, n)| n).collect();
        let spread = |of: fn(&(u64, u64)) -> u64| {
            counts.iter().map(of).max().unwrap() - counts.iter().map(of).min().unwrap()
        };
        assert!(spread(|n| n.0) <= within, "leaders and peers {:?}", self.counts());
        assert!(spread(|n| n.1) <= within, "leaders and peers {:?}", self.counts());
    }

    fn store(id: u64) -> StoreId {
        id.into()
    }
}

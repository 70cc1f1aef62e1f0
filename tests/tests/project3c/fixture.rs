//! A scheduler without a cluster: reports are made up, instructions are looked at.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Cf, Engine, KeyRange};
use proto::flotillapb::{
    self, BalanceRequest, ConfigItem, ConfigRequest, ListOperatorsRequest, ListStoresRequest,
    Operator, StoreView,
};
use proto::{codec, metapb, pdpb};
use scheduler::core::{Change, Config, Error, Record, RegionInfo, Scheduler};

pub(crate) const START_MS: u64 = 1_700_000_000_000;
pub(crate) const MIB: u64 = 1 << 20;

/// The stage's cluster. Its journal is in memory.
pub(crate) struct Cluster {
    pub(crate) core: Scheduler,
    engine: Arc<MemEngine>,
    pub(crate) now_ms: u64,
    /// Stores that send heartbeats.
    alive: Vec<u64>,
    /// What some of them say about themselves.
    stats: BTreeMap<u64, pdpb::StoreStats>,
    next_filler: u64,
}

/// A key that is valid as a boundary; the empty text is the end of all keys.
pub(crate) fn key(text: &str) -> Bytes {
    if text.is_empty() { Bytes::new() } else { codec::encode(text.as_bytes()) }
}

pub(crate) fn peer(id: u64, store_id: u64) -> metapb::Peer {
    metapb::Peer { id, store_id, ..Default::default() }
}

/// A region with a peer on each store, led by the first.
pub(crate) fn region(
    id: u64,
    range: (&str, &str),
    epoch: (u64, u64),
    stores: &[u64],
) -> RegionInfo {
    let peers: Vec<_> =
        stores.iter().map(|&store| peer(1_000_000 + id * 1000 + store, store)).collect();
    RegionInfo {
        leader: Some(peers[0]),
        term: 1,
        meta: metapb::Region {
            id,
            start_key: key(range.0),
            end_key: key(range.1),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: epoch.0, version: epoch.1 }),
            peers,
        },
        ..Default::default()
    }
}

fn load(engine: &MemEngine) -> Vec<Record> {
    let snapshot = engine.snapshot();
    let mut rows = snapshot.iter(Cf::Default, KeyRange::all());
    let mut records = Vec::new();
    let mut valid = rows.seek_to_first().unwrap();
    while valid {
        records.push(Record::decode(rows.key(), rows.value()).unwrap());
        valid = rows.next().unwrap();
    }
    records
}

impl Cluster {
    pub(crate) fn new(stores: u64) -> Self {
        let mut cluster = Self::open(Arc::new(MemEngine::new()), START_MS);
        (1..=stores).for_each(|id| cluster.add_store(id));
        cluster
    }

    fn open(engine: Arc<MemEngine>, now_ms: u64) -> Self {
        // No first regions are planned: these tests bring their own.
        let config =
            Config { initial_stores: 1000, max_store_down_ms: 1_800_000, ..Config::default() };
        let (core, change) = Scheduler::open(config, load(&engine), 1, now_ms).unwrap();
        let mut cluster = Self {
            core,
            engine,
            now_ms,
            alive: Vec::new(),
            stats: BTreeMap::new(),
            next_filler: 10_000,
        };
        cluster.commit(change);
        cluster
    }

    /// The scheduler ends; another one reads its journal.
    pub(crate) fn restart(self) -> Self {
        let alive = self.alive.clone();
        let next_filler = self.next_filler;
        let engine = Arc::clone(&self.engine);
        let now_ms = self.now_ms + 1000;
        drop(self);
        Self { alive, next_filler, ..Self::open(engine, now_ms) }
    }

    pub(crate) fn commit(&mut self, change: Change) {
        self.engine.write(&change.batch(Cf::Default)).unwrap();
        self.engine.sync().unwrap();
        self.core.apply(change, self.now_ms);
    }

    pub(crate) fn add_store(&mut self, id: u64) {
        let store = metapb::Store { id, address: format!("store-{id}:1"), ..Default::default() };
        let change = self.core.put_store(store, self.now_ms).unwrap();
        self.commit(change);
        self.alive.push(id);
    }

    /// A store that carries `count` regions of 10 MiB which nothing can be done with: their other peers are
    /// behind, on stores that are out of reach.
    pub(crate) fn add_loaded_store(&mut self, id: u64, count: u64) {
        self.add_store(id);
        self.load(id, count);
    }

    pub(crate) fn load(&mut self, id: u64, count: u64) {
        for ballast in [101, 102] {
            if self.core.store(ballast.into()).is_none() {
                self.add_store(ballast);
                self.alive.retain(|known| *known != ballast);
            }
        }
        for _ in 0..count {
            self.next_filler += 1;
            let (start, end) = (self.next_filler.to_string(), (self.next_filler + 1).to_string());
            let mut filler = region(self.next_filler, (&start, &end), (1, 1), &[id, 101, 102]);
            filler.pending_peers = vec![filler.meta.peers[1]];
            filler.approximate_size = 10 * MIB;
            self.heartbeat(filler).unwrap();
        }
    }

    /// A store falls silent for longer than its scheduler waits before it gives it something new.
    pub(crate) fn silence(&mut self, id: u64) {
        self.alive.retain(|known| *known != id);
        self.run(120);
        self.cancel_all();
    }

    /// Gives up all that is under way.
    pub(crate) fn cancel_all(&mut self) {
        self.operators().iter().for_each(|running| self.cancel(running.region_id));
    }

    /// What a store says about itself from here on.
    pub(crate) fn fill(&mut self, id: u64, stats: pdpb::StoreStats) {
        self.stats.insert(id, stats);
    }

    pub(crate) fn heartbeat(
        &mut self,
        report: RegionInfo,
    ) -> Result<Option<pdpb::RegionHeartbeatResponse>, Error> {
        let (change, told) = self.core.region_heartbeat(report, self.now_ms)?;
        self.commit(change);
        Ok(told)
    }

    /// A tenth of a second.
    pub(crate) fn tick(&mut self) -> Vec<pdpb::RegionHeartbeatResponse> {
        self.now_ms += 100;
        let change = self.core.maintain(self.now_ms).unwrap();
        self.commit(change);
        for &store_id in &self.alive {
            let said = pdpb::StoreStats { store_id, ..Default::default() };
            let stats = self.stats.get(&store_id).copied().unwrap_or(said);
            let _ = self.core.store_heartbeat(stats, self.now_ms);
        }
        let (change, told) = self.core.tick(self.now_ms);
        self.commit(change);
        told
    }

    pub(crate) fn run(&mut self, ticks: u64) {
        (0..ticks).for_each(|_| drop(self.tick()));
    }

    pub(crate) fn set(&mut self, name: &str, value: u64) {
        let item = ConfigItem { name: name.into(), value: value.to_string(), ..Default::default() };
        let request = ConfigRequest { set: vec![item], ..Default::default() };
        let (change, _) = self.core.configure(&request).unwrap();
        self.commit(change);
    }

    /// Lets one balancer work and no other.
    pub(crate) fn only(&mut self, balancer: &str) {
        for (action, balancer) in [(1, ""), (2, balancer)] {
            let request =
                BalanceRequest { action, balancer: balancer.into(), ..Default::default() };
            let (change, _) = self.core.balance(&request, self.now_ms).unwrap();
            self.commit(change);
        }
    }

    pub(crate) fn operators(&self) -> Vec<Operator> {
        let request = ListOperatorsRequest::default();
        self.core.list_operators(&request).unwrap().operators
    }

    pub(crate) fn ended(&self) -> Vec<Operator> {
        let request = ListOperatorsRequest { history: true, ..Default::default() };
        self.core.list_operators(&request).unwrap().operators
    }

    pub(crate) fn cancel(&mut self, region_id: u64) {
        let request = flotillapb::CancelOperatorRequest { region_id, ..Default::default() };
        let (change, _) = self.core.cancel_operator(request, self.now_ms).unwrap();
        self.commit(change);
    }

    /// The next operator of a balancer, cancelled at once; `None` if it finds nothing for ten seconds.
    pub(crate) fn next_of(&mut self, origin: &str) -> Option<Operator> {
        for _ in 0..100 {
            self.tick();
            let found = self.operators().into_iter().find(|operator| operator.origin == origin);
            if let Some(operator) = found {
                self.cancel_all();
                return Some(operator);
            }
        }
        None
    }

    /// The same for a move of a peer: region, source, target.
    pub(crate) fn next_move(&mut self) -> Option<(u64, String)> {
        let operator = self.next_of("balance-region")?;
        let route = operator.description.strip_prefix("move peer from store ").unwrap().to_owned();
        Some((operator.region_id, route))
    }

    pub(crate) fn store(&self, store_id: u64) -> StoreView {
        let request = ListStoresRequest { store_id, ..Default::default() };
        self.core.list_stores(&request, self.now_ms).unwrap().stores.remove(0)
    }
}

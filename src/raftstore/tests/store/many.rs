//! Many regions on one store share its turns, its log writes and its engine.

use std::sync::Arc;

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Cf, Engine};
use proto::ids::StoreId;
use proto::metapb;
use raftstore::command::{Mutation, Request, WriteResult};
use raftstore::keys::{self, RawCf};
use raftstore::store::format;
use raftstore::{
    Applier, Config, Instant, MemFiles, RegionError, RequestHeader, Store, StoreMsg, Turn,
    WriteRequest,
};

use super::cluster::{CLUSTER, Slot};

const REGIONS: u64 = 20;

/// One store, all its regions with a single peer: it leads them all.
struct Lone {
    store: Store,
    applier: Applier,
    engine: Arc<MemEngine>,
    now: Instant,
    config: Config,
}

fn epoch() -> metapb::RegionEpoch {
    metapb::RegionEpoch { conf_ver: 1, version: 1 }
}

/// Region `id` of [1, REGIONS], one letter of keys each.
fn region(id: u64) -> metapb::Region {
    let boundary = |id: u64| Bytes::from(format!("{id:04}"));
    metapb::Region {
        id,
        start_key: if id == 1 { Bytes::new() } else { boundary(id) },
        end_key: if id == REGIONS { Bytes::new() } else { boundary(id + 1) },
        region_epoch: Some(epoch()),
        peers: vec![metapb::Peer { id: id + 1000, store_id: 1, ..Default::default() }],
    }
}

impl Lone {
    fn open(engine: Arc<MemEngine>) -> Lone {
        let config = Config::new(CLUSTER, StoreId::from(1));
        format(engine.as_ref(), CLUSTER, StoreId::from(1)).unwrap();
        let store = Store::open(config.clone(), engine.clone(), &MemFiles::new()).unwrap();
        let applier = Applier::new(engine.clone());
        Lone { store, applier, engine, now: Instant::ZERO, config }
    }

    fn turn(&mut self) -> Turn {
        self.store.turn(self.now)
    }

    /// Carries a turn out, and those that follow.
    fn carry_out(&mut self, mut turn: Turn) {
        while !turn.is_empty() {
            if let Some(write) = turn.log_write {
                self.engine.write(&write.batch).unwrap();
                self.engine.sync().unwrap();
                self.store.handle(StoreMsg::Persisted { number: write.number }, self.now);
            }
            let applied = self.applier.handle(turn.apply).unwrap();
            applied.replies.into_iter().for_each(|(reply, outcome)| reply.send(outcome));
            self.store.handle(StoreMsg::Applied(applied.results), self.now);
            turn = self.turn();
        }
    }

    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now = self.now + self.config.tick();
            self.store.handle(StoreMsg::Tick, self.now);
            let turn = self.turn();
            self.carry_out(turn);
        }
    }

    fn bootstrap(&mut self, region: metapb::Region) -> Option<Result<(), RegionError>> {
        let (slot, reply) = Slot::new();
        self.store.handle(StoreMsg::Bootstrap { region, reply }, self.now);
        let turn = self.turn();
        self.carry_out(turn);
        slot.take()
    }

    fn put(&mut self, id: u64, key: &str) -> Slot<WriteResult> {
        let (slot, reply) = Slot::new();
        let key = Bytes::copy_from_slice(key.as_bytes());
        let mutations = vec![Mutation::Put { cf: RawCf::Default, key: key.clone(), value: key }];
        let request = Request::Mutate { mutations, session: None };
        let header = RequestHeader::new(id.into(), epoch());
        let msg = StoreMsg::Write(WriteRequest { header, request, reply });
        self.store.handle(msg, self.now);
        slot
    }
}

fn all_regions() -> Lone {
    let mut lone = Lone::open(Arc::default());
    for id in 1..=REGIONS {
        assert_eq!(lone.bootstrap(region(id)), Some(Ok(())));
    }
    lone.run(60);
    lone
}

#[test]
fn one_turn_makes_one_log_write_for_all_regions() {
    let mut lone = all_regions();
    let slots: Vec<_> = (1..=REGIONS).map(|id| lone.put(id, &format!("{id:04}x"))).collect();
    let turn = lone.turn();
    let write = turn.log_write.as_ref().expect("there is something to write");
    let in_log = |op: &&engine::Op| matches!(op, engine::Op::Put { cf: Cf::Raft, .. });
    assert!(write.sync && write.batch.ops().iter().filter(in_log).count() as u64 >= REGIONS);
    lone.carry_out(turn);
    assert!(slots.iter().all(|slot| slot.take() == Some(Ok(WriteResult::Applied))));
    assert!(lone.turn().is_empty(), "at rest");
}

#[test]
fn a_key_of_another_region_is_refused() {
    let mut lone = all_regions();
    let slot = lone.put(3, "0004x");
    assert!(matches!(slot.take(), Some(Err(RegionError::KeyNotInRegion { .. }))));
}

#[test]
fn every_region_comes_back_after_a_restart() {
    let mut lone = all_regions();
    for id in 1..=REGIONS {
        lone.put(id, &format!("{id:04}x"));
    }
    let turn = lone.turn();
    lone.carry_out(turn);
    let mut lone = Lone::open(Arc::new(lone.engine.crash(0)));
    lone.run(60);
    assert_eq!(lone.store.status().regions.len() as u64, REGIONS);
    for id in 1..=REGIONS {
        let key = format!("{id:04}x");
        let stored = lone.engine.get(Cf::Raw, &keys::raw(RawCf::Default, key.as_bytes()));
        assert_eq!(stored, Ok(Some(key.clone().into())), "its log was applied again");
        let slot = lone.put(id, &key);
        let turn = lone.turn();
        lone.carry_out(turn);
        assert_eq!(slot.take(), Some(Ok(WriteResult::Applied)));
    }
}

#[test]
fn a_region_is_created_once_and_never_over_another() {
    let mut lone = all_regions();
    assert_eq!(lone.bootstrap(region(7)), Some(Ok(())), "again changes nothing");
    let mut over = region(7);
    over.id = 99;
    assert!(matches!(lone.bootstrap(over), Some(Err(RegionError::RegionNotFound { .. }))));
    let mut elsewhere = region(7);
    elsewhere.id = 99;
    elsewhere.peers[0].store_id = 5;
    assert!(matches!(lone.bootstrap(elsewhere), Some(Err(RegionError::RegionNotFound { .. }))));
}

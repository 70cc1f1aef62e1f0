//! The whole core with its journal, step by step: bootstrap, restarts, what is lost and what is not.

use std::sync::Arc;

use engine::mem::MemEngine;
use engine::{Cf, Engine, KeyRange};

use super::*;

const NOW: u64 = 1_700_000_000_000;

/// A journal of one: changes are synced writes to an engine.
struct EngineJournal {
    engine: Arc<MemEngine>,
}

impl EngineJournal {
    fn new(engine: Arc<MemEngine>) -> Self {
        Self { engine }
    }

    fn commit(&self, change: &Change) -> engine::Result<()> {
        self.engine.write(&change.batch(Cf::Default))?;
        self.engine.sync()
    }

    fn load(&self) -> Result<Vec<Record>, RecordError> {
        let snapshot = self.engine.snapshot();
        let mut rows = snapshot.iter(Cf::Default, KeyRange::all());
        let mut records = Vec::new();
        let mut valid = rows.seek_to_first().unwrap();
        while valid {
            records.push(Record::decode(rows.key(), rows.value())?);
            valid = rows.next().unwrap();
        }
        Ok(records)
    }
}

/// A scheduler whose changes are committed before they are applied.
struct Rig {
    journal: EngineJournal,
    core: Scheduler,
}

impl Rig {
    fn open(engine: &Arc<MemEngine>, now_ms: u64) -> Self {
        let journal = EngineJournal::new(Arc::clone(engine));
        let records = journal.load().unwrap();
        let (core, change) = Scheduler::open(Config::default(), records, 77, now_ms).unwrap();
        let mut rig = Self { journal, core };
        rig.commit(change, now_ms);
        rig
    }

    fn commit(&mut self, change: Change, now_ms: u64) {
        self.journal.commit(&change).unwrap();
        self.core.apply(change, now_ms);
    }

    fn register(&mut self, id: u64) {
        let address = format!("127.0.0.1:{}", 20_160 + id);
        let store = metapb::Store { id, address, ..Default::default() };
        let change = self.core.put_store(store, NOW).unwrap();
        self.commit(change, NOW);
    }
}

fn report(meta: &metapb::Region) -> RegionInfo {
    RegionInfo { leader: Some(meta.peers[0]), meta: meta.clone(), ..Default::default() }
}

#[test]
fn the_first_regions_appear_with_the_last_of_the_stores_waited_for() {
    let mut rig = Rig::open(&Arc::new(MemEngine::new()), NOW);
    for id in [1, 2] {
        rig.register(id);
        assert_eq!(rig.core.initial_regions(id.into()), Ok(None));
        assert_eq!(rig.core.region_by_key(b""), None);
    }
    assert_eq!(rig.core.stores_awaited(), (2, 3));
    rig.register(2); // again: still the same two stores
    assert!(!rig.core.is_bootstrapped());
    rig.register(3);
    assert!(rig.core.is_bootstrapped());
    let regions = rig.core.initial_regions(3.into()).unwrap().unwrap();
    assert_eq!(regions.len(), 2);
    assert_eq!(rig.core.region_by_key(b"").unwrap().meta, regions[0]);
    assert_eq!(rig.core.region_by_key(&sentinel()).unwrap().meta, regions[1]);
    assert_eq!(rig.core.scan_regions(b"", b"", 9).len(), 2);

    // A store that comes later is told that there is a plan, and no regions of it.
    rig.register(4);
    assert_eq!(rig.core.initial_regions(4.into()), Ok(Some(vec![])));
    assert_eq!(rig.core.initial_regions(5.into()), Err(Error::StoreUnknown(5.into())));
    assert_eq!(rig.core.initial_regions(1.into()).unwrap().unwrap(), regions);
}

#[test]
fn a_plan_that_was_not_committed_was_never_seen() {
    let engine = Arc::new(MemEngine::new());
    let mut rig = Rig::open(&engine, NOW);
    rig.register(1);
    rig.register(2);
    let store = metapb::Store { id: 3, address: "c:1".into(), ..Default::default() };
    let change = rig.core.put_store(store, NOW).unwrap();
    assert!(change.puts.iter().any(|record| matches!(record, Record::Plan(_))));
    assert!(!rig.core.is_bootstrapped(), "decided, not durable");
    assert!(rig.core.region_by_key(b"").is_none());
    drop(change);
    assert!(!Rig::open(&engine, NOW).core.is_bootstrapped());
}

#[test]
fn a_restart_keeps_cluster_stores_plan_regions_and_safe_point() {
    let engine = Arc::new(MemEngine::new());
    let mut rig = Rig::open(&engine, NOW);
    (1..=3).for_each(|id| rig.register(id));
    let mut left = rig.core.region_by_key(b"").unwrap().meta.clone();
    let middle = proto::codec::encode(b"m");
    let mut right = metapb::Region { id: 900, start_key: middle.clone(), ..left.clone() };
    left.end_key = middle;
    for half in [&mut left, &mut right] {
        half.region_epoch = Some(metapb::RegionEpoch { conf_ver: 1, version: 2 });
    }
    let half_known = rig.core.region_heartbeat(report(&left), NOW).unwrap().0;
    assert!(half_known.is_empty(), "not written before both halves are known");
    assert!(rig.core.knows_region(&left));
    let whole = rig.core.region_heartbeat(report(&right), NOW).unwrap().0;
    assert_eq!(whole.puts.len(), 2, "both at once");
    rig.commit(whole, NOW);
    for half in [&left, &right] {
        assert!(rig.core.region_heartbeat(report(half), NOW).unwrap().0.is_empty(), "nothing new");
    }
    let change = rig.core.update_safe_point(5);
    rig.commit(change, NOW);
    assert!(rig.core.update_safe_point(4).is_empty(), "never back");

    let after = Rig::open(&engine, NOW + 1).core;
    assert_eq!(after.cluster_id(), 77);
    assert_eq!(after.stores().count(), 3);
    assert_eq!(after.initial_regions(1.into()), rig.core.initial_regions(1.into()));
    assert_eq!(after.safe_point(), 5);
    let metas = |core: &Scheduler| -> Vec<_> {
        core.scan_regions(b"", b"", 9).into_iter().map(|info| info.meta.clone()).collect()
    };
    assert_eq!(metas(&after), metas(&rig.core));
    assert_eq!(metas(&after).len(), 3);
}

#[test]
fn a_crash_between_the_reports_of_two_halves_leaves_no_hole() {
    let engine = Arc::new(MemEngine::new());
    let mut rig = Rig::open(&engine, NOW);
    (1..=3).for_each(|id| rig.register(id));
    let old = rig.core.region_by_key(b"").unwrap().meta.clone();
    let right = metapb::Region {
        id: 900,
        start_key: proto::codec::encode(b"m"),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 2 }),
        ..old.clone()
    };
    let change = rig.core.region_heartbeat(report(&right), NOW).unwrap().0;
    rig.commit(change, NOW);
    assert_eq!(rig.core.region_by_key(b"").unwrap().meta.end_key, right.start_key);
    let after = Rig::open(&Arc::new(engine.crash(0)), NOW).core;
    assert_eq!(after.region_by_key(b"").unwrap().meta, old);
    assert_eq!(after.region_by_key(&right.start_key).unwrap().meta, old);
}

#[test]
fn ids_and_timestamps_are_never_repeated_by_a_crash_that_loses_what_was_not_synced() {
    let mut engine = Arc::new(MemEngine::new());
    let (mut last_id, mut last_timestamp) = (0, 0);
    for life in 0..20u64 {
        // The clock falls back an hour with every second life.
        let now_ms = NOW - (life % 2) * 3_600_000;
        let mut rig = Rig::open(&engine, now_ms);
        for step in 0..300 {
            let ids = match rig.core.try_alloc_ids(7) {
                Some(ids) => ids,
                None => {
                    let (change, ids) = rig.core.alloc_ids(7);
                    rig.commit(change, now_ms);
                    ids
                }
            };
            assert!(ids.start > last_id, "{ids:?} after {last_id}");
            last_id = ids.end - 1;
            let largest = match rig.core.timestamp(3, now_ms + step * 50) {
                Err(TimestampError::WindowUsedUp) => {
                    let change = rig.core.extend_timestamps(now_ms + step * 50).unwrap();
                    rig.commit(change, now_ms);
                    rig.core.timestamp(3, now_ms + step * 50).unwrap()
                }
                other => other.unwrap(),
            };
            assert!(largest.get() - 2 > last_timestamp);
            last_timestamp = largest.get();
        }
        // Decided, written, not synced: kept or lost by the crash, and nobody was told.
        let (change, _) = rig.core.alloc_ids(ID_WINDOW * 2);
        engine.write(&change.batch(Cf::Default)).unwrap();
        engine = Arc::new(engine.crash((life % 3) as usize));
    }
}

#[test]
fn a_split_reported_at_once_shows_both_halves_and_late_reports_do_no_harm() {
    let mut rig = Rig::open(&Arc::new(MemEngine::new()), NOW);
    (1..=3).for_each(|id| rig.register(id));
    let old = rig.core.region_by_key(b"").unwrap().meta.clone();
    let (change, _) = rig.core.region_heartbeat(report(&old), NOW).unwrap();
    rig.commit(change, NOW);
    let (change, ids) = rig.core.ask_split(&old, 1).unwrap();
    rig.commit(change, NOW);
    assert_eq!(ids[0].new_peer_ids.len(), 3);
    let middle = proto::codec::encode(b"m");
    let epoch = Some(metapb::RegionEpoch { conf_ver: 1, version: 2 });
    let left = metapb::Region { end_key: middle.clone(), region_epoch: epoch, ..old.clone() };
    let right = metapb::Region {
        id: ids[0].new_region_id,
        start_key: middle,
        region_epoch: epoch,
        ..old.clone()
    };
    let change = rig.core.report_split(vec![right.clone(), left.clone()]).unwrap();
    rig.commit(change, NOW);
    assert_eq!(rig.core.region_by_key(b"").unwrap().meta, left);
    let part = rig.core.region_by_id(right.id.into()).unwrap();
    assert_eq!(part.meta, right);
    assert_eq!(part.leader, report(&right).leader, "until it says so itself");
    let stale = rig.core.region_heartbeat(report(&old), NOW).unwrap_err();
    assert!(matches!(stale, Error::RegionStale { .. }));
    assert!(rig.core.ask_split(&old, 0).is_err());
}

#[test]
fn heartbeats_of_strangers_are_refused() {
    let mut rig = Rig::open(&Arc::new(MemEngine::new()), NOW);
    (1..=3).for_each(|id| rig.register(id));
    let meta = rig.core.region_by_key(b"").unwrap().meta.clone();
    let leaderless = RegionInfo { leader: None, ..report(&meta) };
    assert!(rig.core.region_heartbeat(leaderless, NOW).is_err());
    let mut stranger = report(&meta);
    stranger.leader = Some(metapb::Peer { id: 999, store_id: 1, ..Default::default() });
    assert!(rig.core.region_heartbeat(stranger, NOW).is_err());
    let mut unknown_store = report(&meta);
    unknown_store.leader = Some(metapb::Peer { store_id: 9, ..meta.peers[0] });
    let refused = rig.core.region_heartbeat(unknown_store, NOW);
    assert_eq!(refused.unwrap_err(), Error::StoreUnknown(9.into()));
}

#[test]
fn what_is_not_a_schedulers_directory_is_refused() {
    let open =
        |records| Scheduler::open(Config::default(), records, 1, NOW).unwrap_err().to_string();
    assert!(open(vec![Record::ClusterId(1)]).contains("which format"));
    assert!(open(vec![Record::Format(2), Record::ClusterId(1)]).contains("its format is 2"));
    assert!(open(vec![Record::Format(1)]).contains("no cluster id"));
    let config = Config { initial_stores: 1, replicas: 3, ..Config::default() };
    let error = Scheduler::open(config, vec![], 1, NOW).unwrap_err().to_string();
    assert_eq!(error, "configuration: replicas: 3 is not between 1 and 1");
}

#[test]
fn a_failed_commit_is_told() {
    let engine = Arc::new(MemEngine::new());
    let mut rig = Rig::open(&engine, NOW);
    engine.fail_next_sync("disk gone");
    let (change, _) = rig.core.alloc_ids(ID_WINDOW * 2);
    assert!(rig.journal.commit(&change).is_err());
}

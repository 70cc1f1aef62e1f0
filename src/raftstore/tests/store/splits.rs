//! Cutting regions: under writes, on stores that were away, over crashes; what cannot be cut is refused.

use bytes::Bytes;
use engine::{Cf, Engine};
use prost::Message as _;
use proto::codec::encode;
use proto::flotillapb::RegionLocalState;
use raftstore::command::{ClientId, Request, WriteResult};
use raftstore::keys::Key;
use raftstore::msg::{SplitCheck, SplitChecked};
use raftstore::{Config, Order, RegionError, RequestHeader, StoreMsg};

use super::cluster::{Cluster, REGION, append, put};
use super::regions::cut;

pub(crate) const WHOLE: u64 = REGION.get();

#[test]
fn a_region_is_cut_and_both_parts_serve_at_once() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "apple", "1");
    cluster.put(1, "pear", "2");
    let new = cluster.split(WHOLE, &["m"]);
    assert_eq!(cluster.leader_of(WHOLE), Some(1));
    assert_eq!(cluster.leader_of(new[0]), Some(1), "it campaigned at once, no tick has passed");
    cluster.check_tiled();
    cluster.put_anywhere("apple", "3");
    cluster.put_anywhere("pear", "4");
    cluster.until_equal();
    for store in 1..=3 {
        assert_eq!(cluster.stored(store, "apple").as_deref(), Some("3"));
        assert_eq!(cluster.stored(store, "pear").as_deref(), Some("4"));
        assert_eq!(cluster.node(store).store.status().counters.splits, 1);
    }
}

#[test]
fn several_cuts_at_once_and_again() {
    let mut cluster = Cluster::led_by(2);
    let new = cluster.split(WHOLE, &["d", "h", "p"]);
    assert_eq!(new.len(), 3);
    cluster.until_led();
    cluster.check_tiled();
    let versions = cluster.regions(1).into_iter().map(|s| s.region.region_epoch.unwrap().version);
    assert_eq!(versions.collect::<Vec<_>>(), [4; 4], "one for each cut, the same for all parts");
    cluster.split(new[1], &["k"]);
    cluster.split(WHOLE, &["b"]);
    cluster.until_led();
    cluster.check_tiled();
    assert_eq!(cluster.regions(3).len(), 6);
    for key in ["a", "c", "e", "i", "l", "q"] {
        cluster.put_anywhere(key, key);
    }
    cluster.until_equal();
}

#[test]
fn the_scheduler_learns_of_all_parts_together_and_of_both_leads() {
    let mut cluster = Cluster::led_by(1);
    cluster.node(1).seen.heartbeats.clear();
    let new = cluster.split(WHOLE, &["m"]);
    let reports = std::mem::take(&mut cluster.node(1).seen.split_reports);
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].iter().map(|r| r.id).collect::<Vec<_>>(), [WHOLE, new[0]]);
    assert!(cluster.node(2).seen.split_reports.is_empty(), "only the leader's store tells");
    let heartbeats = std::mem::take(&mut cluster.node(1).seen.heartbeats);
    let mut told: Vec<_> = heartbeats.iter().map(|h| h.region.id).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, [WHOLE, new[0]]);
}

#[test]
fn what_was_on_its_way_for_the_whole_is_told_of_all_parts() {
    let mut cluster = Cluster::led_by(1);
    let old = cluster.header_of(WHOLE);
    let keys = vec![cut("m")];
    assert_eq!(cluster.order_region(WHOLE, Order::Split { keys }), Ok(()));
    let new = cluster.answer_split_requests(1);
    // Proposed behind the cut, in the same turn or a later one.
    let behind = cluster.write(1, put("pear", "v"));
    cluster.settle();
    let late = cluster.write_with(1, old.clone(), put("apple", "v"));
    cluster.settle();
    for slot in [behind, late] {
        let Some(Err(RegionError::EpochNotMatch { current })) = slot.take() else {
            panic!("it must be told that the region has changed");
        };
        assert_eq!(current.iter().map(|r| r.id).collect::<Vec<_>>(), [WHOLE, new[0]]);
        assert_eq!(current[1].start_key, cut("m"));
    }
    assert_eq!(cluster.stored(1, "pear"), None);
    let newcomer = cluster.header_of(new[0]);
    let stale = RequestHeader { epoch: old.epoch, ..newcomer };
    let slot = cluster.write_with(1, stale, put("pear", "v"));
    assert!(matches!(slot.take(), Some(Err(RegionError::EpochNotMatch { .. }))));
}

#[test]
fn reads_of_the_whole_end_with_the_cut() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "pear", "old");
    assert!(cluster.lease_read(1, "pear").is_some());
    let waiting = cluster.ask_read(1);
    let new = cluster.split(WHOLE, &["m"]);
    assert_eq!(cluster.lease_read(1, "pear"), None, "the header names the old generation");
    if let Some(Ok(permit)) = waiting.take() {
        assert_eq!(permit.read(|_| ()), Err(RegionError::StaleCommand));
    }
    let late = cluster.ask_read(1);
    cluster.settle();
    assert!(
        matches!(late.take(), Some(Err(RegionError::EpochNotMatch { current })) if current.len() == 2)
    );
    cluster.tick(3);
    let header = cluster.header_of(new[0]);
    let read = cluster.reader(1).read(&header, || cluster.now, |_| cluster.stored(1, "pear"));
    assert_eq!(read, Ok(Some("old".to_owned())));
}

#[test]
fn no_lease_outlives_a_cut_that_is_not_applied_here() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "pear", "old");
    cluster.node(1).stall_apply = true;
    let new = {
        let keys = vec![cut("m")];
        assert_eq!(cluster.order_region(WHOLE, Order::Split { keys }), Ok(()));
        cluster.answer_split_requests(1)
    };
    // The others have made the cut; their new peers elect a leader without this store, and a write goes there.
    cluster.until("a lead elsewhere", |cluster| cluster.leader_of(new[0]).is_some());
    let leader = cluster.leader_of(new[0]).unwrap();
    assert_ne!(leader, 1);
    assert_eq!(cluster.status(1).raft.role, raft::Role::Leader, "of the whole, as it believes");
    cluster.put_anywhere("pear", "new");
    assert_eq!(cluster.lease_read(1, "pear"), None);
    cluster.node(1).stall_apply = false;
    cluster.until_equal();
    cluster.check_tiled();
}

pub(crate) fn open_session(client: u64) -> Request {
    Request::OpenSession { client: ClientId(client) }
}

#[test]
fn retries_find_their_answer_on_either_side() {
    let mut cluster = Cluster::led_by(1);
    cluster.send_anywhere("x", open_session(7));
    cluster.send_anywhere("x", open_session(8));
    let first = cluster.send_anywhere("apple", append("apple", "a", 7, 1));
    let second = cluster.send_anywhere("pear", append("pear", "bb", 8, 1));
    assert_eq!(first, Some(Ok(WriteResult::Appended { value_bytes: 1 })));
    cluster.split(WHOLE, &["m"]);
    cluster.until_led();
    assert_eq!(cluster.send_anywhere("apple", append("apple", "a", 7, 1)), first);
    assert_eq!(cluster.send_anywhere("pear", append("pear", "bb", 8, 1)), second);
    assert_eq!(cluster.stored(1, "pear").as_deref(), Some("bb"));
    // And the session goes on in both.
    let next = cluster.send_anywhere("pear", append("pear", "c", 8, 2));
    assert_eq!(next, Some(Ok(WriteResult::Appended { value_bytes: 3 })));
}

#[test]
fn a_store_that_was_away_catches_up_by_its_log() {
    let mut cluster = Cluster::led_by(1);
    cluster.isolate(3);
    cluster.put(1, "apple", "1");
    let new = cluster.split(WHOLE, &["m"]);
    cluster.until_led();
    cluster.put_anywhere("pear", "2");
    let again = cluster.split(new[0], &["t"]);
    cluster.until_led();
    cluster.put_anywhere("ufo", "3");
    assert_eq!(cluster.regions(3).len(), 1);
    cluster.cut.clear();
    cluster.until_equal();
    assert!(cluster.region(3, again[0]).is_some());
    assert_eq!(cluster.stored(3, "pear").as_deref(), Some("2"));
    assert_eq!(cluster.node(3).store.status().counters.snapshots_installed, 0);
}

fn small_log(config: &mut Config) {
    config.log_gc_count_limit = 10;
    config.log_gc_ticks = 2;
}

#[test]
fn a_store_that_was_away_too_long_catches_up_by_snapshots() {
    let mut cluster = Cluster::led_by_with(1, small_log);
    cluster.put(1, "zebra", "stale");
    cluster.isolate(3);
    cluster.split(WHOLE, &["m", "t"]);
    cluster.until_led();
    for i in 0..200 {
        for prefix in ["a", "n", "z"] {
            cluster.put_anywhere(&format!("{prefix}{i}"), "v");
        }
    }
    cluster.tick(30);
    let part = cluster.region_with("zebra").id;
    let header = cluster.header_of(part);
    let leader = cluster.leader_of(part).unwrap();
    let mutations = vec![raftstore::command::Mutation::Delete {
        cf: Default::default(),
        key: Bytes::from_static(b"zebra"),
    }];
    let slot = cluster.write_with(leader, header, Request::Mutate { mutations, session: None });
    cluster.settle();
    assert_eq!(slot.take(), Some(Ok(WriteResult::Applied)));
    cluster.cut.clear();
    cluster.until_equal();
    assert_eq!(cluster.stored(3, "zebra"), None, "nothing of the old whole is left");
    assert_eq!(cluster.stored(3, "a199").as_deref(), Some("v"));
    assert_eq!(cluster.stored(3, "z199").as_deref(), Some("v"));
    assert_eq!(cluster.regions(3).len(), 3);
    assert!(cluster.node(3).store.status().counters.snapshots_installed >= 1);
    cluster.check_disjoint(3);
}

#[test]
fn a_crash_of_any_store_at_any_step_leaves_the_whole_or_all_parts() {
    for step in 0..6 {
        for victim in 1..=3 {
            for keep_all in [false, true] {
                let mut cluster = Cluster::led_by(1);
                cluster.put(1, "apple", "1");
                cluster.put(1, "pear", "2");
                let keys = vec![cut("g"), cut("m")];
                assert_eq!(cluster.order_region(WHOLE, Order::Split { keys }), Ok(()));
                cluster.answer_split_requests_by_steps(1, step);
                if keep_all {
                    Engine::sync(cluster.node(victim).engine.as_ref()).unwrap();
                }
                cluster.crash(victim);
                cluster.restart(victim);
                cluster.check_disjoint(victim);
                cluster.until_led();
                cluster.put_anywhere("apple", "3");
                cluster.put_anywhere("pear", "4");
                cluster.until_equal();
                cluster.check_tiled();
                assert_eq!(cluster.stored(victim, "pear").as_deref(), Some("4"), "step {step}");
            }
        }
    }
}

/// Whether some crash of a store, while its whole is cut at `m`, leaves the left part without the new one.
pub(crate) fn can_be_torn(store: u64) -> bool {
    (0..10).any(|rounds| (0..8).any(|batches| is_torn(store, rounds, batches)))
}

/// Whether a crash does that after so many rounds, if so many of the batches that were not synced are kept.
fn is_torn(store: u64, rounds: usize, batches: usize) -> bool {
    let mut cluster = Cluster::led_by(1);
    let keys = vec![cut("m")];
    assert_eq!(cluster.order_region(WHOLE, Order::Split { keys }), Ok(()));
    cluster.answer_split_requests_by_steps(1, rounds);
    let survivor = cluster.node(store).engine.crash(batches);
    let stored = survivor.get(Cf::Raft, &Key::RegionState(REGION).encode()).unwrap().unwrap();
    let left = RegionLocalState::decode(stored).unwrap().region.unwrap();
    let part = survivor.get(Cf::Raft, &Key::ApplyState(101.into()).encode()).unwrap();
    left.end_key == cut("m") && part.is_none()
}

#[test]
fn no_crash_tears_the_parts_apart() {
    assert!((1..=3).all(|store| !can_be_torn(store)));
}

#[test]
fn all_stores_crash_after_the_cut_and_nothing_synced_is_lost() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "pear", "2");
    let new = cluster.split(WHOLE, &["m"]);
    cluster.until_led();
    cluster.put_anywhere("plum", "3");
    for store in 1..=3 {
        cluster.crash(store);
    }
    for store in 1..=3 {
        cluster.restart(store);
    }
    cluster.until_led();
    cluster.until_equal();
    assert!(cluster.region(2, new[0]).is_some());
    assert_eq!(cluster.stored(2, "pear").as_deref(), Some("2"));
    assert_eq!(cluster.stored(2, "plum").as_deref(), Some("3"));
    cluster.put_anywhere("plum", "4");
}

#[test]
fn a_candidate_that_is_ahead_of_the_cut_is_heard_after_it() {
    let mut cluster = Cluster::led_by(1);
    cluster.node(2).stall_apply = true;
    cluster.isolate(3);
    let new = cluster.split(WHOLE, &["m"]);
    assert_eq!(cluster.leader_of(new[0]), None, "store 2 has not made the cut");
    cluster.node(2).stall_apply = false;
    cluster.settle();
    assert_eq!(cluster.leader_of(new[0]), Some(1), "no tick has passed");
}

#[test]
fn what_cannot_be_cut_is_refused_with_the_reason() {
    let mut cluster = Cluster::led_by(1);
    let reason = |cluster: &mut Cluster, keys: Vec<Bytes>| match cluster
        .order_region(WHOLE, Order::Split { keys })
    {
        Err(RegionError::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(&mut cluster, vec![Bytes::from_static(b"m")]).contains("memcomparable"));
    assert!(reason(&mut cluster, vec![cut("m"), cut("d")]).contains("not behind"));
    assert!(reason(&mut cluster, vec![Bytes::new()]).contains("memcomparable"));
    let new = cluster.split(WHOLE, &["m"]);
    cluster.until_led();
    assert!(reason(&mut cluster, vec![cut("t")]).contains("not inside"));
    assert!(reason(&mut cluster, vec![cut("m")]).contains("not inside"));
    let at_start = cluster.order_region(new[0], Order::Split { keys: vec![encode(b"m")] });
    assert!(matches!(at_start, Err(RegionError::Refused { .. })));
    // Another generation, either number.
    for (conf_ver, version) in [(0, 2), (1, 1), (2, 2), (1, 3)] {
        let mut header = cluster.header_of(WHOLE);
        header.epoch = proto::metapb::RegionEpoch { conf_ver, version };
        let slot = cluster.order(1, header, Order::Split { keys: vec![cut("d")] });
        assert!(matches!(slot.take(), Some(Err(RegionError::EpochNotMatch { .. }))));
    }
    // Not the leader.
    let header = cluster.header_of(WHOLE);
    let slot = cluster.order(2, header, Order::Split { keys: vec![cut("d")] });
    assert!(matches!(slot.take(), Some(Err(RegionError::NotLeader { .. }))));
    let elsewhere = RequestHeader::new(999.into(), Default::default());
    let slot = cluster.order(1, elsewhere, Order::Split { keys: vec![cut("d")] });
    assert!(matches!(slot.take(), Some(Err(RegionError::RegionNotFound { .. }))));
}

#[test]
fn a_second_cut_waits_for_the_first() {
    let mut cluster = Cluster::led_by(1);
    cluster.node(1).stall_log = true;
    let keys = vec![cut("m")];
    assert_eq!(cluster.order_region(WHOLE, Order::Split { keys: keys.clone() }), Ok(()));
    cluster.answer_split_requests(1);
    cluster.send(1, StoreMsg::Tick);
    let header = super::cluster::header();
    let slot = cluster.order(1, header, Order::Split { keys });
    assert!(matches!(slot.take(), Some(Err(RegionError::Refused { .. }))));
    cluster.node(1).stall_log = false;
    cluster.settle();
    cluster.until_led();
    assert_eq!(cluster.regions(2).len(), 2);
}

#[test]
fn ids_that_come_too_late_or_do_not_fit_change_nothing() {
    let mut cluster = Cluster::led_by(1);
    let keys = vec![cut("m")];
    assert_eq!(cluster.order_region(WHOLE, Order::Split { keys: keys.clone() }), Ok(()));
    assert_eq!(cluster.order_region(WHOLE, Order::Split { keys }), Ok(()), "ids may get lost");
    cluster.settle();
    let requests = std::mem::take(&mut cluster.node(1).seen.split_requests);
    assert_eq!(requests.len(), 2);
    let mut misfit = cluster.new_ids(&requests[0]);
    misfit[0].peers.pop();
    let none = Err("no ids".to_owned());
    cluster.send(1, StoreMsg::SplitIds { request: requests[0].clone(), ids: Ok(misfit) });
    cluster.send(1, StoreMsg::SplitIds { request: requests[0].clone(), ids: none });
    cluster.settle();
    assert_eq!(cluster.regions(1).len(), 1);
    for request in requests {
        let ids = Ok(cluster.new_ids(&request));
        cluster.send(1, StoreMsg::SplitIds { request, ids });
        cluster.settle();
    }
    assert_eq!(cluster.regions(1).len(), 2, "the second answer found another epoch");
    cluster.until_led();
    cluster.check_tiled();
}

#[test]
fn an_order_without_keys_cuts_where_the_data_are_halved() {
    let mut cluster = Cluster::led_by(1);
    assert_eq!(cluster.order_region(WHOLE, Order::Split { keys: Vec::new() }), Ok(()));
    cluster.settle();
    assert!(cluster.node(1).seen.split_requests.is_empty(), "there is nothing to cut");
    for i in 0..40 {
        cluster.put(1, &format!("key{i:04}"), "v");
    }
    assert_eq!(cluster.order_region(WHOLE, Order::Split { keys: Vec::new() }), Ok(()));
    cluster.settle();
    let keys = cluster.node(1).seen.split_requests[0].keys.clone();
    assert!(keys.len() == 1 && keys[0] > "key0010" && keys[0] < "key0030", "{keys:?}");
    cluster.answer_split_requests(1);
    cluster.until_led();
    cluster.check_tiled();
    assert_eq!(cluster.regions(2).len(), 2);
}

#[test]
fn what_was_measured_before_a_cut_is_not_acted_on_after_it() {
    let mut cluster = Cluster::led_by(1);
    let region = std::sync::Arc::new(super::cluster::region());
    let check = SplitCheck { region, part_bytes: 0, part_keys: 0 };
    let checked = SplitChecked { check, bytes: 10, keys: 2, split_keys: vec![cut("d")] };
    cluster.split(WHOLE, &["m"]);
    cluster.send(1, StoreMsg::SplitChecked(checked));
    cluster.settle();
    assert!(cluster.node(1).seen.split_requests.is_empty());
}

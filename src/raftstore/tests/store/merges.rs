//! Merging regions: with lagging peers, with leads on other stores, over crashes; what cannot be merged is refused, what
//! cannot be finished is rolled back, and never both.

use proto::metapb;
use raftstore::command::{ClientId, Request, WriteResult};
use raftstore::{Config, Order, RegionError};

use super::cluster::{Cluster, REGION, append, put};
use super::regions::cut;

pub(crate) const LEFT: u64 = REGION.get();

/// Two regions, cut at `m`, both led by store 1, and the right one's id.
pub(crate) fn two_regions_with(adjust: impl FnOnce(&mut Config)) -> (Cluster, u64) {
    let mut cluster = Cluster::led_by_with(1, |config| {
        config.merge_timeout_ticks = 40;
        adjust(config);
    });
    cluster.put(1, "apple", "1");
    cluster.put(1, "pear", "2");
    let right = cluster.split(LEFT, &["m"])[0];
    cluster.until_led();
    cluster.until_equal();
    (cluster, right)
}

pub(crate) fn two_regions() -> (Cluster, u64) {
    two_regions_with(|_| {})
}

pub(crate) fn target(cluster: &Cluster, id: u64) -> metapb::Region {
    let leader = cluster.leader_of(id).expect("led");
    metapb::Region::clone(&cluster.region(leader, id).expect("there").region)
}

pub(crate) fn order_merge(
    cluster: &mut Cluster,
    source: u64,
    into: u64,
) -> Result<(), RegionError> {
    let target = target(cluster, into);
    cluster.order_region(source, Order::Merge { target })
}

pub(crate) fn is_merging(cluster: &Cluster, store: u64, id: u64) -> bool {
    cluster.region(store, id).is_some_and(|status| status.merging)
}

/// The merge has come to its end on all stores.
pub(crate) fn check_merged(cluster: &mut Cluster, source: u64, into: u64) {
    cluster.until("the end of the source on all stores", |cluster| {
        (1..=3).all(|store| cluster.region(store, source).is_none())
    });
    cluster.until_led();
    cluster.until_equal();
    cluster.check_tiled();
    let merged = target(cluster, into);
    assert!(merged.start_key.is_empty() && merged.end_key.is_empty(), "{merged:?}");
    cluster.put_anywhere("apple", "3");
    cluster.put_anywhere("pear", "4");
    cluster.until_equal();
    for store in 1..=3 {
        assert_eq!(cluster.stored(store, "apple").as_deref(), Some("3"));
        assert_eq!(cluster.stored(store, "pear").as_deref(), Some("4"));
    }
}

/// The merge was called off, and both regions serve.
pub(crate) fn check_rolled_back(cluster: &mut Cluster, source: u64) {
    cluster.until("the end of the merge", |cluster| {
        (1..=3).all(|store| cluster.region(store, source).is_some_and(|status| !status.merging))
    });
    cluster.until_led();
    cluster.until_equal();
    cluster.check_tiled();
    cluster.put_anywhere("apple", "3");
    cluster.put_anywhere("pear", "4");
}

#[test]
fn a_region_takes_its_right_or_left_neighbour_over() {
    for to_the_left in [true, false] {
        let (mut cluster, right) = two_regions();
        let (source, into) = if to_the_left { (right, LEFT) } else { (LEFT, right) };
        let before = target(&cluster, into).region_epoch.unwrap();
        assert_eq!(order_merge(&mut cluster, source, into), Ok(()));
        cluster.settle();
        assert_eq!(cluster.regions(1).len(), 1, "both leads are here: no tick has passed");
        check_merged(&mut cluster, source, into);
        let after = target(&cluster, into).region_epoch.unwrap();
        assert!(after.version > before.version && after.conf_ver == before.conf_ver);
        for store in 1..=3 {
            assert_eq!(cluster.node(store).store.status().counters.merges, 1);
        }
        // And all of it holds after a restart.
        for store in 1..=3 {
            cluster.crash(store);
        }
        for store in 1..=3 {
            cluster.restart(store);
        }
        cluster.until_led();
        check_merged(&mut cluster, source, into);
    }
}

#[test]
fn what_was_merged_can_be_cut_and_merged_again() {
    let (mut cluster, right) = two_regions();
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    check_merged(&mut cluster, right, LEFT);
    let again = cluster.split(LEFT, &["g"])[0];
    cluster.until_led();
    assert_eq!(order_merge(&mut cluster, LEFT, again), Ok(()));
    check_merged(&mut cluster, LEFT, again);
}

#[test]
fn leads_on_different_stores_come_together() {
    let (mut cluster, right) = two_regions();
    cluster.move_lead_of(LEFT, 2);
    cluster.move_lead_of(right, 3);
    let target = target(&cluster, LEFT);
    assert_eq!(cluster.order_region(right, Order::Merge { target }), Ok(()));
    check_merged(&mut cluster, right, LEFT);
    assert_eq!(cluster.leader_of(LEFT), Some(2), "the one that serves kept its lead");
}

#[test]
fn a_frozen_region_serves_nobody_and_says_so() {
    let (mut cluster, right) = two_regions();
    cluster.tick(3);
    let header = cluster.header_of(right);
    let read = |cluster: &Cluster, header: &raftstore::RequestHeader| {
        let read = cluster.reader(1).read(header, || cluster.now, |_| cluster.stored(1, "pear"));
        read.ok()
    };
    assert!(read(&cluster, &header).is_some());
    // One of its peers stands still, so the merge cannot go on.
    cluster.node(3).stall_log = true;
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.settle();
    assert!(is_merging(&cluster, 1, right));
    assert_eq!(read(&cluster, &header), None);
    let frozen = cluster.header_of(right);
    for header in [header, frozen.clone()] {
        assert_eq!(read(&cluster, &header), None);
        let slot = cluster.write_with(1, header, put("pear", "v"));
        let error = slot.take().expect("at once");
        assert_eq!(error, Err(RegionError::Merging { region: right.into() }));
    }
    let split = cluster.order_region(right, Order::Split { keys: vec![cut("t")] });
    assert!(split.is_err(), "{split:?}");
    let again = order_merge(&mut cluster, right, LEFT);
    assert!(again.is_err(), "{again:?}");
    cluster.put_anywhere("apple", "the target serves");
    cluster.node(3).stall_log = false;
    check_merged(&mut cluster, right, LEFT);
}

#[test]
fn a_source_that_lags_on_one_store_is_awaited_there() {
    for stalled in [2, 3] {
        let (mut cluster, right) = two_regions();
        // Its log grows, its data do not: the other stores finish without it.
        cluster.node(stalled).stall_apply = true;
        for i in 0..20 {
            cluster.put_anywhere(&format!("pear{i}"), "v");
        }
        assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
        cluster.until("the merge elsewhere", |cluster| cluster.region(1, right).is_none());
        cluster.put_anywhere("plum", "after");
        assert!(cluster.region(stalled, right).is_some());
        cluster.node(stalled).stall_apply = false;
        cluster.until_equal();
        check_merged(&mut cluster, right, LEFT);
        assert_eq!(cluster.stored(stalled, "pear19").as_deref(), Some("v"));
        assert_eq!(cluster.stored(stalled, "plum").as_deref(), Some("after"));
    }
}

#[test]
fn a_store_that_only_has_the_log_learns_the_commit_from_the_target() {
    let (mut cluster, right) = two_regions();
    cluster.mute = Some((3, right));
    cluster.put_anywhere("pear0", "v");
    cluster.put_anywhere("pear4", "v");
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.settle();
    assert!(cluster.region(1, right).is_none(), "store 3 has acknowledged the freeze");
    check_merged(&mut cluster, right, LEFT);
    assert_eq!(cluster.stored(3, "pear4").as_deref(), Some("v"));
}

#[test]
fn a_retry_across_a_merge_is_answered_once() {
    let (mut cluster, right) = two_regions();
    let open = |client| Request::OpenSession { client: ClientId(client) };
    cluster.send_anywhere("apple", open(7));
    cluster.send_anywhere("pear", open(7));
    cluster.send_anywhere("pear", open(8));
    let early = cluster.send_anywhere("apple", append("apple", "x", 7, 1));
    let first = cluster.send_anywhere("pear", append("pear", "a", 7, 2));
    let second = cluster.send_anywhere("pear", append("pear", "b", 8, 1));
    assert_eq!(early, Some(Ok(WriteResult::Appended { value_bytes: 2 })));
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.until("the merge", |cluster| cluster.region(1, right).is_none());
    cluster.until_led();
    assert_eq!(cluster.send_anywhere("pear", append("pear", "a", 7, 2)), first);
    assert_eq!(cluster.send_anywhere("pear", append("pear", "b", 8, 1)), second);
    let stale = cluster.send_anywhere("apple", append("apple", "x", 7, 1));
    assert_eq!(stale, Some(Ok(WriteResult::StaleSequence { last: 2 })), "the larger one won");
    assert_eq!(cluster.stored(1, "pear").as_deref(), Some("2ab"));
    assert_eq!(cluster.stored(1, "apple").as_deref(), Some("1x"));
}

#[test]
fn a_merge_with_a_peer_that_is_gone_is_called_off() {
    let (mut cluster, right) = two_regions();
    cluster.move_lead_of(LEFT, 2);
    cluster.node(3).stall_log = true;
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.settle();
    assert!(is_merging(&cluster, 1, right));
    cluster.crash(3);
    let before = target(&cluster, LEFT).region_epoch.unwrap().version;
    cluster.until("the end of the merge", |cluster| {
        (1..=2).all(|store| cluster.region(store, right).is_some_and(|status| !status.merging))
    });
    assert_eq!(target(&cluster, LEFT).region_epoch.unwrap().version, before + 1, "abandoned");
    cluster.put_anywhere("pear", "v");
    cluster.restart(3);
    check_rolled_back(&mut cluster, right);
    // It works once the peer is back.
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    check_merged(&mut cluster, right, LEFT);
}

/// The source's lead cannot go where the target is led: the source's peer there is the one that does not answer.
#[test]
fn a_merge_is_called_off_though_the_leads_cannot_meet() {
    let (mut cluster, right) = two_regions();
    cluster.move_lead_of(LEFT, 2);
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.deaf = Some((2, right));
    cluster.settle();
    assert!(is_merging(&cluster, 1, right));
    cluster.until("the end of the merge", |cluster| {
        !is_merging(cluster, 1, right) && cluster.leader_of(right).is_some()
    });
    assert_eq!(cluster.leader_of(LEFT), Some(2));
    cluster.put_anywhere("pear", "serves again");
    cluster.deaf = None;
    check_rolled_back(&mut cluster, right);
}

/// The snapshot that arrives holds the source's keys; meanwhile the target takes the source over from its own log after all.
#[test]
fn a_merge_by_the_log_may_overtake_the_snapshot_that_holds_it() {
    let (mut cluster, right) = two_regions_with(|config| {
        config.log_gc_count_limit = 10;
        config.log_gc_ticks = 2;
    });
    cluster.node(3).stall_apply = true;
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.until("the merge", |cluster| cluster.region(1, right).is_none());
    cluster.tick(3);
    cluster.isolate(3);
    for i in 0..100 {
        cluster.put_anywhere(&format!("k{i}"), "v");
    }
    cluster.tick(20);
    cluster.cut.clear();
    cluster.until("the snapshot", |cluster| {
        cluster.region(3, LEFT).is_some_and(|status| status.installing)
    });
    cluster.tick(3);
    assert!(cluster.region(3, right).is_some(), "the applier stands still");
    cluster.node(3).stall_apply = false;
    check_merged(&mut cluster, right, LEFT);
    assert_eq!(cluster.stored(3, "k99").as_deref(), Some("v"));
}

#[test]
fn a_target_that_has_changed_meanwhile_is_not_merged_into() {
    let (mut cluster, right) = two_regions();
    cluster.node(3).stall_log = true;
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.settle();
    cluster.node(3).stall_log = false;
    // The target is cut before the source is ready.
    let keys = vec![cut("d")];
    assert_eq!(cluster.order_region(LEFT, Order::Split { keys }), Ok(()));
    cluster.answer_split_requests(1);
    cluster.settle();
    check_rolled_back(&mut cluster, right);
    assert_eq!(cluster.regions(1).len(), 3);
}

#[test]
fn a_crash_of_any_store_at_any_step_ends_in_one_of_the_two() {
    let (mut merged, mut rolled_back) = (0, 0);
    for rounds in 0..14 {
        for victim in 1..=3 {
            for keep_all in [false, true] {
                let (mut cluster, right) = two_regions();
                cluster.move_lead_of(LEFT, 2);
                assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
                for _ in 0..rounds {
                    cluster.round();
                }
                if keep_all {
                    engine::Engine::sync(cluster.node(victim).engine.as_ref()).unwrap();
                }
                cluster.crash(victim);
                cluster.tick(rounds % 3 * 20);
                cluster.restart(victim);
                cluster.check_disjoint(victim);
                cluster.until("an end of the merge", |cluster| {
                    let known = |store| cluster.region(store, right);
                    let gone = (1..=3).all(|store| known(store).is_none());
                    let back = (1..=3).all(|s| known(s).is_some_and(|status| !status.merging));
                    gone || (back && !cluster.has_pending(right))
                });
                if cluster.region(1, right).is_none() {
                    merged += 1;
                    check_merged(&mut cluster, right, LEFT);
                } else {
                    rolled_back += 1;
                    check_rolled_back(&mut cluster, right);
                }
            }
        }
    }
    assert!(merged > 40 && rolled_back > 0, "{merged} merged, {rolled_back} rolled back");
}

#[test]
fn all_stores_crash_at_any_step() {
    for rounds in 0..14 {
        let (mut cluster, right) = two_regions();
        assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
        for _ in 0..rounds {
            cluster.round();
        }
        for store in 1..=3 {
            cluster.crash(store);
        }
        for store in 1..=3 {
            cluster.restart(store);
            cluster.check_disjoint(store);
        }
        cluster.until_led();
        cluster.until("rest", |cluster| (1..=3).all(|s| !is_merging(cluster, s, right)));
        cluster.until_led();
        cluster.until_equal();
        cluster.check_tiled();
        cluster.put_anywhere("pear", "5");
        assert_eq!(cluster.stored(1, "apple").as_deref(), Some("1"));
    }
}

#[test]
fn what_cannot_be_merged_is_refused_with_the_reason() {
    let (mut cluster, right) = two_regions();
    let third = cluster.split(right, &["t"])[0];
    cluster.until_led();
    let refuse = |cluster: &mut Cluster, source, target: metapb::Region| match cluster
        .order_region(source, Order::Merge { target })
    {
        Err(RegionError::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let [left, middle] = [LEFT, right].map(|id| target(&cluster, id));
    let not_adjacent = refuse(&mut cluster, third, left.clone());
    assert_eq!(not_adjacent, format!("region {LEFT} is not a neighbour"));
    assert_eq!(
        refuse(&mut cluster, right, middle.clone()),
        format!("region {right} is not a neighbour")
    );
    let unknown = metapb::Region { id: 999, ..left.clone() };
    assert_eq!(refuse(&mut cluster, right, unknown), "region 999 has no peer on this store");
    for (conf_ver, version) in [(1, 1), (2, 2), (1, 3)] {
        let epoch = Some(metapb::RegionEpoch { conf_ver, version });
        let other = metapb::Region { region_epoch: epoch, ..left.clone() };
        let reason = refuse(&mut cluster, right, other);
        assert_eq!(reason, format!("region {LEFT} is in another epoch here"));
    }
    let mut header = cluster.header_of(right);
    header.epoch.version -= 1;
    let slot = cluster.order(1, header, Order::Merge { target: left.clone() });
    assert!(matches!(slot.take(), Some(Err(RegionError::EpochNotMatch { .. }))));

    // Frozen, waiting for store 3: neither it nor its target can take part in another merge.
    cluster.node(3).stall_log = true;
    assert_eq!(cluster.order_region(right, Order::Merge { target: left }), Ok(()));
    cluster.settle();
    assert!(is_merging(&cluster, 1, right));
    let frozen = target(&cluster, right);
    let reason = refuse(&mut cluster, third, frozen);
    assert_eq!(reason, format!("region {right} is being merged itself"));
    let end = target(&cluster, third);
    let reason = refuse(&mut cluster, LEFT, end);
    assert_eq!(reason, format!("region {right} is just being merged"));
    cluster.node(3).stall_log = false;

    cluster.until("the merge", |cluster| cluster.region(1, right).is_none());
    cluster.until_led();
    cluster.crash(3);
    cluster.tick(60);
    let left = target(&cluster, LEFT);
    let reason = refuse(&mut cluster, third, left);
    assert!(reason.contains("is down"), "{reason}");
}

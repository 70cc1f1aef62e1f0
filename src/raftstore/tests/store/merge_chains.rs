//! Merges that meet others, and peers that learn late: chains, two that want each other, sources and targets that lag, answers
//! that come at the wrong time.

use raftstore::msg::SplitRequest;
use raftstore::{Order, StoreMsg};

use super::cluster::{Cluster, REGION};
use super::merges::{
    LEFT, check_merged, check_rolled_back, is_merging, order_merge, target, two_regions,
    two_regions_with,
};
use super::regions::cut;

/// Both are frozen before either can know of the other.
#[test]
fn of_two_sources_of_one_target_the_second_is_rolled_back() {
    let (mut cluster, middle) = two_regions();
    let end = cluster.split(middle, &["t"])[0];
    cluster.until_led();
    let target = target(&cluster, middle);
    let [left, right] = [LEFT, end].map(|id| cluster.header_of(id));
    for header in [left, right] {
        let slot = cluster.order(1, header, Order::Merge { target: target.clone() });
        assert_eq!(slot.take(), Some(Ok(())));
    }
    cluster.settle();
    cluster.until("rest", |cluster| {
        (1..=3).all(|store| {
            let regions = cluster.regions(store);
            regions.len() == 2 && regions.iter().all(|status| !status.merging)
        })
    });
    cluster.until_led();
    cluster.until_equal();
    cluster.check_tiled();
    for key in ["apple", "pear", "ufo"] {
        cluster.put_anywhere(key, "v");
    }
}

/// A store whose applier stood still learns of a chain of merges, and of a cut before it, in one go.
#[test]
fn what_a_region_did_before_it_ended_is_not_forgotten() {
    let (mut cluster, middle) = two_regions();
    let end = cluster.split(middle, &["t"])[0];
    cluster.until_led();
    cluster.until_equal();
    cluster.node(3).stall_apply = true;
    let part = cluster.split(middle, &["p"])[0];
    cluster.until_led();
    assert_eq!(order_merge(&mut cluster, LEFT, middle), Ok(()));
    cluster.until("the first merge", |cluster| {
        cluster.region(1, LEFT).is_none() && cluster.leader_of(middle).is_some()
    });
    assert_eq!(order_merge(&mut cluster, middle, part), Ok(()));
    cluster.until("the second merge", |cluster| cluster.region(1, middle).is_none());
    cluster.node(3).stall_apply = false;
    cluster.until_equal();
    cluster.check_tiled();
    let ids: Vec<_> = cluster.regions(3).iter().map(|status| status.region.id).collect();
    assert_eq!(ids, [end, part]);
}

/// The scheduler says that it was merged away, and so it was: but not here, where its target is still to be born.
#[test]
fn a_source_that_its_target_will_need_is_not_destroyed() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "apple", "1");
    cluster.until_equal();
    cluster.node(3).stall_apply = true;
    cluster.put(1, "pear", "2");
    let right = cluster.split(LEFT, &["m"])[0];
    cluster.until("a lead", |cluster| cluster.leader_of(right).is_some());
    assert_eq!(order_merge(&mut cluster, LEFT, right), Ok(()));
    cluster.until("the merge", |cluster| {
        cluster.region(1, LEFT).is_none() && cluster.leader_of(right).is_some()
    });
    let holder = target(&cluster, right);
    cluster.send(3, StoreMsg::RegionAnswer { asked: REGION, holder: holder.clone() });
    cluster.settle();
    assert!(cluster.region(3, LEFT).is_some());
    cluster.node(3).stall_apply = false;
    cluster.settle();
    cluster.send(3, StoreMsg::RegionAnswer { asked: REGION, holder });
    cluster.until_equal();
    assert_eq!(cluster.stored(3, "apple").as_deref(), Some("1"));
    assert_eq!(cluster.stored(3, "pear").as_deref(), Some("2"));
}

/// On store 3 the cut that makes the target, and the merge into it, are never heard to be committed; those who could say so
/// have gone with the merge.
#[test]
fn a_source_whose_log_nobody_can_commit_any_more_makes_room() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "apple", "1");
    cluster.until_equal();
    cluster.mute = Some((3, LEFT));
    let right = cluster.split(LEFT, &["m"])[0];
    cluster.until("a lead", |cluster| cluster.leader_of(right).is_some());
    assert_eq!(order_merge(&mut cluster, LEFT, right), Ok(()));
    cluster.until("the merge", |cluster| {
        cluster.region(1, LEFT).is_none() && cluster.region(2, LEFT).is_none()
    });
    cluster.mute = None;
    cluster.tick(40);
    assert!(cluster.region(3, LEFT).is_some() && cluster.region(3, right).is_none());
    let holder = target(&cluster, right);
    cluster.send(3, StoreMsg::RegionAnswer { asked: REGION, holder });
    cluster.until_equal();
    assert_eq!(cluster.stored(3, "apple").as_deref(), Some("1"));
}

/// Store 3 is frozen when it goes away; it comes back to a region that was rolled back, by a snapshot, and has to lead it.
#[test]
fn a_frozen_peer_that_gets_a_snapshot_is_not_frozen_any_more() {
    let (mut cluster, right) = two_regions_with(|config| {
        config.log_gc_count_limit = 10;
        config.log_gc_ticks = 2;
    });
    cluster.node(2).stall_log = true;
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.settle();
    assert!(is_merging(&cluster, 3, right));
    cluster.isolate(3);
    // The target is cut before the source is ready.
    let keys = vec![cut("d")];
    assert_eq!(cluster.order_region(LEFT, Order::Split { keys }), Ok(()));
    cluster.answer_split_requests(1);
    cluster.node(2).stall_log = false;
    cluster.settle();
    cluster.until("the end of the merge", |cluster| {
        !is_merging(cluster, 1, right) && cluster.leader_of(right).is_some()
    });
    for i in 0..100 {
        cluster.put_anywhere(&format!("pear{i}"), "v");
    }
    cluster.tick(20);
    assert!(is_merging(&cluster, 3, right));
    cluster.cut.clear();
    check_rolled_back(&mut cluster, right);
    cluster.move_lead_of(right, 3);
    cluster.put_anywhere("pear", "led by the one that was away");
    assert!(cluster.node(3).store.status().counters.snapshots_installed >= 1);
}

/// The target grows to the left and is cut where it began: a peer that lags knows it by a start key that is another's now.
#[test]
fn a_region_that_grew_to_the_left_and_was_cut_is_not_taken_for_merged_away() {
    let (mut cluster, right) = two_regions();
    cluster.deaf = Some((3, right));
    assert_eq!(order_merge(&mut cluster, LEFT, right), Ok(()));
    cluster.until("the merge", |cluster| {
        cluster.region(1, LEFT).is_none() && cluster.leader_of(right).is_some()
    });
    let part = cluster.split(right, &["m"])[0];
    cluster.until("a lead", |cluster| cluster.leader_of(part).is_some());
    let holder = target(&cluster, part);
    assert_eq!(holder.start_key, cluster.region(3, right).expect("it lags").region.start_key);
    cluster.send(3, StoreMsg::RegionAnswer { asked: right.into(), holder });
    cluster.settle();
    assert!(cluster.region(3, right).is_some(), "it lives, elsewhere");
    cluster.deaf = None;
    cluster.until_equal();
    cluster.check_disjoint(3);
    assert_eq!(cluster.stored(3, "apple").as_deref(), Some("1"));
}

/// The cut was decided for the epoch that the region has while it is frozen.
#[test]
fn ids_that_come_while_a_region_is_frozen_do_not_cut_it() {
    let (mut cluster, right) = two_regions();
    cluster.node(3).stall_log = true;
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.settle();
    assert!(is_merging(&cluster, 1, right));
    let region = cluster.region(1, right).expect("there").region;
    let request = SplitRequest { region, keys: vec![cut("t")] };
    let ids = Ok(cluster.new_ids(&request));
    cluster.send(1, StoreMsg::SplitIds { request, ids });
    cluster.settle();
    assert_eq!(cluster.regions(1).len(), 2);
    cluster.node(3).stall_log = false;
    check_merged(&mut cluster, right, LEFT);
}

/// Each is the other's target, and frozen before it can know.
#[test]
fn two_neighbours_that_want_each_other_are_both_rolled_back() {
    let (mut cluster, right) = two_regions();
    let orders = [(LEFT, right), (right, LEFT)];
    let orders = orders.map(|(source, into)| (cluster.header_of(source), target(&cluster, into)));
    for (header, target) in orders {
        let slot = cluster.order(1, header, Order::Merge { target });
        assert_eq!(slot.take(), Some(Ok(())));
    }
    cluster.settle();
    check_rolled_back(&mut cluster, right);
    check_rolled_back(&mut cluster, LEFT);
    assert_eq!(order_merge(&mut cluster, LEFT, right), Ok(()));
    check_merged(&mut cluster, LEFT, right);
}

/// A target ends in a third region while a source waits for it.
#[test]
fn a_source_whose_target_was_merged_away_is_rolled_back() {
    let (mut cluster, middle) = two_regions();
    let end = cluster.split(middle, &["t"])[0];
    cluster.until_led();
    // The third is far ahead in version, so that versions prove nothing.
    for key in ["w", "v", "u"] {
        cluster.split(end, &[key]);
        cluster.until_led();
    }
    let orders = [(LEFT, middle), (middle, end)];
    let orders = orders.map(|(source, into)| (cluster.header_of(source), target(&cluster, into)));
    for (header, target) in orders {
        let slot = cluster.order(1, header, Order::Merge { target });
        assert_eq!(slot.take(), Some(Ok(())));
    }
    cluster.until("the end of the middle", |cluster| {
        (1..=3).all(|store| cluster.region(store, middle).is_none())
    });
    cluster.until("rest", |cluster| (1..=3).all(|store| !is_merging(cluster, store, LEFT)));
    cluster.until_led();
    cluster.until_equal();
    cluster.check_tiled();
    for key in ["apple", "pear", "tuna"] {
        cluster.put_anywhere(key, "v");
    }
}

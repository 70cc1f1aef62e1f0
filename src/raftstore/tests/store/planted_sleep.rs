//! The planted bugs of sleep and of cuts, each shown by a staged scene. Only with the feature `planted`.

use proto::codec;
use raftstore::planted::Bug;

use super::cluster::Cluster;
use super::planted::Planted;

const REST_TICKS: usize = 80;

fn sleeping() -> Cluster {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "old");
    cluster.tick(REST_TICKS);
    assert!((1..=3).all(|store| cluster.status(store).hibernating));
    cluster
}

fn takes_over(cluster: &mut Cluster, ticks: usize) -> Option<u64> {
    for _ in 0..ticks {
        cluster.tick(1);
        let leads = |store: &u64| cluster.status(*store).raft.role == raft::Role::Leader;
        if let Some(leader) = (2..=3).find(leads) {
            return Some(leader);
        }
    }
    None
}

#[test]
fn a_lease_kept_in_sleep_serves_beside_the_next_leader() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "old");
    let _bug = Planted::new(Bug::LeaseKeptAsleep);
    cluster.tick(REST_TICKS);
    cluster.isolate(1);
    let leader = takes_over(&mut cluster, 100).expect("the others elect one of them");
    cluster.put(leader, "k", "new");
    assert_eq!(cluster.lease_read(1, "k"), Some(Some("old".to_owned())), "stale");
}

#[test]
fn a_woken_peer_that_is_not_ticked_lets_the_region_hang() {
    let mut cluster = sleeping();
    let _bug = Planted::new(Bug::WokenPeerNotTicked);
    cluster.crash(1);
    assert_eq!(takes_over(&mut cluster, 400), None);
}

#[test]
fn a_silent_store_that_is_ignored_leaves_its_regions_without_a_leader() {
    let mut cluster = sleeping();
    let _bug = Planted::new(Bug::SilentStoreIgnored);
    cluster.crash(1);
    assert_eq!(takes_over(&mut cluster, 400), None);
}

#[test]
fn a_region_that_sleeps_while_a_follower_is_busy_leaves_it_behind() {
    for planted in [false, true] {
        let mut cluster = Cluster::led_by(1);
        let _bug = planted.then(|| Planted::new(Bug::SleepWhileBehind));
        cluster.node(3).stall_apply = true;
        cluster.put(1, "k", "v");
        cluster.tick(REST_TICKS);
        let status = cluster.status(3);
        assert!(status.applied_index < status.raft.last_index);
        assert_eq!(status.hibernating, planted);
        assert_eq!(cluster.status(1).hibernating, planted);
    }
}

#[test]
fn a_cut_at_no_boundary_is_asked_for() {
    let mut cluster = Cluster::led_by_with(1, |config| {
        config.region_max_bytes = 8000;
        config.region_part_bytes = 4000;
    });
    let _bug = Planted::new(Bug::SplitAtInvalidBoundary);
    for i in 0..120 {
        cluster.put(1, &format!("{i:06}"), &"v".repeat(94));
    }
    cluster.tick(25);
    let asked = std::mem::take(&mut cluster.node(1).seen.split_requests);
    let keys: Vec<_> = asked.iter().flat_map(|request| &request.keys).collect();
    assert!(keys.iter().all(|key| codec::decode(key).is_err()));
}

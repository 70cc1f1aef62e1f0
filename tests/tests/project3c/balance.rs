//! Which peer goes where: the stage's scenarios of balance-region, and those of balance-leader.

use super::fixture::{Cluster, MIB, region};
use scheduler::core::RegionInfo;

/// A region of 10 MiB that balancing can work on, before all others in the order of keys.
fn subject(id: u64, stores: &[u64]) -> RegionInfo {
    let (from, to) = (format!("0{id}"), format!("0{}", id + 1));
    let info = region(id, (&from, &to), (1, 1), stores);
    RegionInfo { approximate_size: 10 * MIB, ..info }
}

fn moves(cluster: &mut Cluster) -> Option<String> {
    cluster.next_move().map(|(_, route)| route)
}

#[test]
fn replicas1_3c() {
    let mut cluster = Cluster::new(0);
    cluster.set("max_replicas", 1);
    for (store, count) in [(1, 6), (2, 8), (3, 8), (4, 16)] {
        cluster.add_store(store);
        for at in 0..count {
            let id = store * 100 + at;
            cluster.heartbeat(subject(id, &[store])).unwrap();
        }
    }
    cluster.only("balance-region");
    let operator = cluster.next_of("balance-region").unwrap();
    assert_eq!(operator.description, "move peer from store 4 to store 1");
    let steps: Vec<&str> =
        operator.steps.iter().map(|step| step.rsplit_once(' ').unwrap().0).collect();
    let expected = ["add learner", "promote peer", "transfer leader to store", "remove peer"];
    assert_eq!(steps.len(), 4);
    assert!(steps.iter().zip(expected).all(|(step, name)| step.starts_with(name)), "{steps:?}");
    assert_eq!(operator.steps[2], "transfer leader to store 1");

    // Store 1 is out of reach: the next one.
    cluster.silence(1);
    assert_eq!(moves(&mut cluster).unwrap(), "4 to store 2");

    // A region with fewer peers than it should have is repaired, not balanced.
    cluster.set("max_replicas", 3);
    assert_eq!(moves(&mut cluster), None);
    cluster.set("max_replicas", 1);
    cluster.cancel_all();
    assert!(moves(&mut cluster).is_some());
}

#[test]
fn replicas3_3c() {
    let mut cluster = Cluster::new(0);
    cluster.set("max_replicas", 3);
    for (store, count) in [(1, 16), (2, 15), (3, 14)] {
        cluster.add_loaded_store(store, count);
    }
    cluster.silence(101);
    cluster.heartbeat(subject(1, &[1, 2, 3])).unwrap();
    cluster.only("balance-region");
    // There is no other store.
    assert_eq!(moves(&mut cluster), None);
    // The one that holds least is the target.
    cluster.add_loaded_store(4, 2);
    assert_eq!(moves(&mut cluster).unwrap(), "1 to store 4");
    cluster.add_loaded_store(5, 1);
    assert_eq!(moves(&mut cluster).unwrap(), "1 to store 5");
    cluster.add_loaded_store(6, 0);
    assert_eq!(moves(&mut cluster).unwrap(), "1 to store 6");
    // Unless it is down.
    cluster.silence(6);
    assert_eq!(moves(&mut cluster).unwrap(), "1 to store 5");
    // The source is the one that holds most.
    cluster.load(2, 9);
    assert_eq!(moves(&mut cluster).unwrap(), "2 to store 5");
    // A target that holds more is none, nor is one that holds no less than would be gained.
    cluster.silence(4);
    cluster.load(5, 23);
    assert_eq!(moves(&mut cluster), None);
    cluster.load(5, 20);
    assert_eq!(moves(&mut cluster), None);
}

#[test]
fn replicas5_3c() {
    let mut cluster = Cluster::new(0);
    cluster.set("max_replicas", 5);
    // Regions that have three of five peers are repaired first; here that is none of the matter.
    cluster.set("replica_schedule_limit", 0);
    for (store, count) in [(1, 4), (2, 5), (3, 6), (4, 7), (5, 28)] {
        cluster.add_loaded_store(store, count);
    }
    cluster.silence(101);
    cluster.heartbeat(subject(1, &[1, 2, 3, 4, 5])).unwrap();
    cluster.only("balance-region");
    assert_eq!(moves(&mut cluster), None);
    cluster.add_loaded_store(6, 8);
    assert_eq!(moves(&mut cluster).unwrap(), "5 to store 6");
    cluster.add_loaded_store(7, 1);
    assert_eq!(moves(&mut cluster).unwrap(), "5 to store 7");
    // The largest store gives nothing that would gain anything: the next one does.
    cluster.add_loaded_store(8, 40);
    assert_eq!(moves(&mut cluster).unwrap(), "5 to store 7");
    let mut elsewhere = subject(1, &[1, 2, 3, 4, 8]);
    elsewhere.meta.region_epoch.as_mut().unwrap().conf_ver += 4;
    cluster.heartbeat(elsewhere).unwrap();
    assert_eq!(moves(&mut cluster).unwrap(), "8 to store 7");
}

#[test]
fn replace_pending_region_3c() {
    let mut cluster = Cluster::new(0);
    cluster.set("max_replicas", 3);
    for (store, count) in [(1, 16), (2, 7), (3, 15), (4, 10)] {
        cluster.add_loaded_store(store, count);
    }
    cluster.silence(101);
    // Three regions; of the last one the peer on the fullest store is behind.
    cluster.heartbeat(subject(1, &[1, 2, 3])).unwrap();
    cluster.heartbeat(subject(2, &[3, 1, 2])).unwrap();
    let mut pending = subject(3, &[2, 1, 3]);
    pending.pending_peers = vec![pending.meta.peers[1]];
    cluster.heartbeat(pending).unwrap();
    cluster.only("balance-region");
    assert_eq!(cluster.next_move().unwrap(), (3, "1 to store 4".into()));
    // Followers come before leaders.
    cluster.heartbeat(subject(3, &[1, 2, 3])).unwrap();
    assert_eq!(cluster.next_move().unwrap().0, 2);
}

/// Regions on three stores, so many of them led by each.
fn led(counts: [u64; 3]) -> Cluster {
    let mut cluster = Cluster::new(3);
    let mut id = 100;
    for (store, count) in (1..).zip(counts) {
        for _ in 0..count {
            id += 1;
            let others: Vec<u64> = (1..=3).filter(|other| *other != store).collect();
            cluster.heartbeat(subject(id, &[store, others[0], others[1]])).unwrap();
        }
    }
    cluster.only("balance-leader");
    cluster
}

fn transfer(cluster: &mut Cluster) -> Option<(u64, String)> {
    let operator = cluster.next_of("balance-leader")?;
    let region = cluster.core.region_by_id(operator.region_id.into()).unwrap();
    Some((region.leader.unwrap().store_id, operator.description))
}

#[test]
fn leaders_go_from_the_most_to_the_least() {
    assert_eq!(transfer(&mut led([7, 8, 9])).unwrap(), (3, "transfer leader to store 1".into()));
    assert_eq!(transfer(&mut led([1, 16, 1])).unwrap().0, 2);
}

#[test]
fn leaders_that_are_even_stay() {
    assert_eq!(transfer(&mut led([3, 3, 3])), None);
    assert_eq!(transfer(&mut led([3, 4, 3])), None);
    assert_eq!(transfer(&mut led([0, 0, 1])), None);
}

#[test]
fn a_limit_of_nought_stops_a_balancer() {
    let mut cluster = led([1, 16, 1]);
    cluster.set("leader_schedule_limit", 0);
    assert_eq!(transfer(&mut cluster), None);
    cluster.set("leader_schedule_limit", 1);
    cluster.run(30);
    assert_eq!(cluster.operators().len(), 1, "one at a time");
}

#[test]
fn no_leader_goes_to_a_peer_that_is_down_or_behind_or_out_of_reach() {
    let mut cluster = Cluster::new(3);
    cluster.only("balance-leader");
    let behind = |id: u64| {
        let mut info = subject(id, &[1, 2, 3]);
        info.pending_peers = vec![info.meta.peers[1]];
        info.down_peers =
            vec![proto::pdpb::PeerStats { peer: Some(info.meta.peers[2]), down_seconds: 3 }];
        info
    };
    for id in 1..=5 {
        cluster.heartbeat(behind(id)).unwrap();
    }
    assert_eq!(transfer(&mut cluster), None);
    cluster.silence(2);
    for id in 1..=5 {
        cluster.heartbeat(subject(id, &[1, 2, 3])).unwrap();
    }
    assert_eq!(transfer(&mut cluster).unwrap(), (1, "transfer leader to store 3".into()));
}

#[test]
fn a_full_store_is_no_target() {
    let mut cluster = Cluster::new(0);
    cluster.set("max_replicas", 3);
    for (store, count) in [(1, 16), (2, 15), (3, 14), (4, 1)] {
        cluster.add_loaded_store(store, count);
    }
    cluster.silence(101);
    cluster.heartbeat(subject(1, &[1, 2, 3])).unwrap();
    cluster.only("balance-region");
    assert!(moves(&mut cluster).is_some());
    cluster.set("low_space_percent", 50);
    let full =
        proto::pdpb::StoreStats { store_id: 4, capacity: 100, available: 49, ..Default::default() };
    cluster.fill(4, full);
    assert_eq!(moves(&mut cluster), None);
}

//! Project 3b: sixteen cluster tests of membership changes, leader transfer and splits, with the course's parameters, in
//! virtual time.

use raftstore::RequestHeader;
use raftstore::command::{Mutation, Request};
use raftstore::error::RegionError;
use raftstore::keys::RawCf;
use tests::sim::cluster::Cluster;
use tests::sim::course::{
    BlockingClient, ELECTION_TIMEOUT, GenericTest, cluster, cluster_with_regions, generic_test,
};
use tests::sim::invariants::Broken;

const CONFCHANGE: GenericTest = GenericTest {
    clients: 5,
    unreliable: false,
    crash: false,
    partitions: false,
    max_raft_log: None,
    confchange: true,
    split: false,
};
const SPLIT: GenericTest = GenericTest { confchange: false, split: true, ..CONFCHANGE };

/// Each peer leads in turn when it is told to.
#[test]
fn test_transfer_leader_3b() {
    let mut cluster = cluster(31, 5, None);
    assert_eq!(transfer_leader(&mut cluster), Ok(()));
}

fn transfer_leader(cluster: &mut Cluster) -> Result<(), Broken> {
    cluster.sleep(ELECTION_TIMEOUT.times(4))?;
    let region = cluster.region_at(0);
    for store in 0..5 {
        cluster.must_transfer_leader(region, store)?;
        cluster.must_put("k1", &format!("from {store}"))?;
    }
    Ok(())
}

/// A region shrinks to one peer and grows again; stores that it leaves keep nothing, stores that it comes to get everything,
/// again and again.
#[test]
fn test_basic_conf_change_3b() {
    let mut cluster = cluster(32, 5, None);
    assert_eq!(basic_conf_change(&mut cluster), Ok(()));
}

fn basic_conf_change(cluster: &mut Cluster) -> Result<(), Broken> {
    cluster.sleep(ELECTION_TIMEOUT.times(4))?;
    let region = cluster.region_at(0);
    let conf_ver =
        |cluster: &Cluster| cluster.regions()[0].region_epoch.map_or(0, |epoch| epoch.conf_ver);
    cluster.must_transfer_leader(region, 0)?;
    (1..5).try_for_each(|store| cluster.must_remove_peer(region, store))?;

    cluster.must_put("k1", "v1")?;
    cluster.must_get("k1", Some("v1"))?;
    cluster.must_be_empty(1)?;

    cluster.must_add_peer(region, 1)?;
    cluster.must_put("k2", "v2")?;
    cluster.must_get("k2", Some("v2"))?;
    cluster.must_store(1, "k1", Some("v1"))?;
    cluster.must_store(1, "k2", Some("v2"))?;
    assert!(conf_ver(cluster) > 1);
    cluster.must_be_empty(4)?;

    cluster.must_add_peer(region, 2)?;
    cluster.must_put("k3", "v3")?;
    for (key, value) in [("k1", "v1"), ("k2", "v2"), ("k3", "v3")] {
        cluster.must_store(2, key, Some(value))?;
    }

    cluster.must_remove_peer(region, 1)?;
    cluster.must_put("k4", "v4")?;
    cluster.must_get("k4", Some("v4"))?;
    cluster.must_store(2, "k4", Some("v4"))?;
    cluster.must_be_empty(1)?;

    for _ in 0..2 {
        // Twice, each time under another id.
        cluster.must_add_peer(region, 1)?;
        cluster.must_store(1, "k1", Some("v1"))?;
        cluster.must_store(1, "k4", Some("v4"))?;
        cluster.must_remove_peer(region, 1)?;
        cluster.must_be_empty(1)?;
    }
    cluster.must_add_peer(region, 1)?;
    cluster.must_store(1, "k1", Some("v1"))
}

/// The leader itself is removed, from five peers and from two, and comes back.
#[test]
fn test_conf_change_remove_leader_3b() {
    let mut cluster = cluster(33, 5, None);
    assert_eq!(remove_leader(&mut cluster), Ok(()));
}

fn remove_leader(cluster: &mut Cluster) -> Result<(), Broken> {
    cluster.sleep(ELECTION_TIMEOUT.times(4))?;
    let region = cluster.region_at(0);
    cluster.must_transfer_leader(region, 0)?;
    cluster.must_remove_peer(region, 0)?;
    cluster.must_put("k0", "v0")?;
    assert_ne!(cluster.leader_of(region), Some(0));
    cluster.must_be_empty(0)?;

    cluster.must_add_peer(region, 0)?;
    cluster.must_store(0, "k0", Some("v0"))?;
    (1..4).try_for_each(|store| cluster.must_remove_peer(region, store))?;
    cluster.must_transfer_leader(region, 0)?;
    cluster.must_remove_peer(region, 0)?;
    cluster.must_put("k1", "v1")?;
    assert_eq!(cluster.leader_of(region), Some(4));
    cluster.must_be_empty(0)?;

    cluster.must_add_peer(region, 0)?;
    cluster.must_store(0, "k1", Some("v1"))
}

#[test]
fn test_conf_change_recover_3b() {
    let test = GenericTest { clients: 1, crash: true, ..CONFCHANGE };
    generic_test("TestConfChangeRecover3B", test);
}

#[test]
fn test_conf_change_recover_many_clients_3b() {
    let test = GenericTest { clients: 20, crash: true, ..CONFCHANGE };
    generic_test("TestConfChangeRecoverManyClients3B", test);
}

#[test]
fn test_conf_change_unreliable_3b() {
    let test = GenericTest { unreliable: true, ..CONFCHANGE };
    generic_test("TestConfChangeUnreliable3B", test);
}

#[test]
fn test_conf_change_unreliable_recover_3b() {
    let test = GenericTest { unreliable: true, crash: true, ..CONFCHANGE };
    generic_test("TestConfChangeUnreliableRecover3B", test);
}

#[test]
fn test_conf_change_snapshot_unreliable_recover_3b() {
    let test = GenericTest { unreliable: true, crash: true, max_raft_log: Some(100), ..CONFCHANGE };
    generic_test("TestConfChangeSnapshotUnreliableRecover3B", test);
}

#[test]
fn test_conf_change_snapshot_unreliable_recover_concurrent_partition_3b() {
    let test = GenericTest {
        unreliable: true,
        crash: true,
        partitions: true,
        max_raft_log: Some(100),
        ..CONFCHANGE
    };
    generic_test("TestConfChangeSnapshotUnreliableRecoverConcurrentPartition3B", test);
}

/// A region that has grown is cut; a request that names the wrong part is told so; a store that was away catches up.
#[test]
fn test_one_split_3b() {
    let mut cluster = cluster_with_regions(34, 5, None, (800, 500));
    assert_eq!(one_split(&mut cluster), Ok(()));
}

fn one_split(cluster: &mut Cluster) -> Result<(), Broken> {
    cluster.sleep(ELECTION_TIMEOUT.times(4))?;
    let region = cluster.region_at(0);
    cluster.must_transfer_leader(region, 0)?;
    cluster.partition(&[0, 1, 2, 3], &[4]);
    let key = |number: usize| format!("k{number:06}");
    for number in 0..100 {
        cluster.must_put(&key(number), &format!("v{number}"))?;
    }
    cluster.sleep(ELECTION_TIMEOUT.times(2))?;
    let (first, last) = (key(0), key(99));
    let holds = |cluster: &Cluster, key: &str| cluster.world().region_of(key.as_bytes());
    let left = holds(cluster, &first).expect("the regions cover every key");
    let right = holds(cluster, &last).expect("the regions cover every key");
    assert_ne!(left.id, right.id, "the region was cut");
    for pair in cluster.regions().windows(2) {
        assert_eq!(pair[0].end_key, pair[1].start_key, "the parts are neighbours");
    }
    for number in 0..100 {
        assert_eq!(cluster.stored(4, key(number).as_bytes()), None, "store 5 is away");
    }
    cluster.clear_network();

    let header = RequestHeader::new(left.id.into(), left.region_epoch.unwrap_or_default());
    let delete = Mutation::Delete { cf: RawCf::Default, key: last.clone().into() };
    let request = Request::Mutate { mutations: vec![delete], session: None };
    let leader = cluster.leader_of(left.id).expect("a leader");
    let answer = cluster.write_directly(leader, header, request)?;
    assert!(matches!(answer, Err(RegionError::KeyNotInRegion { .. })), "{answer:?}");

    for number in [0, 50, 99] {
        cluster.must_get(&key(number), Some(&format!("v{number}")))?;
        cluster.must_store(4, &key(number), Some(&format!("v{number}")))?;
    }
    Ok(())
}

#[test]
fn test_split_recover_3b() {
    generic_test("TestSplitRecover3B", GenericTest { clients: 1, crash: true, ..SPLIT });
}

#[test]
fn test_split_recover_many_clients_3b() {
    generic_test(
        "TestSplitRecoverManyClients3B",
        GenericTest { clients: 20, crash: true, ..SPLIT },
    );
}

#[test]
fn test_split_unreliable_3b() {
    generic_test("TestSplitUnreliable3B", GenericTest { unreliable: true, ..SPLIT });
}

#[test]
fn test_split_unreliable_recover_3b() {
    let test = GenericTest { unreliable: true, crash: true, ..SPLIT };
    generic_test("TestSplitUnreliableRecover3B", test);
}

#[test]
fn test_split_conf_change_snapshot_unreliable_recover_3b() {
    let test = GenericTest {
        unreliable: true,
        crash: true,
        max_raft_log: Some(100),
        confchange: true,
        ..SPLIT
    };
    generic_test("TestSplitConfChangeSnapshotUnreliableRecover3B", test);
}

#[test]
fn test_split_conf_change_snapshot_unreliable_recover_concurrent_partition_3b() {
    let test = GenericTest {
        unreliable: true,
        crash: true,
        partitions: true,
        max_raft_log: Some(100),
        confchange: true,
        ..SPLIT
    };
    generic_test("TestSplitConfChangeSnapshotUnreliableRecoverConcurrentPartition3B", test);
}

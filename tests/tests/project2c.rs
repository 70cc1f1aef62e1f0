//! Project 2c: six cluster tests with log compaction and snapshots, with the course's parameters, in virtual time.

use raftstore::keys::RawCf;
use tests::sim::cluster::Cluster;
use tests::sim::course::{
    BlockingClient, ELECTION_TIMEOUT, GenericTest, check_log_sizes, cluster, generic_test,
};
use tests::sim::invariants::Broken;

/// A store that missed more than the logs still hold catches up by a snapshot, deletions included, and keeps it over a
/// restart; logs stay short everywhere.
#[test]
fn test_one_snapshot_2c() {
    let mut cluster = cluster(22, 3, Some(10));
    cluster.cf = RawCf::Lock;
    assert_eq!(one_snapshot(&mut cluster), Ok(()));
}

fn one_snapshot(cluster: &mut Cluster) -> Result<(), Broken> {
    cluster.sleep(ELECTION_TIMEOUT.times(4))?;
    cluster.must_put("k1", "v1")?;
    cluster.must_put("k2", "v2")?;
    for store in 0..3 {
        cluster.must_store(store, "k1", Some("v1"))?;
        cluster.must_store(store, "k2", Some("v2"))?;
        let apply = cluster.view(store, cluster.region_at(0)).apply;
        assert_eq!((apply.truncated_index.0, apply.truncated_term.0), (5, 5), "nothing compacted");
    }

    cluster.partition(&[0], &[1, 2]);
    // The others must notice, or they would keep the log for it a little longer.
    cluster.sleep(ELECTION_TIMEOUT.times(4))?;
    for number in 100..115 {
        cluster.must_put(&format!("k{number}"), &format!("v{number}"))?;
    }
    cluster.must_delete("k2")?;
    cluster.sleep(ELECTION_TIMEOUT.times(2))?;
    let compacted =
        (1..3).map(|store| cluster.view(store, cluster.region_at(0)).apply.truncated_index.0).max();
    let missed = cluster.view(0, cluster.region_at(0)).log.1;
    assert!(compacted > Some(missed), "compacted {compacted:?}, store 1 has {missed}");
    cluster.clear_network();

    cluster.must_store(0, "k2", None)?;
    for number in 100..115 {
        cluster.must_store(0, &format!("k{number}"), Some(&format!("v{number}")))?;
    }
    assert!(cluster.counts.snapshots > 0, "it came by a snapshot");

    cluster.stop_store(0);
    cluster.sleep(ELECTION_TIMEOUT)?;
    cluster.start_store(0)?;
    cluster.must_store(0, "k114", Some("v114"))?;
    cluster.must_store(0, "k1", Some("v1"))?;
    cluster.must_store(0, "k2", None)?;
    check_log_sizes(cluster, 10)
}

#[test]
fn test_snapshot_recover_2c() {
    let test =
        GenericTest { clients: 1, crash: true, max_raft_log: Some(100), ..GenericTest::default() };
    generic_test("TestSnapshotRecover2C", test);
}

#[test]
fn test_snapshot_recover_many_clients_2c() {
    let test =
        GenericTest { clients: 20, crash: true, max_raft_log: Some(100), ..GenericTest::default() };
    generic_test("TestSnapshotRecoverManyClients2C", test);
}

#[test]
fn test_snapshot_unreliable_2c() {
    let test = GenericTest {
        clients: 5,
        unreliable: true,
        max_raft_log: Some(100),
        ..GenericTest::default()
    };
    generic_test("TestSnapshotUnreliable2C", test);
}

#[test]
fn test_snapshot_unreliable_recover_2c() {
    let test = GenericTest {
        clients: 5,
        unreliable: true,
        crash: true,
        max_raft_log: Some(100),
        ..GenericTest::default()
    };
    generic_test("TestSnapshotUnreliableRecover2C", test);
}

#[test]
fn test_snapshot_unreliable_recover_concurrent_partition_2c() {
    let test = GenericTest {
        clients: 5,
        unreliable: true,
        crash: true,
        partitions: true,
        max_raft_log: Some(100),
        ..GenericTest::default()
    };
    generic_test("TestSnapshotUnreliableRecoverConcurrentPartition2C", test);
}

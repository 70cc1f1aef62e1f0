//! Project 2b: eleven cluster tests over the replicated store, with the course's parameters, in virtual time.

use tests::sim::cluster::Cluster;
use tests::sim::course::{BlockingClient, ELECTION_TIMEOUT, GenericTest, cluster, generic_test};
use tests::sim::invariants::Broken;

#[test]
fn test_basic_2b() {
    generic_test("TestBasic2B", GenericTest { clients: 1, ..GenericTest::default() });
}

#[test]
fn test_concurrent_2b() {
    generic_test("TestConcurrent2B", GenericTest { clients: 5, ..GenericTest::default() });
}

#[test]
fn test_unreliable_2b() {
    let test = GenericTest { clients: 5, unreliable: true, ..GenericTest::default() };
    generic_test("TestUnreliable2B", test);
}

/// With the leader in the majority the minority sees nothing; with the old leader in the minority a new one serves and the
/// old side keeps what it had; after healing it catches up.
#[test]
fn test_one_partition_2b() {
    let mut cluster = cluster(21, 5, None);
    assert_eq!(one_partition(&mut cluster), Ok(()));
}

fn one_partition(cluster: &mut Cluster) -> Result<(), Broken> {
    cluster.sleep(ELECTION_TIMEOUT.times(4))?;
    let leader = cluster.leader(0).expect("a leader");
    let others: Vec<usize> = (0..5).filter(|store| *store != leader).collect();

    cluster.partition(&[leader, others[0], others[1]], &others[2..]);
    cluster.must_put("k1", "v1")?;
    cluster.must_get("k1", Some("v1"))?;
    for store in &others[2..] {
        assert_eq!(cluster.stored(*store, b"k1"), None, "the minority must not know");
    }
    cluster.clear_network();

    let minority = [leader, others[0]];
    cluster.partition(&minority, &others[1..]);
    cluster.must_get("k1", Some("v1"))?;
    cluster.must_put("k1", "changed")?;
    for store in minority {
        cluster.must_store(store, "k1", Some("v1"))?;
    }
    assert_ne!(cluster.leader(0), Some(leader), "another leader serves");
    cluster.clear_network();

    cluster.must_put("k2", "v2")?;
    cluster.must_get("k2", Some("v2"))?;
    for store in minority {
        cluster.must_store(store, "k2", Some("v2"))?;
        cluster.must_store(store, "k1", Some("changed"))?;
    }
    Ok(())
}

#[test]
fn test_many_partitions_one_client_2b() {
    let test = GenericTest { clients: 1, partitions: true, ..GenericTest::default() };
    generic_test("TestManyPartitionsOneClient2B", test);
}

#[test]
fn test_many_partitions_many_clients_2b() {
    let test = GenericTest { clients: 5, partitions: true, ..GenericTest::default() };
    generic_test("TestManyPartitionsManyClients2B", test);
}

#[test]
fn test_persist_one_client_2b() {
    let test = GenericTest { clients: 1, crash: true, ..GenericTest::default() };
    generic_test("TestPersistOneClient2B", test);
}

#[test]
fn test_persist_concurrent_2b() {
    let test = GenericTest { clients: 5, crash: true, ..GenericTest::default() };
    generic_test("TestPersistConcurrent2B", test);
}

#[test]
fn test_persist_concurrent_unreliable_2b() {
    let test = GenericTest { clients: 5, unreliable: true, crash: true, ..GenericTest::default() };
    generic_test("TestPersistConcurrentUnreliable2B", test);
}

#[test]
fn test_persist_partition_2b() {
    let test = GenericTest { clients: 5, crash: true, partitions: true, ..GenericTest::default() };
    generic_test("TestPersistPartition2B", test);
}

#[test]
fn test_persist_partition_unreliable_2b() {
    let test = GenericTest {
        clients: 5,
        unreliable: true,
        crash: true,
        partitions: true,
        ..GenericTest::default()
    };
    generic_test("TestPersistPartitionUnreliable2B", test);
}

//! Reads show everything acknowledged before they were asked for, by lease and without.

use raftstore::{ReadMode, RegionError};

use super::cluster::{Cluster, Slot};

fn read(permit: &raftstore::ReadPermit, cluster: &Cluster, store: u64, key: &str) -> String {
    permit.read(|_| cluster.stored(store, key)).unwrap().unwrap_or_default()
}

#[test]
fn a_write_gives_a_lease_that_ends() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    assert_eq!(cluster.lease_read(1, "k"), Some(Some("v".to_owned())));
    assert_eq!(cluster.lease_read(2, "k"), None, "a follower has none");
    cluster.now = cluster.now + cluster.lease();
    assert_eq!(cluster.lease_read(1, "k"), None, "whatever the store does meanwhile");
}

#[test]
fn a_lease_in_use_is_renewed_before_it_ends_and_an_idle_one_is_not() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    for _ in 0..100 {
        assert_eq!(cluster.lease_read(1, "k"), Some(Some("v".to_owned())));
        cluster.tick(1);
    }
    cluster.tick(10);
    cluster.tick(20);
    assert_eq!(cluster.lease_read(1, "k"), None, "nobody used it");
}

#[test]
fn without_a_lease_a_quorum_is_asked() {
    let mut cluster = Cluster::led_by_with(1, |config| config.reads = ReadMode::ReadIndex);
    cluster.put(1, "k", "v");
    assert_eq!(cluster.lease_read(1, "k"), None);
    let slots: Vec<Slot<_>> = (0..10).map(|_| cluster.ask_read(1)).collect();
    cluster.settle();
    for slot in slots {
        let permit = slot.take().unwrap().unwrap();
        assert_eq!(read(&permit, &cluster, 1, "k"), "v");
    }
}

#[test]
fn a_read_waits_for_what_it_must_show() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "old");
    cluster.node(1).stall_apply = true;
    let _write = cluster.write(1, super::cluster::put("k", "new"));
    cluster.settle();
    let slot = cluster.ask_read(1);
    cluster.settle();
    assert!(slot.take().is_none(), "committed, but not applied");
    cluster.node(1).stall_apply = false;
    cluster.settle();
    let permit = slot.take().unwrap().unwrap();
    assert_eq!(read(&permit, &cluster, 1, "k"), "new");
}

#[test]
fn a_leader_without_a_quorum_serves_no_read() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    cluster.isolate(1);
    let slot = cluster.ask_read(1);
    cluster.tick(8);
    assert_eq!(cluster.lease_read(1, "k"), None, "the lease is over before anybody may be elected");
    cluster.tick(40);
    let error = slot.take().expect("never left without an answer").unwrap_err();
    assert!(matches!(error, RegionError::NotLeader { .. } | RegionError::ReadIndexNotReady { .. }));
}

#[test]
fn a_read_survives_a_lost_round() {
    let mut cluster = Cluster::led_by_with(1, |config| config.reads = ReadMode::ReadIndex);
    cluster.isolate(1);
    let slot = cluster.ask_read(1);
    cluster.tick(3);
    cluster.cut.clear();
    cluster.tick(6);
    assert!(matches!(slot.take(), Some(Ok(_))), "another round was started");
}

#[test]
fn a_transfer_voids_the_lease_at_once_and_for_the_term() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    cluster.isolate(2);
    let (slot, reply) = Slot::new();
    let to = proto::ids::PeerId::from(20);
    let header = super::cluster::header();
    let msg = raftstore::StoreMsg::TransferLeader { header, to, reply };
    cluster.send(1, msg);
    assert_eq!(slot.take(), Some(Ok(())));
    assert_eq!(cluster.lease_read(1, "k"), None);
    cluster.tick(20);
    assert_eq!(cluster.leader(), 1, "the order never arrived");
    cluster.put(1, "k", "w");
    assert_eq!(cluster.lease_read(1, "k"), None, "it may still arrive");
    let slot = cluster.ask_read(1);
    cluster.settle();
    assert!(matches!(slot.take(), Some(Ok(_))), "a quorum can still be asked");
}

//! The log is compacted; whoever needs what is gone gets a snapshot.

use raftstore::Config;
use raftstore::snapshot::SnapshotFiles;

use super::cluster::Cluster;

fn small_log(config: &mut Config) {
    config.log_gc_count_limit = 10;
    config.log_gc_ticks = 2;
}

fn write_many(cluster: &mut Cluster, leader: u64, count: usize) {
    for i in 0..count {
        cluster.put(leader, &format!("k{i}"), &format!("v{i}"));
    }
}

#[test]
fn the_log_is_compacted_on_every_peer() {
    let mut cluster = Cluster::led_by_with(1, small_log);
    write_many(&mut cluster, 1, 50);
    cluster.tick(10);
    for store in 1..=3 {
        let status = cluster.status(store);
        let kept = status.raft.last_index.next().distance_from(status.raft.first_index);
        assert!(kept <= 15, "store {store} keeps {kept} entries");
    }
    cluster.crash(2);
    cluster.restart(2);
    cluster.put(1, "k", "v");
    cluster.tick(3);
    assert_eq!(cluster.stored(2, "k").as_deref(), Some("v"));
}

#[test]
fn a_peer_that_was_away_gets_a_snapshot() {
    let mut cluster = Cluster::led_by_with(1, small_log);
    cluster.put(1, "early", "v");
    cluster.isolate(3);
    write_many(&mut cluster, 1, 200);
    cluster.tick(30);
    assert!(cluster.status(1).raft.first_index > cluster.status(3).raft.last_index);
    cluster.cut.clear();
    cluster.tick(20);
    assert_eq!(cluster.stored(3, "k199").as_deref(), Some("v199"));
    assert_eq!(cluster.stored(3, "early").as_deref(), Some("v"));
    assert_eq!(cluster.status(3).state_hash, cluster.status(1).state_hash);
    assert_eq!(cluster.node(3).store.status().counters.snapshots_installed, 1);
    cluster.put(1, "late", "v");
    cluster.tick(3);
    assert_eq!(cluster.stored(3, "late").as_deref(), Some("v"));
    cluster.crash(3);
    cluster.restart(3);
    cluster.tick(5);
    assert_eq!(cluster.stored(3, "k199").as_deref(), Some("v199"));
}

#[test]
fn a_snapshot_that_is_lost_is_sent_again() {
    let mut cluster = Cluster::led_by_with(1, small_log);
    cluster.isolate(3);
    write_many(&mut cluster, 1, 200);
    cluster.tick(30);
    // Answers arrive, snapshots do not.
    cluster.cut.clear();
    cluster.node(3).stall_log = true;
    cluster.tick(3);
    cluster.crash(3);
    cluster.restart(3);
    cluster.tick(40);
    assert_eq!(cluster.stored(3, "k199").as_deref(), Some("v199"));
}

#[test]
fn an_installation_waits_for_the_applier() {
    let mut cluster = Cluster::led_by_with(1, small_log);
    cluster.node(3).stall_apply = true;
    write_many(&mut cluster, 1, 5);
    cluster.isolate(3);
    write_many(&mut cluster, 1, 200);
    cluster.tick(30);
    cluster.cut.clear();
    cluster.tick(20);
    assert!(cluster.status(3).installing, "the applier still has older entries in hand");
    assert_eq!(cluster.stored(3, "k199"), None);
    cluster.put(1, "late", "v");
    cluster.node(3).stall_apply = false;
    cluster.tick(5);
    assert_eq!(cluster.stored(3, "k199").as_deref(), Some("v199"));
    assert_eq!(cluster.stored(3, "late").as_deref(), Some("v"), "what came meanwhile follows");
    assert_eq!(cluster.status(3).state_hash, cluster.status(1).state_hash);
}

#[test]
fn a_crash_after_the_marker_finishes_the_installation_at_the_next_start() {
    let mut cluster = Cluster::led_by_with(1, small_log);
    cluster.node(3).stall_apply = true;
    write_many(&mut cluster, 1, 5);
    cluster.isolate(3);
    write_many(&mut cluster, 1, 200);
    cluster.tick(30);
    cluster.cut.clear();
    cluster.tick(20);
    assert!(cluster.status(3).installing);
    cluster.crash(3);
    cluster.restart(3);
    assert_eq!(cluster.stored(3, "k199").as_deref(), Some("v199"), "before anything else");
    cluster.tick(5);
    assert_eq!(cluster.status(3).state_hash, cluster.status(1).state_hash);
}

#[test]
fn a_crash_before_the_marker_leaves_the_old_peer() {
    let mut cluster = Cluster::led_by_with(1, small_log);
    write_many(&mut cluster, 1, 5);
    cluster.tick(2);
    let before = cluster.status(3).raft.last_index;
    cluster.isolate(3);
    write_many(&mut cluster, 1, 200);
    cluster.tick(30);
    cluster.cut.clear();
    cluster.node(3).stall_log = true;
    cluster.tick(8);
    assert!(cluster.status(3).installing);
    cluster.crash(3);
    cluster.isolate(3);
    cluster.restart(3);
    assert_eq!(cluster.status(3).raft.last_index, before, "its log is as it was");
    assert_eq!(cluster.stored(3, "k199"), None);
    assert_eq!(cluster.node(3).files.list().unwrap(), [], "the orphan is gone");
    cluster.cut.clear();
    cluster.tick(40);
    assert_eq!(cluster.stored(3, "k199").as_deref(), Some("v199"));
}

#[test]
fn a_second_installation_waits_until_the_applier_knows_of_the_first() {
    let mut cluster = Cluster::led_by_with(1, small_log);
    cluster.isolate(3);
    write_many(&mut cluster, 1, 200);
    cluster.tick(30);
    cluster.node(3).stall_apply = true;
    cluster.cut.clear();
    cluster.tick(20);
    let installed =
        |cluster: &mut Cluster| cluster.node(3).store.status().counters.snapshots_installed;
    assert_eq!(installed(&mut cluster), 1);
    cluster.isolate(3);
    write_many(&mut cluster, 1, 200);
    cluster.tick(30);
    cluster.cut.clear();
    cluster.tick(20);
    assert_eq!(installed(&mut cluster), 1, "the applier has not heard of the first");
    cluster.node(3).stall_apply = false;
    cluster.tick(20);
    assert_eq!(installed(&mut cluster), 2);
    assert_eq!(cluster.status(3).state_hash, cluster.status(1).state_hash);
}

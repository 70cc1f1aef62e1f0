//! A store whose disk fails stops, says why, and lies to nobody.

use raftstore::store::{IdentError, OpenError};
use raftstore::{Config, RegionError, Store};

use super::cluster::{Cluster, put};

#[test]
fn the_first_failed_sync_stops_the_store() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    let held = cluster.ask_read(1);
    cluster.node(1).engine.fail_next_sync("the disk is gone");
    let waiting = cluster.write(1, put("k", "w"));
    cluster.settle();
    let stopped = |outcome: Option<Result<_, RegionError>>| matches!(outcome, Some(Err(RegionError::StoreStopped { reason })) if reason.contains("gone"));
    assert!(stopped(waiting.take()), "what waited is told");
    assert!(matches!(held.take(), Some(Ok(_) | Err(RegionError::StoreStopped { .. }))));
    assert!(stopped(cluster.write(1, put("k", "x")).take()), "what comes later is told");
    assert_eq!(cluster.lease_read(1, "k"), None, "no lease outlives it");
    assert!(cluster.node(1).seen.poisoned.is_some());
    let sent = cluster.node(1).store.status().counters.messages_sent;
    cluster.tick(50);
    assert_eq!(cluster.node(1).store.status().counters.messages_sent, sent, "it is silent");
    cluster.node(1).down = true;
    let leader = cluster.elect();
    cluster.put(leader, "k", "y");
}

#[test]
fn another_stores_data_is_refused_in_one_line() {
    let mut cluster = Cluster::led_by(1);
    let (engine, files) = (cluster.node(1).engine.clone(), cluster.node(1).files.clone());
    let config = Config::new(super::cluster::CLUSTER, 2.into());
    let error = Store::open(config, engine, &files).unwrap_err();
    assert!(matches!(error, OpenError::Ident(IdentError::Mismatch { .. })));
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn a_log_that_lost_committed_entries_is_not_opened() {
    use engine::{Cf, Engine, WriteBatch};
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    cluster.tick(3);
    let last = cluster.status(1).raft.last_index;
    let (engine, files) = (cluster.node(1).engine.clone(), cluster.node(1).files.clone());
    let mut batch = WriteBatch::new();
    let key = raftstore::keys::Key::LogEntry(super::cluster::REGION, last);
    batch.delete(Cf::Raft, key.encode());
    engine.write(&batch).unwrap();
    let config = Config::new(super::cluster::CLUSTER, 1.into());
    let error = Store::open(config, engine, &files).unwrap_err();
    assert!(error.to_string().contains("was committed"), "{error}");
}

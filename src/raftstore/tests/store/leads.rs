//! Losing and gaining the lead: everybody who waits is answered, nothing acknowledged is lost.

use raftstore::command::WriteResult;
use raftstore::{RegionError, StoreMsg};

use super::cluster::{Cluster, Slot, header, put};

#[test]
fn a_deposed_leader_answers_what_it_cannot_finish() {
    let mut cluster = Cluster::led_by(1);
    cluster.isolate(1);
    let proposed = cluster.write(1, put("k", "lost"));
    let read = cluster.ask_read(1);
    cluster.settle();
    assert!(proposed.take().is_none());
    let leader = {
        cluster.node(1).down = true;
        let leader = cluster.elect();
        cluster.node(1).down = false;
        leader
    };
    cluster.put(leader, "k", "kept");
    cluster.cut.clear();
    cluster.tick(4);
    assert_eq!(proposed.take(), Some(Err(RegionError::StaleCommand)));
    assert!(matches!(read.take(), Some(Err(RegionError::NotLeader { .. }))));
    assert_eq!(cluster.stored(1, "k").as_deref(), Some("kept"));
}

#[test]
fn the_hint_names_the_leader_only_when_it_is_known() {
    let mut cluster = Cluster::led_by(1);
    cluster.isolate(1);
    cluster.tick(30);
    let slot = cluster.write(1, put("k", "v"));
    let Some(Err(RegionError::NotLeader { leader, .. })) = slot.take() else {
        panic!("an isolated leader steps down");
    };
    assert_eq!(leader, None);
}

#[test]
fn during_a_transfer_clients_are_sent_away_without_a_hint() {
    let mut cluster = Cluster::led_by(1);
    cluster.isolate(3);
    let (slot, reply) = Slot::new();
    let to = proto::ids::PeerId::from(30);
    cluster.send(1, StoreMsg::TransferLeader { header: header(), to, reply });
    assert_eq!(slot.take(), Some(Ok(())));
    let write = cluster.write(1, put("k", "v"));
    let refused = write.take().expect("at once").unwrap_err();
    assert_eq!(refused, RegionError::NotLeader { region: super::cluster::REGION, leader: None });
    cluster.tick(20);
    cluster.put(1, "k", "v");
}

#[test]
fn a_transfer_to_a_stranger_is_refused() {
    let mut cluster = Cluster::led_by(1);
    let (slot, reply) = Slot::new();
    let to = proto::ids::PeerId::from(99);
    cluster.send(1, StoreMsg::TransferLeader { header: header(), to, reply });
    assert!(matches!(slot.take(), Some(Err(RegionError::MismatchPeerId { .. }))));
}

#[test]
fn a_store_that_leaves_hands_its_leads_over() {
    let mut cluster = Cluster::led_by(2);
    cluster.put(2, "k", "v");
    cluster.send(2, StoreMsg::Drain);
    cluster.settle();
    assert!(cluster.node(2).seen.drained);
    let leader = cluster.leader();
    assert_ne!(leader, 2);
    cluster.put(leader, "k", "w");
}

#[test]
fn a_new_leader_reports_at_once_and_then_now_and_then() {
    let mut cluster = Cluster::led_by_with(1, |config| {
        config.region_heartbeat_ticks = 50;
        config.hibernate_ticks = 0;
    });
    assert!(!cluster.node(1).seen.heartbeats.is_empty());
    cluster.node(1).seen.heartbeats.clear();
    cluster.isolate(3);
    cluster.tick(50);
    let heartbeats = std::mem::take(&mut cluster.node(1).seen.heartbeats);
    assert_eq!(heartbeats.len(), 1);
    assert_eq!(heartbeats[0].leader.store_id, 1);
    cluster.tick(50);
    let heartbeats = std::mem::take(&mut cluster.node(1).seen.heartbeats);
    assert_eq!(heartbeats[0].down_peers.iter().map(|(p, _)| p.store_id).collect::<Vec<_>>(), [3]);
}

#[test]
fn acknowledged_writes_survive_the_loss_of_every_unsynced_byte() {
    let mut cluster = Cluster::led_by(1);
    for i in 0..20 {
        cluster.put(1, &format!("k{i}"), "v");
    }
    for store in 1..=3 {
        cluster.crash(store);
    }
    for store in 1..=3 {
        cluster.restart(store);
    }
    let leader = cluster.elect();
    for i in 0..20 {
        assert_eq!(cluster.stored(leader, &format!("k{i}")).as_deref(), Some("v"));
    }
    let slot = cluster.write(leader, put("more", "v"));
    cluster.settle();
    assert_eq!(slot.take(), Some(Ok(WriteResult::Applied)));
}

//! Regions in which nothing happens sleep, cost nothing, and are woken by whatever happens.

use proto::ids::PeerId;
use raftstore::StoreMsg;
use raftstore::command::WriteResult;

use super::cluster::{Cluster, Slot, header, put};

/// Long enough for a region at rest to fall asleep.
const REST_TICKS: usize = 80;

fn asleep(cluster: &Cluster) -> Vec<u64> {
    let sleeps = |store: &u64| cluster.status(*store).hibernating;
    let up = |store: &u64| !cluster.nodes[*store as usize - 1].down;
    (1..=3).filter(up).filter(sleeps).collect()
}

/// A region led by store 1 that sleeps on all three.
fn sleeping() -> Cluster {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    cluster.tick(REST_TICKS);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
    cluster
}

fn messages_sent(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes.iter().map(|node| node.store.status().counters.messages_sent).collect()
}

/// How many ticks until somebody but `old` leads and serves.
fn ticks_to_new_leader(cluster: &mut Cluster, old: u64) -> usize {
    for ticks in 0..200 {
        let serving = |store: &u64| {
            let status = cluster.status(*store);
            !cluster.nodes[*store as usize - 1].down
                && status.raft.role == raft::Role::Leader
                && status.applied_index == status.raft.last_index
        };
        if (1..=3).filter(|store| *store != old).any(|store| serving(&store)) {
            return ticks;
        }
        cluster.tick(1);
    }
    panic!("nobody took over");
}

#[test]
fn a_region_at_rest_sleeps_and_says_nothing_but_that_its_stores_live() {
    let mut cluster = sleeping();
    let before = messages_sent(&cluster);
    cluster.tick(100);
    let sent: Vec<u64> =
        messages_sent(&cluster).iter().zip(before).map(|(now, before)| now - before).collect();
    assert_eq!(sent, [100, 100, 100], "two pings every two ticks");
    assert_eq!(asleep(&cluster), [1, 2, 3]);
    assert!(cluster.nodes.iter().all(|node| node.store.status().asleep == 1));
}

#[test]
fn a_write_wakes_everybody_and_they_fall_asleep_again() {
    let mut cluster = sleeping();
    cluster.put(1, "k", "w");
    cluster.tick(1);
    assert_eq!(asleep(&cluster), []);
    cluster.tick(REST_TICKS);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
    assert!((1..=3).all(|store| cluster.stored(store, "k").as_deref() == Some("w")));
}

#[test]
fn a_sleeping_leader_has_no_lease_and_a_read_asks_a_quorum() {
    let mut cluster = sleeping();
    assert_eq!(cluster.lease_read(1, "k"), None);
    let read = cluster.ask_read(1);
    assert!(read.take().is_none(), "not before somebody has confirmed the lead");
    cluster.settle();
    let permit = read.take().expect("answered").expect("confirmed");
    assert_eq!(permit.read(|_| cluster.stored(1, "k")), Ok(Some("v".to_owned())));
    assert!(cluster.lease_read(1, "k").is_some(), "the round began a lease");
    assert_eq!(asleep(&cluster), []);
}

#[test]
fn reads_by_lease_keep_a_region_awake() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    for _ in 0..200 {
        cluster.tick(1);
        assert!(cluster.lease_read(1, "k").is_some());
    }
    assert_eq!(asleep(&cluster), []);
}

#[test]
fn a_transfer_and_a_question_wake_it_too() {
    let mut cluster = sleeping();
    let (slot, reply) = Slot::new();
    let to = PeerId::from(20);
    cluster.send(1, StoreMsg::TransferLeader { header: header(), to, reply });
    cluster.settle();
    assert_eq!(slot.take(), Some(Ok(())));
    cluster.tick(1);
    assert_eq!(cluster.leader(), 2);
    cluster.tick(REST_TICKS);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
    let (slot, reply) = Slot::new();
    cluster.send(2, StoreMsg::CheckConsistency { header: header(), reply });
    cluster.settle();
    assert!(matches!(slot.take(), Some(Ok(_))));
}

#[test]
fn the_loss_of_the_leaders_store_is_noticed_in_its_sleep() {
    let mut cluster = sleeping();
    cluster.crash(1);
    let ticks = ticks_to_new_leader(&mut cluster, 1);
    let patience = cluster.config.election_timeout_ticks as usize;
    assert!(ticks <= patience + 6, "{ticks} ticks");
    let leader = cluster.leader();
    cluster.put(leader, "k", "w");
}

#[test]
fn a_sleeping_leader_that_is_cut_off_serves_nothing_old() {
    let mut cluster = sleeping();
    cluster.isolate(1);
    ticks_to_new_leader(&mut cluster, 1);
    let leader = if cluster.status(2).raft.role == raft::Role::Leader { 2 } else { 3 };
    cluster.put(leader, "k", "new");
    assert!(cluster.status(1).hibernating, "nothing has reached it");
    assert_eq!(cluster.lease_read(1, "k"), None);
    let read = cluster.ask_read(1);
    cluster.tick(60);
    assert!(matches!(read.take(), Some(Err(_))), "no quorum confirms it");
    cluster.cut.clear();
    cluster.tick(REST_TICKS + 20);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
    assert_eq!(cluster.stored(1, "k").as_deref(), Some("new"));
    assert_eq!(cluster.leader(), leader);
}

#[test]
fn regions_sleep_with_one_store_down_and_bring_it_up_to_date_when_it_returns() {
    for dies in [false, true] {
        let mut cluster = sleeping();
        if dies {
            cluster.crash(3)
        } else {
            cluster.isolate(3)
        }
        cluster.tick(30);
        cluster.put(1, "k", "w");
        cluster.tick(REST_TICKS);
        assert!(cluster.status(1).hibernating && cluster.status(2).hibernating, "dies: {dies}");
        assert_ne!(cluster.stored(3, "k").as_deref(), Some("w"));
        if dies {
            cluster.restart(3)
        } else {
            cluster.cut.clear()
        }
        cluster.tick(40);
        assert_eq!(cluster.stored(3, "k").as_deref(), Some("w"), "dies: {dies}");
        assert_eq!(cluster.leader(), 1, "without an election");
        cluster.tick(REST_TICKS);
        assert_eq!(asleep(&cluster), [1, 2, 3]);
    }
}

#[test]
fn a_follower_that_lags_keeps_the_region_awake() {
    let mut cluster = Cluster::led_by(1);
    cluster.node(3).stall_log = true;
    cluster.put(1, "k", "v");
    cluster.tick(2 * REST_TICKS);
    assert_eq!(asleep(&cluster), [], "store 3 lives, and lacks an entry");
    cluster.node(3).stall_log = false;
    cluster.tick(2 * REST_TICKS);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
}

#[test]
fn an_answer_that_is_lost_costs_no_election() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    let term = cluster.status(1).raft.term;
    cluster.tick(30);
    // For some ticks in each round, everything that store 3 says is lost.
    for _ in 0..20 {
        cluster.cut.insert((3, 1));
        cluster.tick(8);
        cluster.cut.remove(&(3, 1));
        cluster.tick(8);
    }
    cluster.tick(2 * REST_TICKS);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
    assert_eq!(cluster.status(1).raft.term, term);
}

#[test]
fn a_store_that_restarts_finds_its_sleeping_leader() {
    let mut cluster = sleeping();
    let term = cluster.status(1).raft.term;
    cluster.crash(2);
    cluster.restart(2);
    cluster.tick(4);
    assert_eq!(cluster.status(2).raft.leader, cluster.status(1).raft.leader);
    assert_eq!(cluster.status(1).raft.term, term, "without an election");
    cluster.tick(REST_TICKS);
    assert_eq!(asleep(&cluster), [1, 2, 3]);
}

#[test]
fn a_leader_that_restarts_while_all_sleep_is_replaced_or_returns() {
    let mut cluster = sleeping();
    cluster.crash(1);
    cluster.restart(1);
    let leader = cluster.elect();
    let slot = cluster.write(leader, put("k", "w"));
    cluster.settle();
    assert_eq!(slot.take(), Some(Ok(WriteResult::Applied)));
}

#[test]
fn a_sleeping_leader_reports_now_and_then_and_when_asked() {
    let mut cluster = Cluster::led_by_with(1, |config| {
        config.region_heartbeat_ticks = 20;
        config.sleeping_heartbeat_ticks = 300;
    });
    cluster.put(1, "k", "v");
    cluster.tick(REST_TICKS + 20);
    cluster.node(1).seen.heartbeats.clear();
    cluster.tick(600);
    assert_eq!(cluster.node(1).seen.heartbeats.len(), 2);
    assert!(cluster.node(1).seen.heartbeats[0].down_peers.is_empty());
    cluster.node(1).seen.heartbeats.clear();
    cluster.send(1, StoreMsg::ReportRegions);
    cluster.tick(30);
    assert_eq!(cluster.node(1).seen.heartbeats.len(), 1);
    assert_eq!(asleep(&cluster), [1, 2, 3], "to report is not to wake");
}

#[test]
fn a_leader_that_has_to_leave_while_it_asks_is_ticked_on() {
    for rested in 30..46 {
        let mut cluster = Cluster::led_by(1);
        cluster.put(1, "k", "v");
        cluster.tick(rested);
        cluster.isolate(1);
        cluster.tick(1);
        cluster.send(1, StoreMsg::Drain);
        cluster.tick(60);
        let role = cluster.status(1).raft.role;
        assert_ne!(role, raft::Role::Leader, "after {rested} ticks it asked, and nobody answered");
    }
}

#[test]
fn never_is_a_choice() {
    let mut cluster = Cluster::led_by_with(1, |config| config.hibernate_ticks = 0);
    cluster.put(1, "k", "v");
    cluster.tick(4 * REST_TICKS);
    assert_eq!(asleep(&cluster), []);
}

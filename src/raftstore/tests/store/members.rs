//! Changing the members of a region: what the leader accepts, what it refuses and why, what becomes of the peers.

use proto::eraftpb::ConfChangeType;
use proto::metapb::{self, PeerRole};
use proto::pdpb;
use raftstore::{Order, RegionError};

use super::cluster::{Cluster, REGION, put};

pub(crate) const ID: u64 = REGION.get();

pub(crate) fn change(kind: ConfChangeType, id: u64, store_id: u64) -> pdpb::ChangePeer {
    let peer = Some(metapb::Peer { id, store_id, ..Default::default() });
    pdpb::ChangePeer { peer, change_type: kind.into() }
}

pub(crate) fn voter(id: u64, store: u64) -> pdpb::ChangePeer {
    change(ConfChangeType::AddNode, id, store)
}

pub(crate) fn learner(id: u64, store: u64) -> pdpb::ChangePeer {
    change(ConfChangeType::AddLearnerNode, id, store)
}

pub(crate) fn gone(id: u64, store: u64) -> pdpb::ChangePeer {
    change(ConfChangeType::RemoveNode, id, store)
}

impl Cluster {
    /// `count` stores, a region on the `members`, led by the first of them.
    pub(crate) fn with_members(count: u64, members: &[u64]) -> Cluster {
        let mut cluster = Cluster::of(count, members, |config| {
            config.stale_check_ticks = 30;
            config.region_heartbeat_ticks = 10;
            config.sleeping_heartbeat_ticks = 10;
        });
        cluster.until_led();
        cluster.move_lead_of(ID, members[0]);
        cluster
    }

    pub(crate) fn change_peers(&mut self, changes: &[pdpb::ChangePeer]) -> Result<(), RegionError> {
        self.until("a leader", |cluster| cluster.leader_of(ID).is_some());
        self.order_region(ID, Order::ChangePeers(changes.to_vec()))
    }

    /// The reason of a refusal.
    pub(crate) fn refused(&mut self, changes: &[pdpb::ChangePeer]) -> String {
        match self.change_peers(changes) {
            Err(RegionError::Refused { reason }) => reason,
            other => panic!("{changes:?} was not refused, but {other:?}"),
        }
    }

    /// The peers by the leader of the region: id and role.
    pub(crate) fn roles(&self) -> Vec<(u64, PeerRole)> {
        let Some(leader) = self.leader_of(ID) else { return Vec::new() };
        let region = self.region(leader, ID).unwrap().region;
        let mut roles: Vec<_> = region.peers.iter().map(|peer| (peer.id, peer.role())).collect();
        roles.sort_by_key(|(id, _)| *id);
        roles
    }

    pub(crate) fn until_roles(&mut self, roles: &[(u64, PeerRole)]) {
        self.until("the change of peers", |cluster| cluster.roles() == roles);
    }

    /// Adds a peer the usual way: as a learner, which is promoted once it has caught up.
    pub(crate) fn add_peer(&mut self, id: u64, store: u64) {
        self.change_peers(&[learner(id, store)]).unwrap();
        self.until("the learner's first snapshot", |cluster| cluster.follows(store));
        self.change_peers(&[voter(id, store)]).unwrap();
        self.until("the promotion", |cluster| cluster.roles().contains(&(id, PeerRole::Voter)));
        self.until("its news", |cluster| cluster.follows(store));
    }

    /// Whether a store's peer of the region has what the leader has.
    pub(crate) fn follows(&self, store: u64) -> bool {
        let Some(leader) = self.leader_of(ID) else { return false };
        let (Some(here), Some(there)) = (self.region(store, ID), self.region(leader, ID)) else {
            return false;
        };
        here.applied_index == there.applied_index && here.state_hash == there.state_hash
    }

    pub(crate) fn remove_peer(&mut self, id: u64, store: u64) {
        self.change_peers(&[gone(id, store)]).unwrap();
        self.until("the removal", |cluster| {
            let roles = cluster.roles();
            !roles.is_empty() && !roles.iter().any(|(peer, _)| *peer == id)
        });
    }
}

#[test]
fn a_new_peer_gets_everything_and_is_promoted() {
    use PeerRole::{Learner, Voter};
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.put_anywhere("early", "v");
    let lease = cluster.header_of(ID).epoch;
    assert_eq!(cluster.change_peers(&[learner(40, 4)]), Ok(()));
    cluster.until_roles(&[(10, Voter), (20, Voter), (30, Voter), (40, Learner)]);
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    assert_eq!(cluster.stored(4, "early").as_deref(), Some("v"));
    assert_eq!(cluster.node(4).store.status().counters.peers_created, 1);
    cluster.put_anywhere("late", "v");
    cluster.until("replication", |cluster| cluster.follows(4));
    assert_eq!(cluster.stored(4, "late").as_deref(), Some("v"));
    assert_eq!(cluster.change_peers(&[voter(40, 4)]), Ok(()));
    cluster.until_roles(&[(10, Voter), (20, Voter), (30, Voter), (40, Voter)]);
    let epoch = cluster.header_of(ID).epoch;
    assert_eq!((epoch.conf_ver, epoch.version), (lease.conf_ver + 2, lease.version));
    cluster.until("everybody to know", |cluster| (2..=4).all(|store| cluster.follows(store)));
    // The newcomer can lead, and counts.
    cluster.move_lead_of(ID, 4);
    cluster.isolate(1);
    cluster.put_anywhere("later", "v");
    assert_eq!(cluster.stored(4, "later").as_deref(), Some("v"));
}

#[test]
fn a_region_moves_to_other_stores_peer_by_peer_and_nothing_is_lost() {
    let mut cluster = Cluster::with_members(6, &[1, 2, 3]);
    for i in 0..20 {
        cluster.put_anywhere(&format!("k{i}"), "v");
    }
    for (old, new) in [(1, 4), (2, 5), (3, 6)] {
        cluster.add_peer(new * 10, new);
        if cluster.leader_of(ID) == Some(old) {
            cluster.move_lead_of(ID, new);
        }
        cluster.remove_peer(old * 10, old);
    }
    for i in 0..20 {
        for store in 4..=6 {
            assert_eq!(cluster.stored(store, &format!("k{i}")).as_deref(), Some("v"));
        }
    }
    for store in 1..=3 {
        cluster.until_gone(store);
    }
    cluster.put_anywhere("after", "v");
}

#[test]
fn a_joint_change_replaces_a_voter_and_is_left_without_being_asked() {
    use PeerRole::{Learner, Voter};
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.put_anywhere("k", "v");
    let before = cluster.header_of(ID).epoch.conf_ver;
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    assert_eq!(cluster.change_peers(&[voter(40, 4), learner(30, 3)]), Ok(()));
    cluster.until_roles(&[(10, Voter), (20, Voter), (30, Learner), (40, Voter)]);
    assert_eq!(cluster.header_of(ID).epoch.conf_ver, before + 3, "enter and leave count one each");
    assert_eq!(cluster.change_peers(&[]), Ok(()), "there is nothing to leave any more");
    cluster.remove_peer(30, 3);
    cluster.until_gone(3);
    cluster.until("everybody to know", |cluster| [2, 4].iter().all(|s| cluster.follows(*s)));
}

#[test]
fn a_joint_membership_survives_a_restart_and_a_new_leader_leaves_it() {
    use PeerRole::{DemotingVoter, Learner, Voter};
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    let (header, leader) = (cluster.header_of(ID), cluster.leader_of(ID).unwrap());
    let order = Order::ChangePeers(vec![voter(40, 4), learner(30, 3)]);
    let _slot = cluster.order(leader, header, order);
    let joint = |cluster: &Cluster| {
        let entered = |store| {
            let region = cluster.region(store, ID).unwrap().region;
            region.peers.iter().any(|peer| peer.role() == DemotingVoter)
        };
        (1..=4).any(entered)
    };
    for _ in 0..40 {
        if joint(&cluster) {
            break;
        }
        cluster.round();
    }
    assert!(joint(&cluster), "nobody entered the joint membership");
    for store in 1..=4 {
        cluster.crash(store);
    }
    for store in 1..=4 {
        cluster.restart(store);
    }
    cluster.until_led();
    cluster.until_roles(&[(10, Voter), (20, Voter), (30, Learner), (40, Voter)]);
}

#[test]
fn the_leader_is_not_removed_but_hands_over() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    let reason = cluster.refused(&[gone(10, 1)]);
    assert!(reason.contains("another peer is taking the lead"), "{reason}");
    cluster
        .until("a new leader", |cluster| cluster.leader_of(ID).is_some_and(|leader| leader != 1));
    cluster.remove_peer(10, 1);
    cluster.until_gone(1);
    // The classic: the leader of two.
    cluster.move_lead_of(ID, 2);
    let reason = cluster.refused(&[gone(20, 2)]);
    assert!(reason.contains("another peer is taking the lead"), "{reason}");
    cluster.until("a new leader", |cluster| cluster.leader_of(ID) == Some(3));
    cluster.remove_peer(20, 2);
    cluster.until_gone(2);
    cluster.put_anywhere("k", "alone");
    let reason = cluster.refused(&[gone(30, 3)]);
    assert_eq!(reason, "no voter would be left");
    // And it can grow again, with new ids.
    cluster.add_peer(21, 2);
    cluster.add_peer(11, 1);
    assert_eq!(cluster.stored(1, "k").as_deref(), Some("alone"));
}

#[test]
fn a_change_that_leaves_no_live_majority_is_refused() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.put_anywhere("k", "v");
    cluster.node(3).down = true;
    cluster.tick(20);
    let reason = cluster.refused(&[gone(20, 2)]);
    assert!(reason.contains("of 2 voters only 1 would be live"), "{reason}");
    let reason = cluster.refused(&[voter(40, 4)]);
    assert!(reason.contains("of 4 voters only 2 would be live"), "{reason}");
    let reason = cluster.refused(&[learner(20, 2), voter(40, 4)]);
    assert!(reason.contains("would be live"), "{reason}");
    // The one that is down can go.
    cluster.remove_peer(30, 3);
    cluster.put_anywhere("k", "w");
}

#[test]
fn a_learner_that_lags_is_not_promoted() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.node(4).down = true;
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    cluster.tick(5);
    let reason = cluster.refused(&[voter(40, 4)]);
    assert_eq!(reason, "learner 40 is down or has not caught up");
    cluster.restart(4);
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    assert_eq!(cluster.change_peers(&[voter(40, 4)]), Ok(()));
}

#[test]
fn one_change_at_a_time_and_only_for_the_epoch_it_was_decided_for() {
    let mut cluster = Cluster::with_members(5, &[1, 2, 3]);
    let header = cluster.header_of(ID);
    let order = |change| Order::ChangePeers(vec![change]);
    let first = cluster.order(1, header.clone(), order(learner(40, 4)));
    let second = cluster.order(1, header.clone(), order(learner(50, 5)));
    assert_eq!(first.take(), Some(Ok(())));
    assert!(matches!(second.take(), Some(Err(RegionError::Refused { .. }))), "one is pending");
    cluster.settle();
    let late = cluster.order(1, header, order(learner(50, 5)));
    assert!(matches!(late.take(), Some(Err(RegionError::EpochNotMatch { .. }))));
    assert_eq!(cluster.change_peers(&[learner(50, 5)]), Ok(()));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    let refusals = [
        (gone(99, 4), "the region has no peer 99 on store 4"),
        (learner(99, 2), "store 2 holds peer 20 of the region already"),
        (voter(20, 2), "peer 20 is a member already, in this role or on another store"),
        (pdpb::ChangePeer::default(), "a change names no peer, or one without its ids"),
    ];
    for (change, reason) in refusals {
        assert_eq!(cluster.refused(&[change]), reason);
    }
    let follower = cluster.order(2, cluster.header_of(ID), Order::ChangePeers(vec![gone(30, 3)]));
    assert!(matches!(follower.take(), Some(Err(RegionError::NotLeader { .. }))));
}

#[test]
fn a_change_that_is_overtaken_by_a_split_has_no_effect_on_any_peer() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    // The ids for a split come while a change is on its way: the split finds another epoch when it is applied.
    let key = super::regions::cut("m");
    assert_eq!(cluster.order_region(ID, Order::Split { keys: vec![key] }), Ok(()));
    cluster.turn_only(1);
    let header = cluster.header_of(ID);
    let slot = cluster.order(1, header, Order::ChangePeers(vec![learner(40, 4)]));
    assert_eq!(slot.take(), Some(Ok(())));
    cluster.answer_split_requests(1);
    cluster.settle();
    cluster.until_led();
    assert!(cluster.roles().contains(&(40, PeerRole::Learner)));
    for store in 1..=3 {
        assert_eq!(cluster.regions(store).len(), 1, "the split was refused everywhere");
    }
    cluster.put_anywhere("k", "v");
}

#[test]
fn writes_go_on_while_peers_come_and_go() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    let mut written = 0;
    let write = |cluster: &mut Cluster, written: &mut u32| {
        cluster.until("a leader", |cluster| cluster.leader_of(ID).is_some());
        for _ in 0..5 {
            cluster.put_anywhere(&format!("k{written}"), "v");
            *written += 1;
        }
    };
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    write(&mut cluster, &mut written);
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    cluster.change_peers(&[voter(40, 4), learner(30, 3)]).unwrap();
    write(&mut cluster, &mut written);
    cluster.until("the end of the joint membership", |cluster| {
        cluster.roles().contains(&(30, PeerRole::Learner))
    });
    cluster.change_peers(&[gone(30, 3)]).unwrap();
    write(&mut cluster, &mut written);
    cluster.until("everybody to know", |cluster| [2, 4].iter().all(|s| cluster.follows(*s)));
    for i in 0..written {
        assert_eq!(cluster.stored(4, &format!("k{i}")).as_deref(), Some("v"));
    }
    let stale = cluster.write(3, put("k", "w"));
    cluster.settle();
    assert!(stale.take().unwrap().is_err());
}

#[test]
fn reports_say_who_is_down_and_who_lags() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.node(3).down = true;
    cluster.node(4).down = true;
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    cluster.tick(120);
    let report = cluster.node(1).seen.heartbeats.last().unwrap().clone();
    let ids = |peers: Vec<u64>| peers;
    assert_eq!(ids(report.down_peers.iter().map(|(peer, _)| peer.id).collect()), [30, 40]);
    for (peer, seconds) in &report.down_peers {
        assert!((5..=6).contains(seconds), "{peer:?} is down for {seconds} s, not 6");
    }
    assert_eq!(ids(report.pending_peers.iter().map(|peer| peer.id).collect()), [40]);
    cluster.restart(3);
    cluster.restart(4);
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    cluster.tick(20);
    let report = cluster.node(1).seen.heartbeats.last().unwrap().clone();
    assert!(report.down_peers.is_empty() && report.pending_peers.is_empty(), "{report:?}");
}

/// What the applier still had in hand when a snapshot overtook it is older than the membership that Raft has by then.
#[test]
fn a_change_that_a_snapshot_has_overtaken_does_not_touch_rafts_membership() {
    let mut cluster = Cluster::of(4, &[1, 2, 3], |config| {
        config.log_gc_count_limit = 10;
        config.log_gc_ticks = 2;
        config.hibernate_ticks = 0;
    });
    cluster.until_led();
    cluster.move_lead_of(ID, 1);
    cluster.node(3).stall_apply = true;
    // The third store has this entry, and does not apply it.
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    cluster.tick(3);
    cluster.isolate(3);
    cluster.change_peers(&[voter(40, 4)]).unwrap();
    cluster.tick(3);
    for i in 0..200 {
        cluster.put_anywhere(&format!("k{i}"), "v");
    }
    cluster.tick(20);
    cluster.cut.clear();
    cluster.until("the snapshot", |cluster| cluster.region(3, ID).unwrap().installing);
    cluster.node(3).stall_apply = false;
    cluster.until("the installation", |cluster| cluster.follows(3));
    assert_eq!(cluster.stored(3, "k199").as_deref(), Some("v"));
    let raft = cluster.region(3, ID).unwrap().raft.conf_state;
    assert_eq!(raft, cluster.region(1, ID).unwrap().raft.conf_state);
}

/// The scheduler goes on with a move as soon as it can, not with the next regular report.
#[test]
fn a_peer_that_has_caught_up_is_reported_at_once() {
    let mut cluster = Cluster::of(4, &[1, 2, 3], |config| config.region_heartbeat_ticks = 10_000);
    cluster.until_led();
    cluster.move_lead_of(ID, 1);
    cluster.node(4).down = true;
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    cluster.tick(20);
    let pending = |cluster: &Cluster| {
        let report = cluster.nodes[0].seen.heartbeats.last().unwrap();
        (report.down_peers.len(), report.pending_peers.len())
    };
    assert_eq!(pending(&cluster), (1, 1), "it is silent by now, and that is news, too");
    cluster.restart(4);
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    cluster.tick(3);
    assert_eq!(pending(&cluster), (0, 0));
}

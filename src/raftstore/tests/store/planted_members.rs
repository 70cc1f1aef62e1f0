//! Each planted bug of membership and the life of peers does what it says. Only with the feature `planted`.

use proto::metapb;
use raftstore::StoreMsg;
use raftstore::planted::{Bug, activate};

use super::cluster::Cluster;
use super::members::{ID, gone, learner};

fn with<T>(bug: Bug, scene: impl FnOnce() -> T) -> T {
    activate(Some(bug));
    let outcome = scene();
    activate(None);
    outcome
}

#[test]
fn a_delegate_that_outlives_its_peer_serves_what_is_gone() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    cluster.put_anywhere("k", "v");
    assert!(cluster.lease_read(1, "k").is_some());
    let mut holder = super::cluster::region();
    holder.peers.retain(|peer| peer.store_id != 1);
    holder.region_epoch = Some(metapb::RegionEpoch { conf_ver: 9, version: 1 });
    with(Bug::DelegateOutlivesPeer, || {
        cluster.send(1, StoreMsg::RegionAnswer { asked: ID.into(), holder });
        cluster.settle();
    });
    assert_eq!(cluster.lease_read(1, "k"), Some(None), "an acknowledged write is missing");
}

#[test]
fn a_change_without_quorum_stops_the_region() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    cluster.node(3).down = true;
    cluster.tick(20);
    with(Bug::ChangeWithoutQuorum, || {
        assert_eq!(cluster.change_peers(&[gone(20, 2)]), Ok(()));
        cluster.tick(60);
    });
    assert_eq!(cluster.leader_of(ID), None, "one of two voters is down for good");
}

#[test]
fn a_peer_created_over_a_neighbour_holds_its_keys() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    let message = super::creation::first_heartbeat(1, 3, ["a", "c"]);
    with(Bug::CreatedOverNeighbour, || {
        assert!(super::creation::creates(&mut cluster, message));
    });
}

#[test]
fn a_removed_peer_that_is_not_told_stays() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    cluster.isolate(4);
    with(Bug::RemovedPeerNotTold, || {
        cluster.remove_peer(40, 4);
        cluster.cut.clear();
        cluster.tick(100);
    });
    assert!(cluster.region(4, ID).is_some());
}

#[test]
fn a_tombstone_that_is_ignored_lets_a_late_message_bring_the_peer_back() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    cluster.settle();
    let mut late = Vec::new();
    for _ in 0..3 {
        cluster.keep_messages(4, &mut late);
    }
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    cluster.remove_peer(40, 4);
    cluster.until_gone(4);
    with(Bug::TombstoneIgnored, || {
        for message in late {
            cluster.send(4, StoreMsg::Raft(message));
        }
        cluster.settle();
    });
    let counters = cluster.node(4).store.status().counters;
    assert!(counters.peers_created > 1, "it came back, and was sent away again");
}

#[test]
fn a_silent_tombstone_leaves_the_other_of_two_without_a_leader() {
    let mut cluster = super::removal::removed_leader_of_two();
    with(Bug::TombstoneIsSilent, || cluster.tick(200));
    assert_eq!(cluster.leader_of(ID), None);
}

//! The end of a peer: nothing of it is left but its tombstone, whatever crashes on the way, and nothing brings it back.

use std::collections::BTreeSet;

use engine::{Cf, Engine};
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raftstore::keys::{self, Key};
use raftstore::{Order, StoreMsg};

use super::cluster::Cluster;
use super::members::{ID, gone, learner};
use super::regions::cut;

/// Every key a store holds of a region, beside the region's record.
fn remains(cluster: &Cluster, store: u64, region: &metapb::Region) -> Vec<Key> {
    let engine = &cluster.nodes[store as usize - 1].engine;
    let snapshot = engine.snapshot();
    let mut found = Vec::new();
    let everything = engine::KeyRange { lower: bytes::Bytes::new(), upper: None };
    let mut iter = snapshot.iter(Cf::Raft, everything);
    let mut more = iter.seek_to_first().unwrap();
    while more {
        let key = Key::decode(Cf::Raft, iter.key()).unwrap();
        let of = match &key {
            Key::PendingSnapshot(id) | Key::ApplyState(id) | Key::HardState(id) => Some(*id),
            Key::LogEntry(id, _) | Key::Session(id, _) => Some(*id),
            Key::StoreIdent | Key::RegionState(_) | Key::Raw(..) => None,
        };
        if of.is_some_and(|id| id.get() == region.id) {
            found.push(key);
        }
        more = iter.next().unwrap();
    }
    for (cf, range) in keys::data_ranges(region) {
        let mut iter = snapshot.iter(cf, range);
        let mut more = iter.seek_to_first().unwrap();
        while more {
            found.push(Key::decode(cf, iter.key()).unwrap());
            more = iter.next().unwrap();
        }
    }
    found
}

fn has_record(cluster: &Cluster, store: u64) -> bool {
    let engine = &cluster.nodes[store as usize - 1].engine;
    engine.get(Cf::Raft, &Key::RegionState(ID.into()).encode()).unwrap().is_some()
}

impl Cluster {
    /// Until a store holds nothing of the first region but the tombstone.
    pub(crate) fn until_gone(&mut self, store: u64) {
        let whole = super::cluster::region();
        self.until(&format!("the end of the peer on store {store}"), |cluster| {
            cluster.region(store, ID).is_none() && remains(cluster, store, &whole).is_empty()
        });
        assert!(has_record(self, store), "a tombstone stays");
    }

    /// What the region was when the first region began, on whoever leads.
    fn region_now(&self) -> metapb::Region {
        let leader = self.leader_of(ID).expect("led");
        metapb::Region::clone(&self.region(leader, ID).unwrap().region)
    }
}

#[test]
fn a_removed_peer_leaves_nothing_behind_but_a_tombstone() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    cluster.put_anywhere("k", "v");
    let slot = cluster.write(1, super::cluster::append("log", "x", 7, 1));
    cluster.settle();
    assert!(slot.take().is_some());
    cluster.remove_peer(30, 3);
    cluster.until_gone(3);
    assert_eq!(cluster.node(3).store.status().counters.peers_destroyed, 1);
    cluster.crash(3);
    cluster.restart(3);
    cluster.until_gone(3);
}

#[test]
fn only_the_removed_regions_keys_are_deleted() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    for key in ["a", "m", "z"] {
        cluster.put_anywhere(key, "v");
    }
    cluster.split(ID, &["g", "t"]);
    cluster.until_led();
    cluster.until_equal();
    for key in ["b", "n", "y"] {
        cluster.put_anywhere(key, "v");
    }
    let middle = cluster.region_with("m");
    let there = middle.peers.iter().find(|peer| peer.store_id == 3).unwrap();
    let change = Order::ChangePeers(vec![gone(there.id, 3)]);
    if cluster.leader_of(middle.id) == Some(3) {
        cluster.move_lead_of(middle.id, 1);
    }
    cluster.order_region(middle.id, change).unwrap();
    cluster.until("the end of the middle", |cluster| cluster.region(3, middle.id).is_none());
    cluster.until("the deletion", |cluster| remains(cluster, 3, &middle).is_empty());
    cluster.tick(20);
    for key in ["a", "b", "y", "z"] {
        assert_eq!(cluster.stored(3, key).as_deref(), Some("v"), "{key} is a neighbour's");
    }
    assert_eq!(cluster.stored(3, "m"), None);
    assert_eq!(cluster.stored(1, "m").as_deref(), Some("v"));
}

#[test]
fn a_removed_peer_may_be_followed_by_one_with_another_id_and_late_messages_change_nothing() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    cluster.put_anywhere("k", "v");
    // What the old peer was sent, to arrive later.
    let mut late: Vec<RaftMessage> = Vec::new();
    cluster.isolate(3);
    for _ in 0..6 {
        cluster.put_anywhere("k", "w");
        cluster.keep_messages(3, &mut late);
        cluster.keep_messages(3, &mut late);
    }
    cluster.remove_peer(30, 3);
    cluster.cut.clear();
    cluster.until_gone(3);
    assert!(!late.is_empty());
    let deliver = |cluster: &mut Cluster| {
        for message in &late {
            cluster.send(3, StoreMsg::Raft(message.clone()));
        }
        cluster.settle();
    };
    deliver(&mut cluster);
    cluster.until_gone(3);
    // The same id never lives again.
    cluster.change_peers(&[learner(30, 3)]).unwrap();
    cluster.tick(60);
    assert!(cluster.region(3, ID).is_none());
    cluster.remove_peer(30, 3);
    cluster.add_peer(31, 3);
    deliver(&mut cluster);
    cluster.tick(20);
    assert_eq!(cluster.region(3, ID).unwrap().peer.id, 31);
    assert_eq!(cluster.stored(3, "k").as_deref(), Some("w"));
    cluster.remove_peer(31, 3);
    cluster.until_gone(3);
    deliver(&mut cluster);
    cluster.until_gone(3);
}

#[test]
fn a_peer_that_was_cut_off_gives_way_to_its_successor() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    cluster.put_anywhere("k", "v");
    cluster.isolate(3);
    cluster.remove_peer(30, 3);
    cluster.change_peers(&[learner(31, 3)]).unwrap();
    assert_eq!(cluster.region(3, ID).unwrap().peer.id, 30, "it has heard nothing");
    cluster.cut.clear();
    cluster.until("the successor", |cluster| {
        cluster.region(3, ID).is_some_and(|status| status.peer.id == 31) && cluster.follows(3)
    });
    assert_eq!(cluster.stored(3, "k").as_deref(), Some("v"));
}

#[test]
fn an_isolated_voter_finds_out_from_the_others() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    cluster.isolate(3);
    cluster.remove_peer(30, 3);
    cluster.tick(40);
    assert!(cluster.region(3, ID).is_some());
    cluster.cut.clear();
    cluster.until_gone(3);
}

#[test]
fn an_isolated_learner_asks_the_others() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    cluster.until("the snapshot", |cluster| cluster.follows(4));
    cluster.isolate(4);
    cluster.remove_peer(40, 4);
    cluster.tick(40);
    assert!(cluster.region(4, ID).is_some());
    cluster.cut.clear();
    cluster.until_gone(4);
}

#[test]
fn a_peer_whose_fellows_are_all_gone_asks_the_scheduler() {
    let mut cluster = Cluster::with_members(6, &[1, 2, 3]);
    cluster.isolate(3);
    for (old, new) in [(2, 4), (1, 5)] {
        cluster.add_peer(new * 10, new);
        if cluster.leader_of(ID) == Some(old) {
            cluster.move_lead_of(ID, new);
        }
        cluster.remove_peer(old * 10, old);
    }
    cluster.remove_peer(30, 3);
    cluster.tick(10);
    cluster.cut.clear();
    cluster.until_gone(1);
    cluster.until_gone(2);
    // Stores 1 and 2 hold tombstones only, and know nothing newer.
    cluster.until("a question", |cluster| !cluster.nodes[2].seen.region_questions.is_empty());
    let question = cluster.nodes[2].seen.region_questions[0].clone();
    assert_eq!((question.region.id, question.peer.id), (ID, 30));
    let asked = question.region.id.into();
    // An answer that is not newer, and one that still lists it, change nothing.
    let old = metapb::Region::clone(&question.region);
    let mut listed = cluster.region_now();
    listed.peers.push(question.peer);
    for holder in [old, listed] {
        cluster.send(3, StoreMsg::RegionAnswer { asked, holder });
        cluster.settle();
        assert!(cluster.region(3, ID).is_some());
    }
    let holder = cluster.region_now();
    cluster.send(3, StoreMsg::RegionAnswer { asked, holder });
    cluster.until_gone(3);
}

#[test]
fn another_holder_of_the_start_key_proves_no_merge_by_itself() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    let mut holder = super::cluster::region();
    holder.id = 77;
    let answer = |holder: &metapb::Region| StoreMsg::RegionAnswer {
        asked: ID.into(),
        holder: holder.clone(),
    };
    cluster.send(3, answer(&holder));
    cluster.settle();
    assert!(cluster.region(3, ID).is_some(), "its version is not later");
    holder.region_epoch = Some(metapb::RegionEpoch { conf_ver: 9, version: 9 });
    holder.start_key = cut("m");
    cluster.send(3, answer(&holder));
    cluster.settle();
    assert!(cluster.region(3, ID).is_some(), "it does not hold the start key");
    holder.start_key = bytes::Bytes::new();
    cluster.send(3, answer(&holder));
    cluster.settle();
    assert!(cluster.region(3, ID).is_some(), "its own log speaks of no merge");
}

/// Crashes a store after each number of rounds since `begin`, on a fresh cluster each time, and sees that `end` is reached.
pub(crate) fn crash_at_every_step(
    begin: impl Fn() -> Cluster,
    victims: &[u64],
    end: impl Fn(&mut Cluster),
) {
    for rounds in 0..14 {
        let mut cluster = begin();
        for _ in 0..rounds {
            cluster.round();
        }
        for store in victims {
            cluster.crash(*store);
        }
        for store in victims {
            cluster.restart(*store);
        }
        end(&mut cluster);
    }
}

#[test]
fn a_crash_at_any_step_of_a_removal_ends_in_a_tombstone() {
    let begin = || {
        let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
        cluster.put_anywhere("k", "v");
        cluster.tick(3);
        let (leader, header) = (cluster.leader_of(ID).unwrap(), cluster.header_of(ID));
        let order = Order::ChangePeers(vec![gone(30, 3)]);
        assert_eq!(cluster.order(leader, header, order).take(), Some(Ok(())));
        cluster
    };
    let end = |cluster: &mut Cluster| {
        cluster.until_led();
        // The order may be lost with its leader; then it is given again.
        if cluster.roles().len() == 3 {
            if cluster.leader_of(ID) == Some(3) {
                cluster.move_lead_of(ID, 1);
            }
            cluster.tick(3);
            cluster.remove_peer(30, 3);
        }
        cluster.until_gone(3);
        cluster.put_anywhere("k", "w");
    };
    crash_at_every_step(begin, &[3], end);
    crash_at_every_step(begin, &[1], end);
    crash_at_every_step(begin, &[1, 2, 3], end);
}

#[test]
fn a_crash_at_any_step_of_a_destruction_ends_in_a_tombstone() {
    let begin = || {
        let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
        cluster.put_anywhere("k", "v");
        cluster.tick(3);
        let mut holder = super::cluster::region();
        holder.peers.retain(|peer| peer.store_id != 3);
        holder.region_epoch = Some(metapb::RegionEpoch { conf_ver: 2, version: 1 });
        cluster.isolate(3);
        cluster.remove_peer(30, 3);
        cluster.send(3, StoreMsg::RegionAnswer { asked: ID.into(), holder });
        cluster
    };
    let end = |cluster: &mut Cluster| {
        cluster.cut.clear();
        cluster.until_gone(3);
        cluster.add_peer(31, 3);
        assert_eq!(cluster.stored(3, "k").as_deref(), Some("v"));
    };
    crash_at_every_step(begin, &[3], end);
}

/// A destroyed peer's vote is missed by a partner that does not know yet that it needs it no longer: the tombstone tells.
#[test]
fn the_tombstone_of_a_removed_leader_frees_the_one_it_leaves() {
    let mut cluster = removed_leader_of_two();
    cluster.until("peer 20 to lead alone", |cluster| cluster.leader_of(ID) == Some(2));
    assert_eq!(cluster.roles().len(), 1);
    cluster.put_anywhere("k", "v");
}

/// A group of two of which one has led its own removal, and is gone; the other does not know.
pub(crate) fn removed_leader_of_two() -> Cluster {
    let mut cluster = Cluster::with_members(2, &[2, 1]);
    let (header, order) = (cluster.header_of(ID), Order::ChangePeers(vec![gone(10, 1)]));
    // The removal of peer 10 reaches it, but its acknowledgement does not come back.
    cluster.cut.insert((1, 2));
    assert_eq!(cluster.order(2, header, order).take(), Some(Ok(())));
    cluster.settle();
    assert_eq!(cluster.region(2, ID).unwrap().region.peers.len(), 2);
    // It takes the lead with it: its partner was down for a while, and then cut off until it defends nobody.
    cluster.crash(2);
    cluster.restart(2);
    cluster.isolate(2);
    cluster.tick(14);
    cluster.cut.clear();
    // It commits its own removal; nobody else hears of that.
    let committed = |cluster: &Cluster| {
        let raft = cluster.region(1, ID).unwrap().raft;
        raft.role == raft::Role::Leader && raft.commit == raft.last_index
    };
    for step in 0..2000 {
        if step % 10 == 0 {
            cluster.now = cluster.now + cluster.config.tick();
            cluster.send(1, StoreMsg::Tick);
        }
        cluster.round();
        if committed(&cluster) {
            break;
        }
    }
    assert!(committed(&cluster), "peer 10 did not take the lead");
    cluster.cut.insert((1, 2));
    cluster.settle();
    cluster.until_gone(1);
    assert_eq!(cluster.region(2, ID).unwrap().region.peers.len(), 2, "it does not know");
    cluster.cut.clear();
    cluster
}

#[test]
fn whoever_waits_for_a_peer_that_goes_is_answered() {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    cluster.isolate(1);
    let write = cluster.write(1, super::cluster::put("k", "v"));
    let read = cluster.ask_read(1);
    cluster.settle();
    let mut holder = super::cluster::region();
    holder.peers.retain(|peer| peer.store_id != 1);
    holder.region_epoch = Some(metapb::RegionEpoch { conf_ver: 9, version: 1 });
    assert!(cluster.lease_read(1, "k").is_some(), "the lease lasts");
    cluster.send(1, StoreMsg::RegionAnswer { asked: ID.into(), holder });
    cluster.settle();
    assert!(write.take().is_some_and(|outcome| outcome.is_err()));
    assert!(read.take().is_none_or(|outcome| outcome.is_err()));
    assert!(cluster.lease_read(1, "k").is_none(), "the delegate went with the peer (M19)");
    let stores: BTreeSet<u64> = [1].into();
    assert!(stores.iter().all(|store| cluster.region(*store, ID).is_none()));
}

/// The one voter that is left has forgotten, in a crash, that the removal of the other is committed. It needs a vote that
/// nobody can give any more, but the store of the dead can tell it why.
#[test]
fn a_leader_that_forgets_a_removal_learns_of_it_from_the_dead() {
    let mut cluster = Cluster::with_members(3, &[1, 2]);
    cluster.change_peers(&[learner(30, 3)]).unwrap();
    cluster.until("the snapshot", |cluster| cluster.follows(3));
    if cluster.leader_of(ID) != Some(1) {
        cluster.move_lead_of(ID, 1);
    }
    let header = cluster.header_of(ID);
    let slot = cluster.order(1, header, Order::ChangePeers(vec![gone(20, 2)]));
    assert_eq!(slot.take(), Some(Ok(())));
    // Store 2 has the entry and hears no more; store 1 tells the learner, and gets nothing onto its own disk.
    let acknowledged = |cluster: &Cluster| {
        let raft = cluster.region(1, ID).expect("there").raft;
        raft.commit == raft.last_index
    };
    while !acknowledged(&cluster) {
        cluster.round();
    }
    cluster.cut.insert((1, 2));
    cluster.node(1).stall_log = true;
    cluster.until("the removal on the learner's store", |cluster| {
        cluster.region(3, ID).is_some_and(|status| status.region.peers.len() == 2)
    });
    cluster.crash(1);
    cluster.until("the end of the removed peer", |cluster| cluster.region(2, ID).is_none());
    cluster.cut.clear();
    cluster.restart(1);
    let before = cluster.region(1, ID).expect("there").region.peers.len();
    assert_eq!(before, 3, "it has forgotten");
    cluster.until("a lead", |cluster| cluster.leader_of(ID) == Some(1));
    assert_eq!(cluster.region(1, ID).expect("there").region.peers.len(), 2);
}

//! The new part of a cut on a store that already knows something of it: a tombstone, a peer that was created by a message and
//! may have voted, a divided region that is just being destroyed.

use engine::{Cf, Engine, WriteBatch};
use prost::Message as _;
use proto::flotillapb::{PeerState, RegionLocalState};
use proto::raft_serverpb::RaftMessage;
use proto::{eraftpb, metapb};
use raftstore::keys::Key;
use raftstore::{Order, StoreMsg};

use super::cluster::{Cluster, REGION};
use super::regions::cut;

const WHOLE: u64 = REGION.get();

/// What the first cut's part and its peer on store 3 will be called.
pub(crate) const PART: u64 = 101;
pub(crate) const PEER_OF_3: u64 = 104;

/// A cluster whose store 3 holds `record`, and perhaps a hard state, for the part that the first cut makes.
pub(crate) fn with_record_on_3(
    record: RegionLocalState,
    hard_state: Option<eraftpb::HardState>,
) -> Cluster {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "apple", "1");
    cluster.put(1, "pear", "2");
    cluster.tick(3);
    cluster.crash(3);
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, Key::RegionState(PART.into()).encode(), record.encode_to_vec());
    if let Some(state) = hard_state {
        batch.put(Cf::Raft, Key::HardState(PART.into()).encode(), state.encode_to_vec());
    }
    let engine = cluster.node(3).engine.clone();
    engine.write(&batch).unwrap();
    engine.sync().unwrap();
    cluster.restart(3);
    cluster.tick(30);
    cluster
}

pub(crate) fn record(state: PeerState, peer: u64) -> RegionLocalState {
    let region = metapb::Region {
        id: PART,
        start_key: cut("m"),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 2 }),
        ..Default::default()
    };
    RegionLocalState {
        state: state.into(),
        region: Some(region),
        peer: Some(metapb::Peer { id: peer, store_id: 3, ..Default::default() }),
        ..Default::default()
    }
}

fn split(cluster: &mut Cluster) {
    assert_eq!(cluster.split(WHOLE, &["m"]), [PART]);
    cluster.until("a lead in the part", |cluster| cluster.leader_of(PART).is_some());
    cluster.put_anywhere("pear", "3");
    cluster.put_anywhere("apple", "3");
    cluster.tick(10);
    assert_eq!(cluster.stored(3, "apple").as_deref(), Some("3"));
    assert_eq!(cluster.stored(2, "pear").as_deref(), Some("3"));
}

#[test]
fn a_part_that_was_removed_here_before_the_cut_stays_away() {
    for peer in [PEER_OF_3, PEER_OF_3 + 1] {
        let mut cluster = with_record_on_3(record(PeerState::Tombstone, peer), None);
        split(&mut cluster);
        assert!(cluster.region(3, PART).is_none());
        assert_eq!(cluster.stored(3, "pear"), None, "the data that nobody owns are gone");
        cluster.crash(3);
        cluster.restart(3);
        cluster.tick(10);
        assert!(cluster.region(3, PART).is_none());
    }
}

#[test]
fn a_tombstone_of_an_earlier_peer_is_no_obstacle() {
    let mut cluster = with_record_on_3(record(PeerState::Tombstone, PEER_OF_3 - 50), None);
    split(&mut cluster);
    cluster.until_equal();
    assert_eq!(cluster.stored(3, "pear").as_deref(), Some("3"));
}

#[test]
fn a_later_peer_that_waits_for_its_snapshot_is_left_alone() {
    let later = record(PeerState::Normal, PEER_OF_3 + 1);
    let mut cluster = with_record_on_3(later, None);
    split(&mut cluster);
    let part = cluster.region(3, PART).expect("it waits");
    assert_eq!((part.peer.id, part.region.peers.len()), (PEER_OF_3 + 1, 0));
    assert_eq!(cluster.stored(3, "pear"), None);
}

#[test]
fn a_peer_that_has_voted_before_the_cut_keeps_its_vote() {
    let voted = eraftpb::HardState { term: 9, vote: 103, commit: 0 };
    let mut cluster = with_record_on_3(record(PeerState::Normal, PEER_OF_3), Some(voted));
    let before = cluster.region(3, PART).expect("uninitialised").raft;
    assert_eq!((before.term.0, before.vote.map(|id| id.0)), (9, Some(103)));
    // Nobody disturbs it when it becomes real.
    cluster.mute = Some((3, PART));
    let keys = vec![cut("m")];
    assert_eq!(cluster.order_region(WHOLE, Order::Split { keys }), Ok(()));
    cluster.answer_split_requests(1);
    cluster.settle();
    let after = cluster.region(3, PART).expect("real");
    assert_eq!(after.region.peers.len(), 3);
    assert_eq!((after.raft.term.0, after.raft.vote.map(|id| id.0)), (9, Some(103)));
    // Nor does a crash.
    cluster.crash(3);
    cluster.restart(3);
    let again = cluster.region(3, PART).expect("real").raft;
    assert_eq!((again.term.0, again.vote.map(|id| id.0)), (9, Some(103)));
    cluster.mute = None;
    cluster.until_led();
    cluster.put_anywhere("pear", "3");
    cluster.until_equal();
    assert!(
        cluster.region(1, PART).expect("there").raft.term.0 > 9,
        "nobody was elected in term 9"
    );
}

#[test]
fn a_cut_that_is_applied_while_the_divided_region_is_destroyed_still_makes_its_parts() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "pear", "2");
    cluster.node(3).stall_apply = true;
    assert_eq!(cluster.split(WHOLE, &["m"]), [PART]);
    cluster.tick(2);
    let whole = super::cluster::region();
    let epoch = metapb::RegionEpoch { conf_ver: 2, version: 2 };
    let notice = RaftMessage {
        region_id: WHOLE,
        from_peer: Some(whole.peers[0]),
        to_peer: Some(whole.peers[2]),
        region_epoch: Some(epoch),
        is_tombstone: true,
        ..RaftMessage::default()
    };
    cluster.send(3, StoreMsg::Raft(notice));
    cluster.settle();
    cluster.node(3).stall_apply = false;
    cluster.settle();
    assert!(cluster.region(3, WHOLE).is_none());
    cluster.until("the part's peer", |cluster| cluster.region(3, PART).is_some());
    cluster.until("a lead", |cluster| cluster.leader_of(PART).is_some());
    cluster.put_anywhere("pear", "3");
    cluster.tick(10);
    assert_eq!(cluster.stored(3, "pear").as_deref(), Some("3"));
}

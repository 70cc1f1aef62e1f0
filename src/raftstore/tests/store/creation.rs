//! The beginning of a peer: by a first message, recorded before it acts, and never over another region's keys.

use proto::eraftpb::{self, MessageType};
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raftstore::StoreMsg;

use super::cluster::Cluster;
use super::members::{ID, learner, voter};
use super::removal::crash_at_every_step;

#[test]
fn a_crash_at_any_step_of_a_creation_costs_nothing_but_time() {
    let begin = || {
        let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
        cluster.put_anywhere("k", "v");
        cluster.tick(3);
        let (leader, header) = (cluster.leader_of(ID).unwrap(), cluster.header_of(ID));
        let order = raftstore::Order::ChangePeers(vec![learner(40, 4)]);
        assert_eq!(cluster.order(leader, header, order).take(), Some(Ok(())));
        // The first heartbeat is due with the second tick.
        cluster.now = cluster.now + cluster.config.tick() * 2;
        for store in 1..=4 {
            cluster.send(store, StoreMsg::Tick);
        }
        cluster
    };
    let end = |cluster: &mut Cluster| {
        cluster.until_led();
        if cluster.roles().len() == 3 {
            cluster.change_peers(&[learner(40, 4)]).unwrap();
        }
        cluster.until("the snapshot", |cluster| cluster.follows(4));
        assert_eq!(cluster.stored(4, "k").as_deref(), Some("v"));
        cluster.change_peers(&[voter(40, 4)]).unwrap();
        cluster.tick(5);
        cluster.put_anywhere("k", "w");
    };
    crash_at_every_step(begin, &[4], end);
    crash_at_every_step(begin, &[1, 4], end);
}

#[test]
fn a_peer_without_its_snapshot_survives_a_restart_and_serves_nobody() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.put_anywhere("k", "v");
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    // Heartbeats arrive, answers do not: nobody knows that it needs a snapshot.
    for store in 1..=3 {
        cluster.cut.insert((4, store));
    }
    cluster.until("the first heartbeat", |cluster| cluster.region(4, ID).is_some());
    let status = cluster.region(4, ID).unwrap();
    assert!(status.region.peers.is_empty() && status.peer.id == 40);
    let write = cluster.write(4, super::cluster::put("k", "w"));
    cluster.settle();
    assert!(write.take().unwrap().is_err());
    cluster.crash(4);
    cluster.restart(4);
    assert_eq!(cluster.region(4, ID).unwrap().peer.id, 40);
    cluster.cut.clear();
    cluster.until("the snapshot", |cluster| cluster.follows(4));
}

#[test]
fn one_that_is_not_wanted_before_its_snapshot_ends_too() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    cluster.change_peers(&[learner(40, 4)]).unwrap();
    for store in 1..=3 {
        cluster.cut.insert((4, store));
    }
    cluster.until("the first heartbeat", |cluster| cluster.region(4, ID).is_some());
    cluster.isolate(4);
    cluster.remove_peer(40, 4);
    cluster.cut.clear();
    cluster.until_gone(4);
}

/// A heartbeat of region 9 to a store that does not hold it.
pub(crate) fn first_heartbeat(from: u64, to: u64, range: [&str; 2]) -> RaftMessage {
    let peer = |store: u64| metapb::Peer { id: store + 90, store_id: store, ..Default::default() };
    RaftMessage {
        region_id: 9,
        from_peer: Some(peer(from)),
        to_peer: Some(peer(to)),
        message: Some(eraftpb::Message {
            msg_type: MessageType::MsgHeartbeat.into(),
            from: from + 90,
            to: to + 90,
            term: 7,
            ..Default::default()
        }),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 3, version: 3 }),
        start_key: super::regions::cut(range[0]),
        end_key: super::regions::cut(range[1]),
        ..Default::default()
    }
}

pub(crate) fn creates(cluster: &mut Cluster, message: RaftMessage) -> bool {
    let store = message.to_peer.unwrap().store_id;
    cluster.send(store, StoreMsg::Raft(message));
    cluster.settle();
    cluster.region(store, 9).is_some()
}

#[test]
fn no_peer_is_created_over_another_regions_keys() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    assert!(!creates(&mut cluster, first_heartbeat(1, 3, ["a", "c"])));
    assert!(creates(&mut cluster, first_heartbeat(1, 4, ["a", "c"])));
}

#[test]
fn only_a_proper_first_message_creates_a_peer() {
    let honest = || first_heartbeat(1, 4, ["a", "c"]);
    let inner = |change: &dyn Fn(&mut eraftpb::Message)| {
        let mut message = honest();
        change(message.message.as_mut().unwrap());
        message
    };
    let improper = [
        inner(&|m| m.commit = 5),
        inner(&|m| m.msg_type = MessageType::MsgAppend.into()),
        inner(&|m| m.msg_type = MessageType::MsgTimeoutNow.into()),
        inner(&|m| m.from = 77),
        inner(&|m| m.to = 77),
        RaftMessage { region_id: 0, ..honest() },
        RaftMessage { region_epoch: None, ..honest() },
        RaftMessage { region_epoch: Some(Default::default()), ..honest() },
        RaftMessage { start_key: super::regions::cut("d"), ..honest() },
        RaftMessage { start_key: vec![b'a'; 40_000].into(), end_key: "z".into(), ..honest() },
        RaftMessage { from_peer: honest().to_peer, ..honest() },
        RaftMessage { is_tombstone: true, ..honest() },
    ];
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    for message in improper {
        let shown = format!("{message:?}");
        assert!(!creates(&mut cluster, message), "{shown}");
    }
    assert!(creates(&mut cluster, inner(&|m| m.msg_type = MessageType::MsgRequestVote.into())));
}

#[test]
fn a_vote_of_a_peer_without_a_snapshot_outlives_it() {
    let mut cluster = Cluster::with_members(4, &[1, 2, 3]);
    let mut request = first_heartbeat(1, 4, ["a", "c"]);
    let inner = request.message.as_mut().unwrap();
    (inner.msg_type, inner.term) = (MessageType::MsgRequestVote.into(), 8);
    (inner.index, inner.log_term) = (6, 6);
    assert!(creates(&mut cluster, request.clone()));
    let voted = |cluster: &Cluster| {
        let raft = cluster.region(4, 9).unwrap().raft;
        (raft.term.0, raft.vote.map(|vote| vote.0))
    };
    assert_eq!(voted(&cluster), (8, Some(91)));
    cluster.crash(4);
    cluster.restart(4);
    assert_eq!(voted(&cluster), (8, Some(91)));
}

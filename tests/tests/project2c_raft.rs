//! Stage 2c, the core's part: snapshots in the consensus core. The cluster's part is `project2c.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod raft_group;

use raft::{ConfState, LogIndex, MemStorage, MessageBody, RawNode, Snapshot, Term};

use raft_group::{Group, Member, heartbeat, log_of, message, plain, with_state};

fn snapshot(index: u64, term: u64, voters: &[u64]) -> Snapshot {
    Snapshot {
        index: LogIndex(index),
        term: Term(term),
        conf_state: ConfState::simple(voters.iter().copied(), []),
        ..Snapshot::default()
    }
}

#[test]
fn restore_snapshot_2c() {
    let mut member = Member::fresh(1, 2);
    member.step(message(2, 1, 11, MessageBody::Snapshot(snapshot(11, 11, &[1, 2, 3]))));
    assert_eq!(member.node.last_index(), LogIndex(11));
    assert_eq!(raft::Storage::term(member.node.storage(), LogIndex(11)), Ok(Term(11)));
    assert_eq!((member.commit(), member.snapshots), (11, 1));
    let voters: Vec<u64> =
        member.node.status().conf_state.voters.iter().map(|id| id.get()).collect();
    assert_eq!(voters, [1, 2, 3]);
}

#[test]
fn restore_ignore_snapshot_2c() {
    let mut member = Member::new(&plain(1), with_state(log_of(2, &[1, 1, 1]), 1, None, 3));
    member.work();
    for index in [1, 3] {
        member.step(message(2, 1, 1, MessageBody::Snapshot(snapshot(index, 1, &[1, 2]))));
        assert_eq!(
            (member.commit(), member.snapshots),
            (3, 0),
            "it is older than what is committed"
        );
        assert_eq!(member.log().len(), 3, "the log stays");
    }
}

/// A leader whose log begins after index 11, with node 2 far behind it.
fn leader_with_compacted_log() -> Member {
    let mut storage = MemStorage::with_voters([1, 2]);
    storage.install(&snapshot(11, 11, &[1, 2]));
    storage.hard_state.term = Term(11);
    storage.snapshot = Some(snapshot(11, 11, &[1, 2]));
    let config = raft::Config { applied: LogIndex(11), ..plain(1) };
    let mut leader = Member::new(&config, storage);
    leader.node.campaign();
    leader.work();
    let term = leader.term();
    leader.step(message(2, 1, term, MessageBody::RequestVoteResponse(Default::default())));
    leader
}

#[test]
fn provide_snap_2c() {
    let mut leader = leader_with_compacted_log();
    let term = leader.term();
    let reject = raft::AppendResponse {
        index: LogIndex(11),
        reject: Some(raft::Reject::default()),
        ..Default::default()
    };
    let sent = leader.step(message(2, 1, term, MessageBody::AppendResponse(reject)));
    let snapshots: Vec<_> = sent
        .iter()
        .filter_map(|m| match &m.body {
            MessageBody::Snapshot(s) => Some((m.to.get(), s.index.get())),
            _ => None,
        })
        .collect();
    assert_eq!(snapshots, [(2, 11)], "what node 2 needs is no longer in the log");
}

#[test]
fn restore_from_snap_msg_2c() {
    let mut member = Member::fresh(2, 2);
    member.step(message(1, 2, 11, MessageBody::Snapshot(snapshot(11, 11, &[1, 2]))));
    assert_eq!(member.leader_id(), 1, "whoever sends a snapshot leads");
    assert_eq!(member.term(), 11);
}

#[test]
fn restore_from_snap_with_overlapping_peers_msg_2c() {
    let mut member = Member::fresh(2, 3);
    member.step(message(3, 2, 11, MessageBody::Snapshot(snapshot(11, 11, &[2, 3, 4]))));
    assert_eq!(member.leader_id(), 3);
    let voters: Vec<u64> =
        member.node.status().conf_state.voters.iter().map(|id| id.get()).collect();
    assert_eq!(voters, [2, 3, 4], "the snapshot's membership replaces the old one");
}

#[test]
fn slow_node_restore_2c() {
    let mut group = Group::new(3);
    group.campaign(1);
    group.isolate(3);
    for i in 0..=100 {
        group.propose(1, &format!("{i}"));
    }
    group.compact(1);
    group.heal();
    // It is heard of again by its answer to a heartbeat, and caught up by a snapshot.
    group.beat(1);
    group.propose(1, "after");
    assert_eq!(group.at(3).snapshots, 1);
    let commit = group.at(1).commit();
    assert_eq!(group.at(3).commit(), commit);
    assert_eq!(group.at(3).applied_data(), ["after"], "only what came after the snapshot");
}

#[test]
fn raw_node_restart_from_snapshot_2c() {
    let mut storage = MemStorage::default();
    storage.install(&snapshot(2, 1, &[1, 2]));
    storage.append(&raft_group::entries(3, &[1]));
    let storage = with_state(storage, 1, None, 3);
    let config = raft::Config { applied: LogIndex(2), ..plain(1) };
    let mut node = RawNode::new(&config, storage).unwrap();
    let ready = node.ready();
    assert!(ready.snapshot.is_none() && ready.entries.is_empty());
    let committed: Vec<LogIndex> = ready.committed_entries.iter().map(|e| e.index).collect();
    assert_eq!(committed, [LogIndex(3)], "only what the snapshot does not contain");
    node.advance(ready);
    assert!(!node.has_ready());
    // A heartbeat from a leader of the term is all it takes to follow.
    node.step(message(2, 1, 1, heartbeat(3))).unwrap();
    assert_eq!(node.leader_id(), Some(raft::NodeId(2)));
}

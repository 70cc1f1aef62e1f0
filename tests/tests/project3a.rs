//! Stage 3a: membership changes and leader transfer in the consensus core.
#![allow(clippy::unwrap_used, reason = "tests")]

mod raft_group;

use bytes::Bytes;
use raft::{ConfChangeKind, ConfChangeV2, MemStorage, MessageBody, NodeId, Role, wire};

use raft_group::{ELECTION_TICKS, Group, Member, message, plain, request_vote};

/// Applies a change directly, as if its entry had just been applied.
fn apply(member: &mut Member, kind: ConfChangeKind, id: u64) -> Result<Vec<u64>, raft::Error> {
    let change = ConfChangeV2::single(kind, NodeId(id));
    let state = member.node.apply_conf_change(&change)?;
    Ok(state.voters.iter().map(|id| id.get()).collect())
}

fn elected(n: u64) -> Group {
    let mut group = Group::new(n);
    group.campaign(1);
    group
}

fn check_leader(group: &mut Group, leader: u64) {
    for (id, member) in &group.members {
        if *id == leader {
            assert_eq!(member.role(), Role::Leader, "node {id}");
        } else {
            assert_eq!((member.role(), member.leader_id()), (Role::Follower, leader), "node {id}");
        }
    }
}

#[test]
fn add_node_3a() {
    let mut member = Member::fresh(1, 1);
    assert_eq!(apply(&mut member, ConfChangeKind::AddVoter, 2).unwrap(), [1, 2]);
}

#[test]
fn remove_node_3a() {
    let mut member = Member::fresh(1, 2);
    assert_eq!(apply(&mut member, ConfChangeKind::Remove, 2).unwrap(), [1]);
    // The course lets the last voter go as well; a group without voters could never decide anything again, so it is refused.
    assert!(apply(&mut member, ConfChangeKind::Remove, 1).is_err());
}

#[test]
fn commit_after_remove_node_3a() {
    let mut leader = Member::leader(2);
    let change = ConfChangeV2::single(ConfChangeKind::Remove, NodeId(2));
    // Its own entry must be committed first.
    let accept = |index| {
        let response = raft::AppendResponse { index, ..Default::default() };
        MessageBody::AppendResponse(response)
    };
    let last = leader.node.last_index();
    leader.step(message(2, 1, 1, accept(last)));
    leader.node.propose_conf_change(Bytes::new(), &change).unwrap();
    leader.work();
    let removal = leader.node.last_index();
    leader.propose("hello");
    assert!(leader.applied.is_empty(), "the majority of two is two");
    // Node 2 acknowledges its own removal, not the command: the removal is applied, and the majority of one is one.
    leader.step(message(2, 1, 1, accept(removal)));
    assert_eq!(leader.applied_data(), ["hello"]);
}

#[test]
fn leader_transfer_to_up_to_date_node_3a() {
    let mut group = elected(3);
    group.transfer(1, 2);
    check_leader(&mut group, 2);
    group.propose(2, "one");
    group.transfer(2, 1);
    check_leader(&mut group, 1);
}

#[test]
fn leader_transfer_to_up_to_date_node_from_follower_3a() {
    let mut group = elected(3);
    // Asked at the transferee itself, which tells the leader.
    group.transfer(2, 2);
    check_leader(&mut group, 2);
    group.propose(2, "one");
    group.transfer(1, 1);
    check_leader(&mut group, 1);
}

#[test]
fn leader_transfer_to_slow_follower_3a() {
    let mut group = elected(3);
    group.isolate(3);
    group.propose(1, "one");
    group.heal();
    group.transfer(1, 3);
    check_leader(&mut group, 3);
    assert_eq!(group.at(3).applied_data(), ["one"], "it was brought up to date first");
}

#[test]
fn leader_transfer_after_snapshot_3a() {
    let mut group = elected(3);
    group.isolate(3);
    group.propose(1, "one");
    group.compact(1);
    group.heal();
    group.transfer(1, 3);
    // The heartbeat reopens the way if the first attempt was lost.
    group.beat(1);
    check_leader(&mut group, 3);
    assert_eq!(group.at(3).snapshots, 1);
}

#[test]
fn leader_transfer_to_self_3a() {
    let mut group = elected(3);
    group.transfer(1, 1);
    check_leader(&mut group, 1);
    assert_eq!(group.at(1).term(), 1);
}

#[test]
fn leader_transfer_to_non_existing_node_3a() {
    let mut group = elected(3);
    group.transfer(1, 4);
    check_leader(&mut group, 1);
    group.propose(1, "one");
    assert_eq!(group.at(1).applied_data(), ["one"], "and proposals go on");
}

#[test]
fn leader_transfer_receive_higher_term_vote_3a() {
    let mut group = elected(3);
    group.isolate(3);
    group.transfer(1, 3);
    assert_eq!(group.at(1).role(), Role::Leader, "the transfer is pending");
    let term = group.at(1).term();
    group.campaign(2);
    assert_eq!((group.at(2).role(), group.at(2).term()), (Role::Leader, term + 1));
    assert_eq!(group.at(1).role(), Role::Follower);
}

#[test]
fn leader_transfer_remove_node_3a() {
    let mut group = elected(3);
    group.drop_kind("TimeoutNow");
    group.transfer(1, 3);
    assert!(group.at(1).node.propose(Bytes::new(), Bytes::from_static(b"x")).is_err(), "pending");
    apply(group.at(1), ConfChangeKind::Remove, 3).unwrap();
    group.settle();
    group.isolate(3);
    group.propose(1, "one");
    assert_eq!(group.at(1).role(), Role::Leader);
    assert_eq!(group.at(1).applied_data(), ["one"], "nobody is left to hand over to");
}

#[test]
fn leader_transfer_back_3a() {
    let mut group = elected(3);
    group.isolate(3);
    group.transfer(1, 3);
    assert_eq!(group.at(1).role(), Role::Leader);
    // To the leader itself: the pending transfer is called off.
    group.transfer(1, 1);
    check_leader(&mut group_without(group, 3), 1);
}

#[test]
fn leader_transfer_second_transfer_to_another_node_3a() {
    let mut group = elected(3);
    group.isolate(3);
    group.transfer(1, 3);
    assert_eq!(group.at(1).role(), Role::Leader);
    group.transfer(1, 2);
    check_leader(&mut group_without(group, 3), 2);
}

fn group_without(mut group: Group, id: u64) -> Group {
    group.members.remove(&id);
    group
}

#[test]
fn transfer_non_member_3a() {
    let mut member = Member::new(&plain(1), MemStorage::with_voters([2, 3, 4]));
    member.step(message(2, 1, 1, MessageBody::TimeoutNow));
    let grant = || MessageBody::RequestVoteResponse(Default::default());
    member.step(message(2, 1, 1, grant()));
    member.step(message(3, 1, 1, grant()));
    assert_eq!(member.role(), Role::Follower, "it is no member and cannot lead");
}

#[test]
fn raw_node_propose_and_conf_change_3a() {
    let mut member = Member::new(&plain(1), MemStorage::with_voters([1]));
    member.node.campaign();
    member.work();
    member.propose("somedata");
    let change = ConfChangeV2::single(ConfChangeKind::AddVoter, NodeId(2));
    let index = member.node.propose_conf_change(Bytes::new(), &change).unwrap();
    member.work();
    assert_eq!(member.applied_data(), ["somedata"]);
    assert_eq!(member.voters(), [1, 2]);
    let entry = member.node.storage().entries.iter().find(|e| e.index == index).unwrap();
    assert_eq!(wire::decode_conf_change(entry).unwrap().changes, change.changes);
}

#[test]
fn raw_node_propose_add_duplicate_node_3a() {
    let mut group = Group::over(vec![Some(MemStorage::with_voters([1]))]);
    group.campaign(1);
    group.change(1, ConfChangeKind::AddVoter, 1);
    group.change(1, ConfChangeKind::AddVoter, 1);
    assert_eq!(group.at(1).voters(), [1]);
    // The second, useless one does not stand in the way of a third.
    group.change(1, ConfChangeKind::AddVoter, 2);
    assert_eq!(group.at(1).voters(), [1, 2]);
}

/// Not in the course, but what it builds on: a removed node that campaigns disturbs nobody for long.
#[test]
fn removed_node_campaigns_in_vain_3a() {
    let mut group = elected(3);
    group.change(1, ConfChangeKind::Remove, 3);
    let sent = group.at(3).tick(2 * ELECTION_TICKS);
    assert!(sent.iter().all(|m| !matches!(m.body, MessageBody::RequestVote(_))), "it knows");
    group.at(1).step(message(3, 1, 2, request_vote((9, 9))));
    group.beat(1);
    group.campaign(1);
    assert_eq!(group.at(1).role(), Role::Leader);
}

//! Stage 2aa: leader election.

use std::collections::BTreeSet;

use raft::{MemStorage, MessageBody, NodeId, Role, VoteResponse};

use crate::raft_group::{
    ELECTION_TICKS, Group, Member, append, heartbeat, log_of, message, plain, request_vote,
    with_state,
};

fn vote(granted: bool) -> MessageBody {
    MessageBody::RequestVoteResponse(VoteResponse { reject: !granted, ..VoteResponse::default() })
}

fn group_with_dead(n: u64, dead: &[u64]) -> Group {
    let live = |id| (!dead.contains(&id)).then(|| MemStorage::with_voters(1..=n));
    Group::over((1..=n).map(live).collect())
}

/// A candidate of term 1, or a leader of term 1 if everybody grants.
fn in_role(role: Role) -> Member {
    match role {
        Role::Follower => Member::fresh(1, 3),
        Role::Leader => Member::leader(3),
        Role::Candidate | Role::PreCandidate => {
            let mut member = Member::fresh(1, 3);
            member.node.campaign();
            member.work();
            member
        }
    }
}

const ROLES: [Role; 3] = [Role::Follower, Role::Candidate, Role::Leader];

#[test]
fn leader_election_2aa() {
    let table: &[(u64, &[u64], Role)] = &[
        (3, &[], Role::Leader),
        (3, &[3], Role::Leader),
        (3, &[2, 3], Role::Candidate),
        (4, &[2, 3], Role::Candidate),
        (5, &[2, 3], Role::Leader),
        (5, &[2, 3, 4], Role::Candidate),
    ];
    for (n, dead, role) in table {
        let mut group = group_with_dead(*n, dead);
        group.campaign(1);
        assert_eq!(
            (group.at(1).role(), group.at(1).term()),
            (*role, 1),
            "{n} nodes, dead {dead:?}"
        );
    }
}

#[test]
fn leader_cycle_2aa() {
    let mut group = Group::new(3);
    for candidate in 1..=3 {
        group.campaign(candidate);
        for (id, member) in &group.members {
            let want = if *id == candidate { Role::Leader } else { Role::Follower };
            assert_eq!(member.role(), want, "node {id} after node {candidate} campaigned");
        }
    }
}

#[test]
fn vote_from_any_state_2aa() {
    for role in ROLES {
        let mut member = in_role(role);
        let term = member.term() + 1;
        let last = member.log().last().copied().unwrap_or((0, 0));
        let sent = member.step(message(2, 1, term, request_vote(last)));
        assert_eq!((member.role(), member.term()), (Role::Follower, term), "was {role:?}");
        assert_eq!(member.node.storage().hard_state.vote, Some(NodeId(2)));
        let granted =
            |m: &&raft::Message| matches!(m.body, MessageBody::RequestVoteResponse(r) if !r.reject);
        assert_eq!(sent.iter().filter(granted).count(), 1, "was {role:?}");
    }
}

#[test]
fn single_node_candidate_2aa() {
    let mut group = Group::new(1);
    group.campaign(1);
    assert_eq!(group.at(1).role(), Role::Leader);
}

fn candidate_reset_term(body: fn() -> MessageBody) {
    let mut group = Group::new(3);
    group.campaign(1);
    group.isolate(3);
    // The isolated node campaigns in vain and its term runs away.
    let ticks = 2 * ELECTION_TICKS;
    let sent = group.at(3).tick(ticks);
    assert!(!sent.is_empty());
    assert_eq!(group.at(3).role(), Role::Candidate);
    let term = group.at(3).term();
    // The leader steps up to that term and speaks to it.
    let leader_term = group.at(1).term();
    assert!(term > leader_term);
    group.heal();
    group.at(3).step(message(1, 3, term, body()));
    let candidate = group.at(3);
    assert_eq!((candidate.role(), candidate.term()), (Role::Follower, term));
    assert_eq!(candidate.leader_id(), 1);
}

#[test]
fn candidate_reset_term_message_type_msg_heartbeat_2aa() {
    candidate_reset_term(|| heartbeat(0));
}

#[test]
fn candidate_reset_term_message_type_msg_append_2aa() {
    candidate_reset_term(|| append((0, 0), Vec::new(), 0));
}

#[test]
fn disruptive_follower_2aa() {
    let mut group = Group::new(3);
    group.campaign(1);
    group.campaign(1);
    group.at(2).node.campaign();
    group.settle();
    group.campaign(1);
    let leader_term = group.at(1).term();
    // Node 3 does not hear the leader and times out.
    group.isolate(3);
    group.at(3).node.campaign();
    group.settle();
    assert_eq!((group.at(3).role(), group.at(3).term()), (Role::Candidate, leader_term + 1));
    group.heal();
    // A heartbeat of the old term is answered with the new one: without pre-vote and check-quorum the leader gives way.
    group.beat(1);
    assert_eq!((group.at(1).role(), group.at(1).term()), (Role::Follower, leader_term + 1));
}

fn heartbeats(sent: &[raft::Message]) -> usize {
    sent.iter().filter(|m| matches!(m.body, MessageBody::Heartbeat { .. })).count()
}

#[test]
fn recv_message_type_msg_beat_2aa() {
    for (role, want) in [(Role::Leader, 2), (Role::Candidate, 0), (Role::Follower, 0)] {
        let mut member = in_role(role);
        member.node.ping();
        assert_eq!(heartbeats(&member.work()), want, "{role:?}");
    }
}

#[test]
fn campaign_while_leader_2aa() {
    let mut group = Group::new(1);
    group.campaign(1);
    let term = group.at(1).term();
    group.campaign(1);
    assert_eq!((group.at(1).role(), group.at(1).term()), (Role::Leader, term));
}

#[test]
fn split_vote_2aa() {
    let mut group = Group::new(3);
    group.campaign(1);
    group.campaign(1);
    let term = group.at(1).term();
    group.isolate(1);
    // Both followers campaign before either hears the other: each votes for itself.
    group.at(2).node.campaign();
    group.at(3).node.campaign();
    group.settle();
    for id in [2, 3] {
        assert_eq!((group.at(id).role(), group.at(id).term()), (Role::Candidate, term + 1));
    }
    group.campaign(2);
    assert_eq!((group.at(2).role(), group.at(2).term()), (Role::Leader, term + 2));
    assert_eq!((group.at(3).role(), group.at(3).term()), (Role::Follower, term + 2));
}

fn update_term_from_message(role: Role) {
    let mut member = in_role(role);
    member.step(message(2, 1, 2, append((0, 0), Vec::new(), 0)));
    assert_eq!((member.role(), member.term()), (Role::Follower, 2));
}

#[test]
fn follower_update_term_from_message_2aa() {
    update_term_from_message(Role::Follower);
}

#[test]
fn candidate_update_term_from_message_2aa() {
    update_term_from_message(Role::Candidate);
}

#[test]
fn leader_update_term_from_message_2aa() {
    update_term_from_message(Role::Leader);
}

#[test]
fn start_as_follower_2aa() {
    assert_eq!(Member::fresh(1, 3).role(), Role::Follower);
}

#[test]
fn leader_bcast_beat_2aa() {
    let mut leader = Member::leader(3);
    for i in 0..10 {
        leader.propose(&i.to_string());
    }
    let sent = leader.tick(1);
    let mut to = BTreeSet::new();
    for m in sent {
        if let MessageBody::Heartbeat { commit, .. } = &m.body {
            // Nothing was acknowledged, so nothing may be called committed.
            assert_eq!((m.from, m.term.get(), commit.get()), (NodeId(1), 1, 0));
            to.insert(m.to.get());
        }
    }
    assert_eq!(to.into_iter().collect::<Vec<_>>(), [2, 3]);
}

/// Ticks until an election starts; returns the ticks it took and checks what the candidate does.
fn start_election(member: &mut Member, term: u64) {
    let mut sent = Vec::new();
    for _ in 1..2 * ELECTION_TICKS {
        sent.extend(member.tick(1));
    }
    assert_eq!((member.role(), member.term()), (Role::Candidate, term));
    assert_eq!(member.node.storage().hard_state.vote, Some(NodeId(1)), "it votes for itself");
    let asked: Vec<(u64, u64)> = sent
        .iter()
        .filter(|m| matches!(m.body, MessageBody::RequestVote(_)) && m.term.get() == term)
        .map(|m| (m.to.get(), m.term.get()))
        .collect();
    assert_eq!(asked, [(2, term), (3, term)]);
}

#[test]
fn follower_start_election_2aa() {
    let mut member = Member::new(&plain(1), with_state(log_of(3, &[]), 1, None, 0));
    start_election(&mut member, 2);
}

#[test]
fn candidate_start_new_election_2aa() {
    let mut member = in_role(Role::Candidate);
    let term = member.term();
    // Stop right after the next election began: a timeout is at least one election timeout long.
    let mut sent = Vec::new();
    while member.term() == term {
        sent.extend(member.tick(1));
    }
    assert_eq!((member.role(), member.term()), (Role::Candidate, term + 1));
    let asked = sent.iter().filter(|m| matches!(m.body, MessageBody::RequestVote(_))).count();
    assert_eq!(asked, 2);
}

#[test]
fn leader_election_in_one_round_rpc_2aa() {
    type Row = (u64, &'static [(u64, bool)], Role);
    let table: &[Row] = &[
        (1, &[], Role::Leader),
        (3, &[(2, true), (3, true)], Role::Leader),
        (3, &[(2, true)], Role::Leader),
        (5, &[(2, true), (3, true), (4, true), (5, true)], Role::Leader),
        (5, &[(2, true), (3, true), (4, true)], Role::Leader),
        (5, &[(2, true), (3, true)], Role::Leader),
        // A majority refuses: the candidate knows that it has lost.
        (3, &[(2, false), (3, false)], Role::Follower),
        (5, &[(2, false), (3, false), (4, false), (5, false)], Role::Follower),
        (5, &[(2, true), (3, false), (4, false), (5, false)], Role::Follower),
        // Nobody has a majority yet.
        (3, &[], Role::Candidate),
        (5, &[(2, true)], Role::Candidate),
        (5, &[(2, false), (3, false)], Role::Candidate),
        (5, &[], Role::Candidate),
    ];
    for (n, votes, role) in table {
        let mut member = Member::fresh(1, *n);
        member.node.campaign();
        member.work();
        for (id, granted) in *votes {
            member.step(message(*id, 1, 1, vote(*granted)));
        }
        assert_eq!((member.role(), member.term()), (*role, 1), "{n} nodes, votes {votes:?}");
    }
}

#[test]
fn follower_vote_2aa() {
    for (voted, asks, granted) in
        [(0, 2, true), (0, 3, true), (2, 2, true), (3, 3, true), (2, 3, false), (3, 2, false)]
    {
        let voted_for = (voted != 0).then_some(voted);
        let mut member = Member::new(&plain(1), with_state(log_of(3, &[]), 1, voted_for, 0));
        let sent = member.step(message(asks, 1, 1, request_vote((0, 0))));
        let want = VoteResponse { reject: !granted, ..VoteResponse::default() };
        assert_eq!(sent.len(), 1);
        match &sent[0].body {
            MessageBody::RequestVoteResponse(got) => assert_eq!(got.reject, want.reject),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn candidate_fallback_2aa() {
    for term in [1, 2] {
        let mut member = in_role(Role::Candidate);
        assert_eq!(member.term(), 1);
        member.step(message(2, 1, term, append((0, 0), Vec::new(), 0)));
        assert_eq!((member.role(), member.term()), (Role::Follower, term));
    }
}

/// Ticks until the next campaign.
fn ticks_to_campaign(member: &mut Member) -> u32 {
    let term = member.term();
    let mut ticks = 0;
    while member.term() == term {
        member.tick(1);
        ticks += 1;
        assert!(ticks < 100, "no election timeout at all");
    }
    ticks
}

/// The timeout is drawn anew each time: over many rounds every value of `[T, 2T)` occurs, and no other.
fn timeouts_are_randomized(back_to_follower: bool) {
    let mut seen = BTreeSet::new();
    let mut member = Member::fresh(1, 3);
    for _ in 0..500 {
        if back_to_follower {
            let term = member.term() + 1;
            member.step(message(2, 1, term, append((0, 0), Vec::new(), 0)));
        }
        seen.insert(ticks_to_campaign(&mut member));
    }
    let want: BTreeSet<u32> = (ELECTION_TICKS..2 * ELECTION_TICKS).collect();
    let wrong: Vec<_> = seen.symmetric_difference(&want).collect();
    // The upper end may be counted inclusive or exclusive by one tick; nothing else.
    assert!(wrong.iter().all(|t| **t == ELECTION_TICKS || **t == 2 * ELECTION_TICKS), "{seen:?}");
}

#[test]
fn follower_election_timeout_randomized_2aa() {
    timeouts_are_randomized(true);
}

#[test]
fn candidate_election_timeout_randomized_2aa() {
    timeouts_are_randomized(false);
}

/// Five nodes: in how many of 1000 rounds do two of them time out in the same, first, tick?
fn conflicts(back_to_follower: bool) -> u32 {
    let mut members: Vec<Member> = (1..=5).map(|id| Member::fresh(id, 5)).collect();
    let mut conflicts = 0;
    for _ in 0..1_000 {
        let mut first = 0;
        let term = members.iter().map(Member::term).max().unwrap_or(0) + 1;
        for (id, member) in (1..).zip(&mut members) {
            // The same term for all, as a follower or as a candidate that was just refused.
            let from = if id == 5 { 4 } else { 5 };
            member.step(message(from, id, term, append((0, 0), Vec::new(), 0)));
            if !back_to_follower {
                member.node.campaign();
                member.work();
            }
        }
        let before: Vec<u64> = members.iter().map(Member::term).collect();
        while first == 0 {
            for (member, term) in members.iter_mut().zip(&before) {
                member.tick(1);
                first += u32::from(member.term() > *term);
            }
        }
        conflicts += u32::from(first > 1);
    }
    conflicts
}

#[test]
fn followers_election_timeout_nonconflict_2aa() {
    assert!(conflicts(true) <= 300, "more than 30 % conflicts");
}

#[test]
fn candidates_election_timeout_nonconflict_2aa() {
    assert!(conflicts(false) <= 300, "more than 30 % conflicts");
}

//! Stage 2ab: log replication.

use bytes::Bytes;
use raft::{
    AppendResponse, Entry, LogIndex, MemStorage, Message, MessageBody, NodeId, Reject, Role, Term,
    VoteRequest,
};

use crate::raft_group::{
    ELECTION_TICKS, Group, Member, append, entries, entry, heartbeat, log_of, message, plain,
    request_vote, with_state,
};

fn accept(index: u64) -> MessageBody {
    MessageBody::AppendResponse(AppendResponse {
        index: LogIndex(index),
        ..AppendResponse::default()
    })
}

/// Acknowledges everything the leader has, in the name of these members.
fn acknowledge(leader: &mut Member, ids: impl IntoIterator<Item = u64>) -> Vec<Message> {
    let (term, last) = (leader.term(), leader.node.last_index().get());
    let answers = ids.into_iter().map(|id| message(id, 1, term, accept(last)));
    answers.collect::<Vec<_>>().into_iter().flat_map(|m| leader.step(m)).collect()
}

fn appends(sent: &[Message]) -> Vec<(u64, (u64, u64), usize, u64)> {
    let one = |m: &Message| match &m.body {
        MessageBody::Append(a) => Some((
            m.to.get(),
            (a.prev_index.get(), a.prev_term.get()),
            a.entries.len(),
            a.commit.get(),
        )),
        _ => None,
    };
    sent.iter().filter_map(one).collect()
}

fn answer(sent: &[Message]) -> AppendResponse {
    let one = |m: &Message| match m.body {
        MessageBody::AppendResponse(r) => Some(r),
        _ => None,
    };
    sent.iter().find_map(one).expect("an append is answered")
}

#[test]
fn progress_leader_2ab() {
    let mut leader = Member::leader(2);
    for i in 1..=5 {
        assert_eq!(leader.progress(1), Some((i, i + 1)), "its own log counts once it is on disk");
        leader.propose("foo");
    }
}

#[test]
fn leader_election_overwrite_newer_logs_2ab() {
    // Node 1 missed the entry that node 3 wrote as leader of term 2 with the votes of 4 and 5.
    let voted = || with_state(log_of(5, &[]), 2, Some(3), 0);
    let mut group = Group::over(vec![
        Some(log_of(5, &[1])),
        Some(log_of(5, &[1])),
        Some(log_of(5, &[2])),
        Some(voted()),
        Some(voted()),
    ]);
    group.campaign(1);
    assert_eq!((group.at(1).role(), group.at(1).term()), (Role::Follower, 2), "refused in term 2");
    group.campaign(1);
    assert_eq!((group.at(1).role(), group.at(1).term()), (Role::Leader, 3));
    for (id, member) in &group.members {
        assert_eq!(member.log(), [(1, 1), (2, 3)], "node {id}");
    }
}

#[test]
fn log_replication_2ab() {
    for (with_change, committed) in [(false, 2), (true, 4)] {
        let mut group = Group::new(3);
        group.campaign(1);
        group.propose(1, "one");
        let mut want = vec!["one"];
        if with_change {
            group.campaign(2);
            group.propose(2, "two");
            want.push("two");
        }
        for (id, member) in &group.members {
            assert_eq!(member.commit(), committed, "node {id}");
            assert_eq!(member.applied_data(), want, "node {id}");
        }
    }
}

#[test]
fn single_node_commit_2ab() {
    let mut group = Group::new(1);
    group.campaign(1);
    group.propose(1, "one");
    group.propose(1, "two");
    assert_eq!(group.at(1).commit(), 3);
}

#[test]
fn commit_without_new_term_entry_2ab() {
    let mut group = Group::new(5);
    group.campaign(1);
    for id in 3..=5 {
        group.cut(1, id);
    }
    group.propose(1, "one");
    group.propose(1, "two");
    assert_eq!(group.at(1).commit(), 1, "no majority has them");
    group.heal();
    group.campaign(2);
    assert_eq!(group.at(1).commit(), 4, "the new leader's own entry commits the old ones");
}

#[test]
fn commit_with_heartbeat_2ab() {
    let mut group = Group::new(5);
    group.campaign(1);
    group.isolate(5);
    group.propose(1, "one");
    group.propose(1, "two");
    assert_eq!((group.at(1).commit(), group.at(5).commit()), (3, 1));
    group.heal();
    group.beat(1);
    assert_eq!(group.at(5).commit(), 3);
}

#[test]
fn dueling_candidates_2ab() {
    let mut group = Group::new(3);
    group.cut(1, 3);
    group.campaign(1);
    group.campaign(3);
    assert_eq!(group.at(1).role(), Role::Leader);
    assert_eq!(group.at(3).role(), Role::Candidate, "node 2 has voted already");
    group.heal();
    // A higher term ends the leadership, a shorter log does not win the next one.
    group.campaign(3);
    assert_eq!(
        group.states(),
        [(Role::Follower, 2, 1), (Role::Follower, 2, 1), (Role::Follower, 2, 0)]
    );
    assert_eq!(group.at(1).log(), [(1, 1)]);
    assert_eq!(group.at(3).log(), []);
}

#[test]
fn candidate_concede_2ab() {
    let mut group = Group::new(3);
    group.isolate(1);
    group.campaign(1);
    group.campaign(3);
    group.heal();
    group.beat(3);
    group.propose(3, "force follower");
    group.beat(3);
    assert_eq!((group.at(1).role(), group.at(1).term()), (Role::Follower, 1));
    for (id, member) in &group.members {
        assert_eq!(member.log(), [(1, 1), (2, 1)], "node {id}");
        assert_eq!(member.applied_data(), ["force follower"], "node {id}");
    }
}

#[test]
fn old_messages_2ab() {
    let mut group = Group::new(3);
    group.campaign(1);
    group.campaign(2);
    group.campaign(1);
    // Something the leader of term 2 sent long ago.
    group.send(message(2, 1, 2, append((2, 2), vec![entry(3, 2)], 0)));
    group.propose(1, "somedata");
    for (id, member) in &group.members {
        assert_eq!(member.log(), [(1, 1), (2, 2), (3, 3), (4, 3)], "node {id}");
        assert_eq!((member.commit(), member.applied_data()), (4, vec!["somedata".to_owned()]));
    }
}

#[test]
fn proposal_2ab() {
    let table: &[(u64, &[u64], bool)] = &[
        (3, &[], true),
        (3, &[3], true),
        (3, &[2, 3], false),
        (4, &[2, 3], false),
        (5, &[2, 3], true),
    ];
    for (n, dead, commits) in table {
        let live = |id| (!dead.contains(&id)).then(|| MemStorage::with_voters(1..=*n));
        let mut group = Group::over((1..=*n).map(live).collect());
        group.campaign(1);
        group.propose(1, "somedata");
        for (id, member) in &group.members {
            let want: &[&str] = if *commits { &["somedata"] } else { &[] };
            assert_eq!(member.applied_data(), want, "{n} nodes, dead {dead:?}, node {id}");
        }
        assert_eq!(group.at(1).term(), 1);
    }
}

#[test]
fn handle_message_type_msg_append_2ab() {
    type Row = ((u64, u64), Vec<Entry>, u64, u64, u64, bool);
    let table: Vec<Row> = vec![
        // (previous index and term), entries, leader's commit → last index, commit, rejected
        ((2, 3), vec![], 3, 2, 0, true),
        ((3, 3), vec![], 3, 2, 0, true),
        ((1, 1), vec![], 1, 2, 1, false),
        ((0, 0), entries(1, &[2]), 1, 1, 1, false),
        ((2, 2), entries(3, &[2, 2]), 3, 4, 3, false),
        ((2, 2), entries(3, &[2]), 4, 3, 3, false),
        ((1, 1), entries(2, &[2]), 4, 2, 2, false),
        ((1, 1), vec![], 3, 2, 1, false),
        ((1, 1), entries(2, &[2]), 3, 2, 2, false),
        ((2, 2), vec![], 3, 2, 2, false),
        ((2, 2), vec![], 4, 2, 2, false),
    ];
    for (at, (prev, new, told, last, commit, rejected)) in table.into_iter().enumerate() {
        // A term above every entry's, so that the table's made-up terms are no contradiction.
        let mut member = Member::new(&plain(1), with_state(log_of(3, &[1, 2]), 4, None, 0));
        let sent = member.step(message(2, 1, 4, append(prev, new, told)));
        assert_eq!(member.node.last_index().get(), last, "row {at}: last index");
        assert_eq!(member.commit(), commit, "row {at}: commit");
        assert_eq!(answer(&sent).reject.is_some(), rejected, "row {at}: rejected");
    }
}

#[test]
fn recv_message_type_msg_request_vote_2ab() {
    use Role::{Candidate, Follower, Leader};
    let mut table: Vec<(Role, u64, u64, u64, bool)> = Vec::new();
    // The voter's log ends at index 2, term 2: a candidate's must end in a later term, or in the same one and not earlier.
    for index in 0..=3 {
        for term in 0..=3 {
            let granted = term > 2 || (term == 2 && index >= 2);
            table.push((Follower, index, term, 0, granted));
        }
    }
    table.extend([(Follower, 3, 2, 2, true), (Follower, 3, 2, 3, false)]);
    table.extend([(Leader, 3, 2, 1, false), (Candidate, 3, 2, 1, false)]);
    assert_eq!(table.len(), 20);
    for (role, index, term, voted, granted) in table {
        let mut member = match role {
            Leader => Member::leader_over(3, log_of(3, &[2, 2])),
            Candidate => {
                let mut member = Member::new(&plain(1), log_of(3, &[2, 2]));
                member.node.campaign();
                member.work();
                member
            }
            _ => {
                let vote = (voted != 0).then_some(voted);
                Member::new(&plain(1), with_state(log_of(3, &[2, 2]), 4, vote, 0))
            }
        };
        assert_eq!(member.role(), role);
        let sent = member.step(message(2, 1, member.term(), request_vote((index, term))));
        let got = sent.iter().find_map(|m| match m.body {
            MessageBody::RequestVoteResponse(r) => Some(!r.reject),
            _ => None,
        });
        assert_eq!(got, Some(granted), "{role:?} asked with ({index}, {term}), voted for {voted}");
    }
}

#[test]
fn all_server_stepdown_2ab() {
    for role in [Role::Follower, Role::Candidate, Role::Leader] {
        for by_vote in [true, false] {
            let mut member = match role {
                Role::Leader => Member::leader(3),
                _ => Member::fresh(1, 3),
            };
            if role == Role::Candidate {
                member.node.campaign();
                member.work();
            }
            let entries = member.node.last_index().get();
            let body = if by_vote { request_vote((5, 2)) } else { append((0, 0), vec![], 0) };
            member.step(message(2, 1, 3, body));
            assert_eq!((member.role(), member.term()), (Role::Follower, 3), "{role:?}");
            assert_eq!(member.node.last_index().get(), entries, "the log stays");
            let leader = if by_vote { 0 } else { 2 };
            assert_eq!(member.leader_id(), leader, "{role:?}, by vote: {by_vote}");
        }
    }
}

#[test]
fn heartbeat_update_commit_2ab() {
    for (failed, succeeded) in [(1, 1), (5, 3), (5, 10)] {
        let mut group = Group::new(5);
        group.campaign(1);
        group.isolate(1);
        for i in 0..failed {
            group.propose(1, &format!("lost {i}"));
        }
        assert_eq!(group.at(1).commit(), 1);
        group.campaign(2);
        for i in 0..succeeded {
            group.propose(2, &format!("kept {i}"));
        }
        let committed = 2 + succeeded;
        assert_eq!(group.at(2).commit(), committed);
        // The old leader hears heartbeats only: its own entries at those indexes are not the committed ones.
        group.heal();
        group.drop_kind("Append");
        group.beat(2);
        assert_eq!(group.at(1).commit(), 1, "{failed} lost, {succeeded} kept");
        group.heal();
        group.beat(2);
        assert_eq!(group.at(1).commit(), committed, "{failed} lost, {succeeded} kept");
    }
}

#[test]
fn leader_increase_next_2ab() {
    let previous = [1, 2, 3];
    let mut group = Group::over(vec![Some(log_of(2, &previous)), Some(log_of(2, &previous))]);
    group.campaign(1);
    group.propose(1, "somedata");
    // The previous entries, the leader's own one, the proposal.
    let last = previous.len() as u64 + 2;
    for id in [1, 2] {
        assert_eq!(group.at(1).progress(id), Some((last, last + 1)), "member {id}");
    }
}

#[test]
fn leader_start_replication_2ab() {
    let mut leader = Member::leader(3);
    acknowledge(&mut leader, [2, 3]);
    let last = leader.node.last_index().get();
    leader.node.propose(Bytes::new(), Bytes::from_static(b"some data")).unwrap();
    let ready = leader.node.ready();
    assert_eq!(ready.entries.len(), 1, "the entry is to be written");
    assert_eq!(ready.entries[0].data, "some data");
    let mut sent = appends(&ready.messages);
    sent.sort_unstable();
    assert_eq!(
        sent,
        [(2, (last, 1), 1, last), (3, (last, 1), 1, last)],
        "sent before its own sync"
    );
    assert_eq!((leader.node.last_index().get(), leader.commit()), (last + 1, last));
}

#[test]
fn leader_commit_entry_2ab() {
    let mut leader = Member::leader(3);
    acknowledge(&mut leader, [2, 3]);
    let last = leader.node.last_index().get();
    leader.propose("some data");
    let sent = acknowledge(&mut leader, [2, 3]);
    assert_eq!((leader.commit(), leader.applied_data()), (last + 1, vec!["some data".to_owned()]));
    let mut told: Vec<u64> =
        appends(&sent).into_iter().filter(|a| a.3 == last + 1).map(|a| a.0).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, [2, 3], "the commit index is told at once");
}

#[test]
fn leader_acknowledge_commit_2ab() {
    let table: &[(u64, &[u64], bool)] = &[
        (1, &[], true),
        (3, &[], false),
        (3, &[2], true),
        (3, &[2, 3], true),
        (5, &[], false),
        (5, &[2], false),
        (5, &[2, 3], true),
        (5, &[2, 3, 4], true),
        (5, &[2, 3, 4, 5], true),
    ];
    for (n, acceptors, committed) in table {
        let mut leader = Member::leader(*n);
        acknowledge(&mut leader, 2..=*n);
        let last = leader.node.last_index().get();
        leader.propose("some data");
        acknowledge(&mut leader, acceptors.iter().copied());
        assert_eq!(leader.commit() > last, *committed, "{n} nodes, {acceptors:?} accept");
    }
}

#[test]
fn leader_commit_preceding_entries_2ab() {
    for previous in [&[][..], &[2], &[1, 2], &[1]] {
        let storage = with_state(log_of(3, previous), 2, None, 0);
        let mut leader = Member::leader_over(3, storage);
        assert_eq!(leader.term(), 3);
        leader.propose("some data");
        acknowledge(&mut leader, [2, 3]);
        let last = previous.len() as u64 + 2;
        assert_eq!(leader.commit(), last, "previous terms {previous:?}");
        let terms: Vec<u64> = leader.log().iter().map(|e| e.1).collect();
        assert_eq!(terms, [previous, &[3, 3]].concat());
        assert_eq!(leader.applied.len(), previous.len() + 1, "all of them are applied, in order");
        assert!(leader.applied.windows(2).all(|w| w[0].index < w[1].index));
    }
}

#[test]
fn follower_commit_entry_2ab() {
    for (count, commit) in [(1, 1), (2, 2), (2, 1), (3, 2)] {
        let new = entries(1, &vec![1; count]);
        let want: Vec<Entry> = new[..commit as usize].to_vec();
        let mut member = Member::fresh(1, 3);
        member.step(message(2, 1, 1, append((0, 0), new, commit)));
        assert_eq!(member.commit(), commit);
        assert_eq!(member.applied, want, "{count} entries, {commit} committed");
    }
}

#[test]
fn follower_check_message_type_msg_append_2ab() {
    for (index, term, rejected) in
        [(0, 0, false), (1, 1, false), (2, 2, false), (2, 1, true), (3, 3, true)]
    {
        let storage = with_state(log_of(3, &[1, 2]), 3, None, 1);
        let mut member = Member::new(&plain(1), storage);
        let sent = member.step(message(2, 1, 3, append((index, term), vec![], 0)));
        let got: Option<Reject> = answer(&sent).reject;
        assert_eq!(got.is_some(), rejected, "({index}, {term})");
        if let Some(reject) = got {
            assert!(reject.hint_index.get() <= 2, "the hint lies within the log");
        }
    }
}

#[test]
fn follower_append_entries_2ab() {
    type Row = ((u64, u64), Vec<Entry>, Vec<(u64, u64)>, Vec<u64>);
    let table: Vec<Row> = vec![
        // (previous), entries → the log, what of it is written
        ((2, 2), entries(3, &[3]), vec![(1, 1), (2, 2), (3, 3)], vec![3]),
        ((1, 1), entries(2, &[3, 4]), vec![(1, 1), (2, 3), (3, 4)], vec![2, 3]),
        ((0, 0), entries(1, &[1]), vec![(1, 1), (2, 2)], vec![]),
        ((0, 0), entries(1, &[3]), vec![(1, 3)], vec![1]),
    ];
    for (prev, new, log, written) in table {
        let mut member = Member::new(&plain(1), with_state(log_of(3, &[1, 2]), 4, None, 0));
        member.node.step(message(2, 1, 4, append(prev, new, 0))).unwrap();
        let ready = member.node.ready();
        let got: Vec<u64> = ready.entries.iter().map(|e| e.index.get()).collect();
        assert_eq!(got, written, "after {prev:?}: only what is new is written");
        member.node.storage_mut().append(&ready.entries);
        member.node.advance(ready);
        assert_eq!(member.log(), log, "after {prev:?}");
    }
}

#[test]
fn leader_sync_follower_log_2ab() {
    // Figure 7 of the Raft paper.
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for follower in followers {
        let lead = with_state(log_of(3, &leader), 8, None, leader.len() as u64);
        let behind = with_state(log_of(3, follower), 7, None, 0);
        let mut group = Group::over(vec![Some(lead), Some(behind), None]);
        // The third member only votes.
        group.campaign(1);
        let grant = MessageBody::RequestVoteResponse(Default::default());
        group.send(message(3, 1, 9, grant));
        group.propose(1, "some data");
        let want = group.at(1).log();
        assert_eq!(want.len(), leader.len() + 2);
        assert_eq!(group.at(2).log(), want, "follower {follower:?}");
    }
}

#[test]
fn vote_request_2ab() {
    for (new, term) in [(entries(1, &[1]), 2), (entries(1, &[1, 2]), 3)] {
        let last = new.last().map(|e| (e.index, e.term)).unwrap();
        let mut member = Member::fresh(1, 3);
        member.step(message(2, 1, term - 1, append((0, 0), new, 0)));
        let mut sent = Vec::new();
        for _ in 1..2 * ELECTION_TICKS {
            sent.extend(member.tick(1));
        }
        let asked: Vec<(u64, u64, VoteRequest)> = sent
            .iter()
            .filter_map(|m| match m.body {
                MessageBody::RequestVote(r) => Some((m.to.get(), m.term.get(), r)),
                _ => None,
            })
            .collect();
        assert_eq!(asked.iter().map(|a| (a.0, a.1)).collect::<Vec<_>>(), [(2, term), (3, term)]);
        assert!(asked.iter().all(|a| (a.2.last_index, a.2.last_term) == last));
    }
}

#[test]
fn voter_2ab() {
    let table: &[(&[u64], (u64, u64), bool)] = &[
        // the voter's log, where the candidate's ends → granted
        (&[1], (1, 1), true),
        (&[1], (2, 1), true),
        (&[1, 1], (1, 1), false),
        (&[1], (1, 2), true),
        (&[1], (2, 2), true),
        (&[1, 1], (1, 2), true),
        (&[2], (1, 1), false),
        (&[2], (2, 1), false),
        (&[1, 2], (1, 1), false),
    ];
    for (log, last, granted) in table {
        let mut member = Member::new(&plain(1), log_of(2, log));
        let sent = member.step(message(2, 1, 3, request_vote(*last)));
        let refused = sent.iter().find_map(|m| match m.body {
            MessageBody::RequestVoteResponse(r) => Some(r.reject),
            _ => None,
        });
        assert_eq!(refused, Some(!granted), "voter {log:?}, candidate ends at {last:?}");
    }
}

#[test]
fn leader_only_commits_log_from_current_term_2ab() {
    for (index, commit) in [(1, 0), (2, 0), (3, 3)] {
        let mut leader = Member::leader_over(2, log_of(2, &[1, 2]));
        assert_eq!(leader.term(), 3);
        leader.propose("some data");
        leader.step(message(2, 1, 3, accept(index)));
        assert_eq!(leader.commit(), commit, "acknowledged up to {index}");
    }
    // A heartbeat never stands in for an acknowledgement.
    let mut follower = Member::new(&plain(2), log_of(2, &[1]));
    follower.step(message(1, 2, 3, heartbeat(0)));
    assert_eq!((follower.commit(), follower.node.term()), (0, Term(3)));
    assert_eq!(follower.node.leader_id(), Some(NodeId(1)));
}

//! Messages nobody should send: refused by name, and never a panic, whatever the node is at the
//! time.

use bytes::Bytes;
use proptest::prelude::*;
use raft::{
    Append, AppendResponse, ConfState, Config, Entry, EntryKind, Error, HardState, LogIndex,
    MemStorage, Message, MessageBody, NodeId, RawNode, Refusal, Reject, Role, Snapshot, Term,
    VoteRequest, VoteResponse,
};

fn entry(index: u64, term: u64) -> Entry {
    Entry { index: LogIndex(index), term: Term(term), ..Entry::default() }
}

/// Node 1 of 3 with entries 1:1 2:2 3:2, two of them committed, in term 3.
fn node(role: Role) -> RawNode<MemStorage> {
    let mut storage = MemStorage::with_voters([1, 2, 3]);
    storage.append(&[entry(1, 1), entry(2, 2), entry(3, 2)]);
    storage.hard_state = HardState { term: Term(3), vote: None, commit: LogIndex(2) };
    let config = Config {
        id: NodeId(1),
        pre_vote: role == Role::PreCandidate,
        check_quorum: false,
        ..Config::default()
    };
    let mut raw = RawNode::new(&config, storage).expect("a healthy log");
    if role != Role::Follower {
        assert!(raw.campaign());
    }
    if role == Role::Leader {
        let body = MessageBody::RequestVoteResponse(VoteResponse::default());
        let vote = Message { to: NodeId(1), from: NodeId(2), term: raw.term(), body };
        raw.step(vote).expect("a vote");
    }
    assert_eq!(raw.role(), role);
    raw
}

fn append(prev: (u64, u64), entries: &[Entry], commit: u64) -> MessageBody {
    MessageBody::Append(Append {
        prev_index: LogIndex(prev.0),
        prev_term: Term(prev.1),
        entries: entries.to_vec(),
        commit: LogIndex(commit),
    })
}

fn message(term: u64, body: MessageBody) -> Message {
    Message { to: NodeId(1), from: NodeId(2), term: Term(term), body }
}

#[track_caller]
fn assert_refused(raw: &mut RawNode<MemStorage>, message: Message, expected: Refusal) {
    let before = (raw.term(), raw.last_index(), raw.commit_index());
    let Err(Error::MessageRefused { reason, .. }) = raw.step(message) else {
        panic!("expected {expected:?}")
    };
    assert_eq!(reason, expected);
    assert_eq!((raw.term(), raw.last_index(), raw.commit_index()), before, "nothing changed");
}

#[test]
fn envelopes_must_fit() {
    let mut raw = node(Role::Follower);
    let good = message(3, append((3, 2), &[], 2));
    let cases = [
        (Message { to: NodeId(2), ..good.clone() }, Refusal::WrongReceiver(NodeId(2))),
        (Message { from: NodeId(0), ..good.clone() }, Refusal::WrongSender),
        (Message { from: NodeId(1), ..good.clone() }, Refusal::WrongSender),
        (Message { term: Term(0), ..good.clone() }, Refusal::WrongTerm(Term(0))),
        (Message { term: Term(u64::MAX), ..good.clone() }, Refusal::TermJump(Term(u64::MAX))),
        (
            Message { from: NodeId(9), term: Term(2_000_000), ..good.clone() },
            Refusal::TermJump(Term(2_000_000)),
        ),
        (message(3, MessageBody::Propose(vec![entry(0, 0)])), Refusal::WrongTerm(Term(3))),
        (message(0, MessageBody::Propose(vec![])), Refusal::MalformedProposal),
    ];
    for (wrong, expected) in cases {
        assert_refused(&mut raw, wrong, expected);
    }
    assert_eq!(
        raw.step(Message { term: Term(2_000_000), ..good }),
        Ok(()),
        "a member may be ahead"
    );
}

#[test]
fn entries_must_follow_each_other() {
    let mut raw = node(Role::Follower);
    let broken = |index| Refusal::EntriesBroken(LogIndex(index));
    let huge = u64::MAX;
    let cases = [
        (append((3, 2), &[entry(5, 3)], 2), broken(5)),
        (append((3, 2), &[entry(4, 3), entry(4, 3)], 2), broken(4)),
        (append((3, 2), &[entry(4, 1)], 2), broken(4)),
        (append((3, 2), &[entry(4, 4)], 2), broken(4)),
        (append((3, 4), &[], 2), Refusal::WrongTerm(Term(4))),
        (append((huge, 2), &[entry(0, 3)], 2), Refusal::IndexTooLarge(LogIndex(huge))),
        (append((3, 2), &[], huge), Refusal::IndexTooLarge(LogIndex(huge))),
        (
            append((2, 2), &[entry(3, 3)], 2),
            // Allowed: entry 3 is not committed. Checked below.
            Refusal::MalformedProposal,
        ),
    ];
    for (body, expected) in cases {
        if expected == Refusal::MalformedProposal {
            assert_eq!(raw.step(message(3, body)), Ok(()));
        } else {
            assert_refused(&mut raw, message(3, body), expected);
        }
    }
    let contradiction = append((0, 0), &[entry(1, 3)], 2);
    assert_eq!(raw.step(message(3, contradiction)), Ok(()), "it is below the commit index: stale");
}

#[test]
fn committed_entries_are_defended() {
    let mut raw = node(Role::Follower);
    let expected = Refusal::CommitBeyondLog { commit: LogIndex(9), last_index: LogIndex(3) };
    let heartbeat = MessageBody::Heartbeat { commit: LogIndex(9), context: Bytes::new() };
    assert_refused(&mut raw, message(3, heartbeat), expected);
    assert_refused(
        &mut raw,
        Message { from: NodeId(3), ..message(3, append((3, 2), &[], 2)) },
        Refusal::SecondLeader(NodeId(2)),
    );
}

#[test]
fn a_leader_believes_no_impossible_answer() {
    let mut raw = node(Role::Leader);
    let (term, last_index) = (raw.term().0, raw.last_index());
    let index = last_index.next();
    let body = MessageBody::AppendResponse(AppendResponse { index, ..Default::default() });
    let expected = Refusal::AcknowledgesUnknown { index, last_index };
    assert_refused(&mut raw, message(term, body), expected);
    let second = message(term, append((3, 2), &[], 2));
    assert_refused(&mut raw, second, Refusal::SecondLeader(NodeId(1)));
}

#[test]
fn snapshots_must_make_sense() {
    let mut raw = node(Role::Follower);
    let good = Snapshot {
        index: LogIndex(9),
        term: Term(3),
        conf_state: ConfState::simple([1, 2], []),
        data: Bytes::new(),
    };
    let with = |conf_state| Snapshot { conf_state, ..good.clone() };
    let cases = [
        (with(ConfState::default()), Refusal::SnapshotMembership),
        (with(ConfState::simple([2, 3], [])), Refusal::SnapshotMembership),
        (with(ConfState::simple([1, 2], [2])), Refusal::SnapshotMembership),
        (Snapshot { term: Term(4), ..good.clone() }, Refusal::WrongTerm(Term(4))),
        (Snapshot { index: LogIndex(0), ..good.clone() }, Refusal::EntriesBroken(LogIndex(0))),
    ];
    for (snapshot, expected) in cases {
        assert_refused(&mut raw, message(3, MessageBody::Snapshot(snapshot)), expected);
    }
    assert_eq!(raw.step(message(3, MessageBody::Snapshot(good))), Ok(()));
    assert_eq!(raw.last_index(), LogIndex(9));
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..8, Just(u64::MAX), Just(u64::MAX / 2), Just((1 << 32) + 3), any::<u64>()]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        Just(EntryKind::Normal),
        Just(EntryKind::ConfChange),
        Just(EntryKind::ConfChangeV2)
    ];
    let data = proptest::collection::vec(any::<u8>(), 0..6);
    (number(), number(), kind, data).prop_map(|(index, term, kind, data)| Entry {
        index: LogIndex(index),
        term: Term(term),
        kind,
        data: data.into(),
        context: Bytes::new(),
    })
}

fn any_body() -> impl Strategy<Value = MessageBody> {
    let entries = proptest::collection::vec(any_entry(), 0..3);
    let ids = proptest::collection::vec(0u64..5, 0..4);
    let context = proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let numbers = (number(), number(), number(), number());
    (0u8..14, numbers, any::<bool>(), entries, ids, context).prop_map(
        |(kind, (a, b, c, d), flag, entries, ids, context)| {
            let request = VoteRequest {
                last_index: LogIndex(a),
                last_term: Term(b),
                commit: LogIndex(c),
                commit_term: Term(d),
                priority: 0,
                transfer: flag,
            };
            let response = VoteResponse { reject: flag, commit: LogIndex(a), commit_term: Term(b) };
            match kind {
                0 => MessageBody::Propose(entries),
                1 => append((a, b), &entries, c),
                2 => MessageBody::AppendResponse(AppendResponse {
                    index: LogIndex(a),
                    reject: flag.then_some(Reject { hint_index: LogIndex(b), hint_term: Term(c) }),
                    commit: LogIndex(d),
                    request_snapshot: LogIndex(if c > 4 { c } else { 0 }),
                }),
                3 => MessageBody::RequestVote(request),
                4 => MessageBody::RequestVoteResponse(response),
                5 => MessageBody::RequestPreVote(request),
                6 => MessageBody::RequestPreVoteResponse(response),
                7 => MessageBody::Snapshot(Snapshot {
                    index: LogIndex(a),
                    term: Term(b),
                    conf_state: ConfState::simple(ids, []),
                    data: context,
                }),
                8 => MessageBody::Heartbeat { commit: LogIndex(a), context },
                9 => MessageBody::HeartbeatResponse { commit: LogIndex(a), context },
                10 => MessageBody::TransferLeader,
                11 => MessageBody::TimeoutNow,
                12 => MessageBody::ReadIndex { context },
                _ => MessageBody::ReadIndexResponse { index: LogIndex(a), context },
            }
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    (0u64..5, number(), any_body()).prop_map(|(from, term, body)| Message {
        to: NodeId(1),
        from: NodeId(from),
        term: Term(term),
        body,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn nothing_makes_a_node_panic(
        role in prop_oneof![
            Just(Role::Follower),
            Just(Role::PreCandidate),
            Just(Role::Candidate),
            Just(Role::Leader)
        ],
        messages in proptest::collection::vec(any_message(), 1..20),
    ) {
        let mut raw = node(role);
        for message in messages {
            let _ = raw.step(message);
            if raw.has_ready() {
                let ready = raw.ready();
                if let Some(snapshot) = &ready.snapshot {
                    raw.storage_mut().install(snapshot);
                }
                raw.storage_mut().append(&ready.entries);
                raw.advance(ready);
            }
            raw.tick();
        }
    }
}

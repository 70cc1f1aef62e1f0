//! Round trips, the field of every message type, and bytes nobody should send.

use proptest::prelude::*;

use super::*;

fn every_body() -> Vec<MessageBody> {
    let context = Bytes::from_static(b"context");
    let entry = Entry {
        index: LogIndex(5),
        term: Term(3),
        kind: EntryKind::ConfChangeV2,
        data: Bytes::from_static(b"data"),
        context: context.clone(),
    };
    let request = VoteRequest {
        last_index: LogIndex(9),
        last_term: Term(4),
        commit: LogIndex(8),
        commit_term: Term(3),
        priority: 7,
        transfer: true,
    };
    let response = VoteResponse { reject: true, commit: LogIndex(8), commit_term: Term(3) };
    let conf_state = ConfState {
        voters: vec![NodeId(1), NodeId(2)],
        voters_outgoing: vec![NodeId(2), NodeId(3)],
        learners: vec![NodeId(4)],
        learners_next: vec![NodeId(3)],
        auto_leave: true,
    };
    vec![
        MessageBody::Propose(vec![entry.clone()]),
        MessageBody::Append(Append {
            prev_index: LogIndex(4),
            prev_term: Term(2),
            entries: vec![entry],
            commit: LogIndex(3),
        }),
        MessageBody::AppendResponse(AppendResponse {
            index: LogIndex(4),
            reject: Some(Reject { hint_index: LogIndex(2), hint_term: Term(1) }),
            commit: LogIndex(1),
            request_snapshot: LogIndex(6),
        }),
        MessageBody::AppendResponse(AppendResponse::default()),
        MessageBody::RequestVote(request),
        MessageBody::RequestVote(VoteRequest { priority: -7, transfer: false, ..request }),
        MessageBody::RequestVoteResponse(response),
        MessageBody::RequestPreVote(request),
        MessageBody::RequestPreVoteResponse(VoteResponse::default()),
        MessageBody::Snapshot(Snapshot {
            index: LogIndex(9),
            term: Term(4),
            conf_state,
            data: Bytes::from_static(b"state"),
        }),
        MessageBody::Heartbeat { commit: LogIndex(3), context: context.clone() },
        MessageBody::HeartbeatResponse { commit: LogIndex(3), context: context.clone() },
        MessageBody::TransferLeader,
        MessageBody::TimeoutNow,
        MessageBody::ReadIndex { context: context.clone() },
        MessageBody::ReadIndexResponse { index: LogIndex(3), context },
    ]
}

#[test]
fn every_message_survives_the_wire() {
    for body in every_body() {
        let message = Message { to: NodeId(1), from: NodeId(2), term: Term(6), body };
        let encoded = encode_message(message.clone());
        assert_eq!(decode_message(encoded).as_ref(), Ok(&message));
    }
}

/// Types that are inputs of the local node only must not come from outside.
#[test]
fn what_never_travels_is_refused() {
    for kind in [0, 1, 10, 11, 12, 19, -1, i32::MAX] {
        let wire = eraftpb::Message { msg_type: kind, ..eraftpb::Message::default() };
        assert_eq!(message_from_proto(wire), Err(WireError::MessageType(kind)));
    }
}

#[test]
fn missing_parts_are_named() {
    let kind = |kind: eraftpb::MessageType| eraftpb::Message {
        msg_type: kind as i32,
        ..eraftpb::Message::default()
    };
    let snapshot = kind(eraftpb::MessageType::MsgSnapshot);
    assert_eq!(message_from_proto(snapshot), Err(WireError::Missing("snapshot")));
    let mut snapshot = kind(eraftpb::MessageType::MsgSnapshot);
    snapshot.snapshot = Some(eraftpb::Snapshot::default());
    assert_eq!(message_from_proto(snapshot), Err(WireError::Missing("snapshot.metadata")));
    let read = kind(eraftpb::MessageType::MsgReadIndex);
    assert!(matches!(message_from_proto(read), Err(WireError::Missing(_))));
    let mut append = kind(eraftpb::MessageType::MsgAppend);
    append.entries.push(eraftpb::Entry { entry_type: 9, ..eraftpb::Entry::default() });
    assert_eq!(message_from_proto(append), Err(WireError::EntryType(9)));
}

/// Peers that know only the older field set that one.
#[test]
fn older_priority_is_understood() {
    let wire = eraftpb::Message {
        msg_type: eraftpb::MessageType::MsgRequestVote as i32,
        deprecated_priority: 3,
        ..eraftpb::Message::default()
    };
    let Ok(Message { body: MessageBody::RequestVote(request), .. }) = message_from_proto(wire)
    else {
        panic!("a vote request")
    };
    assert_eq!(request.priority, 3);
}

#[test]
fn membership_changes_survive_in_both_forms() {
    let change = ConfChangeV2 {
        transition: Transition::Explicit,
        changes: vec![
            ConfChange { kind: ConfChangeKind::AddVoter, node: NodeId(1) },
            ConfChange { kind: ConfChangeKind::Remove, node: NodeId(2) },
            ConfChange { kind: ConfChangeKind::AddLearner, node: NodeId(3) },
        ],
        context: Bytes::from_static(b"why"),
    };
    let entry = |kind, data| Entry { kind, data, ..Entry::default() };
    let second = entry(EntryKind::ConfChangeV2, encode_conf_change(&change));
    assert_eq!(decode_conf_change(&second), Ok(change));

    let old = eraftpb::ConfChange { change_type: 2, node_id: 7, ..Default::default() };
    let first = entry(EntryKind::ConfChange, Bytes::from(old.encode_to_vec()));
    let expected = ConfChangeV2::single(ConfChangeKind::AddLearner, NodeId(7));
    assert_eq!(decode_conf_change(&first), Ok(expected));

    let empty = entry(EntryKind::ConfChangeV2, Bytes::new());
    assert!(decode_conf_change(&empty).unwrap().is_leave_joint());
    let garbage = entry(EntryKind::ConfChangeV2, Bytes::from_static(&[0xff; 9]));
    assert_eq!(decode_conf_change(&garbage), Err(ConfChangeError::Malformed));
    assert_eq!(decode_conf_change(&Entry::default()), Err(ConfChangeError::Malformed));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_message(Bytes::from(bytes));
    }
}

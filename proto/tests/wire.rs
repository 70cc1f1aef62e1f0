//! Field numbers are a promise: hand-made encodings, written from the numbers that TiKV's clients
//! and raft-rs use, must decode to the fields they name and encode back to the same bytes.
//!
//! `field(tag, …)` spells the protobuf wire format out, so that nothing here depends on the code
//! under test.

use std::fmt::Debug;

use bytes::Bytes;
use prost::Message;
use proto::tikvpb::batch_commands_request::request::Cmd;
use proto::{eraftpb, errorpb, flotillapb, keyspacepb, kvrpcpb, metapb, pdpb, tikvpb};

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A length-delimited field: bytes, string, message.
fn field(tag: u64, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [varint(tag << 3 | 2), varint(payload.len() as u64), payload.to_vec()].concat()
}

/// A varint field: integers, bools, enums.
fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

fn same<M: Message + Default + PartialEq + Debug>(wire: &[Vec<u8>], message: M) {
    let wire = wire.concat();
    assert_eq!(M::decode(&wire[..]).expect("decodes"), message);
    assert_eq!(message.encode_to_vec(), wire, "{message:?}");
}

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn context_and_region() {
    let epoch = metapb::RegionEpoch { conf_ver: 5, version: 6 };
    let peer = metapb::Peer { id: 7, store_id: 8, role: 1, is_witness: true };
    let epoch_wire = [number(1, 5), number(2, 6)].concat();
    let peer_wire = [number(1, 7), number(2, 8), number(3, 1), number(4, 1)].concat();
    same(
        &[number(1, 9), field(2, &epoch_wire), field(3, &peer_wire), number(21, 2)],
        kvrpcpb::Context {
            region_id: 9,
            region_epoch: Some(epoch),
            peer: Some(peer),
            api_version: kvrpcpb::ApiVersion::V2 as i32,
            ..Default::default()
        },
    );
    same(
        &[number(1, 9), field(2, "a"), field(3, "z"), field(4, &epoch_wire), field(5, &peer_wire)],
        metapb::Region {
            id: 9,
            start_key: b("a"),
            end_key: b("z"),
            region_epoch: Some(epoch),
            peers: vec![peer],
        },
    );
}

#[test]
fn raw_requests() {
    same(
        &[field(2, "k"), field(3, "lock")],
        kvrpcpb::RawGetRequest { key: b("k"), cf: "lock".into(), ..Default::default() },
    );
    same(
        &[field(2, "k"), field(3, "v"), field(4, "cf"), number(5, 60), number(6, 1)],
        kvrpcpb::RawPutRequest {
            key: b("k"),
            value: b("v"),
            cf: "cf".into(),
            ttl: 60,
            for_cas: true,
            ..Default::default()
        },
    );
    let end = kvrpcpb::RawScanRequest {
        start_key: b("a"),
        limit: 3,
        key_only: true,
        cf: "cf".into(),
        reverse: true,
        end_key: b("z"),
        ..Default::default()
    };
    let mut wire = vec![field(2, "a"), number(3, 3), number(4, 1), field(5, "cf"), number(6, 1)];
    wire.push(field(7, "z"));
    same(&wire, end);
    same(
        &[number(3, 1), number(4, 1), field(5, "old")],
        kvrpcpb::RawCasResponse {
            succeed: true,
            previous_not_exist: true,
            previous_value: b("old"),
            ..Default::default()
        },
    );
    let pair = [field(2, "k"), field(3, "v")].concat();
    let kvs = vec![kvrpcpb::KvPair { key: b("k"), value: b("v"), error: None }];
    same(&[field(2, pair)], kvrpcpb::RawScanResponse { kvs, ..Default::default() });
}

#[test]
fn transactional_messages() {
    let mutation = kvrpcpb::Mutation {
        op: kvrpcpb::Op::CheckNotExists as i32,
        key: b("k"),
        value: b("v"),
        assertion: kvrpcpb::Assertion::NotExist as i32,
    };
    let mutation_wire = [number(1, 6), field(2, "k"), field(3, "v"), number(4, 2)].concat();
    same(
        &[
            field(2, mutation_wire),
            field(3, "p"),
            number(4, 10),
            number(5, 11),
            field(7, [1]), // packed
            number(8, 12),
            number(9, 13),
            number(11, 1),
            field(12, "s"),
            number(13, 1),
        ],
        kvrpcpb::PrewriteRequest {
            mutations: vec![mutation],
            primary_lock: b("p"),
            start_version: 10,
            lock_ttl: 11,
            pessimistic_actions: vec![1],
            txn_size: 12,
            for_update_ts: 13,
            use_async_commit: true,
            secondaries: vec![b("s")],
            try_one_pc: true,
            ..Default::default()
        },
    );
    let lock = kvrpcpb::LockInfo {
        lock_ttl: 4,
        lock_type: 5,
        use_async_commit: true,
        min_commit_ts: 9,
        ..Default::default()
    };
    let lock_wire = [number(4, 4), number(6, 5), number(8, 1), number(9, 9)].concat();
    same(
        &[number(3, 1), number(4, 2), number(5, 4), field(6, lock_wire)],
        kvrpcpb::CheckTxnStatusResponse {
            lock_ttl: 1,
            commit_version: 2,
            action: kvrpcpb::Action::TtlExpirePessimisticRollback as i32,
            lock_info: Some(lock),
            ..Default::default()
        },
    );
    let error = kvrpcpb::KeyError { abort: "a".into(), ..Default::default() };
    same(
        &[field(5, field(3, "a"))],
        kvrpcpb::BatchGetResponse { error: Some(error), ..Default::default() },
    );
}

#[test]
fn region_errors() {
    let leader = metapb::Peer { id: 1, ..Default::default() };
    let not_leader = errorpb::NotLeader { region_id: 3, leader: Some(leader) };
    same(
        &[field(1, "m"), field(2, [number(1, 3), field(2, number(1, 1))].concat())],
        errorpb::Error { message: "m".into(), not_leader: Some(not_leader), ..Default::default() },
    );
    let numbers = [
        (3, errorpb::Error { region_not_found: Some(Default::default()), ..Default::default() }),
        (4, errorpb::Error { key_not_in_region: Some(Default::default()), ..Default::default() }),
        (5, errorpb::Error { epoch_not_match: Some(Default::default()), ..Default::default() }),
        (7, errorpb::Error { stale_command: Some(Default::default()), ..Default::default() }),
        (8, errorpb::Error { store_not_match: Some(Default::default()), ..Default::default() }),
        (
            9,
            errorpb::Error { raft_entry_too_large: Some(Default::default()), ..Default::default() },
        ),
        (20, errorpb::Error { mismatch_peer_id: Some(Default::default()), ..Default::default() }),
    ];
    for (tag, error) in numbers {
        same(&[field(tag, "")], error);
    }
}

#[test]
fn batch_commands() {
    let get = kvrpcpb::RawGetRequest { key: b("k"), ..Default::default() };
    let commands = [
        (13, Cmd::RawGet(get), field(2, "k")),
        (14, Cmd::RawBatchGet(Default::default()), vec![]),
        (15, Cmd::RawPut(Default::default()), vec![]),
        (16, Cmd::RawBatchPut(Default::default()), vec![]),
        (17, Cmd::RawDelete(Default::default()), vec![]),
        (18, Cmd::RawBatchDelete(Default::default()), vec![]),
        (19, Cmd::RawScan(Default::default()), vec![]),
        (20, Cmd::RawDeleteRange(Default::default()), vec![]),
        (21, Cmd::RawBatchScan(Default::default()), vec![]),
        (25, Cmd::CheckTxnStatus(Default::default()), vec![]),
        (33, Cmd::CheckSecondaryLocks(Default::default()), vec![]),
        (255, Cmd::Empty(Default::default()), vec![]),
        (1000, Cmd::Write(Default::default()), vec![]),
    ];
    for (tag, cmd, payload) in commands {
        let request = tikvpb::batch_commands_request::Request { cmd: Some(cmd) };
        same(
            &[field(1, field(tag, payload)), field(2, [4])],
            tikvpb::BatchCommandsRequest { requests: vec![request], request_ids: vec![4] },
        );
    }
}

#[test]
fn placement_messages() {
    let header = pdpb::ResponseHeader { cluster_id: 1, error: None };
    let leader = pdpb::Member { client_urls: vec!["u".into()], ..Default::default() };
    same(
        &[field(1, number(1, 1)), field(3, field(4, "u"))],
        pdpb::GetMembersResponse {
            header: Some(header.clone()),
            leader: Some(leader),
            ..Default::default()
        },
    );
    let timestamp = pdpb::Timestamp { physical: 6, logical: 7, suffix_bits: 0 };
    same(
        &[number(2, 5), field(3, [number(1, 6), number(2, 7)].concat())],
        pdpb::TsoResponse { header: None, count: 5, timestamp: Some(timestamp) },
    );
    let region = pdpb::Region { region: Some(Default::default()), ..Default::default() };
    same(
        &[field(2, ""), field(3, ""), field(4, field(1, ""))],
        pdpb::ScanRegionsResponse {
            header: None,
            region_metas: vec![Default::default()],
            leaders: vec![Default::default()],
            regions: vec![region],
        },
    );
    let keyspace = keyspacepb::KeyspaceMeta { name: "DEFAULT".into(), ..Default::default() };
    same(
        &[field(1, number(1, 1)), field(2, field(2, "DEFAULT"))],
        keyspacepb::LoadKeyspaceResponse { header: Some(header), keyspace: Some(keyspace) },
    );
}

#[test]
fn raft_messages() {
    let entry = eraftpb::Entry {
        entry_type: 2,
        term: 3,
        index: 4,
        data: b("d"),
        context: b("c"),
        ..Default::default()
    };
    let entry_wire =
        [number(1, 2), number(2, 3), number(3, 4), field(4, "d"), field(6, "c")].concat();
    let mut wire: Vec<_> =
        [3, 1, 2, 9, 8, 7].into_iter().zip(1..).map(|(v, t)| number(t, v)).collect();
    wire.extend([field(7, entry_wire), number(8, 6), number(10, 1), number(11, 5), field(12, "x")]);
    wire.extend([number(13, 21), number(14, 22), number(15, 23), number(16, 24)]);
    same(
        &wire,
        eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgAppend as i32,
            to: 1,
            from: 2,
            term: 9,
            log_term: 8,
            index: 7,
            entries: vec![entry],
            commit: 6,
            snapshot: None,
            reject: true,
            reject_hint: 5,
            context: b("x"),
            request_snapshot: 21,
            deprecated_priority: 22,
            commit_term: 23,
            priority: 24,
        },
    );
    let change = eraftpb::ConfChangeSingle { r#type: 2, node_id: 3 };
    same(
        &[number(1, 1), field(2, [number(1, 2), number(2, 3)].concat()), field(3, "c")],
        eraftpb::ConfChangeV2 { transition: 1, changes: vec![change], context: b("c") },
    );
    same(
        &[field(1, [1]), field(2, [2]), field(3, [3]), field(4, [4]), number(5, 1)],
        eraftpb::ConfState {
            voters: vec![1],
            learners: vec![2],
            voters_outgoing: vec![3],
            learners_next: vec![4],
            auto_leave: true,
        },
    );
}

/// What a store wrote yesterday must mean the same today.
#[test]
fn persisted_messages_of_our_own() {
    use flotillapb::mutation::{Op, Put};
    let put = Op::Put(Put { cf: flotillapb::RawCf::Write as i32, key: b("k"), value: b("v") });
    let put_wire = field(1, [number(1, 2), field(2, "k"), field(3, "v")].concat());
    let request = flotillapb::Request {
        session: Some(flotillapb::Session { client_id: 5, sequence: 6 }),
        mutations: vec![flotillapb::Mutation { op: Some(put) }],
        open_session: false,
    };
    let request_wire = [field(1, [number(1, 5), number(2, 6)].concat()), field(2, put_wire)];
    same(
        &[number(1, 1), number(2, 2), field(3, request_wire.concat())],
        flotillapb::Command { conf_ver: 1, version: 2, requests: vec![request], admin: None },
    );
    same(
        &[number(1, 1), number(2, 2), number(3, 3), number(4, 4), number(5, 5)],
        flotillapb::ApplyState {
            applied_index: 1,
            applied_term: 2,
            truncated_index: 3,
            truncated_term: 4,
            state_hash: 5,
        },
    );
    same(&[number(1, 1), number(2, 2)], flotillapb::StoreIdent { cluster_id: 1, store_id: 2 });
    let reply =
        flotillapb::WriteResult { result: Some(flotillapb::write_result::Result::AppendLength(9)) };
    same(
        &[number(1, 1), field(2, number(2, 9)), number(3, 3)],
        flotillapb::SessionRecord { sequence: 1, reply: Some(reply), last_used_index: 3 },
    );
}

#[test]
fn unknown_fields_are_skipped() {
    let wire = [field(2, "k"), field(99, "from a newer client"), number(98, 1)].concat();
    let request = kvrpcpb::RawGetRequest::decode(&wire[..]).expect("decodes");
    assert_eq!(request.key, b("k"));
    let wire = field(1, field(11, "KvGC is not a command here"));
    let batch = tikvpb::BatchCommandsRequest::decode(&wire[..]).expect("decodes");
    assert_eq!(batch.requests[0].cmd, None);
}

#[test]
fn the_descriptor_set_names_every_service() {
    for name in ["Tikv", "PD", "Keyspace", "Kv", "Transport", "Bootstrap", "Diagnostics"] {
        let found = proto::FILE_DESCRIPTOR_SET.windows(name.len()).any(|w| w == name.as_bytes());
        assert!(found, "{name}");
    }
}

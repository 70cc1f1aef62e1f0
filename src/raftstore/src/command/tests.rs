//! What is in the log, there and back, and what is refused.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

fn raw_cf() -> impl Strategy<Value = RawCf> {
    prop_oneof![Just(RawCf::Default), Just(RawCf::Lock), Just(RawCf::Write)]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (raw_cf(), bytes(), bytes()).prop_map(|(cf, key, value)| Mutation::Put { cf, key, value }),
        (raw_cf(), bytes()).prop_map(|(cf, key)| Mutation::Delete { cf, key }),
        (raw_cf(), bytes(), bytes()).prop_map(|(cf, start, end)| Mutation::DeleteRange {
            cf,
            start,
            end
        }),
        (raw_cf(), bytes(), bytes()).prop_map(|(cf, key, value)| Mutation::Append {
            cf,
            key,
            value
        }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let session =
        any::<(u64, u64)>().prop_map(|(c, sequence)| Session { client: ClientId(c), sequence });
    prop_oneof![
        (vec(mutation(), 0..4), proptest::option::of(session))
            .prop_map(|(mutations, session)| Request::Mutate { mutations, session }),
        any::<u64>().prop_map(|client| Request::OpenSession { client: ClientId(client) }),
    ]
}

fn position() -> impl Strategy<Value = (LogIndex, Term)> {
    any::<(u64, u64)>().prop_map(|(index, term)| (LogIndex(index), Term(term)))
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<(u64, u64)>().prop_map(|(conf_ver, version)| Epoch { conf_ver, version })
}

fn region() -> impl Strategy<Value = metapb::Region> {
    let peers = vec(any::<(u64, u64)>(), 0..4);
    (any::<u64>(), bytes(), bytes(), epoch(), peers).prop_map(|(id, start, end, epoch, peers)| {
        let peer = |(id, store_id)| metapb::Peer { id, store_id, ..Default::default() };
        let Epoch { conf_ver, version } = epoch;
        metapb::Region {
            id,
            start_key: start,
            end_key: end,
            region_epoch: Some(RegionEpoch { conf_ver, version }),
            peers: peers.into_iter().map(peer).collect(),
        }
    })
}

fn part() -> impl Strategy<Value = (Bytes, NewRegion)> {
    (bytes(), any::<u64>(), vec(any::<u64>(), 0..4)).prop_map(|(key, region, peers)| {
        let peers = peers.into_iter().map(Into::into).collect();
        (key, NewRegion { region: region.into(), peers })
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (epoch(), vec(request(), 1..4))
            .prop_map(|(epoch, requests)| Command::Write { epoch, requests }),
        position().prop_map(|(index, term)| Command::CompactLog { index, term }),
        (epoch(), vec(part(), 1..4)).prop_map(|(epoch, parts)| {
            let (keys, regions) = parts.into_iter().unzip();
            Command::Split { epoch, keys, regions }
        }),
        (epoch(), region()).prop_map(|(epoch, target)| Command::PrepareMerge { epoch, target }),
        (epoch(), region(), position()).prop_map(|(epoch, source, (index, term))| {
            Command::CommitMerge { epoch, source, index, term }
        }),
        position().prop_map(|(index, _)| Command::RollbackMerge { index }),
        (epoch(), any::<u64>())
            .prop_map(|(epoch, id)| Command::AbandonMerge { epoch, source: id.into() }),
        Just(Command::ComputeHash),
        (position(), any::<u64>())
            .prop_map(|((index, _), hash)| Command::VerifyHash { index, hash }),
    ]
}

fn result() -> impl Strategy<Value = WriteResult> {
    prop_oneof![
        Just(WriteResult::Applied),
        any::<u64>().prop_map(|value_bytes| WriteResult::Appended { value_bytes }),
        any::<u64>().prop_map(|c| WriteResult::SessionExpired { client: ClientId(c) }),
        any::<u64>().prop_map(|last| WriteResult::StaleSequence { last }),
        any::<String>().prop_map(|reason| WriteResult::Refused { reason }),
    ]
}

proptest! {
    #[test]
    fn a_command_survives_the_log(command in command()) {
        prop_assert_eq!(Command::decode(command.clone().encode()), Ok(command));
    }

    #[test]
    fn a_result_survives_the_wire(result in result()) {
        let wire = flotillapb::WriteResult::from(result.clone());
        prop_assert_eq!(WriteResult::try_from(wire), Ok(result));
    }

    #[test]
    fn any_bytes_are_a_command_or_an_error(data in vec(any::<u8>(), 0..64)) {
        if let Ok(command) = Command::decode(Bytes::from(data.clone())) {
            prop_assert_eq!(command.encode().len(), data.len());
        }
    }
}

#[test]
fn a_field_of_a_later_version_is_not_skipped() {
    let command = Command::CompactLog { index: LogIndex(9), term: Term(2) };
    let mut data = command.encode().to_vec();
    // Field 15, varint 1.
    data.extend_from_slice(&[15 << 3, 1]);
    let error = Command::decode(Bytes::from(data)).expect_err("must not be skipped");
    assert!(matches!(error, CommandDecodeError::UnknownFields { .. }), "{error}");
}

#[test]
fn what_is_of_unknown_kind_is_not_skipped() {
    let decode = |command: flotillapb::Command| Command::decode(command.encode_to_vec().into());
    let unknown = |part| Err(CommandDecodeError::Unknown(part));
    assert_eq!(decode(flotillapb::Command::default()), unknown(UnknownPart::Kind));

    let admin = Some(flotillapb::Admin { cmd: None });
    let command = flotillapb::Command { admin, ..Default::default() };
    assert_eq!(decode(command), unknown(UnknownPart::Kind));

    let with = |request| flotillapb::Command { requests: vec![request], ..Default::default() };
    let mutations = vec![flotillapb::Mutation { op: None }];
    let request = flotillapb::Request { mutations, ..Default::default() };
    assert_eq!(decode(with(request)), unknown(UnknownPart::Mutation));

    let put = flotillapb::mutation::Put { cf: 3, ..Default::default() };
    let mutations = vec![flotillapb::Mutation { op: Some(flotillapb::mutation::Op::Put(put)) }];
    let request = flotillapb::Request { mutations, ..Default::default() };
    assert_eq!(decode(with(request)), unknown(UnknownPart::ColumnFamily(3)));

    let request = flotillapb::Request { open_session: true, ..Default::default() };
    assert_eq!(decode(with(request)), unknown(UnknownPart::OpenSession));
}

#[test]
fn an_administrative_command_is_complete_or_refused() {
    use flotillapb::admin as pb;
    let decode = |version, cmd| {
        let admin = Some(flotillapb::Admin { cmd: Some(cmd) });
        let command = flotillapb::Command { version, admin, ..Default::default() };
        Command::decode(command.encode_to_vec().into())
    };
    let refused = |part| Err(CommandDecodeError::Unknown(UnknownPart::Admin(part)));
    let split = |keys: Vec<Bytes>, regions| decode(1, pb::Cmd::Split(pb::Split { keys, regions }));
    assert_eq!(split(vec![], vec![]), refused("regions"));
    assert_eq!(split(vec!["k".into()], vec![]), refused("regions"));
    assert_eq!(split(vec![], vec![pb::NewRegion::default()]), refused("regions"));
    let prepare = pb::Cmd::PrepareMerge(pb::PrepareMerge { target: None });
    assert_eq!(decode(1, prepare), refused("target"));
    let commit = pb::CommitMerge { source: None, index: 7, term: 6 };
    assert_eq!(decode(1, pb::Cmd::CommitMerge(commit)), refused("source"));
    let rollback = pb::Cmd::RollbackMerge(pb::RollbackMerge { index: 7 });
    assert_eq!(decode(0, rollback.clone()), Ok(Command::RollbackMerge { index: LogIndex(7) }));
    assert_eq!(decode(1, rollback), refused("epoch"));
}

#[test]
fn limits_are_checked_and_named() {
    let put = |key_bytes, value_bytes| Mutation::Put {
        cf: RawCf::Default,
        key: vec![0; key_bytes].into(),
        value: vec![0; value_bytes].into(),
    };
    assert_eq!(validate(&[put(KEY_BYTES_MAX, VALUE_BYTES_MAX)]), Ok(()));
    let field = |mutations: &[Mutation]| validate(mutations).map_err(|e| e.field);
    assert_eq!(field(&[put(KEY_BYTES_MAX + 1, 0)]), Err("key size in bytes"));
    assert_eq!(field(&[put(1, VALUE_BYTES_MAX + 1)]), Err("value size in bytes"));
    assert_eq!(field(&[put(1, 5 << 20), put(1, 5 << 20)]), Err("size of a request in bytes"));
    let many = vec![put(0, 0); BATCH_OPS_MAX + 1];
    assert_eq!(field(&many), Err("number of mutations in a request"));
    let range =
        Mutation::DeleteRange { cf: RawCf::Lock, start: Bytes::new(), end: vec![0; 9000].into() };
    assert_eq!(
        validate(&[range]).map_err(|e| e.to_string()),
        Err("key size in bytes is 9000; the limit is 8192".to_owned())
    );
}

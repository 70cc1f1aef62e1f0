//! Random logs against a plain map: however the log is cut into calls, wherever power is lost, and if the rest is applied on
//! top of a snapshot somewhere else, data, answers and digest are the same.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::snapshot::{
    MemFiles, ReceiveLimits, SnapshotFiles, SnapshotInstall, SnapshotReceiver, SnapshotSource,
    encode_meta, install, put_marker,
};

/// What a region should hold.
#[derive(Clone, Debug, Default)]
struct Model {
    data: BTreeMap<(RawCf, Vec<u8>), Vec<u8>>,
    sessions: BTreeMap<ClientId, (u64, WriteResult)>,
}

impl Model {
    fn request(&mut self, request: &Request) -> WriteResult {
        match request {
            Request::OpenSession { client } => {
                self.sessions.entry(*client).or_insert((0, WriteResult::Applied));
                WriteResult::Applied
            }
            Request::Mutate { mutations, session: None } => self.mutate(mutations),
            Request::Mutate { mutations, session: Some(Session { client, sequence }) } => {
                match self.sessions.get(client).cloned() {
                    None => WriteResult::SessionExpired { client: *client },
                    Some((last, _)) if *sequence < last => WriteResult::StaleSequence { last },
                    Some((last, result)) if *sequence == last => result,
                    Some(_) => {
                        let result = self.mutate(mutations);
                        self.sessions.insert(*client, (*sequence, result.clone()));
                        result
                    }
                }
            }
        }
    }

    fn mutate(&mut self, mutations: &[Mutation]) -> WriteResult {
        let mut result = WriteResult::Applied;
        for mutation in mutations {
            match mutation {
                Mutation::Put { cf, key, value } => {
                    self.data.insert((*cf, key.to_vec()), value.to_vec());
                }
                Mutation::Delete { cf, key } => {
                    self.data.remove(&(*cf, key.to_vec()));
                }
                Mutation::DeleteRange { cf, start, end } => {
                    let gone = |key: &[u8]| key >= &start[..] && (end.is_empty() || key < &end[..]);
                    self.data.retain(|(in_cf, key), _| in_cf != cf || !gone(key));
                }
                Mutation::Append { cf, key, value } => {
                    let old = self.data.entry((*cf, key.to_vec())).or_default();
                    old.extend_from_slice(value);
                    result = WriteResult::Appended { value_bytes: old.len() as u64 };
                }
            }
        }
        result
    }
}

fn raw_cf() -> impl Strategy<Value = RawCf> {
    prop_oneof![4 => Just(RawCf::Default), 1 => Just(RawCf::Lock)]
}

fn key() -> impl Strategy<Value = Bytes> {
    // Inside of the region, which is [b, y).
    vec(b'c'..b'f', 1..3).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    vec(b'0'..=b'9', 0..4).prop_map(Bytes::from)
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let bound = prop_oneof![key(), Just(Bytes::new())];
    prop_oneof![
        3 => (raw_cf(), key(), value())
            .prop_map(|(cf, key, value)| Mutation::Put { cf, key, value }),
        1 => (raw_cf(), key()).prop_map(|(cf, key)| Mutation::Delete { cf, key }),
        1 => (raw_cf(), bound.clone(), bound)
            .prop_map(|(cf, start, end)| Mutation::DeleteRange { cf, start, end }),
        3 => (raw_cf(), key(), value())
            .prop_map(|(cf, key, value)| Mutation::Append { cf, key, value }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let session = (1..4u64, 1..6u64)
        .prop_map(|(client, sequence)| Session { client: ClientId(client), sequence });
    prop_oneof![
        5 => (vec(mutation(), 0..4), proptest::option::of(session))
            .prop_map(|(mutations, session)| Request::Mutate { mutations, session }),
        1 => (1..4u64).prop_map(|client| Request::OpenSession { client: ClientId(client) }),
    ]
}

/// What happens to the applier next.
#[derive(Clone, Debug)]
enum Step {
    /// So many entries at once.
    Apply(usize),
    /// Power is lost; so many unsynced batches survive.
    Crash(usize),
    /// Everything written so far is synced.
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5usize).prop_map(Step::Apply),
        1 => (0..4usize).prop_map(Step::Crash),
        1 => Just(Step::Sync),
    ]
}

fn entry_of(index: usize, requests: Vec<Request>) -> Entry {
    Entry {
        index: LogIndex(START + 1 + index as u64),
        term: Term(6),
        data: Command::Write { epoch: EPOCH, requests }.encode(),
        ..Entry::default()
    }
}

fn data(engine: &dyn Engine) -> BTreeMap<(RawCf, Vec<u8>), Vec<u8>> {
    let snapshot = engine.snapshot();
    let mut found = BTreeMap::new();
    for (cf, range) in keys::data_ranges(&region(REGION, "b", "y")) {
        let mut iter = snapshot.iter(cf, range);
        let mut more = iter.seek_to_first().expect("engine");
        while more {
            let Ok(Key::Raw(raw_cf, key)) = Key::decode(cf, iter.key()) else {
                panic!("a raw key")
            };
            found.insert((raw_cf, key.to_vec()), iter.value().to_vec());
            more = iter.next().expect("engine");
        }
    }
    found
}

/// Carries a snapshot of `bench` to a new engine and opens the region there.
pub(super) fn move_elsewhere(bench: &mut Bench) -> Bench {
    let ask = ApplyTask::Snapshot { region: REGION.into(), to: PeerId::from(3) };
    let mut turn = bench.applier.handle(vec![ask]).expect("apply");
    let ready = turn.snapshots.pop().expect("a snapshot");
    let meta = ready.meta.clone();
    let files = MemFiles::new();
    let shared: Arc<dyn SnapshotFiles> = Arc::new(files.clone());
    let metadata = proto::eraftpb::SnapshotMetadata {
        index: meta.index.0,
        term: meta.term.0,
        ..Default::default()
    };
    let snapshot = proto::eraftpb::Snapshot { data: encode_meta(&meta), metadata: Some(metadata) };
    let message = proto::raft_serverpb::RaftMessage {
        region_id: REGION,
        message: Some(proto::eraftpb::Message { snapshot: Some(snapshot), ..Default::default() }),
        ..Default::default()
    };
    let mut receiver =
        SnapshotReceiver::begin(shared, ReceiveLimits::default(), &message).expect("begin");
    let mut source = SnapshotSource::new(ready);
    let file = loop {
        let part = source.next_part().expect("engine").expect("a footer ends it");
        if let Some(file) = receiver.take(part).expect("taken") {
            break file;
        }
    };
    let engine = Arc::new(MemEngine::new());
    let (peer, merged) = (meta.region.peers[0], Vec::new());
    let what = SnapshotInstall { region: REGION.into(), peer, meta, file, merged };
    let mut marker = WriteBatch::new();
    put_marker(&what, &mut marker);
    engine.write(&marker).expect("write");
    let state = install(engine.as_ref(), &files, &what).expect("installed");
    let mut moved = Bench { applier: Applier::new(engine.clone()), engine, next: 0 };
    moved.register(region(REGION, "b", "y"), state).expect("register");
    moved.next = state.applied_index.0 + 1;
    moved
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_applier_is_a_map_with_sessions(
        log in vec(vec(request(), 1..4), 1..30),
        steps in vec(step(), 1..40),
        moved_at in 0..30usize,
    ) {
        let mut model = Model::default();
        let expected: Vec<Vec<WriteResult>> = log
            .iter()
            .map(|requests| requests.iter().map(|request| model.request(request)).collect())
            .collect();
        let entries: Vec<Entry> =
            log.iter().cloned().enumerate().map(|(at, requests)| entry_of(at, requests)).collect();

        let mut bench = Bench::new();
        bench.engine.sync().expect("sync");
        let mut elsewhere = None;
        // The last step applies whatever is left.
        for step in steps.into_iter().chain([Step::Apply(usize::MAX)]) {
            match step {
                Step::Crash(keep) => bench = bench.crash(keep),
                Step::Sync => bench.engine.sync().expect("sync"),
                Step::Apply(count) => {
                    let from = (bench.next - START - 1) as usize;
                    let to = from.saturating_add(count).min(entries.len());
                    if elsewhere.is_none() && from >= moved_at {
                        elsewhere = Some(move_elsewhere(&mut bench));
                    }
                    apply_and_check(&mut bench, &entries[from..to], &expected[from..to])?;
                }
            }
        }
        prop_assert_eq!(data(bench.engine.as_ref()), model.data.clone());

        let mut elsewhere = elsewhere.unwrap_or_else(|| move_elsewhere(&mut bench));
        let from = (elsewhere.next - START - 1) as usize;
        apply_and_check(&mut elsewhere, &entries[from..], &expected[from..])?;
        prop_assert_eq!(data(elsewhere.engine.as_ref()), model.data);
        let (here, there) = (bench.state(), elsewhere.state());
        prop_assert_eq!(
            (here.applied_index, here.applied_term, here.state_hash),
            (there.applied_index, there.applied_term, there.state_hash)
        );
    }
}

fn apply_and_check(
    bench: &mut Bench,
    entries: &[Entry],
    expected: &[Vec<WriteResult>],
) -> Result<(), TestCaseError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut outcomes = Vec::new();
    let mut proposals = Vec::new();
    for (entry, results) in entries.iter().zip(expected) {
        let (replies, receivers): (Vec<_>, Vec<_>) = results.iter().map(|_| reply()).unzip();
        proposals.push(Proposal { index: entry.index, term: entry.term, replies });
        outcomes.extend(receivers);
    }
    let turn = bench.handle(entries.to_vec(), proposals);
    bench.next += entries.len() as u64;
    turn.replies.into_iter().for_each(|(reply, outcome)| reply.send(outcome));
    let answered: Vec<_> = outcomes.iter().map(|outcome| outcome.try_recv()).collect();
    let expected: Vec<_> = expected.iter().flatten().map(|r| Ok(Ok(r.clone()))).collect();
    prop_assert_eq!(answered, expected);
    Ok(())
}

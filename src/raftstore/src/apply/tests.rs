//! The applier as a whole, over the in-memory engine.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Cf, Engine, WriteBatch};
use proto::ids::{PeerId, RegionId};
use proto::limits::VALUE_BYTES_MAX;
use proto::metapb;
use raft::{ConfState, Entry, EntryKind, LogIndex, Term};

use super::*;
use crate::command::{ClientId, Command, Epoch, Mutation, Request, Session, WriteResult};
use crate::error::RegionError;
use crate::keys::{self, Key, RawCf};
use crate::reply::Reply;

mod life;
mod model;
#[cfg(feature = "planted")]
mod planted;

const REGION: u64 = 2;
const EPOCH: Epoch = Epoch { conf_ver: 1, version: 1 };
/// Where a new region's log starts.
const START: u64 = 5;

fn region(id: u64, start: &'static str, end: &'static str) -> metapb::Region {
    let peer = |id| metapb::Peer { id, store_id: id, ..Default::default() };
    metapb::Region {
        id,
        start_key: start.into(),
        end_key: end.into(),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: vec![peer(1), peer(2), peer(3)],
    }
}

/// A store with one region, fed by hand.
struct Bench {
    engine: Arc<MemEngine>,
    applier: Applier,
    next: u64,
}

type Outcome = Receiver<Result<WriteResult, RegionError>>;

impl Bench {
    fn new() -> Bench {
        let engine = Arc::new(MemEngine::new());
        let mut bench = Bench { applier: Applier::new(engine.clone()), engine, next: START };
        bench.open(region(REGION, "b", "y"));
        bench.next = START + 1;
        bench
    }

    /// Opens a region that nothing has happened to.
    fn open(&mut self, region: metapb::Region) {
        let state = ApplyState::initial(LogIndex(START), Term(START));
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raft, Key::ApplyState(region.id.into()).encode(), state.encode());
        self.engine.write(&batch).expect("write");
        self.register(region, state).expect("register");
    }

    fn register(&mut self, region: metapb::Region, state: ApplyState) -> Result<(), ApplyError> {
        let task = ApplyTask::Register { region, peer: PeerId::from(1), state };
        self.applier.handle(vec![task]).map(|_| ())
    }

    /// The same disk under a new process, after everything not synced is lost but the first `keep` batches.
    fn crash(&self, keep: usize) -> Bench {
        let engine = Arc::new(self.engine.crash(keep));
        let mut bench = Bench { applier: Applier::new(engine.clone()), engine, next: 0 };
        let key = Key::ApplyState(REGION.into()).encode();
        let stored = bench.engine.get(Cf::Raft, &key).expect("get").expect("a state");
        let state = ApplyState::decode(&stored).expect("well-formed");
        bench.register(region(REGION, "b", "y"), state).expect("register");
        bench.next = state.applied_index.0 + 1;
        bench
    }

    fn entry(&mut self, data: Bytes) -> Entry {
        let index = LogIndex(self.next);
        self.next += 1;
        Entry { index, term: Term(6), data, ..Entry::default() }
    }

    fn handle(&mut self, entries: Vec<Entry>, proposals: Vec<Proposal>) -> ApplyTurn {
        let region = RegionId::from(REGION);
        let task = ApplyTask::Committed { region, entries, proposals };
        self.applier.handle(vec![task]).expect("apply")
    }

    /// Applies one entry of `requests` and returns the outcomes.
    fn write(&mut self, requests: Vec<Request>) -> Vec<Result<WriteResult, RegionError>> {
        self.write_at(EPOCH, requests)
    }

    fn write_at(
        &mut self,
        epoch: Epoch,
        requests: Vec<Request>,
    ) -> Vec<Result<WriteResult, RegionError>> {
        let (replies, outcomes): (Vec<_>, Vec<_>) = requests.iter().map(|_| reply()).unzip();
        let entry = self.entry(Command::Write { epoch, requests }.encode());
        let proposal = Proposal { index: entry.index, term: entry.term, replies };
        let turn = self.handle(vec![entry], vec![proposal]);
        turn.replies.into_iter().for_each(|(reply, outcome)| reply.send(outcome));
        outcomes.iter().map(|outcome| outcome.try_recv().expect("answered")).collect()
    }

    fn one(&mut self, request: Request) -> WriteResult {
        let outcome = self.write(vec![request]).pop().expect("one reply");
        outcome.expect("no region error")
    }

    /// Writes past the applier, as another region would.
    fn put_raw(&self, key: &str, value: &'static str) {
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, keys::raw(RawCf::Default, key.as_bytes()), value);
        self.engine.write(&batch).expect("write");
    }

    fn get(&self, key: &str) -> Option<String> {
        let value = self.engine.get(Cf::Raw, &keys::raw(RawCf::Default, key.as_bytes()));
        value.expect("get").map(|v| String::from_utf8(v.to_vec()).expect("text"))
    }

    fn state(&self) -> ApplyState {
        *self.applier.state(REGION.into()).expect("registered")
    }
}

fn reply() -> (Reply<WriteResult>, Outcome) {
    let (sender, receiver) = channel();
    (Reply::new(move |outcome| drop(sender.send(outcome))), receiver)
}

fn put(key: &'static str, value: &'static str) -> Mutation {
    Mutation::Put { cf: RawCf::Default, key: key.into(), value: value.into() }
}

fn append(key: &'static str, value: &'static str) -> Mutation {
    Mutation::Append { cf: RawCf::Default, key: key.into(), value: value.into() }
}

fn delete_range(start: &'static str, end: &'static str) -> Mutation {
    Mutation::DeleteRange { cf: RawCf::Default, start: start.into(), end: end.into() }
}

fn mutate(mutations: Vec<Mutation>) -> Request {
    Request::Mutate { mutations, session: None }
}

fn once(client: u64, sequence: u64, mutation: Mutation) -> Request {
    let session = Some(Session { client: ClientId(client), sequence });
    Request::Mutate { mutations: vec![mutation], session }
}

fn open_session(client: u64) -> Request {
    Request::OpenSession { client: ClientId(client) }
}

#[test]
fn requests_are_applied_in_order_and_answered_one_by_one() {
    let mut bench = Bench::new();
    let outcomes = bench.write(vec![
        mutate(vec![put("k", "1"), put("l", "1")]),
        mutate(vec![append("k", "2")]),
        mutate(vec![Mutation::Delete { cf: RawCf::Default, key: "l".into() }]),
    ]);
    let applied = || Ok(WriteResult::Applied);
    assert_eq!(outcomes, [applied(), Ok(WriteResult::Appended { value_bytes: 2 }), applied()]);
    assert_eq!((bench.get("k").as_deref(), bench.get("l")), (Some("12"), None));
    assert_eq!(bench.state().applied_index, LogIndex(START + 1));
    assert_eq!(bench.state().applied_term, Term(6));
}

#[test]
fn column_families_are_apart() {
    let mut bench = Bench::new();
    let lock = Mutation::Put { cf: RawCf::Lock, key: "k".into(), value: "lock".into() };
    bench.one(mutate(vec![put("k", "default"), lock, delete_range("", "")]));
    assert_eq!(bench.get("k"), None);
    let stored = bench.engine.get(Cf::Raw, &keys::raw(RawCf::Lock, b"k")).expect("get");
    assert_eq!(stored.as_deref(), Some(&b"lock"[..]));
}

#[test]
fn one_engine_write_serves_all_regions_and_holds_their_positions() {
    let mut bench = Bench::new();
    bench.open(region(9, "y", ""));
    let before = bench.engine.counters().writes;
    let command =
        |key| Command::Write { epoch: EPOCH, requests: vec![mutate(vec![put(key, "v")])] };
    let entry = |key| Entry {
        index: LogIndex(START + 1),
        term: Term(6),
        data: command(key).encode(),
        ..Entry::default()
    };
    let committed = |region: u64, key| ApplyTask::Committed {
        region: region.into(),
        entries: vec![entry(key)],
        proposals: Vec::new(),
    };
    let turn = bench.applier.handle(vec![committed(REGION, "k"), committed(9, "z")]);
    let turn = turn.expect("apply");
    assert_eq!(turn.results.iter().map(|r| r.region.get()).collect::<Vec<_>>(), [REGION, 9]);
    assert_eq!(bench.engine.counters().writes, before + 1);
    assert_eq!(bench.get("k"), bench.get("z"));
    for id in [REGION, 9] {
        let key = Key::ApplyState(id.into()).encode();
        let stored = bench.engine.get(Cf::Raft, &key).expect("get").expect("stored");
        assert_eq!(ApplyState::decode(&stored).as_ref(), bench.applier.state(id.into()));
    }
}

#[test]
fn a_write_of_another_epoch_changes_nothing_and_says_why() {
    let mut bench = Bench::new();
    let stale = Epoch { conf_ver: 1, version: 7 };
    let outcomes = bench.write_at(stale, vec![mutate(vec![put("k", "v")]), open_session(1)]);
    let current = vec![region(REGION, "b", "y")];
    let expected = RegionError::EpochNotMatch { current };
    assert_eq!(outcomes, [Err(expected.clone()), Err(expected)]);
    assert_eq!(bench.get("k"), None);
    assert_eq!(
        bench.one(once(1, 1, put("k", "v"))),
        WriteResult::SessionExpired { client: ClientId(1) }
    );
    // The membership alone may differ: it says nothing about the range.
    let other_members = Epoch { conf_ver: 9, version: 1 };
    let outcomes = bench.write_at(other_members, vec![mutate(vec![put("k", "v")])]);
    assert_eq!(outcomes, [Ok(WriteResult::Applied)]);
}

#[test]
fn a_range_deletion_stays_inside_the_region() {
    let mut bench = Bench::new();
    let mut batch = WriteBatch::new();
    for key in ["a", "b", "k", "x", "y", "z"] {
        batch.put(Cf::Raw, keys::raw(RawCf::Default, key.as_bytes()), "v");
    }
    bench.engine.write(&batch).expect("write");
    bench.one(mutate(vec![delete_range("c", "l")]));
    let left = |bench: &Bench| {
        ["a", "b", "k", "x", "y", "z"].into_iter().filter(|k| bench.get(k).is_some()).collect()
    };
    let expected: Vec<&str> = left(&bench);
    assert_eq!(expected, ["a", "b", "x", "y", "z"]);
    bench.one(mutate(vec![delete_range("", "")]));
    let expected: Vec<&str> = left(&bench);
    assert_eq!(expected, ["a", "y", "z"], "neighbours keep theirs");
    bench.one(mutate(vec![delete_range("x", "c")]));
}

#[test]
fn a_refused_request_changes_nothing_and_the_others_stand() {
    let mut bench = Bench::new();
    let huge = Mutation::Put {
        cf: RawCf::Default,
        key: "k".into(),
        value: vec![b'v'; VALUE_BYTES_MAX].into(),
    };
    let outcomes = bench.write(vec![
        mutate(vec![huge]),
        mutate(vec![put("l", "no"), append("k", "+")]),
        mutate(vec![put("m", "yes")]),
    ]);
    assert!(
        matches!(&outcomes[1], Ok(WriteResult::Refused { reason }) if reason.contains("limit"))
    );
    assert_eq!((bench.get("l"), bench.get("m").as_deref()), (None, Some("yes")));
}

#[test]
fn a_retried_request_is_applied_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.one(open_session(7)), WriteResult::Applied);
    let length = |value_bytes| WriteResult::Appended { value_bytes };
    assert_eq!(bench.one(once(7, 1, append("k", "ab"))), length(2));
    assert_eq!(bench.one(once(7, 1, append("k", "ab"))), length(2), "the stored reply");
    // Both tries in one entry.
    let twice = bench.write(vec![once(7, 2, append("k", "cd")), once(7, 2, append("k", "cd"))]);
    assert_eq!(twice, [Ok(length(4)), Ok(length(4))]);
    assert_eq!(bench.get("k").as_deref(), Some("abcd"));
    let stale = WriteResult::StaleSequence { last: 2 };
    assert_eq!(bench.one(once(7, 1, append("k", "ab"))), stale);
    // Opening again does not forget.
    assert_eq!(bench.one(open_session(7)), WriteResult::Applied);
    assert_eq!(bench.one(once(7, 2, append("k", "cd"))), length(4));
    assert_eq!(bench.get("k").as_deref(), Some("abcd"));
}

#[test]
fn sessions_and_the_digest_survive_a_restart() {
    let mut bench = Bench::new();
    bench.one(open_session(7));
    bench.one(once(7, 1, append("k", "ab")));
    let mut restarted = bench.crash(usize::MAX);
    assert_eq!(restarted.state(), bench.state());
    let length = WriteResult::Appended { value_bytes: 2 };
    assert_eq!(restarted.one(once(7, 1, append("k", "ab"))), length);
    assert_eq!(restarted.get("k").as_deref(), Some("ab"));
}

#[test]
fn after_a_crash_at_any_batch_the_log_is_applied_again_to_the_same_state() {
    let mut bench = Bench::new();
    bench.engine.sync().expect("sync");
    let mut log = Vec::new();
    for request in [
        open_session(7),
        mutate(vec![put("k", "0")]),
        once(7, 1, append("k", "1")),
        mutate(vec![append("k", "2"), put("l", "x")]),
        once(7, 1, append("k", "1")),
        mutate(vec![delete_range("l", "m")]),
    ] {
        let entry = bench.entry(Command::Write { epoch: EPOCH, requests: vec![request] }.encode());
        log.push(entry.clone());
        bench.handle(vec![entry], Vec::new());
    }
    assert_eq!(bench.get("k").as_deref(), Some("012"));
    for keep in 0..=log.len() {
        let mut after = bench.engine_copy().crash(keep);
        let from = (after.next - START - 1) as usize;
        assert_eq!(from, keep, "one batch for each entry");
        if from < log.len() {
            after.handle(log[from..].to_vec(), Vec::new());
        }
        assert_eq!(after.state(), bench.state());
        assert_eq!((after.get("k"), after.get("l")), (bench.get("k"), bench.get("l")));
    }
}

impl Bench {
    /// A second process image that can be crashed without ending this one: replays onto a copy of what is durable.
    fn engine_copy(&self) -> Bench {
        let durable = Arc::new(self.engine.fork());
        let mut copy = Bench { applier: Applier::new(durable.clone()), engine: durable, next: 0 };
        let state = ApplyState::initial(LogIndex(START), Term(START));
        copy.register(region(REGION, "b", "y"), state).expect("register");
        copy.next = START + 1;
        for request in [
            open_session(7),
            mutate(vec![put("k", "0")]),
            once(7, 1, append("k", "1")),
            mutate(vec![append("k", "2"), put("l", "x")]),
            once(7, 1, append("k", "1")),
            mutate(vec![delete_range("l", "m")]),
        ] {
            copy.one(request);
        }
        copy
    }
}

#[test]
fn a_reply_belongs_to_its_index_and_term() {
    let mut bench = Bench::new();
    let command = Command::Write { epoch: EPOCH, requests: vec![mutate(vec![put("k", "v")])] };
    let first = bench.entry(command.clone().encode());
    let second = bench.entry(command.encode());
    let proposal = |index, term| {
        let (reply, outcome) = reply();
        (Proposal { index, term: Term(term), replies: vec![reply] }, outcome)
    };
    let (overtaken, lost) = proposal(first.index, 5);
    let (kept, won) = proposal(second.index, 6);
    let turn = bench.handle(vec![first, second], vec![overtaken, kept]);
    assert_eq!(lost.try_recv(), Ok(Err(RegionError::StaleCommand)), "another term's entry");
    assert!(won.try_recv().is_err(), "not before the turn is handed out");
    turn.replies.into_iter().for_each(|(reply, outcome)| reply.send(outcome));
    assert_eq!(won.try_recv(), Ok(Ok(WriteResult::Applied)));
}

#[test]
fn empty_entries_move_the_position_and_conf_changes_are_reported() {
    let mut bench = Bench::new();
    let empty = bench.entry(Bytes::new());
    let change = Entry { kind: EntryKind::ConfChangeV2, ..bench.entry(Bytes::new()) };
    let turn = bench.handle(vec![empty, change.clone()], Vec::new());
    let result = &turn.results[0];
    assert_eq!(result.applied_index, change.index);
    assert_eq!(result.effects, [Effect::ConfChange { entry: change, region: None }]);
}

#[test]
fn compaction_moves_the_truncated_position_forward_only() {
    let mut bench = Bench::new();
    let compact = |index| Command::CompactLog { index: LogIndex(index), term: Term(6) }.encode();
    bench.one(mutate(vec![put("k", "v")]));
    bench.one(mutate(vec![put("k", "w")]));
    let entries = vec![bench.entry(compact(START + 2)), bench.entry(compact(START + 1))];
    let turn = bench.handle(entries, Vec::new());
    let effect = Effect::CompactLog { index: LogIndex(START + 2), term: Term(6) };
    assert_eq!(turn.results[0].effects, [effect]);
    assert_eq!(bench.state().truncated_index, LogIndex(START + 2));
}

#[test]
fn a_snapshot_is_the_state_at_its_index() {
    let mut bench = Bench::new();
    let region_id = RegionId::from(REGION);
    let mut committed = |key| {
        let requests = vec![mutate(vec![put(key, "v")])];
        let entry = bench.entry(Command::Write { epoch: EPOCH, requests }.encode());
        ApplyTask::Committed { region: region_id, entries: vec![entry], proposals: Vec::new() }
    };
    let (before, after) = (committed("k"), committed("l"));
    let ask = ApplyTask::Snapshot { region: region_id, to: PeerId::from(3) };
    let turn = bench.applier.handle(vec![before, ask, after]).expect("apply");
    let [ready] = turn.snapshots.as_slice() else { panic!("one snapshot") };
    assert_eq!((ready.to, ready.meta.index), (PeerId::from(3), LogIndex(START + 1)));
    assert_eq!(ready.meta.conf_state, ConfState::simple([1, 2, 3], []));
    let has = |key: &str| {
        let key = keys::raw(RawCf::Default, key.as_bytes());
        ready.engine.get(Cf::Raw, &key).expect("get").is_some()
    };
    assert!(has("k") && !has("l"));
    let gone = ApplyTask::Snapshot { region: 77.into(), to: PeerId::from(3) };
    assert!(bench.applier.handle(vec![gone]).expect("apply").snapshots.is_empty());
}

#[test]
fn what_is_not_understood_stops_the_applier() {
    let mut bench = Bench::new();
    let entry = bench.entry(Bytes::from_static(b"\xff\xff"));
    let task =
        ApplyTask::Committed { region: REGION.into(), entries: vec![entry], proposals: Vec::new() };
    let error = bench.applier.handle(vec![task]).expect_err("must stop");
    assert!(matches!(error, ApplyError::UnknownEntry { index: LogIndex(6), .. }), "{error}");
}

#[test]
fn a_failing_engine_stops_the_applier_and_nobody_is_answered() {
    let mut bench = Bench::new();
    bench.engine.fail_next_write("no space");
    let requests = vec![mutate(vec![put("k", "v")])];
    let entry = bench.entry(Command::Write { epoch: EPOCH, requests }.encode());
    let (reply, outcome) = reply();
    let proposal = Proposal { index: entry.index, term: entry.term, replies: vec![reply] };
    let region = RegionId::from(REGION);
    let task = ApplyTask::Committed { region, entries: vec![entry], proposals: vec![proposal] };
    let error = bench.applier.handle(vec![task]).expect_err("must stop");
    assert!(matches!(error, ApplyError::Engine(_)), "{error}");
    // The reply was dropped with the turn: an open outcome, never a verdict.
    assert_eq!(outcome.try_recv(), Ok(Err(RegionError::StaleCommand)));
}

/// A leader orders a snapshot, steps down, and installs one itself before the applier gets to the order.
#[test]
fn an_order_for_a_snapshot_that_an_installation_has_overtaken_is_dropped() {
    let mut bench = Bench::new();
    let installed = ApplyState::initial(LogIndex(START + 100), Term(START + 1));
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, Key::ApplyState(REGION.into()).encode(), installed.encode());
    bench.engine.write(&batch).expect("write");
    let order = ApplyTask::Snapshot { region: REGION.into(), to: PeerId::from(3) };
    let turn = bench.applier.handle(vec![order]).expect("nothing is wrong");
    assert!(turn.snapshots.is_empty(), "it would not be what was ordered");
    bench.register(region(REGION, "b", "y"), installed).expect("the installed state is taken over");
}

#[test]
fn a_region_is_registered_only_where_the_engine_says_it_stands() {
    let mut bench = Bench::new();
    let ahead = ApplyState::initial(LogIndex(99), Term(9));
    let error = bench.register(region(REGION, "b", "y"), ahead).expect_err("must stop");
    assert!(matches!(error, ApplyError::WrongState { .. }), "{error}");
}

#[test]
#[should_panic(expected = "applied once, in order")]
fn an_entry_is_never_applied_twice() {
    let mut bench = Bench::new();
    let entry = bench.entry(Bytes::new());
    bench.handle(vec![entry.clone()], Vec::new());
    bench.handle(vec![entry], Vec::new());
}

#[test]
fn the_same_log_gives_the_same_digest_however_it_is_cut() {
    let (mut single, mut bulk) = (Bench::new(), Bench::new());
    let mut log = Vec::new();
    for at in 0..40 {
        let mutation = if at % 3 == 0 { append("k", "x") } else { put("l", "y") };
        let requests = vec![mutate(vec![mutation]), open_session(at % 5)];
        log.push(single.entry(Command::Write { epoch: EPOCH, requests }.encode()));
    }
    for entry in log.clone() {
        single.handle(vec![entry], Vec::new());
    }
    bulk.handle(log, Vec::new());
    assert_eq!(single.state(), bulk.state());
    assert_ne!(single.state().state_hash, 0);
}

//! Snapshots from one engine to another, through everything that can go wrong on the way.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Cf, Engine, KeyRange, WriteBatch};
use prost::Message;
use proto::flotillapb;
use proto::flotillapb::snapshot_chunk::{Data, Footer, Part};
use proto::ids::{PeerId, RegionId};
use proto::raft_serverpb::RaftMessage;
use proto::{eraftpb, metapb};
use raft::{ConfState, LogIndex, Term};

use super::*;
use crate::apply::{ApplyState, SnapshotMeta, SnapshotReady};
use crate::command::{ClientId, WriteResult};
use crate::keys::{self, Key, RawCf};

mod hostile;

const REGION: u64 = 2;
const HASH: u64 = 0xfeed;

fn region() -> metapb::Region {
    let peer = |id| metapb::Peer { id, store_id: id, ..Default::default() };
    metapb::Region {
        id: REGION,
        start_key: Bytes::from_static(b"b"),
        end_key: Bytes::from_static(b"y"),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: vec![peer(1), peer(2), peer(3)],
    }
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        index: LogIndex(90),
        term: Term(7),
        conf_state: ConfState::simple([1, 2, 3], []),
        region: region(),
        state_hash: HASH,
    }
}

/// An engine with data of the region, of its neighbours and of another region's sessions.
fn sender(keys_count: u32, value: &[u8]) -> MemEngine {
    let engine = MemEngine::new();
    let mut batch = WriteBatch::new();
    let mut put = |cf, key: &[u8]| {
        batch.put(Cf::Raw, keys::raw(cf, key), Bytes::copy_from_slice(value));
    };
    for number in 0..keys_count {
        put(RawCf::Default, format!("k{number:08}").as_bytes());
    }
    put(RawCf::Lock, b"k");
    put(RawCf::Write, b"x");
    put(RawCf::Default, b"a");
    put(RawCf::Default, b"y");
    for (region, client) in [(REGION, 1), (REGION, 2), (REGION + 1, 1)] {
        batch.put(Cf::Raft, Key::Session(region.into(), ClientId(client)).encode(), session());
    }
    engine.write(&batch).expect("write");
    engine
}

fn session() -> Vec<u8> {
    let record = flotillapb::SessionRecord {
        sequence: 3,
        reply: Some(WriteResult::Applied.into()),
        last_used_index: 70,
    };
    record.encode_to_vec()
}

fn ready(engine: &MemEngine) -> SnapshotReady {
    SnapshotReady {
        region: REGION.into(),
        to: PeerId::from(3),
        meta: meta(),
        engine: engine.snapshot(),
    }
}

fn parts(engine: &MemEngine) -> Vec<Part> {
    let mut source = SnapshotSource::new(ready(engine));
    std::iter::from_fn(|| source.next_part().expect("engine")).collect()
}

fn header() -> RaftMessage {
    let metadata = eraftpb::SnapshotMetadata { index: 90, term: 7, ..Default::default() };
    let snapshot = eraftpb::Snapshot { data: encode_meta(&meta()), metadata: Some(metadata) };
    RaftMessage {
        region_id: REGION,
        message: Some(eraftpb::Message { snapshot: Some(snapshot), ..Default::default() }),
        ..Default::default()
    }
}

fn receive(files: &MemFiles, parts: Vec<Part>) -> Result<ReceivedSnapshot, ReceiveError> {
    let files: Arc<dyn SnapshotFiles> = Arc::new(files.clone());
    let mut receiver = SnapshotReceiver::begin(files, ReceiveLimits::default(), &header())?;
    for part in parts {
        if let Some(received) = receiver.take(part)? {
            return Ok(received);
        }
    }
    panic!("the stream ended without a footer");
}

/// Everything an engine holds.
fn dump(engine: &dyn Engine) -> Vec<(Cf, Bytes, Bytes)> {
    let snapshot = engine.snapshot();
    let mut pairs = Vec::new();
    for cf in Cf::ALL {
        let mut iter = snapshot.iter(cf, KeyRange::all());
        let mut more = iter.seek_to_first().expect("engine");
        while more {
            let copy = Bytes::copy_from_slice;
            pairs.push((cf, copy(iter.key()), copy(iter.value())));
            more = iter.next().expect("engine");
        }
    }
    pairs
}

/// A follower's engine, with old data of the region and the marker of `file`, durable.
fn follower(file: ReceivedSnapshot) -> (MemEngine, SnapshotInstall) {
    let engine = MemEngine::new();
    let mut batch = WriteBatch::new();
    for key in ["a", "b", "old", "x", "y"] {
        batch.put(Cf::Raw, keys::raw(RawCf::Default, key.as_bytes()), "old");
        batch.put(Cf::Raw, keys::raw(RawCf::Lock, key.as_bytes()), "old");
    }
    batch.put(Cf::Raft, Key::Session(REGION.into(), ClientId(9)).encode(), "old session");
    batch.put(Cf::Raft, Key::Session((REGION + 1).into(), ClientId(9)).encode(), "neighbour's");
    let (peer, merged) = (meta().region.peers[0], Vec::new());
    let install = SnapshotInstall { region: REGION.into(), peer, meta: meta(), file, merged };
    put_marker(&install, &mut batch);
    engine.write(&batch).expect("write");
    engine.sync().expect("sync");
    (engine, install)
}

fn value(engine: &dyn Engine, cf: RawCf, key: &str) -> Option<Bytes> {
    engine.get(Cf::Raw, &keys::raw(cf, key.as_bytes())).expect("get")
}

fn check_installed(engine: &dyn Engine) {
    let region = RegionId::from(REGION);
    for key in ["b", "old", "x"] {
        assert_eq!(value(engine, RawCf::Default, key), None, "{key} is not in the snapshot");
    }
    for key in ["a", "y"] {
        let neighbour = value(engine, RawCf::Default, key);
        assert_eq!(neighbour.as_deref(), Some(&b"old"[..]), "{key} is a neighbour's");
    }
    assert_eq!(value(engine, RawCf::Default, "k00000002").as_deref(), Some(&b"new"[..]));
    assert_eq!(value(engine, RawCf::Write, "x").as_deref(), Some(&b"new"[..]));
    let get = |key: Key| engine.get(Cf::Raft, &key.encode()).expect("get");
    assert!(get(Key::Session(region, ClientId(1))).is_some());
    assert_eq!(get(Key::Session(region, ClientId(9))), None);
    assert!(get(Key::Session((REGION + 1).into(), ClientId(9))).is_some());
    assert_eq!(get(Key::PendingSnapshot(region)), None);
    assert!(get(Key::RegionState(region)).is_some());
    let state = get(Key::ApplyState(region)).and_then(|bytes| ApplyState::decode(&bytes));
    let expected = ApplyState { state_hash: HASH, ..ApplyState::initial(LogIndex(90), Term(7)) };
    assert_eq!(state, Some(expected));
}

#[test]
fn a_snapshot_arrives_as_it_was() {
    let files = MemFiles::new();
    let received = receive(&files, parts(&sender(5, b"new"))).expect("received");
    assert_eq!(received.pairs, 1 + 2 + 5 + 2, "apply state, sessions, data");
    let (engine, install) = follower(received);
    let state = super::install(&engine, &files, &install).expect("installed");
    assert_eq!((state.applied_index, state.truncated_index), (LogIndex(90), LogIndex(90)));
    check_installed(&engine);
    check_installed(&engine.crash(0));
    assert_eq!(files.list().expect("list"), []);
}

#[test]
fn content_is_cut_into_chunks_of_bounded_size() {
    let engine = sender(300, &[b'v'; 9000]);
    let parts = parts(&engine);
    let sizes: Vec<usize> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Data(data) => Some(data.data.len()),
            _ => None,
        })
        .collect();
    let (last, full) = sizes.split_last().expect("chunks");
    assert!(full.len() >= 5 && full.iter().all(|size| *size == SNAPSHOT_CHUNK_BYTES));
    assert!((1..=SNAPSHOT_CHUNK_BYTES).contains(last));
    let files = MemFiles::new();
    let received = receive(&files, parts).expect("received");
    assert_eq!(received.pairs, 1 + 2 + 300 + 2);
}

#[test]
fn a_value_larger_than_a_chunk_passes() {
    let engine = sender(1, &[b'v'; 3 << 20]);
    let files = MemFiles::new();
    assert_eq!(receive(&files, parts(&engine)).expect("received").pairs, 1 + 2 + 1 + 2);
}

#[test]
fn what_is_wrong_with_a_stream_is_refused_and_leaves_no_file() {
    let good = parts(&sender(200, &[b'v'; 9000]));
    assert!(good.len() > 4);
    let edit = |change: &dyn Fn(&mut Vec<Part>)| {
        let (files, mut parts) = (MemFiles::new(), good.clone());
        change(&mut parts);
        let error = receive(&files, parts).expect_err("must be refused");
        assert_eq!(files.list().expect("list"), [], "{error}");
        error
    };
    let data = |part: &mut Part, change: &dyn Fn(&mut Data)| match part {
        Part::Data(data) => change(data),
        _ => panic!("not a chunk"),
    };
    let last = good.len() - 1;

    let swapped = edit(&|parts| parts.swap(0, 1));
    assert!(matches!(swapped, ReceiveError::Order { expected: 0, found: 1 }));
    let missing = edit(&|parts| drop(parts.remove(1)));
    assert!(matches!(missing, ReceiveError::Order { expected: 1, found: 2 }));
    let damaged = edit(&|parts| {
        data(&mut parts[1], &|data| {
            let mut bytes = data.data.to_vec();
            bytes[77] ^= 1;
            data.data = bytes.into();
        });
    });
    assert!(matches!(damaged, ReceiveError::ChunkDamaged(1)));
    let empty = edit(&|parts| data(&mut parts[0], &|data| data.data = Bytes::new()));
    assert!(matches!(empty, ReceiveError::ChunkSize(0)));
    let long = edit(&|parts| data(&mut parts[0], &|data| data.data = vec![0; 2 << 20].into()));
    assert!(matches!(long, ReceiveError::ChunkSize(_)));
    let early = edit(&|parts| drop(parts.drain(1..last)));
    assert!(matches!(early, ReceiveError::Footer));
    let wrong = edit(&|parts| {
        let Some(Part::Footer(footer)) = parts.last_mut() else { panic!("no footer") };
        footer.crc32 ^= 1;
    });
    assert!(matches!(wrong, ReceiveError::Footer));
    let header_again = edit(&|parts| parts[1] = Part::Header(Default::default()));
    assert!(matches!(header_again, ReceiveError::OutOfPlace));
}

#[test]
fn a_stream_that_breaks_off_leaves_no_file() {
    let files = MemFiles::new();
    let shared: Arc<dyn SnapshotFiles> = Arc::new(files.clone());
    let mut receiver =
        SnapshotReceiver::begin(shared, ReceiveLimits::default(), &header()).expect("begin");
    let first = parts(&sender(5, b"new")).remove(0);
    assert_eq!(receiver.take(first).expect("chunk"), None);
    assert_eq!(files.list().expect("list").len(), 1);
    drop(receiver);
    assert_eq!(files.list().expect("list"), []);
}

/// Builds a stream with honest checksums around dishonest content.
fn forged(content: &[u8]) -> Vec<Part> {
    let crc32 = crc32fast::hash(content);
    let data = Data { sequence: 0, data: Bytes::copy_from_slice(content), crc32 };
    vec![Part::Data(data), Part::Footer(Footer { chunks: 1, bytes: content.len() as u64, crc32 })]
}

fn content(records: &[(Cf, Bytes, &[u8])]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    for (cf, key, value) in records {
        records::put(&mut out, *cf, key, value);
    }
    out.to_vec()
}

fn state_record(index: u64) -> (Cf, Bytes, Vec<u8>) {
    let state = ApplyState { state_hash: HASH, ..ApplyState::initial(LogIndex(index), Term(7)) };
    (Cf::Raft, Key::ApplyState(REGION.into()).encode(), state.encode())
}

#[test]
fn content_that_does_not_belong_is_refused() {
    let (cf, key, state) = state_record(90);
    let first = (cf, key, &state[..]);
    let raw = |tag, key: &[u8]| (Cf::Raw, keys::raw(tag, key), &b"v"[..]);
    let d = RawCf::Default;
    let refuse = |records: &[(Cf, Bytes, &[u8])]| {
        let error = receive(&MemFiles::new(), forged(&content(records)));
        error.expect_err("must be refused").to_string()
    };
    let misplaced = "out of place";
    assert!(refuse(&[first.clone(), raw(d, b"a")]).contains(misplaced), "before the region");
    assert!(refuse(&[first.clone(), raw(d, b"y")]).contains(misplaced), "after the region");
    assert!(refuse(&[first.clone(), raw(d, b"l"), raw(d, b"k")]).contains(misplaced), "order");
    assert!(refuse(&[first.clone(), raw(d, b"k"), raw(d, b"k")]).contains(misplaced), "twice");
    let record = session();
    let of =
        |client| (Cf::Raft, Key::Session(REGION.into(), ClientId(client)).encode(), &record[..]);
    assert!(refuse(&[first.clone(), raw(d, b"k"), of(1)]).contains(misplaced), "sessions late");
    let broken = (Cf::Raft, of(1).1, &b"s"[..]);
    assert!(refuse(&[first.clone(), broken]).contains("session"), "an unreadable session");
    let too_many: Vec<_> = [first.clone()].into_iter().chain((0..=4096).map(of)).collect();
    assert!(refuse(&too_many).contains("more than 4096 sessions"));
    let ident = (Cf::Raft, Key::StoreIdent.encode(), &b"evil"[..]);
    assert!(refuse(&[first.clone(), ident]).contains(misplaced), "a record of the store");
    let other = (Cf::Raft, Key::Session(9.into(), ClientId(1)).encode(), &b"s"[..]);
    assert!(refuse(&[first.clone(), other]).contains(misplaced), "another region's session");

    let wrong_state = "apply state";
    assert!(refuse(&[raw(d, b"k")]).contains(wrong_state), "no apply state");
    let (cf, key, later) = state_record(91);
    assert!(refuse(&[(cf, key, &later[..])]).contains(wrong_state), "another index");

    let mut cut = content(&[first.clone(), raw(d, b"k")]);
    cut.pop();
    let error = receive(&MemFiles::new(), forged(&cut)).expect_err("must be refused");
    assert!(error.to_string().contains("inside a record"), "{error}");
    let mut huge = content(&[first]);
    huge.extend_from_slice(&[3, 0xff, 0xff, 0xff, 0xff]);
    let error = receive(&MemFiles::new(), forged(&huge)).expect_err("must be refused");
    assert!(error.to_string().contains("malformed record"), "{error}");
}

#[test]
fn a_header_must_announce_one_snapshot() {
    let begin = |message: &RaftMessage| {
        let files: Arc<dyn SnapshotFiles> = Arc::new(MemFiles::new());
        SnapshotReceiver::begin(files, ReceiveLimits::default(), message).map(|_| ())
    };
    assert!(begin(&header()).is_ok());
    assert!(matches!(begin(&RaftMessage::default()), Err(ReceiveError::Header(_))));
    let other = RaftMessage { region_id: REGION + 1, ..header() };
    assert!(matches!(begin(&other), Err(ReceiveError::Header("it names two regions"))));
    let change = |change: &dyn Fn(&mut eraftpb::Snapshot)| {
        let mut message = header();
        let raft = message.message.as_mut().expect("a message");
        change(raft.snapshot.as_mut().expect("a snapshot"));
        begin(&message).expect_err("must be refused")
    };
    let index = change(&|s| s.metadata.as_mut().expect("metadata").index = 91);
    assert!(matches!(index, ReceiveError::Header("it names two positions")));
    let garbage = change(&|s| s.data = Bytes::from_static(b"\xff\xff"));
    assert!(matches!(garbage, ReceiveError::Meta(MetaError::Malformed(_))));
    let empty = change(&|s| s.data = Bytes::new());
    assert!(matches!(empty, ReceiveError::Meta(MetaError::Version(0))));
}

#[test]
fn more_than_the_limit_is_refused() {
    let files: Arc<dyn SnapshotFiles> = Arc::new(MemFiles::new());
    let limits = ReceiveLimits { content_bytes_max: 10 };
    let mut receiver = SnapshotReceiver::begin(files, limits, &header()).expect("begin");
    let error = receiver.take(parts(&sender(5, b"new")).remove(0)).expect_err("too much");
    assert!(matches!(error, ReceiveError::TooLarge(10)));
}

#[test]
fn a_disk_that_refuses_ends_the_stream_and_keeps_the_place_clean() {
    for at in 0..6 {
        let files = MemFiles::new();
        let shared: Arc<dyn SnapshotFiles> = Arc::new(files.clone());
        let mut stream = parts(&sender(5, b"new")).into_iter();
        let (chunk, footer) = (stream.next().expect("chunk"), stream.next().expect("footer"));
        let fail = |step| {
            if step == at {
                files.fail_next(ErrorKind::StorageFull);
            }
        };
        fail(0);
        let begun = SnapshotReceiver::begin(shared, ReceiveLimits::default(), &header());
        let Ok(mut receiver) = begun else { continue };
        fail(1);
        let taken = receiver.take(chunk);
        fail(2);
        let finished = receiver.take(footer);
        let failed = taken.is_err() || finished.is_err();
        assert_eq!(failed, at < 3, "step {at}");
        drop(receiver);
        assert_eq!(files.list().expect("list").is_empty(), failed);
    }
}

#[test]
fn a_damaged_file_is_never_installed() {
    let files = MemFiles::new();
    let received = receive(&files, parts(&sender(5, b"new"))).expect("received");
    let (size, id) = (files.size_bytes(received.id).expect("a file"), received.id);
    let (engine, install) = follower(received);
    let before = dump(&engine);
    for offset in 0..size {
        files.damage(id, offset);
        let error = super::install(&engine, &files, &install).expect_err("must be refused");
        assert!(matches!(error, InstallError::File { .. }), "byte {offset}: {error}");
        files.damage(id, offset);
    }
    let whole = files.clone();
    for length in 0..size {
        let cut = whole.crash(false);
        cut.truncate(id, length);
        let error = super::install(&engine, &cut, &install).expect_err("must be refused");
        assert!(matches!(error, InstallError::File { .. }), "{length} bytes: {error}");
    }
    assert_eq!(dump(&engine), before, "nothing was touched");
    super::install(&engine, &files, &install).expect("undamaged again");
    check_installed(&engine);
}

/// Power is lost after every engine operation of an installation, with every number of unsynced batches kept; what is left
/// is finished when the store opens.
#[test]
fn an_installation_survives_a_crash_at_every_step() {
    let spooled = MemFiles::new();
    let received = receive(&spooled, parts(&sender(5, b"new"))).expect("received");
    let mut crashes = 0;
    for step in 0.. {
        let files = spooled.crash(false);
        let (engine, install) = follower(received.clone());
        let disk = Breaking::new(engine, step);
        let outcome = super::install(&disk, &files, &install);
        let unsynced = disk.engine.unsynced_batches();
        for keep in 0..=unsynced {
            let after: Arc<dyn Engine> = Arc::new(disk.fork_and_crash(keep));
            let files = files.crash(false);
            finish_pending(&after, &files).expect("finished");
            check_installed(after.as_ref());
            assert_eq!(files.list().expect("list"), [], "no orphan");
            let again = finish_pending(&after, &files).expect("nothing to do");
            assert_eq!(again, []);
            crashes += 1;
        }
        if outcome.is_ok() {
            break;
        }
    }
    assert!(crashes > 5, "{crashes} crashes");
}

#[test]
fn an_installation_twice_is_the_same_as_once() {
    let files = MemFiles::new();
    let received = receive(&files, parts(&sender(5, b"new"))).expect("received");
    let (engine, install) = follower(received);
    super::install(&engine, &files.crash(false), &install).expect("installed");
    let once = dump(&engine);
    super::install(&engine, &files, &install).expect("installed again");
    assert_eq!(dump(&engine), once);
}

/// An engine whose power fails after some operations: the operation that would be next, and all after it, fail.
#[derive(Debug)]
struct Breaking {
    engine: MemEngine,
    left: std::sync::atomic::AtomicUsize,
}

impl Breaking {
    fn new(engine: MemEngine, operations: usize) -> Breaking {
        Breaking { engine, left: operations.into() }
    }

    fn spend(&self) -> engine::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        let spent = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        spent.map(|_| ()).map_err(|_| engine::Error::Poisoned("power is gone".to_owned()))
    }

    /// What the disk holds if `keep` unsynced batches reached it. Leaves this engine as it is, for the next `keep`.
    fn fork_and_crash(&self, keep: usize) -> MemEngine {
        self.engine.crash(keep)
    }
}

impl Engine for Breaking {
    fn write(&self, batch: &WriteBatch) -> engine::Result<()> {
        self.spend()?;
        self.engine.write(batch)
    }

    fn sync(&self) -> engine::Result<()> {
        self.spend()?;
        self.engine.sync()
    }

    fn get(&self, cf: Cf, key: &[u8]) -> engine::Result<Option<Bytes>> {
        self.engine.get(cf, key)
    }

    fn snapshot(&self) -> Arc<dyn engine::Snapshot> {
        self.engine.snapshot()
    }

    fn ingest(
        &self,
        cf: Cf,
        sorted: &mut dyn Iterator<Item = engine::Result<(Bytes, Bytes)>>,
    ) -> engine::Result<()> {
        self.spend()?;
        self.engine.ingest(cf, sorted)
    }

    fn approximate_size_bytes(&self, cf: Cf, start: &[u8], end: &[u8]) -> engine::Result<u64> {
        self.engine.approximate_size_bytes(cf, start, end)
    }

    fn counters(&self) -> engine::Counters {
        self.engine.counters()
    }
}

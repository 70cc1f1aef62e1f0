//! The threads around real stores, in one process, over the in-memory engine. What is waited for comes by itself; the
//! deadlines only end a test that has failed.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use engine::Cf;
use engine::mem::MemEngine;
use parking_lot::{Mutex, RwLock};
use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb;
use raft::LogIndex;

use super::*;
use crate::command::{Mutation, Request, WriteResult};
use crate::config::Config;
use crate::error::RegionError;
use crate::keys::{self, RawCf};
use crate::msg::{RequestHeader, WriteRequest};
use crate::reply::Reply;
use crate::snapshot::{MemFiles, ReceiveLimits, SnapshotReceiver, SnapshotSource};
use crate::store::format;

const CLUSTER: u64 = 7;
const REGION: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(20);

fn region(stores: u64) -> metapb::Region {
    let peer = |id| metapb::Peer { id: id + 100, store_id: id, ..Default::default() };
    metapb::Region {
        id: REGION,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: (1..=stores).map(peer).collect(),
        ..Default::default()
    }
}

/// Routers and spool files by store: the whole network. A store that is not here cannot be reached.
#[derive(Default)]
struct Network {
    stores: RwLock<BTreeMap<StoreId, (Router, MemFiles)>>,
}

impl Network {
    fn find(&self, to: u64) -> Option<(Router, MemFiles)> {
        self.stores.read().get(&to.into()).cloned()
    }

    fn stream(&self, snapshot: SnapshotSend) -> Option<()> {
        let (router, files) = self.find(snapshot.to.store_id)?;
        let SnapshotSend { message, source, .. } = snapshot;
        let mut source = SnapshotSource::new(source);
        let files: Arc<dyn SnapshotFiles> = Arc::new(files);
        let mut receiver =
            SnapshotReceiver::begin(files, ReceiveLimits::default(), &message).ok()?;
        while let Some(part) = source.next_part().ok()? {
            if let Some(file) = receiver.take(part).ok()? {
                router.send(StoreMsg::SnapshotReceived { message, file }).ok()?;
                return Some(());
            }
        }
        None
    }
}

struct Link(Arc<Network>);

impl Transport for Link {
    fn send(&self, messages: Vec<RaftMessage>) {
        for message in messages {
            let to = message.to_peer.as_ref().map_or(0, |peer| peer.store_id);
            if let Some((router, _)) = self.0.find(to) {
                let _ = router.send(StoreMsg::Raft(message));
            }
        }
    }

    fn send_snapshot(&self, snapshot: SnapshotSend, done: SnapshotDone) {
        let network = self.0.clone();
        thread::Builder::new()
            .spawn(move || done.report(network.stream(snapshot).is_some()))
            .expect("a thread");
    }
}

struct NoPlacement;

impl Placement for NoPlacement {
    fn region_heartbeats(&self, _: Vec<RegionHeartbeat>) {}
    fn ask_splits(&self, _: Vec<SplitRequest>) {}
    fn report_splits(&self, _: Vec<Vec<metapb::Region>>) {}
    fn ask_regions(&self, _: Vec<RegionQuestion>) {}
}

/// A running store and its disk.
struct Running {
    worker: Worker,
    engine: Arc<MemEngine>,
    files: MemFiles,
    fatal: Receiver<String>,
}

fn config(id: u64) -> Config {
    Config {
        tick_ms: 20,
        lease_ms: 100,
        log_gc_ticks: 5,
        log_gc_count_limit: 20,
        log_gc_lag_factor: 1,
        ..Config::new(CLUSTER, StoreId::from(id))
    }
}

fn start(id: u64, engine: Arc<MemEngine>, files: MemFiles, network: &Arc<Network>) -> Running {
    let config = config(id);
    let tick = config.tick();
    let store = Store::open(config, engine.clone(), &files).expect("open");
    let (fatal_sender, fatal) = channel();
    let on_fatal = move |reason: &str| drop(fatal_sender.send(reason.to_owned()));
    let edges = Edges {
        transport: Arc::new(Link(network.clone())),
        placement: Arc::new(NoPlacement),
        on_fatal: Box::new(on_fatal),
        log: slog::Logger::root(slog::Discard, slog::o!()),
    };
    let parts = Parts {
        store,
        engine: engine.clone(),
        files: Arc::new(files.clone()),
        clock: Clock::start(),
        tick,
    };
    let worker = Worker::start(parts, edges, WorkerOptions::default()).expect("threads");
    let entry = (worker.router(), files.clone());
    network.stores.write().insert(id.into(), entry);
    Running { worker, engine, files, fatal }
}

fn create(id: u64, stores: u64, network: &Arc<Network>) -> Running {
    let engine = Arc::new(MemEngine::new());
    format(engine.as_ref(), CLUSTER, StoreId::from(id)).expect("format");
    let running = start(id, engine, MemFiles::new(), network);
    let (reply, answer) = reply();
    let bootstrap = StoreMsg::Bootstrap { region: region(stores), reply };
    running.worker.router().send(bootstrap).expect("running");
    answer.recv_timeout(PATIENCE).expect("an answer").expect("bootstrapped");
    running
}

fn reply<T: Send + 'static>() -> (Reply<T>, Receiver<Result<T, RegionError>>) {
    let (sender, receiver) = channel();
    (Reply::new(move |outcome| drop(sender.send(outcome))), receiver)
}

fn put(router: &Router, key: &str, value: &str) -> Receiver<Result<WriteResult, RegionError>> {
    let (reply, answer) = reply();
    let mutation = Mutation::Put {
        cf: RawCf::Default,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let epoch = metapb::RegionEpoch { conf_ver: 1, version: 1 };
    let header = RequestHeader::new(RegionId::from(REGION), epoch);
    let request = Request::Mutate { mutations: vec![mutation], session: None };
    let _ = router.send(StoreMsg::Write(WriteRequest { header, request, reply }));
    answer
}

/// Puts at whichever of `routers` leads, trying until it works.
fn put_somewhere(routers: &[Router], key: &str, value: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < deadline {
        for router in routers {
            let outcome = put(router, key, value).recv_timeout(PATIENCE).expect("an answer");
            if outcome.is_ok() {
                return;
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("no leader in time");
}

fn value(engine: &MemEngine, key: &str) -> Option<Bytes> {
    engine.get(Cf::Raw, &keys::raw(RawCf::Default, key.as_bytes())).expect("get")
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !check() {
        assert!(std::time::Instant::now() < deadline, "{what}: not in time");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn writes_are_answered_durable_and_share_syncs() {
    let network = Arc::new(Network::default());
    let one = create(1, 1, &network);
    let router = one.worker.router();
    put_somewhere(std::slice::from_ref(&router), "first", "v");
    let before = router.counters();
    let answers: Vec<_> = (0..500).map(|n| put(&router, &format!("k{n}"), "v")).collect();
    for answer in answers {
        let outcome = answer.recv_timeout(PATIENCE).expect("an answer");
        assert_eq!(outcome, Ok(WriteResult::Applied));
    }
    let counters = router.counters();
    assert_eq!(counters.replies - before.replies, 500);
    assert!(counters.log_syncs - before.log_syncs <= 250, "{counters:?}");
    assert!(counters.log_batches <= counters.log_writes);
    one.worker.stop();
    // Acknowledged means durable: all of it is in the log that a loss of power leaves, and is applied from there.
    let disk = Arc::new(one.engine.crash(0));
    let again = start(1, disk, one.files.crash(false), &network);
    eventually("the log is applied again", || value(&again.engine, "k499").is_some());
    again.worker.stop();
}

#[test]
fn three_stores_outlive_one() {
    let network = Arc::new(Network::default());
    let mut stores: Vec<Running> = (1..=3).map(|id| create(id, 3, &network)).collect();
    let routers: Vec<Router> = stores.iter().map(|s| s.worker.router()).collect();
    put_somewhere(&routers, "before", "v");
    network.stores.write().remove(&StoreId::from(1));
    stores.remove(0).worker.stop();
    put_somewhere(&routers[1..], "after", "v");
    for store in &stores {
        eventually("followers apply", || value(&store.engine, "after").is_some());
        assert!(value(&store.engine, "before").is_some());
    }
    stores.into_iter().for_each(|store| store.worker.stop());
}

#[test]
fn a_store_that_was_away_too_long_gets_a_snapshot() {
    let network = Arc::new(Network::default());
    let mut stores: Vec<Running> = (1..=3).map(|id| create(id, 3, &network)).collect();
    let routers: Vec<Router> = stores.iter().map(|s| s.worker.router()).collect();
    put_somewhere(&routers, "k", "before");
    network.stores.write().remove(&StoreId::from(3));
    let away = stores.pop().expect("three stores");
    away.worker.stop();
    for n in 0..200 {
        put_somewhere(&routers[..2], &format!("k{n}"), "v");
    }
    let truncated = |engine: &MemEngine| {
        let key = keys::Key::ApplyState(RegionId::from(REGION)).encode();
        let stored = engine.get(Cf::Raft, &key).expect("get").expect("a state");
        crate::apply::ApplyState::decode(&stored).expect("well-formed").truncated_index
    };
    eventually("the log is compacted", || truncated(&stores[0].engine) > LogIndex(100));
    let disk = Arc::new(away.engine.crash(0));
    let back = start(3, disk, away.files.crash(false), &network);
    let router = back.worker.router();
    eventually("a snapshot is installed", || router.counters().snapshots_installed > 0);
    assert!(value(&back.engine, "k1").is_some());
    put_somewhere(&routers[..2], "k", "after");
    eventually("and the log goes on", || {
        value(&back.engine, "k").as_deref() == Some(&b"after"[..])
    });
    stores.push(back);
    stores.into_iter().for_each(|store| store.worker.stop());
}

#[test]
fn a_failed_sync_ends_the_store_loudly() {
    let network = Arc::new(Network::default());
    let one = create(1, 1, &network);
    let router = one.worker.router();
    put_somewhere(std::slice::from_ref(&router), "k", "v");
    one.engine.fail_next_sync("no such luck");
    let outcome = put(&router, "k", "w").recv_timeout(PATIENCE).expect("an answer");
    assert!(outcome.is_err(), "{outcome:?}");
    let reason = one.fatal.recv_timeout(PATIENCE).expect("told");
    assert!(reason.contains("no such luck"), "{reason}");
    let refused = put(&router, "k", "w").recv_timeout(PATIENCE).expect("an answer");
    assert!(matches!(refused, Err(RegionError::StoreStopped { .. })), "{refused:?}");
    assert!(one.fatal.recv_timeout(Duration::from_millis(1)).is_err(), "told once");
    one.worker.stop();
    let late = put(&router, "k", "w").recv_timeout(PATIENCE).expect("an answer");
    assert_eq!(late, Err(RegionError::StaleCommand), "nobody is left to answer, so the reply does");
}

#[test]
fn a_panic_ends_the_store_loudly() {
    let network = Arc::new(Network::default());
    let one = create(1, 1, &network);
    let router = one.worker.router();
    // An answer to a question that nobody asked breaks an invariant of the loop.
    router.send(StoreMsg::Persisted { number: u64::MAX }).expect("running");
    let reason = one.fatal.recv_timeout(PATIENCE).expect("told");
    assert!(reason.contains("panic"), "{reason}");
    one.worker.stop();
}

#[test]
fn leads_are_handed_over_before_the_end() {
    let network = Arc::new(Network::default());
    let stores: Vec<Running> = (1..=3).map(|id| create(id, 3, &network)).collect();
    let routers: Vec<Router> = stores.iter().map(|s| s.worker.router()).collect();
    put_somewhere(&routers, "k", "v");
    for (at, store) in stores.into_iter().enumerate() {
        if at < 2 {
            assert!(store.worker.drain(PATIENCE), "store {at} keeps a lead");
        }
        if at == 0 {
            put_somewhere(&routers[1..], "k", "w");
        }
        store.worker.stop();
    }
}

#[test]
fn only_raft_messages_are_dropped_when_too_many_wait() {
    let (sender, inputs) = unbounded();
    let router = Router::new(sender, Arc::default());
    let message = || StoreMsg::Raft(RaftMessage::default());
    for _ in 0..RAFT_MESSAGES_QUEUED_MAX {
        router.send(message()).expect("room");
    }
    assert_eq!(router.send(message()), Err(SendError::Full));
    assert_eq!(router.send(StoreMsg::Tick), Ok(()));
    assert_eq!(router.counters().raft_messages_dropped, 1);
    let Ok(router::Input::Raft(_, bytes)) = inputs.try_recv() else { panic!("a message") };
    router.taken(bytes);
    assert_eq!(router.send(message()), Ok(()));
    drop(inputs);
    assert_eq!(router.send(StoreMsg::Tick), Err(SendError::Stopped));
}

#[test]
fn a_forgotten_snapshot_counts_as_not_sent() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (sender, inputs) = unbounded();
    let router = Router::new(sender, Arc::default());
    let done = || SnapshotDone {
        router: router.clone(),
        region: RegionId::from(2),
        to: PeerId::from(3),
        ok: false,
    };
    drop(done());
    done().report(true);
    for input in inputs.try_iter() {
        if let router::Input::Msg(StoreMsg::SnapshotSent { ok, .. }) = input {
            seen.lock().push(ok);
        }
    }
    assert_eq!(*seen.lock(), [false, true]);
}

//! Three stores and the edges around them: log writer, applier, network, snapshot streams.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Cf, Engine};
use parking_lot::Mutex;
use proto::ids::{PeerId, RegionId, StoreId};
use proto::raft_serverpb::RaftMessage;
use proto::{eraftpb, metapb};
use raftstore::command::{ClientId, Mutation, Request, Session, WriteResult};
use raftstore::keys::{self, RawCf};
use raftstore::msg::{LogWrite, SnapshotSend};
use raftstore::scan::measure;
use raftstore::snapshot::{
    MemFiles, ReceiveLimits, SnapshotFiles, SnapshotReceiver, SnapshotSource, install,
};
use raftstore::store::format;
use raftstore::{
    Applier, Config, Instant, LocalReader, ReadPermit, ReadRequest, RegionError, RegionStatus,
    Reply, RequestHeader, Store, StoreMsg, Turn, WriteRequest,
};

pub(crate) const CLUSTER: u64 = 77;
pub(crate) const REGION: RegionId = RegionId::new(2);

/// An answer that may have come.
#[derive(Debug)]
pub(crate) struct Slot<T>(Arc<Mutex<Option<Result<T, RegionError>>>>);

impl<T: Send + 'static> Slot<T> {
    pub(crate) fn new() -> (Slot<T>, Reply<T>) {
        let slot = Arc::new(Mutex::new(None));
        let inside = slot.clone();
        let reply = Reply::new(move |outcome| {
            let before = inside.lock().replace(outcome);
            assert!(before.is_none(), "answered twice");
        });
        (Slot(slot), reply)
    }

    /// The answer, if it has come.
    pub(crate) fn take(&self) -> Option<Result<T, RegionError>> {
        self.0.lock().take()
    }
}

/// One store and its edges.
pub(crate) struct Node {
    pub(crate) id: StoreId,
    pub(crate) engine: Arc<MemEngine>,
    pub(crate) files: MemFiles,
    pub(crate) store: Store,
    applier: Applier,
    /// Log writes are not carried out while set.
    pub(crate) stall_log: bool,
    /// Tasks are not carried out while set.
    pub(crate) stall_apply: bool,
    /// The process is not running.
    pub(crate) down: bool,
    writes: VecDeque<LogWrite>,
    tasks: Vec<raftstore::ApplyTask>,
    /// What the last turns asked for and no edge here carries out.
    pub(crate) seen: Turn,
}

impl Node {
    fn open(id: StoreId, config: &Config, engine: Arc<MemEngine>, files: MemFiles) -> Node {
        let shared: Arc<dyn Engine> = engine.clone();
        format(shared.as_ref(), CLUSTER, id).unwrap();
        let store = Store::open(config.clone(), shared.clone(), &files).unwrap();
        Node {
            id,
            engine,
            files,
            store,
            applier: Applier::new(shared),
            stall_log: false,
            stall_apply: false,
            down: false,
            writes: VecDeque::new(),
            tasks: Vec::new(),
            seen: Turn::default(),
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Instant,
    /// Messages under way.
    pub(crate) wire: VecDeque<(StoreId, RaftMessage)>,
    /// Directed links that lose everything.
    pub(crate) cut: BTreeSet<(u64, u64)>,
    /// Nothing but entries of this region reaches this store: it does not hear what is committed.
    pub(crate) mute: Option<(u64, u64)>,
    /// Nothing at all of this region reaches this store.
    pub(crate) deaf: Option<(u64, u64)>,
    /// The last id given out.
    pub(crate) last_id: u64,
}

fn epoch() -> metapb::RegionEpoch {
    metapb::RegionEpoch { conf_ver: 1, version: 1 }
}

pub(crate) fn region() -> metapb::Region {
    region_on(&[1, 2, 3])
}

/// The first region, with peers on these stores.
pub(crate) fn region_on(stores: &[u64]) -> metapb::Region {
    let peer = |store: u64| metapb::Peer { id: store * 10, store_id: store, ..Default::default() };
    metapb::Region {
        id: REGION.get(),
        region_epoch: Some(epoch()),
        peers: stores.iter().copied().map(peer).collect(),
        ..Default::default()
    }
}

pub(crate) fn header() -> RequestHeader {
    RequestHeader::new(REGION, epoch())
}

pub(crate) fn put(key: &str, value: &str) -> Request {
    let (key, value) =
        (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    let mutations = vec![Mutation::Put { cf: RawCf::Default, key, value }];
    Request::Mutate { mutations, session: None }
}

pub(crate) fn append(key: &str, value: &str, client: u64, sequence: u64) -> Request {
    let (key, value) =
        (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    let mutations = vec![Mutation::Append { cf: RawCf::Default, key, value }];
    Request::Mutate { mutations, session: Some(Session { client: ClientId(client), sequence }) }
}

impl Cluster {
    /// Three stores with one region, and no leader yet.
    pub(crate) fn new(adjust: impl FnOnce(&mut Config)) -> Cluster {
        Cluster::of(3, &[1, 2, 3], adjust)
    }

    /// So many stores, some of them with a peer of one region, and no leader yet.
    pub(crate) fn of(count: u64, members: &[u64], adjust: impl FnOnce(&mut Config)) -> Cluster {
        let mut config = Config::new(CLUSTER, StoreId::from(1));
        adjust(&mut config);
        let mut cluster = Cluster {
            config,
            nodes: Vec::new(),
            now: Instant::from_ms(1000),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            mute: None,
            deaf: None,
            last_id: 100,
        };
        for store in 1..=count {
            let config = cluster.config_of(store);
            let node = Node::open(StoreId::from(store), &config, Arc::default(), MemFiles::new());
            cluster.nodes.push(node);
        }
        for store in members {
            let (slot, reply) = Slot::new();
            cluster.send(*store, StoreMsg::Bootstrap { region: region_on(members), reply });
            cluster.settle();
            assert_eq!(slot.take(), Some(Ok(())));
        }
        cluster
    }

    /// Three stores with one region, led by store `leader`, serving.
    pub(crate) fn led_by(leader: u64) -> Cluster {
        Cluster::led_by_with(leader, |_| {})
    }

    pub(crate) fn led_by_with(leader: u64, adjust: impl FnOnce(&mut Config)) -> Cluster {
        let mut cluster = Cluster::new(adjust);
        cluster.elect();
        cluster.move_lead(leader);
        cluster
    }

    fn config_of(&self, store: u64) -> Config {
        Config { store_id: StoreId::from(store), seed: store, ..self.config.clone() }
    }

    /// The ids of all stores.
    pub(crate) fn stores(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.nodes.len() as u64
    }

    pub(crate) fn node(&mut self, store: u64) -> &mut Node {
        &mut self.nodes[store as usize - 1]
    }

    pub(crate) fn send(&mut self, store: u64, msg: StoreMsg) {
        let now = self.now;
        self.node(store).store.handle(msg, now);
    }

    /// Time passes on every store that runs.
    pub(crate) fn tick(&mut self, count: usize) {
        for _ in 0..count {
            self.now = self.now + self.config.tick();
            for store in self.stores() {
                if !self.node(store).down {
                    self.send(store, StoreMsg::Tick);
                }
            }
            self.settle();
        }
    }

    /// Lets time pass until a store leads that can reach a majority.
    pub(crate) fn elect(&mut self) -> u64 {
        for _ in 0..400 {
            self.tick(1);
            let serving = |store: &u64| {
                let status = self.status(*store);
                let raft = &status.raft;
                !self.nodes[*store as usize - 1].down
                    && raft.role == raft::Role::Leader
                    && raft.last_term == raft.term
                    && raft.commit == raft.last_index
                    && status.applied_index == raft.commit
            };
            if let Some(leader) = self.stores().find(serving) {
                return leader;
            }
        }
        panic!("nobody was elected");
    }

    pub(crate) fn move_lead(&mut self, to: u64) {
        let leader = self.leader();
        if leader != to {
            let (slot, reply) = Slot::new();
            let to = PeerId::from(to * 10);
            self.send(leader, StoreMsg::TransferLeader { header: header(), to, reply });
            self.settle();
            assert_eq!(slot.take(), Some(Ok(())));
        }
        self.tick(2);
        assert_eq!(self.leader(), to);
    }

    /// Who leads in the highest term.
    pub(crate) fn leader(&self) -> u64 {
        let leaders = self.nodes.iter().filter(|node| !node.down).filter_map(|node| {
            let status = node.store.status().regions.into_iter().next()?;
            (status.raft.role == raft::Role::Leader).then_some((status.raft.term, node.id.get()))
        });
        leaders.max().expect("somebody leads").1
    }

    pub(crate) fn status(&self, store: u64) -> RegionStatus {
        self.nodes[store as usize - 1].store.status().regions.remove(0)
    }

    pub(crate) fn reader(&self, store: u64) -> LocalReader {
        self.nodes[store as usize - 1].store.local_reader()
    }

    pub(crate) fn write(&mut self, store: u64, request: Request) -> Slot<WriteResult> {
        self.write_with(store, header(), request)
    }

    pub(crate) fn write_with(
        &mut self,
        store: u64,
        header: RequestHeader,
        request: Request,
    ) -> Slot<WriteResult> {
        let (slot, reply) = Slot::new();
        self.send(store, StoreMsg::Write(WriteRequest { header, request, reply }));
        slot
    }

    /// Writes and waits for the acknowledgement.
    pub(crate) fn put(&mut self, store: u64, key: &str, value: &str) {
        let slot = self.write(store, put(key, value));
        self.settle();
        assert_eq!(slot.take(), Some(Ok(WriteResult::Applied)));
    }

    pub(crate) fn ask_read(&mut self, store: u64) -> Slot<ReadPermit> {
        let (slot, reply) = Slot::new();
        self.send(store, StoreMsg::Read(ReadRequest { header: header(), reply }));
        slot
    }

    /// What a store's engine holds.
    pub(crate) fn stored(&self, store: u64, key: &str) -> Option<String> {
        let key = keys::raw(RawCf::Default, key.as_bytes());
        let value = self.nodes[store as usize - 1].engine.get(Cf::Raw, &key).unwrap()?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    /// A lease read of a key, if the lease covers it now.
    pub(crate) fn lease_read(&self, store: u64, key: &str) -> Option<Option<String>> {
        let read = |_: &Arc<metapb::Region>| self.stored(store, key);
        self.reader(store).read(&header(), || self.now, read).ok()
    }

    pub(crate) fn isolate(&mut self, store: u64) {
        for other in self.stores().filter(|other| *other != store) {
            self.cut.insert((store, other));
            self.cut.insert((other, store));
        }
    }

    /// Everything under way arrives, and what follows from it.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.round() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// One turn of every store, and what they sent arrives; whether anything happened.
    pub(crate) fn round(&mut self) -> bool {
        let mut moved = false;
        for store in self.stores() {
            moved |= self.turn(store);
        }
        moved | self.deliver()
    }

    /// One turn of one store alone; what it sent stays under way.
    pub(crate) fn turn_only(&mut self, store: u64) {
        self.turn(store);
    }

    /// Copies what is being said to a store, be it cut off or not.
    pub(crate) fn keep_messages(&mut self, to: u64, kept: &mut Vec<RaftMessage>) {
        self.now = self.now + self.config.tick();
        for store in self.stores() {
            self.send(store, StoreMsg::Tick);
            self.turn(store);
        }
        let said = self.wire.iter().map(|(_, message)| message);
        kept.extend(said.filter(|m| m.to_peer.is_some_and(|p| p.store_id == to)).cloned());
        self.deliver();
    }

    /// What is left of a message for a store that hears no commit.
    fn muted(&self, to: u64, mut message: RaftMessage) -> Option<RaftMessage> {
        if self.mute == Some((to, message.region_id)) {
            let content = message.message.as_mut();
            let content: &mut eraftpb::Message = content.filter(|c| !c.entries.is_empty())?;
            content.commit = 0;
        }
        Some(message)
    }

    fn deliver(&mut self) -> bool {
        let messages = std::mem::take(&mut self.wire);
        let moved = !messages.is_empty();
        for (from, message) in messages {
            let to = message.to_peer.as_ref().unwrap().store_id;
            let exists = self.stores().contains(&to);
            let deaf = self.deaf == Some((to, message.region_id));
            let lost = deaf || self.cut.contains(&(from.get(), to));
            if exists
                && !lost
                && !self.node(to).down
                && let Some(message) = self.muted(to, message)
            {
                self.send(to, StoreMsg::Raft(message));
            }
        }
        moved
    }

    fn turn(&mut self, store: u64) -> bool {
        let now = self.now;
        let node = self.node(store);
        if node.down {
            return false;
        }
        let turn = node.store.turn(now);
        let mut moved = !turn.is_empty() && turn.poisoned.is_none();
        node.seen.heartbeats.extend(turn.heartbeats);
        node.seen.split_requests.extend(turn.split_requests);
        node.seen.region_questions.extend(turn.region_questions);
        node.seen.drained |= turn.drained;
        for check in turn.split_checks {
            let checked = measure(check, node.engine.snapshot().as_ref()).unwrap();
            node.store.handle(StoreMsg::SplitChecked(checked), now);
        }
        node.seen.split_reports.extend(turn.split_reports);
        node.seen.poisoned = turn.poisoned;
        node.writes.extend(turn.log_write);
        node.tasks.extend(turn.apply);
        let id = node.id;
        self.wire.extend(turn.messages.into_iter().map(|message| (id, message)));
        for send in turn.snapshots {
            self.stream(store, send);
        }
        for task in turn.installs {
            let node = self.node(store);
            install(node.engine.as_ref(), &node.files, &task).unwrap();
            node.store.handle(StoreMsg::SnapshotInstalled { region: task.region }, now);
        }
        for file in turn.discarded_snapshots {
            self.node(store).files.remove(file.id).unwrap();
        }
        moved |= self.write_log(store);
        moved |= self.apply(store);
        moved
    }

    fn write_log(&mut self, store: u64) -> bool {
        let now = self.now;
        let node = self.node(store);
        if node.stall_log || node.writes.is_empty() {
            return false;
        }
        while let Some(write) = node.writes.pop_front() {
            let mut done = node.engine.write(&write.batch);
            if write.sync {
                done = done.and_then(|()| node.engine.sync());
            }
            let msg = match done {
                Ok(()) => StoreMsg::Persisted { number: write.number },
                Err(error) => StoreMsg::WriteFailed { reason: error.to_string() },
            };
            node.store.handle(msg, now);
        }
        true
    }

    fn apply(&mut self, store: u64) -> bool {
        let now = self.now;
        let node = self.node(store);
        if node.stall_apply || node.tasks.is_empty() {
            return false;
        }
        let turn = node.applier.handle(std::mem::take(&mut node.tasks)).unwrap();
        turn.replies.into_iter().for_each(|(reply, outcome)| reply.send(outcome));
        node.store.handle(StoreMsg::Applied(turn.results), now);
        for ready in turn.snapshots {
            node.store.handle(StoreMsg::SnapshotReady(ready), now);
        }
        for task in turn.hashes {
            node.store.handle(task.carry_out().unwrap(), now);
        }
        true
    }

    fn stream(&mut self, from: u64, send: SnapshotSend) {
        let (region, to) = (send.region, PeerId::from(send.to.id));
        let target = send.to.store_id;
        let lost = self.cut.contains(&(from, target)) || self.node(target).down;
        if !lost {
            let files: Arc<dyn SnapshotFiles> = Arc::new(self.node(target).files.clone());
            let limits = ReceiveLimits::default();
            let mut receiver = SnapshotReceiver::begin(files, limits, &send.message).unwrap();
            let mut source = SnapshotSource::new(send.source);
            let mut file = None;
            while let Some(part) = source.next_part().unwrap() {
                file = receiver.take(part).unwrap();
            }
            let (message, file) = (send.message, file.expect("the footer ends it"));
            self.send(target, StoreMsg::SnapshotReceived { message, file });
        }
        self.send(from, StoreMsg::SnapshotSent { region, to, ok: !lost });
    }

    /// The process is gone, and with it what was not synced.
    pub(crate) fn crash(&mut self, store: u64) {
        let node = self.node(store);
        node.down = true;
        let survivor = node.engine.crash(0);
        node.engine = Arc::new(survivor);
        node.files = node.files.crash(true);
    }

    /// The process starts again on what its disk holds.
    pub(crate) fn restart(&mut self, store: u64) {
        let config = Config { seed: store + 100, ..self.config_of(store) };
        let (engine, files) = {
            let node = self.node(store);
            (node.engine.clone(), node.files.clone())
        };
        *self.node(store) = Node::open(StoreId::from(store), &config, engine, files);
        self.settle();
    }

    /// How long a lease lasts at most.
    pub(crate) fn lease(&self) -> Duration {
        self.config.lease()
    }
}

//! Two stores without their insides: a receiver, a sender, and what they saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::ids::StoreId;
use proto::metapb::Peer;
use proto::raft_serverpb::RaftMessage;
use raftstore::snapshot::{MemFiles, ReceiveLimits, ReceivedSnapshot, Slots, SnapshotFiles as _};
use raftstore::worker::Transport as _;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use transport::{
    Counters, Deliver, Identity, Pace, Parts, Receiver, Resolve, ResolveError, Resolving,
    SnapshotSpace, Transport,
};

pub(crate) const US: u64 = 1;
pub(crate) const THEM: u64 = 2;

pub(crate) fn identity(cluster_id: u64, store: u64) -> Identity {
    Identity { cluster_id, store_id: StoreId::from(store) }
}

/// Where stores listen, as the test says.
#[derive(Default)]
pub(crate) struct Map(Mutex<BTreeMap<StoreId, String>>);

impl Resolve for Map {
    fn resolve(&self, store: StoreId) -> Resolving<'_> {
        let known = self.0.lock().get(&store).cloned();
        Box::pin(async move { known.ok_or(ResolveError::Unknown(store)) })
    }
}

/// What has arrived.
#[derive(Default)]
pub(crate) struct Inbox {
    messages: Mutex<Vec<RaftMessage>>,
    pub(crate) snapshots: Mutex<Vec<(RaftMessage, ReceivedSnapshot)>>,
}

impl Deliver for Inbox {
    fn snapshot(&self, message: RaftMessage, file: ReceivedSnapshot) -> bool {
        self.snapshots.lock().push((message, file));
        true
    }

    fn deliver(&self, messages: Vec<RaftMessage>) -> bool {
        self.messages.lock().extend(messages);
        true
    }
}

impl Inbox {
    pub(crate) fn regions(&self) -> Vec<u64> {
        self.messages.lock().iter().map(|message| message.region_id).collect()
    }
}

/// A receiving store on a runtime of its own: ending that closes its connections, as the end of a process does.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) counters: Arc<Counters>,
    files: Arc<MemFiles>,
    runtime: Option<Runtime>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Server {
    pub(crate) fn start(identity: Identity) -> Server {
        Server::paced(identity, 0)
    }

    /// One that takes snapshots at no more than this rate.
    pub(crate) fn paced(identity: Identity, bytes_per_second: u64) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (inbox, counters) = (Arc::new(Inbox::default()), Arc::new(Counters::default()));
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let files = Arc::new(MemFiles::new());
        let space = SnapshotSpace {
            files: files.clone(),
            limits: ReceiveLimits::default(),
            slots: Slots::new(1),
            pace: Pace::new(bytes_per_second),
        };
        let receiver = Receiver::new(identity, inbox.clone(), space, counters.clone(), log);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            tonic::transport::Server::builder()
                .add_service(receiver.into_service())
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Server { address, inbox, counters, files, runtime: Some(runtime) }
    }

    /// Files of snapshots, complete or not.
    pub(crate) fn spooled(&self) -> usize {
        self.files.list().unwrap().len()
    }

    pub(crate) fn refused(&self) -> u64 {
        count(&self.counters, "streams_refused")
    }
}

pub(crate) struct Client {
    pub(crate) transport: Transport,
    map: Arc<Map>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) unreachable: Arc<AtomicU64>,
}

impl Client {
    pub(crate) fn start(identity: Identity) -> Client {
        Client::paced(identity, 0)
    }

    /// One that sends snapshots at no more than this rate.
    pub(crate) fn paced(identity: Identity, snapshot_bytes_per_second: u64) -> Client {
        let (map, counters) = (Arc::new(Map::default()), Arc::new(Counters::default()));
        let unreachable = Arc::new(AtomicU64::new(0));
        let told = unreachable.clone();
        let on_unreachable = Arc::new(move |store: StoreId| {
            assert_eq!(store, StoreId::from(THEM));
            told.fetch_add(1, Ordering::SeqCst);
        });
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let runtime = tokio::runtime::Handle::current();
        let parts = Parts {
            identity,
            resolve: map.clone(),
            on_unreachable,
            snapshot_bytes_per_second,
            counters: counters.clone(),
        };
        let transport = Transport::new(parts, runtime, log);
        Client { transport, map, counters, unreachable }
    }

    pub(crate) fn knows(&self, server: &Server) {
        self.map.0.lock().insert(StoreId::from(THEM), server.address.clone());
    }

    pub(crate) fn send(&self, regions: std::ops::Range<u64>) {
        self.transport.send(regions.map(message).collect());
    }

    pub(crate) fn dropped(&self) -> u64 {
        count(&self.counters, "messages_dropped")
    }
}

pub(crate) fn count(counters: &Counters, name: &str) -> u64 {
    let found = counters.list().into_iter().find(|(counter, _)| *counter == name);
    found.expect("the counter exists").1
}

pub(crate) fn message(region_id: u64) -> RaftMessage {
    let to_peer = Some(Peer { id: 12, store_id: THEM, ..Peer::default() });
    RaftMessage { region_id, to_peer, ..RaftMessage::default() }
}

pub(crate) async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

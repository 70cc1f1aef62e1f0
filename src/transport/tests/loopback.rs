//! Both halves over real sockets on the loopback: delivery, reconnection, bounds, refusals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::ids::StoreId;
use proto::metapb::Peer;
use proto::raft_serverpb::RaftMessage;
use raftstore::snapshot::{MemFiles, ReceiveLimits, ReceivedSnapshot, Slots};
use raftstore::worker::Transport as _;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use transport::{
    Counters, Deliver, Identity, Parts, Receiver, Resolve, ResolveError, Resolving, SnapshotSpace,
    Transport,
};

const US: u64 = 1;
const THEM: u64 = 2;

fn identity(cluster_id: u64, store: u64) -> Identity {
    Identity { cluster_id, store_id: StoreId::from(store) }
}

/// Where stores listen, as the test says.
#[derive(Default)]
struct Map(Mutex<BTreeMap<StoreId, String>>);

impl Resolve for Map {
    fn resolve(&self, store: StoreId) -> Resolving<'_> {
        let known = self.0.lock().get(&store).cloned();
        Box::pin(async move { known.ok_or(ResolveError::Unknown(store)) })
    }
}

/// What has arrived.
#[derive(Default)]
struct Inbox(Mutex<Vec<RaftMessage>>);

impl Deliver for Inbox {
    fn snapshot(&self, _: RaftMessage, _: ReceivedSnapshot) -> bool {
        true
    }

    fn deliver(&self, messages: Vec<RaftMessage>) -> bool {
        self.0.lock().extend(messages);
        true
    }
}

impl Inbox {
    fn regions(&self) -> Vec<u64> {
        self.0.lock().iter().map(|message| message.region_id).collect()
    }
}

/// A receiving store on a runtime of its own: ending that closes its connections, as the end of a process does.
struct Server {
    address: String,
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
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
    fn start(identity: Identity) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (inbox, counters) = (Arc::new(Inbox::default()), Arc::new(Counters::default()));
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let space = SnapshotSpace {
            files: Arc::new(MemFiles::default()),
            limits: ReceiveLimits::default(),
            slots: Slots::new(1),
        };
        let receiver = Receiver::new(identity, inbox.clone(), space, counters.clone(), log);
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            tonic::transport::Server::builder()
                .add_service(receiver.into_service())
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Server { address, inbox, counters, runtime: Some(runtime) }
    }

    fn refused(&self) -> u64 {
        count(&self.counters, "streams_refused")
    }
}

struct Client {
    transport: Transport,
    map: Arc<Map>,
    counters: Arc<Counters>,
    unreachable: Arc<AtomicU64>,
}

impl Client {
    fn start(identity: Identity) -> Client {
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
            snapshot_bytes_per_second: 0,
            counters: counters.clone(),
        };
        let transport = Transport::new(parts, runtime, log);
        Client { transport, map, counters, unreachable }
    }

    fn knows(&self, server: &Server) {
        self.map.0.lock().insert(StoreId::from(THEM), server.address.clone());
    }

    fn send(&self, regions: std::ops::Range<u64>) {
        self.transport.send(regions.map(message).collect());
    }

    fn dropped(&self) -> u64 {
        count(&self.counters, "messages_dropped")
    }
}

fn count(counters: &Counters, name: &str) -> u64 {
    let found = counters.list().into_iter().find(|(counter, _)| *counter == name);
    found.expect("the counter exists").1
}

fn message(region_id: u64) -> RaftMessage {
    let to_peer = Some(Peer { id: 12, store_id: THEM, ..Peer::default() });
    RaftMessage { region_id, to_peer, ..RaftMessage::default() }
}

async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn messages_arrive_in_order_and_in_batches() {
    let server = Server::start(identity(7, THEM));
    let client = Client::start(identity(7, US));
    client.knows(&server);
    client.send(0..1000);
    client.send(1000..1003);
    eventually("all arrive", || server.inbox.regions().len() == 1003).await;
    assert_eq!(server.inbox.regions(), (0..1003).collect::<Vec<_>>());
    let batches = count(&client.counters, "message_batches_sent");
    assert!(batches <= 2, "what is queued leaves together, not in {batches} batches");
    assert_eq!((client.dropped(), count(&server.counters, "messages_received")), (0, 1003));
}

#[tokio::test]
async fn a_store_that_comes_back_elsewhere_is_found() {
    let first = Server::start(identity(7, THEM));
    let client = Client::start(identity(7, US));
    client.knows(&first);
    client.send(0..1);
    eventually("the first arrives", || first.inbox.regions() == [0]).await;
    drop(first);
    eventually("the loss is noticed", || client.unreachable.load(Ordering::SeqCst) > 0).await;

    let second = Server::start(identity(7, THEM));
    client.knows(&second);
    let mut region = 1;
    eventually("later ones arrive at the new address", || {
        client.send(region..region + 1);
        region += 1;
        !second.inbox.regions().is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_dropped_and_counted() {
    let client = Client::start(identity(7, US));
    client.send(0..20_000);
    let at_once = client.dropped();
    assert!(at_once >= 10_000, "the queue is bounded: only {at_once} were dropped");
    eventually("the rest goes when nobody knows the store", || client.dropped() == 20_000).await;
    assert!(client.unreachable.load(Ordering::SeqCst) > 0);
    client.transport.send(vec![RaftMessage::default()]);
    assert_eq!(client.dropped(), 20_001, "a message for nobody");
}

#[tokio::test]
async fn another_cluster_and_another_store_are_refused() {
    for (ours, theirs) in [(identity(8, US), identity(7, THEM)), (identity(7, US), identity(7, 3))]
    {
        let server = Server::start(theirs);
        let client = Client::start(ours);
        client.knows(&server);
        client.send(0..1);
        eventually("the stream is refused", || server.refused() > 0).await;
        eventually("the sender is told", || client.unreachable.load(Ordering::SeqCst) > 0).await;
        assert_eq!(server.inbox.regions(), [0; 0]);
    }
}

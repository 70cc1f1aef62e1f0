//! A cluster in one process: every store on its own thread, as in production, but on an engine in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::mem::MemEngine;
use proto::flotillapb::diagnostics_client::DiagnosticsClient;
use proto::flotillapb::{StoreStatusRequest, StoreStatusResponse};
use proto::kvrpcpb::{Context, RawPutRequest};
use proto::metapb::{Peer, Region};
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{GetMembersRequest, GetRegionRequest, RequestHeader};
use proto::tikvpb::tikv_client::TikvClient;
use raftstore::snapshot::MemFiles;
use server::{Config, Hooks, Ready, RunError, run_store_on};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tonic::transport::Channel;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store and what survives it.
struct Store {
    engine: Arc<MemEngine>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<Result<(), RunError>>>,
}

pub(crate) struct Cluster {
    settings: Config,
    scheduler: SocketAddr,
    cluster_id: u64,
    stores: BTreeMap<u64, Store>,
    stop_scheduler: Option<oneshot::Sender<()>>,
}

impl Cluster {
    /// Starts a scheduler and so many stores, and waits until they serve.
    pub(crate) async fn start(stores: u32) -> Cluster {
        Cluster::start_with(stores, Config::default()).await
    }

    /// The same, with these settings; addresses are the harness's.
    pub(crate) async fn start_with(stores: u32, settings: Config) -> Cluster {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheduler = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let config = scheduler::server::Config {
            initial_stores: stores,
            replicas: stores,
            ..Default::default()
        };
        tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            let surroundings = scheduler::server::Surroundings::in_memory(listener, log());
            scheduler::server::serve(config, surroundings, stopped).await.unwrap();
        });
        let cluster_id = eventually("the scheduler answers", async || {
            let mut pd = PdClient::connect(format!("http://{scheduler}")).await.ok()?;
            let members = pd.get_members(GetMembersRequest::default()).await.ok()?;
            Some(members.into_inner().header?.cluster_id)
        })
        .await;
        let mut cluster = Cluster {
            settings,
            scheduler,
            cluster_id,
            stores: BTreeMap::new(),
            stop_scheduler: Some(stop),
        };
        let starting =
            (0..stores).map(|_| launch(Arc::new(MemEngine::new()), scheduler, &cluster.settings));
        for (ready, store) in
            futures::future::join_all(starting).await.into_iter().map(|r| r.unwrap())
        {
            cluster.stores.insert(ready.store_id, store);
        }
        cluster
    }

    /// From now on the scheduler answers nobody.
    pub(crate) fn stop_scheduler(&mut self) {
        drop(self.stop_scheduler.take());
    }

    /// Where the scheduler listens.
    pub(crate) fn scheduler(&self) -> SocketAddr {
        self.scheduler
    }

    /// The header of every request to it.
    pub(crate) fn header(&self) -> Option<RequestHeader> {
        Some(RequestHeader { cluster_id: self.cluster_id, sender_id: 0 })
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.stores.keys().copied().collect()
    }

    pub(crate) fn engine(&self, store: u64) -> &MemEngine {
        &self.stores[&store].engine
    }

    /// Stops a store in good order and waits for its end.
    pub(crate) async fn stop(&mut self, store: u64) {
        let stop = self.stores.get_mut(&store).unwrap().stop.take().unwrap();
        stop.send(()).unwrap();
        self.ended(store).await.unwrap();
    }

    /// Waits for a store's end.
    pub(crate) async fn ended(&mut self, store: u64) -> Result<(), RunError> {
        let ended = self.stores.get_mut(&store).unwrap().ended.take().unwrap();
        tokio::time::timeout(PATIENCE, ended).await.expect("it ends").unwrap()
    }

    /// Starts a stopped store again, on its data and at another address.
    pub(crate) async fn restart(&mut self, store: u64) {
        let engine = self.stores[&store].engine.clone();
        let (ready, restarted) = launch(engine, self.scheduler, &self.settings).await.unwrap();
        assert_eq!(ready.store_id, store, "it knows who it is");
        self.stores.insert(store, restarted);
    }

    /// Starts a stopped store's data as a store of another cluster.
    pub(crate) async fn restart_at(
        &mut self,
        store: u64,
        other: &Cluster,
    ) -> Result<Ready, RunError> {
        let engine = self.stores[&store].engine.clone();
        launch(engine, other.scheduler, &self.settings).await.map(|(ready, _)| ready)
    }

    /// The region of a key and its leader, as the scheduler knows them.
    async fn region(&self, key: &[u8]) -> (Region, Peer) {
        eventually("the scheduler knows a leader", async || {
            let mut pd = PdClient::connect(format!("http://{}", self.scheduler)).await.ok()?;
            let header = Some(RequestHeader { cluster_id: self.cluster_id, sender_id: 0 });
            let region_key = bytes::Bytes::copy_from_slice(key);
            let request = GetRegionRequest { header, region_key, need_buckets: false };
            let found = pd.get_region(request).await.ok()?.into_inner();
            Some((found.region?, found.leader.filter(|leader| leader.id != 0)?))
        })
        .await
    }

    /// The store that leads the region of a key.
    pub(crate) async fn leader(&self, key: &[u8]) -> u64 {
        self.region(key).await.1.store_id
    }

    pub(crate) async fn context(&self, key: &[u8]) -> Option<Context> {
        let (region, leader) = self.region(key).await;
        let (region_id, region_epoch) = (region.id, region.region_epoch);
        Some(Context { region_id, region_epoch, peer: Some(leader), ..Context::default() })
    }

    pub(crate) async fn client(&self, store: u64) -> TikvClient<Channel> {
        let address = self.stores[&store].address;
        TikvClient::connect(format!("http://{address}")).await.unwrap()
    }

    /// Puts through whoever leads.
    pub(crate) async fn put(&self, request: RawPutRequest) {
        eventually("the put succeeds", async || {
            let leader = self.leader(&request.key).await;
            let context = self.context(&request.key).await;
            let request = RawPutRequest { context, ..request.clone() };
            let response = self.client(leader).await.raw_put(request).await.ok()?.into_inner();
            assert_eq!(response.error, "");
            response.region_error.is_none().then_some(())
        })
        .await;
    }

    pub(crate) async fn status(&self, store: u64) -> StoreStatusResponse {
        let address = self.stores[&store].address;
        let mut client = DiagnosticsClient::connect(format!("http://{address}")).await.unwrap();
        client.store_status(StoreStatusRequest {}).await.unwrap().into_inner()
    }

    /// One of a store's counters.
    pub(crate) async fn counter(&self, store: u64, name: &str) -> u64 {
        let status = self.status(store).await;
        let found = status.counters.iter().find(|counter| counter.name == name);
        found.unwrap_or_else(|| panic!("no counter {name}")).value
    }

    /// What a plain HTTP/1.1 client gets.
    pub(crate) async fn http(&self, store: u64, path: &str) -> String {
        let mut stream = TcpStream::connect(self.stores[&store].address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn log() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

/// Runs a store on a thread of its own until it serves or fails.
async fn launch(
    engine: Arc<MemEngine>,
    scheduler: SocketAddr,
    settings: &Config,
) -> Result<(Ready, Store), RunError> {
    let config = Config {
        addr: "127.0.0.1:0".to_owned(),
        schedulers: vec![scheduler.to_string()],
        ..settings.clone()
    };
    config.validate().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell_ready, ready) = oneshot::channel();
    let (tell_ended, mut ended) = oneshot::channel();
    let hooks = Hooks {
        shutdown: Box::pin(async move {
            // Dropping the sender, at the end of a test, stops the store as well.
            let _ = stopped.await;
        }),
        on_ready: Box::new(move |ready| {
            let _ = tell_ready.send(ready.clone());
        }),
        log: log(),
    };
    let on = engine.clone();
    std::thread::spawn(move || {
        let outcome = run_store_on(&config, on, Arc::new(MemFiles::default()), hooks);
        let _ = tell_ended.send(outcome);
    });
    tokio::select! {
        // An error says that it will not serve; its end says why.
        Ok(ready) = ready => {
            let (address, ended, stop) = (ready.address, Some(ended), Some(stop));
            Ok((ready, Store { engine, address, stop, ended }))
        }
        outcome = &mut ended => Err(outcome.unwrap().expect_err("it failed to start")),
        () = tokio::time::sleep(PATIENCE) => panic!("the store does not start"),
    }
}

/// Repeats `check` until it gives something.
pub(crate) async fn eventually<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

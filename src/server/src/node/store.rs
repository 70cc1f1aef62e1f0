//! `flotilla store`: a replicated store.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use engine::Engine;
use proto::ids::StoreId;
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raftstore::snapshot::{ReceiveLimits, ReceivedSnapshot, Slots, SnapshotFiles};
use raftstore::worker::{Clock, Edges, Parts, Router, SendError, Worker, WorkerOptions};
use raftstore::{Store, StoreMsg};
use tokio::sync::oneshot;
use transport::{Deliver, Identity, Pace, Receiver, SnapshotSpace, Transport};

use super::listen::{Port, Serving};
use super::reports::Reports;
use super::stats::{StatsSource, heartbeats};
use super::{Health, Hooks, OnReady, Ready, RunError, block_on, join, routes};
use crate::backend::raft::RaftBackend;
use crate::config::Config;
use crate::counters::Counters;
use crate::diagnostics::{About, Observer};
use crate::kv::Verbs;
use crate::scheduler::Scheduler;

/// Runs the store whose data is in `config.data_dir` until `shutdown` resolves or it cannot go on.
pub async fn run_store(
    config: Config,
    shutdown: impl Future<Output = ()>,
    log: slog::Logger,
) -> Result<(), RunError> {
    config.validate()?;
    super::on_own_thread(shutdown, log, move |hooks| {
        let (engine, files) = (open_engine(&config, &hooks.log)?, open_files(&config)?);
        run_store_on(&config, engine, files, hooks)
    })
    .await
}

/// Opens the engine in the data directory.
#[cfg(feature = "rocksdb")]
pub(super) fn open_engine(config: &Config, _: &slog::Logger) -> Result<Arc<dyn Engine>, RunError> {
    let options = engine::rocks::RocksConfig {
        memory_budget_bytes: config.memory_budget_bytes,
        ..engine::rocks::RocksConfig::default()
    };
    let path = config.data_dir.join("db");
    Ok(Arc::new(engine::rocks::RocksEngine::open(&path, &options)?))
}

/// This build has no engine with a disk: the data live as long as the process.
#[cfg(not(feature = "rocksdb"))]
pub(super) fn open_engine(
    config: &Config,
    log: &slog::Logger,
) -> Result<Arc<dyn Engine>, RunError> {
    slog::warn!(log, "built without RocksDB: the data are kept in memory and end with the process";
        "data_dir" => config.data_dir.display());
    Ok(Arc::new(engine::mem::MemEngine::new()))
}

/// Opens the directory where received snapshots wait.
#[cfg(feature = "rocksdb")]
fn open_files(config: &Config) -> Result<Arc<dyn SnapshotFiles>, RunError> {
    let dir = config.data_dir.join("snapshots");
    let files = raftstore::snapshot::DirFiles::open(&dir)
        .map_err(|error| RunError::System { action: "open the snapshot directory", error })?;
    Ok(Arc::new(files))
}

#[cfg(not(feature = "rocksdb"))]
fn open_files(_: &Config) -> Result<Arc<dyn SnapshotFiles>, RunError> {
    Ok(Arc::new(raftstore::snapshot::MemFiles::new()))
}

/// Runs the store whose data `engine` and `files` hold until told to stop. The settings are valid.
pub fn run_store_on(
    config: &Config,
    engine: Arc<dyn Engine>,
    files: Arc<dyn SnapshotFiles>,
    hooks: Hooks,
) -> Result<(), RunError> {
    block_on(run(config, engine, files, hooks))
}

async fn run(
    config: &Config,
    engine: Arc<dyn Engine>,
    files: Arc<dyn SnapshotFiles>,
    hooks: Hooks,
) -> Result<(), RunError> {
    let Hooks { mut shutdown, on_ready, log } = hooks;
    let addr = config.addr.clone();
    let port = Port::bind(&addr).map_err(|error| RunError::Listen { addr, error })?;
    let identified = tokio::select! {
        identified = join::identify(&*engine, &config.schedulers, &log) => identified?,
        () = &mut shutdown => return Ok(()),
    };
    let (identity, scheduler) = identified;
    let log = log.new(slog::o!("store_id" => identity.store_id.get()));
    let mut node = Node::start(config, port, engine, files, (identity, scheduler), log.clone())?;
    let failed = node.failed.take();
    let outcome = {
        let serving = node.participate(config, on_ready);
        tokio::select! {
            refusal = serving => Err(refusal),
            () = shutdown => Ok(()),
            reason = told(failed) => Err(RunError::Stopped(reason)),
        }
    };
    match &outcome {
        Ok(()) => slog::info!(log, "stopping"),
        Err(error) => slog::crit!(log, "stopping"; "reason" => %error),
    }
    node.stop(config, outcome.is_ok()).await;
    outcome
}

/// What failed, as soon as something has.
async fn told(failed: Option<oneshot::Receiver<String>>) -> String {
    match failed {
        Some(failed) => failed.await.unwrap_or_else(|_| "its threads have ended".to_owned()),
        None => std::future::pending().await,
    }
}

/// A running store.
struct Node {
    identity: Identity,
    scheduler: Arc<Scheduler>,
    worker: Worker,
    transport: Transport,
    reports: Arc<Reports>,
    stats: StatsSource,
    observer: Observer,
    health: Health,
    serving: Serving,
    advertised: String,
    labels: Vec<metapb::StoreLabel>,
    address: std::net::SocketAddr,
    has_regions: bool,
    failed: Option<oneshot::Receiver<String>>,
    log: slog::Logger,
}

impl Node {
    /// Opens the store and starts everything; the port serves, but is not ready.
    fn start(
        config: &Config,
        port: Port,
        engine: Arc<dyn Engine>,
        files: Arc<dyn SnapshotFiles>,
        (identity, scheduler): (Identity, Scheduler),
        log: slog::Logger,
    ) -> Result<Node, RunError> {
        let no_thread = |error| RunError::System { action: "start a thread", error };
        let scheduler = Arc::new(scheduler);
        let settings = config.raftstore(identity.cluster_id, identity.store_id);
        let tick = settings.tick();
        let store = Store::open(settings, engine.clone(), &*files)?;
        let has_regions = !store.status().regions.is_empty();
        let wires = Wires::new(config, identity, &scheduler, &log);
        let (on_fatal, failed) = fatal();
        let edges = wires.edges(on_fatal, &log);
        let clock = Clock::start();
        let parts = Parts { store, engine: engine.clone(), files: files.clone(), clock, tick };
        let worker = Worker::start(parts, edges, worker_options(config)).map_err(no_thread)?;
        wires.connect(worker.router());
        let address = port.address();
        let advertised = match config.advertise_addr.as_str() {
            "" => address.to_string(),
            advertised => advertised.to_owned(),
        };
        let kv = Arc::new(Counters::default());
        let about = About {
            identity: Some(identity),
            address: advertised.clone(),
            started: tokio::time::Instant::now(),
            ready: AtomicBool::new(false),
            kv: kv.clone(),
            transport: wires.counters.clone(),
            engine: engine.clone(),
            scheduler: Some(scheduler.clone()),
        };
        let observer = Observer { about: Arc::new(about), store: Some(worker.router()) };
        let health = Health::new();
        let backend = RaftBackend::new(engine, worker.reader(), worker.router(), clock);
        let slots = Slots::new(config.snapshot_receives_max);
        let stats = StatsSource {
            store_id: identity.store_id.get(),
            data_dir: config.data_dir.clone(),
            observer: observer.clone(),
            reports: wires.reports.clone(),
            receiving: slots.clone(),
        };
        let pace = Pace::new(config.snapshot_bytes_per_second);
        let space = SnapshotSpace { files, limits: ReceiveLimits::default(), slots, pace };
        let deliver = Arc::new(Delivery(worker.router()));
        let receiver = Receiver::new(identity, deliver, space, wires.counters.clone(), log.clone());
        let routes = routes(Verbs::new(Arc::new(backend), kv), &observer, &health)?
            .add_service(receiver.into_service());
        let pages = observer.pages(routes.into_axum_router()).into();
        let serving = port
            .serve(&pages, config.network_threads, config.streams_per_connection_max, &log)
            .map_err(no_thread)?;
        let Wires { transport, reports, .. } = wires;
        let failed = Some(failed);
        Ok(Node {
            identity,
            scheduler,
            worker,
            transport,
            reports,
            stats,
            observer,
            health,
            serving,
            advertised,
            labels: config.store_labels(),
            address,
            has_regions,
            failed,
            log,
        })
    }

    /// Takes part in the cluster for ever; ends with the scheduler's refusal.
    async fn participate(&self, config: &Config, on_ready: OnReady) -> RunError {
        let router = self.worker.router();
        let mut on_ready = Some(on_ready);
        self.health.set(false).await;
        if self.has_regions {
            self.ready(&mut on_ready).await;
        }
        let joining = async {
            join::join(&self.scheduler, self.record(), &router, &self.log).await?;
            self.ready(&mut on_ready).await;
            let period = Duration::from_millis(config.store_heartbeat_ms);
            let refusal = heartbeats(&self.stats, &self.scheduler, period, &self.log).await;
            Err::<(), RunError>(refusal.into())
        };
        tokio::select! {
            joined = joining => match joined {
                Err(error) => error,
                Ok(()) => RunError::Stopped("its reports have ended".to_owned()),
            },
            () = self.reports.send(&self.scheduler, &router, &self.log) => {
                RunError::Stopped("its region reports have ended".to_owned())
            }
        }
    }

    async fn ready(&self, on_ready: &mut Option<OnReady>) {
        let Some(on_ready) = on_ready.take() else { return };
        self.observer.set_ready(true);
        self.health.set(true).await;
        let Identity { cluster_id, store_id } = self.identity;
        slog::info!(self.log, "store serves";
            "cluster_id" => cluster_id, "address" => &self.advertised);
        on_ready(&Ready { address: self.address, cluster_id, store_id: store_id.get() });
    }

    /// How the scheduler and other stores know this one.
    fn record(&self) -> metapb::Store {
        metapb::Store {
            id: self.identity.store_id.get(),
            address: self.advertised.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            status_address: self.advertised.clone(),
            labels: self.labels.clone(),
            ..metapb::Store::default()
        }
    }

    /// Stops everything; hands leadership over first if the store is sound.
    async fn stop(self, config: &Config, sound: bool) {
        let Node { worker, transport, observer, health, serving, log, .. } = self;
        observer.set_ready(false);
        health.set(false).await;
        let patience = config.drain();
        let worker = if sound {
            let drained = tokio::task::spawn_blocking(move || (worker.drain(patience), worker));
            match drained.await {
                Ok((drained, worker)) => {
                    slog::info!(log, "leadership handed over"; "complete" => drained);
                    worker
                }
                // The threads end with the process.
                Err(_) => return,
            }
        } else {
            worker
        };
        serving.stop().await;
        transport.close();
        let _ = tokio::task::spawn_blocking(move || worker.stop()).await;
        slog::info!(log, "stopped");
    }
}

/// Told why the store's threads cannot go on.
type OnFatal = Box<dyn FnOnce(&str) + Send>;

/// What the store's threads call when they fail, and where that is heard.
fn fatal() -> (OnFatal, oneshot::Receiver<String>) {
    let (fail, failed) = oneshot::channel();
    let on_fatal = move |reason: &str| {
        // Refused only when the process is on its way out already.
        let _ = fail.send(reason.to_owned());
    };
    (Box::new(on_fatal), failed)
}

fn worker_options(config: &Config) -> WorkerOptions {
    let delay = Duration::from_millis(config.log_sync_delay_ms);
    WorkerOptions {
        log_sync_delay: (!delay.is_zero()).then_some(delay),
        ..WorkerOptions::default()
    }
}

/// What goes out of the store: made before the store's threads, told of them afterwards.
struct Wires {
    transport: Transport,
    reports: Arc<Reports>,
    counters: Arc<transport::Counters>,
    router: Arc<std::sync::OnceLock<Router>>,
}

impl Wires {
    fn new(
        config: &Config,
        identity: Identity,
        scheduler: &Arc<Scheduler>,
        log: &slog::Logger,
    ) -> Wires {
        let router = Arc::new(std::sync::OnceLock::<Router>::new());
        let counters = Arc::new(transport::Counters::default());
        let to = router.clone();
        let on_unreachable = Arc::new(move |store: StoreId| {
            if let Some(router) = to.get() {
                // A store that has stopped need not know.
                let _ = router.send(StoreMsg::Unreachable { store });
            }
        });
        let parts = transport::Parts {
            identity,
            resolve: scheduler.clone(),
            on_unreachable,
            snapshot_bytes_per_second: config.snapshot_bytes_per_second,
            counters: counters.clone(),
        };
        let runtime = tokio::runtime::Handle::current();
        let transport = Transport::new(parts, runtime, log.clone());
        Wires { transport, reports: Arc::new(Reports::new()), counters, router }
    }

    fn edges(&self, on_fatal: OnFatal, log: &slog::Logger) -> Edges {
        let transport = Arc::new(self.transport.clone());
        Edges { transport, placement: self.reports.clone(), on_fatal, log: log.clone() }
    }

    fn connect(&self, router: Router) {
        assert!(self.router.set(router).is_ok(), "connected once");
    }
}

/// What comes in from other stores.
struct Delivery(Router);

impl Deliver for Delivery {
    fn deliver(&self, messages: Vec<RaftMessage>) -> bool {
        let stopped =
            |message| matches!(self.0.send(StoreMsg::Raft(message)), Err(SendError::Stopped));
        !messages.into_iter().any(stopped)
    }

    fn snapshot(&self, message: RaftMessage, file: ReceivedSnapshot) -> bool {
        self.0.send(StoreMsg::SnapshotReceived { message, file }).is_ok()
    }
}

//! The scheduler's edge: gRPC in front, the clock and a replicated store behind, the core in the middle.
//!
//! ```text
//!  client ──▶ forward ──▶ answer: pd, cluster, operations, streams, http ──▶ driver ──▶ core
//!             (not leading?                                                    │ commit, load, confirm
//!              the leader's)                                                   ▼
//!  other members ◀──────────── transport ◀──────────────────────────────── replica: one region, its own engine
//! ```
//! `members` is the fixed list of members, `roll` who of them ever took part; `replica` this member's copy of the scheduler's region; `driver` runs the
//! leadership ([`crate::lead`]) over it. `pd`, `cluster` and `operations` translate requests inside the frame of `answer`;
//! `streams` holds the two long streams; `forward` passes on what only the leader can answer; `error_map` is the one place
//! where refusals become wire errors; `http`, with `words` and `metrics`, answers tools that speak HTTP/1.1.
//!
//! # Invariants
//! 1. Nothing is answered from the core of a leadership that is not confirmed after the answer was taken (S1).
//! 2. Every response carries a header; a request made for another cluster is refused with both ids in the text.
//! 3. When this member ceases to lead, or stops, for whatever reason, open streams end with an error, because clients wait
//!    for timestamps without a time limit.
//! 4. No member answers "not me" at once: it passes the request on, or waits for a leader.

#![expect(clippy::disallowed_methods, reason = "the edge reads the clock and the OS's randomness")]

mod answer;
mod cluster;
mod driver;
mod error_map;
mod forward;
mod http;
mod members;
mod metrics;
mod operations;
mod pd;
mod replica;
mod roll;
mod streams;
mod surroundings;
mod words;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use proto::flotillapb::bootstrap_server::BootstrapServer;
use proto::flotillapb::operations_server::OperationsServer;
use proto::keyspacepb::keyspace_server::KeyspaceServer;
use proto::pdpb::pd_server::PdServer;
use slog::{Logger, info, warn};
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use transport::Receiver;

pub use self::members::MembersError;
pub use self::surroundings::{Surroundings, WallClock};

use self::answer::Service;
use self::driver::{Driver, Refusal, Role};
use self::forward::Gate;
use self::members::Members;
use self::replica::Replica;
use crate::core;
use crate::journal::JournalError;
use crate::lead::Lead;

/// How often the leader's core is asked what the stores shall do, and its windows are extended ahead of need.
const TICK_INTERVAL: Duration = Duration::from_millis(200);
/// How long another member may take to take the lead over from one that stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// How long open calls may take to end once the scheduler stops.
const GRACE: Duration = Duration::from_millis(500);
/// Calls in flight on one connection.
const CALLS_PER_CONNECTION_MAX: usize = 1024;
/// Open streams on one connection: a member passes all of its clients on over one.
const STREAMS_PER_CONNECTION_MAX: u32 = 8192;
/// Why streams end when the scheduler was told to stop.
const SHUTDOWN: &str = "the scheduler is shutting down";
/// Between the pings that find out that a client's machine is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// What the operator decides.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This member's name. Default: `scheduler`.
    pub name: String,
    /// All members, this one too: 1, 3 or 5 entries `name=host:port`, or `name=host:port@host:port` where clients use
    /// another address than the members. The names stay the same for ever; addresses may change from start to start.
    /// Default: none, for a scheduler of one member.
    pub peers: Vec<String>,
    /// What clients of a scheduler of one member are told to connect to, `http://host:port`. Default: the listener's
    /// address.
    pub advertise_url: String,
    /// Stores that must have registered before the first regions are made. Default: 3.
    pub initial_stores: u32,
    /// Peers of each of the first regions. Default: 3.
    pub replicas: u32,
    /// A store not heard of for this long counts as dead. Default: 10 000.
    pub store_down_ms: u64,
    /// A store not heard of for this long has its peers replaced, unless the setting of this name says
    /// otherwise. Default: 600 000.
    pub max_store_down_ms: u64,
    /// Draws the id of a new cluster. Default: the operating system's randomness.
    pub cluster_id_seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        let core::Config { initial_stores, replicas, store_down_ms, max_store_down_ms } =
            core::Config::default();
        Self {
            name: "scheduler".into(),
            peers: Vec::new(),
            advertise_url: String::new(),
            initial_stores,
            replicas,
            store_down_ms,
            max_store_down_ms,
            cluster_id_seed: None,
        }
    }
}

impl Config {
    fn core(&self) -> core::Config {
        core::Config {
            initial_stores: self.initial_stores,
            replicas: self.replicas,
            store_down_ms: self.store_down_ms,
            max_store_down_ms: self.max_store_down_ms,
        }
    }

    fn members(&self, address: &str) -> Result<Members, MembersError> {
        if self.peers.is_empty() {
            let client = match self.advertise_url.as_str() {
                "" => address,
                url => url,
            };
            return Members::alone(&self.name, address, client);
        }
        if !self.advertise_url.is_empty() {
            return Err(MembersError {
                setting: "advertise_url",
                reason: "has no effect beside `peers`: write name=host:port@host:port there".into(),
            });
        }
        Members::parse(&self.name, &self.peers)
    }

    /// Whether a scheduler could start with these settings, as far as they tell.
    pub fn validate(&self) -> Result<(), MembersError> {
        self.members("127.0.0.1:0").map(drop)
    }

    /// An id for a new cluster: random, not 0, and positive in languages without unsigned numbers.
    fn fresh_cluster_id(&self) -> u64 {
        let seed = self.cluster_id_seed.unwrap_or_else(|| RandomState::new().hash_one("cluster"));
        let mut id = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((id ^ (id >> 31)) >> 1).max(1)
    }
}

/// Why a scheduler ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The members cannot be those.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// The data are not this member's.
    #[error("the data directory cannot be used: {0}")]
    Foreign(String),
    /// Its store cannot be opened.
    #[error("the data directory cannot be used: {0}")]
    Store(#[from] raftstore::store::OpenError),
    /// The engine failed at the start.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// It could not start from what it found.
    #[error(transparent)]
    Open(#[from] core::OpenError),
    /// Its state could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It stopped itself rather than promise what it could not keep.
    #[error("the scheduler stopped: {0}")]
    Stopped(String),
    /// The system gives no socket or thread.
    #[error("the scheduler cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// The gRPC server failed.
    #[error("the scheduler's server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors compiled into the binary are broken.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `shutdown` resolves or the scheduler cannot go on. Stops in good order when told to: the lead is handed
/// over first. Dropped, it just ends; what it acknowledged is safe with the others.
pub async fn serve(
    config: Config,
    surroundings: Surroundings,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let Surroundings { engine, files, listener, clock, logger } = surroundings;
    let members = Arc::new(config.members(&listener.local_addr()?.to_string())?);
    let lead = Lead::new(config.core(), config.fresh_cluster_id());
    let (fatal, failed) = tokio::sync::oneshot::channel();
    let on_fatal = move |reason: &str| {
        // Refused only when the scheduler is on its way out already.
        let _ = fatal.send(reason.to_owned());
    };
    let (replica, receiver) = Replica::start(&members, engine, files, on_fatal, &logger).await?;
    let driver = Driver::new(Arc::clone(&members), replica, lead, clock, logger.clone());
    let driver = Arc::new(driver);
    let (health, health_service) = tonic_health::server::health_reporter();
    let service = Service::new(Arc::clone(&driver), logger.clone());
    let routes = routes(service, health_service, receiver)?;
    info!(logger, "scheduler listens"; "name" => &config.name, "members" => members.len(),
        "address" => %listener.local_addr()?);
    let server = tonic::transport::Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_routes(routes);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let end = Arc::clone(&driver);
    let serving = server.serve_with_incoming_shutdown(incoming, async move {
        end.stopped().await;
    });
    let failed = async {
        match failed.await {
            Ok(reason) => reason,
            Err(_) => std::future::pending().await,
        }
    };
    let outcome = supervise(&driver, &health, serving, (shutdown, failed), &logger).await;
    let last = Arc::clone(&driver);
    let _ = tokio::task::spawn_blocking(move || last.replica.stop()).await;
    outcome
}

/// Everything that is served, behind the gate that passes on what only the leader can answer.
fn routes(
    service: Service,
    health: HealthServer<impl Health>,
    receiver: Receiver,
) -> Result<Routes, Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let gate = Arc::new(Gate::new(Arc::clone(&service.driver)));
    let grpc = Routes::new(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(receiver.into_service())
        .add_service(PdServer::new(service.clone()))
        .add_service(KeyspaceServer::new(service.clone()))
        .add_service(BootstrapServer::new(service.clone()))
        .add_service(OperationsServer::new(service.clone()));
    let layer = axum::middleware::from_fn_with_state(gate, forward::layer);
    Ok(Routes::from(http::routes(grpc.into_axum_router(), service).layer(layer)))
}

/// Runs the server beside the leadership and its ticks; ends them all.
async fn supervise(
    driver: &Arc<Driver>,
    health: &HealthReporter,
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
    (shutdown, failed): (impl Future<Output = ()>, impl Future<Output = String>),
    logger: &Logger,
) -> Result<(), Error> {
    tokio::pin!(serving);
    // Whoever stops the driver first says why; the server's own end may be what comes to light first.
    let (mut ended, mut error) = (None, None);
    tokio::select! {
        end = &mut serving => ended = Some(end),
        () = leave(driver, shutdown) => driver.stop(SHUTDOWN),
        reason = failed => driver.stop(&reason),
        followed = driver.follow() => if let Err(why) = followed {
            driver.stop(&why.to_string());
            error = Some(why);
        },
        () = tick(driver) => {}
        () = tell_health(driver, health) => {}
    }
    driver.stop("the server ended");
    health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    health.set_not_serving::<PdServer<Service>>().await;
    let reason = driver.stopped().await;
    match reason.as_str() {
        SHUTDOWN => info!(logger, "scheduler stops"),
        reason => warn!(logger, "scheduler stops by itself"; "reason" => reason),
    }
    let ended = match ended {
        Some(ended) => ended,
        None => tokio::time::timeout(GRACE, serving).await.unwrap_or_else(|_| {
            warn!(logger, "calls were cut off"; "after_ms" => GRACE.as_millis() as u64);
            Ok(())
        }),
    };
    match (reason.as_str(), error) {
        (SHUTDOWN, _) => Ok(ended?),
        (_, Some(error)) => Err(error),
        (_, None) => ended.map_err(Error::from).and(Err(Error::Stopped(reason))),
    }
}

/// Waits to be told to stop, and hands the lead over.
async fn leave(driver: &Arc<Driver>, shutdown: impl Future<Output = ()>) {
    shutdown.await;
    if driver.members.len() > 1 {
        let leaver = Arc::clone(driver);
        let _ = tokio::task::spawn_blocking(move || leaver.replica.drain(DRAIN_PATIENCE)).await;
    }
}

/// Lets the leader's core work; ends when the driver has stopped.
async fn tick(driver: &Arc<Driver>) {
    loop {
        tokio::time::sleep(TICK_INTERVAL).await;
        match driver.tick().await {
            Ok(()) | Err(Refusal::NotLeading) => {}
            Err(refusal) => return driver.stop(&refusal.to_string()),
        }
    }
}

/// Tells the health service whether somebody leads; ends when the driver has stopped.
async fn tell_health(driver: &Arc<Driver>, health: &HealthReporter) {
    let mut role = driver.role();
    loop {
        let now = role.borrow_and_update().clone();
        let status = match now {
            Role::Serves(_) | Role::Follows(_) => tonic_health::ServingStatus::Serving,
            Role::Begins(_) | Role::Leaderless => tonic_health::ServingStatus::NotServing,
            Role::Stopped(_) => return,
        };
        for service in ["", <PdServer<Service> as tonic::server::NamedService>::NAME] {
            health.set_service_status(service, status).await;
        }
        if role.changed().await.is_err() {
            return;
        }
    }
}

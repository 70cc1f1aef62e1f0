//! The scheduler's edge: gRPC in front, the clock and the disk behind, the core in the middle.
//!
//! `driver` owns the core and runs decide → commit → apply; `pd` and `cluster` translate requests
//! inside the frame of `answer`; `streams` holds the two long streams; `error_map` is the one place
//! where refusals become wire errors; `http` answers tools that speak HTTP/1.1 on the same port.
//!
//! Invariants: every response carries a header; a request made for another cluster is refused with
//! both ids in the text; when the scheduler stops, for whatever reason, open streams end with an
//! error, because clients wait for timestamps without a time limit.

#![expect(clippy::disallowed_methods, reason = "the edge reads the clock and the OS's randomness")]

mod answer;
mod cluster;
mod driver;
mod error_map;
mod http;
mod pd;
mod streams;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use proto::flotillapb::bootstrap_server::BootstrapServer;
use proto::keyspacepb::keyspace_server::KeyspaceServer;
use proto::pdpb::pd_server::PdServer;
use slog::{Logger, info, warn};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use self::answer::Service;
use self::driver::Driver;
use crate::core::{self, Scheduler};
use crate::journal::{EngineJournal, JournalError};

/// How often windows are checked and extended ahead of need.
const MAINTENANCE_INTERVAL: Duration = Duration::from_millis(250);
/// How long open calls may take to end once the scheduler stops.
const GRACE: Duration = Duration::from_secs(3);
/// Calls in flight on one connection.
const CALLS_PER_CONNECTION_MAX: usize = 1024;
/// Why streams end when the scheduler was told to stop.
const SHUTDOWN: &str = "the scheduler is shutting down";
/// Between the pings that find out that a client's machine is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// What the operator decides.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The member's name in GetMembers. Default: `scheduler`.
    pub name: String,
    /// What clients are told to connect to, `http://host:port`. Default: the listener's address.
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

    fn url(&self, address: SocketAddr) -> String {
        match self.advertise_url.as_str() {
            "" => format!("http://{address}"),
            url if url.contains("://") => url.to_owned(),
            address => format!("http://{address}"),
        }
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
    /// It could not start from what it found.
    #[error(transparent)]
    Open(#[from] core::OpenError),
    /// Its state could not be read or stored.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It stopped itself rather than promise what it could not keep.
    #[error("the scheduler stopped: {0}")]
    Stopped(String),
    /// The listener failed.
    #[error("the scheduler cannot listen: {0}")]
    Listen(#[from] std::io::Error),
    /// The gRPC server failed.
    #[error("the scheduler's server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors compiled into the binary are broken.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `shutdown` resolves or the scheduler's state cannot be stored any more. `engine` holds
/// nothing but the scheduler's state.
pub async fn serve(
    config: Config,
    engine: Arc<dyn Engine>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
    logger: Logger,
) -> Result<(), Error> {
    let address = listener.local_addr()?;
    let url = config.url(address);
    let journal = Box::new(EngineJournal::new(engine));
    let driver = Driver::open(config.core(), config.fresh_cluster_id(), journal)?;
    let driver = Arc::new(driver);
    let (cluster_id, regions) = (driver.cluster_id, driver.read(Scheduler::region_count));
    info!(logger, "scheduler serves";
        "cluster_id" => cluster_id, "address" => %address, "url" => &url, "regions" => regions);

    let (health, health_service) = tonic_health::server::health_reporter();
    let service = Service::new(Arc::clone(&driver), config.name, url, logger.clone());
    health.set_serving::<PdServer<Service>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let grpc = Routes::new(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(PdServer::new(service.clone()))
        .add_service(KeyspaceServer::new(service.clone()))
        .add_service(BootstrapServer::new(service));
    let routes = http::routes(grpc.into_axum_router(), Arc::clone(&driver));
    let server = tonic::transport::Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .add_routes(Routes::from(routes));

    let mut stopped = driver.stopped();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = server.serve_with_incoming_shutdown(incoming, async {
        let _ = stopped.wait_for(Option::is_some).await;
    });
    let outcome = supervise(&driver, serving, shutdown, &logger).await;
    health.set_not_serving::<PdServer<Service>>().await;
    outcome
}

/// Runs the server beside the upkeep of the windows; ends both.
async fn supervise(
    driver: &Arc<Driver>,
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
    shutdown: impl Future<Output = ()>,
    logger: &Logger,
) -> Result<(), Error> {
    tokio::pin!(serving);
    let upkeep = async {
        loop {
            tokio::time::sleep(MAINTENANCE_INTERVAL).await;
            if let Err(refusal) = driver.maintain().await {
                break driver.stop(&refusal.to_string());
            }
        }
    };
    // Whoever stops the driver first says why; the server's own end may be what comes to light first.
    let mut ended = None;
    tokio::select! {
        end = &mut serving => ended = Some(end),
        () = shutdown => driver.stop(SHUTDOWN),
        () = upkeep => {}
    }
    driver.stop("the server ended");
    let reason = driver.stopped().borrow().clone().unwrap_or_default();
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
    match reason.as_str() {
        SHUTDOWN => Ok(ended?),
        _ => ended.map_err(Error::from).and(Err(Error::Stopped(reason))),
    }
}

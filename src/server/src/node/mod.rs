//! The composition root of a store process: what is built from what, and in which order it starts and stops.
//!
//! # Start
//! engine → identity (from the data, or newly from the scheduler) → store, its threads, the transport → the port serves,
//! not yet ready → registered at the scheduler, first regions created → ready. A store whose data already holds regions is
//! ready as soon as it serves.
//!
//! # The scheduler
//! `reports` tells it which regions are led here; `orders` passes on what it answers; `questions` asks for ids and for who
//! holds a key; `stats` says that the store lives and how full it is. None of them makes the store's loop wait, and a
//! scheduler that answers nobody keeps no store from serving.
//!
//! # Stop
//! When told to: not ready → leadership handed over → no new connections, open calls cut off after a moment → threads
//! joined. What was acknowledged is durable at any moment, so none of this is needed for safety.
//! By itself, with an error: a failed disk, a panic, a refusal by the scheduler.
//!
//! Tests: `tests/cluster` (whole processes on the engine in memory), `tests/data_dir.rs` (the real engine).

mod join;
mod listen;
mod orders;
mod questions;
mod reports;
pub mod standalone;
mod stats;
pub mod store;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use proto::flotillapb::diagnostics_server::DiagnosticsServer;
use proto::flotillapb::kv_server::KvServer;
use proto::limits::GRPC_REQUEST_BYTES_MAX;
use proto::tikvpb::tikv_server::TikvServer;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use crate::config::ConfigError;
use crate::diagnostics::Observer;
use crate::kv::Verbs;
use crate::kv::service::Service;
use crate::scheduler::SchedulerError;

/// What surrounds a process.
pub struct Hooks {
    /// Resolves when the process shall stop.
    pub shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Called once, when it serves.
    pub on_ready: OnReady,
    /// Where it logs.
    pub log: slog::Logger,
}

/// Told when a process serves.
pub type OnReady = Box<dyn FnOnce(&Ready) + Send>;

/// A process that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its cluster and its id; 0 for a bare engine.
    pub cluster_id: u64,
    /// Its id; 0 for a bare engine.
    pub store_id: u64,
}

/// Why a process ended other than by being told to. One clear line each.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine cannot be opened, or read at the start.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The data cannot be used.
    #[error("the store cannot be opened: {0}")]
    Open(#[from] raftstore::store::OpenError),
    /// What was found contradicts what was asked for.
    #[error("{0}")]
    Refused(String),
    /// The scheduler refuses this store, or cannot be asked at all.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// The port cannot be used.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// Which address.
        addr: String,
        /// Why.
        error: std::io::Error,
    },
    /// The operating system gives no thread, file or runtime.
    #[error("cannot {action}: {error}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        error: std::io::Error,
    },
    /// The store stopped itself rather than promise what it could not keep.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}

/// Runs a process on a thread of its own, whatever runtime the caller has: its network runtime is made to measure.
/// Dropping the future stops the process in good order, in the background.
async fn on_own_thread(
    shutdown: impl Future<Output = ()>,
    log: slog::Logger,
    run: impl FnOnce(Hooks) -> Result<(), RunError> + Send + 'static,
) -> Result<(), RunError> {
    use tokio::sync::oneshot;
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell_ended, mut ended) = oneshot::channel();
    let hooks = Hooks {
        shutdown: Box::pin(async move {
            // An error says that the caller has gone away, which is a wish to stop.
            let _ = stopped.await;
        }),
        on_ready: Box::new(|_| {}),
        log,
    };
    let thread = std::thread::Builder::new().name("network-0".to_owned()).spawn(move || {
        let _ = tell_ended.send(run(hooks));
    });
    thread.map_err(|error| RunError::System { action: "start a thread", error })?;
    let outcome = tokio::select! {
        outcome = &mut ended => outcome,
        () = shutdown => {
            let _ = stop.send(());
            ended.await
        }
    };
    outcome.unwrap_or_else(|_| Err(RunError::Stopped("its main thread has panicked".to_owned())))
}

/// Runs `work` on a runtime of this one thread.
fn block_on<T>(work: impl Future<Output = Result<T, RunError>>) -> Result<T, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("blocking")
        .build()
        .map_err(|error| RunError::System { action: "start a runtime", error })?;
    let outcome = runtime.block_on(work);
    // Blocking work that is still under way belongs to nobody any more.
    runtime.shutdown_background();
    outcome
}

/// Health of the whole process, as gRPC clients ask for it.
struct Health(HealthReporter);

impl Health {
    fn new() -> Health {
        Health(HealthReporter::new())
    }

    async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", "tikvpb.Tikv", "flotilla.Kv"] {
            self.0.set_service_status(service, status).await;
        }
    }
}

/// The services that every process has.
fn routes(verbs: Verbs, observer: &Observer, health: &Health) -> Result<Routes, RunError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |error| RunError::Refused(format!("reflection: {error}"));
    let service = Service::new(verbs);
    let tikv = TikvServer::new(service.clone()).max_decoding_message_size(GRPC_REQUEST_BYTES_MAX);
    let kv = KvServer::new(service).max_decoding_message_size(GRPC_REQUEST_BYTES_MAX);
    let health = HealthService::from_health_reporter(health.0.clone());
    let health = tonic_health::pb::health_server::HealthServer::new(health);
    let routes = Routes::new(tikv)
        .add_service(kv)
        .add_service(health)
        .add_service(DiagnosticsServer::new(observer.clone()))
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?);
    Ok(routes)
}

//! `--standalone`: the services over a bare engine. One process, one copy, no scheduler.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::Engine;

use super::listen::Port;
use super::{Health, Hooks, Ready, RunError, block_on, routes};
use crate::backend::standalone::StandaloneBackend;
use crate::config::Config;
use crate::counters::Counters;
use crate::diagnostics::{About, Observer};
use crate::kv::Verbs;

/// Serves the data in `config.data_dir` until `shutdown` resolves.
pub async fn run_standalone(
    config: Config,
    shutdown: impl Future<Output = ()>,
    log: slog::Logger,
) -> Result<(), RunError> {
    config.validate()?;
    super::on_own_thread(shutdown, log, move |hooks| {
        let engine = super::store::open_engine(&config, &hooks.log)?;
        run_standalone_on(&config, engine, hooks)
    })
    .await
}

/// Serves `engine` until told to stop. The settings are valid.
pub fn run_standalone_on(
    config: &Config,
    engine: Arc<dyn Engine>,
    hooks: Hooks,
) -> Result<(), RunError> {
    let found = super::join::read_identity(&*engine)?;
    if let Some(identity) = found {
        return Err(RunError::Refused(format!(
            "the data directory belongs to store {} of cluster {}, not to a bare engine",
            identity.store_id, identity.cluster_id
        )));
    }
    block_on(serve(config, engine, hooks))
}

async fn serve(config: &Config, engine: Arc<dyn Engine>, hooks: Hooks) -> Result<(), RunError> {
    let Hooks { shutdown, on_ready, log } = hooks;
    let addr = config.addr.clone();
    let port = Port::bind(&addr).map_err(|error| RunError::Listen { addr, error })?;
    let address = port.address();
    let backend = StandaloneBackend::new(engine.clone())
        .map_err(|error| RunError::System { action: "start a thread", error })?;
    let counters = Arc::new(Counters::default());
    let about = About {
        identity: None,
        address: address.to_string(),
        started: tokio::time::Instant::now(),
        ready: AtomicBool::new(true),
        kv: counters.clone(),
        transport: Arc::default(),
        engine,
        scheduler: None,
    };
    let observer = Observer { about: Arc::new(about), store: None };
    let health = Health::new();
    let verbs = Verbs::new(Arc::new(backend), counters);
    let routes = routes(verbs, &observer, &health)?;
    let pages = observer.pages(routes.into_axum_router()).into();
    let serving = port
        .serve(&pages, config.network_threads, config.streams_per_connection_max, &log)
        .map_err(|error| RunError::System { action: "start a thread", error })?;
    health.set(true).await;
    slog::info!(log, "bare engine serves"; "address" => %address);
    on_ready(&Ready { address, cluster_id: 0, store_id: 0 });
    shutdown.await;
    slog::info!(log, "stopping");
    health.set(false).await;
    serving.stop().await;
    Ok(())
}

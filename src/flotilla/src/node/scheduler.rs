//! `flotilla scheduler`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::Engine;
use serde::Deserialize;
use slog::info;
use tokio::net::TcpListener;
use toml::Table;

use crate::failure::Failure;
use crate::node::settings::{Given, Process, Setting, into, take};
use crate::node::{logging, shutdown};

/// Memory of the engine: the state is small.
#[cfg(feature = "rocksdb")]
const MEMORY_BUDGET_BYTES: usize = 16 << 20;

/// The process and its settings.
#[derive(Clone, Debug)]
pub(crate) struct Scheduler;

impl Process for Scheduler {
    const VERB: &'static str = "scheduler";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "addr",
            default: "\"127.0.0.1:2379\"",
            purpose: "Where to listen, host:port; port 0 picks a free one",
        },
        Setting {
            name: "advertise_url",
            default: "\"\"",
            purpose: "What clients and stores connect to; empty: where it listens",
        },
        Setting {
            name: "data_dir",
            default: "\"data/scheduler\"",
            purpose: "Where the state lives",
        },
        Setting { name: "name", default: "\"scheduler\"", purpose: "The member's name" },
        Setting {
            name: "initial_stores",
            default: "3",
            purpose: "Stores that must have registered before the first regions are made",
        },
        Setting {
            name: "replicas",
            default: "3",
            purpose: "Peers of each of the first regions, at most initial_stores",
        },
        Setting {
            name: "store_down_ms",
            default: "10000",
            purpose: "Milliseconds of silence after which a store counts as dead",
        },
        Setting {
            name: "max_store_down_ms",
            default: "600000",
            purpose: "Milliseconds of silence after which the peers of a store are replaced",
        },
        Setting {
            name: "max_store_down_ms",
            default: "600000",
            purpose: "Milliseconds of silence after which the peers of a store are replaced",
        },
        Setting {
            name: "cluster_id_seed",
            default: "",
            purpose: "A number that decides the id of a new cluster, for tests; unset: random",
        },
        Setting {
            name: "log_level",
            default: "\"info\"",
            purpose: "critical, error, warning, info, debug or trace",
        },
        Setting { name: "log_format", default: "\"text\"", purpose: "text or json" },
    ];
}

/// Runs a scheduler.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    given: Given<Scheduler>,
    /// Stop when stdin closes: with the process that started this one
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// What belongs to this process and not to the scheduler's own settings.
#[derive(Debug, Deserialize)]
pub(crate) struct Place {
    addr: String,
    data_dir: PathBuf,
}

/// The settings by who needs them.
pub(crate) struct Parts {
    place: Place,
    logging: logging::Settings,
    config: scheduler::server::Config,
}

/// Takes a table of settings apart.
pub(crate) fn split(mut table: Table) -> Result<Parts, Failure> {
    Ok(Parts {
        place: take(&mut table, &["addr", "data_dir"])?,
        logging: take(&mut table, logging::NAMES)?,
        config: into(table)?,
    })
}

/// Runs until told to stop.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let Parts { place, logging, config } = split(options.given.resolve()?)?;
    let (logger, _guard) = logging::start(&logging)?;
    let listener = TcpListener::bind(&place.addr).await;
    let listener = listener.map_err(Failure::io(format!("cannot listen on {}", place.addr)))?;
    let engine = open_engine(&place.data_dir)?;
    let stop_logger = logger.clone();
    let with_parent = options.with_parent;
    let stop = async move {
        match shutdown::requested(with_parent).await {
            Ok(reason) => info!(stop_logger, "told to stop"; "reason" => reason),
            Err(failure) => info!(stop_logger, "cannot listen to signals"; "error" => %failure),
        }
    };
    scheduler::server::serve(config, engine, listener, stop, logger)
        .await
        .map_err(|error| Failure::Server(error.to_string()))
}

#[cfg(feature = "rocksdb")]
fn open_engine(dir: &Path) -> Result<Arc<dyn Engine>, Failure> {
    use engine::rocks::{RocksConfig, RocksEngine};
    let config = RocksConfig { memory_budget_bytes: MEMORY_BUDGET_BYTES, ..Default::default() };
    let engine = RocksEngine::open(dir, &config)
        .map_err(|error| Failure::Server(format!("{}: {error}", dir.display())))?;
    Ok(Arc::new(engine))
}

/// This build has no engine with a disk: the state lives as long as the process.
#[cfg(not(feature = "rocksdb"))]
fn open_engine(_: &Path) -> Result<Arc<dyn Engine>, Failure> {
    Ok(Arc::new(engine::mem::MemEngine::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::settings::defaults;

    #[test]
    fn the_table_of_settings_is_the_configuration() {
        let parts = split(defaults(Scheduler::SETTINGS)).unwrap();
        let expected = scheduler::server::Config::default();
        assert_eq!(format!("{:?}", parts.config), format!("{expected:?}"));
        let mut table = defaults(Scheduler::SETTINGS);
        table.insert("cluster_id_seed".to_owned(), toml::Value::Integer(7));
        assert_eq!(split(table).unwrap().config.cluster_id_seed, Some(7));
    }
}

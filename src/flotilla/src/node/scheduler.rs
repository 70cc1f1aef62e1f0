//! `flotilla scheduler`.

use std::path::{Path, PathBuf};

use scheduler::server::Surroundings;
use serde::Deserialize;
use slog::{Logger, info};
use tokio::net::TcpListener;
use toml::Table;

use crate::failure::Failure;
use crate::node::settings::{Given, Process, Setting, into, take};
use crate::node::{logging, shutdown};

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
            purpose: "What clients and stores connect to if it is alone; empty: where it listens",
        },
        Setting {
            name: "data_dir",
            default: "\"data/scheduler\"",
            purpose: "Where the state lives",
        },
        Setting { name: "name", default: "\"scheduler\"", purpose: "This member's name" },
        Setting {
            name: "peers",
            default: "[]",
            purpose: "All members, this one too: 1, 3 or 5 times name=host:port (name=host:port@host:port if clients use \
                      another address); empty: this one is alone",
        },
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
    let parts = Parts {
        place: take(&mut table, &["addr", "data_dir"])?,
        logging: take(&mut table, logging::NAMES)?,
        config: into(table)?,
    };
    parts.config.validate().map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(parts)
}

/// Runs until told to stop.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let Parts { place, logging, config } = split(options.given.resolve()?)?;
    let (logger, _guard) = logging::start(&logging)?;
    let listener = TcpListener::bind(&place.addr).await;
    let listener = listener.map_err(Failure::io(format!("cannot listen on {}", place.addr)))?;
    let surroundings = surroundings(&place.data_dir, listener, logger.clone())?;
    let stop_logger = logger.clone();
    let with_parent = options.with_parent;
    let stop = async move {
        match shutdown::requested(with_parent).await {
            Ok(reason) => info!(stop_logger, "told to stop"; "reason" => reason),
            Err(failure) => info!(stop_logger, "cannot listen to signals"; "error" => %failure),
        }
    };
    scheduler::server::serve(config, surroundings, stop)
        .await
        .map_err(|error| Failure::Server(error.to_string()))
}

#[cfg(feature = "rocksdb")]
fn surroundings(
    dir: &Path,
    listener: TcpListener,
    logger: Logger,
) -> Result<Surroundings, Failure> {
    Surroundings::on_disk(dir, listener, logger)
        .map_err(|error| Failure::Server(format!("{}: {error}", dir.display())))
}

/// This build has no engine with a disk.
#[cfg(not(feature = "rocksdb"))]
fn surroundings(_: &Path, listener: TcpListener, logger: Logger) -> Result<Surroundings, Failure> {
    Ok(Surroundings::in_memory(listener, logger))
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

    #[test]
    fn a_list_of_members_without_this_one_is_refused_before_anything_starts() {
        let mut table = defaults(Scheduler::SETTINGS);
        let peers = ["a=h:1", "b=h:2", "c=h:3"].map(|entry| toml::Value::String(entry.to_owned()));
        table.insert("peers".to_owned(), toml::Value::Array(peers.to_vec()));
        let refused = split(table.clone()).err().unwrap().to_string();
        assert!(refused.contains("`scheduler` is not one of the members"), "{refused}");
        table.insert("name".to_owned(), toml::Value::String("b".to_owned()));
        assert_eq!(split(table).unwrap().config.peers.len(), 3);
    }
}

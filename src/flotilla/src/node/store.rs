//! `flotilla store`.

use slog::info;
use toml::Table;

use crate::failure::Failure;
use crate::node::settings::{Given, Process, Setting, into, take};
use crate::node::{logging, shutdown};

/// The process and its settings.
#[derive(Clone, Debug)]
pub(crate) struct Store;

impl Process for Store {
    const VERB: &'static str = "store";
    const SETTINGS: &'static [Setting] = &[
        Setting {
            name: "addr",
            default: "\"127.0.0.1:20160\"",
            purpose: "Where to listen, host:port; port 0 picks a free one",
        },
        Setting {
            name: "advertise_addr",
            default: "\"\"",
            purpose: "What clients and other stores connect to, host:port; empty: where it listens",
        },
        Setting { name: "data_dir", default: "\"data/store\"", purpose: "Where the data live" },
        Setting {
            name: "schedulers",
            default: "[\"127.0.0.1:2379\"]",
            purpose: "The schedulers, host:port each",
        },
        Setting {
            name: "labels",
            default: "[]",
            purpose: "What tells this store from others, name=value each: zone=a,host=b",
        },
        Setting { name: "tick_ms", default: "50", purpose: "Milliseconds between Raft ticks" },
        Setting {
            name: "heartbeat_ticks",
            default: "2",
            purpose: "Ticks between a leader's heartbeats",
        },
        Setting {
            name: "election_ticks",
            default: "12",
            purpose: "Ticks without a leader before an election, drawn from [this, twice this)",
        },
        Setting {
            name: "reads",
            default: "\"lease\"",
            purpose: "How reads are made linearizable: lease, or read-index (trusts no clock)",
        },
        Setting {
            name: "memory_budget_bytes",
            default: "134217728",
            purpose: "Memory for caches and write buffers, at least 16 MiB",
        },
        Setting {
            name: "log_gc_count",
            default: "4096",
            purpose: "Applied entries of a region's log above which it is compacted",
        },
        Setting {
            name: "snapshot_bytes_per_second",
            default: "67108864",
            purpose: "What all snapshots share, in each direction; 0 is no limit",
        },
        Setting {
            name: "snapshot_receives_max",
            default: "2",
            purpose: "Snapshots received at once",
        },
        Setting { name: "snapshot_sends_max", default: "4", purpose: "Snapshots sent at once" },
        Setting {
            name: "snapshot_installs_max",
            default: "2",
            purpose: "Snapshots taken over at once",
        },
        Setting {
            name: "region_max_bytes",
            default: "67108864",
            purpose: "Bytes of keys and values above which a region is cut",
        },
        Setting {
            name: "region_part_bytes",
            default: "0",
            purpose: "Bytes that the parts should have; 0: three quarters of region_max_bytes",
        },
        Setting {
            name: "region_max_keys",
            default: "640000",
            purpose: "Keys above which a region is cut",
        },
        Setting {
            name: "region_part_keys",
            default: "0",
            purpose: "Keys that the parts should have; 0: three quarters of region_max_keys",
        },
        Setting {
            name: "split_requests_per_second",
            default: "30000",
            purpose: "Requests per second, kept up for a while, above which a region is cut; 0: never",
        },
        Setting {
            name: "region_heartbeat_ticks",
            default: "200",
            purpose: "Ticks between a leader's reports on its region",
        },
        Setting {
            name: "hibernate_ticks",
            default: "40",
            purpose: "Ticks without anything happening in a region after which it sleeps; 0: never",
        },
        Setting {
            name: "sleeping_heartbeat_ticks",
            default: "1200",
            purpose: "Ticks between the reports of a leader that sleeps",
        },
        Setting {
            name: "network_threads",
            default: "1",
            purpose: "Threads that serve the network, at most 64",
        },
        Setting {
            name: "streams_per_connection_max",
            default: "1024",
            purpose: "Calls in flight on one connection; further ones wait",
        },
        Setting {
            name: "store_heartbeat_ms",
            default: "1000",
            purpose: "Milliseconds between a store's reports to the scheduler",
        },
        Setting {
            name: "drain_ms",
            default: "3000",
            purpose: "Milliseconds a shutdown may take to hand leadership over",
        },
        Setting {
            name: "log_sync_delay_ms",
            default: "0",
            purpose: "Milliseconds added to every sync: a slow disk, for measurements",
        },
        Setting {
            name: "log_level",
            default: "\"info\"",
            purpose: "critical, error, warning, info, debug or trace",
        },
        Setting { name: "log_format", default: "\"text\"", purpose: "text or json" },
    ];
}

/// Runs a store.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    given: Given<Store>,
    /// Serve from the engine alone: no scheduler, no replication
    #[arg(long)]
    standalone: bool,
    /// Stop when stdin closes: with the process that started this one
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// The settings by who needs them.
pub(crate) struct Parts {
    logging: logging::Settings,
    config: server::Config,
}

/// Takes a table of settings apart, and checks it.
pub(crate) fn split(mut table: Table) -> Result<Parts, Failure> {
    let logging = take(&mut table, logging::NAMES)?;
    let config: server::Config = into(table)?;
    config.validate().map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Parts { logging, config })
}

/// Runs until told to stop.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let Parts { logging, config } = split(options.given.resolve()?)?;
    let (logger, _guard) = logging::start(&logging)?;
    let stop_logger = logger.clone();
    let with_parent = options.with_parent;
    let stop = async move {
        match shutdown::requested(with_parent).await {
            Ok(reason) => info!(stop_logger, "told to stop"; "reason" => reason),
            Err(failure) => info!(stop_logger, "cannot listen to signals"; "error" => %failure),
        }
    };
    let outcome = match options.standalone {
        true => server::run_standalone(config, stop, logger).await,
        false => server::run_store(config, stop, logger).await,
    };
    outcome.map_err(|error| Failure::Server(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::settings::defaults;

    #[test]
    fn the_table_of_settings_is_the_configuration() {
        let parts = split(defaults(Store::SETTINGS)).unwrap();
        assert_eq!(parts.config, server::Config::default());
        let config = Table::try_from(server::Config::default()).unwrap();
        for name in config.keys() {
            assert!(Store::SETTINGS.iter().any(|s| s.name == name), "{name} cannot be set");
        }
        assert!(Store::SETTINGS.len() <= 30, "few are ever needed");
    }
}

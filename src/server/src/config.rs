//! Settings of a store process. Everything has a default that suits a small cluster; few are ever needed.
//!
//! Unknown names are refused when read (`serde`), unusable values by [`Config::validate`], which names the setting.

use std::path::PathBuf;
use std::time::Duration;

use proto::ids::StoreId;
use proto::metapb;
use raftstore::ReadMode;
use serde::{Deserialize, Serialize};

/// The smallest accepted `memory_budget_bytes`.
pub const MEMORY_BUDGET_BYTES_MIN: usize = 16 << 20;
/// The most network threads that make sense.
pub const NETWORK_THREADS_MAX: usize = 64;

/// Bytes of one label at most.
pub const LABEL_BYTES_MAX: usize = 128;

/// How a store serves linearizable reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reads {
    /// By a leader's lease, else by asking a quorum. Relies on monotonic clocks that drift by less than 10 %.
    #[default]
    Lease,
    /// By asking a quorum, always. No clock is trusted.
    ReadIndex,
}

/// Settings of one store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen, `host:port`; port 0 picks a free one. Default `127.0.0.1:20160`.
    pub addr: String,
    /// What clients and other stores connect to, `host:port`. Default: where it listens.
    pub advertise_addr: String,
    /// Where the data lives. Default `data/store`.
    pub data_dir: PathBuf,
    /// The schedulers, `host:port` each. Default `127.0.0.1:2379`.
    pub schedulers: Vec<String>,
    /// What tells this store from others, `name=value` each: `zone=a`, `host=b`. Default none.
    pub labels: Vec<String>,

    /// Milliseconds between Raft ticks. Default 50, at least 1.
    pub tick_ms: u64,
    /// Ticks between a leader's heartbeats. Default 2, at least 1.
    pub heartbeat_ticks: u32,
    /// Ticks without a leader before an election; the actual number is drawn from [this, 2 × this). Default 12, more than
    /// twice `heartbeat_ticks`.
    pub election_ticks: u32,
    /// `lease` or `read-index`. Default `lease`.
    pub reads: Reads,

    /// Memory for the engine's caches and write buffers, in bytes. Default 128 MiB, at least 16 MiB.
    pub memory_budget_bytes: usize,
    /// Applied entries of a region's log above which it is compacted. Default 4096, at least 1.
    pub log_gc_count: u64,
    /// Bytes per second that all snapshots share, in each direction; 0 is no limit. Default 64 MiB.
    pub snapshot_bytes_per_second: u64,
    /// Snapshots received at once. Default 2, at least 1.
    pub snapshot_receives_max: usize,
    /// Snapshots sent at once. Default 4, at least 1.
    pub snapshot_sends_max: usize,
    /// Snapshots taken over at once. Default 2, at least 1.
    pub snapshot_installs_max: usize,

    /// Bytes of keys and values above which a region is cut. Default 64 MiB, at least 1.
    pub region_max_bytes: u64,
    /// Bytes that the parts of a region that is cut should have; 0 is three quarters of `region_max_bytes`. Default 0.
    pub region_part_bytes: u64,
    /// Keys above which a region is cut. Default 640 000, at least 1.
    pub region_max_keys: u64,
    /// Keys that the parts of a region that is cut should have; 0 is three quarters of `region_max_keys`. Default 0.
    pub region_part_keys: u64,
    /// Requests per second, kept up for a while, above which a region is cut; 0 is never. Default 30 000.
    pub split_requests_per_second: u64,
    /// Ticks between a leader's reports on its region; a change is reported at once. Default 200, at least 1.
    pub region_heartbeat_ticks: u32,
    /// Ticks without anything happening in a region after which it sleeps; 0 is never. Default 40.
    pub hibernate_ticks: u32,
    /// Ticks between the reports of a leader that sleeps. Default 1200, at least 1.
    pub sleeping_heartbeat_ticks: u32,

    /// Threads that serve the network, each a small runtime of its own. Default 1, at most 64.
    pub network_threads: usize,
    /// Calls in flight on one connection; further ones wait. Default 1024, at least 1.
    pub streams_per_connection_max: u32,
    /// Milliseconds between a store's reports to the scheduler. Default 1000, at least 1.
    pub store_heartbeat_ms: u64,
    /// Milliseconds a shutdown may take to hand leadership over. Default 3000.
    pub drain_ms: u64,
    /// Milliseconds added to every sync of the log: a slow disk, for measurements. Default 0.
    pub log_sync_delay_ms: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            addr: "127.0.0.1:20160".to_owned(),
            advertise_addr: String::new(),
            data_dir: PathBuf::from("data/store"),
            schedulers: vec!["127.0.0.1:2379".to_owned()],
            labels: Vec::new(),
            tick_ms: 50,
            heartbeat_ticks: 2,
            election_ticks: 12,
            reads: Reads::Lease,
            memory_budget_bytes: 128 << 20,
            log_gc_count: 4096,
            snapshot_bytes_per_second: 64 << 20,
            snapshot_receives_max: 2,
            snapshot_sends_max: 4,
            snapshot_installs_max: 2,
            region_max_bytes: 64 << 20,
            region_part_bytes: 0,
            region_max_keys: 640_000,
            region_part_keys: 0,
            split_requests_per_second: 30_000,
            region_heartbeat_ticks: 200,
            hibernate_ticks: 40,
            sleeping_heartbeat_ticks: 1200,
            network_threads: 1,
            streams_per_connection_max: 1024,
            store_heartbeat_ms: 1000,
            drain_ms: 3000,
            log_sync_delay_ms: 0,
        }
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("setting `{field}` {reason}")]
pub struct ConfigError {
    /// Which.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Config {
    /// Checks every bound; the error names the setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field, reason: &str| Err(ConfigError { field, reason: reason.to_owned() });
        let positive = [
            ("tick_ms", self.tick_ms),
            ("heartbeat_ticks", self.heartbeat_ticks.into()),
            ("log_gc_count", self.log_gc_count),
            ("snapshot_receives_max", self.snapshot_receives_max as u64),
            ("streams_per_connection_max", self.streams_per_connection_max.into()),
            ("store_heartbeat_ms", self.store_heartbeat_ms),
        ];
        for (field, value) in positive {
            if value == 0 {
                return refuse(field, "must be at least 1");
            }
        }
        if !self.addr.contains(':') {
            return refuse("addr", "must be host:port");
        }
        if !self.advertise_addr.is_empty() && !self.advertise_addr.contains(':') {
            return refuse("advertise_addr", "must be host:port");
        }
        if self.memory_budget_bytes < MEMORY_BUDGET_BYTES_MIN {
            return refuse("memory_budget_bytes", "must be at least 16777216");
        }
        if !(1..=NETWORK_THREADS_MAX).contains(&self.network_threads) {
            return refuse("network_threads", "must be from 1 to 64");
        }
        if self.election_ticks <= 2 * self.heartbeat_ticks {
            return refuse("election_ticks", "must be more than twice heartbeat_ticks");
        }
        for label in &self.labels {
            let Some((name, _)) = label.split_once('=') else {
                return refuse("labels", &format!("must be name=value, which `{label}` is not"));
            };
            let printable = |text: &str| text.chars().all(|c| !c.is_control());
            if name.is_empty() || label.len() > LABEL_BYTES_MAX || !printable(label) {
                let reason = format!("must be printable and at most {LABEL_BYTES_MAX} bytes each");
                return refuse("labels", &reason);
            }
        }
        let raft = self.raftstore(1, StoreId::new(1)).validate();
        raft.map_err(|error| match error.field {
            "lease_ms" => ConfigError { field: "tick_ms", ..error.into() },
            _ => error.into(),
        })
    }

    /// The labels, as the scheduler takes them. The settings are valid.
    pub(crate) fn store_labels(&self) -> Vec<metapb::StoreLabel> {
        let parts = self.labels.iter().filter_map(|label| label.split_once('='));
        let label = |(key, value): (&str, &str)| metapb::StoreLabel {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        parts.map(label).collect()
    }

    /// The settings of the store's loop.
    pub(crate) fn raftstore(&self, cluster_id: u64, store_id: StoreId) -> raftstore::Config {
        let mut config = raftstore::Config {
            tick_ms: self.tick_ms,
            heartbeat_ticks: self.heartbeat_ticks,
            election_timeout_ticks: self.election_ticks,
            log_gc_count_limit: self.log_gc_count,
            snapshot_sends_max: self.snapshot_sends_max,
            snapshot_installs_max: self.snapshot_installs_max,
            region_max_bytes: self.region_max_bytes,
            region_part_bytes: part_of(self.region_part_bytes, self.region_max_bytes),
            region_max_keys: self.region_max_keys,
            region_part_keys: part_of(self.region_part_keys, self.region_max_keys),
            split_requests_per_second: self.split_requests_per_second,
            region_heartbeat_ticks: self.region_heartbeat_ticks,
            hibernate_ticks: self.hibernate_ticks,
            sleeping_heartbeat_ticks: self.sleeping_heartbeat_ticks,
            reads: match self.reads {
                Reads::Lease => ReadMode::Lease,
                Reads::ReadIndex => ReadMode::ReadIndex,
            },
            ..raftstore::Config::new(cluster_id, store_id)
        };
        // As long as these timeouts allow, but for a margin of a tenth.
        config.lease_ms = config.lease_ms_max() * 9 / 10;
        config
    }

    /// How long a shutdown hands leadership over.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }
}

/// What the parts should have, given the most that a region may have.
fn part_of(given: u64, max: u64) -> u64 {
    if given == 0 { (max / 4 * 3).max(1) } else { given }
}

impl From<raftstore::config::ConfigError> for ConfigError {
    fn from(error: raftstore::config::ConfigError) -> ConfigError {
        ConfigError { field: error.field, reason: error.reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_usable() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn parts_follow_the_largest_size_unless_they_are_told() {
        let parts = |region_max_bytes, region_part_bytes| {
            let config = Config { region_max_bytes, region_part_bytes, ..Config::default() };
            config.raftstore(1, StoreId::new(1)).region_part_bytes
        };
        assert_eq!((parts(1 << 20, 0), parts(1 << 20, 77), parts(1, 0)), (3 << 18, 77, 1));
    }

    #[test]
    fn an_unusable_setting_is_named() {
        let bad = [
            (Config { addr: "here".to_owned(), ..Config::default() }, "addr"),
            (Config { tick_ms: 0, ..Config::default() }, "tick_ms"),
            (Config { election_ticks: 4, ..Config::default() }, "election_ticks"),
            (Config { network_threads: 0, ..Config::default() }, "network_threads"),
            (Config { memory_budget_bytes: 1, ..Config::default() }, "memory_budget_bytes"),
            (Config { log_gc_count: 0, ..Config::default() }, "log_gc_count"),
            (Config { region_max_bytes: 0, ..Config::default() }, "region_max_bytes"),
            (Config { region_part_keys: 1 << 40, ..Config::default() }, "region_part_keys"),
            (Config { labels: vec!["zone".to_owned()], ..Config::default() }, "labels"),
            (Config { labels: vec!["=a".to_owned()], ..Config::default() }, "labels"),
        ];
        for (config, field) in bad {
            assert_eq!(config.validate().map_err(|error| error.field), Err(field));
        }
    }
}

//! Settings of a store, checked once when it opens.
//!
//! # How long a lease may be
//! A follower that has just heard from the leader refuses to vote for anybody else for `election_timeout_ticks` of its own
//! ticks. Its first tick may come at once, and the store accepts ticks a little early ([`TICK_SLACK_DIVISOR`]), so what is
//! certain is `(election_timeout_ticks - 1.5) * tick`, measured by its clock. The leader measures the lease by *its* clock.
//! Both may be off by `clock_drift_percent_max`, in opposite directions. Hence
//! `lease_ms <= (election_timeout_ticks - 1.5) * tick_ms * (100 - drift) / (100 + drift)`.

use std::time::Duration;

use proto::ids::StoreId;

/// A tick is accepted up to `tick / 4` before it is due: timers of operating systems jitter.
pub const TICK_SLACK_DIVISOR: u32 = 4;

/// Waiting writes of a region are merged into one entry until it holds about this many bytes …
pub const MERGED_BYTES_MAX: usize = 512 << 10;

/// … or this many requests.
pub const MERGED_REQUESTS_MAX: usize = 1024;

/// Writes of one region that wait to be proposed may hold this many bytes; those beyond are refused as stale (clients try
/// again after a pause). Reached only while Raft's own limit on uncommitted entries holds proposals back.
pub const QUEUED_WRITES_BYTES_MAX: usize = 64 << 20;

/// Reads of one region that wait for a confirmed read index; those beyond are refused as not ready.
pub const WAITING_READS_MAX: usize = 64 << 10;

/// Unconfirmed ReadIndex rounds of one region: reads beyond wait for the next one.
pub const READ_ROUNDS_MAX: usize = 4;

/// How linearizable reads prove that this peer still leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// By a lease where there is one, else by asking a quorum.
    #[default]
    Lease,
    /// By asking a quorum, always: no clock is trusted.
    ReadIndex,
}

/// Settings of one store.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cluster this store belongs to; messages of others are dropped.
    pub cluster_id: u64,
    /// Who this store is.
    pub store_id: StoreId,
    /// Seed of everything random (election timeouts); combined with store and region. Another one for each start.
    pub seed: u64,

    /// Milliseconds between ticks. Default 50, at least 1.
    pub tick_ms: u64,
    /// Ticks between a leader's heartbeats. Default 2, at least 1.
    pub heartbeat_ticks: u32,
    /// Ticks without a leader before a campaign; the actual number is drawn from [this, 2 × this). Default 12.
    pub election_timeout_ticks: u32,
    /// Whether reads may rely on the clock. Default [`ReadMode::Lease`].
    pub reads: ReadMode,
    /// Milliseconds that a confirmed lead is relied upon. Default 400; bounded as the module header says.
    pub lease_ms: u64,
    /// How far any store's clock may run from real time, in percent. Default 10.
    pub clock_drift_percent_max: u64,
    /// Ticks after which a read that no quorum confirmed is given up. Default 30.
    pub read_deadline_ticks: u32,
    /// Ticks between a leader's reports to the scheduler. Default 200.
    pub region_heartbeat_ticks: u32,
    /// Ticks without anything happening in a region after which its peers fall asleep; 0 is never. Default 40.
    pub hibernate_ticks: u32,
    /// Ticks between the reports of a leader that sleeps. Default 1200.
    pub sleeping_heartbeat_ticks: u32,
    /// Bytes of keys and values above which a region is cut. Default 64 MiB.
    pub region_max_bytes: u64,
    /// Keys above which a region is cut. Default 640 000.
    pub region_max_keys: u64,
    /// Bytes that the parts of a region that is cut should have. Default 48 MiB; less than `region_max_bytes`.
    pub region_part_bytes: u64,
    /// The same in keys. Default 480 000.
    pub region_part_keys: u64,
    /// Ticks between looks at a region's growth and load. Default 20.
    pub split_check_ticks: u32,
    /// Requests per second, kept up for ten periods of `split_check_ticks`, above which a region is cut by load; 0 is never.
    /// Default 30 000.
    pub split_requests_per_second: u64,
    /// Ticks between two reports that the same store cannot be reached. Default 10.
    pub unreachable_report_ticks: u32,
    /// Ticks without a leader after which a peer asks whether it is still a member, and between two such questions.
    /// Default 120.
    pub stale_check_ticks: u32,

    /// Bytes of entries in one append message. Default 1 MiB.
    pub append_bytes_max: u64,
    /// Append messages under way to one follower. Default 256.
    pub append_inflight_max: usize,
    /// Bytes of proposed, not yet committed entries of a region. Default 32 MiB.
    pub uncommitted_bytes_max: u64,
    /// Bytes of committed entries handed to the applier in one turn, per region. Default 4 MiB.
    pub apply_bytes_max: u64,
    /// Bytes of entries kept in memory per region, beyond those not yet written. Default 4 MiB.
    pub entry_cache_bytes_max: usize,

    /// Ticks between looks at the length of the log. Default 20.
    pub log_gc_ticks: u32,
    /// Applied entries in the log above which it is compacted. Default 4096.
    pub log_gc_count_limit: u64,
    /// Bytes in the log above which it is compacted. Default 32 MiB.
    pub log_gc_bytes_limit: u64,
    /// How many times over the limits the log may grow for a live follower that lags. Default 4.
    pub log_gc_lag_factor: u64,

    /// Snapshots being sent at once. Default 4.
    pub snapshot_sends_max: usize,
    /// Snapshots being installed at once. Default 2.
    pub snapshot_installs_max: usize,
    /// Ticks after which a snapshot that was made for a peer and never fetched by Raft is let go. Default 100.
    pub snapshot_keep_ticks: u32,

    /// Ticks after which a merge that waits for a peer is called off. Default 200.
    pub merge_timeout_ticks: u32,
}

impl Config {
    /// The defaults, for the given store.
    pub fn new(cluster_id: u64, store_id: StoreId) -> Config {
        Config {
            cluster_id,
            store_id,
            seed: store_id.get(),
            tick_ms: 50,
            heartbeat_ticks: 2,
            election_timeout_ticks: 12,
            reads: ReadMode::Lease,
            lease_ms: 400,
            clock_drift_percent_max: 10,
            read_deadline_ticks: 30,
            region_heartbeat_ticks: 200,
            hibernate_ticks: 40,
            sleeping_heartbeat_ticks: 1200,
            region_max_bytes: 64 << 20,
            region_max_keys: 640_000,
            region_part_bytes: 48 << 20,
            region_part_keys: 480_000,
            split_check_ticks: 20,
            split_requests_per_second: 30_000,
            unreachable_report_ticks: 10,
            stale_check_ticks: 120,
            append_bytes_max: 1 << 20,
            append_inflight_max: 256,
            uncommitted_bytes_max: 32 << 20,
            apply_bytes_max: 4 << 20,
            entry_cache_bytes_max: 4 << 20,
            log_gc_ticks: 20,
            log_gc_count_limit: 4096,
            log_gc_bytes_limit: 32 << 20,
            log_gc_lag_factor: 4,
            snapshot_sends_max: 4,
            snapshot_installs_max: 2,
            snapshot_keep_ticks: 100,
            merge_timeout_ticks: 200,
        }
    }

    /// Checks every bound; the error names the field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field, reason: String| Err(ConfigError { field, reason });
        if self.cluster_id == 0 {
            return refuse("cluster_id", "must not be 0".to_owned());
        }
        if self.store_id.get() == 0 {
            return refuse("store_id", "must not be 0".to_owned());
        }
        for (field, value) in self.positive() {
            if value == 0 {
                return refuse(field, "must be at least 1".to_owned());
            }
        }
        if self.election_timeout_ticks < 2 * self.heartbeat_ticks.max(1) + 1 {
            let least = 2 * self.heartbeat_ticks.max(1) + 1;
            return refuse("election_timeout_ticks", format!("must be at least {least}"));
        }
        for (field, part, max) in [
            ("region_part_bytes", self.region_part_bytes, self.region_max_bytes),
            ("region_part_keys", self.region_part_keys, self.region_max_keys),
        ] {
            if part > max {
                return refuse(
                    field,
                    format!("must be at most {max}, the largest a region may be"),
                );
            }
        }
        if self.clock_drift_percent_max > 50 {
            return refuse("clock_drift_percent_max", "must be at most 50".to_owned());
        }
        let lease_ms_max = self.lease_ms_max();
        if self.reads == ReadMode::Lease && self.lease_ms > lease_ms_max {
            let reason = format!("must be at most {lease_ms_max} with these timeouts");
            return refuse("lease_ms", reason);
        }
        Ok(())
    }

    /// The fields that must not be zero.
    fn positive(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("tick_ms", self.tick_ms),
            ("merge_timeout_ticks", self.merge_timeout_ticks.into()),
            ("heartbeat_ticks", self.heartbeat_ticks.into()),
            ("lease_ms", self.lease_ms),
            ("read_deadline_ticks", self.read_deadline_ticks.into()),
            ("region_heartbeat_ticks", self.region_heartbeat_ticks.into()),
            ("sleeping_heartbeat_ticks", self.sleeping_heartbeat_ticks.into()),
            ("region_max_bytes", self.region_max_bytes),
            ("region_max_keys", self.region_max_keys),
            ("region_part_bytes", self.region_part_bytes),
            ("region_part_keys", self.region_part_keys),
            ("split_check_ticks", self.split_check_ticks.into()),
            ("unreachable_report_ticks", self.unreachable_report_ticks.into()),
            ("stale_check_ticks", self.stale_check_ticks.into()),
            ("append_bytes_max", self.append_bytes_max),
            ("append_inflight_max", self.append_inflight_max as u64),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
            ("apply_bytes_max", self.apply_bytes_max),
            ("log_gc_ticks", self.log_gc_ticks.into()),
            ("log_gc_count_limit", self.log_gc_count_limit),
            ("log_gc_lag_factor", self.log_gc_lag_factor),
            ("snapshot_sends_max", self.snapshot_sends_max as u64),
            ("snapshot_installs_max", self.snapshot_installs_max as u64),
        ]
    }

    /// The longest lease these timeouts allow; see the module header.
    pub fn lease_ms_max(&self) -> u64 {
        let half_ticks = u64::from(2 * self.election_timeout_ticks).saturating_sub(3);
        let drift = self.clock_drift_percent_max.min(99);
        half_ticks * self.tick_ms * (100 - drift) / (2 * (100 + drift))
    }

    /// The time between ticks.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// The length of a lease.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("store setting `{field}` {reason}")]
pub struct ConfigError {
    /// Which.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(1, StoreId::from(1))
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(config().validate(), Ok(()));
    }

    #[test]
    fn a_lease_that_could_outlive_the_followers_patience_is_refused() {
        let mut config = config();
        config.lease_ms = config.lease_ms_max();
        assert_eq!(config.validate(), Ok(()));
        config.lease_ms += 1;
        assert_eq!(config.validate().map_err(|e| e.field), Err("lease_ms"));
        config.reads = ReadMode::ReadIndex;
        assert_eq!(config.validate(), Ok(()), "without leases the length does not matter");
    }

    #[test]
    fn the_error_names_the_field() {
        let mut config = config();
        config.log_gc_ticks = 0;
        let error = config.validate().unwrap_err();
        assert_eq!(error.to_string(), "store setting `log_gc_ticks` must be at least 1");
        config = Config { election_timeout_ticks: 4, ..self::config() };
        assert_eq!(config.validate().map_err(|e| e.field), Err("election_timeout_ticks"));
    }
}

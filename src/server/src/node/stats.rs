//! How a store is, as the scheduler wants to know it, at regular intervals.
//!
//! Space is that of the file system under the data directory; the store's own share of it is the sum of its files. Both,
//! and the number of regions, are looked at less often than reports are made: looking costs more than telling.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::metapb::NodeState;
use proto::pdpb::{StoreStats, TimeInterval};
use raftstore::snapshot::Slots;
use tokio::time::Instant;

use super::reports::Reports;
use crate::diagnostics::Observer;
use crate::scheduler::{Scheduler, SchedulerError};

/// Between two looks at the disk.
const DISK_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at the store's own status: its loop has to stop for it.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);

/// What the reports are made of.
pub(super) struct StatsSource {
    pub(super) store_id: u64,
    pub(super) data_dir: PathBuf,
    pub(super) observer: Observer,
    pub(super) reports: Arc<Reports>,
    /// Of snapshots being received.
    pub(super) receiving: Slots,
}

/// Tells the scheduler until it refuses; ends with the refusal.
pub(super) async fn heartbeats(
    source: &StatsSource,
    scheduler: &Scheduler,
    period: Duration,
    log: &slog::Logger,
) -> SchedulerError {
    let start_time = u32::try_from(unix_seconds()).unwrap_or(u32::MAX);
    let mut stats = StoreStats { store_id: source.store_id, start_time, ..StoreStats::default() };
    let (mut disk_looked, mut status_looked): (Option<Instant>, Option<Instant>) = (None, None);
    let is_old = |looked: Option<Instant>, age| looked.is_none_or(|at| at.elapsed() >= age);
    let mut told = unix_seconds();
    let mut alone_since: Option<Instant> = None;
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if is_old(disk_looked, DISK_INTERVAL) {
            source.look_at_disk(&mut stats).await;
            disk_looked = Some(Instant::now());
        }
        if is_old(status_looked, STATUS_INTERVAL) {
            source.look_at_store(&mut stats).await;
            status_looked = Some(Instant::now());
        }
        let now = unix_seconds();
        source.count(&mut stats, TimeInterval { start_timestamp: told, end_timestamp: now });
        match scheduler.heartbeat(stats).await {
            Ok(answer) if answer.state() == NodeState::Removed => {
                let reason = "this store was removed from the cluster for good";
                return SchedulerError::Refused(reason.to_owned());
            }
            Ok(_) => {
                told = now;
                if let Some(since) = alone_since.take() {
                    slog::info!(log, "the scheduler answers again";
                        "after_seconds" => since.elapsed().as_secs());
                }
            }
            Err(error) if error.is_transient() => {
                if alone_since.is_none() {
                    alone_since = Some(Instant::now());
                    slog::warn!(log, "no scheduler answers: the store serves what it has, nothing is placed anew";
                        "reason" => %error);
                }
            }
            Err(refusal) => return refusal,
        }
    }
}

impl StatsSource {
    /// What is cheap and counts since the last report.
    fn count(&self, stats: &mut StoreStats, interval: TimeInterval) {
        let flow = self.reports.take_flow();
        stats.bytes_written = flow.bytes_written;
        stats.keys_written = flow.keys_written;
        stats.bytes_read = flow.bytes_read;
        stats.keys_read = flow.keys_read;
        stats.interval = Some(interval);
        stats.receiving_snap_count = small(self.receiving.taken());
    }

    async fn look_at_store(&self, stats: &mut StoreStats) {
        if let Some(store) = self.observer.store_status().await {
            stats.region_count = small(store.regions.len());
            stats.sending_snap_count = small(store.snapshots_sending);
            stats.applying_snap_count = small(store.snapshots_installing);
        }
    }

    async fn look_at_disk(&self, stats: &mut StoreStats) {
        let dir = self.data_dir.clone();
        if let Ok(space) = tokio::task::spawn_blocking(move || Space::of(&dir)).await {
            stats.capacity = space.capacity_bytes;
            stats.available = space.available_bytes;
            stats.used_size = space.used_bytes;
        }
    }
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Seconds since 1970, for reports that people read; nothing is decided by it here.
pub(super) fn unix_seconds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the edge reads the clock")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The space of a data directory.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    capacity_bytes: u64,
    available_bytes: u64,
    used_bytes: u64,
}

impl Space {
    /// Zeros for what cannot be found out: a store in memory has no directory.
    fn of(dir: &Path) -> Space {
        // The nearest directory that is there.
        let existing = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
        let system = nix::sys::statvfs::statvfs(existing).ok();
        let blocks = |count: u64, size: u64| count.saturating_mul(size);
        Space {
            capacity_bytes: system.map_or(0, |s| blocks(s.blocks(), s.fragment_size())),
            available_bytes: system.map_or(0, |s| blocks(s.blocks_available(), s.fragment_size())),
            used_bytes: bytes_below(dir, DEPTH_MAX),
        }
    }
}

/// Directories below the data directory that are counted; there are two.
const DEPTH_MAX: usize = 4;

fn bytes_below(dir: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() && depth > 0 => bytes_below(&entry.path(), depth - 1),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        // A file that has just gone.
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_that_of_the_files_and_of_the_disk_below() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("db")).expect("a directory");
        std::fs::write(dir.path().join("db/1.sst"), [0; 1000]).expect("a file");
        std::fs::write(dir.path().join("lock"), [0; 24]).expect("a file");
        let space = Space::of(dir.path());
        assert_eq!(space.used_bytes, 1024);
        assert!(space.capacity_bytes > 0 && space.available_bytes <= space.capacity_bytes);
        let absent = Space::of(&dir.path().join("not/yet"));
        assert_eq!(absent.used_bytes, 0);
        assert_eq!(absent.capacity_bytes, space.capacity_bytes);
    }
}

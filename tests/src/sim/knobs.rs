//! The knobs of a run, drawn from its seed (swarm testing: each seed turns some faults off and some sizes to extremes, so
//! that over many seeds rare combinations come up; Groce et al., *Swarm Testing*, ISSTA 2012).

use super::faults::FaultKind;
use super::network::NetworkKnobs;
use super::operations::OperationKind;
use super::rng::{Rng, Stream};
use super::time::Nanos;

/// How gets and scans are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// From the leader's lease, on the caller's side of the store loop where that is possible.
    Lease,
    /// By asking a quorum each time; no clock involved.
    ReadIndex,
    /// Each read draws one of the two.
    Mixed,
}

/// How a store's disk behaves.
#[derive(Clone, Copy, Debug)]
pub struct DiskKnobs {
    /// The mean time a sync takes.
    pub sync_mean: Nanos,
    /// Syncs that take `stall` more, per mille.
    pub stall_per_mille: u64,
    /// How long a stall is, at most.
    pub stall_max: Nanos,
}

impl DiskKnobs {
    /// A healthy disk: what remains after the faults.
    pub const CALM: DiskKnobs =
        DiskKnobs { sync_mean: Nanos::micros(500), stall_per_mille: 0, stall_max: Nanos::ZERO };
}

/// Everything that makes one run differ from another, apart from the dice.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// Number of stores at the beginning.
    pub stores: usize,
    /// Stores that may join later.
    pub spares: usize,
    /// Nodes of the scheduler.
    pub schedulers: usize,
    /// Peers of each region.
    pub replicas: usize,
    /// Number of regions at the beginning.
    pub regions: usize,
    /// Number of groups of keys, at least as many.
    pub groups: usize,
    /// Length of a tick on a clock without drift.
    pub tick: Nanos,
    /// Ticks without a leader before an election, at least.
    pub election_timeout_ticks: u32,
    /// Ticks between heartbeats.
    pub heartbeat_interval_ticks: u32,
    /// Applied entries a log may hold before it is compacted.
    pub log_gc_entries: u64,
    /// Bytes of entries in one append message.
    pub message_entries_bytes_max: u64,
    /// Bytes of committed entries handed out at a time.
    pub ready_committed_bytes_max: u64,
    /// Rounds of appends a follower may have in flight.
    pub inflight_messages_max: usize,
    /// How reads are served.
    pub read_mode: ReadMode,
    /// Number of clients.
    pub clients: usize,
    /// Mean pause of a client between two operations.
    pub think: Nanos,
    /// Calls that are replaced by a get, per mille: while nobody writes, every log is as good as any other.
    pub reads_per_mille: u64,
    /// Attempts that go to any store instead of the one believed to lead, per mille.
    pub astray_per_mille: u64,
    /// Whether clients give plain puts up early now and then, and go on: an isolated leader then collects many.
    pub hasty: bool,
    /// Whether every turn of a store looks at whether it would serve fresh reads; leases are then always in use.
    pub probes: bool,
    /// Keys of each kind (plain, deletable, appended) per region.
    pub keys: u64,
    /// The network during the faults.
    pub network: NetworkKnobs,
    /// The disks during the faults.
    pub disk: DiskKnobs,
    /// How far a clock may run fast or slow, in parts per million.
    pub drift_ppm_max: u64,
    /// How long an apply step takes, on average.
    pub apply_mean: Nanos,
    /// Kinds of faults that may happen; empty for a calm run.
    pub faults: Vec<FaultKind>,
    /// Mean time between two faults.
    pub fault_interval: Nanos,
    /// Kinds of operations that may be ordered.
    pub operations: Vec<OperationKind>,
    /// Mean time between two operations.
    pub operation_interval: Nanos,
    /// Bytes above which a region is cut.
    pub region_max_bytes: u64,
    /// Ticks of idleness after which a region sleeps; 0 for never.
    pub hibernate_ticks: u32,
    /// Ticks between a leader's reports to the scheduler.
    pub report_ticks: u32,
    /// Ticks after which a merge that cannot be carried out is given up.
    pub merge_timeout_ticks: u32,
    /// Whether the scheduler balances.
    pub balance: bool,
    /// Whether the scheduler merges small regions.
    pub merge_small: bool,
    /// Length of the phase with faults.
    pub fault_phase: Nanos,
}

impl Knobs {
    /// The knobs of `seed`.
    pub fn draw(seed: u64) -> Knobs {
        let rng = &mut Rng::new(seed, Stream::Knobs);
        let stores = *rng.pick(&[1, 3, 3, 3, 3, 3, 4, 5, 5, 5]);
        let replicas = if rng.chance(500) { stores } else { stores.min(3) };
        let regions = *rng.pick(&[1, 1, 1, 2, 3]);
        let tick = Nanos::millis(*rng.pick(&[10, 20, 50]));
        let election_timeout_ticks = *rng.pick(&[5, 7, 10, 10, 20]);
        let election = tick.times(u64::from(election_timeout_ticks));
        Knobs {
            stores,
            spares: *rng.pick(&[0, 0, 1, 2]),
            schedulers: *rng.pick(&[1, 1, 3]),
            replicas,
            regions,
            groups: rng.between(regions as u64, 4) as usize,
            tick,
            election_timeout_ticks,
            heartbeat_interval_ticks: *rng.pick(&[1, 1, 2]),
            log_gc_entries: *rng.pick(&[5, 10, 20, 50, 200]),
            message_entries_bytes_max: *rng.pick(&[0, 64, 256, 4096, 1 << 20]),
            ready_committed_bytes_max: *rng.pick(&[1, 64, 256, 4096, 1 << 20]),
            inflight_messages_max: *rng.pick(&[1, 2, 8, 64]),
            read_mode: *rng.pick(&[
                ReadMode::Lease,
                ReadMode::Lease,
                ReadMode::ReadIndex,
                ReadMode::Mixed,
            ]),
            clients: rng.between(2, 6) as usize,
            think: Nanos::millis(*rng.pick(&[2, 5, 20, 50])),
            reads_per_mille: *rng.pick(&[0, 0, 0, 700, 970, 998]),
            astray_per_mille: *rng.pick(&[0, 50, 200, 400]),
            hasty: rng.chance(300),
            probes: rng.chance(500),
            keys: rng.between(1, 3),
            network: draw_network(rng, election),
            disk: draw_disk(rng, election),
            drift_ppm_max: *rng.pick(&[0, 1_000, 50_000, 100_000]),
            apply_mean: *rng.pick(&[
                Nanos::micros(20),
                Nanos::micros(500),
                Nanos::millis(10),
                Nanos(election.0 / 4),
            ]),
            faults: draw_faults(rng),
            fault_interval: election.times(rng.between(1, 4)),
            operations: draw_operations(rng),
            operation_interval: election.times(rng.between(1, 6)),
            region_max_bytes: *rng.pick(&[60, 300, 2_000, 1 << 20]),
            hibernate_ticks: *rng.pick(&[0, 3, 5, 10, 20]),
            report_ticks: *rng.pick(&[2, 5, 10, 20]),
            merge_timeout_ticks: election_timeout_ticks * *rng.pick(&[2, 5, 10]),
            balance: rng.chance(500),
            merge_small: rng.chance(250),
            fault_phase: election.times(150).max(Nanos::secs(10)).min(Nanos::secs(60)),
        }
    }

    /// The election timeout, without the random part.
    pub fn election_timeout(&self) -> Nanos {
        self.tick.times(u64::from(self.election_timeout_ticks))
    }
}

fn draw_network(rng: &mut Rng, election: Nanos) -> NetworkKnobs {
    NetworkKnobs {
        loss_per_mille: *rng.pick(&[0, 0, 5, 20, 100, 200]),
        duplicate_per_mille: *rng.pick(&[0, 0, 10, 50, 200]),
        delay_min: Nanos::micros(50),
        delay_max: *rng.pick(&[Nanos::millis(1), Nanos::millis(5), Nanos(election.0 / 20)]),
        tail_per_mille: *rng.pick(&[0, 0, 5, 20, 50]),
        tail_max: *rng.pick(&[election, election.times(2), election.times(5)]),
        reorder: rng.chance(500),
    }
}

fn draw_disk(rng: &mut Rng, election: Nanos) -> DiskKnobs {
    DiskKnobs {
        sync_mean: *rng.pick(&[
            Nanos::micros(50),
            Nanos::millis(1),
            Nanos::millis(5),
            Nanos::millis(20),
        ]),
        stall_per_mille: *rng.pick(&[0, 0, 5, 20]),
        stall_max: election.times(2),
    }
}

/// Most seeds get about half of the operations, some none.
fn draw_operations(rng: &mut Rng) -> Vec<OperationKind> {
    match rng.below(10) {
        0 | 1 => Vec::new(),
        2 => OperationKind::ALL.to_vec(),
        3 => vec![OperationKind::Split, OperationKind::Merge, OperationKind::WishMerge],
        _ => {
            let mut drawn = OperationKind::ALL.to_vec();
            drawn.retain(|_| rng.chance(500));
            drawn
        }
    }
}

/// Most seeds get about half of the kinds; a few get one kind alone, a few all, a few none.
fn draw_faults(rng: &mut Rng) -> Vec<FaultKind> {
    match rng.below(12) {
        0 => Vec::new(),
        1 => FaultKind::ALL.to_vec(),
        2 => vec![*rng.pick(&FaultKind::ALL)],
        _ => {
            let mut drawn = FaultKind::ALL.to_vec();
            drawn.retain(|_| rng.chance(500));
            drawn
        }
    }
}

//! What is told of a run.

use super::cluster::Counts;
use super::matrix::Meetings;
use super::network::NetworkCounts;
use super::record::CallCounts;
use super::time::Nanos;
use std::fmt;

/// A run, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The hash over its events.
    pub hash: u64,
    /// Number of events.
    pub events: u64,
    /// How long it lasted.
    pub virtual_time: Nanos,
    /// What happened.
    pub counts: Counts,
    /// What happened to messages.
    pub network: NetworkCounts,
    /// Which faults met which changes.
    pub meetings: Meetings,
    /// How calls ended.
    pub calls: CallCounts,
    /// Sizes in one line.
    pub knobs: String,
    /// What went wrong, if anything.
    pub failure: Option<String>,
    /// What the timeline should be about, if not its end.
    pub focus: Option<String>,
    /// The timeline, if it was asked for.
    pub timeline: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seed, hash, events, virtual_time, counts, network, calls, .. } = self;
        writeln!(
            f,
            "seed {seed}  trace {hash:016x}  {events} events  {virtual_time} of virtual time"
        )?;
        writeln!(f, "  knobs    {}", self.knobs)?;
        writeln!(
            f,
            "  calls    {} written, {} read, {} unknown, {} failed",
            calls.written, calls.read, calls.unknown, calls.failed
        )?;
        writeln!(
            f,
            "  network  {} sent, {} lost, {} duplicated, {} delayed, {} clogged, {} cut",
            network.sent,
            network.lost,
            network.duplicated,
            network.delayed,
            network.clogged,
            network.cut
        )?;
        writeln!(
            f,
            "  stores   {} starts, {} crashes losing {} batches, {} failed disks, {} leaders, {} \
             compactions, {} snapshots, {} lease reads, {} index reads",
            counts.starts,
            counts.crashes,
            counts.batches_lost,
            counts.syncs_failed,
            counts.leaders,
            counts.compactions,
            counts.snapshots,
            counts.lease_reads,
            counts.index_reads
        )?;
        let changes = &counts.changes;
        writeln!(
            f,
            "  regions  {} splits into {} more, {} frozen, {} taken over, {} thawed, {} membership changes, \
             {} peers destroyed, {} sleeps, {} comparisons, {} stores lost",
            changes.splits,
            changes.parts,
            changes.prepared,
            changes.merges,
            changes.rollbacks,
            changes.conf_changes,
            counts.destroyed,
            counts.sleeps,
            changes.hash_checks,
            counts.stores_lost,
        )?;
        writeln!(
            f,
            "  sched.   {} terms, {} instructions, {} batches of timestamps",
            counts.scheduler_terms, counts.instructions, counts.timestamps
        )?;
        write!(f, "  orders  ")?;
        for (kind, count) in &counts.operations {
            write!(f, " {kind:?}×{count}")?;
        }
        write!(f, "\n  faults  ")?;
        for (kind, count) in &counts.faults {
            write!(f, " {kind:?}×{count}")?;
        }
        writeln!(f)?;
        for line in &self.timeline {
            writeln!(f, "  | {line}")?;
        }
        match &self.failure {
            Some(failure) => {
                writeln!(f, "FAILED seed {seed}: {failure}")?;
                writeln!(f, "replay: make sim SEED={seed}")
            }
            None => writeln!(f, "ok"),
        }
    }
}

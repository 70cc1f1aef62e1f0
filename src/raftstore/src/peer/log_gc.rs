//! Log compaction: when it is proposed, and what follows once it is applied.
//!
//! The leader looks now and then. When more than the limit has been applied since the log's start, it proposes to compact
//! up to what every live follower has, but never leaves more than `log_gc_lag_factor` times the limit for the sake of a
//! slow one: that one gets a snapshot. The command goes through the log, so every peer truncates at the same entry; each
//! applier records the truncated position with its data, and only then does the peer delete the entries (M11).

use bytes::Bytes;
use raft::{LogIndex, ProgressState, Term};

use super::{Context, Peer, TurnBuilder};
use crate::command::Command;

/// The state of one region's compaction.
#[derive(Debug, Default)]
pub(super) struct LogGc {
    /// Bytes appended since the log's start, about.
    log_bytes: u64,
    /// Whether something was appended since the last look.
    active: bool,
    /// What was last proposed, so that it is not proposed again.
    proposed: LogIndex,
    /// Recorded by the applier, to be deleted with the next log write.
    compacted: Option<(LogIndex, Term)>,
}

impl LogGc {
    pub(super) fn on_appended(&mut self, bytes: u64) {
        self.log_bytes += bytes;
        self.active = true;
    }

    pub(super) fn on_compacted(&mut self, index: LogIndex, term: Term) {
        if self.compacted.is_none_or(|(old, _)| old < index) {
            self.compacted = Some((index, term));
        }
    }

    /// A snapshot has taken the place of the log.
    pub(super) fn on_restarted(&mut self) {
        *self = LogGc::default();
    }

    pub(super) fn on_lead_lost(&mut self) {
        self.proposed = LogIndex(0);
    }

    pub(super) fn has_compacted(&self) -> bool {
        self.compacted.is_some()
    }
}

/// Where to compact to: `None` if it is not worth it. `needed` is the lowest index a live follower still has to be sent.
fn compact_index(
    truncated: LogIndex,
    applied: LogIndex,
    needed: LogIndex,
    limit: u64,
    lag_factor: u64,
) -> Option<LogIndex> {
    let count = applied.distance_from(truncated);
    if count <= limit {
        return None;
    }
    let least = LogIndex(applied.0.saturating_sub(limit.saturating_mul(lag_factor)));
    let index = applied.min(LogIndex(needed.0.saturating_sub(1))).max(least);
    (index > truncated).then_some(index)
}

impl Peer {
    /// A tick has passed for the leader's look at its log.
    pub(super) fn tick_log_gc(&mut self, context: &Context<'_>) {
        let period = u64::from(context.config.log_gc_ticks);
        if (context.tick + self.id.get()).is_multiple_of(period) {
            self.propose_compaction(context);
        }
    }

    /// Bounds the entries kept in memory; a region in which nothing happens keeps none.
    pub(super) fn trim_entry_cache(&mut self, context: &Context<'_>) {
        let look = context.tick.is_multiple_of(u64::from(context.config.log_gc_ticks));
        let idle = look && !std::mem::take(&mut self.log_gc.active);
        let keep_bytes = if idle { 0 } else { context.config.entry_cache_bytes_max as u64 };
        self.raft.storage_mut().trim_cache(self.applied_index, keep_bytes);
    }

    fn propose_compaction(&mut self, context: &Context<'_>) {
        // A frozen region makes no snapshots, so its peers must find every entry.
        if self.is_merging() {
            return;
        }
        let truncated = self.raft.storage().truncated_index();
        let count = self.applied_index.distance_from(truncated);
        let config = context.config;
        // Entries of average size: a limit in bytes becomes one in entries.
        let average_bytes = (self.log_gc.log_bytes / count.max(1)).max(1);
        let limit = config.log_gc_count_limit.min(config.log_gc_bytes_limit / average_bytes);
        if count <= limit {
            return;
        }
        let needed = self.needed_by_followers();
        let (applied, factor) = (self.applied_index, config.log_gc_lag_factor);
        let Some(index) = compact_index(truncated, applied, needed, limit, factor) else { return };
        if index <= self.log_gc.proposed {
            return;
        }
        let Ok(term) = raft::Storage::term(self.raft.storage(), index) else { return };
        let data = Command::CompactLog { index, term }.encode();
        if let Ok(at) = self.raft.propose(Bytes::new(), data) {
            self.proposals.push(at, self.raft.term(), context.now, Vec::new());
            self.log_gc.proposed = index;
        }
    }

    /// The lowest index that some live follower has yet to be sent.
    fn needed_by_followers(&self) -> LogIndex {
        let progress = self.raft.status().progress;
        let live = progress.iter().filter(|p| p.id.0 != self.me.id && p.recent_active);
        let needed = live.map(|p| match p.state {
            ProgressState::Snapshot => p.pending_snapshot.next(),
            ProgressState::Probe | ProgressState::Replicate => p.matched.next(),
        });
        needed.min().unwrap_or(self.applied_index.next())
    }

    /// Deletes what the applier has recorded as truncated.
    pub(super) fn delete_compacted(&mut self, out: &mut TurnBuilder) {
        let Some((index, term)) = self.log_gc.compacted.take() else { return };
        let storage = self.raft.storage_mut();
        let before = self.applied_index.distance_from(storage.truncated_index());
        storage.truncate(index, term, &mut out.batch);
        let after = self.applied_index.distance_from(index);
        self.log_gc.log_bytes = self.log_gc.log_bytes * after / before.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(truncated: u64, applied: u64, needed: u64) -> Option<u64> {
        let [truncated, applied, needed] = [truncated, applied, needed].map(LogIndex);
        compact_index(truncated, applied, needed, 100, 4).map(|index| index.0)
    }

    #[test]
    fn a_short_log_is_left_alone() {
        assert_eq!(compact(5, 105, 106), None);
        assert_eq!(compact(5, 106, 107), Some(106));
    }

    #[test]
    fn what_a_live_follower_needs_stays_within_bounds() {
        assert_eq!(compact(5, 300, 51), Some(50));
        assert_eq!(compact(5, 300, 6), None, "it needs everything");
        assert_eq!(compact(5, 1000, 6), Some(600), "too far behind: a snapshot is cheaper");
    }
}

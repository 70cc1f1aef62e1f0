//! What a leader knows about one member, and what it may send it next.
//!
//! States: *probe* sends one append at a time until the logs are known to match; *replicate* keeps
//! a window of appends in flight and moves `next` forward when it sends; *snapshot* waits for a
//! snapshot to arrive. Invariant: `matched < next`. Tests: `testscripts/flow_*`,
//! `testscripts/snapshot_*`, `testscripts/replication_*`.

use crate::inflights::Inflights;
use crate::planted::{Bug, planted};
use crate::{LogIndex, ProgressState};

/// One member as the leader sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Highest index known to be durable there and equal to the leader's.
    pub(crate) matched: LogIndex,
    /// Next index to send.
    pub(crate) next: LogIndex,
    pub(crate) state: ProgressState,
    /// Index of the snapshot on its way, in state snapshot.
    pub(crate) pending_snapshot: LogIndex,
    /// Not 0: the member asked for a snapshot at or after this index.
    pub(crate) requested_snapshot: LogIndex,
    /// A probe is out and not answered.
    pub(crate) probe_sent: bool,
    /// Heard since the last quorum check.
    pub(crate) recent_active: bool,
    /// The commit index it last told.
    pub(crate) commit: LogIndex,
    /// The commit index it was last told.
    pub(crate) commit_sent: LogIndex,
    pub(crate) inflights: Inflights,
}

/// Limits of the window, from the config.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowMax {
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
}

impl Progress {
    pub(crate) fn new(next: LogIndex) -> Progress {
        Progress { next, ..Progress::default() }
    }

    fn enter(&mut self, state: ProgressState) {
        self.state = state;
        self.probe_sent = false;
        self.pending_snapshot = LogIndex(0);
        self.inflights.reset();
    }

    pub(crate) fn become_probe(&mut self) {
        let after_snapshot = match self.state {
            ProgressState::Snapshot => self.pending_snapshot.next(),
            ProgressState::Probe | ProgressState::Replicate => LogIndex(0),
        };
        self.enter(ProgressState::Probe);
        self.next = self.matched.next().max(after_snapshot);
        self.commit_sent = self.commit_sent.min(self.matched);
    }

    pub(crate) fn become_replicate(&mut self) {
        self.enter(ProgressState::Replicate);
        self.next = self.matched.next();
    }

    pub(crate) fn become_snapshot(&mut self, index: LogIndex) {
        self.enter(ProgressState::Snapshot);
        self.pending_snapshot = index;
    }

    /// The member acknowledged `index`. True if that is news.
    pub(crate) fn acknowledge(&mut self, index: LogIndex) -> bool {
        let news = index > self.matched;
        if news {
            self.matched = index;
            self.probe_sent = false;
        }
        self.next = self.next.max(index.next());
        news
    }

    /// The member rejected an append after `rejected`, its log may match up to `hint`. False if the
    /// answer is stale.
    pub(crate) fn reject(&mut self, rejected: LogIndex, hint: LogIndex) -> bool {
        match self.state {
            ProgressState::Replicate => {
                if rejected <= self.matched {
                    return false;
                }
                self.become_probe();
            }
            ProgressState::Probe | ProgressState::Snapshot => {
                if self.next.0 != rejected.0 + 1 {
                    return false;
                }
                let floor = match planted(Bug::NextBelowMatch) {
                    true => LogIndex(1),
                    false => self.matched.next(),
                };
                self.next = rejected.min(hint.next()).max(floor);
                self.probe_sent = false;
            }
        }
        true
    }

    /// Whether nothing more may be sent before the member answers.
    pub(crate) fn is_paused(&self, max: WindowMax) -> bool {
        match self.state {
            ProgressState::Probe => self.probe_sent,
            ProgressState::Replicate => self.inflights.is_full(max.messages, max.bytes),
            ProgressState::Snapshot => true,
        }
    }

    /// Notes an append that carries entries up to `last`, of `bytes` in all.
    pub(crate) fn sent(&mut self, last: LogIndex, bytes: u64) {
        match self.state {
            ProgressState::Probe => self.probe_sent = true,
            ProgressState::Replicate => {
                self.next = last.next();
                self.inflights.add(last, bytes);
            }
            ProgressState::Snapshot => unreachable!("no append while a snapshot is on its way"),
        }
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.matched < self.next, "matched {} reaches next {}", self.matched, self.next);
    }
}

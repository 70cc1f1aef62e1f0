//! What a leader sends: appends, snapshots, heartbeats (thesis §3.5, §5, §10.2.1).
//!
//! Appends are not sent when a proposal comes in but when the next Ready is made, so that all
//! proposals in between travel in one message per follower, and the commit index with them. Tests:
//! `testscripts/replication_*`, `flow_*`, `snapshot_*`.

use bytes::Bytes;

use crate::core::Raft;
use crate::planted::{Bug, planted};
use crate::{
    Append, Entry, LogIndex, MessageBody, NodeId, ProgressState, Role, Storage, StorageError,
};

impl<S: Storage> Raft<S> {
    /// Sends every follower what it lacks, as far as its window allows.
    pub(crate) fn replicate(&mut self) {
        if !std::mem::take(&mut self.replicate_due) || self.role != Role::Leader {
            return;
        }
        for position in 0..self.tracker.len() {
            let id = self.tracker.at(position);
            if id != self.id {
                while self.send_append(id, false) {}
            }
        }
    }

    /// Sends one append, or a snapshot if the entries are gone. With `even_empty` also one that
    /// carries nothing. True if it carried entries and there may be more.
    pub(crate) fn send_append(&mut self, id: NodeId, even_empty: bool) -> bool {
        let max = self.window_max();
        let Some(progress) = self.tracker.get(id) else { return false };
        if progress.requested_snapshot != LogIndex(0) {
            self.send_snapshot(id);
            return false;
        }
        let full = progress.is_paused(max);
        if full && (progress.state != ProgressState::Replicate || !even_empty) {
            return false;
        }
        let (next, commit_sent) = (progress.next, progress.commit_sent);
        let last = self.log.last_index();
        let commit_news =
            self.config.commit_broadcast && commit_sent < self.log.committed.min(next.prev());
        if next > last && !even_empty && !commit_news {
            return false;
        }
        let prev_index = next.prev();
        let found = self.log.term(prev_index).and_then(|prev_term| {
            let entries = if full || next > last { Vec::new() } else { self.fetch(next, last)? };
            Ok((prev_term, entries))
        });
        let (prev_term, entries) = match found {
            Ok(found) => found,
            Err(StorageError::Compacted) => {
                self.send_snapshot(id);
                return false;
            }
            // Not readable just now: the next heartbeat's answer tries again.
            Err(_) => return false,
        };
        let commit = self.log.committed;
        let last_sent = prev_index + entries.len() as u64;
        let bytes = entries.iter().map(Entry::size_bytes).sum();
        let carried = !entries.is_empty();
        let progress = self.tracker.get_mut(id).expect("a member");
        progress.commit_sent = progress.commit_sent.max(commit.min(last_sent));
        if carried || progress.state == ProgressState::Probe {
            progress.sent(last_sent, bytes);
        }
        let more = carried && progress.state == ProgressState::Replicate && last_sent < last;
        self.send(id, MessageBody::Append(Append { prev_index, prev_term, entries, commit }));
        more
    }

    fn fetch(&self, from: LogIndex, last: LogIndex) -> Result<Vec<Entry>, StorageError> {
        self.log.entries(from, last.next(), self.config.message_entries_bytes_max)
    }

    fn send_snapshot(&mut self, id: NodeId) {
        let progress = self.tracker.get(id).expect("a member");
        if !progress.recent_active || progress.state == ProgressState::Snapshot {
            return;
        }
        let Ok(snapshot) = self.log.storage.snapshot(progress.requested_snapshot, id) else {
            // Not ready, or failed: the next heartbeat's answer tries again.
            return;
        };
        let usable = snapshot.index > LogIndex(0)
            && snapshot.index <= self.log.committed
            && snapshot.conf_state.contains(id);
        if !usable {
            // One taken before `id` joined would be refused there: wait for a newer one.
            return;
        }
        let progress = self.tracker.get_mut(id).expect("a member");
        progress.become_snapshot(snapshot.index);
        progress.requested_snapshot = LogIndex(0);
        self.send(id, MessageBody::Snapshot(snapshot));
    }

    /// Sends every member a heartbeat that carries `context`.
    pub(crate) fn send_heartbeats(&mut self, context: &Bytes) {
        let committed = self.log.committed;
        for position in 0..self.tracker.len() {
            let id = self.tracker.at(position);
            if id == self.id {
                continue;
            }
            let matched = self.tracker.get(id).map_or(LogIndex(0), |progress| progress.matched);
            // A follower must not commit what it may not have.
            let commit = match planted(Bug::HeartbeatCommitUnmatched) {
                true => committed,
                false => committed.min(matched),
            };
            self.send(id, MessageBody::Heartbeat { commit, context: context.clone() });
        }
    }

    /// Heartbeats, carrying the newest read round if it is still awaited.
    pub(crate) fn heartbeat(&mut self) {
        let context = self.round_context_for_heartbeat();
        self.send_heartbeats(&context);
    }

    /// A message to `id` could not be delivered: what is in flight is probably lost.
    pub(crate) fn report_unreachable(&mut self, id: NodeId) {
        if self.role == Role::Leader
            && let Some(progress) = self.tracker.get_mut(id)
            && progress.state == ProgressState::Replicate
        {
            progress.become_probe();
        }
    }

    /// The snapshot sent to `id` has arrived, or has not.
    pub(crate) fn report_snapshot(&mut self, id: NodeId, ok: bool) {
        if self.role == Role::Leader
            && let Some(progress) = self.tracker.get_mut(id)
            && progress.state == ProgressState::Snapshot
        {
            if !ok {
                progress.pending_snapshot = LogIndex(0);
            }
            progress.become_probe();
            // Wait for its answer, or for a heartbeat's, before the next try.
            progress.probe_sent = true;
        }
    }
}

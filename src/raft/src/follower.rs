//! What a follower does with messages of its term: it takes over the leader's log (thesis §3.5,
//! §5).

use crate::conf_change::Membership;
use crate::core::Raft;
use crate::election::Campaign;
use crate::log::Appended;
use crate::planted::{Bug, planted};
use crate::{
    Append, AppendResponse, Error, LogIndex, MessageBody, NodeId, ReadState, Refusal, Reject,
    Snapshot, Storage,
};

impl<S: Storage> Raft<S> {
    pub(crate) fn step_follower(&mut self, from: NodeId, body: MessageBody) -> Result<(), Error> {
        match body {
            MessageBody::Append(append) => {
                self.follow(from)?;
                self.take_append(from, append)
            }
            MessageBody::Heartbeat { commit, context } => {
                self.follow(from)?;
                self.take_heartbeat_commit(from, commit)?;
                let commit = self.log.committed;
                self.send(from, MessageBody::HeartbeatResponse { commit, context });
                if self.requested_snapshot != LogIndex(0) {
                    self.send_snapshot_request(from);
                }
                Ok(())
            }
            MessageBody::Snapshot(snapshot) => {
                self.follow(from)?;
                self.take_snapshot(from, snapshot);
                Ok(())
            }
            MessageBody::TimeoutNow => {
                self.campaign(Campaign::Transfer);
                Ok(())
            }
            MessageBody::ReadIndexResponse { index, context } => {
                if let Some(context) = self.forwarded.answer(&context) {
                    self.read_states.push(ReadState { index, context });
                }
                Ok(())
            }
            MessageBody::TransferLeader => {
                self.forward_transfer(from);
                Ok(())
            }
            MessageBody::Propose(_) => Err(Error::NotLeader { leader: self.leader }),
            _ => Ok(()),
        }
    }

    /// Takes the sender for the leader of this term.
    fn follow(&mut self, from: NodeId) -> Result<(), Error> {
        match self.leader {
            Some(leader) if leader != from => {
                return Err(Self::refused(from, Refusal::SecondLeader(leader)));
            }
            Some(_) => {}
            None => self.leader = Some(from),
        }
        self.heard_leader();
        Ok(())
    }

    fn take_heartbeat_commit(&mut self, from: NodeId, commit: LogIndex) -> Result<(), Error> {
        let last_index = self.log.last_index();
        if commit > last_index && !planted(Bug::HeartbeatCommitUnmatched) {
            // A leader tells no more than this node has acknowledged: here, or there, entries were
            // lost.
            return Err(Self::refused(from, Refusal::CommitBeyondLog { commit, last_index }));
        }
        self.log.commit_to(commit.min(last_index));
        Ok(())
    }

    fn take_append(&mut self, from: NodeId, append: Append) -> Result<(), Error> {
        if self.tracker.len() == 0 && self.requested_snapshot == LogIndex(0) {
            // Entries tell how the membership changed, not what it was: only a snapshot does.
            self.requested_snapshot = self.log.committed.max(LogIndex(1));
        }
        if self.requested_snapshot != LogIndex(0) {
            self.send_snapshot_request(from);
            return Ok(());
        }
        let Append { prev_index, prev_term, entries, commit } = append;
        if prev_index < self.log.committed {
            self.acknowledge(from, self.log.committed);
            return Ok(());
        }
        let appended = self.log.append((prev_index, prev_term), entries);
        match appended.map_err(|reason| Self::refused(from, reason))? {
            Appended::Match { last_new, written_from } => {
                if let Some(written_from) = written_from {
                    self.writes.overwrite_from(written_from);
                }
                self.log.commit_to(commit.min(last_new));
                self.acknowledge(from, last_new);
            }
            Appended::Mismatch => {
                let hint = prev_index.min(self.log.last_index());
                // Up to the commit index all logs agree.
                let floor = self.log.committed;
                let (hint_index, hint_term) = self.log.last_not_after_term(hint, prev_term, floor);
                let response = AppendResponse {
                    index: prev_index,
                    reject: Some(Reject { hint_index, hint_term }),
                    commit: self.log.committed,
                    request_snapshot: LogIndex(0),
                };
                self.send(from, MessageBody::AppendResponse(response));
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, to: NodeId, index: LogIndex) {
        let commit = self.log.committed;
        let response = AppendResponse { index, commit, ..AppendResponse::default() };
        self.send(to, MessageBody::AppendResponse(response));
    }

    fn take_snapshot(&mut self, from: NodeId, snapshot: Snapshot) {
        let requested = self.requested_snapshot != LogIndex(0);
        let floor = if requested { self.requested_snapshot } else { self.log.committed.next() };
        let floor = floor.max(self.log.committed);
        if snapshot.index < floor && !planted(Bug::SnapshotRollback) {
            self.acknowledge(from, self.log.committed);
            return;
        }
        if !requested && self.log.matches(snapshot.index, snapshot.term) {
            // The entries are here already: all the snapshot says is that they are committed.
            self.log.commit_to(snapshot.index);
            self.acknowledge(from, self.log.committed);
            return;
        }
        let membership = Membership::restore(&snapshot.conf_state);
        let membership = membership.expect("inspected on admission");
        self.requested_snapshot = LogIndex(0);
        self.writes.forget_entries();
        self.log.restore(snapshot);
        self.tracker.change(membership, self.log.last_index().next());
        self.acknowledge(from, self.log.last_index());
    }

    /// Asks the leader for a snapshot at or after the present commit index.
    pub(crate) fn request_snapshot(&mut self) -> Result<(), Error> {
        let Some(leader) = self.leader.filter(|leader| *leader != self.id) else {
            return Err(Error::RequestSnapshot { reason: "no leader to ask" });
        };
        if self.log.tail.snapshot.is_some() || self.requested_snapshot != LogIndex(0) {
            return Err(Error::RequestSnapshot { reason: "one is on its way" });
        }
        self.requested_snapshot = self.log.committed.max(LogIndex(1));
        self.send_snapshot_request(leader);
        Ok(())
    }

    fn send_snapshot_request(&mut self, to: NodeId) {
        let commit = self.log.committed;
        let response = AppendResponse {
            index: commit,
            reject: Some(Reject {
                hint_index: self.log.last_index(),
                hint_term: self.log.term(commit).unwrap_or_default(),
            }),
            commit,
            request_snapshot: self.requested_snapshot,
        };
        self.send(to, MessageBody::AppendResponse(response));
    }
}

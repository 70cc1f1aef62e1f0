//! What a leader does with proposals and with the answers of its followers (thesis §3.5, §3.6.2).
//!
//! Invariants: the commit index rises only to what a majority has on disk and only once that
//! includes an entry of this term; proposals are refused, never dropped silently. Tests:
//! `testscripts/replication_*`, `flow_*`.

use bytes::Bytes;

use crate::core::Raft;
use crate::planted::{Bug, planted};
use crate::{
    AppendResponse, Entry, Error, LogIndex, MessageBody, NodeId, ProgressState, Refusal, Role,
    Storage, Term,
};

impl<S: Storage> Raft<S> {
    pub(crate) fn step_leader(&mut self, from: NodeId, body: MessageBody) -> Result<(), Error> {
        match body {
            MessageBody::Propose(entries) => self.take_proposal(from, entries),
            MessageBody::AppendResponse(response) => self.take_append_response(from, &response),
            MessageBody::HeartbeatResponse { commit, context } => {
                self.take_heartbeat_response(from, commit, &context);
                Ok(())
            }
            MessageBody::TransferLeader => {
                self.start_transfer(from);
                Ok(())
            }
            MessageBody::ReadIndex { context } => {
                self.lead_read(Some(from), context);
                Ok(())
            }
            MessageBody::Append(_) | MessageBody::Heartbeat { .. } | MessageBody::Snapshot(_) => {
                // Two leaders in one term: at most one of them is honest.
                Err(Self::refused(from, Refusal::SecondLeader(self.id)))
            }
            _ => Ok(()),
        }
    }

    /// Whether an entry of this leader's term is committed, so that its commit index is the
    /// group's.
    pub(crate) fn is_term_committed(&self) -> bool {
        self.log.committed >= self.term_start
    }

    /// Appends a command. Returns the index it got.
    pub(crate) fn propose(&mut self, context: Bytes, data: Bytes) -> Result<LogIndex, Error> {
        self.admit_proposal((context.len() + data.len()) as u64)?;
        Ok(self.append_own(crate::EntryKind::Normal, context, data))
    }

    /// Refuses a proposal this node cannot take, else charges for it.
    pub(crate) fn admit_proposal(&mut self, payload_bytes: u64) -> Result<(), Error> {
        if self.role != Role::Leader {
            return Err(Error::NotLeader { leader: self.leader });
        }
        if let Some(transferee) = self.transferee
            && !planted(Bug::TransferDoesNotBlockProposals)
        {
            return Err(Error::TransferInProgress { transferee });
        }
        let (bytes, bytes_max) = (self.uncommitted_bytes, self.config.uncommitted_bytes_max);
        // One proposal always fits, and what carries nothing costs nothing.
        if payload_bytes > 0 && bytes > 0 && bytes + payload_bytes > bytes_max {
            return Err(Error::UncommittedFull { bytes, bytes_max });
        }
        self.uncommitted_bytes += payload_bytes;
        Ok(())
    }

    /// Committed entries were handed out: the proposals among them are not charged any more.
    pub(crate) fn refund(&mut self, entries: &[Entry]) {
        if self.role == Role::Leader && self.uncommitted_bytes > 0 {
            let own = entries.iter().filter(|entry| entry.index >= self.term_start);
            let bytes: u64 = own.map(Entry::payload_bytes).sum();
            self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(bytes);
        }
    }

    /// A proposal forwarded by a follower.
    fn take_proposal(&mut self, from: NodeId, entries: Vec<Entry>) -> Result<(), Error> {
        for entry in entries {
            if entry.kind.is_conf_change() {
                let change = crate::wire::decode_conf_change(&entry);
                let change = change.map_err(|_| Self::refused(from, Refusal::MalformedProposal))?;
                self.admit_conf_change(&change)?;
                self.admit_proposal(entry.payload_bytes())?;
                self.pending_conf_index = self.append_own(entry.kind, entry.context, entry.data);
            } else {
                self.propose(entry.context, entry.data)?;
            }
        }
        Ok(())
    }

    fn take_append_response(
        &mut self,
        from: NodeId,
        response: &AppendResponse,
    ) -> Result<(), Error> {
        let last_index = self.log.last_index();
        if response.reject.is_none() && response.index > last_index {
            let index = response.index;
            return Err(Self::refused(from, Refusal::AcknowledgesUnknown { index, last_index }));
        }
        let Some(progress) = self.tracker.get_mut(from) else { return Ok(()) };
        progress.recent_active = true;
        progress.commit = progress.commit.max(response.commit);
        if response.request_snapshot != LogIndex(0) {
            self.take_snapshot_request(from, response);
        } else if let Some(reject) = response.reject {
            let hint = match reject.hint_term {
                Term(0) => reject.hint_index,
                term => {
                    let known = reject.hint_index.min(last_index);
                    self.log.last_not_after_term(known, term, LogIndex(0)).0
                }
            };
            let progress = self.tracker.get_mut(from).expect("a member");
            if progress.reject(response.index, hint) {
                self.send_append(from, true);
            }
        } else {
            self.take_acknowledgement(from, response.index);
        }
        Ok(())
    }

    fn take_snapshot_request(&mut self, from: NodeId, response: &AppendResponse) {
        let progress = self.tracker.get_mut(from).expect("a member");
        let stale = response.index < progress.matched && progress.state != ProgressState::Probe;
        if stale || progress.state == ProgressState::Snapshot {
            return;
        }
        progress.become_probe();
        progress.requested_snapshot = response.request_snapshot;
        self.send_append(from, true);
    }

    fn take_acknowledgement(&mut self, from: NodeId, index: LogIndex) {
        let (first_index, last_index) = (self.log.first_index(), self.log.last_index());
        let progress = self.tracker.get_mut(from).expect("a member");
        let news = progress.acknowledge(index);
        match progress.state {
            ProgressState::Probe if news || index == progress.matched => {
                progress.become_replicate()
            }
            ProgressState::Probe => {}
            ProgressState::Replicate => progress.inflights.free_to(index),
            ProgressState::Snapshot if news && progress.matched.next() >= first_index => {
                progress.become_probe();
                progress.become_replicate();
            }
            ProgressState::Snapshot => {}
        }
        let (matched, next) = (progress.matched, progress.next);
        // While it was probed it may have missed both entries and the commit index.
        let commit_news = progress.commit_sent < self.log.committed.min(matched);
        self.replicate_due |= next <= last_index || commit_news;
        if news {
            self.advance_commit();
        }
        if self.transferee == Some(from) && matched == last_index {
            self.send_timeout_now(from);
        }
    }

    fn take_heartbeat_response(&mut self, from: NodeId, commit: LogIndex, context: &Bytes) {
        let last_index = self.log.last_index();
        let Some(progress) = self.tracker.get_mut(from) else { return };
        progress.recent_active = true;
        progress.commit = progress.commit.max(commit);
        progress.probe_sent = false;
        // A probe that nothing follows would last for ever, and its member count as one that lags.
        let behind = progress.matched < last_index
            || progress.state == ProgressState::Probe
            || progress.requested_snapshot != LogIndex(0);
        if behind {
            // An append may have been lost; even an empty one finds out, and does not need the
            // window.
            self.send_append(from, true);
        }
        self.take_read_ack(from, context);
    }

    /// Commits what a majority has on disk, if that includes an entry of this term (thesis §3.6.2).
    pub(crate) fn advance_commit(&mut self) {
        let reached = self.tracker.reached_index().min(self.log.last_index());
        let own_term = reached >= self.term_start || planted(Bug::CommitPriorTerm);
        if reached <= self.log.committed || !own_term {
            return;
        }
        let first_of_term = !self.is_term_committed();
        self.log.commit_to(reached);
        self.replicate_due = true;
        if first_of_term && self.is_term_committed() {
            self.release_postponed_reads();
            self.leave_joint_if_due();
        }
    }

    /// This leader's own log is durable up to its `persisted` index: that counts like a follower's
    /// answer.
    pub(crate) fn acknowledge_own(&mut self) {
        let persisted = self.log.persisted;
        if let Some(own) = self.tracker.get_mut(self.id)
            && own.acknowledge(persisted)
        {
            self.advance_commit();
        }
    }
}

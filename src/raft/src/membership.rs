//! Changing the membership (thesis §4): propose a change, apply it, leave a joint state.
//!
//! Invariants: a change takes effect when its entry is applied; a leader proposes one only when it
//! has committed an entry of its own term and applied every earlier change; a refused change is an
//! error to its proposer; the joint state is left by one entry, proposed by a leader that has
//! applied the entry that entered it. Tests: `testscripts/conf_change_*`.

use bytes::Bytes;

use crate::conf_change::Membership;
use crate::core::Raft;
use crate::planted::{Bug, planted};
use crate::{ConfChangeV2, ConfState, EntryKind, Error, LogIndex, Role, Storage, Term};

impl<S: Storage> Raft<S> {
    /// Appends a membership change. Returns the index it got.
    pub(crate) fn propose_conf_change(
        &mut self,
        context: Bytes,
        change: &ConfChangeV2,
    ) -> Result<LogIndex, Error> {
        self.admit_conf_change(change)?;
        let data = crate::wire::encode_conf_change(change);
        self.admit_proposal((context.len() + data.len()) as u64)?;
        self.pending_conf_index = self.append_own(EntryKind::ConfChangeV2, context, data);
        Ok(self.pending_conf_index)
    }

    /// Refuses a change that must not be proposed now.
    pub(crate) fn admit_conf_change(&self, change: &ConfChangeV2) -> Result<(), Error> {
        if self.role != Role::Leader {
            return Err(Error::NotLeader { leader: self.leader });
        }
        if !self.is_term_committed() {
            return Err(Error::TermNotCommitted { term: self.term });
        }
        if self.pending_conf_index > self.log.applied && !planted(Bug::ManyPendingConfChanges) {
            return Err(Error::ConfChangePending { index: self.pending_conf_index });
        }
        self.tracker.membership().changed(change)?;
        Ok(())
    }

    /// Takes a committed change into effect.
    pub(crate) fn apply_conf_change(&mut self, change: &ConfChangeV2) -> Result<ConfState, Error> {
        let membership = self.tracker.membership().changed(change)?;
        let state = membership.conf_state();
        // A newcomer is probed at the last entry, so that its answer tells at once what it lacks.
        let next = self.log.last_index().max(LogIndex(1));
        self.tracker.change(membership, next);
        if self.role != Role::Follower && !self.tracker.is_voter(self.id) {
            self.leave_office();
        } else if self.role == Role::Leader {
            self.review_majority();
        }
        Ok(state)
    }

    /// Begins behind (`index`, `term`) with the membership `state`, without having had either.
    pub(crate) fn begin_at(&mut self, index: LogIndex, term: Term, state: &ConfState) {
        assert!(self.tracker.len() == 0, "a node with a membership has begun already");
        let membership = Membership::restore(state).expect("the driver gives a valid membership");
        self.log.begin_at(index, term);
        self.requested_snapshot = LogIndex(0);
        if term > self.term {
            self.become_follower(term, None);
        }
        // It may have waited for long: whoever else begins now must have the same patience.
        self.election_elapsed_ticks = 0;
        self.draw_election_timeout();
        self.tracker.change(membership, index.next());
    }

    /// This node is no voter any more: it stops leading or campaigning.
    fn leave_office(&mut self) {
        if self.role == Role::Leader {
            if planted(Bug::RemovedLeaderStays) {
                return;
            }
            // The others still have to learn that its removal is committed.
            self.replicate_due = true;
            self.replicate();
        }
        self.become_follower(self.term, None);
    }

    /// Who makes a majority has changed: what waited for one may have it now.
    fn review_majority(&mut self) {
        self.advance_commit();
        self.confirm_reads();
        self.replicate_due = true;
        if self.transferee.is_some_and(|id| !self.tracker.is_voter(id)) {
            self.abort_transfer();
        }
    }

    /// Proposes to leave the joint state once the change that entered it is applied.
    pub(crate) fn leave_joint_if_due(&mut self) {
        let due = self.role == Role::Leader
            && self.tracker.membership().auto_leave
            && self.pending_conf_index <= self.log.applied
            && self.is_term_committed()
            && self.transferee.is_none();
        if due {
            self.pending_conf_index =
                self.append_own(EntryKind::ConfChangeV2, Bytes::new(), Bytes::new());
        }
    }
}

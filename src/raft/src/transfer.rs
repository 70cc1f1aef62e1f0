//! Handing leadership over (thesis §3.10): stop taking proposals, bring the transferee up to date,
//! tell it to campaign.
//!
//! Invariants: a transfer ends with this leadership or after one election timeout; once
//! `TimeoutNow` has left, no lease is used for the rest of the term, whatever becomes of the
//! transfer. Tests: `testscripts/transfer_*`.

use crate::core::Raft;
use crate::{MessageBody, NodeId, Role, Storage, Term};

impl<S: Storage> Raft<S> {
    /// Hands leadership to `to`, or asks the leader to.
    pub(crate) fn transfer_leader(&mut self, to: NodeId) {
        match self.role {
            Role::Leader => self.start_transfer(to),
            _ => self.forward_transfer(to),
        }
    }

    pub(crate) fn forward_transfer(&mut self, transferee: NodeId) {
        if let Some(leader) = self.leader {
            self.send_in_term(leader, self.term, MessageBody::TransferLeader);
            let message = self.messages.last_mut().expect("just queued");
            message.from = transferee;
        }
    }

    pub(crate) fn start_transfer(&mut self, to: NodeId) {
        // A learner, or a node that is leaving, could not win.
        if !self.tracker.membership().voters.incoming.contains(to) || self.transferee == Some(to) {
            return;
        }
        self.abort_transfer();
        if to == self.id {
            return;
        }
        self.election_elapsed_ticks = 0;
        self.transferee = Some(to);
        let matched = self.tracker.get(to).map(|progress| progress.matched);
        if matched == Some(self.log.last_index()) {
            self.send_timeout_now(to);
        } else {
            self.send_append(to, true);
        }
    }

    pub(crate) fn send_timeout_now(&mut self, to: NodeId) {
        assert_ne!(self.term, Term(0));
        self.lease_void = true;
        self.send(to, MessageBody::TimeoutNow);
    }

    /// Takes proposals again.
    pub(crate) fn abort_transfer(&mut self) {
        if self.transferee.take().is_some() {
            self.leave_joint_if_due();
        }
    }
}

//! Logical time: what happens when a tick passes.
//!
//! A tick allocates nothing unless something is due.

use crate::core::Raft;
use crate::election::Campaign;
use crate::planted::{Bug, planted};
use crate::{Role, Storage};

impl<S: Storage> Raft<S> {
    pub(crate) fn tick(&mut self) {
        self.defends_ticks = self.defends_ticks.saturating_sub(1);
        self.election_elapsed_ticks += 1;
        match self.role {
            Role::Leader => self.tick_leader(),
            Role::Follower | Role::PreCandidate | Role::Candidate => self.tick_election(),
        }
    }

    fn tick_election(&mut self) {
        if !self.forwarded.is_empty() {
            let expired = self.forwarded.tick(self.config.election_timeout_ticks);
            self.dropped_reads.extend(expired);
        }
        if self.election_elapsed_ticks >= self.election_timeout_ticks && self.is_promotable() {
            self.election_elapsed_ticks = 0;
            self.campaign(Campaign::Timeout);
        }
    }

    fn tick_leader(&mut self) {
        self.reads.tick += 1;
        self.heartbeat_elapsed_ticks += 1;
        if self.election_elapsed_ticks >= self.config.election_timeout_ticks {
            self.election_elapsed_ticks = 0;
            let active = self.tracker.take_quorum_active(self.id);
            if self.config.check_quorum && !active && !planted(Bug::LeaderIgnoresLostQuorum) {
                self.become_follower(self.term, None);
                return;
            }
            // A transfer that took this long has failed.
            self.abort_transfer();
        }
        if self.heartbeat_elapsed_ticks >= self.config.heartbeat_interval_ticks {
            self.heartbeat_elapsed_ticks = 0;
            self.heartbeat();
        }
    }
}

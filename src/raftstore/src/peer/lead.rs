//! Gaining, keeping and losing the lead.
//!
//! After everything that may change Raft's role, [`Peer::observe_lead`] compares. A lost lead withdraws the delegate first,
//! then answers everybody: what waited to be proposed is "not leader" (nothing happened), what was proposed is "stale" (the
//! next leader may still commit it).

use std::sync::Arc;

use proto::ids::PeerId;
use proto::metapb;
use raft::{NodeId, Role};

use super::{Context, Peer};
use crate::config::ReadMode;
use crate::error::RegionError;
use crate::lease::Lease;
use crate::local_reader::ReadDelegate;
use crate::msg::RequestHeader;
use crate::planted::{Bug, planted};
use crate::reply::Reply;
use crate::time::Instant;

impl Peer {
    /// Compares Raft's role with what was last noticed, and acts on the difference.
    pub(super) fn observe_lead(&mut self, context: &Context<'_>) {
        let leading = (self.raft.role() == Role::Leader).then(|| self.raft.term());
        if leading == self.leading {
            return;
        }
        if self.leading.is_some() {
            self.step_down(context);
        }
        self.leading = leading;
        if let Some(term) = leading {
            self.lease = Some(Lease::new(term, context.config.lease()));
            self.heartbeat_due = true;
            self.restart_load(context.now);
            self.proposals.give_up();
            self.heard.all_at(context.tick, &self.region);
            // The first entry of the term is Raft's own; its commit is the first thing a quorum confirms.
            self.proposals.push(self.raft.last_index(), term, context.now, Vec::new());
            self.publish_delegate(context);
        }
    }

    fn step_down(&mut self, context: &Context<'_>) {
        self.withdraw_delegate(context);
        self.lease = None;
        self.transferring = false;
        self.boundary_index = raft::LogIndex(0);
        self.farewells.clear();
        let error = self.not_leader();
        self.writes.take_replies().into_iter().for_each(|reply| reply.fail(error.clone()));
        self.reads.take_replies().into_iter().for_each(|reply| reply.fail(error.clone()));
        self.fail_comparisons(&error);
        if !planted(Bug::ProposalMatchedByIndexOnly) {
            self.proposals.give_up();
        }
        self.raft.storage_mut().desk_mut().clear();
        self.log_gc.on_lead_lost();
        self.forget_cuts();
        self.sleep.stop_asking();
    }

    /// The error for a request only the leader can serve, with the leader if it is known.
    pub(super) fn not_leader(&self) -> RegionError {
        let leader = self.raft.leader_id().filter(|id| id.0 != self.me.id);
        let leader = leader.and_then(|id| self.find_peer(PeerId::from(id.0))).copied();
        RegionError::NotLeader { region: self.id, leader }
    }

    /// Makes the region readable without the store loop, if everything of earlier terms is applied (R13).
    pub(super) fn publish_delegate(&mut self, context: &Context<'_>) {
        let Some(term) = self.leading else { return };
        let bugs = [Bug::LeaseBeforeOwnTermApplied, Bug::ReadBeforeApplied];
        let may_read = self.is_caught_up() || bugs.into_iter().any(planted);
        if self.delegate.is_some() || !may_read || self.install.is_some() || self.is_merging() {
            return;
        }
        let delegate = Arc::new(ReadDelegate::new(self.region.clone(), self.peer_id(), term));
        context.registry.publish(self.id, delegate.clone());
        self.delegate = Some(delegate);
        self.show_lease(context);
    }

    /// Whether this leader has applied an entry of its own term, and with it everything of earlier ones.
    pub(super) fn is_caught_up(&self) -> bool {
        self.leading == Some(self.applied_term)
    }

    pub(super) fn withdraw_delegate(&mut self, context: &Context<'_>) {
        self.collect_reads();
        if self.delegate.take().is_some() {
            context.registry.withdraw(self.id);
        }
    }

    /// The delegate that permits for confirmed reads are made of.
    pub(super) fn permit_delegate(&self) -> Option<Arc<ReadDelegate>> {
        self.delegate.clone()
    }

    /// A quorum has confirmed something this leader sent at `sent`.
    pub(super) fn renew_lease(&mut self, sent: Instant, context: &Context<'_>) {
        let Some(term) = self.leading else { return };
        let changing = self.is_changing_boundaries() && !planted(Bug::LeaseDuringSplit);
        if changing || (self.is_merging() && !planted(Bug::SourceServesWhileMerging)) {
            return;
        }
        let renewed = self.lease.as_mut().is_some_and(|lease| lease.renew(term, sent, context.now));
        if renewed {
            self.show_lease(context);
        }
    }

    /// What has been committed was confirmed by a quorum after it was proposed.
    pub(super) fn renew_lease_by_commit(&mut self, context: &Context<'_>) {
        if self.leading.is_none() {
            return;
        }
        if let Some(sent) = self.proposals.newest_committed_at(self.raft.commit_index()) {
            self.renew_lease(sent, context);
        }
    }

    pub(super) fn show_lease(&self, context: &Context<'_>) {
        if !self.is_caught_up() && !planted(Bug::LeaseBeforeOwnTermApplied) {
            return;
        }
        if let (Some(lease), Some(delegate)) = (self.lease, &self.delegate)
            && context.config.reads == ReadMode::Lease
        {
            delegate.set_lease(lease.until());
        }
    }

    /// Whether the lead is being handed to another peer.
    pub(super) fn is_transferring(&self) -> bool {
        self.transferring
    }

    /// Raft gives a transfer up after an election timeout.
    pub(super) fn tick_transfer(&mut self) {
        self.transferring = self.transferring && self.raft.status().transferee.is_some();
    }

    /// An administrator's wish that another peer lead.
    pub(crate) fn transfer_by_request(
        &mut self,
        header: &RequestHeader,
        to: PeerId,
        reply: Reply<()>,
        context: &Context<'_>,
    ) {
        let checked = self.check_lead(header, context);
        if let Err(error) = checked.and_then(|()| self.check_version(header)) {
            return reply.fail(error);
        }
        if to == self.peer_id() {
            return reply.send(Ok(()));
        }
        match self.find_peer(to).map(|peer| peer.role()) {
            Some(metapb::PeerRole::Voter | metapb::PeerRole::IncomingVoter) => {
                self.transfer_lead(to, context);
                reply.send(Ok(()));
            }
            _ => reply.fail(RegionError::MismatchPeerId { request: to, actual: self.peer_id() }),
        }
    }

    /// Starts to hand the lead to `to`. From here on the lease is void: the order to campaign overrides the patience that
    /// the lease rests on, whenever it arrives (R17).
    pub(super) fn transfer_lead(&mut self, to: PeerId, context: &Context<'_>) {
        if let Some(lease) = &mut self.lease {
            lease.void_for_transfer();
        }
        self.show_lease(context);
        self.raft.transfer_leader(NodeId(to.get()));
        self.transferring = true;
        self.sleep.stir();
        self.observe_lead(context);
    }

    /// Hands the lead to the voter that needs the least time to take over, if there is one. For a store that leaves.
    pub(crate) fn drain(&mut self, context: &Context<'_>) {
        if !self.is_leader() || self.is_transferring() {
            return;
        }
        self.hand_over_lead(|_| true, context);
    }

    /// Whether a store that leaves need not wait for this peer: it does not lead, or nobody could take over.
    pub(crate) fn is_drained(&self) -> bool {
        let can_lead = |peer: &metapb::Peer| peer.role() != metapb::PeerRole::Learner;
        let others = self.region.peers.iter().filter(|peer| peer.id != self.me.id);
        !self.is_leader() || !others.into_iter().any(can_lead)
    }
}

//! Changing the region's peers: what the leader refuses and why, and what follows once a change is applied.
//!
//! # Refused by the leader
//! Whatever the appliers would refuse (`membership::changed`), and besides: a change after which no majority would be left
//! of peers that are alive and have the log (M21); the promotion of a learner that has not caught up; a second change before
//! the first is applied. The leader is never the one to go: it hands the lead over and says so, because the last to know of
//! its own removal could otherwise be the one the others need to hear of it.
//!
//! # Settled
//! A change is *settled* once its record is durable here. Only then is anybody told that a peer is no longer a member: a
//! peer that destroys itself must not leave behind a region that, after a crash, still counts on its vote.

use bytes::Bytes;
use proto::ids::PeerId;
use proto::{metapb, pdpb};
use raft::{ConfChangeV2, Entry, NodeId, ProgressState, Role};

use super::order::refused;
use super::ready::{Held, TurnBuilder};
use super::{Context, Peer};
use crate::error::RegionError;
use crate::membership::{self, ChangePeers, is_voter};
use crate::planted::{Bug, planted};

/// How far the record of the last change is on its way to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Settling {
    /// It is there.
    #[default]
    Settled,
    /// The applier has written it; the next log write makes it durable.
    Due,
    /// In that log write.
    Writing(u64),
}

impl Peer {
    /// An order to change the peers, whose header has been checked; no changes leave a joint membership. Proposed, or refused
    /// with the reason.
    pub(crate) fn change_peers(
        &mut self,
        changes: Vec<pdpb::ChangePeer>,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        self.check_unchanging()?;
        if changes.is_empty() && !membership::is_joint(&self.region) {
            return Ok(());
        }
        let next = membership::changed(&self.region, &changes);
        let next = next.map_err(|refusal| refused(refusal.to_string()))?;
        self.check_lead_stays(&next, context)?;
        self.check_caught_up(&next, context)?;
        self.check_quorum(&next, context)?;
        self.propose_change(changes, context)
    }

    fn propose_change(
        &mut self,
        changes: Vec<pdpb::ChangePeer>,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        let (change, data) = if changes.is_empty() {
            (ConfChangeV2::leave_joint(), Bytes::new())
        } else {
            let change = membership::raft_change(&changes);
            let change = change.map_err(|refusal| refused(refusal.to_string()))?;
            (change, ChangePeers { epoch: self.epoch(), changes }.encode())
        };
        match self.raft.propose_conf_change(data, &change) {
            Ok(index) => {
                self.proposals.push(index, self.raft.term(), context.now, Vec::new());
                Ok(())
            }
            Err(raft::Error::NotLeader { .. }) => Err(self.not_leader()),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// The leader must be a voter afterwards; if it is not, somebody who is takes over first.
    fn check_lead_stays(
        &mut self,
        next: &metapb::Region,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        use metapb::PeerRole::{IncomingVoter, Voter};
        let leads = |peer: &metapb::Peer| matches!(peer.role(), Voter | IncomingVoter);
        if next.peers.iter().any(|peer| peer.id == self.me.id && leads(peer)) {
            return Ok(());
        }
        // A peer that becomes a voter with this very change cannot take over before it.
        let heirs: Vec<PeerId> = next
            .peers
            .iter()
            .filter(|peer| leads(peer) && self.find_peer(peer.id.into()).is_some_and(leads))
            .map(|peer| PeerId::from(peer.id))
            .collect();
        if self.hand_over_lead(|id| heirs.contains(&id), context) {
            Err(refused("the leader would go; another peer is taking the lead: ask that one"))
        } else {
            Err(refused("the leader would go, and no live peer could take the lead"))
        }
    }

    /// A learner that is to vote must have the log.
    fn check_caught_up(
        &self,
        next: &metapb::Region,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        let promoted =
            next.peers.iter().filter(|peer| is_voter(peer)).filter(|peer| {
                self.find_peer(peer.id.into()).is_some_and(|member| !is_voter(member))
            });
        for peer in promoted {
            if !self.is_fit(peer.id.into(), context) {
                let id = peer.id;
                return Err(refused(format!("learner {id} is down or has not caught up")));
            }
        }
        Ok(())
    }

    /// In every majority that will decide there must be one that is alive and has the log (M21).
    fn check_quorum(
        &self,
        next: &metapb::Region,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        if planted(Bug::ChangeWithoutQuorum) {
            return Ok(());
        }
        let state = membership::conf_state(next);
        for voters in [&state.voters, &state.voters_outgoing] {
            let fit = voters.iter().filter(|id| self.is_fit(PeerId::from(id.0), context)).count();
            if !voters.is_empty() && fit <= voters.len() / 2 {
                let of = voters.len();
                return Err(refused(format!("of {of} voters only {fit} would be live")));
            }
        }
        Ok(())
    }

    /// Whether a peer has been heard lately and follows the log without a snapshot.
    fn is_fit(&self, id: PeerId, context: &Context<'_>) -> bool {
        if id == self.peer_id() {
            return true;
        }
        let progress = self.raft.status().progress;
        let progress = progress.iter().find(|progress| progress.id.0 == id.get());
        let follows = progress
            .is_some_and(|p| p.state != ProgressState::Snapshot && p.matched > raft::LogIndex(0));
        follows && self.heard.is_live(id, context.tick, context.config.election_timeout_ticks)
    }

    /// A change has been applied: Raft follows, and whoever has to know.
    pub(super) fn change_membership(
        &mut self,
        entry: &Entry,
        region: metapb::Region,
        context: &Context<'_>,
    ) {
        // A snapshot that arrived while the applier still had this entry has brought Raft a later membership.
        let overtaken = self.raft.log().first_index() > entry.index;
        if !overtaken || planted(Bug::OvertakenChangeApplied) {
            // The applier decided by the same rules Raft checks, so a refusal here is a broken invariant.
            let change = raft::wire::decode_conf_change(entry).expect("the applier has decoded it");
            let applied = self.raft.apply_conf_change(&change);
            assert!(applied.is_ok(), "region {}: raft refuses {change:?}: {applied:?}", self.id);
        }
        let before = self.region.clone();
        self.set_region(region, context);
        self.settling = Settling::Due;
        if self.raft.role() == Role::Leader {
            let gone = |peer: &&metapb::Peer| self.find_peer(peer.id.into()).is_none();
            let gone: Vec<_> = before.peers.iter().filter(gone).copied().collect();
            self.farewells.removed(&gone, entry.index);
        }
    }

    /// Whether the region no longer lists this peer.
    pub(crate) fn is_removed(&self) -> bool {
        self.is_initialized() && self.find_peer(self.peer_id()).is_none()
    }

    /// Whether others may be told who is a member.
    pub(crate) fn is_settled(&self) -> bool {
        self.settling == Settling::Settled
    }

    /// Makes the record of a change durable: this turn's log write is synced, and what was written before it with it.
    pub(super) fn settle(&mut self, out: &mut TurnBuilder) {
        if self.settling != Settling::Due {
            return;
        }
        self.settling = Settling::Writing(out.number);
        out.sync = true;
        let (messages, tasks) = (Vec::new(), Vec::new());
        out.held.push(Held { region: self.id, ready: None, messages, tasks, reply: None });
    }

    /// Log writes up to `number` are durable.
    pub(crate) fn on_settled(&mut self, number: u64) {
        if matches!(self.settling, Settling::Writing(at) if at <= number) {
            self.settling = Settling::Settled;
        }
    }

    /// Hands the lead to the live voter among those `may` allows that needs the least time to take over.
    pub(super) fn hand_over_lead(
        &mut self,
        may: impl Fn(PeerId) -> bool,
        context: &Context<'_>,
    ) -> bool {
        let progress = self.raft.status().progress;
        let others = progress.iter().filter(|p| p.id.0 != self.me.id && !p.is_learner);
        let fit = others
            .filter(|p| may(PeerId::from(p.id.0)) && self.is_fit(PeerId::from(p.id.0), context));
        let best = fit.max_by_key(|p| (p.matched, p.id)).map(|p| p.id);
        if let Some(NodeId(best)) = best {
            self.transfer_lead(PeerId::from(best), context);
        }
        best.is_some()
    }
}

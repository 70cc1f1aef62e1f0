//! A region's peers as Raft's membership, and what a change of them makes of the region.
//!
//! A change is decided twice by the same function: by the leader, which can say why it refuses, and by every applier, whose
//! verdict counts. *Simple*: one peer is added, promoted, demoted or removed. *Joint*: several at once, at least one of them
//! a voter before or after; it is entered by one entry and left by the next, which Raft proposes by itself. The epoch's
//! `conf_ver` grows by one with each entry that takes effect.
//!
//! A joint change only adds, promotes and demotes: a voter that is to go is demoted first and removed as a learner, because
//! no [`PeerRole`] stands for "voter of the old majority, and then gone".

use bytes::Bytes;
use prost::Message as _;
use proto::eraftpb::ConfChangeType;
use proto::metapb::{self, PeerRole};
use proto::{flotillapb, pdpb};
use raft::conf_change::Membership;
use raft::{ConfChange, ConfChangeKind, ConfChangeV2, ConfState, NodeId, Transition};

use crate::command::Epoch;

#[cfg(test)]
mod tests;

/// The membership that a region's peer list stands for. A Raft node is a peer. A joint one is left without being asked.
pub fn conf_state(region: &metapb::Region) -> ConfState {
    let mut state = ConfState::default();
    for peer in &region.peers {
        let id = NodeId(peer.id);
        match peer.role() {
            PeerRole::Voter => {
                state.voters.push(id);
                state.voters_outgoing.push(id);
            }
            PeerRole::Learner => state.learners.push(id),
            PeerRole::IncomingVoter => state.voters.push(id),
            PeerRole::DemotingVoter => {
                state.voters_outgoing.push(id);
                state.learners_next.push(id);
            }
        }
    }
    // Outside of a joint membership every voter is in both majorities, and the outgoing one is not written down.
    if state.voters == state.voters_outgoing {
        state.voters_outgoing.clear();
    }
    state.auto_leave = !state.voters_outgoing.is_empty();
    state
}

/// Whether the region is between two memberships.
pub fn is_joint(region: &metapb::Region) -> bool {
    let between = |peer: &metapb::Peer| {
        matches!(peer.role(), PeerRole::IncomingVoter | PeerRole::DemotingVoter)
    };
    region.peers.iter().any(between)
}

/// Whether the peer has a vote, now or once the joint membership is left.
pub fn is_voter(peer: &metapb::Peer) -> bool {
    peer.role() != PeerRole::Learner
}

/// Why a change of peers makes no sense. The same at the leader and at every applier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// A joint membership must be left first.
    #[error("the region is between two memberships")]
    Joint,
    /// There is no joint membership to leave.
    #[error("the region is not between two memberships")]
    NotJoint,
    /// A change without a peer, or with one whose ids are not set.
    #[error("a change names no peer, or one without its ids")]
    NoPeer,
    /// The kind of change is none of the three.
    #[error("the change of peer {0} is of an unknown kind")]
    UnknownKind(u64),
    /// One peer is changed twice.
    #[error("peer {0} is changed twice at once")]
    Twice(u64),
    /// Nothing to remove.
    #[error("the region has no peer {peer} on store {store}")]
    UnknownPeer {
        /// The peer named.
        peer: u64,
        /// And its store.
        store: u64,
    },
    /// The peer is there already, in that role or on another store.
    #[error("peer {0} is a member already, in this role or on another store")]
    Exists(u64),
    /// A store holds one peer of a region.
    #[error("store {store} holds peer {peer} of the region already")]
    StoreTaken {
        /// Which store.
        store: u64,
        /// What it holds.
        peer: u64,
    },
    /// A region without voters could never change again.
    #[error("no voter would be left")]
    LastVoter,
    /// See the module header.
    #[error("voter {0} cannot be removed together with other changes: demote it first")]
    RemovesVoterJointly(u64),
    /// See the module header.
    #[error("several learners cannot be changed at once without a voter among the changes")]
    OnlyLearners,
    /// More peers than a message may describe.
    #[error("a region may have {} peers", proto::limits::REGION_PEERS_MAX)]
    TooMany,
    /// Raft's part of the entry says something else.
    #[error("the change contradicts Raft's part of its entry")]
    Contradiction,
}

/// A change of peers as the context of its log entry carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangePeers {
    /// The region's epoch when it was proposed.
    pub epoch: Epoch,
    /// What changes; never empty.
    pub changes: Vec<pdpb::ChangePeer>,
}

impl ChangePeers {
    /// The context of the entry.
    pub fn encode(self) -> Bytes {
        let Epoch { conf_ver, version } = self.epoch;
        let wire = flotillapb::ChangePeers { conf_ver, version, changes: self.changes };
        wire.encode_to_vec().into()
    }

    /// What a context stands for.
    pub fn decode(context: Bytes) -> Result<ChangePeers, prost::DecodeError> {
        let wire = flotillapb::ChangePeers::decode(context)?;
        let flotillapb::ChangePeers { conf_ver, version, changes } = wire;
        Ok(ChangePeers { epoch: Epoch { conf_ver, version }, changes })
    }
}

/// Raft's part of a change: one goes directly, several through a joint membership that is left without being asked.
pub fn raft_change(changes: &[pdpb::ChangePeer]) -> Result<ConfChangeV2, ChangeRefusal> {
    let one = |change: &pdpb::ChangePeer| {
        let peer = change.peer.as_ref().map_or(0, |peer| peer.id);
        let kind = match ConfChangeType::try_from(change.change_type) {
            Ok(ConfChangeType::AddNode) => ConfChangeKind::AddVoter,
            Ok(ConfChangeType::RemoveNode) => ConfChangeKind::Remove,
            Ok(ConfChangeType::AddLearnerNode) => ConfChangeKind::AddLearner,
            Err(_) => return Err(ChangeRefusal::UnknownKind(peer)),
        };
        Ok(ConfChange { kind, node: NodeId(peer) })
    };
    let changes = changes.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    let transition = if changes.len() > 1 { Transition::Implicit } else { Transition::Auto };
    Ok(ConfChangeV2 { transition, changes, context: Bytes::new() })
}

/// The region after `changes`; without any, after leaving the joint membership.
pub fn changed(
    region: &metapb::Region,
    changes: &[pdpb::ChangePeer],
) -> Result<metapb::Region, ChangeRefusal> {
    let mut next = region.clone();
    let raft = if changes.is_empty() {
        leave_joint(&mut next)?;
        ConfChangeV2::leave_joint()
    } else {
        if is_joint(region) {
            return Err(ChangeRefusal::Joint);
        }
        let raft = raft_change(changes)?;
        change_all(&mut next, changes)?;
        raft
    };
    let epoch = next.region_epoch.get_or_insert_default();
    epoch.conf_ver += 1;
    // Raft decides by its own rules; should they ever differ from these, the change has no effect anywhere.
    let members = |region| Membership::restore(&conf_state(region));
    let by_raft = members(region).and_then(|members| members.changed(&raft));
    if by_raft.is_ok() && by_raft == members(&next) {
        Ok(next)
    } else {
        Err(ChangeRefusal::Contradiction)
    }
}

fn leave_joint(region: &mut metapb::Region) -> Result<(), ChangeRefusal> {
    if !is_joint(region) {
        return Err(ChangeRefusal::NotJoint);
    }
    for peer in &mut region.peers {
        match peer.role() {
            PeerRole::IncomingVoter => peer.set_role(PeerRole::Voter),
            PeerRole::DemotingVoter => peer.set_role(PeerRole::Learner),
            PeerRole::Voter | PeerRole::Learner => {}
        }
    }
    Ok(())
}

fn change_all(
    region: &mut metapb::Region,
    changes: &[pdpb::ChangePeer],
) -> Result<(), ChangeRefusal> {
    let joint = changes.len() > 1;
    for (at, change) in changes.iter().enumerate() {
        let peer = change.peer.filter(|peer| peer.id != 0 && peer.store_id != 0);
        let peer = peer.ok_or(ChangeRefusal::NoPeer)?;
        let earlier = changes[..at].iter().filter_map(|change| change.peer.as_ref());
        if earlier.into_iter().any(|earlier| earlier.id == peer.id) {
            return Err(ChangeRefusal::Twice(peer.id));
        }
        match change.change_type() {
            ConfChangeType::AddNode => add(region, peer, true, joint)?,
            ConfChangeType::AddLearnerNode => add(region, peer, false, joint)?,
            ConfChangeType::RemoveNode => remove(region, peer, joint)?,
        }
    }
    if region.peers.len() > proto::limits::REGION_PEERS_MAX {
        return Err(ChangeRefusal::TooMany);
    }
    let stays =
        |peer: &metapb::Peer| matches!(peer.role(), PeerRole::Voter | PeerRole::IncomingVoter);
    if !region.peers.iter().any(stays) {
        return Err(ChangeRefusal::LastVoter);
    }
    if joint && !is_joint(region) {
        return Err(ChangeRefusal::OnlyLearners);
    }
    Ok(())
}

/// Adds a peer, or gives it another role.
fn add(
    region: &mut metapb::Region,
    peer: metapb::Peer,
    voter: bool,
    joint: bool,
) -> Result<(), ChangeRefusal> {
    let role = match (voter, joint) {
        (true, true) => PeerRole::IncomingVoter,
        (true, false) => PeerRole::Voter,
        (false, _) => PeerRole::Learner,
    };
    if let Some(member) = region.peers.iter_mut().find(|member| member.id == peer.id) {
        if member.store_id != peer.store_id || is_voter(member) == voter {
            return Err(ChangeRefusal::Exists(peer.id));
        }
        let demoted = !voter && joint;
        member.set_role(if demoted { PeerRole::DemotingVoter } else { role });
        return Ok(());
    }
    if let Some(there) = region.peers.iter().find(|member| member.store_id == peer.store_id) {
        return Err(ChangeRefusal::StoreTaken { store: there.store_id, peer: there.id });
    }
    let metapb::Peer { id, store_id, .. } = peer;
    region.peers.push(metapb::Peer { id, store_id, role: role.into(), ..Default::default() });
    Ok(())
}

fn remove(
    region: &mut metapb::Region,
    peer: metapb::Peer,
    joint: bool,
) -> Result<(), ChangeRefusal> {
    let here = |member: &metapb::Peer| member.id == peer.id && member.store_id == peer.store_id;
    let at = region.peers.iter().position(here);
    let at = at.ok_or(ChangeRefusal::UnknownPeer { peer: peer.id, store: peer.store_id })?;
    if joint && is_voter(&region.peers[at]) {
        return Err(ChangeRefusal::RemovesVoterJointly(peer.id));
    }
    region.peers.remove(at);
    Ok(())
}

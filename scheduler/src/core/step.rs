//! The small steps of which operators are made: when one is done, and what to tell the region's leader.
//!
//! Every step is safe to abandon: what is left behind (a learner, a joint membership) is a state of the
//! region that the checkers see and repair.

use std::fmt;

use bytes::Bytes;
use proto::eraftpb::ConfChangeType;
use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb::{self, PeerRole};
use proto::pdpb;

use super::regions::{RegionInfo, RegionTree};
use crate::planted::{Bug, planted};

/// Patience with a transfer of the lead.
const TRANSFER_MS: u64 = 10_000;
/// Patience with a change of the membership or of the range.
const CHANGE_MS: u64 = 60_000;
/// Patience with a merge: its stores give up long before.
const MERGE_MS: u64 = 120_000;
/// Patience with a peer that gets the region's data.
const CATCH_UP_MS: u64 = 600_000;

/// A peer that comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) peer: PeerId,
    pub(super) store: StoreId,
}

impl Place {
    pub(super) fn of(peer: &metapb::Peer) -> Self {
        Self { peer: peer.id.into(), store: peer.store_id.into() }
    }

    fn peer(self, role: PeerRole) -> metapb::Peer {
        let mut peer =
            metapb::Peer { id: self.peer.get(), store_id: self.store.get(), ..Default::default() };
        peer.set_role(role);
        peer
    }

    fn find(self, info: &RegionInfo) -> Option<&metapb::Peer> {
        info.meta.peers.iter().find(|peer| peer.id == self.peer.get())
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A new peer gets the data; done when it has caught up.
    AddLearner(Place),
    /// A learner becomes a voter.
    Promote(Place),
    /// Several changes at once, by a joint membership.
    Enter { promote: Vec<Place>, demote: Vec<Place> },
    /// The joint membership ends.
    Leave,
    /// A peer goes.
    Remove(Place),
    /// Another peer leads; with `leave`, any but the one there.
    Transfer { to: StoreId, leave: Option<StoreId> },
    /// The region is cut. `version` is the one it had before.
    Split { keys: Vec<Bytes>, version: u64 },
    /// The region is taken over by a neighbour.
    Merge { target: RegionId },
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores = |places: &[Place]| {
            let stores: Vec<String> = places.iter().map(|place| place.store.to_string()).collect();
            stores.join(", ")
        };
        match self {
            Self::AddLearner(place) => {
                write!(out, "add learner {} on store {}", place.peer, place.store)
            }
            Self::Promote(place) => {
                write!(out, "promote peer {} on store {}", place.peer, place.store)
            }
            Self::Enter { promote, demote } => {
                let (promote, demote) = (stores(promote), stores(demote));
                write!(out, "enter joint membership: promote on {promote}; demote on {demote}")
            }
            Self::Leave => write!(out, "leave joint membership"),
            Self::Remove(place) => {
                write!(out, "remove peer {} from store {}", place.peer, place.store)
            }
            Self::Transfer { to, .. } => write!(out, "transfer leader to store {to}"),
            Self::Split { keys, .. } if keys.is_empty() => write!(out, "split in halves"),
            Self::Split { keys, .. } => write!(out, "split at {} keys", keys.len()),
            Self::Merge { target } => write!(out, "merge into region {target}"),
        }
    }
}

impl Step {
    /// How long it may take.
    pub(super) fn patience_ms(&self) -> u64 {
        match self {
            Self::AddLearner(_) => CATCH_UP_MS,
            Self::Merge { .. } => MERGE_MS,
            Self::Transfer { .. } => TRANSFER_MS,
            _ => CHANGE_MS,
        }
    }

    /// By how much it moves the region's `conf_ver`.
    pub(super) fn conf_changes(&self) -> u64 {
        match self {
            Self::AddLearner(_)
            | Self::Promote(_)
            | Self::Enter { .. }
            | Self::Leave
            | Self::Remove(_) => 1,
            Self::Transfer { .. } | Self::Split { .. } | Self::Merge { .. } => 0,
        }
    }

    /// Whether the region, as reported, has it behind it.
    pub(super) fn is_finished(&self, info: &RegionInfo) -> bool {
        let role = |place: &Place| place.find(info).map(metapb::Peer::role);
        match self {
            Self::AddLearner(place) => {
                role(place).is_some()
                    && (is_caught_up(info, *place) || planted(Bug::PendingPeerCounts))
            }
            Self::Promote(place) => role(place) == Some(PeerRole::Voter),
            Self::Enter { promote, demote } => {
                let in_voters = |place: &Place| {
                    matches!(role(place), Some(PeerRole::Voter | PeerRole::IncomingVoter))
                };
                let in_voters_only_before = |place: &Place| {
                    !matches!(role(place), Some(PeerRole::Voter | PeerRole::IncomingVoter))
                };
                promote.iter().all(in_voters) && demote.iter().all(in_voters_only_before)
            }
            Self::Leave => !is_joint(info),
            Self::Remove(place) => role(place).is_none(),
            Self::Transfer { to, leave } => info.leader.is_some_and(|leader| {
                let leads = StoreId::new(leader.store_id);
                leads == *to || leave.is_some_and(|leave| leads != leave)
            }),
            Self::Split { version, .. } => info.epoch().version > *version,
            // The region is gone then; see the operators.
            Self::Merge { .. } => false,
        }
    }

    /// The store that must live for it.
    pub(super) fn needs(&self) -> Vec<StoreId> {
        match self {
            Self::AddLearner(place) | Self::Promote(place) => vec![place.store],
            Self::Enter { promote, .. } => promote.iter().map(|place| place.store).collect(),
            Self::Transfer { to, leave: None } => vec![*to],
            _ => Vec::new(),
        }
    }

    /// The peers that vote no more, or are gone, after it.
    fn takes_away(&self) -> &[Place] {
        match self {
            Self::Enter { demote, .. } => demote,
            Self::Remove(place) => std::slice::from_ref(place),
            _ => &[],
        }
    }

    /// A peer that is to get or lose its vote and is no member any more: told again, the change would bring it back.
    pub(super) fn missing(&self, info: &RegionInfo) -> Option<PeerId> {
        let places = match self {
            Self::Promote(place) => std::slice::from_ref(place).iter().chain(&[]),
            Self::Enter { promote, demote } => promote.iter().chain(demote),
            _ => return None,
        };
        places.into_iter().find(|place| place.find(info).is_none()).map(|place| place.peer)
    }

    /// What to tell the leader; `None` while there is nothing it could do.
    pub(super) fn instruction(
        &self,
        info: &RegionInfo,
        tree: &RegionTree,
    ) -> Option<pdpb::RegionHeartbeatResponse> {
        let leader = info.leader?;
        let mut told = pdpb::RegionHeartbeatResponse {
            region_id: info.meta.id,
            region_epoch: info.meta.region_epoch,
            target_peer: Some(leader),
            ..Default::default()
        };
        let change = |place: &Place, change_type: ConfChangeType| {
            let role = match change_type {
                ConfChangeType::AddLearnerNode => PeerRole::Learner,
                _ => PeerRole::Voter,
            };
            pdpb::ChangePeer { peer: Some(place.peer(role)), change_type: change_type as i32 }
        };
        // A leader cannot vote itself away: it hands the lead over first.
        if self.takes_away().iter().any(|place| place.peer.get() == leader.id) {
            let staying = |peer: &&metapb::Peer| {
                !self.takes_away().iter().any(|place| place.peer.get() == peer.id)
                    && can_lead(info, peer)
            };
            let heir = info.meta.peers.iter().find(staying)?;
            told.transfer_leader =
                Some(pdpb::TransferLeader { peer: Some(*heir), ..Default::default() });
            return Some(told);
        }
        let changes = match self {
            // It is there and gets its data.
            Self::AddLearner(place) if place.find(info).is_some() => return None,
            Self::AddLearner(place) => vec![change(place, ConfChangeType::AddLearnerNode)],
            Self::Promote(place) => vec![change(place, ConfChangeType::AddNode)],
            Self::Enter { promote, demote } => {
                let promoted = promote.iter().map(|place| change(place, ConfChangeType::AddNode));
                let demoted =
                    demote.iter().map(|place| change(place, ConfChangeType::AddLearnerNode));
                promoted.chain(demoted).collect()
            }
            Self::Leave => Vec::new(),
            Self::Remove(place) => vec![change(place, ConfChangeType::RemoveNode)],
            Self::Transfer { to, .. } => {
                let heir = info.meta.peers.iter().find(|peer| peer.store_id == to.get())?;
                let peer = Some(*heir);
                told.transfer_leader = Some(pdpb::TransferLeader { peer, ..Default::default() });
                return Some(told);
            }
            Self::Split { keys, .. } => {
                told.split_region =
                    Some(pdpb::SplitRegion { keys: keys.clone(), ..Default::default() });
                return Some(told);
            }
            Self::Merge { target } => {
                let target = Some(tree.by_id(*target)?.meta.clone());
                told.merge = Some(pdpb::Merge { target });
                return Some(told);
            }
        };
        told.change_peer_v2 = Some(pdpb::ChangePeerV2 { changes });
        Some(told)
    }
}

/// Whether a peer has the data and is heard of.
fn is_caught_up(info: &RegionInfo, place: Place) -> bool {
    let pending = info.pending_peers.iter().any(|peer| peer.id == place.peer.get());
    !pending && !is_down(info, place.peer.get())
}

/// Whether the leader has not heard of a peer for a while.
pub(super) fn is_down(info: &RegionInfo, peer: u64) -> bool {
    info.down_peers.iter().any(|down| down.peer.as_ref().is_some_and(|known| known.id == peer))
}

/// Whether a peer lags too far behind to count.
pub(super) fn is_pending(info: &RegionInfo, peer: u64) -> bool {
    info.pending_peers.iter().any(|known| known.id == peer)
}

/// Whether a peer may be asked to lead.
pub(super) fn can_lead(info: &RegionInfo, peer: &metapb::Peer) -> bool {
    let votes = matches!(peer.role(), PeerRole::Voter | PeerRole::IncomingVoter);
    votes && !is_down(info, peer.id) && !is_pending(info, peer.id)
}

/// Whether the region is between two memberships.
pub(super) fn is_joint(info: &RegionInfo) -> bool {
    let joint = |peer: &metapb::Peer| {
        matches!(peer.role(), PeerRole::IncomingVoter | PeerRole::DemotingVoter)
    };
    info.meta.peers.iter().any(joint)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that was removed while it waited for its vote must not be brought back by the vote.
    #[test]
    fn a_vote_for_a_peer_that_is_gone_is_missed() {
        let place = |id: u64| Place { peer: id.into(), store: id.into() };
        let peers = vec![place(1).peer(PeerRole::Voter), place(2).peer(PeerRole::Learner)];
        let meta = metapb::Region { peers, ..Default::default() };
        let info = RegionInfo { meta, ..RegionInfo::default() };
        assert_eq!(Step::Promote(place(2)).missing(&info), None);
        assert_eq!(Step::Promote(place(3)).missing(&info), Some(3.into()));
        let enter = |promote, demote| Step::Enter { promote: vec![promote], demote: vec![demote] };
        assert_eq!(enter(place(2), place(1)).missing(&info), None);
        assert_eq!(enter(place(2), place(4)).missing(&info), Some(4.into()));
        assert_eq!(Step::Remove(place(3)).missing(&info), None, "that is what it wants");
    }
}

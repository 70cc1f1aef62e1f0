//! Peer lists: what a change of membership makes of one (Raft thesis §4.3: every change of several members goes through a
//! joint membership).

use proto::eraftpb::ConfChangeType;
use proto::metapb::{self, PeerRole};
use proto::pdpb;

/// Whether two majorities decide.
pub fn is_joint(region: &metapb::Region) -> bool {
    let joint = |peer: &metapb::Peer| {
        matches!(peer.role(), PeerRole::IncomingVoter | PeerRole::DemotingVoter)
    };
    region.peers.iter().any(joint)
}

/// The list after `changes`, or `None` if they cannot be made. No changes: the joint membership ends.
pub fn joint_after(
    region: &metapb::Region,
    changes: &[pdpb::ChangePeer],
) -> Option<Vec<metapb::Peer>> {
    let mut peers = region.peers.clone();
    if changes.is_empty() {
        if !is_joint(region) {
            return None;
        }
        for peer in &mut peers {
            match peer.role() {
                PeerRole::IncomingVoter => peer.set_role(PeerRole::Voter),
                PeerRole::DemotingVoter => peer.set_role(PeerRole::Learner),
                PeerRole::Voter | PeerRole::Learner => {}
            }
        }
        return Some(peers);
    }
    if is_joint(region) {
        return None;
    }
    let joint = changes.len() > 1;
    for (at, change) in changes.iter().enumerate() {
        let id = change.peer.map(|peer| peer.id);
        if changes[..at].iter().any(|earlier| earlier.peer.map(|peer| peer.id) == id) {
            return None;
        }
        change_one(&mut peers, change, joint)?;
    }
    let stays =
        |peer: &metapb::Peer| matches!(peer.role(), PeerRole::Voter | PeerRole::IncomingVoter);
    let after = metapb::Region { peers, ..Default::default() };
    let valid = after.peers.iter().any(stays) && (!joint || is_joint(&after));
    valid.then_some(after.peers)
}

fn change_one(peers: &mut Vec<metapb::Peer>, change: &pdpb::ChangePeer, joint: bool) -> Option<()> {
    let peer = change.peer?;
    let place = peers.iter().position(|known| known.id == peer.id);
    let taken = peers.iter().any(|known| known.store_id == peer.store_id && known.id != peer.id);
    let voter = if joint { PeerRole::IncomingVoter } else { PeerRole::Voter };
    match (change.change_type(), place) {
        (ConfChangeType::AddNode | ConfChangeType::AddLearnerNode, None) if taken => None,
        (ConfChangeType::AddNode, None) => {
            peers.push(metapb::Peer { role: voter.into(), ..peer });
            Some(())
        }
        (ConfChangeType::AddNode | ConfChangeType::AddLearnerNode, Some(place))
            if peers[place].store_id != peer.store_id =>
        {
            None
        }
        (ConfChangeType::AddNode, Some(place)) => {
            (peers[place].role() == PeerRole::Learner).then(|| peers[place].set_role(voter))
        }
        (ConfChangeType::AddLearnerNode, None) => {
            peers.push(metapb::Peer { role: PeerRole::Learner.into(), ..peer });
            Some(())
        }
        (ConfChangeType::AddLearnerNode, Some(place)) => {
            let demoted = if joint { PeerRole::DemotingVoter } else { PeerRole::Learner };
            (peers[place].role() == PeerRole::Voter).then(|| peers[place].set_role(demoted))
        }
        (ConfChangeType::RemoveNode, Some(place)) => {
            // A voter leaves a joint membership as a learner first.
            let allowed = !joint || peers[place].role() == PeerRole::Learner;
            allowed.then(|| drop(peers.remove(place)))
        }
        (ConfChangeType::RemoveNode, None) => None,
    }
}

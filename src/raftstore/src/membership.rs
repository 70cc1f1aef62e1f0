//! A region's peers as Raft's membership.

use proto::metapb::{self, PeerRole};
use raft::{ConfState, NodeId};

/// The membership that a region's peer list stands for. A Raft node is a peer.
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
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(roles: &[PeerRole]) -> metapb::Region {
        let peer = |(at, role): (usize, &PeerRole)| metapb::Peer {
            id: at as u64 + 1,
            role: (*role).into(),
            ..Default::default()
        };
        metapb::Region { peers: roles.iter().enumerate().map(peer).collect(), ..Default::default() }
    }

    #[test]
    fn plain_memberships_have_no_outgoing_voters() {
        let region = region(&[PeerRole::Voter, PeerRole::Voter, PeerRole::Learner]);
        assert_eq!(conf_state(&region), ConfState::simple([1, 2], [3]));
    }

    #[test]
    fn a_joint_membership_keeps_both_majorities() {
        let region = region(&[PeerRole::Voter, PeerRole::IncomingVoter, PeerRole::DemotingVoter]);
        let state = conf_state(&region);
        assert_eq!(state.voters, [NodeId(1), NodeId(2)]);
        assert_eq!(state.voters_outgoing, [NodeId(1), NodeId(3)]);
        assert_eq!(state.learners_next, [NodeId(3)]);
    }
}

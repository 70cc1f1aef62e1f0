//! Which changes of which memberships are accepted, and what they give.

use super::*;

const ALL: [PeerRole; 4] =
    [PeerRole::Voter, PeerRole::Learner, PeerRole::IncomingVoter, PeerRole::DemotingVoter];

/// Peers 1, 2, … on stores 11, 12, …, in these roles.
fn region(roles: &[PeerRole]) -> metapb::Region {
    let peer = |(at, role): (usize, &PeerRole)| metapb::Peer {
        id: at as u64 + 1,
        store_id: at as u64 + 11,
        role: (*role).into(),
        ..Default::default()
    };
    metapb::Region {
        id: 2,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 5, version: 3 }),
        peers: roles.iter().enumerate().map(peer).collect(),
        ..Default::default()
    }
}

fn change(kind: ConfChangeType, id: u64, store_id: u64) -> pdpb::ChangePeer {
    let peer = Some(metapb::Peer { id, store_id, ..Default::default() });
    pdpb::ChangePeer { peer, change_type: kind.into() }
}

fn voter(id: u64) -> pdpb::ChangePeer {
    change(ConfChangeType::AddNode, id, id + 10)
}

fn learner(id: u64) -> pdpb::ChangePeer {
    change(ConfChangeType::AddLearnerNode, id, id + 10)
}

fn removed(id: u64) -> pdpb::ChangePeer {
    change(ConfChangeType::RemoveNode, id, id + 10)
}

fn roles(region: &metapb::Region) -> Vec<(u64, PeerRole)> {
    region.peers.iter().map(|peer| (peer.id, peer.role())).collect()
}

#[test]
fn plain_memberships_have_no_outgoing_voters() {
    let region = region(&[PeerRole::Voter, PeerRole::Voter, PeerRole::Learner]);
    assert_eq!(conf_state(&region), ConfState::simple([1, 2], [3]));
}

#[test]
fn a_joint_membership_keeps_both_majorities_and_is_left_by_itself() {
    let region = region(&[PeerRole::Voter, PeerRole::IncomingVoter, PeerRole::DemotingVoter]);
    let state = conf_state(&region);
    assert_eq!(state.voters, [NodeId(1), NodeId(2)]);
    assert_eq!(state.voters_outgoing, [NodeId(1), NodeId(3)]);
    assert_eq!(state.learners_next, [NodeId(3)]);
    assert!(state.auto_leave);
}

#[test]
fn one_peer_changes_directly() {
    use PeerRole::{Learner, Voter};
    let before = region(&[Voter, Voter]);
    let with = |change| changed(&before, &[change]).map(|after| roles(&after));
    assert_eq!(with(learner(3)), Ok(vec![(1, Voter), (2, Voter), (3, Learner)]));
    assert_eq!(with(voter(3)), Ok(vec![(1, Voter), (2, Voter), (3, Voter)]));
    assert_eq!(with(learner(2)), Ok(vec![(1, Voter), (2, Learner)]));
    assert_eq!(with(removed(2)), Ok(vec![(1, Voter)]));
    let promoted = changed(&region(&[Voter, Learner]), &[voter(2)]).unwrap();
    assert_eq!(roles(&promoted), [(1, Voter), (2, Voter)]);
    assert_eq!(promoted.region_epoch.unwrap().conf_ver, 6);
    assert_eq!(promoted.region_epoch.unwrap().version, 3);
}

#[test]
fn several_go_through_a_joint_membership() {
    use PeerRole::{DemotingVoter, IncomingVoter, Learner, Voter};
    let before = region(&[Voter, Voter, Learner]);
    let joint = changed(&before, &[voter(3), learner(2)]).unwrap();
    assert_eq!(roles(&joint), [(1, Voter), (2, DemotingVoter), (3, IncomingVoter)]);
    assert_eq!(changed(&joint, &[learner(4)]), Err(ChangeRefusal::Joint));
    let after = changed(&joint, &[]).unwrap();
    assert_eq!(roles(&after), [(1, Voter), (2, Learner), (3, Voter)]);
    assert_eq!(after.region_epoch.unwrap().conf_ver, 7);
    assert_eq!(changed(&after, &[]), Err(ChangeRefusal::NotJoint));
}

#[test]
fn what_makes_no_sense_is_refused() {
    use PeerRole::{Learner, Voter};
    let before = region(&[Voter, Voter, Learner]);
    let refuse = |changes: &[pdpb::ChangePeer]| changed(&before, changes).unwrap_err();
    let elsewhere = |kind| change(kind, 2, 99);
    assert_eq!(refuse(&[pdpb::ChangePeer::default()]), ChangeRefusal::NoPeer);
    assert_eq!(refuse(&[voter(1)]), ChangeRefusal::Exists(1));
    assert_eq!(refuse(&[learner(3)]), ChangeRefusal::Exists(3));
    assert_eq!(refuse(&[elsewhere(ConfChangeType::AddLearnerNode)]), ChangeRefusal::Exists(2));
    let there = change(ConfChangeType::AddLearnerNode, 9, 11);
    assert_eq!(refuse(&[there]), ChangeRefusal::StoreTaken { store: 11, peer: 1 });
    let unknown = |peer, store| ChangeRefusal::UnknownPeer { peer, store };
    assert_eq!(refuse(&[removed(9)]), unknown(9, 19));
    assert_eq!(refuse(&[elsewhere(ConfChangeType::RemoveNode)]), unknown(2, 99));
    assert_eq!(refuse(&[removed(3), learner(3)]), ChangeRefusal::Twice(3));
    assert_eq!(refuse(&[voter(3), removed(2)]), ChangeRefusal::RemovesVoterJointly(2));
    assert_eq!(refuse(&[learner(4), learner(5)]), ChangeRefusal::OnlyLearners);
    assert_eq!(refuse(&[learner(1), learner(2)]), ChangeRefusal::LastVoter);
    let odd = pdpb::ChangePeer { change_type: 77, ..voter(3) };
    assert_eq!(refuse(&[odd]), ChangeRefusal::UnknownKind(3));
    let alone = region(&[Voter, Learner]);
    assert_eq!(changed(&alone, &[removed(1)]), Err(ChangeRefusal::LastVoter));
    assert_eq!(changed(&alone, &[learner(1)]), Err(ChangeRefusal::LastVoter));
}

#[test]
fn an_uninitialized_region_cannot_be_changed() {
    let nobody = metapb::Region { peers: Vec::new(), ..region(&[]) };
    assert!(changed(&nobody, &[voter(1)]).is_err());
}

/// Whatever is asked for: no panic, and what is accepted is what Raft makes of it (checked inside of [`changed`]) with every
/// store and every peer at most once.
#[test]
fn every_small_change_of_every_small_region() {
    let kinds =
        [ConfChangeType::AddNode, ConfChangeType::AddLearnerNode, ConfChangeType::RemoveNode];
    let singles: Vec<_> =
        kinds.iter().flat_map(|kind| (1..=4).map(|id| change(*kind, id, id + 10))).collect();
    let mut accepted = 0;
    for a in ALL {
        for b in ALL {
            for c in ALL {
                let before = region(&[a, b, c]);
                let pairs = singles.iter().flat_map(|x| singles.iter().map(|y| vec![*x, *y]));
                for changes in singles.iter().map(|x| vec![*x]).chain(pairs) {
                    let Ok(after) = changed(&before, &changes) else { continue };
                    accepted += 1;
                    let mut stores: Vec<_> = after.peers.iter().map(|p| p.store_id).collect();
                    stores.sort_unstable();
                    stores.dedup();
                    assert_eq!(stores.len(), after.peers.len(), "{changes:?}");
                    assert_eq!(is_joint(&after), changes.len() > 1);
                }
            }
        }
    }
    assert!(accepted > 100, "{accepted} accepted");
}

#[test]
fn a_context_survives_the_log() {
    let change = ChangePeers {
        epoch: Epoch { conf_ver: 5, version: 3 },
        changes: vec![voter(3), learner(2)],
    };
    assert_eq!(ChangePeers::decode(change.clone().encode()), Ok(change));
}

//! I5 (Raft thesis §3.5, §3.8): an entry counts as committed only when it is durable on a majority of the voters, and a store
//! applies it only when it is durable on its own disk.
//!
//! Looked at when an entry is handed to an applier. A log on disk never loses an acknowledged entry, so what was durable on
//! a majority when it was committed still is.

use super::Broken;
use super::disks::is_tombstone;
use crate::sim::layout::store_id;
use engine::{Cf, Engine};
use prost::Message;
use proto::eraftpb;
use proto::flotillapb::RegionLocalState;
use proto::ids::RegionId;
use proto::metapb::{self, PeerRole};
use raft::LogIndex;
use raftstore::apply::ApplyState;
use raftstore::keys::Key;
use std::rc::Rc;

/// Whether the disk (what a loss of power leaves at least) holds the entry, or the state after it.
pub fn holds(disk: &dyn Engine, region: u64, index: u64, term: u64) -> bool {
    let id = RegionId::from(region);
    let get = |key: Key| disk.get(Cf::Raft, &key.encode()).ok().flatten();
    if let Some(stored) = get(Key::LogEntry(id, LogIndex(index))) {
        return eraftpb::Entry::decode(stored).is_ok_and(|entry| entry.term == term);
    }
    let applied = get(Key::ApplyState(id)).and_then(|bytes| ApplyState::decode(&bytes));
    let pending = get(Key::PendingSnapshot(id));
    let pending = pending
        .and_then(|bytes| proto::flotillapb::PendingSnapshot::decode(bytes).ok())
        .and_then(|marker| marker.meta);
    applied.is_some_and(|state| state.applied_index.0 >= index)
        || pending.is_some_and(|meta| meta.index >= index)
}

/// Whether the peer of a region was destroyed on this disk.
pub fn is_gone(engine: &dyn Engine, region: u64) -> bool {
    let key = Key::RegionState(RegionId::from(region)).encode();
    let state = engine.get(Cf::Raft, &key).ok().flatten();
    state.and_then(|bytes| RegionLocalState::decode(bytes).ok()).is_some_and(|s| is_tombstone(&s))
}

/// Checks an entry that `store` hands to its applier. `held` says whether the disk of a store holds the entry; one of
/// `memberships` is the one under which it was committed.
pub fn check(
    store: usize,
    (region, index, term): (u64, u64, u64),
    memberships: &[Rc<metapb::Region>],
    held: impl Fn(u64) -> bool,
) -> Result<(), Broken> {
    let fail = |what: String| Err(Broken::new("I5 committed is durable", what));
    if !held(store_id(store).get()) {
        return fail(format!(
            "store {} applies entry {index}@{term} of region {region} before it is on its disk",
            store + 1
        ));
    }
    if memberships.iter().any(|membership| is_majority(membership, &held)) {
        return Ok(());
    }
    fail(format!(
        "entry {index}@{term} of region {region} counts as committed without a durable majority of \
         {:?}",
        memberships.last().map(|membership| &membership.peers),
    ))
}

/// Whether a majority of the voters, of both generations in a joint membership, holds an entry.
fn is_majority(membership: &metapb::Region, held: impl Fn(u64) -> bool) -> bool {
    let majority = |counts: &dyn Fn(PeerRole) -> bool| {
        let voters: Vec<_> = membership.peers.iter().filter(|peer| counts(peer.role())).collect();
        let copies = voters.iter().filter(|peer| held(peer.store_id)).count();
        copies * 2 > voters.len()
    };
    majority(&|role| matches!(role, PeerRole::Voter | PeerRole::IncomingVoter))
        && majority(&|role| matches!(role, PeerRole::Voter | PeerRole::DemotingVoter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(roles: &[PeerRole]) -> Vec<Rc<metapb::Region>> {
        let peer = |(at, role): (usize, &PeerRole)| metapb::Peer {
            id: at as u64 + 11,
            store_id: at as u64 + 1,
            role: (*role).into(),
            ..Default::default()
        };
        let peers = roles.iter().enumerate().map(peer).collect();
        vec![Rc::new(metapb::Region { peers, ..Default::default() })]
    }

    fn judge(roles: &[PeerRole], on_disk: &[bool]) -> Result<(), Broken> {
        check(0, (1, 7, 5), &members(roles), |id| on_disk[id as usize - 1])
    }

    #[test]
    fn a_minority_of_durable_copies_is_caught() {
        let three = [PeerRole::Voter; 3];
        assert_eq!(judge(&three, &[true, true, false]), Ok(()));
        assert!(judge(&three, &[true, false, false]).is_err());
        assert!(judge(&three, &[false, true, true]).is_err());
        assert!(judge(&[PeerRole::Voter; 4], &[true, true, false, false]).is_err());
    }

    #[test]
    fn a_joint_membership_needs_both_majorities_and_learners_count_for_nothing() {
        use PeerRole::{DemotingVoter, IncomingVoter, Learner, Voter};
        let joint = [Voter, IncomingVoter, DemotingVoter];
        assert_eq!(judge(&joint, &[true, true, true]), Ok(()));
        assert!(judge(&joint, &[true, true, false]).is_err(), "not the outgoing one");
        assert!(judge(&joint, &[true, false, true]).is_err(), "not the incoming one");
        assert!(judge(&[Voter, Voter, Learner], &[true, false, true]).is_err());
    }
}

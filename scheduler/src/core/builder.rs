//! From the peers a region has to the peers it should have, in steps that keep a quorum all the way: new
//! peers learn first, the lead leaves peers that go, what is replaced changes in one joint step.

use std::collections::BTreeSet;

use proto::ids::{PeerId, StoreId};
use proto::metapb::{self, PeerRole};

use super::regions::RegionInfo;
use super::step::{Place, Step, can_lead};

/// What a region should become.
#[derive(Clone, Debug, Default)]
pub(super) struct Goal {
    /// The stores that hold a voter each.
    pub(super) stores: BTreeSet<StoreId>,
    /// Who leads then; `None`: whoever does, as long as it stays.
    pub(super) leader: Option<StoreId>,
}

impl Goal {
    /// The stores of a region as it is.
    pub(super) fn of(info: &RegionInfo) -> Self {
        let stores = info.meta.peers.iter().map(|peer| peer.store_id.into()).collect();
        Self { stores, leader: None }
    }

    pub(super) fn with(mut self, store: StoreId) -> Self {
        self.stores.insert(store);
        self
    }

    pub(super) fn without(mut self, store: StoreId) -> Self {
        self.stores.remove(&store);
        self
    }
}

/// The steps; none if it is there already. `fresh` gives ids for new peers; without one, there are no
/// steps either.
pub(super) fn steps(
    info: &RegionInfo,
    goal: &Goal,
    fresh: &mut dyn FnMut() -> Option<PeerId>,
) -> Option<Vec<Step>> {
    assert!(!goal.stores.is_empty(), "a region keeps a peer");
    let peers = &info.meta.peers;
    let held: BTreeSet<StoreId> = peers.iter().map(|peer| peer.store_id.into()).collect();
    let mut added = Vec::new();
    for &store in goal.stores.difference(&held) {
        added.push(Place { peer: fresh()?, store });
    }
    let (staying, leaving): (Vec<&metapb::Peer>, Vec<_>) =
        peers.iter().partition(|peer| goal.stores.contains(&peer.store_id.into()));
    let is_learner = |peer: &&&metapb::Peer| peer.role() == PeerRole::Learner;
    let learners = staying.iter().filter(is_learner).map(|peer| Place::of(peer));
    let promote: Vec<Place> = learners.chain(added.iter().copied()).collect();
    let demote: Vec<Place> = leaving
        .iter()
        .filter(|peer| peer.role() != PeerRole::Learner)
        .map(|peer| Place::of(peer))
        .collect();

    let mut steps: Vec<Step> = added.iter().map(|&place| Step::AddLearner(place)).collect();
    let leads = info.leader.map(|leader| StoreId::new(leader.store_id));
    let leads_and_goes = leads.filter(|store| !goal.stores.contains(store));
    let heirs: Vec<StoreId> = staying
        .iter()
        .filter(|peer| can_lead(info, peer))
        .map(|peer| StoreId::new(peer.store_id))
        .collect();
    let wished = goal.leader.filter(|store| heirs.contains(store));
    let mut one_by_one = false;
    if let Some(leave) = leads_and_goes {
        match wished.or(heirs.first().copied()) {
            Some(to) => steps.push(Step::Transfer { to, leave: Some(leave) }),
            // Nobody can take the lead before it votes.
            None => {
                let to = promote.first()?.store;
                steps.extend(promote.iter().map(|&place| Step::Promote(place)));
                steps.push(Step::Transfer { to, leave: Some(leave) });
                one_by_one = true;
            }
        }
    }
    let gone = leaving.iter().map(|peer| Place::of(peer));
    match (&promote[..], &demote[..]) {
        _ if one_by_one => {}
        ([], []) | ([], [_]) => {}
        ([place], []) => steps.push(Step::Promote(*place)),
        _ => {
            steps.push(Step::Enter { promote, demote });
            steps.push(Step::Leave);
        }
    }
    steps.extend(gone.map(Step::Remove));
    if let Some(to) = goal.leader.filter(|&to| leads != Some(to) && goal.stores.contains(&to)) {
        steps.push(Step::Transfer { to, leave: None });
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(stores: &[u64], leader: u64) -> RegionInfo {
        let peer =
            |&store: &u64| metapb::Peer { id: store * 10, store_id: store, ..Default::default() };
        let peers: Vec<_> = stores.iter().map(peer).collect();
        let leader = peers.iter().find(|peer| peer.store_id == leader).copied();
        let meta = metapb::Region { id: 1, peers, ..Default::default() };
        RegionInfo { meta, leader, ..Default::default() }
    }

    fn told(info: &RegionInfo, goal: &Goal) -> Vec<String> {
        let mut next = 100;
        let mut fresh = || {
            next += 1;
            Some(PeerId::new(next - 1))
        };
        steps(info, goal, &mut fresh).unwrap().iter().map(Step::to_string).collect()
    }

    fn goal(stores: &[u64]) -> Goal {
        Goal { stores: stores.iter().map(|&store| store.into()).collect(), leader: None }
    }

    #[test]
    fn a_move_replaces_in_one_joint_step() {
        assert_eq!(
            told(&region(&[1, 2, 3], 2), &goal(&[2, 3, 4])),
            [
                "add learner 100 on store 4",
                "enter joint membership: promote on 4; demote on 1",
                "leave joint membership",
                "remove peer 10 from store 1",
            ]
        );
    }

    #[test]
    fn the_lead_leaves_first() {
        let steps = told(&region(&[1, 2, 3], 1), &goal(&[2, 3, 4]));
        assert_eq!(steps[..2], ["add learner 100 on store 4", "transfer leader to store 2"]);
    }

    #[test]
    fn an_only_peer_moves_by_a_second_voter() {
        assert_eq!(
            told(&region(&[1], 1), &goal(&[2])),
            [
                "add learner 100 on store 2",
                "promote peer 100 on store 2",
                "transfer leader to store 2",
                "remove peer 10 from store 1",
            ]
        );
    }

    #[test]
    fn one_change_needs_no_joint_step() {
        assert_eq!(
            told(&region(&[1, 2], 1), &goal(&[1, 2, 3])),
            ["add learner 100 on store 3", "promote peer 100 on store 3"]
        );
        assert_eq!(told(&region(&[1, 2, 3], 1), &goal(&[1, 2])), ["remove peer 30 from store 3"]);
        assert!(told(&region(&[1, 2, 3], 1), &goal(&[1, 2, 3])).is_empty());
    }

    #[test]
    fn a_learner_that_is_there_is_used() {
        let mut info = region(&[1, 2, 3, 4], 1);
        info.meta.peers[3].set_role(PeerRole::Learner);
        assert_eq!(
            told(&info, &goal(&[1, 2, 4])),
            [
                "enter joint membership: promote on 4; demote on 3",
                "leave joint membership",
                "remove peer 30 from store 3",
            ]
        );
        assert_eq!(told(&info, &goal(&[1, 2, 3])), ["remove peer 40 from store 4"]);
    }

    #[test]
    fn without_ids_there_are_no_steps() {
        assert_eq!(steps(&region(&[1], 1), &goal(&[1, 2]), &mut || None), None);
    }
}

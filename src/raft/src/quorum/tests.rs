//! Majorities against their definition: try every subset.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{JointMajority, Majority, VoteResult};
use crate::NodeId;

fn majority(ids: &[u64]) -> Majority {
    ids.iter().copied().map(NodeId).collect()
}

/// The largest value that more than half have reached, by trying every value.
fn reached_by_definition(ids: &[u64], values: &BTreeMap<u64, u64>) -> u64 {
    let value_of = |id: &u64| values.get(id).copied().unwrap_or(0);
    let reached =
        |value: u64| 2 * ids.iter().filter(|id| value_of(id) >= value).count() > ids.len();
    match ids.is_empty() {
        true => u64::MAX,
        false => (0..=100).rev().find(|value| reached(*value)).expect("everybody has reached 0"),
    }
}

/// Won if the grants are a majority; lost if they would not be with every missing vote.
fn vote_by_definition(ids: &[u64], votes: &BTreeMap<u64, bool>) -> VoteResult {
    let with = |missing: bool| {
        let granted = ids.iter().filter(|id| votes.get(id).copied().unwrap_or(missing)).count();
        ids.is_empty() || 2 * granted > ids.len()
    };
    match (with(false), with(true)) {
        (true, _) => VoteResult::Won,
        (false, true) => VoteResult::Pending,
        (false, false) => VoteResult::Lost,
    }
}

fn voters() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::btree_set(1u64..12, 0..10).prop_map(|ids| ids.into_iter().collect())
}

proptest! {
    #[test]
    fn majority_reaches_what_its_definition_says(
        ids in voters(),
        values in proptest::collection::btree_map(1u64..12, 0u64..100, 0..12),
    ) {
        let reached = majority(&ids).reached(|id| values.get(&id.0).copied().unwrap_or(0));
        prop_assert_eq!(reached, reached_by_definition(&ids, &values));
    }

    #[test]
    fn majority_votes_as_its_definition_says(
        ids in voters(),
        votes in proptest::collection::btree_map(1u64..12, any::<bool>(), 0..12),
    ) {
        let result = majority(&ids).vote_result(|id| votes.get(&id.0).copied());
        prop_assert_eq!(result, vote_by_definition(&ids, &votes));
    }

    #[test]
    fn joint_majority_needs_both(
        incoming in voters(),
        outgoing in voters(),
        values in proptest::collection::btree_map(1u64..12, 0u64..100, 0..12),
        votes in proptest::collection::btree_map(1u64..12, any::<bool>(), 0..12),
    ) {
        let joint = JointMajority { incoming: majority(&incoming), outgoing: majority(&outgoing) };
        let reached = joint.reached(|id| values.get(&id.0).copied().unwrap_or(0));
        let (left, right) =
            (reached_by_definition(&incoming, &values), reached_by_definition(&outgoing, &values));
        prop_assert_eq!(reached, left.min(right));

        let halves =
            [vote_by_definition(&incoming, &votes), vote_by_definition(&outgoing, &votes)];
        let expected = if halves.contains(&VoteResult::Lost) {
            VoteResult::Lost
        } else if halves == [VoteResult::Won; 2] {
            VoteResult::Won
        } else {
            VoteResult::Pending
        };
        prop_assert_eq!(joint.vote_result(|id| votes.get(&id.0).copied()), expected);
    }

    /// Two majorities of one set share a member: what one has agreed on, the other hears of.
    #[test]
    fn majorities_overlap(
        ids in voters(),
        granted in proptest::collection::vec(any::<bool>(), 12),
    ) {
        let set = majority(&ids);
        let vote = |id: NodeId| granted[id.0 as usize];
        let one = set.vote_result(|id| Some(vote(id))) == VoteResult::Won;
        let other = set.vote_result(|id| Some(!vote(id))) == VoteResult::Won;
        prop_assert!(ids.is_empty() || !(one && other));
    }
}

#[test]
fn members_are_listed_once() {
    let joint = JointMajority { incoming: majority(&[3, 1, 2]), outgoing: majority(&[4, 3]) };
    let ids: Vec<u64> = joint.iter().map(|id| id.0).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    assert!(joint.is_joint() && joint.contains(NodeId(4)) && !joint.is_only(NodeId(1)));
    let single = JointMajority { incoming: majority(&[1]), ..JointMajority::default() };
    assert!(single.is_only(NodeId(1)) && !single.is_only(NodeId(2)));
}

//! Membership arithmetic, by example and by property.

use proptest::prelude::*;

use super::*;

fn membership(voters: &[u64], learners: &[u64]) -> Membership {
    let state = ConfState::simple(voters.iter().copied(), learners.iter().copied());
    Membership::restore(&state).expect("a consistent membership")
}

fn change(transition: Transition, changes: &[(ConfChangeKind, u64)]) -> ConfChangeV2 {
    let changes = changes.iter().map(|(kind, id)| ConfChange { kind: *kind, node: NodeId(*id) });
    ConfChangeV2 { transition, changes: changes.collect(), context: Bytes::new() }
}

use ConfChangeKind::{AddLearner, AddVoter, Remove};

#[test]
fn one_voter_changes_without_a_joint_state() {
    let three = membership(&[1, 2, 3], &[]);
    let cases = [
        ((AddVoter, 4), membership(&[1, 2, 3, 4], &[])),
        ((AddLearner, 4), membership(&[1, 2, 3], &[4])),
        ((Remove, 2), membership(&[1, 3], &[])),
        ((AddLearner, 2), membership(&[1, 3], &[2])),
        ((AddVoter, 2), three.clone()),
        ((Remove, 9), three.clone()),
    ];
    for (single, expected) in cases {
        let changed = three.changed(&change(Transition::Auto, &[single]));
        assert_eq!(changed, Ok(expected), "{single:?}");
    }
    let promoted = membership(&[1, 2], &[3]).changed(&change(Transition::Auto, &[(AddVoter, 3)]));
    assert_eq!(promoted, Ok(three));
}

#[test]
fn a_demoted_voter_stays_one_until_the_joint_state_is_left() {
    let three = membership(&[1, 2, 3], &[]);
    let joint = three
        .changed(&change(Transition::Auto, &[(AddLearner, 3), (AddVoter, 4), (Remove, 2)]))
        .unwrap();
    let state = joint.conf_state();
    assert_eq!(state.voters, [NodeId(1), NodeId(4)]);
    assert_eq!(state.voters_outgoing, [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!((state.learners.len(), &state.learners_next[..]), (0, &[NodeId(3)][..]));
    assert!(state.auto_leave);
    assert_eq!(Membership::restore(&state), Ok(joint.clone()), "a joint state survives a restart");

    let left = joint.changed(&ConfChangeV2::leave_joint()).unwrap();
    assert_eq!(left, membership(&[1, 4], &[3]));
}

#[test]
fn explicit_joint_states_wait_to_be_left() {
    let joint =
        membership(&[1], &[]).changed(&change(Transition::Explicit, &[(AddVoter, 2)])).unwrap();
    assert!(joint.voters.is_joint() && !joint.auto_leave);
    let implicit =
        membership(&[1], &[]).changed(&change(Transition::Implicit, &[(AddVoter, 2)])).unwrap();
    assert!(implicit.voters.is_joint() && implicit.auto_leave);
}

#[test]
fn nonsense_is_refused() {
    let three = membership(&[1, 2, 3], &[]);
    let auto = |changes| change(Transition::Auto, changes);
    let joint = three.changed(&auto(&[(AddVoter, 4), (Remove, 1)])).unwrap();
    let cases = [
        (&three, ConfChangeV2::leave_joint(), ConfChangeError::NotJoint),
        (&joint, auto(&[(AddVoter, 5)]), ConfChangeError::AlreadyJoint),
        (&joint, auto(&[(AddVoter, 5), (AddVoter, 6)]), ConfChangeError::AlreadyJoint),
        (&three, auto(&[(AddVoter, 0)]), ConfChangeError::ZeroId),
        (&three, auto(&[(Remove, 1), (Remove, 2), (Remove, 3)]), ConfChangeError::NoVoters),
        (&membership(&[1], &[2]), auto(&[(Remove, 1)]), ConfChangeError::NoVoters),
        (&Membership::default(), auto(&[(AddVoter, 1)]), ConfChangeError::NoVoters),
    ];
    for (before, wrong, expected) in cases {
        assert_eq!(before.changed(&wrong), Err(expected), "{wrong:?}");
    }
}

#[test]
fn inconsistent_states_are_refused() {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    let good = ConfState::simple([1, 2], [3]);
    assert!(Membership::restore(&good).is_ok());
    assert!(Membership::restore(&ConfState::default()).is_ok(), "a node that knows no group yet");
    let cases = [
        ConfState { learners: ids(&[2]), ..good.clone() },
        ConfState { voters: ids(&[1, 1]), ..good.clone() },
        ConfState { voters: ids(&[0]), ..good.clone() },
        ConfState { auto_leave: true, ..good.clone() },
        ConfState { learners_next: ids(&[2]), ..good.clone() },
        ConfState { voters_outgoing: ids(&[1, 4]), learners_next: ids(&[5]), ..good.clone() },
        ConfState { voters_outgoing: ids(&[1, 3]), ..good.clone() },
        ConfState { voters: ids(&[]), voters_outgoing: ids(&[1]), ..good },
    ];
    for state in cases {
        assert_eq!(Membership::restore(&state), Err(ConfChangeError::Inconsistent), "{state:?}");
    }
}

fn any_change() -> impl Strategy<Value = ConfChangeV2> {
    let kind = prop_oneof![Just(AddVoter), Just(AddLearner), Just(Remove)];
    let transition =
        prop_oneof![Just(Transition::Auto), Just(Transition::Implicit), Just(Transition::Explicit)];
    (transition, proptest::collection::vec((kind, 1u64..7), 0..4))
        .prop_map(|(transition, changes)| change(transition, &changes))
}

proptest! {
    /// Whatever happens, the membership stays consistent and can be stored, and any two consecutive
    /// ones share a majority.
    #[test]
    fn memberships_stay_consistent(changes in proptest::collection::vec(any_change(), 1..20)) {
        let mut now = membership(&[1, 2, 3], &[]);
        for change in changes {
            let Ok(next) = now.changed(&change) else { continue };
            prop_assert_eq!(next.check(), Ok(()));
            prop_assert_eq!(Membership::restore(&next.conf_state()), Ok(next.clone()));
            prop_assert!(majorities_overlap(&now.voters, &next.voters));
            now = next;
        }
    }
}

/// Whether no two disjoint sets of nodes are majorities of the one and of the other.
fn majorities_overlap(one: &JointMajority, other: &JointMajority) -> bool {
    use crate::quorum::VoteResult::Won;
    (0u32..128).all(|nodes| {
        let inside = |id: NodeId| Some(nodes & (1 << id.0) != 0);
        let outside = |id: NodeId| Some(nodes & (1 << id.0) == 0);
        one.vote_result(inside) != Won || other.vote_result(outside) != Won
    })
}

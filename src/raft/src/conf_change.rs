//! Membership changes, as pure functions from one membership to the next.
//!
//! Vocabulary: a *simple* change adds, removes, promotes or demotes one voter, or any number of
//! learners; any other set of changes goes through a *joint* membership, entered by one entry and
//! left by another (Raft thesis §4.3). A voter that becomes a learner while joint stays a voter of
//! the outgoing majority, so it is noted in `learners_next` until the joint state is left.
//!
//! Invariants of a [`Membership`] (checked by [`Membership::check`]):
//! 1. learners are no voters; 2. `learners_next` are voters of the outgoing majority and not of the
//!    incoming one;
//! 3. outside a joint state `learners_next` is empty and `auto_leave` is off.
//!
//! A change takes effect when its entry is applied. Tests: `conf_change/tests.rs` and
//! `testscripts/conf_change_*`.

use bytes::Bytes;

use crate::quorum::{JointMajority, Majority};
use crate::{ConfState, NodeId};

#[cfg(test)]
mod tests;

/// What happens to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfChangeKind {
    /// Make it a voter, new or promoted from learner.
    AddVoter,
    /// Make it a learner, new or demoted from voter.
    AddLearner,
    /// Remove it.
    Remove,
}

/// A change to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfChange {
    /// What happens to it.
    pub kind: ConfChangeKind,
    /// The member.
    pub node: NodeId,
}

/// Whether and how a change goes through a joint membership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transition {
    /// Simple if one member changes, else joint with auto-leave.
    #[default]
    Auto,
    /// Joint; the leader leaves it by itself.
    Implicit,
    /// Joint; left by a further, empty change.
    Explicit,
}

/// A membership change. Without changes it leaves the joint state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChangeV2 {
    /// How to get there.
    pub transition: Transition,
    /// What changes.
    pub changes: Vec<ConfChange>,
    /// Free for the proposer.
    pub context: Bytes,
}

impl ConfChangeV2 {
    /// A change of one member.
    pub fn single(kind: ConfChangeKind, node: NodeId) -> ConfChangeV2 {
        ConfChangeV2 { changes: vec![ConfChange { kind, node }], ..ConfChangeV2::default() }
    }

    /// The change that leaves the joint state.
    pub fn leave_joint() -> ConfChangeV2 {
        ConfChangeV2::default()
    }

    /// Whether this leaves the joint state.
    pub fn is_leave_joint(&self) -> bool {
        self.changes.is_empty() && self.transition == Transition::Auto
    }

    /// `Some(auto_leave)` if this enters a joint state.
    pub fn enters_joint(&self) -> Option<bool> {
        match self.transition {
            Transition::Auto if self.changes.len() > 1 => Some(true),
            Transition::Auto => None,
            Transition::Implicit => Some(true),
            Transition::Explicit => Some(false),
        }
    }
}

/// Why a change makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfChangeError {
    /// Leave the joint state first.
    #[error("the membership is joint already")]
    AlreadyJoint,
    /// There is nothing to leave.
    #[error("the membership is not joint")]
    NotJoint,
    /// A group without voters could never change again.
    #[error("there is no voter, or none would be left")]
    NoVoters,
    /// More than one voter changes.
    #[error("more than one voter changes without a joint state")]
    NotSimple,
    /// Node ids are not 0.
    #[error("node id 0 is not valid")]
    ZeroId,
    /// A stored or received membership contradicts itself.
    #[error("the membership contradicts itself")]
    Inconsistent,
    /// The bytes are no membership change.
    #[error("it cannot be decoded")]
    Malformed,
}

/// Who is in the group, and in which role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Who decides.
    pub voters: JointMajority,
    /// Who replicates only.
    pub learners: Majority,
    /// Who will replicate only once the joint state is left.
    pub learners_next: Majority,
    /// Whether the leader leaves the joint state by itself.
    pub auto_leave: bool,
}

impl Membership {
    /// The membership that `state` describes, if it is consistent.
    pub fn restore(state: &ConfState) -> Result<Membership, ConfChangeError> {
        let set = |ids: &[NodeId]| {
            let set: Majority = ids.iter().copied().collect();
            let proper = set.len() == ids.len() && !set.contains(NodeId(0));
            if proper { Ok(set) } else { Err(ConfChangeError::Inconsistent) }
        };
        let membership = Membership {
            voters: JointMajority {
                incoming: set(&state.voters)?,
                outgoing: set(&state.voters_outgoing)?,
            },
            learners: set(&state.learners)?,
            learners_next: set(&state.learners_next)?,
            auto_leave: state.auto_leave,
        };
        membership.check()?;
        Ok(membership)
    }

    /// The membership as it is stored and sent.
    pub fn conf_state(&self) -> ConfState {
        ConfState {
            voters: self.voters.incoming.as_slice().to_vec(),
            voters_outgoing: self.voters.outgoing.as_slice().to_vec(),
            learners: self.learners.as_slice().to_vec(),
            learners_next: self.learners_next.as_slice().to_vec(),
            auto_leave: self.auto_leave,
        }
    }

    /// Refuses a membership that violates the invariants above.
    pub fn check(&self) -> Result<(), ConfChangeError> {
        let learners_fit = self.learners.as_slice().iter().all(|id| !self.voters.contains(*id));
        let next_fit =
            self.learners_next.as_slice().iter().all(|id| {
                self.voters.outgoing.contains(*id) && !self.voters.incoming.contains(*id)
            });
        let plain = self.voters.is_joint() || !self.auto_leave;
        let staffed = !self.voters.incoming.is_empty() || !self.voters.is_joint();
        if learners_fit && next_fit && plain && staffed {
            Ok(())
        } else {
            Err(ConfChangeError::Inconsistent)
        }
    }

    /// Whether `id` is a member in any role.
    pub fn contains(&self, id: NodeId) -> bool {
        self.voters.contains(id) || self.learners.contains(id)
    }

    /// The membership after `change`. One without voters cannot be changed: whoever holds it does
    /// not know the group yet, and would take the first voter it hears of for the only one.
    pub fn changed(&self, change: &ConfChangeV2) -> Result<Membership, ConfChangeError> {
        if self.voters.incoming.is_empty() {
            return Err(ConfChangeError::NoVoters);
        }
        let next = if change.is_leave_joint() {
            self.leave_joint()?
        } else if let Some(auto_leave) = change.enters_joint() {
            self.enter_joint(auto_leave, &change.changes)?
        } else {
            self.simple(&change.changes)?
        };
        next.check()?;
        Ok(next)
    }

    fn simple(&self, changes: &[ConfChange]) -> Result<Membership, ConfChangeError> {
        if self.voters.is_joint() {
            return Err(ConfChangeError::AlreadyJoint);
        }
        let mut next = self.clone();
        next.apply(changes)?;
        let (before, after) = (&self.voters.incoming, &next.voters.incoming);
        let left = before.as_slice().iter().filter(|id| !after.contains(**id)).count();
        let joined = after.as_slice().iter().filter(|id| !before.contains(**id)).count();
        if left + joined > 1 { Err(ConfChangeError::NotSimple) } else { Ok(next) }
    }

    fn enter_joint(
        &self,
        auto_leave: bool,
        changes: &[ConfChange],
    ) -> Result<Membership, ConfChangeError> {
        if self.voters.is_joint() {
            return Err(ConfChangeError::AlreadyJoint);
        }
        let mut next = self.clone();
        next.voters.outgoing = self.voters.incoming.clone();
        next.apply(changes)?;
        next.auto_leave = auto_leave;
        Ok(next)
    }

    fn leave_joint(&self) -> Result<Membership, ConfChangeError> {
        if !self.voters.is_joint() {
            return Err(ConfChangeError::NotJoint);
        }
        let mut next = self.clone();
        for id in self.learners_next.as_slice() {
            next.learners.insert(*id);
        }
        next.learners_next = Majority::default();
        next.voters.outgoing = Majority::default();
        next.auto_leave = false;
        Ok(next)
    }

    fn apply(&mut self, changes: &[ConfChange]) -> Result<(), ConfChangeError> {
        for change in changes {
            if change.node == NodeId(0) {
                return Err(ConfChangeError::ZeroId);
            }
            match change.kind {
                ConfChangeKind::AddVoter => self.add_voter(change.node),
                ConfChangeKind::AddLearner => self.add_learner(change.node),
                ConfChangeKind::Remove => self.remove(change.node),
            }
        }
        if self.voters.incoming.is_empty() { Err(ConfChangeError::NoVoters) } else { Ok(()) }
    }

    fn add_voter(&mut self, id: NodeId) {
        self.learners.remove(id);
        self.learners_next.remove(id);
        self.voters.incoming.insert(id);
    }

    fn add_learner(&mut self, id: NodeId) {
        self.voters.incoming.remove(id);
        if self.voters.outgoing.contains(id) {
            self.learners_next.insert(id);
        } else {
            self.learners.insert(id);
        }
    }

    fn remove(&mut self, id: NodeId) {
        self.voters.incoming.remove(id);
        self.learners.remove(id);
        self.learners_next.remove(id);
    }
}

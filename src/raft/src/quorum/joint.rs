//! Two sets of voters that must both agree while the membership changes (Raft thesis §4.3).

use super::{Majority, VoteResult};
use crate::NodeId;
use crate::planted::{Bug, planted};

/// The incoming and, during a change, the outgoing majority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JointMajority {
    /// Voters after the change; outside one, the voters.
    pub incoming: Majority,
    /// Voters before the change; empty outside one.
    pub outgoing: Majority,
}

impl JointMajority {
    /// Whether a change is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` votes in either half.
    pub fn contains(&self, id: NodeId) -> bool {
        self.incoming.contains(id) || self.outgoing.contains(id)
    }

    /// Every voter once, ordered by id within its half.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        let outgoing = self.outgoing.as_slice().iter();
        let only_outgoing = outgoing.filter(|id| !self.incoming.contains(**id));
        self.incoming.as_slice().iter().chain(only_outgoing).copied()
    }

    /// Whether `id` is the only voter.
    pub fn is_only(&self, id: NodeId) -> bool {
        self.incoming.as_slice() == [id] && !self.is_joint()
    }

    /// The largest value that both majorities have reached.
    pub fn reached(&self, value_of: impl Fn(NodeId) -> u64) -> u64 {
        let incoming = self.incoming.reached(&value_of);
        if !self.is_joint() || planted(Bug::JointQuorumWithoutOutgoing) {
            return incoming;
        }
        incoming.min(self.outgoing.reached(&value_of))
    }

    /// How an election stands: won if both halves are won, lost if one is lost.
    pub fn vote_result(&self, vote_of: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        let incoming = self.incoming.vote_result(&vote_of);
        if !self.is_joint() || planted(Bug::JointQuorumWithoutOutgoing) {
            return incoming;
        }
        match (incoming, self.outgoing.vote_result(&vote_of)) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            _ => VoteResult::Pending,
        }
    }
}

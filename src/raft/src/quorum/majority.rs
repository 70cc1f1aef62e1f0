//! One set of voters.

use super::VoteResult;
use crate::NodeId;

/// Voters up to this number are counted on the stack.
const STACK_VOTERS_MAX: usize = 7;

/// A set of voters, ordered by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Majority {
    voters: Vec<NodeId>,
}

impl Majority {
    /// Adds a voter; false if it is one already.
    pub fn insert(&mut self, id: NodeId) -> bool {
        match self.voters.binary_search(&id) {
            Ok(_) => false,
            Err(at) => {
                self.voters.insert(at, id);
                true
            }
        }
    }

    /// Removes a voter; false if it is none.
    pub fn remove(&mut self, id: NodeId) -> bool {
        match self.voters.binary_search(&id) {
            Ok(at) => {
                self.voters.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether `id` is a voter.
    pub fn contains(&self, id: NodeId) -> bool {
        self.voters.binary_search(&id).is_ok()
    }

    /// The voters, ordered by id.
    pub fn as_slice(&self) -> &[NodeId] {
        &self.voters
    }

    /// Number of voters.
    pub fn len(&self) -> usize {
        self.voters.len()
    }

    /// Whether there is no voter.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Answers that make a majority.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// The largest value that a majority has reached. `u64::MAX` if there is no voter.
    pub fn reached(&self, value_of: impl Fn(NodeId) -> u64) -> u64 {
        let count = self.voters.len();
        if count == 0 {
            return u64::MAX;
        }
        let mut stack = [0u64; STACK_VOTERS_MAX];
        let mut heap = Vec::new();
        let values: &mut [u64] = if count <= STACK_VOTERS_MAX {
            &mut stack[..count]
        } else {
            heap.resize(count, 0);
            &mut heap
        };
        for (value, id) in values.iter_mut().zip(&self.voters) {
            *value = value_of(*id);
        }
        values.sort_unstable();
        values[count - self.quorum()]
    }

    /// How an election among these voters stands; `vote_of` is `None` for those who have not
    /// answered.
    pub fn vote_result(&self, vote_of: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        if self.voters.is_empty() {
            return VoteResult::Won;
        }
        let (mut granted, mut missing) = (0, 0);
        for id in &self.voters {
            match vote_of(*id) {
                Some(true) => granted += 1,
                Some(false) => {}
                None => missing += 1,
            }
        }
        if granted >= self.quorum() {
            VoteResult::Won
        } else if granted + missing >= self.quorum() {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        }
    }
}

impl FromIterator<NodeId> for Majority {
    fn from_iter<I: IntoIterator<Item = NodeId>>(ids: I) -> Majority {
        let mut voters: Vec<NodeId> = ids.into_iter().collect();
        voters.sort_unstable();
        voters.dedup();
        Majority { voters }
    }
}

//! The record of how far a region's state machine has got, stored in the same batch as the data it speaks about (I10).

use prost::Message;
use proto::flotillapb;
use raft::{LogIndex, Term};

/// Where a region's state machine stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyState {
    /// The last entry applied.
    pub applied_index: LogIndex,
    /// Its term.
    pub applied_term: Term,
    /// The last entry the log no longer needs to hold; never above `applied_index`.
    pub truncated_index: LogIndex,
    /// Its term.
    pub truncated_term: Term,
    /// Digest of everything applied so far (see `apply::hash`).
    pub state_hash: u64,
}

impl ApplyState {
    /// The state of a region that starts at (`index`, `term`) with nothing applied and nothing in the log.
    pub fn initial(index: LogIndex, term: Term) -> ApplyState {
        ApplyState {
            applied_index: index,
            applied_term: term,
            truncated_index: index,
            truncated_term: term,
            state_hash: 0,
        }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let stored = flotillapb::ApplyState {
            applied_index: self.applied_index.0,
            applied_term: self.applied_term.0,
            truncated_index: self.truncated_index.0,
            truncated_term: self.truncated_term.0,
            state_hash: self.state_hash,
        };
        stored.encode_to_vec()
    }

    /// The state that `bytes` stand for, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<ApplyState> {
        let stored = flotillapb::ApplyState::decode(bytes).ok()?;
        let state = ApplyState {
            applied_index: LogIndex(stored.applied_index),
            applied_term: Term(stored.applied_term),
            truncated_index: LogIndex(stored.truncated_index),
            truncated_term: Term(stored.truncated_term),
            state_hash: stored.state_hash,
        };
        (state.truncated_index <= state.applied_index).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_a_round_trip_and_damage_is_refused() {
        let state = ApplyState {
            applied_index: LogIndex(900),
            applied_term: Term(7),
            truncated_index: LogIndex(512),
            truncated_term: Term(6),
            state_hash: 0xfeed,
        };
        let bytes = state.encode();
        assert_eq!(ApplyState::decode(&bytes), Some(state));
        assert_eq!(ApplyState::decode(&bytes[1..]), None);
        let ahead = ApplyState { truncated_index: LogIndex(901), ..state };
        assert_eq!(ApplyState::decode(&ahead.encode()), None, "truncated beyond applied");
    }
}

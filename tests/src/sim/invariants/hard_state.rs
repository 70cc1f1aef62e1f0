//! I6 (Raft thesis §3.8): what a store writes about its own term, vote and commit index never goes back.

use super::Broken;
use engine::{Cf, Op, WriteBatch};
use prost::Message;
use proto::eraftpb;
use raftstore::keys::Key;
use std::collections::BTreeMap;

/// The last hard state written, by store and region.
#[derive(Debug, Default)]
pub struct HardStates {
    written: BTreeMap<(usize, u64), eraftpb::HardState>,
}

impl HardStates {
    /// A store is about to write a batch to its log.
    pub fn write(&mut self, store: usize, batch: &WriteBatch) -> Result<(), Broken> {
        for op in batch.ops() {
            if let Op::Delete { cf: Cf::Raft, key } = op
                && let Ok(Key::HardState(region)) = Key::decode(Cf::Raft, key)
            {
                // The peer was destroyed; another one of the region may begin anew.
                self.written.remove(&(store, region.get()));
            }
            let Op::Put { cf: Cf::Raft, key, value } = op else { continue };
            let Ok(Key::HardState(region)) = Key::decode(Cf::Raft, key) else { continue };
            let Ok(new) = eraftpb::HardState::decode(value.clone()) else { continue };
            let old = self.written.insert((store, region.get()), new).unwrap_or_default();
            let changed_vote = new.term == old.term && old.vote != 0 && new.vote != old.vote;
            if new.term < old.term || new.commit < old.commit || changed_vote {
                let what = format!("store {} writes {new:?} after {old:?}", store + 1);
                return Err(Broken::new("I6 hard state never regresses", what));
            }
        }
        Ok(())
    }

    /// The store has crashed: what it wrote may be lost, and [`super::promises`] takes over.
    pub fn crashed(&mut self, store: usize) {
        self.written.retain(|(other, _), _| *other != store);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ids::RegionId;

    #[test]
    fn a_step_back_is_caught() {
        let mut watcher = HardStates::default();
        let mut write = |term, vote, commit| {
            let mut batch = WriteBatch::new();
            let state = eraftpb::HardState { term, vote, commit };
            let key = Key::HardState(RegionId::from(1)).encode();
            batch.put(Cf::Raft, key, state.encode_to_vec());
            watcher.write(0, &batch)
        };
        assert_eq!(write(5, 0, 10), Ok(()));
        assert_eq!(write(5, 2, 10), Ok(()));
        assert_eq!(write(6, 0, 12), Ok(()));
        assert!(write(6, 0, 11).is_err());
        assert!(write(5, 0, 12).is_err());
    }
}

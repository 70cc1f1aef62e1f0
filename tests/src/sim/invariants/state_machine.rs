//! I4, state machine safety (Raft thesis fig. 3.2, §3.6.3): whoever applies an index applies the same entry, and is then in
//! the same state.

use super::Broken;
use raft::Entry;
use std::collections::BTreeMap;

/// What was applied where.
#[derive(Debug, Default)]
pub struct StateMachine {
    /// By region and index: term and content, and the store that showed it first.
    entries: BTreeMap<(u64, u64), (u64, u64, usize)>,
    /// By region and index: the digest after it.
    states: BTreeMap<(u64, u64), (u64, usize)>,
}

impl StateMachine {
    /// A store hands `entry` to its applier.
    pub fn committed(&mut self, store: usize, region: u64, entry: &Entry) -> Result<(), Broken> {
        let (index, term) = (entry.index.0, entry.term.0);
        let content = content_hash(entry);
        let first = *self.entries.entry((region, index)).or_insert((term, content, store));
        if (first.0, first.1) == (term, content) {
            return Ok(());
        }
        let what = format!(
            "stores {} and {} apply different entries at {index} of region {region}: terms {} and {term}",
            first.2 + 1,
            store + 1,
            first.0,
        );
        Err(Broken::new("I4 state machine safety", what))
    }

    /// A store says that it has applied up to `index`.
    pub fn applied(
        &mut self,
        store: usize,
        region: u64,
        index: u64,
        state_hash: u64,
    ) -> Result<(), Broken> {
        let first = *self.states.entry((region, index)).or_insert((state_hash, store));
        if first.0 == state_hash {
            return Ok(());
        }
        let what = format!(
            "stores {} and {} are in different states at {index} of region {region}",
            first.1 + 1,
            store + 1,
        );
        Err(Broken::new("I4 state machine safety", what))
    }
}

/// A digest of what an entry says (FNV-1a).
pub fn content_hash(entry: &Entry) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ entry.kind as u64;
    for byte in entry.data.iter().chain(entry.context.iter()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::{EntryKind, LogIndex, Term};

    fn entry(term: u64, data: &'static str) -> Entry {
        Entry {
            index: LogIndex(7),
            term: Term(term),
            kind: EntryKind::Normal,
            data: data.into(),
            context: Default::default(),
        }
    }

    #[test]
    fn another_entry_or_another_state_at_an_index_is_caught() {
        let mut watcher = StateMachine::default();
        assert_eq!(watcher.committed(0, 1, &entry(2, "a")), Ok(()));
        assert_eq!(watcher.committed(1, 1, &entry(2, "a")), Ok(()));
        assert!(watcher.committed(2, 1, &entry(2, "b")).is_err());
        assert!(watcher.committed(2, 1, &entry(3, "a")).is_err());
        assert_eq!(watcher.applied(0, 1, 7, 99), Ok(()));
        assert!(watcher.applied(1, 1, 7, 98).is_err());
    }
}

//! I3, leader completeness (Raft thesis fig. 3.2, §3.6): a committed entry is in the log of every leader of a later term.
//!
//! An entry counts as committed when some store hands it to its applier. The term it was committed in is not told, but is no
//! later than the highest term anybody has spoken of by then; leaders of terms above that one must have the entry. What a
//! leader has is seen in the positions its appends name.

use super::{Broken, Sent};
use proto::eraftpb::MessageType;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Committed {
    term: u64,
    /// Leaders of later terms must have it.
    committed_by_term: u64,
}

#[derive(Debug, Default)]
struct Group {
    term_max: u64,
    committed: BTreeMap<u64, Committed>,
}

/// Committed entries by region and index.
#[derive(Debug, Default)]
pub struct LeaderComplete {
    groups: BTreeMap<u64, Group>,
}

impl LeaderComplete {
    /// An entry is handed to an applier.
    pub fn committed(&mut self, region: u64, index: u64, term: u64) {
        let group = self.groups.entry(region).or_default();
        let committed_by_term = group.term_max.max(term);
        group.committed.entry(index).or_insert(Committed { term, committed_by_term });
    }

    /// The last index known to be committed in a region.
    pub fn last_committed(&self, region: u64) -> u64 {
        let last = self.groups.get(&region).and_then(|group| group.committed.last_key_value());
        last.map_or(0, |(index, _)| *index)
    }

    /// The term of a committed entry, if it is known.
    pub fn term(&self, region: u64, index: u64) -> Option<u64> {
        Some(self.groups.get(&region)?.committed.get(&index)?.term)
    }

    /// Looks at a message that leaves a store.
    pub fn sent(&mut self, sent: Sent<'_>) -> Result<(), Broken> {
        let message = sent.message;
        let group = self.groups.entry(sent.region).or_default();
        group.term_max = group.term_max.max(message.term);
        if sent.kind() != MessageType::MsgAppend {
            return Ok(());
        }
        let before = (message.index, message.log_term);
        let entries = message.entries.iter().map(|entry| (entry.index, entry.term));
        for (index, term) in std::iter::once(before).chain(entries) {
            let Some(committed) = group.committed.get(&index) else { continue };
            if committed.committed_by_term < message.term && committed.term != term {
                let what = format!(
                    "peer {} leads region {} in term {} with entry {index} of term {term}, but \
                     the one of term {} was committed by term {}",
                    message.from,
                    sent.region,
                    message.term,
                    committed.term,
                    committed.committed_by_term,
                );
                return Err(Broken::new("I3 leader completeness", what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::eraftpb::Message;

    fn append(from: u64, term: u64, index: u64, log_term: u64) -> Message {
        let mut message = Message { from, term, index, log_term, ..Default::default() };
        message.set_msg_type(MessageType::MsgAppend);
        message
    }

    #[test]
    fn a_later_leader_without_a_committed_entry_is_caught() {
        let mut watcher = LeaderComplete::default();
        let send = |watcher: &mut LeaderComplete, message: Message| {
            watcher.sent(Sent { region: 1, store: 0, message: &message })
        };
        assert_eq!(send(&mut watcher, append(1, 2, 9, 1)), Ok(()));
        watcher.committed(1, 9, 1);
        // A deposed leader of the same term may still hold something else; a later one may not.
        assert_eq!(send(&mut watcher, append(2, 2, 9, 2)), Ok(()));
        assert_eq!(send(&mut watcher, append(3, 3, 9, 1)), Ok(()));
        assert!(send(&mut watcher, append(3, 4, 9, 2)).is_err());
    }
}

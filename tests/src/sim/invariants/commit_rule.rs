//! The commit rule (Raft thesis §3.6.2): a leader counts replicas only for entries of its own term; entries of earlier terms
//! are committed along with one of those. Counting for them directly is what figure 3.7 punishes, rarely and late; here the
//! first step is caught.
//!
//! When a leader tells a commit index higher than anybody told or applied before, the entry at that index must be of its own
//! term.

use super::one_leader::is_of_leader;
use super::{Broken, Sent};
use std::collections::BTreeMap;

/// The highest commit index known in each region.
#[derive(Debug, Default)]
pub struct CommitRule {
    known: BTreeMap<u64, u64>,
}

impl CommitRule {
    /// An index is known to be committed.
    pub fn committed(&mut self, region: u64, index: u64) {
        let known = self.known.entry(region).or_default();
        *known = index.max(*known);
    }

    /// Looks at a message that leaves a store; `term_at` reads the sender's log.
    pub fn sent(
        &mut self,
        sent: Sent<'_>,
        term_at: impl FnOnce(u64) -> Option<u64>,
    ) -> Result<(), Broken> {
        let message = sent.message;
        let known = self.known.entry(sent.region).or_default();
        if !is_of_leader(sent.kind()) || message.commit <= *known {
            return Ok(());
        }
        *known = message.commit;
        match term_at(message.commit) {
            Some(term) if term != message.term => {
                let what = format!(
                    "peer {} of region {} in term {} commits up to {}, an entry of term {term}",
                    message.from, sent.region, message.term, message.commit
                );
                Err(Broken::new("I3 commit rule", what))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::eraftpb::{Message, MessageType};

    #[test]
    fn committing_an_entry_of_an_earlier_term_is_caught() {
        let mut watcher = CommitRule::default();
        let mut send = |term, commit, term_at| {
            let mut message = Message { from: 1, term, commit, ..Default::default() };
            message.set_msg_type(MessageType::MsgHeartbeat);
            watcher.sent(Sent { region: 1, store: 0, message: &message }, |_| Some(term_at))
        };
        assert_eq!(send(3, 9, 3), Ok(()));
        assert_eq!(send(4, 9, 3), Ok(()));
        assert!(send(4, 10, 3).is_err());
    }
}

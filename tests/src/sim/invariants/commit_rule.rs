//! The commit rule (Raft thesis §3.6.2): a leader counts replicas only for entries of its own term; entries of earlier terms
//! are committed along with one of those. Counting for them directly is what figure 3.7 punishes, rarely and late; here the
//! first step is caught.
//!
//! When a leader's append tells a commit index higher than anybody told or applied before, the entry at that index must be of
//! its own term. Heartbeats tell the commit index cut down to what the receiver holds, so they are no evidence against their
//! sender; but a receiver that leads later knows the index from there. Votes carry commit indexes too.

use super::{Broken, Sent};
use proto::eraftpb::MessageType;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
struct Known {
    /// The highest commit index told by an append or a vote, or applied.
    commit: u64,
    /// By term: the highest one its leader told in a heartbeat.
    heartbeats: BTreeMap<u64, u64>,
}

impl Known {
    /// What a leader of `term` may know without having committed anything itself.
    fn before(&self, term: u64) -> u64 {
        let heard = self.heartbeats.range(..term).map(|(_, commit)| *commit).max();
        self.commit.max(heard.unwrap_or_default())
    }
}

/// The highest commit index known in each region.
#[derive(Debug, Default)]
pub struct CommitRule {
    known: BTreeMap<u64, Known>,
}

impl CommitRule {
    /// An index is known to be committed.
    pub fn committed(&mut self, region: u64, index: u64) {
        let known = self.known.entry(region).or_default();
        known.commit = index.max(known.commit);
    }

    /// Looks at a message that leaves a store; `term_at` reads the sender's log.
    pub fn sent(
        &mut self,
        sent: Sent<'_>,
        term_at: impl FnOnce(u64) -> Option<u64>,
    ) -> Result<(), Broken> {
        use MessageType as T;
        let message = sent.message;
        let known = self.known.entry(sent.region).or_default();
        match sent.kind() {
            T::MsgHeartbeat => {
                let told = known.heartbeats.entry(message.term).or_default();
                *told = message.commit.max(*told);
                return Ok(());
            }
            T::MsgRequestVote
            | T::MsgRequestPreVote
            | T::MsgRequestVoteResponse
            | T::MsgRequestPreVoteResponse => {
                known.commit = message.commit.max(known.commit);
                return Ok(());
            }
            T::MsgAppend if message.commit > known.before(message.term) => {}
            _ => return Ok(()),
        }
        known.commit = message.commit;
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
    use proto::eraftpb::Message;

    #[test]
    fn committing_an_entry_of_an_earlier_term_is_caught() {
        let mut watcher = CommitRule::default();
        let mut send = |term, commit, term_at| {
            let mut message = Message { from: 1, term, commit, ..Default::default() };
            message.set_msg_type(MessageType::MsgAppend);
            watcher.sent(Sent { region: 1, store: 0, message: &message }, |_| Some(term_at))
        };
        assert_eq!(send(3, 9, 3), Ok(()));
        assert_eq!(send(4, 9, 3), Ok(()));
        assert!(send(4, 10, 3).is_err());
    }
}

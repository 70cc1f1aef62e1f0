//! I6 (Raft thesis §3.4, §3.8): what a peer has told others it still knows after a restart.
//!
//! Three promises travel in messages: "my term is at least this" (every message but pre-votes), "I vote for you" (at most one
//! candidate per term, the own request included), and "I hold your log up to here" (an accepted append). The first two are
//! checked against later messages, the third against the disk after a restart.

use super::{Broken, Sent};
use proto::eraftpb::MessageType;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    term: u64,
    /// The highest index acknowledged to the leader of `term`.
    acknowledged: u64,
}

/// What each peer has told.
#[derive(Debug, Default)]
pub struct Promises {
    told: BTreeMap<(u64, u64), Told>,
    /// By region, peer and term.
    votes: BTreeMap<(u64, u64, u64), u64>,
}

impl Promises {
    /// Looks at a message that leaves a store.
    pub fn sent(&mut self, sent: Sent<'_>) -> Result<(), Broken> {
        use MessageType as T;
        let message = sent.message;
        let (region, peer, term) = (sent.region, message.from, message.term);
        match sent.kind() {
            // These carry the term asked for, or none.
            T::MsgRequestPreVote | T::MsgRequestPreVoteResponse => return Ok(()),
            T::MsgPropose | T::MsgReadIndex | T::MsgTransferLeader => return Ok(()),
            T::MsgRequestVote => self.vote(region, peer, term, peer)?,
            T::MsgRequestVoteResponse if !message.reject => {
                self.vote(region, peer, term, message.to)?;
            }
            _ => {}
        }
        if term == 0 {
            return Ok(());
        }
        let told = self.told.entry((region, peer)).or_default();
        if term < told.term {
            let what = format!(
                "peer {peer} of region {region} speaks in term {term} after term {}",
                told.term
            );
            return Err(Broken::new("I6 promises survive", what));
        }
        if term > told.term {
            *told = Told { term, acknowledged: 0 };
        }
        if sent.kind() == T::MsgAppendResponse && !message.reject {
            told.acknowledged = told.acknowledged.max(message.index);
        }
        Ok(())
    }

    fn vote(&mut self, region: u64, peer: u64, term: u64, candidate: u64) -> Result<(), Broken> {
        let first = *self.votes.entry((region, peer, term)).or_insert(candidate);
        if first == candidate {
            return Ok(());
        }
        let what = format!(
            "peer {peer} of region {region} voted for {first} and for {candidate} in term {term}"
        );
        Err(Broken::new("I6 promises survive", what))
    }

    /// A peer was started again and finds this on its disk.
    pub fn restarted(
        &self,
        region: u64,
        peer: u64,
        term: u64,
        last_index: u64,
    ) -> Result<(), Broken> {
        let Some(told) = self.told.get(&(region, peer)) else { return Ok(()) };
        let fail = |what: String| Err(Broken::new("I6 promises survive", what));
        if term < told.term {
            return fail(format!(
                "peer {peer} of region {region} restarts in term {term}, having spoken in {}",
                told.term
            ));
        }
        // In a later term the log may have been overwritten before anything was said.
        if term == told.term && last_index < told.acknowledged {
            return fail(format!(
                "peer {peer} of region {region} restarts with a log up to {last_index}, having \
                 acknowledged {} in term {term}",
                told.acknowledged
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::eraftpb::Message;

    fn say(watcher: &mut Promises, kind: MessageType, message: Message) -> Result<(), Broken> {
        let mut message = message;
        message.set_msg_type(kind);
        watcher.sent(Sent { region: 1, store: 0, message: &message })
    }

    fn message(from: u64, to: u64, term: u64, index: u64) -> Message {
        Message { from, to, term, index, ..Default::default() }
    }

    #[test]
    fn a_second_vote_in_a_term_is_caught() {
        let mut watcher = Promises::default();
        let kind = MessageType::MsgRequestVoteResponse;
        assert_eq!(say(&mut watcher, kind, message(1, 2, 5, 0)), Ok(()));
        assert_eq!(say(&mut watcher, kind, message(1, 2, 5, 0)), Ok(()));
        assert!(say(&mut watcher, kind, message(1, 3, 5, 0)).is_err());
        assert!(say(&mut watcher, MessageType::MsgRequestVote, message(1, 3, 5, 0)).is_err());
    }

    #[test]
    fn a_forgotten_term_or_entry_is_caught() {
        let mut watcher = Promises::default();
        let kind = MessageType::MsgAppendResponse;
        assert_eq!(say(&mut watcher, kind, message(1, 2, 5, 20)), Ok(()));
        assert_eq!(watcher.restarted(1, 1, 5, 20), Ok(()));
        assert_eq!(watcher.restarted(1, 1, 6, 10), Ok(()));
        assert!(watcher.restarted(1, 1, 4, 20).is_err());
        assert!(watcher.restarted(1, 1, 5, 19).is_err());
        assert!(say(&mut watcher, kind, message(1, 2, 4, 20)).is_err());
    }
}

//! I1, election safety (Raft thesis fig. 3.2, §3.4): at most one leader is elected in a term.
//!
//! Leadership is seen in what only leaders send. Two peers that send such messages in one term both led it.

use super::{Broken, Sent};
use proto::eraftpb::MessageType;
use std::collections::BTreeMap;

/// Who led which term.
#[derive(Debug, Default)]
pub struct OneLeader {
    leaders: BTreeMap<(u64, u64), u64>,
}

impl OneLeader {
    /// Looks at a message that leaves a store.
    pub fn sent(&mut self, sent: Sent<'_>) -> Result<(), Broken> {
        if !is_of_leader(sent.kind()) {
            return Ok(());
        }
        let (region, term, from) = (sent.region, sent.message.term, sent.message.from);
        let leader = *self.leaders.entry((region, term)).or_insert(from);
        if leader == from {
            return Ok(());
        }
        let what = format!("peers {leader} and {from} both lead region {region} in term {term}");
        Err(Broken::new("I1 one leader per term", what))
    }

    /// Number of leaderships seen.
    pub fn count(&self) -> usize {
        self.leaders.len()
    }

    /// The peer that led this term, if one was seen.
    pub fn leader(&self, region: u64, term: u64) -> Option<u64> {
        self.leaders.get(&(region, term)).copied()
    }
}

/// True for messages that only a leader sends.
pub fn is_of_leader(kind: MessageType) -> bool {
    use MessageType::{MsgAppend, MsgHeartbeat, MsgSnapshot, MsgTimeoutNow};
    matches!(kind, MsgAppend | MsgHeartbeat | MsgSnapshot | MsgTimeoutNow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::eraftpb::Message;

    #[test]
    fn two_leaders_of_a_term_are_caught() {
        let mut watcher = OneLeader::default();
        let mut send = |from, term| {
            let mut message = Message { from, term, ..Default::default() };
            message.set_msg_type(MessageType::MsgAppend);
            watcher.sent(Sent { region: 1, store: 0, message: &message })
        };
        assert_eq!(send(1, 5), Ok(()));
        assert_eq!(send(2, 6), Ok(()));
        assert_eq!(send(1, 5), Ok(()));
        assert!(send(2, 5).is_err());
    }
}

//! Who waits for which entry.
//!
//! Invariants: 1. indexes grow, terms never fall; 2. the queue holds proposals of one leadership only: losing the lead
//! answers all of them at once, before a later leadership could propose at the same index (M24).

use std::collections::VecDeque;

use raft::{LogIndex, Term};

use crate::apply::Proposal;
use crate::command::WriteResult;
use crate::reply::Reply;
use crate::time::Instant;

#[derive(Debug)]
struct Pending {
    proposal: Proposal,
    proposed_at: Instant,
}

/// The proposals of one leadership that have not been handed to the applier, in index order.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    pending: VecDeque<Pending>,
}

impl Proposals {
    /// Remembers an entry proposed at `now`, and who waits for it.
    pub(crate) fn push(
        &mut self,
        index: LogIndex,
        term: Term,
        now: Instant,
        replies: Vec<Reply<WriteResult>>,
    ) {
        if let Some(last) = self.pending.back() {
            let last = &last.proposal;
            assert!(last.index < index && last.term <= term, "proposals are in log order");
        }
        let proposal = Proposal { index, term, replies };
        self.pending.push_back(Pending { proposal, proposed_at: now });
    }

    /// When the newest entry at or below `commit` was proposed.
    pub(crate) fn newest_committed_at(&self, commit: LogIndex) -> Option<Instant> {
        let committed = self.pending.iter().take_while(|p| p.proposal.index <= commit);
        committed.last().map(|pending| pending.proposed_at)
    }

    /// Takes the proposals up to and including `last`: their entries go to the applier. Those nobody waits for are left out.
    pub(crate) fn take_up_to(&mut self, last: LogIndex) -> Vec<Proposal> {
        let count = self.pending.partition_point(|pending| pending.proposal.index <= last);
        let taken = self.pending.drain(..count).map(|pending| pending.proposal);
        taken.filter(|proposal| !proposal.replies.is_empty()).collect()
    }

    /// Gives all of them up: their replies say that the command is stale, which is what a dropped reply says.
    pub(crate) fn give_up(&mut self) {
        self.pending.clear();
    }

    /// All replies that wait, for another answer than "stale".
    pub(crate) fn take_replies(&mut self) -> impl Iterator<Item = Reply<WriteResult>> + '_ {
        self.pending.drain(..).flat_map(|pending| pending.proposal.replies)
    }

    /// Gives memory back that was needed once.
    pub(crate) fn shrink(&mut self) {
        self.pending.shrink_to_fit();
    }

    /// How many entries are waited for.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_in_log_order_without_those_nobody_waits_for() {
        let mut proposals = Proposals::default();
        for index in 6..10 {
            let replies = if index == 6 { vec![] } else { vec![Reply::ignored()] };
            proposals.push(LogIndex(index), Term(6), Instant::from_ms(index), replies);
        }
        assert_eq!(proposals.newest_committed_at(LogIndex(5)), None);
        assert_eq!(proposals.newest_committed_at(LogIndex(8)), Some(Instant::from_ms(8)));
        let taken: Vec<_> = proposals.take_up_to(LogIndex(8)).iter().map(|p| p.index.0).collect();
        assert_eq!(taken, [7, 8]);
        assert_eq!(proposals.len(), 1);
        proposals.give_up();
        assert_eq!(proposals.len(), 0);
    }
}

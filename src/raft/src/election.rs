//! Elections: when to campaign, how to vote, who wins (thesis §3.4, §3.6.1, §4.2.3, §9.6).
//!
//! Invariants: a vote is given once per term and only to a log that is at least as new; it counts,
//! for anybody, only once it is durable; a node with a committed but unapplied membership change
//! does not campaign, since it does not know who decides. Tests: `testscripts/election_*`,
//! `pre_vote_*`, `check_quorum_*`.

use crate::core::Raft;
use crate::planted::{Bug, planted};
use crate::quorum::VoteResult;
use crate::{Entry, LogIndex, MessageBody, NodeId, Role, Storage, Term, VoteRequest, VoteResponse};

/// Bytes of entries read at a time when looking for membership changes.
const SCAN_BYTES_MAX: u64 = 1 << 20;

/// Why a node campaigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Campaign {
    /// Its timeout passed, or it was told to.
    Timeout,
    /// Its leader hands over.
    Transfer,
}

impl<S: Storage> Raft<S> {
    /// Campaigns if it may. False if it may not.
    pub(crate) fn campaign(&mut self, campaign: Campaign) -> bool {
        if self.role == Role::Leader || !self.is_promotable() {
            return false;
        }
        if campaign == Campaign::Timeout && self.defends_leader() && !self.is_only_voter() {
            return false;
        }
        let unapplied = self.log.applied.next();
        if self.holds_conf_change(unapplied, self.log.committed)
            && !planted(Bug::CampaignWithPendingConfChange)
        {
            return false;
        }
        match campaign {
            Campaign::Timeout if self.config.pre_vote => self.ask_pre_votes(),
            Campaign::Timeout => self.ask_votes(false),
            Campaign::Transfer => self.ask_votes(true),
        }
        true
    }

    /// Whether an entry of `[from, to]` changes the membership. What cannot be read is taken for
    /// one.
    pub(crate) fn holds_conf_change(&self, from: LogIndex, to: LogIndex) -> bool {
        let mut from = from.max(self.log.first_index());
        while from <= to {
            let Ok(entries) = self.log.entries(from, to.next(), SCAN_BYTES_MAX) else {
                return true;
            };
            if entries.iter().any(|entry: &Entry| entry.kind.is_conf_change()) {
                return true;
            }
            from += entries.len() as u64;
        }
        false
    }

    fn ask_pre_votes(&mut self) {
        self.become_pre_candidate();
        self.count_vote(self.id, true);
        if self.role == Role::PreCandidate {
            self.send_vote_requests(self.term.next(), false);
        }
    }

    fn ask_votes(&mut self, transfer: bool) {
        self.become_candidate();
        self.count_vote(self.id, true);
        if self.role == Role::Candidate {
            self.send_vote_requests(self.term, transfer);
        }
    }

    fn send_vote_requests(&mut self, term: Term, transfer: bool) {
        let (commit, commit_term) = self.commit_position();
        let request = VoteRequest {
            last_index: self.log.last_index(),
            last_term: self.log.last_term(),
            commit,
            commit_term,
            priority: self.config.priority,
            transfer,
        };
        let voters: Vec<NodeId> = self.tracker.membership().voters.iter().collect();
        for id in voters {
            if id == self.id {
                continue;
            }
            let body = match self.role {
                Role::PreCandidate => MessageBody::RequestPreVote(request),
                _ => MessageBody::RequestVote(request),
            };
            self.send_in_term(id, term, body);
        }
    }

    /// Commit index and the term there, for others to catch up with; zeros if the term is not known
    /// any more.
    fn commit_position(&self) -> (LogIndex, Term) {
        match self.log.term(self.log.committed) {
            Ok(term) => (self.log.committed, term),
            Err(_) => (LogIndex(0), Term(0)),
        }
    }

    /// Counts an answer and acts if it decides the election.
    pub(crate) fn count_vote(&mut self, from: NodeId, granted: bool) {
        self.tracker.record_vote(from, granted);
        match (self.tracker.vote_result(), self.role) {
            (VoteResult::Won, Role::PreCandidate) => self.ask_votes(false),
            (VoteResult::Won, _) => self.become_leader(),
            (VoteResult::Lost, _) => self.become_follower(self.term, None),
            (VoteResult::Pending, _) => {}
        }
    }

    /// Answers a vote request of this term.
    pub(crate) fn answer_vote(&mut self, from: NodeId, request: &VoteRequest) {
        let granted =
            (self.is_free_for(from, request) || planted(Bug::VoteTwice)) && self.prefers(request);
        if granted {
            self.vote = Some(from);
            self.election_elapsed_ticks = 0;
        }
        let response = self.vote_response(granted);
        self.send(from, MessageBody::RequestVoteResponse(response));
        if !granted {
            self.learn_commit(request.commit, request.commit_term);
        }
    }

    /// Answers whether it would vote for `from` in `term`. Changes nothing.
    pub(crate) fn answer_pre_vote(&mut self, from: NodeId, term: Term, request: &VoteRequest) {
        let free = term > self.term || (term == self.term && self.is_free_for(from, request));
        let granted = free && self.prefers(request);
        let response = self.vote_response(granted);
        let answer_term = if granted { term } else { self.term };
        self.send_in_term(from, answer_term, MessageBody::RequestPreVoteResponse(response));
        if !granted {
            self.learn_commit(request.commit, request.commit_term);
        }
    }

    /// Whether this node may still vote for `from` in its present term.
    fn is_free_for(&self, from: NodeId, request: &VoteRequest) -> bool {
        let free = match self.vote {
            Some(vote) => vote == from,
            None => self.leader.is_none(),
        };
        // A leader needs no defence here: it has voted, for itself.
        let defends = self.role != Role::Leader && self.defends_leader() && !request.transfer;
        free && (!defends || planted(Bug::VoteInsideLease))
    }

    /// Whether the candidate's log and priority are good enough.
    fn prefers(&self, request: &VoteRequest) -> bool {
        self.log.is_up_to_date(request.last_index, request.last_term)
            && (request.last_index > self.log.last_index()
                || request.priority >= self.config.priority)
    }

    fn vote_response(&self, granted: bool) -> VoteResponse {
        if granted {
            return VoteResponse::default();
        }
        let (commit, commit_term) = self.commit_position();
        VoteResponse { reject: true, commit, commit_term }
    }

    /// Somebody knows `index` to be committed: so does this node, if it has that very entry.
    pub(crate) fn learn_commit(&mut self, index: LogIndex, term: Term) {
        let committed = self.log.committed;
        if self.role == Role::Leader || index <= committed || !self.log.matches(index, term) {
            return;
        }
        self.log.commit_to(index);
        let campaigning = matches!(self.role, Role::Candidate | Role::PreCandidate);
        if campaigning && self.holds_conf_change(committed.next(), index) {
            // Who decides may have changed: this election cannot be counted any more.
            self.become_follower(self.term, None);
        }
    }
}

//! The rules every message goes through before a role looks at it: terms (thesis §3.3), stickiness
//! (§4.2.3), pre-votes (§9.6).

use crate::core::Raft;
use crate::planted::{Bug, planted};
use crate::{
    AppendResponse, Error, Message, MessageBody, NodeId, Role, Storage, Term, VoteResponse,
};

impl<S: Storage> Raft<S> {
    pub(crate) fn step(&mut self, message: Message) -> Result<(), Error> {
        self.admit(&message)?;
        let termless = matches!(
            message.body,
            MessageBody::Propose(_) | MessageBody::ReadIndex { .. } | MessageBody::TransferLeader
        );
        if !termless || message.term != Term(0) {
            if message.term > self.term && !self.step_newer_term(&message) {
                return Ok(());
            }
            if message.term < self.term && !self.step_older_term(&message) {
                return Ok(());
            }
        }
        let Message { from, term, body, .. } = message;
        match body {
            MessageBody::RequestVote(request) => self.answer_vote(from, &request),
            MessageBody::RequestPreVote(request) => self.answer_pre_vote(from, term, &request),
            body => match self.role {
                Role::Leader => self.step_leader(from, body)?,
                Role::Candidate | Role::PreCandidate => self.step_candidate(from, term, body)?,
                Role::Follower => self.step_follower(from, body)?,
            },
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
        Ok(())
    }

    /// A message of a newer term. False if it ends here.
    fn step_newer_term(&mut self, message: &Message) -> bool {
        let leader = match &message.body {
            MessageBody::RequestVote(request) | MessageBody::RequestPreVote(request)
                if !request.transfer && self.defends_leader() && !planted(Bug::VoteInsideLease) =>
            {
                return false;
            }
            // Asking costs nobody a term, and a granted pre-vote names the term asked for.
            MessageBody::RequestPreVote(_) => return true,
            MessageBody::RequestPreVoteResponse(response) if !response.reject => return true,
            MessageBody::Append(_) | MessageBody::Heartbeat { .. } | MessageBody::Snapshot(_) => {
                Some(message.from)
            }
            _ => None,
        };
        self.become_follower(message.term, leader);
        true
    }

    /// A message of an older term. False if it ends here.
    fn step_older_term(&mut self, message: &Message) -> bool {
        match &message.body {
            // A leader of the past must learn that it is one; with pre-vote nothing else would tell
            // it.
            MessageBody::Append(_) | MessageBody::Heartbeat { .. } => {
                let response = AppendResponse { commit: self.log.committed, ..Default::default() };
                self.send(message.from, MessageBody::AppendResponse(response));
            }
            MessageBody::RequestPreVote(_) => {
                let response = VoteResponse { reject: true, ..VoteResponse::default() };
                self.send(message.from, MessageBody::RequestPreVoteResponse(response));
            }
            _ => {}
        }
        false
    }

    pub(crate) fn refused(from: NodeId, reason: crate::Refusal) -> Error {
        Error::MessageRefused { from, reason }
    }
}

//! What a candidate and a pre-candidate do with messages of their term.

use crate::core::Raft;
use crate::{Error, MessageBody, NodeId, Role, Storage, Term};

impl<S: Storage> Raft<S> {
    pub(crate) fn step_candidate(
        &mut self,
        from: NodeId,
        term: Term,
        body: MessageBody,
    ) -> Result<(), Error> {
        match (self.role, body) {
            (
                _,
                body @ (MessageBody::Append(_)
                | MessageBody::Heartbeat { .. }
                | MessageBody::Snapshot(_)),
            ) => {
                // Somebody else has won this term.
                self.become_follower(self.term, Some(from));
                self.step_follower(from, body)
            }
            (Role::Candidate, MessageBody::RequestVoteResponse(response)) => {
                self.count_vote(from, !response.reject);
                self.learn_commit(response.commit, response.commit_term);
                Ok(())
            }
            (Role::PreCandidate, MessageBody::RequestPreVoteResponse(response)) => {
                // A grant names the term it was asked for; one of an earlier round names another.
                if response.reject || term == self.term.next() {
                    self.count_vote(from, !response.reject);
                    self.learn_commit(response.commit, response.commit_term);
                }
                Ok(())
            }
            (_, MessageBody::Propose(_)) => Err(Error::NotLeader { leader: None }),
            _ => Ok(()),
        }
    }
}

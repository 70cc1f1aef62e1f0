//! The members of the group: their roles, what the leader knows of each, and the votes of an
//! election.
//!
//! Invariant: exactly the members have a [`Progress`].

use crate::conf_change::Membership;
use crate::progress::Progress;
use crate::quorum::VoteResult;
use crate::{LogIndex, NodeId, ProgressStatus};

use crate::progress::WindowMax;

/// Members, ordered by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    membership: Membership,
    progress: Vec<(NodeId, Progress)>,
    votes: Vec<(NodeId, bool)>,
}

impl Tracker {
    pub(crate) fn new(membership: Membership, next: LogIndex) -> Tracker {
        let mut tracker = Tracker::default();
        tracker.change(membership, next);
        tracker
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Takes the members of `membership`. Newcomers start at `next`.
    pub(crate) fn change(&mut self, membership: Membership, next: LogIndex) {
        self.membership = membership;
        let membership = &self.membership;
        self.progress.retain(|(id, _)| membership.contains(*id));
        let ids: Vec<NodeId> = membership
            .voters
            .iter()
            .chain(membership.learners.as_slice().iter().copied())
            .collect();
        for id in ids {
            if let Err(at) = self.position(id) {
                // A newcomer has had no chance to speak up before the next quorum check.
                let progress = Progress { recent_active: true, ..Progress::new(next) };
                self.progress.insert(at, (id, progress));
            }
        }
    }

    fn position(&self, id: NodeId) -> Result<usize, usize> {
        self.progress.binary_search_by_key(&id, |(id, _)| *id)
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Progress> {
        self.position(id).ok().map(|at| &self.progress[at].1)
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut Progress> {
        self.position(id).ok().map(|at| &mut self.progress[at].1)
    }

    /// Number of members.
    pub(crate) fn len(&self) -> usize {
        self.progress.len()
    }

    /// The member at a position in `0..len()`.
    pub(crate) fn at(&self, position: usize) -> NodeId {
        self.progress[position].0
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut Progress)> {
        self.progress.iter_mut().map(|(id, progress)| (*id, progress))
    }

    pub(crate) fn is_voter(&self, id: NodeId) -> bool {
        self.membership.voters.contains(id)
    }

    pub(crate) fn is_learner(&self, id: NodeId) -> bool {
        self.membership.learners.contains(id)
    }

    /// The highest index that a majority (while joint: both) has on disk.
    pub(crate) fn reached_index(&self) -> LogIndex {
        LogIndex(self.membership.voters.reached(|id| self.get(id).map_or(0, |p| p.matched.0)))
    }

    /// Whether a majority was heard since the last call, `own` always counting; starts a new
    /// period.
    pub(crate) fn take_quorum_active(&mut self, own: NodeId) -> bool {
        let active = |id| id == own || self.get(id).is_some_and(|progress| progress.recent_active);
        let result = self.membership.voters.vote_result(|id| Some(active(id)));
        for (_, progress) in &mut self.progress {
            progress.recent_active = false;
        }
        result == VoteResult::Won
    }

    pub(crate) fn clear_votes(&mut self) {
        self.votes.clear();
    }

    /// Notes a vote; the first answer of a voter counts.
    pub(crate) fn record_vote(&mut self, id: NodeId, granted: bool) {
        if !self.votes.iter().any(|(voter, _)| *voter == id) {
            self.votes.push((id, granted));
        }
    }

    pub(crate) fn vote_result(&self) -> VoteResult {
        let vote_of = |id| self.votes.iter().find(|(voter, _)| *voter == id).map(|(_, vote)| *vote);
        self.membership.voters.vote_result(vote_of)
    }

    /// Forgets everything about the members but who they are.
    pub(crate) fn reset(&mut self, next: LogIndex) {
        self.votes.clear();
        for (_, progress) in &mut self.progress {
            *progress = Progress::new(next);
        }
    }

    pub(crate) fn status(&self, max: WindowMax) -> Vec<ProgressStatus> {
        let status = |(id, progress): &(NodeId, Progress)| ProgressStatus {
            id: *id,
            matched: progress.matched,
            next: progress.next,
            commit: progress.commit,
            state: progress.state,
            pending_snapshot: progress.pending_snapshot,
            recent_active: progress.recent_active,
            paused: progress.is_paused(max),
            inflight_messages: progress.inflights.messages(),
            inflight_bytes: progress.inflights.bytes(),
            is_learner: self.is_learner(*id),
        };
        self.progress.iter().map(status).collect()
    }

    pub(crate) fn check_invariants(&self) {
        for (id, progress) in &self.progress {
            assert!(self.membership.contains(*id), "progress of node {id}, which is no member");
            progress.check_invariants();
        }
    }
}

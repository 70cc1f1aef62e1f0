//! Telling removed peers that they are.
//!
//! A removed peer usually never hears of it: the leader drops it from its list in the moment it applies the change, before
//! the news of the commit has left. So the leader tells it, once, as soon as a majority of those who stay know that the
//! change is committed: from then on nobody needs the removed peer's vote or log. Should the message be lost, the peer will
//! ask (`stale`).

use proto::ids::PeerId;
use proto::raft_serverpb::RaftMessage;
use proto::{eraftpb, metapb};
use raft::LogIndex;

use super::Peer;
use crate::planted::{Bug, planted};

/// Peers to be told, and the entries that removed them.
#[derive(Debug, Default)]
pub(super) struct Farewells {
    waiting: Vec<(metapb::Peer, LogIndex)>,
}

impl Farewells {
    pub(super) fn removed(&mut self, peers: &[metapb::Peer], at: LogIndex) {
        self.waiting.extend(peers.iter().map(|peer| (*peer, at)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

impl Peer {
    /// A tick has passed: whoever can be told is.
    pub(super) fn tick_farewells(&mut self) {
        if self.farewells.is_empty() || !self.is_settled() {
            return;
        }
        let known = self.commit_known_to_majority();
        let (told, waiting): (Vec<_>, Vec<_>) =
            self.farewells.waiting.drain(..).partition(|(_, at)| *at <= known);
        self.farewells.waiting = waiting;
        if planted(Bug::RemovedPeerNotTold) {
            return;
        }
        let told: Vec<_> =
            told.iter().map(|(peer, at)| self.tombstone_notice(*peer, Some(*at))).collect();
        self.notices.extend(told);
    }

    /// The highest index that a majority of the voters know to be committed.
    fn commit_known_to_majority(&self) -> LogIndex {
        let status = self.raft.status();
        let voters = &status.conf_state.voters;
        let mut known: Vec<LogIndex> = status
            .progress
            .iter()
            .filter(|progress| voters.contains(&progress.id))
            .map(|p| if p.id.0 == self.me.id { status.commit } else { p.commit })
            .collect();
        known.sort_unstable();
        let majority = known.len() / 2 + 1;
        known.len().checked_sub(majority).map_or(LogIndex(0), |at| known[at])
    }

    /// The message that tells `to` that it is no longer a member. With it goes a committed position: of the removal, or one
    /// behind it. The receiver may be asked for its vote by a member that has forgotten that the removal is committed, and
    /// needs that vote: then it can tell.
    pub(crate) fn tombstone_notice(&self, to: metapb::Peer, at: Option<LogIndex>) -> RaftMessage {
        let index = at.unwrap_or(self.raft.commit_index());
        let commit = self.raft.log().term(index).ok().map(|term| eraftpb::Message {
            commit: index.0,
            commit_term: term.0,
            ..eraftpb::Message::default()
        });
        RaftMessage {
            message: commit,
            region_id: self.id.get(),
            from_peer: Some(self.me),
            to_peer: Some(to),
            region_epoch: self.region.region_epoch,
            is_tombstone: true,
            ..RaftMessage::default()
        }
    }

    /// Whether this peer knows for good that `peer`, which speaks for the generation `epoch`, is no longer a member.
    pub(crate) fn has_removed(&self, peer: &metapb::Peer, epoch: &metapb::RegionEpoch) -> bool {
        let own = self.region.region_epoch.unwrap_or_default();
        self.is_initialized()
            && self.is_settled()
            && epoch.conf_ver < own.conf_ver
            && self.find_peer(PeerId::from(peer.id)).is_none()
            && !planted(Bug::RemovedPeerNotTold)
    }
}

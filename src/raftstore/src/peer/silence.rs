//! How long this peer has heard no leader, and who has spoken to it that its region does not list.
//!
//! Raft forgets a leader only when it campaigns, and learners and removed peers never do; so the silence is counted here.
//! *Strangers* are members of a later generation of the region than this peer knows, or, for an uninitialised one, everybody:
//! their messages are taken and answered.

use proto::ids::PeerId;
use proto::metapb;
use raft::{Message, MessageBody};

use super::{Context, Peer};
use crate::planted::{Bug, planted};

/// Strangers remembered at once; the one that spoke first makes room.
const STRANGERS_MAX: usize = 8;

/// Questions to the other peers between two to the scheduler.
const ASKED_BEFORE_SCHEDULER: u32 = 3;

/// See the module header.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Ticks since a leader was heard, or since the last question.
    ticks: u32,
    /// Questions since a leader was heard.
    asked: u32,
    strangers: Vec<metapb::Peer>,
}

impl Silence {
    /// The region has changed: who is a stranger may be one no longer.
    pub(super) fn forget_strangers(&mut self) {
        self.strangers.clear();
    }
}

impl Peer {
    /// A message of the leader ends the silence.
    pub(super) fn hear(&mut self, message: &Message) {
        let leads = matches!(
            message.body,
            MessageBody::Append(_) | MessageBody::Heartbeat { .. } | MessageBody::Snapshot(_)
        );
        if leads && message.term >= self.raft.term() {
            (self.silence.ticks, self.silence.asked) = (0, 0);
        }
    }

    /// Remembers a sender that the region does not list, to be able to answer.
    pub(crate) fn meet(&mut self, stranger: metapb::Peer) {
        if self.find_peer(stranger.id.into()).is_some() {
            return;
        }
        self.silence.strangers.retain(|known| known.id != stranger.id);
        if self.silence.strangers.len() == STRANGERS_MAX {
            self.silence.strangers.remove(0);
        }
        self.silence.strangers.push(stranger);
    }

    /// A member or a stranger.
    pub(super) fn find_partner(&self, id: PeerId) -> Option<&metapb::Peer> {
        let stranger = || self.silence.strangers.iter().find(|peer| peer.id == id.get());
        self.find_peer(id).or_else(stranger)
    }

    /// Everybody this peer could ask.
    pub(crate) fn known_peers(&self) -> impl Iterator<Item = &metapb::Peer> {
        self.region.peers.iter().chain(&self.silence.strangers)
    }

    /// A tick has passed in which this peer did not lead: asks whether it is still wanted, if it is time to.
    pub(super) fn tick_silence(&mut self, context: &Context<'_>) {
        self.silence.ticks += 1;
        let patient = self.silence.ticks < context.config.stale_check_ticks;
        if patient || planted(Bug::RemovedPeerNotTold) {
            return;
        }
        self.silence.ticks = 0;
        self.silence.asked += 1;
        if self.silence.asked.is_multiple_of(ASKED_BEFORE_SCHEDULER + 1) {
            self.questions.push(self.region_question());
        } else {
            self.notices.extend(self.stale_questions());
        }
    }
}

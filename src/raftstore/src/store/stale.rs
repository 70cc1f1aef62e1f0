//! Whether a region still wants its peer here.
//!
//! A removed peer may never be told: it was cut off while the others went on. So a peer that hears nothing from any leader
//! asks, now and then: the other peers it knows (`MsgCheckStalePeer`), and, more rarely, the scheduler. What it believes:
//! - a tombstone message for exactly its id, from a generation of the region later than its own;
//! - a message for a later peer of the region on this store, from a later generation: the earlier one must have been removed;
//! - the scheduler's answer, if it shows the region in a later generation without it, or if its own log speaks of a merge and
//!   its start key belongs to another region of a later version: then it was merged away. If this store has a peer of that
//!   other region, or of the one that was to take it over, that one will see to it instead.
//!
//! Generations only grow, and ids are used once: whatever is late or repeated cannot make a member leave.

use std::sync::Arc;

use proto::ids::{PeerId, RegionId};
use proto::metapb;
use proto::raft_serverpb::{ExtraMessage, ExtraMessageType, RaftMessage};
use raft::{LogIndex, Term};

use super::{DropReason, Store};
use crate::peer::records::RegionRecord;

impl Store {
    /// Another store says that a peer here is no longer a member.
    pub(super) fn on_tombstone(&mut self, message: &RaftMessage) -> Result<(), DropReason> {
        let region = RegionId::from(message.region_id);
        let to = message.to_peer.ok_or(DropReason::Incomplete)?;
        let peer = self.peers.get(&region).ok_or(DropReason::UnknownRegion)?;
        if peer.peer_id() != PeerId::from(to.id) {
            return Err(DropReason::WrongPeer);
        }
        let said = message.region_epoch.unwrap_or_default();
        let known = peer.region().region_epoch.unwrap_or_default();
        if said.conf_ver <= known.conf_ver {
            return Err(DropReason::OldNews);
        }
        let content = message.message.as_ref();
        let (index, term) = content.map_or((0, 0), |content| (content.commit, content.commit_term));
        self.doom_by(region, LogIndex(index), Term(term));
        Ok(())
    }

    /// Somebody who hears no leader asks whether it is still a member.
    pub(super) fn on_stale_question(&mut self, message: &RaftMessage) -> Result<(), DropReason> {
        let region = RegionId::from(message.region_id);
        let from = message.from_peer.ok_or(DropReason::Incomplete)?;
        if self.tell_if_removed(region, &from, &message.region_epoch.unwrap_or_default()) {
            return Ok(());
        }
        Err(DropReason::OldNews)
    }

    /// Tells a sender that it was removed, if the peer here knows that; whether it was.
    pub(super) fn tell_if_removed(
        &mut self,
        region: RegionId,
        from: &metapb::Peer,
        epoch: &metapb::RegionEpoch,
    ) -> bool {
        let Some(peer) = self.peers.get(&region) else {
            return self.tell_by_tombstone(region, from, epoch);
        };
        let removed = peer.has_removed(from, epoch);
        if removed {
            self.messages.push(peer.tombstone_notice(*from, None));
        }
        removed
    }

    /// The same, if the region has ended here since: its last peers may all have gone with a merge, but for those who had
    /// been removed before, and do not know.
    fn tell_by_tombstone(
        &mut self,
        region: RegionId,
        from: &metapb::Peer,
        epoch: &metapb::RegionEpoch,
    ) -> bool {
        if self.graves.tombstone(region).is_none() {
            return false;
        }
        let record = RegionRecord::read(self.engine.snapshot().as_ref(), region);
        let Some(record) = record.ok().flatten() else { return false };
        let last = record.region.region_epoch.unwrap_or_default();
        let listed = record.region.peers.iter().any(|peer| peer.id == from.id);
        let removed = !record.is_uninitialized() && !listed && epoch.conf_ver < last.conf_ver;
        if removed {
            self.messages.push(RaftMessage {
                region_id: region.get(),
                from_peer: record.peer,
                to_peer: Some(*from),
                region_epoch: Some(last),
                is_tombstone: true,
                ..RaftMessage::default()
            });
        }
        removed
    }

    /// The scheduler's answer to a question of [`crate::msg::RegionQuestion`].
    pub(super) fn on_region_answer(&mut self, asked: RegionId, holder: &metapb::Region) {
        let Some(peer) = self.peers.get(&asked) else { return };
        let known = peer.region().region_epoch.unwrap_or_default();
        let said = holder.region_epoch.unwrap_or_default();
        let listed = holder.peers.iter().any(|member| member.id == peer.peer_id().get());
        let holder_id = RegionId::from(holder.id);
        let gone = if holder_id == asked {
            said.conf_ver > known.conf_ver && !listed && !holder.peers.is_empty()
        } else {
            let start = &peer.region().start_key;
            let holds = holder.start_key <= *start
                && (holder.end_key.is_empty() || *start < holder.end_key);
            let here = self.peers.contains_key(&holder_id) || self.is_occupied(holder_id);
            holds && said.version > known.version && !here && self.may_be_merged_away(peer)
        };
        if gone {
            self.doom(asked);
        }
    }
}

impl crate::peer::Peer {
    /// The questions of a peer that hears no leader, to the peers it knows.
    pub(crate) fn stale_questions(&self) -> Vec<RaftMessage> {
        let others = self.known_peers().filter(|peer| peer.id != self.me().id);
        let question = |to: &metapb::Peer| RaftMessage {
            region_id: self.region().id,
            from_peer: Some(self.me()),
            to_peer: Some(*to),
            region_epoch: self.region().region_epoch,
            extra_msg: Some(ExtraMessage {
                r#type: ExtraMessageType::MsgCheckStalePeer.into(),
                ..ExtraMessage::default()
            }),
            ..RaftMessage::default()
        };
        others.map(question).collect()
    }

    /// The question for the scheduler.
    pub(crate) fn region_question(&self) -> crate::msg::RegionQuestion {
        crate::msg::RegionQuestion { region: Arc::new(self.region().clone()), peer: self.me() }
    }
}

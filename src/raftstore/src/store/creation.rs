//! The beginning of a peer that a first message asks for.
//!
//! A new member of a region hears of it by the leader's heartbeat or a candidate's request. Its store records the peer,
//! through the applier, before the peer does anything, and then lets it take the message. Nothing is created for a peer that
//! was destroyed here or followed by another (its tombstone says so, M6), nor over keys that another region holds here: that
//! one has to split, or to be destroyed, first (M1). Nobody is told why; who still wants the peer asks again.

use std::collections::BTreeMap;

use proto::ids::{PeerId, RegionId};
use proto::limits::KEY_BYTES_MAX;
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raft::{LogIndex, MessageBody};

use super::{DropReason, Store};
use crate::apply::ApplyTask;
use crate::peer::Peer;
use crate::planted::{Bug, planted};

/// Peers that wait for their first snapshot; beyond, no more are created. Far above what placement asks for at once.
const UNINITIALIZED_MAX: usize = 16 << 10;

/// Longer boundaries than any that a region can have: keys are encoded, eight bytes as nine.
const BOUNDARY_BYTES_MAX: usize = 2 * KEY_BYTES_MAX;

/// A peer that the applier is recording.
#[derive(Debug)]
struct Birth {
    region: metapb::Region,
    peer: metapb::Peer,
    /// For the peer, once it is there.
    first_message: RaftMessage,
}

/// The peers under creation, and how many wait for their first snapshot.
#[derive(Debug, Default)]
pub(super) struct Births {
    under_way: BTreeMap<RegionId, Birth>,
}

impl Births {
    /// Whether a peer of the region is being recorded.
    pub(super) fn is_under_way(&self, region: RegionId) -> bool {
        self.under_way.contains_key(&region)
    }
}

/// Whether a message is one that a peer without any state can take.
pub(crate) fn is_first_message(body: &MessageBody) -> bool {
    match body {
        MessageBody::RequestVote(_) | MessageBody::RequestPreVote(_) => true,
        MessageBody::Heartbeat { commit, .. } => *commit == LogIndex(0),
        _ => false,
    }
}

fn overlap(a: &metapb::Region, b: &metapb::Region) -> bool {
    let before = |end: &[u8], start: &[u8]| !end.is_empty() && end <= start;
    !before(&a.end_key, &b.start_key) && !before(&b.end_key, &a.start_key)
}

impl Store {
    /// Other regions of this store that have keys in common with `region`, now or once a snapshot is installed (I8). A peer
    /// that is uninitialised has none.
    pub(super) fn overlapping<'a>(
        &'a self,
        region: &'a metapb::Region,
    ) -> impl Iterator<Item = &'a metapb::Region> {
        let live = self.peers.values().filter(|peer| peer.is_initialized()).map(Peer::region);
        let arriving = self.peers.values().filter_map(Peer::arriving_region);
        let others = live.chain(arriving).chain(self.graves.occupied());
        let ignored = planted(Bug::CreatedOverNeighbour);
        others.filter(move |other| other.id != region.id && overlap(other, region) && !ignored)
    }

    /// Whether something of the region is coming or going, so that nothing of it can begin.
    pub(super) fn is_occupied(&self, region: RegionId) -> bool {
        self.graves.is_dying(region) || self.births.is_under_way(region)
    }

    /// A message for a region that has no peer here: creates one if it may.
    pub(super) fn consider_creation(&mut self, message: RaftMessage) -> Result<(), DropReason> {
        let id = RegionId::from(message.region_id);
        if self.is_occupied(id) {
            return Err(DropReason::NotYet);
        }
        let (Some(from), Some(to), Some(content)) =
            (message.from_peer, message.to_peer, message.message.clone())
        else {
            return Err(DropReason::Incomplete);
        };
        let buried = self.graves.tombstone(id).map(|tombstone| tombstone.peer);
        if buried.is_some_and(|last| last >= PeerId::from(to.id)) && !planted(Bug::TombstoneIgnored)
        {
            self.answer_for_the_dead(&message);
            return Err(DropReason::Tombstone);
        }
        let epoch = message.region_epoch.ok_or(DropReason::UnknownRegion)?;
        let content = raft::wire::message_from_proto(content).map_err(|_| DropReason::Malformed)?;
        if !is_first_message(&content.body) {
            return Err(DropReason::UnknownRegion);
        }
        let named = content.to.0 == to.id && content.from.0 == from.id;
        let proper = to.id != 0 && from.id != 0 && to.id != from.id && from.store_id != to.store_id;
        let [start, end] = [&message.start_key, &message.end_key];
        let ordered = end.is_empty() || start < end;
        let short = start.len().max(end.len()) <= BOUNDARY_BYTES_MAX;
        if id.is_none() || epoch.conf_ver == 0 || !named || !proper || !ordered || !short {
            return Err(DropReason::Malformed);
        }
        let region = metapb::Region {
            id: id.get(),
            start_key: start.clone(),
            end_key: end.clone(),
            region_epoch: Some(epoch),
            peers: Vec::new(),
        };
        let taken = self.overlapping(&region).next().is_some();
        let crowded = self.uninitialized_count() >= UNINITIALIZED_MAX;
        if taken || crowded {
            return Err(DropReason::NotYet);
        }
        let peer = metapb::Peer { id: to.id, store_id: to.store_id, ..Default::default() };
        self.tasks.push(ApplyTask::Create { region: region.clone(), peer });
        self.births.under_way.insert(id, Birth { region, peer, first_message: message });
        Ok(())
    }

    fn uninitialized_count(&self) -> usize {
        let waiting = self.peers.values().filter(|peer| !peer.is_initialized()).count();
        waiting + self.births.under_way.len()
    }

    /// The applier has recorded a peer, or found something in its way.
    pub(super) fn on_created(&mut self, region: RegionId, peer: metapb::Peer, created: bool) {
        let Some(birth) = self.births.under_way.remove(&region) else { return };
        assert_eq!(birth.peer.id, peer.id, "region {region}: created another peer than asked for");
        if !created || self.peers.contains_key(&region) {
            return self.count_dropped(DropReason::NotYet);
        }
        let Birth { region: known, peer: me, first_message } = birth;
        match Peer::open_uninitialized(known, me, self.engine.clone(), &self.config) {
            Ok(peer) => {
                self.graves.forget(region);
                self.peers.insert(region, peer);
                self.dirty.insert(region);
                self.counters.peers_created += 1;
                if let Err(reason) = self.dispatch(first_message) {
                    self.count_dropped(reason);
                }
            }
            Err(error) => self.poison(format!("region {region}: {error}")),
        }
    }
}

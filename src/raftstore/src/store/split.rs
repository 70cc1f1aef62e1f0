//! Cutting regions: ids are asked for, the peers of the new parts come to be.
//!
//! A new part's peers on other stores may speak up before this store has made the cut. Its range is still another region's
//! here, so no peer can be created for it (M1); but a candidate's request would be missed for an election timeout. The last
//! such message of each unknown region is kept and looked at again when the region comes to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::eraftpb::{self, MessageType};
use proto::ids::RegionId;
use proto::metapb;
use proto::raft_serverpb::RaftMessage;

use super::Store;
use crate::apply::ApplyState;
use crate::error::RegionError;
use crate::msg::{NewRegion, SplitRequest};
use crate::peer::Peer;
use crate::planted::{Bug, planted};

/// Unknown regions of which a message is kept.
const EARLY_MAX: usize = 256;

/// Messages that came before their region.
#[derive(Debug, Default)]
pub(super) struct EarlyMessages {
    by_region: BTreeMap<RegionId, RaftMessage>,
}

impl EarlyMessages {
    /// Keeps a message for a region that does not live here.
    pub(super) fn keep(&mut self, region: RegionId, message: RaftMessage) {
        if self.by_region.len() >= EARLY_MAX && !self.by_region.contains_key(&region) {
            // Ids grow: the oldest region is the least likely to come to be.
            self.by_region.pop_first();
        }
        self.by_region.insert(region, message);
    }

    fn take(&mut self, region: RegionId) -> Option<RaftMessage> {
        self.by_region.remove(&region)
    }
}

impl Store {
    /// An order to cut a region whose header has been checked. Without keys, where to cut is looked for first.
    pub(super) fn order_split(
        &mut self,
        id: RegionId,
        keys: Vec<Bytes>,
    ) -> Result<(), RegionError> {
        let Some(peer) = self.peers.get(&id) else {
            return Err(RegionError::RegionNotFound { region: id });
        };
        if keys.is_empty() {
            peer.check_divisible()?;
            self.with_peer(id, |peer, context| peer.look_to_halve(context));
            return Ok(());
        }
        self.ask_to_split(id, keys)
    }

    /// Asks the scheduler for the ids of the parts, if the region can be cut at `keys`.
    fn ask_to_split(&mut self, id: RegionId, keys: Vec<Bytes>) -> Result<(), RegionError> {
        let Some(peer) = self.peers.get(&id) else {
            return Err(RegionError::RegionNotFound { region: id });
        };
        peer.check_split(&keys)?;
        let region = Arc::new(peer.region().clone());
        self.split_requests.push(SplitRequest { region, keys });
        Ok(())
    }

    /// Whether a message may be for a part of a region that is still to be cut here: a candidate asks.
    pub(super) fn may_be_early(&self, message: &RaftMessage) -> bool {
        let asks = |content: &eraftpb::Message| {
            let kinds = [MessageType::MsgRequestVote, MessageType::MsgRequestPreVote];
            kinds.contains(&content.msg_type())
        };
        !self.peers.contains_key(&message.region_id.into())
            && message.message.as_ref().is_some_and(asks)
    }

    /// The scheduler has answered.
    pub(super) fn on_split_ids(
        &mut self,
        request: &SplitRequest,
        ids: Result<Vec<NewRegion>, String>,
    ) {
        let Ok(ids) = ids else { return };
        let region = RegionId::from(request.region.id);
        // If it cannot be any more, whoever wants it will see the epoch and ask again.
        let _ = self.with_peer(region, |peer, context| peer.propose_split(request, ids, context));
    }

    /// A region has been cut, and its peer here narrowed: the peers of the new parts that live here come to be.
    pub(super) fn on_split(
        &mut self,
        divided: RegionId,
        regions: Vec<metapb::Region>,
        created: Vec<(RegionId, ApplyState)>,
    ) {
        let led = self.peers.get(&divided).is_some_and(Peer::is_leader);
        self.counters.splits += 1;
        for (id, state) in created {
            let Some(region) = regions.iter().find(|region| region.id == id.get()) else {
                continue;
            };
            self.create_part(region.clone(), state);
            self.with_peer(id, |peer, context| {
                peer.set_siblings(&regions);
                if led {
                    peer.campaign(context);
                }
            });
            if let Some(message) = self.early.take(id) {
                self.on_raft(message);
            }
        }
        if led {
            self.split_reports.push(regions);
        }
    }

    fn create_part(&mut self, region: metapb::Region, state: ApplyState) {
        let id = RegionId::from(region.id);
        if self.peers.contains_key(&id) && !planted(Bug::SplitForgetsVote) {
            self.with_peer(id, |peer, context| peer.initialise(region, state, context));
            return;
        }
        self.graves.forget(id);
        let peer = Peer::born(region, state, self.engine.clone(), &self.config);
        // The applier decided that it lives here, from the region's own list.
        let peer = peer.unwrap_or_else(|error| panic!("a new part of a region: {error}"));
        self.peers.insert(id, peer);
    }
}

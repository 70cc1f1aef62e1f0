//! A region is cut: the leader's part before, every peer's part after.
//!
//! Before: the order's keys are checked → ids are asked for (by the store) → the command is proposed, if nothing has changed
//! meanwhile. After: the peer narrows itself; the store creates the peers of the new parts ([`Peer::born`]), or makes real
//! those that a message has created before ([`Peer::initialise`]).

use std::sync::Arc;

use bytes::Bytes;
use engine::Engine;
use proto::ids::RegionId;
use proto::metapb;
use raft::HardState;

use super::open::member_here;
use super::order::refused;
use super::storage::{PeerStorage, log_start};
use super::{Context, INITIAL_INDEX, INITIAL_TERM, Peer, PeerOpenError};
use crate::apply::{ApplyState, split};
use crate::command::Command;
use crate::config::Config;
use crate::error::RegionError;
use crate::membership::conf_state;
use crate::msg::{NewRegion, SplitRequest};
use crate::planted::{Bug, planted};

impl Peer {
    /// Whether the region can be cut at `keys` now.
    pub(crate) fn check_split(&self, keys: &[Bytes]) -> Result<(), RegionError> {
        self.check_divisible()?;
        split::check_keys(&self.region, keys).map_err(|refusal| refused(refusal.to_string()))
    }

    /// Whether the region can be cut at all now, wherever that may be.
    pub(crate) fn check_divisible(&self) -> Result<(), RegionError> {
        if self.is_merging() {
            // Also when the ids of a cut come late: the neighbour takes the region whole.
            return Err(RegionError::Merging { region: self.id });
        }
        self.check_unchanging()
    }

    /// The ids have come: proposes the cut, if it still can be made.
    pub(crate) fn propose_split(
        &mut self,
        request: &SplitRequest,
        ids: Vec<NewRegion>,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        if self.leading.is_none() {
            return Err(self.not_leader());
        }
        if request.region.region_epoch != self.region.region_epoch {
            return Err(self.epoch_not_match());
        }
        self.check_split(&request.keys)?;
        let parts = split::parts(&self.region, &request.keys, &ids);
        parts.map_err(|refusal| refused(refusal.to_string()))?;
        let (epoch, keys) = (self.epoch(), request.keys.clone());
        self.propose_boundaries(Command::Split { epoch, keys, regions: ids }, context)
    }

    /// The region has been cut: this peer keeps the left-most part.
    pub(super) fn on_split(&mut self, parts: &[metapb::Region], context: &Context<'_>) {
        let [left, others @ ..] = parts else { return };
        if planted(Bug::SplitKeepsDelegate) {
            self.region = Arc::new(left.clone());
            self.heartbeat_due = true;
        } else {
            self.set_region(left.clone(), context);
        }
        self.siblings = others.to_vec();
        self.size.divide(parts.len() as u64);
        // The others learn of the commit with the next message; the new parts wait for it.
        self.raft.ping();
    }

    /// What the region was cut into, seen from one part.
    pub(crate) fn set_siblings(&mut self, parts: &[metapb::Region]) {
        let others = parts.iter().filter(|part| part.id != self.id.get());
        self.siblings = others.cloned().collect();
    }

    /// The peer of a region that a cut has just made. The applier has written its records, and knows it.
    pub(crate) fn born(
        region: metapb::Region,
        state: ApplyState,
        engine: Arc<dyn Engine>,
        config: &Config,
    ) -> Result<Peer, PeerOpenError> {
        let id = RegionId::from(region.id);
        let hard_state = HardState { term: INITIAL_TERM, vote: None, commit: INITIAL_INDEX };
        let members = conf_state(&region);
        let storage = PeerStorage::initial(engine, id, members, log_start(&state), hard_state);
        let me = member_here(&region, config)?;
        let mut peer = Peer::new(region, me, storage, state, config)?;
        peer.registering = false;
        Ok(peer)
    }

    /// A peer that was created by a message, and knew only its ids, becomes real. What it has promised stays (M2).
    pub(crate) fn initialise(
        &mut self,
        region: metapb::Region,
        state: ApplyState,
        context: &Context<'_>,
    ) {
        assert!(
            self.install.is_none() && self.received.is_none(),
            "region {}: a snapshot was let in before the cut",
            self.id
        );
        self.raft.storage_mut().begin_at(log_start(&state));
        self.raft.begin_at(INITIAL_INDEX, INITIAL_TERM, &conf_state(&region));
        self.handed_index = state.applied_index;
        self.applied_index = state.applied_index;
        self.applied_term = state.applied_term;
        self.state_hash = state.state_hash;
        self.registering = false;
        self.set_region(region, context);
    }

    /// This store led the whole: its peers lead the parts, if the others agree.
    pub(crate) fn campaign(&mut self, context: &Context<'_>) {
        self.raft.campaign();
        self.observe_lead(context);
    }
}

//! What all orders to a region have in common: the checks before, and the way of a command into the log.
//!
//! # Boundary changes
//! A split, and the preparation of a merge, end this leader's right to answer for some of its keys, at the moment they are
//! applied *anywhere*: the new region may find itself another leader while this store's applier lags. So from the proposal
//! of such a command until it is applied here the lease is not renewed (it ends before any newborn peer, which waits an
//! election timeout, can lead), and no second one is proposed.

use bytes::Bytes;
use proto::metapb;
use raft::{Error, LogIndex};

use super::{Context, Peer};
use crate::command::{Command, Epoch};
use crate::error::RegionError;
use crate::msg::RequestHeader;

/// An order that cannot be carried out.
pub(crate) fn refused(reason: impl Into<String>) -> RegionError {
    RegionError::Refused { reason: reason.into() }
}

impl Peer {
    /// Whether this peer may be given an order that was decided for the epoch in `header`: both its numbers count.
    pub(crate) fn check_order(
        &self,
        header: &RequestHeader,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        self.check_leader(header, context)?;
        if Some(header.epoch) == self.region.region_epoch {
            Ok(())
        } else {
            Err(self.epoch_not_match())
        }
    }

    /// The error for a request that was made for another generation: with all the regions that the region has been cut into,
    /// so that the client need not ask the scheduler.
    pub(super) fn epoch_not_match(&self) -> RegionError {
        let siblings = self.siblings.iter().cloned();
        let current = std::iter::once(metapb::Region::clone(&self.region)).chain(siblings);
        RegionError::EpochNotMatch { current: current.collect() }
    }

    /// Requests for data care about the key range only, so only `version` counts, not `conf_ver`.
    pub(super) fn check_version(&self, header: &RequestHeader) -> Result<(), RegionError> {
        header.check_version(&self.region).map_err(|_| self.epoch_not_match())
    }

    /// The region's epoch as of what is applied.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch::from(&self.region.region_epoch.unwrap_or_default())
    }

    /// Whether a change of the region's boundaries was proposed here and is not applied yet.
    pub(super) fn is_changing_boundaries(&self) -> bool {
        self.boundary_index > self.applied_index
    }

    /// Refuses a change of boundaries while another change is on its way.
    pub(super) fn check_unchanging(&self) -> Result<(), RegionError> {
        if self.is_changing_boundaries() {
            return Err(refused("the region's boundaries are just being changed"));
        }
        if self.install.is_some() {
            return Err(refused("the region is being restored from a snapshot"));
        }
        Ok(())
    }

    /// Proposes a command that nobody waits for.
    pub(super) fn propose_command(
        &mut self,
        command: Command,
        context: &Context<'_>,
    ) -> Result<LogIndex, RegionError> {
        match self.raft.propose(Bytes::new(), command.encode()) {
            Ok(index) => {
                self.proposals.push(index, self.raft.term(), context.now, Vec::new());
                Ok(index)
            }
            Err(Error::UncommittedFull { .. }) => {
                Err(refused("too much is proposed and not committed yet"))
            }
            Err(_) => Err(self.not_leader()),
        }
    }

    /// Proposes a change of boundaries; see the module header.
    pub(super) fn propose_boundaries(
        &mut self,
        command: Command,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        self.boundary_index = self.propose_command(command, context)?;
        Ok(())
    }
}

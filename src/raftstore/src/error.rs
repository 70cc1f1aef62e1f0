//! Why this store cannot answer for a region now, and the one mapping to the protocol's `errorpb`.
//!
//! A client acts on the variant, never on the text: it follows a leader, refreshes its route, or waits. Two rules come from
//! how the published client reacts (docs: client surface): back-pressure is a delay, never `ServerIsBusy` (that one is final
//! to it); a leader is named only when known for sure, because a hint is followed without a pause.
//!
//! What a variant says about the fate of a write: [`RegionError::StaleCommand`] and [`RegionError::StoreStopped`] leave it
//! open (the entry may yet be committed by the next leader); every other variant means that nothing was proposed.

use bytes::Bytes;
use proto::ids::{PeerId, RegionId, StoreId};
use proto::{errorpb, metapb};

/// A refusal of this store, for one region.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RegionError {
    /// Another peer leads, or none does, or the lead is just being handed over.
    #[error("peer is not the leader of region {region}")]
    NotLeader {
        /// Which region.
        region: RegionId,
        /// Who leads, if that is known for sure.
        leader: Option<metapb::Peer>,
    },
    /// No peer of the region lives on this store.
    #[error("region {region} not found")]
    RegionNotFound {
        /// Which region.
        region: RegionId,
    },
    /// The request reaches outside of the region.
    #[error("key is not in region {region}")]
    KeyNotInRegion {
        /// The offending key.
        key: Bytes,
        /// Which region.
        region: RegionId,
        /// The region's first key.
        start_key: Bytes,
        /// The first key after it; empty for the end of the keyspace.
        end_key: Bytes,
    },
    /// The request was made for another generation of the region.
    #[error("epoch not match")]
    EpochNotMatch {
        /// What this store knows; never empty.
        current: Vec<metapb::Region>,
    },
    /// The proposal was overtaken: its leader lost the lead, or its peer is gone. It may or may not take effect.
    #[error("stale command")]
    StaleCommand,
    /// The request was meant for another store.
    #[error("request is for store {request}, this is store {actual}")]
    StoreNotMatch {
        /// Whom the request names.
        request: StoreId,
        /// Who we are.
        actual: StoreId,
    },
    /// The request was meant for another peer of the region.
    #[error("request is for peer {request}, this store holds peer {actual}")]
    MismatchPeerId {
        /// Whom the request names.
        request: PeerId,
        /// Who is here.
        actual: PeerId,
    },
    /// The command would not fit into a log entry.
    #[error("a command of {entry_bytes} bytes is too large for region {region}")]
    RaftEntryTooLarge {
        /// Which region.
        region: RegionId,
        /// The size the entry would have had.
        entry_bytes: u64,
    },
    /// A quorum did not confirm in time that this peer still leads.
    #[error("read index of region {region} is not ready: no quorum answered in time")]
    ReadIndexNotReady {
        /// Which region.
        region: RegionId,
    },
    /// A snapshot is being installed; the peer has no consistent data until that is done.
    #[error("region {region} is being restored from a snapshot")]
    RegionNotInitialized {
        /// Which region.
        region: RegionId,
    },
    /// The region is about to be taken over by its neighbour; it serves nobody until that is decided.
    #[error("region {region} is merging")]
    Merging {
        /// Which region.
        region: RegionId,
    },
    /// An order that cannot be carried out. Nothing was proposed.
    #[error("refused: {reason}")]
    Refused {
        /// Why; for people.
        reason: String,
    },
    /// The store has stopped serving: a write to its disk failed. A write may or may not take effect.
    #[error("the store has stopped: {reason}")]
    StoreStopped {
        /// What failed.
        reason: String,
    },
}

/// An `errorpb.Error` that this store never produces.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("a region error of a kind this store does not know: {0:?}")]
pub struct UnknownRegionError(pub Box<errorpb::Error>);

impl RegionError {
    /// The error for a request that names another generation than `current`.
    pub(crate) fn epoch_not_match(current: &metapb::Region) -> RegionError {
        RegionError::EpochNotMatch { current: vec![current.clone()] }
    }

    /// The error for a key that `region` does not cover.
    pub(crate) fn key_not_in_region(key: Bytes, region: &metapb::Region) -> RegionError {
        RegionError::KeyNotInRegion {
            key,
            region: region.id.into(),
            start_key: region.start_key.clone(),
            end_key: region.end_key.clone(),
        }
    }
}

impl From<RegionError> for errorpb::Error {
    fn from(error: RegionError) -> errorpb::Error {
        let mut wire = errorpb::Error { message: error.to_string(), ..Default::default() };
        match error {
            RegionError::NotLeader { region, leader } => {
                wire.not_leader = Some(errorpb::NotLeader { region_id: region.get(), leader });
            }
            RegionError::RegionNotFound { region } => {
                wire.region_not_found = Some(errorpb::RegionNotFound { region_id: region.get() });
            }
            RegionError::KeyNotInRegion { key, region, start_key, end_key } => {
                let region_id = region.get();
                let body = errorpb::KeyNotInRegion { key, region_id, start_key, end_key };
                wire.key_not_in_region = Some(body);
            }
            RegionError::EpochNotMatch { current } => {
                wire.epoch_not_match = Some(errorpb::EpochNotMatch { current_regions: current });
            }
            RegionError::StaleCommand => wire.stale_command = Some(errorpb::StaleCommand {}),
            RegionError::StoreNotMatch { request, actual } => {
                wire.store_not_match = Some(errorpb::StoreNotMatch {
                    request_store_id: request.get(),
                    actual_store_id: actual.get(),
                });
            }
            RegionError::MismatchPeerId { request, actual } => {
                wire.mismatch_peer_id = Some(errorpb::MismatchPeerId {
                    request_peer_id: request.get(),
                    store_peer_id: actual.get(),
                });
            }
            RegionError::RaftEntryTooLarge { region, entry_bytes } => {
                wire.raft_entry_too_large = Some(errorpb::RaftEntryTooLarge {
                    region_id: region.get(),
                    entry_size: entry_bytes,
                });
            }
            RegionError::ReadIndexNotReady { region } => {
                wire.read_index_not_ready = Some(errorpb::ReadIndexNotReady {
                    reason: "no quorum answered in time".to_owned(),
                    region_id: region.get(),
                });
            }
            RegionError::RegionNotInitialized { region } => {
                wire.region_not_initialized =
                    Some(errorpb::RegionNotInitialized { region_id: region.get() });
            }
            RegionError::Merging { region } => {
                wire.proposal_in_merging_mode =
                    Some(errorpb::ProposalInMergingMode { region_id: region.get() });
            }
            RegionError::Refused { .. } => {}
            // The protocol has no word for it; a bare message makes clients drop their route and ask again elsewhere.
            RegionError::StoreStopped { reason } => wire.message = stopped_message(&reason),
        }
        wire
    }
}

const REFUSED: &str = "refused: ";
const STOPPED: &str = "the store has stopped: ";

fn stopped_message(reason: &str) -> String {
    format!("{STOPPED}{reason}")
}

impl TryFrom<errorpb::Error> for RegionError {
    type Error = UnknownRegionError;

    fn try_from(wire: errorpb::Error) -> Result<RegionError, UnknownRegionError> {
        let error = if let Some(e) = wire.not_leader {
            RegionError::NotLeader { region: e.region_id.into(), leader: e.leader }
        } else if let Some(e) = wire.region_not_found {
            RegionError::RegionNotFound { region: e.region_id.into() }
        } else if let Some(e) = wire.key_not_in_region {
            let errorpb::KeyNotInRegion { key, region_id, start_key, end_key } = e;
            RegionError::KeyNotInRegion { key, region: region_id.into(), start_key, end_key }
        } else if let Some(e) = wire.epoch_not_match {
            RegionError::EpochNotMatch { current: e.current_regions }
        } else if wire.stale_command.is_some() {
            RegionError::StaleCommand
        } else if let Some(e) = wire.store_not_match {
            let (request, actual) = (e.request_store_id.into(), e.actual_store_id.into());
            RegionError::StoreNotMatch { request, actual }
        } else if let Some(e) = wire.mismatch_peer_id {
            let (request, actual) = (e.request_peer_id.into(), e.store_peer_id.into());
            RegionError::MismatchPeerId { request, actual }
        } else if let Some(e) = wire.raft_entry_too_large {
            let (region, entry_bytes) = (e.region_id.into(), e.entry_size);
            RegionError::RaftEntryTooLarge { region, entry_bytes }
        } else if let Some(e) = wire.read_index_not_ready {
            RegionError::ReadIndexNotReady { region: e.region_id.into() }
        } else if let Some(e) = wire.region_not_initialized {
            RegionError::RegionNotInitialized { region: e.region_id.into() }
        } else if let Some(e) = wire.proposal_in_merging_mode {
            RegionError::Merging { region: e.region_id.into() }
        } else if let Some(reason) = wire.message.strip_prefix(REFUSED) {
            RegionError::Refused { reason: reason.to_owned() }
        } else if let Some(reason) = wire.message.strip_prefix(STOPPED) {
            RegionError::StoreStopped { reason: reason.to_owned() }
        } else {
            return Err(UnknownRegionError(Box::new(wire)));
        };
        Ok(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_error() -> Vec<RegionError> {
        let region = RegionId::from(7);
        let key = Bytes::from_static(b"k");
        let current = vec![metapb::Region { id: 7, ..Default::default() }];
        let leader = Some(metapb::Peer { id: 3, store_id: 1, ..Default::default() });
        vec![
            RegionError::NotLeader { region, leader },
            RegionError::NotLeader { region, leader: None },
            RegionError::RegionNotFound { region },
            RegionError::KeyNotInRegion {
                key,
                region,
                start_key: Bytes::from_static(b"a"),
                end_key: Bytes::new(),
            },
            RegionError::EpochNotMatch { current },
            RegionError::StaleCommand,
            RegionError::StoreNotMatch { request: 1.into(), actual: 2.into() },
            RegionError::MismatchPeerId { request: 1.into(), actual: 2.into() },
            RegionError::RaftEntryTooLarge { region, entry_bytes: 9 },
            RegionError::ReadIndexNotReady { region },
            RegionError::RegionNotInitialized { region },
            RegionError::Merging { region },
            RegionError::Refused { reason: "no quorum would be left".to_owned() },
            RegionError::StoreStopped { reason: "no space".to_owned() },
        ]
    }

    #[test]
    fn every_error_survives_the_wire() {
        for error in every_error() {
            let wire = errorpb::Error::from(error.clone());
            assert!(!wire.message.is_empty(), "{error:?} has no text");
            assert_eq!(RegionError::try_from(wire), Ok(error));
        }
    }

    #[test]
    fn a_kind_we_never_send_is_told_apart() {
        let busy = errorpb::ServerIsBusy::default();
        let wire = errorpb::Error { server_is_busy: Some(busy), ..Default::default() };
        assert!(RegionError::try_from(wire).is_err());
    }
}

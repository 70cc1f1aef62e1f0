//! Why the scheduler refuses. Classified by what the asker can do about it.

use proto::ids::{RegionId, StoreId};

/// A refusal; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong: fix it.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field at fault.
        field: &'static str,
        /// What is wrong, with the limit if there is one.
        reason: String,
    },
    /// No store of this id was ever registered.
    #[error("store {0} is not registered")]
    StoreUnknown(StoreId),
    /// The store was removed for good; a new data directory gets a new id.
    #[error("store {0} was removed from the cluster for good; its id cannot come back")]
    StoreTombstone(StoreId),
    /// A living store has this address.
    #[error(
        "address {address} belongs to store {holder}, heard of {age_ms} ms ago; \
         stop it or give store {store} another address; \
         if store {holder} is gone for good, say: flotilla store replace {holder}"
    )]
    AddressTaken {
        /// The address both want.
        address: String,
        /// Who has it.
        holder: StoreId,
        /// Who asked for it.
        store: StoreId,
        /// How long ago the holder was heard of.
        age_ms: u64,
    },
    /// A report about an older generation of a region than the one known.
    #[error("region {region}: the report is stale: {reason}")]
    RegionStale {
        /// The region reported.
        region: RegionId,
        /// Which comparison failed.
        reason: String,
    },
    /// No region of this id is known.
    #[error("region {0} is not known")]
    RegionUnknown(RegionId),
    /// No region is known that holds this key.
    #[error("no region is known that holds the key {0}")]
    KeyUnknown(String),
    /// It could be done, but not as things stand.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    pub(super) fn invalid(field: &'static str, reason: impl ToString) -> Self {
        Self::Invalid { field, reason: reason.to_string() }
    }
}

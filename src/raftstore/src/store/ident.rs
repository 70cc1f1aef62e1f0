//! Whose data a directory holds: written once, compared at every start (D9, R27).

use engine::{Cf, Engine, KeyRange, WriteBatch};
use prost::Message;
use proto::flotillapb::StoreIdent;
use proto::ids::StoreId;

use crate::keys::Key;

/// Why a store may not use a data directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentError {
    /// It holds another store's data.
    #[error(
        "the data belongs to store {found_store} of cluster {found_cluster}, not to store \
         {store} of cluster {cluster}"
    )]
    Mismatch {
        /// Whose data it is: cluster …
        found_cluster: u64,
        /// … and store.
        found_store: StoreId,
        /// Who wants it: cluster …
        cluster: u64,
        /// … and store.
        store: StoreId,
    },
    /// It was never formatted.
    #[error("the data directory belongs to no store yet")]
    Missing,
    /// It holds data, but no identity: something was lost.
    #[error("the data directory holds data, but not whose it is")]
    Lost,
    /// The identity cannot be decoded.
    #[error("the store's identity is damaged: {0}")]
    Damaged(String),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

/// The identity in `engine`, if there is one: cluster and store.
pub(super) fn read(engine: &dyn Engine) -> Result<Option<(u64, StoreId)>, IdentError> {
    let Some(bytes) = engine.get(Cf::Raft, &Key::StoreIdent.encode())? else { return Ok(None) };
    let ident = StoreIdent::decode(bytes).map_err(|e| IdentError::Damaged(e.to_string()))?;
    Ok(Some((ident.cluster_id, ident.store_id.into())))
}

/// Refuses any identity but the given one.
pub(super) fn check(engine: &dyn Engine, cluster: u64, store: StoreId) -> Result<(), IdentError> {
    match read(engine)? {
        Some(found) if found == (cluster, store) => Ok(()),
        Some((found_cluster, found_store)) => {
            Err(IdentError::Mismatch { found_cluster, found_store, cluster, store })
        }
        None => Err(IdentError::Missing),
    }
}

/// Makes an empty engine the data of `store` in `cluster`, durably. Again changes nothing; data of somebody else, or of
/// nobody, is refused: an id is given out once, so data that is gone cannot be replaced by an empty directory.
pub fn format(engine: &dyn Engine, cluster: u64, store: StoreId) -> Result<(), IdentError> {
    match check(engine, cluster, store) {
        Err(IdentError::Missing) => {}
        done => return done,
    }
    let snapshot = engine.snapshot();
    for cf in Cf::ALL {
        if snapshot.iter(cf, KeyRange::all()).seek_to_first()? {
            return Err(IdentError::Lost);
        }
    }
    let ident = StoreIdent { cluster_id: cluster, store_id: store.get() };
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, Key::StoreIdent.encode(), ident.encode_to_vec());
    engine.write(&batch)?;
    engine.sync()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use engine::mem::MemEngine;

    use super::*;

    #[test]
    fn a_directory_belongs_to_one_store_for_ever() {
        let engine = MemEngine::new();
        let (one, two) = (StoreId::from(1), StoreId::from(2));
        assert_eq!(check(&engine, 7, one), Err(IdentError::Missing));
        assert_eq!(format(&engine, 7, one), Ok(()));
        assert_eq!(format(&engine, 7, one), Ok(()));
        assert_eq!(check(&engine, 7, one), Ok(()));
        let error = format(&engine, 7, two).unwrap_err();
        let text = "the data belongs to store 1 of cluster 7, not to store 2 of cluster 7";
        assert_eq!(error.to_string(), text);
        assert!(matches!(check(&engine, 8, one), Err(IdentError::Mismatch { .. })));
    }

    #[test]
    fn data_without_an_identity_is_not_formatted_over() {
        let engine = MemEngine::new();
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, "k", "v");
        engine.write(&batch).unwrap();
        assert_eq!(format(&engine, 7, StoreId::from(1)), Err(IdentError::Lost));
    }
}

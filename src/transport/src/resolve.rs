//! Where a store listens: asked of the scheduler, kept until a connection fails.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use proto::ids::StoreId;

/// A boxed future, so that [`Resolve`] is object-safe.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<String, ResolveError>> + Send + 'a>>;

/// Why a store has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is no such store, or it has left for good.
    #[error("store {0} is unknown")]
    Unknown(StoreId),
    /// Whoever knows did not answer; ask again later.
    #[error("the address of store {store} cannot be asked: {reason}")]
    Unavailable {
        /// Whose.
        store: StoreId,
        /// What failed, for people.
        reason: String,
    },
}

/// Finds the address (`host:port`) of a store.
pub trait Resolve: Send + Sync + 'static {
    /// Asks; takes as long as it takes, the caller has a timeout.
    fn resolve(&self, store: StoreId) -> Resolving<'_>;
}

/// Remembers what a [`Resolve`] said.
pub(crate) struct Addresses {
    source: Arc<dyn Resolve>,
    known: Mutex<BTreeMap<StoreId, String>>,
}

impl Addresses {
    pub(crate) fn new(source: Arc<dyn Resolve>) -> Addresses {
        Addresses { source, known: Mutex::new(BTreeMap::new()) }
    }

    /// The address, from memory if it is there.
    pub(crate) async fn find(&self, store: StoreId) -> Result<String, ResolveError> {
        let known = self.known.lock().get(&store).cloned();
        if let Some(address) = known {
            return Ok(address);
        }
        let address = self.source.resolve(store).await?;
        self.known.lock().insert(store, address.clone());
        Ok(address)
    }

    /// The address did not work: the next [`Addresses::find`] asks again.
    pub(crate) fn forget(&self, store: StoreId) {
        self.known.lock().remove(&store);
    }
}

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Addresses").field("known", &self.known).finish_non_exhaustive()
    }
}

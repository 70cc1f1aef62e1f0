//! Where each store is, and the link to it.
//!
//! A store's address is asked of the scheduler once, and again after its link has broken: it may have come back elsewhere.
//! Without the scheduler the old address has to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use proto::ids::StoreId;
use proto::metapb::StoreState;

use crate::core::wire::{decode, encode};
use crate::core::{Attempt, Send};
use crate::link::Link;
use crate::scheduler::Scheduler;

/// Links by store.
#[derive(Debug)]
pub(crate) struct Stores {
    scheduler: Arc<Scheduler>,
    known: Mutex<BTreeMap<StoreId, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    address: String,
    link: Link,
}

impl Stores {
    /// No store is known at first.
    pub(crate) fn new(scheduler: Arc<Scheduler>) -> Stores {
        Stores { scheduler, known: Mutex::default() }
    }

    /// Carries out one attempt.
    pub(crate) async fn attempt(&self, send: &Send) -> Attempt {
        let store = StoreId::from(send.peer.store_id);
        let link = match self.link(store).await {
            Ok(link) => link,
            Err(reason) => return Attempt::Lost { sent: false, reason },
        };
        match link.ask(encode(send), send.body.size_bytes(), send.timeout).await {
            Ok(answer) => decode(answer).unwrap_or_else(|| Attempt::Lost {
                sent: true,
                reason: "an answer to something else".to_owned(),
            }),
            Err(broken) => Attempt::Lost { sent: broken.sent, reason: broken.reason },
        }
    }

    async fn link(&self, store: StoreId) -> Result<Link, String> {
        let known = self.known.lock().get(&store).cloned();
        if let Some(known) = &known
            && !known.link.is_broken()
        {
            return Ok(known.link.clone());
        }
        let address = match (self.resolve(store).await, known) {
            (Ok(address), _) => address,
            (Err(_), Some(known)) => known.address,
            (Err(reason), None) => return Err(reason),
        };
        // Another caller may have been faster.
        let mut all = self.known.lock();
        if let Some(known) = all.get(&store)
            && !known.link.is_broken()
        {
            return Ok(known.link.clone());
        }
        let link = Link::open(&address);
        all.insert(store, Known { address, link: link.clone() });
        Ok(link)
    }

    async fn resolve(&self, store: StoreId) -> Result<String, String> {
        let found = self.scheduler.store(store).await?;
        let found = found.ok_or_else(|| format!("the scheduler does not know store {store}"))?;
        if found.state == StoreState::Tombstone as i32 {
            return Err(format!("store {store} has been removed"));
        }
        if found.address.is_empty() {
            return Err(format!("store {store} has no address"));
        }
        Ok(found.address)
    }
}

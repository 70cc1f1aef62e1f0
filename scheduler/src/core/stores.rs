//! Who the stores are, and which of them live.
//!
//! A store's identity is the id in its data directory; its address may change with every start. What
//! was registered is durable; when a store was last heard of is not: after a restart everyone counts
//! as just heard of.

use std::collections::BTreeMap;

use proto::ids::StoreId;
use proto::limits::{ADDRESS_BYTES_MAX, STORE_LABELS_MAX};
use proto::metapb::{self, NodeState, StoreState};
use proto::pdpb;

use super::error::Error;
use super::life::{Decision, decided};

/// A store as the scheduler sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreInfo {
    /// What the store said when it registered, with the state the scheduler gave it.
    pub meta: metapb::Store,
    /// Its last heartbeat, if there was one since this scheduler started.
    pub stats: Option<pdpb::StoreStats>,
    /// When it was last heard of, in the caller's milliseconds.
    pub heard_ms: u64,
}

impl StoreInfo {
    /// The store's id.
    pub fn id(&self) -> StoreId {
        self.meta.id.into()
    }

    pub(super) fn is_tombstone(&self) -> bool {
        self.meta.state == StoreState::Tombstone as i32
    }

    /// Whether it was heard of within `down_ms`.
    pub fn is_alive(&self, now_ms: u64, down_ms: u64) -> bool {
        !self.is_tombstone() && now_ms.saturating_sub(self.heard_ms) < down_ms
    }
}

/// All stores ever registered.
#[derive(Debug, Default)]
pub(super) struct Stores {
    by_id: BTreeMap<StoreId, StoreInfo>,
}

impl Stores {
    /// A record became durable. A new store counts as just heard of; that a known one was heard of is
    /// said by [`Self::hear`] alone.
    pub(super) fn apply(&mut self, meta: metapb::Store, now_ms: u64) {
        match self.by_id.get_mut(&StoreId::new(meta.id)) {
            Some(store) => store.meta = meta,
            None => {
                let id = StoreId::new(meta.id);
                self.by_id.insert(id, StoreInfo { meta, stats: None, heard_ms: now_ms });
            }
        }
    }

    /// A store was heard of, other than by a heartbeat.
    pub(super) fn hear(&mut self, id: StoreId, now_ms: u64) {
        if let Some(store) = self.by_id.get_mut(&id) {
            store.heard_ms = now_ms;
        }
    }

    pub(super) fn get(&self, id: StoreId) -> Option<&StoreInfo> {
        self.by_id.get(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &StoreInfo> {
        self.by_id.values()
    }

    /// The stores that can take part in the first plan.
    pub(super) fn serving(&self) -> impl Iterator<Item = StoreId> {
        let up = |store: &&StoreInfo| store.meta.state == StoreState::Up as i32;
        self.by_id.values().filter(up).map(StoreInfo::id)
    }

    /// Checks a registration; returns the records it makes: the store's own, and that of a dead store
    /// whose address it takes over.
    pub(super) fn register(
        &self,
        asked: metapb::Store,
        now_ms: u64,
        down_ms: u64,
    ) -> Result<Vec<metapb::Store>, Error> {
        validate(&asked)?;
        let id = StoreId::new(asked.id);
        if self.by_id.get(&id).is_some_and(StoreInfo::is_tombstone) {
            return Err(Error::StoreTombstone(id));
        }
        let mut records = Vec::new();
        let same_address = |store: &&StoreInfo| {
            store.id() != id && !store.is_tombstone() && store.meta.address == asked.address
        };
        let holders = self.by_id.values().filter(same_address);
        for holder in holders.filter(|holder| !holder.is_lost()) {
            let holder_id = holder.id();
            if self.by_id.get(&id).is_some_and(StoreInfo::is_lost) {
                return Err(Error::Refused(format!(
                    "store {id} was given up, and store {holder_id} has its address {} now",
                    asked.address
                )));
            }
            if holder.is_alive(now_ms, down_ms) {
                return Err(Error::AddressTaken {
                    address: asked.address,
                    holder: holder_id,
                    store: id,
                    age_ms: now_ms.saturating_sub(holder.heard_ms),
                });
            }
            records.push(decided(holder.meta.clone(), Decision::GiveUp));
        }
        let known = self.by_id.get(&id);
        // What people said about a store stays, unless it says otherwise itself; a newcomer stands where
        // the store stood whose place it takes.
        let before = known.or_else(|| {
            let of_address = |store: &&StoreInfo| store.meta.address == asked.address;
            self.by_id.values().rfind(of_address)
        });
        let mut asked = asked;
        for label in before.iter().flat_map(|store| &store.meta.labels) {
            let same = |other: &metapb::StoreLabel| other.key == label.key;
            if !asked.labels.iter().any(same) && asked.labels.len() < STORE_LABELS_MAX {
                asked.labels.push(label.clone());
            }
        }
        let (state, node_state, physically_destroyed) = known
            .map_or((StoreState::Up as i32, NodeState::Serving as i32, false), |store| {
                (store.meta.state, store.meta.node_state, store.meta.physically_destroyed)
            });
        records.push(metapb::Store {
            state,
            node_state,
            physically_destroyed,
            last_heartbeat: 0,
            ..asked
        });
        Ok(records)
    }

    /// Takes a heartbeat in; answers what the store is to be.
    pub(super) fn heartbeat(
        &mut self,
        stats: pdpb::StoreStats,
        now_ms: u64,
    ) -> Result<NodeState, Error> {
        let id = StoreId::new(stats.store_id);
        let store = self.by_id.get_mut(&id).ok_or(Error::StoreUnknown(id))?;
        if store.is_tombstone() {
            return Err(Error::StoreTombstone(id));
        }
        store.heard_ms = now_ms;
        store.stats = Some(stats);
        Ok(store.meta.node_state())
    }
}

fn validate(store: &metapb::Store) -> Result<(), Error> {
    if store.id == 0 {
        return Err(Error::invalid("store.id", "must not be 0; ask AllocID for one"));
    }
    let address = &store.address;
    if address.len() > ADDRESS_BYTES_MAX {
        let reason = format!("{} bytes, more than {ADDRESS_BYTES_MAX}", address.len());
        return Err(Error::invalid("store.address", reason));
    }
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse::<u16>().ok()?;
        (!host.is_empty() && port != 0).then_some(port)
    });
    if port.is_none() {
        return Err(Error::invalid("store.address", format!("{address:?} is not host:port")));
    }
    if store.labels.len() > STORE_LABELS_MAX {
        let reason = format!("{} labels, more than {STORE_LABELS_MAX}", store.labels.len());
        return Err(Error::invalid("store.labels", reason));
    }
    if store.state != StoreState::Up as i32 {
        return Err(Error::invalid("store.state", "a store registers as Up"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN_MS: u64 = 10_000;

    fn store(id: u64, address: &str) -> metapb::Store {
        metapb::Store { id, address: address.into(), ..Default::default() }
    }

    fn register(stores: &mut Stores, asked: metapb::Store, now_ms: u64) -> Result<(), Error> {
        let id = asked.id.into();
        for record in stores.register(asked, now_ms, DOWN_MS)? {
            stores.apply(record, now_ms);
        }
        stores.hear(id, now_ms);
        Ok(())
    }

    #[test]
    fn a_store_may_come_back_and_move() {
        let mut stores = Stores::default();
        register(&mut stores, store(1, "a:1"), 0).unwrap();
        register(&mut stores, store(1, "a:1"), 1).unwrap();
        register(&mut stores, store(1, "b:2"), 2).unwrap();
        assert_eq!(stores.get(1.into()).unwrap().meta.address, "b:2");
        assert_eq!(stores.serving().collect::<Vec<_>>(), [StoreId::new(1)]);
    }

    #[test]
    fn a_living_stores_address_is_its_own_and_a_dead_ones_is_free() {
        let mut stores = Stores::default();
        register(&mut stores, store(1, "a:1"), 0).unwrap();
        let error = register(&mut stores, store(2, "a:1"), DOWN_MS - 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "address a:1 belongs to store 1, heard of 9999 ms ago; \
             stop it or give store 2 another address; \
             if store 1 is gone for good, say: flotilla store replace 1"
        );
        assert!(stores.get(2.into()).is_none());
        register(&mut stores, store(2, "a:1"), DOWN_MS).unwrap();
        assert_eq!(stores.get(1.into()).unwrap().meta.state(), StoreState::Offline);
        assert_eq!(stores.serving().collect::<Vec<_>>(), [StoreId::new(2)]);
        // Coming back does not undo what was decided about it.
        register(&mut stores, store(1, "a:3"), DOWN_MS).unwrap();
        assert_eq!(stores.get(1.into()).unwrap().meta.state(), StoreState::Offline);
    }

    #[test]
    fn heartbeats_keep_a_store_alive_and_unknown_ones_are_refused() {
        let mut stores = Stores::default();
        register(&mut stores, store(1, "a:1"), 0).unwrap();
        let stats = |store_id| pdpb::StoreStats { store_id, ..Default::default() };
        assert_eq!(stores.heartbeat(stats(1), 5000), Ok(NodeState::Serving));
        assert_eq!(stores.heartbeat(stats(2), 0), Err(Error::StoreUnknown(2.into())));
        let one = stores.get(1.into()).unwrap();
        assert!(one.is_alive(14_999, DOWN_MS) && !one.is_alive(15_000, DOWN_MS));
        assert!(one.is_alive(4000, DOWN_MS), "a clock that fell back kills nobody");
        // Registering again keeps the statistics.
        register(&mut stores, store(1, "a:1"), 1).unwrap();
        assert!(stores.get(1.into()).unwrap().stats.is_some());
    }

    #[test]
    fn a_tombstone_stays_one() {
        let mut stores = Stores::default();
        let mut dead = store(1, "a:1");
        dead.state = StoreState::Tombstone as i32;
        stores.apply(dead, 0);
        let refused = Err(Error::StoreTombstone(1.into()));
        assert_eq!(register(&mut stores, store(1, "a:1"), 0), refused);
        let stats = pdpb::StoreStats { store_id: 1, ..Default::default() };
        assert_eq!(stores.heartbeat(stats, 0), Err(Error::StoreTombstone(1.into())));
        register(&mut stores, store(2, "a:1"), 0).unwrap();
    }

    #[test]
    fn bad_registrations_name_the_field() {
        let mut stores = Stores::default();
        let long = format!("{}:1", "h".repeat(ADDRESS_BYTES_MAX));
        for (asked, field) in [
            (store(0, "a:1"), "store.id"),
            (store(1, ""), "store.address"),
            (store(1, "a"), "store.address"),
            (store(1, ":1"), "store.address"),
            (store(1, "a:0"), "store.address"),
            (store(1, "a:port"), "store.address"),
            (store(1, &long), "store.address"),
            (
                metapb::Store { labels: vec![Default::default(); 33], ..store(1, "a:1") },
                "store.labels",
            ),
            (metapb::Store { state: 2, ..store(1, "a:1") }, "store.state"),
        ] {
            let error = register(&mut stores, asked, 0).unwrap_err();
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}

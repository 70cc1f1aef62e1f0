//! Which stores are alive: heard of within an election timeout.
//!
//! Whatever reaches a peer here from another store is a sign of life of that store, and so is a ping. Hence the claim that
//! sleeping regions rest on: if a store has been silent for an election timeout, then no peer here has heard of any leader
//! on that store for as long, asleep or awake, and owes it no patience any more (R12).

use std::collections::BTreeMap;

use proto::ids::StoreId;

/// Stores remembered. A cluster has fewer; a liar may name more.
const STORES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Seen {
    tick: u64,
    silent: bool,
}

/// See the module header.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    stores: BTreeMap<StoreId, Seen>,
}

impl Liveness {
    /// A store was heard of. Whether it had been silent before, or unknown.
    pub(super) fn hear(&mut self, store: StoreId, tick: u64) -> bool {
        if let Some(seen) = self.stores.get_mut(&store) {
            seen.tick = tick;
            return std::mem::take(&mut seen.silent);
        }
        if self.stores.len() < STORES_MAX {
            self.stores.insert(store, Seen { tick, silent: false });
        }
        true
    }

    /// A tick has passed: the stores that have been silent for `patience_ticks` since now.
    pub(super) fn tick(&mut self, tick: u64, patience_ticks: u32) -> Vec<StoreId> {
        let mut silent = Vec::new();
        for (store, seen) in &mut self.stores {
            if !seen.silent && tick >= seen.tick + u64::from(patience_ticks) {
                seen.silent = true;
                silent.push(*store);
            }
        }
        silent
    }

    /// Whether nothing has been heard of a store for an election timeout, or ever.
    pub(crate) fn is_silent(&self, store: StoreId) -> bool {
        self.stores.get(&store).is_none_or(|seen| seen.silent)
    }

    /// The tick at which a store was last heard of; 0 if never.
    pub(crate) fn heard_tick(&self, store: StoreId) -> u64 {
        self.stores.get(&store).map_or(0, |seen| seen.tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_once_and_ends_with_a_word() {
        let (mut liveness, store) = (Liveness::default(), StoreId::from(2));
        assert!(liveness.is_silent(store), "never heard of");
        assert!(liveness.hear(store, 5));
        assert!(!liveness.hear(store, 6));
        assert_eq!(liveness.tick(17, 12), []);
        assert_eq!(liveness.tick(18, 12), [store]);
        assert_eq!(liveness.tick(19, 12), [], "told once");
        assert!(liveness.is_silent(store));
        assert!(liveness.hear(store, 20) && !liveness.is_silent(store));
        assert_eq!(liveness.heard_tick(store), 20);
    }

    #[test]
    fn a_liar_cannot_fill_the_memory() {
        let mut liveness = Liveness::default();
        for id in 1..10_000 {
            liveness.hear(StoreId::from(id), 1);
        }
        assert_eq!(liveness.stores.len(), STORES_MAX);
    }
}

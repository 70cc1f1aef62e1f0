//! Where a store is in its life: decided by people (state, in the journal) and by silence (time).

use proto::flotillapb::StoreLife;
use proto::metapb::{self, NodeState, StoreState};

use super::settings::Settings;
use super::stores::StoreInfo;

impl StoreInfo {
    /// What it is now; what people decided comes before what silence says.
    pub(super) fn life(&self, settings: &Settings, now_ms: u64) -> StoreLife {
        let silent_ms = self.silent_ms(now_ms);
        if self.is_tombstone() {
            StoreLife::Tombstone
        } else if self.is_lost() {
            StoreLife::Offline
        } else if self.is_leaving() {
            StoreLife::Draining
        } else if silent_ms >= settings.max_store_down_ms {
            StoreLife::Down
        } else if silent_ms >= settings.store_disconnect_ms {
            StoreLife::Disconnected
        } else {
            StoreLife::Up
        }
    }

    /// Milliseconds since it was last heard of.
    pub(super) fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms)
    }

    /// Being emptied, or given up.
    pub(super) fn is_leaving(&self) -> bool {
        self.meta.state == StoreState::Offline as i32
    }

    /// Given up: nobody waits for its return.
    pub(super) fn is_lost(&self) -> bool {
        self.is_leaving() && self.meta.physically_destroyed
    }

    /// The share of its space that is free; `None` if it has not said.
    pub(super) fn free_percent(&self) -> Option<u64> {
        let stats = self.stats.as_ref().filter(|stats| stats.capacity > 0)?;
        Some((u128::from(stats.available) * 100 / u128::from(stats.capacity)).min(100) as u64)
    }

    /// The value of one of its labels; empty if it has none of this name.
    pub(super) fn label(&self, name: &str) -> &str {
        let label = self.meta.labels.iter().find(|label| label.key == name);
        label.map_or("", |label| &label.value)
    }
}

/// What people can decide about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Takes part.
    Serve,
    /// Is emptied while it serves.
    Drain,
    /// Is given up; its peers are replaced.
    GiveUp,
    /// Is gone for good.
    Bury,
}

/// A store's record once this is decided.
pub(super) fn decided(mut meta: metapb::Store, decision: Decision) -> metapb::Store {
    let (state, node_state) = match decision {
        Decision::Serve => (StoreState::Up, NodeState::Serving),
        Decision::Drain | Decision::GiveUp => (StoreState::Offline, NodeState::Removing),
        Decision::Bury => (StoreState::Tombstone, NodeState::Removed),
    };
    meta.set_state(state);
    meta.set_node_state(node_state);
    meta.physically_destroyed = match decision {
        Decision::Serve | Decision::Drain => false,
        Decision::GiveUp => true,
        Decision::Bury => meta.physically_destroyed,
    };
    meta
}

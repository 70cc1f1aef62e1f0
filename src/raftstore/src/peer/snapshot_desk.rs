//! Where Raft's wish to send a snapshot meets the applier's ability to make one.
//!
//! Raft asks for a snapshot in the middle of a step and is told "not yet". The order is passed to the applier at the end of
//! the turn; its answer waits here until Raft asks again, and is picked up together with the message Raft then writes. An
//! order that stands still for too long is forgotten: a made snapshot pins old data in the engine, and if Raft still wants
//! one it asks again.

use std::collections::BTreeMap;

use proto::ids::PeerId;
use raft::{LogIndex, Snapshot};

use crate::apply::SnapshotReady;
use crate::snapshot::encode_meta;

/// How far an order is.
#[derive(Debug)]
enum State {
    /// Raft wants it; the applier does not know yet.
    Wanted,
    /// The applier knows.
    Placed,
    /// Made, and waiting for Raft to ask again.
    Made(SnapshotReady),
    /// Raft has it; its message is about to appear.
    Taken(SnapshotReady),
}

#[derive(Debug)]
struct Order {
    state: State,
    /// Ticks since it came into this state.
    age_ticks: u32,
}

impl Order {
    fn new(state: State) -> Order {
        Order { state, age_ticks: 0 }
    }
}

/// The orders of one region, by the peer they are for.
#[derive(Debug, Default)]
pub(crate) struct SnapshotDesk {
    orders: BTreeMap<PeerId, Order>,
}

impl SnapshotDesk {
    /// Raft asks for a snapshot for `to`, at `at_least` or later.
    pub(crate) fn take(&mut self, to: PeerId, at_least: LogIndex) -> Option<Snapshot> {
        let order = self.orders.entry(to).or_insert_with(|| Order::new(State::Wanted));
        let made = match &order.state {
            State::Wanted | State::Placed => return None,
            State::Made(made) | State::Taken(made) => made.clone(),
        };
        if made.meta.index < at_least {
            *order = Order::new(State::Wanted);
            return None;
        }
        let snapshot = Snapshot {
            index: made.meta.index,
            term: made.meta.term,
            conf_state: made.meta.conf_state.clone(),
            data: encode_meta(&made.meta),
        };
        *order = Order::new(State::Taken(made));
        Some(snapshot)
    }

    /// Whether there are orders the applier does not know of.
    pub(crate) fn has_wanted(&self) -> bool {
        self.orders.values().any(|order| matches!(order.state, State::Wanted))
    }

    /// Hands out up to `count_max` orders for the applier.
    pub(crate) fn place(&mut self, count_max: usize) -> Vec<PeerId> {
        let orders = self.orders.iter_mut();
        let wanted = orders.filter(|(_, order)| matches!(order.state, State::Wanted));
        let mut placed = Vec::new();
        for (to, order) in wanted.take(count_max) {
            *order = Order::new(State::Placed);
            placed.push(*to);
        }
        placed
    }

    /// The applier has made one.
    pub(crate) fn made(&mut self, ready: SnapshotReady) {
        if let Some(order) = self.orders.get_mut(&ready.to)
            && matches!(order.state, State::Placed)
        {
            *order = Order::new(State::Made(ready));
        }
    }

    /// Picks up what belongs to a snapshot message for `to`.
    pub(crate) fn pick_up(&mut self, to: PeerId) -> Option<SnapshotReady> {
        let order = self.orders.remove(&to)?;
        match order.state {
            State::Taken(ready) => Some(ready),
            State::Wanted | State::Placed | State::Made(_) => {
                self.orders.insert(to, order);
                None
            }
        }
    }

    /// How many orders hold, or will soon hold, a view of the engine.
    pub(crate) fn open_count(&self) -> usize {
        self.orders.values().filter(|order| !matches!(order.state, State::Wanted)).count()
    }

    /// A tick has passed: forgets what has stood still for `keep_ticks`.
    pub(crate) fn tick(&mut self, keep_ticks: u32) {
        self.orders.retain(|_, order| {
            order.age_ticks += 1;
            order.age_ticks < keep_ticks
        });
    }

    /// The lead is lost: nothing is wanted any more.
    pub(crate) fn clear(&mut self) {
        self.orders.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::Engine;
    use engine::mem::MemEngine;
    use proto::metapb;
    use raft::{ConfState, Term};

    use super::*;
    use crate::apply::SnapshotMeta;

    const TO: PeerId = PeerId::new(30);

    fn ready(index: u64) -> SnapshotReady {
        let meta = SnapshotMeta {
            index: LogIndex(index),
            term: Term(6),
            conf_state: ConfState::simple([10, 30], []),
            region: metapb::Region { id: 2, ..Default::default() },
            state_hash: 0,
        };
        let engine = Arc::new(MemEngine::new()).snapshot();
        SnapshotReady { region: 2.into(), to: TO, meta, engine }
    }

    #[test]
    fn an_order_passes_from_raft_to_the_applier_and_back() {
        let mut desk = SnapshotDesk::default();
        assert_eq!(desk.take(TO, LogIndex(5)), None);
        assert!(desk.has_wanted());
        assert_eq!(desk.place(0), [], "the limit is reached");
        assert_eq!(desk.place(4), [TO]);
        assert_eq!(desk.place(4), [], "placed once");
        desk.made(ready(9));
        assert!(desk.pick_up(TO).is_none(), "raft has not fetched it");
        assert_eq!(desk.take(TO, LogIndex(5)).map(|snapshot| snapshot.index), Some(LogIndex(9)));
        assert!(desk.pick_up(TO).is_some());
        assert_eq!(desk.open_count(), 0);
    }

    #[test]
    fn one_that_is_too_old_by_now_is_ordered_again() {
        let mut desk = SnapshotDesk::default();
        desk.take(TO, LogIndex(5));
        desk.place(4);
        desk.made(ready(9));
        assert_eq!(desk.take(TO, LogIndex(10)), None);
        assert!(desk.has_wanted());
    }

    #[test]
    fn one_that_stands_still_is_forgotten() {
        let mut desk = SnapshotDesk::default();
        desk.take(TO, LogIndex(5));
        desk.place(4);
        desk.made(ready(9));
        for _ in 0..10 {
            desk.tick(10);
        }
        assert_eq!(desk.open_count(), 0);
        desk.made(ready(9));
        assert_eq!(desk.open_count(), 0, "nobody wants a late one");
    }
}

//! What is done to a cluster on purpose while faults happen: regions are cut, joined, moved, led elsewhere and compared;
//! stores come, are emptied, and are lost for good.

use super::rng::Rng;
use super::time::Nanos;
use std::collections::BTreeMap;

/// What can be ordered. Some go to the region's leader directly, some are wishes to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperationKind {
    /// Cut a region at one key.
    Split,
    /// Cut a region at several keys.
    SplitMany,
    /// Have the scheduler cut a region in halves.
    WishSplit,
    /// Join a region to a neighbour on the same stores.
    Merge,
    /// Have the scheduler do that, wherever the peers are.
    WishMerge,
    /// Add a learner on a store that has none.
    AddPeer,
    /// Give a learner a vote.
    Promote,
    /// Remove a peer, perhaps the leader.
    RemovePeer,
    /// Several changes at once, through a joint membership.
    JointChange,
    /// Have the scheduler move a peer.
    WishMove,
    /// Have the scheduler spread regions.
    WishScatter,
    /// Hand a lead over.
    Transfer,
    /// Have the peers of a region compare their data.
    CheckConsistency,
    /// Everybody rests: regions may fall asleep.
    Idle,
    /// A new store joins.
    Join,
    /// Have the scheduler empty a store.
    DrainStore,
    /// A store loses its disk, and another one joins in its place.
    LoseStore,
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [OperationKind; 17] = [
        OperationKind::Split,
        OperationKind::SplitMany,
        OperationKind::WishSplit,
        OperationKind::Merge,
        OperationKind::WishMerge,
        OperationKind::AddPeer,
        OperationKind::Promote,
        OperationKind::RemovePeer,
        OperationKind::JointChange,
        OperationKind::WishMove,
        OperationKind::WishScatter,
        OperationKind::Transfer,
        OperationKind::CheckConsistency,
        OperationKind::Idle,
        OperationKind::Join,
        OperationKind::DrainStore,
        OperationKind::LoseStore,
    ];
}

/// How often each kind was ordered.
pub type OperationCounts = BTreeMap<OperationKind, u64>;

/// Draws operations.
#[derive(Debug)]
pub struct Steward {
    kinds: Vec<OperationKind>,
    interval: Nanos,
    /// Its dice, also for what the operations are about.
    pub rng: Rng,
    /// What was drawn so far.
    pub counts: OperationCounts,
}

impl Steward {
    /// One that knows `kinds` and orders something every `interval` or so.
    pub fn new(kinds: Vec<OperationKind>, interval: Nanos, rng: Rng) -> Steward {
        Steward { kinds, interval, rng, counts: OperationCounts::new() }
    }

    /// No more orders.
    pub fn stop(&mut self) {
        self.kinds.clear();
    }

    /// How long until the next order, or `None` when there will be none.
    pub fn pause(&mut self) -> Option<Nanos> {
        (!self.kinds.is_empty()).then(|| self.rng.around(self.interval))
    }

    /// The next order.
    pub fn draw(&mut self) -> Option<OperationKind> {
        if self.kinds.is_empty() {
            return None;
        }
        let kind = *self.rng.pick(&self.kinds);
        *self.counts.entry(kind).or_default() += 1;
        Some(kind)
    }
}

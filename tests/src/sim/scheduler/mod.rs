//! The scheduler's nodes: the real decisions (`scheduler::core`) over a journal in a replicated region.
//!
//! A node is a process like a store's: the same store loop, applier, disk, clock and faults, in a cluster of its own with one
//! region, which holds the scheduler's records. Whichever node leads that region thinks, by the real driver of the journal
//! (`scheduler::lead`): it loads the records, decides, and proposes each change as one write; what a change promises is told
//! when the write is applied. A node that loses the lead forgets what it thought.
//!
//! # Files
//! `brain` (a node's thoughts) · `messages` (what is asked and told) · `records` (what the region begins with).
//! The effects are in `cluster/brain.rs` and, at the stores' side, in `cluster/placement.rs`.

mod brain;
mod messages;
mod records;

pub use brain::{Brain, Said, Step};
pub use messages::{Advice, Asker, Consult, Question};
pub use records::first_records;

use super::knobs::Knobs;
use proto::flotillapb::{ConfigItem, Settings};
use proto::metapb;

/// The region that holds the records. Regions of the stores' cluster have other ids.
pub const SCHEDULER_REGION: u64 = scheduler::journal::REGION.get();
/// The cluster that the nodes form.
pub const SCHEDULER_CLUSTER: u64 = 2;
/// Ids below this are those of the first regions and their peers.
pub const FIRST_ID: u64 = 10_000;

/// The region of the nodes at these places.
pub fn region(places: &[usize]) -> metapb::Region {
    let members: Vec<_> = places.iter().map(|place| super::layout::store_id(*place)).collect();
    scheduler::journal::region(&members)
}

/// The settings that a run's knobs stand for.
pub fn settings(knobs: &Knobs) -> Settings {
    let election_ms = knobs.election_timeout().0 / 1_000_000;
    let balance = |limit: u64| if knobs.balance { limit } else { 0 };
    let values = [
        ("max_replicas", knobs.replicas as u64),
        ("leader_schedule_limit", balance(4)),
        ("region_schedule_limit", balance(4)),
        ("merge_schedule_limit", if knobs.merge_small { 2 } else { 0 }),
        ("merge_max_bytes", knobs.region_max_bytes / 4),
        ("split_merge_interval_ms", election_ms * 10),
        ("prepare_ms", election_ms * 4),
    ];
    let item = |(name, value): (&str, u64)| ConfigItem {
        name: name.to_owned(),
        value: value.to_string(),
        ..Default::default()
    };
    Settings { items: values.into_iter().map(item).collect() }
}

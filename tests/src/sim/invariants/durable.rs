//! I5 (Raft thesis §3.5, §3.8): an entry counts as committed only when it is durable on a majority, and a store applies it
//! only when it is durable on its own disk.
//!
//! Looked at when an entry is handed to an applier. A log on disk never loses an acknowledged entry, so what was durable on
//! a majority when it was committed still is.

use super::Broken;
use engine::{Cf, Engine};
use prost::Message;
use proto::eraftpb;
use proto::ids::RegionId;
use raft::LogIndex;
use raftstore::apply::ApplyState;
use raftstore::keys::Key;

/// Whether the disk (what a loss of power leaves at least) holds the entry, or the state after it.
pub fn holds(disk: &dyn Engine, region: u64, index: u64, term: u64) -> bool {
    let id = RegionId::from(region);
    let get = |key: Key| disk.get(Cf::Raft, &key.encode()).ok().flatten();
    if let Some(stored) = get(Key::LogEntry(id, LogIndex(index))) {
        return eraftpb::Entry::decode(stored).is_ok_and(|entry| entry.term == term);
    }
    let applied = get(Key::ApplyState(id)).and_then(|bytes| ApplyState::decode(&bytes));
    let pending = get(Key::PendingSnapshot(id));
    let pending = pending
        .and_then(|bytes| proto::flotillapb::PendingSnapshot::decode(bytes).ok())
        .and_then(|marker| marker.meta);
    applied.is_some_and(|state| state.applied_index.0 >= index)
        || pending.is_some_and(|meta| meta.index >= index)
}

/// Checks an entry that `store` hands to its applier; `on_disk` says for each store whether its disk holds the entry.
pub fn check(
    store: usize,
    (region, index, term): (u64, u64, u64),
    on_disk: &[bool],
) -> Result<(), Broken> {
    let fail = |what: String| Err(Broken::new("I5 committed is durable", what));
    if !on_disk[store] {
        return fail(format!(
            "store {} applies entry {index}@{term} of region {region} before it is on its disk",
            store + 1
        ));
    }
    let copies = on_disk.iter().filter(|held| **held).count();
    if copies * 2 <= on_disk.len() {
        return fail(format!(
            "entry {index}@{term} of region {region} counts as committed with {copies} durable \
             copies on {} stores",
            on_disk.len()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minority_of_durable_copies_is_caught() {
        assert_eq!(check(0, (1, 7, 5), &[true, true, false]), Ok(()));
        assert!(check(0, (1, 7, 5), &[true, false, false]).is_err());
        assert!(check(0, (1, 7, 5), &[false, true, true]).is_err());
        assert!(check(0, (1, 7, 5), &[true, true, false, false]).is_err());
    }
}

//! The model: what every region is after each of its log entries, computed from the entries alone by code of its own.
//!
//! # Vocabulary
//! A *point* of a region's history: its description and the digest of its data after one index. A region *ends* when it is
//! taken over by its neighbour; its history stays, since slow stores live in it still.
//!
//! # How it moves
//! [`World::committed`] sees every entry that any store hands to its applier; each is executed the first time it is seen. So
//! the model is as far as the fastest applier, and whatever a store claims to be at an index can be looked up.
//!
//! # Invariants of its own
//! Living regions tile the key space at all times: a split divides one of them, a merge joins two, and what would break that
//! is reported as broken instead of executed.
//!
//! # Files
//! `region` (one region and its data) · `admin` (split, merge, membership) · `members` (peer lists).

mod admin;
mod members;
mod region;
#[cfg(test)]
mod tests;

use super::invariants::Broken;
use bytes::Bytes;
use engine::{Op, WriteBatch};
use prost::Message;
use proto::{flotillapb, metapb};
use raft::{Entry, EntryKind};
use std::collections::BTreeMap;
use std::rc::Rc;

pub use members::{is_joint, joint_after};
pub use region::{Life, Point, RegionModel, digest_of};

/// Where every region's log begins.
pub const FIRST_APPLIED: u64 = raftstore::INITIAL_INDEX.0;

/// How often each kind of change took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Splits.
    pub splits: u64,
    /// Regions made by them.
    pub parts: u64,
    /// Regions frozen for a merge.
    pub prepared: u64,
    /// Regions taken over.
    pub merges: u64,
    /// Merges undone.
    pub rollbacks: u64,
    /// Membership changes, entering or leaving a joint one included.
    pub conf_changes: u64,
    /// Consistency checks begun.
    pub hash_checks: u64,
}

impl Changes {
    /// Steps of merges.
    pub fn merge_steps(&self) -> u64 {
        self.prepared + self.merges + self.rollbacks
    }
}

/// Every region that ever was.
#[derive(Debug, Default)]
pub struct World {
    regions: BTreeMap<u64, RegionModel>,
    /// The region that is no part of the key space.
    apart: u64,
    /// What took effect.
    pub changes: Changes,
}

impl World {
    /// A world of these first regions, which hold nothing, and of one `apart`, which takes no part in the tiling.
    pub fn new(regions: &[metapb::Region], apart: &metapb::Region) -> World {
        let all = regions.iter().chain([apart]);
        let models = all.map(|region| (region.id, RegionModel::new(region.clone(), FIRST_APPLIED)));
        World { regions: models.collect(), apart: apart.id, changes: Changes::default() }
    }

    /// A first region holds these puts from the beginning.
    pub fn plan(&mut self, id: u64, batch: &WriteBatch) {
        let pairs = batch.ops().iter().filter_map(|op| match op {
            Op::Put { key, value, .. } => Some((key.clone(), value.clone())),
            Op::Delete { .. } | Op::DeleteRange { .. } => None,
        });
        let model = self.model(id);
        model.fill(pairs.collect());
        model.settle();
    }

    /// A region, living or ended.
    pub fn region(&self, id: u64) -> Option<&RegionModel> {
        self.regions.get(&id)
    }

    fn models(&self) -> impl Iterator<Item = &RegionModel> {
        let lives =
            |model: &&RegionModel| model.life == Life::Lives && model.region.id != self.apart;
        self.regions.values().filter(lives)
    }

    /// The living regions in key order.
    pub fn living(&self) -> Vec<Rc<metapb::Region>> {
        let mut living: Vec<_> = self.models().map(|model| model.region.clone()).collect();
        living.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        living
    }

    /// The living region that holds `key`.
    pub fn region_of(&self, key: &[u8]) -> Option<Rc<metapb::Region>> {
        let mut living = self.models().map(|model| &model.region);
        living.find(|region| region::contains(region, key)).cloned()
    }

    /// Every region that ever was, by id.
    pub fn all(&self) -> impl Iterator<Item = (&u64, &RegionModel)> {
        self.regions.iter()
    }

    /// An entry of `region` is handed to an applier.
    pub fn committed(&mut self, id: u64, entry: &Entry) -> Result<(), Broken> {
        let Some(model) = self.regions.get_mut(&id) else {
            let what = format!("a store applies an entry of region {id}, which nothing has made");
            return Err(Broken::new("I8 regions come from splits", what));
        };
        let index = entry.index.0;
        if index <= model.applied {
            return Ok(());
        }
        if index != model.applied + 1 {
            let what =
                format!("region {id} applies {index} though nobody applied {}", model.applied + 1);
            return Err(Broken::new("I10 exactly once", what));
        }
        match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => {}
            EntryKind::Normal => {
                let command = flotillapb::Command::decode(entry.data.clone());
                let command = command.map_err(|error| {
                    Broken::new(
                        "I10 exactly once",
                        format!("entry {index} of region {id}: {error}"),
                    )
                })?;
                self.execute(id, entry, command)?;
            }
            EntryKind::ConfChange | EntryKind::ConfChangeV2 => self.change_peers(id, entry)?,
        }
        if let Some(model) = self.regions.get_mut(&id) {
            model.advance(index);
        }
        Ok(())
    }

    fn execute(
        &mut self,
        id: u64,
        entry: &Entry,
        command: flotillapb::Command,
    ) -> Result<(), Broken> {
        let epoch = metapb::RegionEpoch { conf_ver: command.conf_ver, version: command.version };
        match command.admin.and_then(|admin| admin.cmd) {
            None => self.model(id).write(epoch, command.requests),
            Some(admin) => self.administer(id, entry, epoch, admin),
        }
    }

    fn model(&mut self, id: u64) -> &mut RegionModel {
        self.regions.get_mut(&id).expect("looked up before")
    }

    /// The data of all living regions.
    pub fn data(&self) -> BTreeMap<Bytes, Bytes> {
        self.models().flat_map(|model| model.data.clone()).collect()
    }

    /// The living regions cover every key once.
    pub fn check_tiling(&self) -> Result<(), Broken> {
        let living = self.living();
        let mut expected = Bytes::new();
        for (at, region) in living.iter().enumerate() {
            let last = at + 1 == living.len();
            if region.start_key != expected || region.end_key.is_empty() != last {
                let what = format!("regions do not tile the key space: {living:?}");
                return Err(Broken::new("I8 tiling", what));
            }
            expected = region.end_key.clone();
        }
        Ok(())
    }
}

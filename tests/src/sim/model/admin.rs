//! What admin commands and membership changes do to regions.

use super::members::{is_joint, joint_after};
use super::region::{Life, Merging, RegionModel};
use super::{Broken, FIRST_APPLIED, World};
use prost::Message;
use proto::flotillapb::admin::{self, Cmd};
use proto::{flotillapb, metapb};
use raft::Entry;

/// How far a frozen region's version is above its own and its target's.
const MERGE_VERSION_GAP: u64 = 1000;

impl World {
    pub(super) fn administer(
        &mut self,
        id: u64,
        entry: &Entry,
        epoch: metapb::RegionEpoch,
        admin: Cmd,
    ) -> Result<(), Broken> {
        let index = entry.index.0;
        let current = self.model(id).epoch();
        let fits = epoch == current;
        match admin {
            Cmd::CompactLog(_) | Cmd::VerifyHash(_) => {}
            Cmd::ComputeHash(_) => self.changes.hash_checks += 1,
            Cmd::Split(split) if fits => self.split(id, index, split),
            Cmd::PrepareMerge(prepare) if fits => self.prepare(id, index, prepare),
            Cmd::CommitMerge(commit) if fits => self.take_over(id, index, commit)?,
            Cmd::RollbackMerge(rollback) => self.roll_back(id, index, rollback)?,
            Cmd::AbandonMerge(_) if fits => self.bump(id, index),
            Cmd::Split(_) | Cmd::PrepareMerge(_) | Cmd::CommitMerge(_) | Cmd::AbandonMerge(_) => {}
        }
        Ok(())
    }

    /// Raises the version by one.
    fn bump(&mut self, id: u64, index: u64) {
        let model = self.model(id);
        let mut region = (*model.region).clone();
        let epoch = region.region_epoch.get_or_insert_default();
        epoch.version += 1;
        model.describe(index, region);
    }

    fn split(&mut self, id: u64, index: u64, split: admin::Split) {
        let model = self.model(id);
        let old = model.region.clone();
        let ends = split.keys.iter().skip(1).cloned().chain([old.end_key.clone()]);
        let ordered = split.keys.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = split
            .keys
            .iter()
            .all(|key| *key > old.start_key && (old.end_key.is_empty() || *key < old.end_key));
        let counted = split.regions.len() == split.keys.len()
            && split.regions.iter().all(|new| new.peer_ids.len() == old.peers.len());
        if !ordered
            || !inside
            || !counted
            || split.keys.is_empty()
            || is_joint(&old)
            || model.merging.is_some()
        {
            return;
        }
        let mut epoch = old.region_epoch.unwrap_or_default();
        epoch.version += split.keys.len() as u64;
        let mut parts = Vec::new();
        for ((start, end), new) in split.keys.iter().cloned().zip(ends).zip(&split.regions) {
            let peers = old.peers.iter().zip(&new.peer_ids);
            let peers = peers.map(|(peer, new_id)| metapb::Peer { id: *new_id, ..*peer }).collect();
            let region = metapb::Region {
                id: new.region_id,
                start_key: start.clone(),
                end_key: end.clone(),
                region_epoch: Some(epoch),
                peers,
            };
            let mut part = RegionModel::new(region, FIRST_APPLIED);
            part.fill(model.take_range(&start, &end));
            part.sessions = model.sessions.clone();
            part.settle();
            parts.push((new.region_id, part));
        }
        let end_key = split.keys[0].clone();
        let left = metapb::Region { end_key, region_epoch: Some(epoch), ..(*old).clone() };
        model.describe(index, left);
        self.changes.splits += 1;
        self.changes.parts += parts.len() as u64;
        self.regions.extend(parts);
    }

    fn prepare(&mut self, id: u64, index: u64, prepare: admin::PrepareMerge) {
        let Some(target) = prepare.target else { return };
        let model = self.model(id);
        if model.merging.is_some() {
            return;
        }
        let expected = target.region_epoch.unwrap_or_default();
        model.merging = Some(Merging { target: (target.id, expected), index });
        let mut region = (*model.region).clone();
        let epoch = region.region_epoch.get_or_insert_default();
        epoch.conf_ver += 1;
        epoch.version = epoch.version.max(expected.version) + MERGE_VERSION_GAP;
        model.describe(index, region);
        self.changes.prepared += 1;
    }

    fn take_over(&mut self, id: u64, index: u64, commit: admin::CommitMerge) -> Result<(), Broken> {
        let fail = |what: String| Err(Broken::new("I15 a merge is committed or undone", what));
        let Some(told) = commit.source else { return Ok(()) };
        let Some(source) = self.regions.get(&told.id).cloned() else {
            return fail(format!("region {id} takes over region {}, which never was", told.id));
        };
        let expected = Merging { target: (id, self.model(id).epoch()), index: commit.index };
        if source.merging.as_ref() != Some(&expected) || source.life != Life::Lives {
            return fail(format!(
                "region {id} takes over region {} prepared at {}, which is {:?} and merging {:?}",
                told.id, commit.index, source.life, source.merging
            ));
        }
        // A new leader's first entry may have followed the preparation.
        if source.applied < commit.index || *source.region != told {
            return fail(format!(
                "region {id} takes over region {told:?} as of {}, which stands at {} as {:?}",
                commit.index, source.applied, source.region
            ));
        }
        let model = self.model(id);
        let mut region = (*model.region).clone();
        if source.region.end_key == region.start_key && !region.start_key.is_empty() {
            region.start_key = source.region.start_key.clone();
        } else if region.end_key == source.region.start_key && !region.end_key.is_empty() {
            region.end_key = source.region.end_key.clone();
        } else {
            return fail(format!("regions {region:?} and {:?} are not neighbours", source.region));
        }
        let epoch = region.region_epoch.get_or_insert_default();
        epoch.version = epoch.version.max(source.epoch().version) + 1;
        model.describe(index, region);
        model.fill(source.data.clone());
        for (client, sequence) in source.sessions {
            let last = model.sessions.entry(client).or_default();
            *last = sequence.max(*last);
        }
        if let Some(source) = self.regions.get_mut(&told.id) {
            source.life = Life::Ended { into: id };
        }
        self.changes.merges += 1;
        Ok(())
    }

    fn roll_back(
        &mut self,
        id: u64,
        index: u64,
        rollback: admin::RollbackMerge,
    ) -> Result<(), Broken> {
        let model = self.model(id);
        if model.merging.as_ref().is_none_or(|merging| merging.index != rollback.index) {
            return Ok(());
        }
        if let Life::Ended { into } = model.life {
            let what = format!("region {id}, taken over by region {into}, rolls back at {index}");
            return Err(Broken::new("I15 a merge is committed or undone", what));
        }
        model.merging = None;
        self.bump(id, index);
        self.changes.rollbacks += 1;
        Ok(())
    }

    /// A membership change, with the changes in the entry's context; without one a joint membership ends.
    pub(super) fn change_peers(&mut self, id: u64, entry: &Entry) -> Result<(), Broken> {
        let index = entry.index.0;
        let context = flotillapb::ChangePeers::decode(entry.context.clone());
        let context = context.map_err(|error| {
            Broken::new("I10 exactly once", format!("entry {index} of region {id}: {error}"))
        })?;
        let model = self.model(id);
        let epoch = metapb::RegionEpoch { conf_ver: context.conf_ver, version: context.version };
        let leaves = entry.context.is_empty();
        if !leaves && (epoch != model.epoch() || context.changes.is_empty()) {
            return Ok(());
        }
        if let Some(peers) = joint_after(&model.region, &context.changes) {
            let mut region = metapb::Region { peers, ..(*model.region).clone() };
            region.region_epoch.get_or_insert_default().conf_ver += 1;
            model.describe(index, region);
            self.changes.conf_changes += 1;
        }
        Ok(())
    }
}

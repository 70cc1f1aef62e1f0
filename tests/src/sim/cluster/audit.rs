//! Judging the cluster as a whole: disks of stores that start, nodes, logs, leases, and everything at the end.

use super::Cluster;
use crate::sim::invariants::disks::{self, is_tombstone};
use crate::sim::invariants::{Broken, exactly_once, log_matching, structure};
use crate::sim::layout::store_id;
use crate::sim::matrix::Change;
use bytes::Bytes;
use proto::metapb;
use std::collections::BTreeMap;

impl Cluster {
    /// What is on the disk of a store that is about to start must agree with what it told others and with the model.
    pub(super) fn check_disk(&mut self, store: usize) -> Result<(), Broken> {
        let engine = self.processes[store].engine.clone();
        let states = disks::region_states(engine.as_ref());
        self.invariants.disks.look(store, &states)?;
        for (region, state) in &states {
            if is_tombstone(state) {
                continue;
            }
            let view = self.view(store, *region);
            let pending = self.pending_snapshot(store, *region);
            let last = view.log.1.max(view.apply.truncated_index.0).max(pending);
            let peer = state.peer.as_ref().map_or(0, |peer| peer.id);
            self.invariants.promises.restarted(*region, peer, view.term, last)?;
            exactly_once::compare(&self.world, store, *region, engine.as_ref())?;
        }
        Ok(())
    }

    /// Looks into every node, and at the regions on every disk.
    pub fn check_nodes(&mut self) -> Result<(), Broken> {
        for store in 0..self.processes.len() {
            for status in self.statuses(store) {
                structure::check(store, status.region.id, &status.raft)?;
            }
            let states = disks::region_states(self.processes[store].engine.as_ref());
            self.invariants.disks.look(store, &states)?;
        }
        Ok(())
    }

    /// Looks whether regions have fallen asleep or woken.
    pub fn watch_sleep(&mut self) {
        for store in 0..self.places {
            let Some(machine) = &self.processes[store].machine else { continue };
            let status = machine.store.status();
            let seen = (status.asleep, status.counters.wakes);
            let before = std::mem::replace(&mut self.processes[store].sleep, seen);
            if seen != before {
                self.counts.sleeps += (seen.0.saturating_sub(before.0)) as u64;
                self.happened(Change::Sleep);
            }
        }
    }

    /// A leader that has heard no majority for four election timeouts must have stepped down (Raft thesis §6.2), unless its
    /// region sleeps.
    pub fn check_quorums(&mut self) -> Result<(), Broken> {
        let (now, patience) = (self.now(), self.knobs.election_timeout().times(4));
        for store in 0..self.processes.len() {
            let process = &self.processes[store];
            let rests = process.paused || now.saturating_sub(process.awake_since) <= patience;
            for status in self.statuses(store) {
                let region = status.region.id;
                let changed = self.changed_at.get(&region).copied().unwrap_or_default();
                if status.hibernating {
                    self.rested_at.insert((store, region), now);
                }
                let rested = self.rested_at.get(&(store, region)).copied().unwrap_or_default();
                let settled = now.saturating_sub(changed.max(rested)) > patience;
                if rests || status.raft.role != raft::Role::Leader || status.hibernating || !settled
                {
                    continue;
                }
                let heard = |other: usize| {
                    let last = self.heard.get(&(region, store, other));
                    other == store || last.is_some_and(|at| now.saturating_sub(*at) <= patience)
                };
                if !has_majority(&status.region, heard) {
                    let what = format!(
                        "store {} still leads region {region} in term {}, having heard no majority in \
                         four election timeouts",
                        store + 1,
                        status.raft.term,
                    );
                    return Err(Broken::new("I14 a leader without a quorum steps down", what));
                }
            }
        }
        Ok(())
    }

    /// Every id was given once (I13).
    pub fn check_ids(&self) -> Result<(), Broken> {
        self.invariants.unique.check_ids()
    }

    /// Which faults met which changes so far.
    pub fn meetings(&self) -> &crate::sim::matrix::Meetings {
        &self.matrix.meetings
    }

    /// Compares the logs of all stores (I2).
    pub fn check_logs(&self) -> Result<(), Broken> {
        for region in self.regions() {
            let logs: Vec<_> =
                (0..self.processes.len()).map(|store| self.log(store, region.id)).collect();
            for (at, left) in logs.iter().enumerate() {
                for right in &logs[at + 1..] {
                    log_matching::check(region.id, left, right)?;
                }
            }
        }
        Ok(())
    }

    /// I8: once a leader has applied an entry of its own term, no earlier leader of the region holds a lease.
    pub(super) fn check_deposed(&self, store: usize, region: u64, term: u64) -> Result<(), Broken> {
        for other in (0..self.processes.len()).filter(|other| *other != store) {
            let held = self.status(other, region);
            let held = held.filter(|held| held.raft.term.0 < term && self.has_lease(other, held));
            if let Some(held) = held {
                let what = format!(
                    "store {} leads region {region} in term {term} and serves while store {} has a lease \
                     in term {}",
                    store + 1,
                    other + 1,
                    held.raft.term,
                );
                return Err(Broken::new("I8 one lease holder", what));
            }
        }
        Ok(())
    }

    /// I8: nor does anybody hold a lease of a region that covered the same keys before. `store` has just applied, in
    /// `region` as it leads it, an entry of its own term.
    pub(super) fn check_other_leases(
        &self,
        store: usize,
        region: &metapb::Region,
    ) -> Result<(), Broken> {
        let peers = if self.is_node(store) { self.nodes() } else { 0..self.places };
        for other in peers.filter(|other| *other != store) {
            for held in self.leases(other) {
                // Of two regions that share keys the one of the later version has them.
                let covers = held.region.id != region.id
                    && disks::overlap(&held.region, region)
                    && version(&held.region) < version(region);
                if covers {
                    let what = format!(
                        "store {} leads region {} and serves while store {} has a lease of region {}, which \
                         had the same keys",
                        store + 1,
                        region.id,
                        other + 1,
                        held.region.id,
                    );
                    return Err(Broken::new("I8 one lease holder", what));
                }
            }
        }
        Ok(())
    }

    /// Whether every peer has applied everything anybody has, with a leader in every region, and nobody else is there.
    pub fn has_converged(&self) -> bool {
        self.regions().iter().all(|region| {
            let applied = self.world.region(region.id).map_or(0, |model| model.applied);
            self.leader_of(region.id).is_some()
                && Self::homes(region)
                    .all(|store| self.apply_state(store, region.id).applied_index.0 == applied)
        }) && self.strangers() == 0
    }

    /// Peers on living stores that belong to no region as it stands.
    fn strangers(&self) -> usize {
        let stores = (0..self.places).filter(|store| self.processes[*store].is_member());
        let strangers = stores.map(|store| {
            let states = disks::region_states(self.processes[store].engine.as_ref());
            let stranger = |(id, state): &(&u64, &proto::flotillapb::RegionLocalState)| {
                let member = self
                    .regions()
                    .iter()
                    .find(|region| region.id == **id)
                    .and_then(|region| Self::peer_on(region, store));
                !is_tombstone(state) && member.map(|peer| peer.id) != state.peer.map(|peer| peer.id)
            };
            states.iter().filter(stranger).count()
        });
        strangers.sum()
    }

    /// The replicas of a converged cluster are the same, byte for byte, and the same as the model; nothing is left of
    /// anything else. Returns the data.
    pub fn audit(&self) -> Result<BTreeMap<Bytes, Bytes>, Broken> {
        self.world.check_tiling()?;
        for region in self.regions() {
            let mut states = Vec::new();
            for store in Self::homes(&region) {
                let engine = self.processes[store].engine.as_ref();
                exactly_once::compare(&self.world, store, region.id, engine)?;
                let state = self.apply_state(store, region.id);
                states.push((state.applied_index, state.state_hash));
            }
            states.dedup();
            if states.len() != 1 {
                let what = format!("region {}: applied states differ: {states:?}", region.id);
                return Err(Broken::new("I4 replicas are equal", what));
            }
        }
        for store in 0..self.places {
            let process = &self.processes[store];
            if process.is_member() {
                let id = store_id(store).get();
                disks::check_orphans(&self.world, store, id, process.engine.as_ref())?;
                let files = process.files().list().unwrap_or_default();
                if !files.is_empty() {
                    let what = format!("store {} keeps the snapshots {files:?}", store + 1);
                    return Err(Broken::new("I9 nothing is left behind", what));
                }
            }
        }
        self.check_logs()?;
        let data = self.world.data();
        Ok(data.into_iter().map(|(key, value)| (key.slice(1..), value)).collect())
    }
}

fn version(region: &metapb::Region) -> u64 {
    region.region_epoch.map_or(0, |epoch| epoch.version)
}

/// Whether the voters that `heard` says yes to are a majority, of both generations in a joint membership.
fn has_majority(region: &metapb::Region, heard: impl Fn(usize) -> bool) -> bool {
    use proto::metapb::PeerRole::{DemotingVoter, IncomingVoter, Voter};
    let majority = |roles: [metapb::PeerRole; 2]| {
        let voters = region.peers.iter().filter(|peer| roles.contains(&peer.role()));
        let stores: Vec<usize> =
            voters.map(|peer| crate::sim::layout::store_place(peer.store_id)).collect();
        stores.iter().filter(|store| heard(**store)).count() * 2 > stores.len()
    };
    majority([Voter, IncomingVoter]) && majority([Voter, DemotingVoter])
}

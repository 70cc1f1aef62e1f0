//! Looking at a cluster from outside: who leads, how far each store is, what is on the disks.

use super::Cluster;
use super::store_loop::scan;
use crate::sim::invariants::log_matching::{self, Position};
use crate::sim::invariants::state_machine::content_hash;
use crate::sim::invariants::{Broken, structure};
use crate::sim::network::NetworkCounts;
use crate::sim::trace::COLUMNS;
use bytes::Bytes;
use engine::{Cf, Engine, Iter};
use prost::Message;
use proto::ids::RegionId;
use proto::{eraftpb, flotillapb};
use raftstore::apply::ApplyState;
use raftstore::keys::{self, Key};
use raftstore::msg::RequestHeader;
use std::collections::BTreeMap;

/// How far a region is on one store, as its disk (current contents, synced or not) says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreView {
    /// Term of the hard state.
    pub term: u64,
    /// Commit index of the hard state.
    pub commit: u64,
    /// The applied position.
    pub apply: ApplyState,
    /// First and last index in the log; 0 when it is empty.
    pub log: (u64, u64),
}

impl Cluster {
    /// The store that leads a region, by the word of the store with the highest term.
    pub fn leader(&self, region: usize) -> Option<usize> {
        let leads = (0..self.processes.len()).filter_map(|store| {
            let node = self.status(store, region)?;
            (node.role == raft::Role::Leader).then_some((node.term, store))
        });
        leads.max().map(|(_, store)| store)
    }

    /// The Raft node of a region on a store, if the process lives.
    pub fn status(&self, store: usize, region: usize) -> Option<raft::Status> {
        let id = self.layout.regions[region].id;
        let status = self.processes[store].machine.as_ref()?.store.status();
        status.regions.into_iter().find(|status| status.region.id == id).map(|status| status.raft)
    }

    /// A header for requests that name a region and nothing else.
    pub(super) fn header(&self, region: usize) -> RequestHeader {
        let region = &self.layout.regions[region];
        RequestHeader::new(RegionId::from(region.id), region.region_epoch.unwrap_or_default())
    }

    /// The term of an entry in the log of a store, if it is there.
    pub(super) fn term_at(&self, store: usize, region: u64, index: u64) -> Option<u64> {
        let key = Key::LogEntry(RegionId::from(region), raft::LogIndex(index)).encode();
        let stored = self.processes[store].engine.get(Cf::Raft, &key).ok().flatten()?;
        eraftpb::Entry::decode(stored).ok().map(|entry| entry.term)
    }

    /// What the disk of a store says about a region.
    pub fn view(&self, store: usize, region: usize) -> StoreView {
        let id = RegionId::from(self.layout.regions[region].id);
        let engine = &self.processes[store].engine;
        let get = |key: Key| engine.get(Cf::Raft, &key.encode()).ok().flatten();
        let hard = get(Key::HardState(id)).and_then(|bytes| eraftpb::HardState::decode(bytes).ok());
        let hard = hard.unwrap_or_default();
        let apply = self.apply_state(store, region);
        let log = self.log_bounds(store, id);
        StoreView { term: hard.term, commit: hard.commit, apply, log }
    }

    /// How far the data of a region on a store has got.
    pub(super) fn apply_state(&self, store: usize, region: usize) -> ApplyState {
        let key = Key::ApplyState(RegionId::from(self.layout.regions[region].id)).encode();
        let stored = self.processes[store].engine.get(Cf::Raft, &key).ok().flatten();
        stored.and_then(|bytes| ApplyState::decode(&bytes)).unwrap_or_default()
    }

    /// The term of a region's node on a store; 0 if the process is down.
    pub(super) fn term(&self, store: usize, region: usize) -> u64 {
        self.status(store, region).map_or(0, |node| node.term.0)
    }

    /// Whether a store would now serve a read of the region by lease.
    pub(super) fn has_lease(&self, store: usize, region: usize) -> bool {
        let (process, now) = (&self.processes[store], self.now());
        let header = self.header(region);
        process.machine.as_ref().is_some_and(|machine| {
            machine.reader.read(&header, || process.clock.read(now), |_| ()).is_ok()
        })
    }

    /// The stores that hold a lease of the region.
    pub(super) fn lease_holders(&self, region: usize) -> impl Iterator<Item = usize> {
        (0..self.processes.len()).filter(move |store| self.has_lease(*store, region))
    }

    /// The index of the snapshot whose installation the store must finish, or 0.
    fn pending_snapshot(&self, store: usize, region: usize) -> u64 {
        let key = Key::PendingSnapshot(RegionId::from(self.layout.regions[region].id)).encode();
        let marker = self.processes[store].engine.get(Cf::Raft, &key).ok().flatten();
        let marker = marker.and_then(|bytes| flotillapb::PendingSnapshot::decode(bytes).ok());
        marker.and_then(|marker| marker.meta).map_or(0, |meta| meta.index)
    }

    fn log_bounds(&self, store: usize, region: RegionId) -> (u64, u64) {
        let snapshot = self.processes[store].engine.snapshot();
        let mut iter = snapshot.iter(Cf::Raft, keys::log_range_all(region));
        let index_at = |iter: &dyn Iter| match Key::decode(Cf::Raft, iter.key()) {
            Ok(Key::LogEntry(_, index)) => index.0,
            _ => 0,
        };
        if !iter.seek_to_first().unwrap_or(false) {
            return (0, 0);
        }
        let first = index_at(iter.as_ref());
        let last = if iter.seek_to_last().unwrap_or(false) { index_at(iter.as_ref()) } else { 0 };
        (first, last)
    }

    /// The log of a region on the disk of a store.
    pub fn log(&self, store: usize, region: usize) -> Vec<Position> {
        let id = RegionId::from(self.layout.regions[region].id);
        let snapshot = self.processes[store].engine.snapshot();
        let mut iter = snapshot.iter(Cf::Raft, keys::log_range_all(id));
        let mut log = Vec::new();
        let mut more = iter.seek_to_first().unwrap_or(false);
        while more {
            if let Ok(wire) = eraftpb::Entry::decode(iter.value())
                && let Ok(entry) = raft::wire::entry_from_proto(wire)
            {
                let content = content_hash(&entry);
                log.push(Position { index: entry.index.0, term: entry.term.0, content });
            }
            more = iter.next().unwrap_or(false);
        }
        log
    }

    /// How far every store is, in one line.
    pub fn describe(&self) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        for (place, region) in self.layout.regions.iter().enumerate() {
            let leader =
                self.leader(place).map_or("nobody".to_owned(), |at| format!("s{}", at + 1));
            let _ = write!(text, "r{} led by {leader}:", region.id);
            for store in 0..self.processes.len() {
                let view = self.view(store, place);
                let up = if self.processes[store].is_up() { "" } else { " down" };
                let _ = write!(
                    text,
                    " s{}{up} term {} commit {} applied {} log {:?};",
                    store + 1,
                    view.term,
                    view.commit,
                    view.apply.applied_index,
                    view.log,
                );
            }
        }
        let _ = write!(text, " {} open calls", self.open_calls());
        text
    }

    /// Adds a line to the timeline for each region whose nodes have changed: one column per store with role, term, commit
    /// and applied index. A focused timeline shows changes of role and term only.
    pub(super) fn draw_columns(&mut self) {
        for place in 0..self.layout.regions.len() {
            let nodes: Vec<Option<raft::Status>> =
                (0..self.processes.len()).map(|store| self.status(store, place)).collect();
            let column = |node: &Option<raft::Status>| match node {
                None => format!("{:22}", "down"),
                Some(node) => {
                    let role = match node.role {
                        raft::Role::Leader => "LEADS",
                        raft::Role::Follower => "",
                        raft::Role::Candidate => "asks",
                        raft::Role::PreCandidate => "preasks",
                    };
                    let raft::Status { term, commit, applied, .. } = node;
                    format!("{:22}", format!("{role} t{term} c{commit} a{applied}"))
                }
            };
            let line: Vec<String> = nodes.iter().map(column).collect();
            let line = line.join("| ");
            let lead = |node: &Option<raft::Status>| node.as_ref().map(|n| (n.role, n.term));
            let seen = match self.trace.is_focused() {
                true => format!("{:?}", nodes.iter().map(lead).collect::<Vec<_>>()),
                false => line.clone(),
            };
            if self.columns.get(&place) != Some(&seen) {
                let (now, region) = (self.now(), self.layout.regions[place].id);
                self.trace.line(now, |text| {
                    text.push_str(&format!("{COLUMNS}r{region} | {line}"));
                });
                self.columns.insert(place, seen);
            }
        }
    }

    /// What happened to messages so far.
    pub fn network_counts(&self) -> NetworkCounts {
        self.network.counts
    }

    /// What a store holds of the clients' data, without asking anybody.
    pub fn data(&self, store: usize) -> Vec<(Bytes, Bytes)> {
        scan(self.processes[store].engine.as_ref(), self.cf, b"", b"")
    }

    /// What is on the disk of a store that is about to start must agree with what it told others and with the model.
    pub(super) fn check_disk(&self, store: usize) -> Result<(), Broken> {
        for (place, region) in self.layout.regions.iter().enumerate() {
            let view = self.view(store, place);
            let last = view
                .log
                .1
                .max(view.apply.truncated_index.0)
                .max(self.pending_snapshot(store, place));
            let peer = self.layout.peer(place, store).get();
            self.invariants.promises.restarted(region.id, peer, view.term, last)?;
            self.invariants.exactly_once.compare(
                store,
                region,
                self.processes[store].engine.as_ref(),
            )?;
        }
        Ok(())
    }

    /// Looks into every node.
    pub fn check_nodes(&self) -> Result<(), Broken> {
        for (place, region) in self.layout.regions.iter().enumerate() {
            for store in 0..self.processes.len() {
                if let Some(node) = self.status(store, place) {
                    structure::check(store, region.id, &node)?;
                }
            }
        }
        Ok(())
    }

    /// A leader that has heard no majority for four election timeouts must have stepped down (Raft thesis §6.2).
    pub fn check_quorums(&self) -> Result<(), Broken> {
        let (now, patience) = (self.now(), self.knobs.election_timeout().times(4));
        let stores = self.processes.len();
        for (place, region) in self.layout.regions.iter().enumerate() {
            for store in 0..stores {
                let process = &self.processes[store];
                if process.paused || now.saturating_sub(process.awake_since) <= patience {
                    continue;
                }
                let leads = self.status(store, place);
                let Some(node) = leads.filter(|node| node.role == raft::Role::Leader) else {
                    continue;
                };
                let heard = |other: &usize| {
                    let last = self.heard.get(&(region.id, store, *other));
                    last.is_some_and(|last| now.saturating_sub(*last) <= patience)
                };
                let reached = 1 + (0..stores).filter(heard).count();
                if reached * 2 <= stores {
                    let what = format!(
                        "store {} still leads region {} in term {}, having heard {} others in \
                         four election timeouts",
                        store + 1,
                        region.id,
                        node.term,
                        reached - 1
                    );
                    return Err(Broken::new("I14 a leader without a quorum steps down", what));
                }
            }
        }
        Ok(())
    }

    /// Compares the logs of all stores (I2).
    pub fn check_logs(&self) -> Result<(), Broken> {
        for (place, region) in self.layout.regions.iter().enumerate() {
            let logs: Vec<_> =
                (0..self.processes.len()).map(|store| self.log(store, place)).collect();
            for (at, left) in logs.iter().enumerate() {
                for right in &logs[at + 1..] {
                    log_matching::check(region.id, left, right)?;
                }
            }
        }
        Ok(())
    }

    /// Whether every store has applied everything anybody has, with a leader in every region.
    pub fn has_converged(&self) -> bool {
        (0..self.layout.regions.len()).all(|place| {
            let applied = self.invariants.exactly_once.applied(self.layout.regions[place].id);
            self.leader(place).is_some()
                && (0..self.processes.len())
                    .all(|store| self.view(store, place).apply.applied_index.0 == applied)
        })
    }

    /// The replicas of a converged cluster are the same, byte for byte, and the same as the model. Returns the data.
    pub fn audit(&self) -> Result<BTreeMap<Bytes, Bytes>, Broken> {
        let first = self.data(0);
        for store in 1..self.processes.len() {
            let other = self.data(store);
            if other != first {
                let what = format!("stores 1 and {} hold different data", store + 1);
                return Err(Broken::new("I4 replicas are equal", what));
            }
        }
        for (place, region) in self.layout.regions.iter().enumerate() {
            let hashes = (0..self.processes.len()).map(|store| self.view(store, place).apply);
            let mut hashes: Vec<_> =
                hashes.map(|state| (state.applied_index, state.state_hash)).collect();
            hashes.dedup();
            if hashes.len() != 1 {
                let what = format!("region {}: applied states differ: {hashes:?}", region.id);
                return Err(Broken::new("I4 replicas are equal", what));
            }
            self.invariants.exactly_once.compare(0, region, self.processes[0].engine.as_ref())?;
        }
        self.check_logs()?;
        Ok(first.into_iter().collect())
    }
}

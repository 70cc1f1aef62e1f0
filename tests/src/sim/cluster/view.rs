//! Looking at a cluster from outside: which regions there are, who leads them, how far each store is.
//!
//! Regions are told by their ids; tests with few of them also by their *place*, the number among the living ones in key
//! order.

use super::Cluster;
use super::store_loop::scan;
use crate::sim::invariants::log_matching::Position;
use crate::sim::invariants::state_machine::content_hash;
use crate::sim::layout::{store_id, store_place};
use crate::sim::model::World;
use crate::sim::network::NetworkCounts;
use bytes::Bytes;
use engine::{Cf, Engine, Iter};
use prost::Message;
use proto::ids::RegionId;
use proto::{eraftpb, flotillapb, metapb};
use raftstore::RegionStatus;
use raftstore::apply::ApplyState;
use raftstore::keys::{self, Key};
use raftstore::msg::RequestHeader;
use std::rc::Rc;

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
    /// What the entries applied so far say.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The living regions in key order.
    pub fn regions(&self) -> Vec<Rc<metapb::Region>> {
        self.world.living()
    }

    /// The id of the region at a place; 0 if there are fewer.
    pub fn region_at(&self, place: usize) -> u64 {
        self.regions().get(place).map_or(0, |region| region.id)
    }

    /// The store that leads the region at a place.
    pub fn leader(&self, place: usize) -> Option<usize> {
        self.leader_of(self.region_at(place))
    }

    /// The store that leads a region, by the word of the store with the highest term.
    pub fn leader_of(&self, region: u64) -> Option<usize> {
        let leads = (0..self.processes.len()).filter_map(|store| {
            let node = self.status(store, region)?.raft;
            (node.role == raft::Role::Leader).then_some((node.term, store))
        });
        leads.max().map(|(_, store)| store)
    }

    /// A region's peer on a store, if the process lives.
    pub fn status(&self, store: usize, region: u64) -> Option<RegionStatus> {
        self.processes[store].machine.as_ref()?.store.region_status(RegionId::from(region))
    }

    /// Every region on a store, if the process lives.
    pub(super) fn statuses(&self, store: usize) -> Vec<RegionStatus> {
        let machine = self.processes[store].machine.as_ref();
        machine.map_or(Vec::new(), |machine| machine.store.status().regions)
    }

    /// The stores that a region's peers are on.
    pub(super) fn homes(region: &metapb::Region) -> impl Iterator<Item = usize> {
        region.peers.iter().map(|peer| store_place(peer.store_id))
    }

    /// The peer of a region on a store, as the region stands.
    pub(super) fn peer_on(region: &metapb::Region, store: usize) -> Option<metapb::Peer> {
        let id = store_id(store).get();
        region.peers.iter().find(|peer| peer.store_id == id).copied()
    }

    /// A header for requests that name a region as it is now and nothing else.
    pub(super) fn header(&self, region: &metapb::Region) -> RequestHeader {
        RequestHeader::new(RegionId::from(region.id), region.region_epoch.unwrap_or_default())
    }

    /// The term of an entry in the log of a store, if it is there.
    pub(super) fn term_at(&self, store: usize, region: u64, index: u64) -> Option<u64> {
        let key = Key::LogEntry(RegionId::from(region), raft::LogIndex(index)).encode();
        let stored = self.processes[store].engine.get(Cf::Raft, &key).ok().flatten()?;
        eraftpb::Entry::decode(stored).ok().map(|entry| entry.term)
    }

    /// What the disk of a store says about a region.
    pub fn view(&self, store: usize, region: u64) -> StoreView {
        let id = RegionId::from(region);
        let engine = &self.processes[store].engine;
        let get = |key: Key| engine.get(Cf::Raft, &key.encode()).ok().flatten();
        let hard = get(Key::HardState(id)).and_then(|bytes| eraftpb::HardState::decode(bytes).ok());
        let hard = hard.unwrap_or_default();
        let apply = self.apply_state(store, region);
        let log = self.log_bounds(store, id);
        StoreView { term: hard.term, commit: hard.commit, apply, log }
    }

    /// How far the data of a region on a store has got.
    pub(super) fn apply_state(&self, store: usize, region: u64) -> ApplyState {
        let key = Key::ApplyState(RegionId::from(region)).encode();
        let stored = self.processes[store].engine.get(Cf::Raft, &key).ok().flatten();
        stored.and_then(|bytes| ApplyState::decode(&bytes)).unwrap_or_default()
    }

    /// The term of a region's node on a store; 0 if the process is down.
    pub(super) fn term(&self, store: usize, region: u64) -> u64 {
        self.status(store, region).map_or(0, |status| status.raft.term.0)
    }

    /// Whether a store would now serve a read by lease of the region as it knows it.
    pub(super) fn has_lease(&self, store: usize, status: &RegionStatus) -> bool {
        let (process, now) = (&self.processes[store], self.now());
        let header = self.header(&status.region);
        process.machine.as_ref().is_some_and(|machine| {
            machine.reader.read(&header, || process.clock.read(now), |_| ()).is_ok()
        })
    }

    /// The regions of which a store holds a lease.
    pub(super) fn leases(&self, store: usize) -> Vec<RegionStatus> {
        let Some(machine) = &self.processes[store].machine else { return Vec::new() };
        let led = machine.store.led_regions().filter_map(|id| machine.store.region_status(id));
        led.filter(|status| self.has_lease(store, status)).collect()
    }

    /// The index of the snapshot whose installation the store must finish, or 0.
    pub(super) fn pending_snapshot(&self, store: usize, region: u64) -> u64 {
        let key = Key::PendingSnapshot(RegionId::from(region)).encode();
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
    pub fn log(&self, store: usize, region: u64) -> Vec<Position> {
        let snapshot = self.processes[store].engine.snapshot();
        let mut iter = snapshot.iter(Cf::Raft, keys::log_range_all(RegionId::from(region)));
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
        for region in self.regions() {
            let leader = self.leader_of(region.id);
            let leader = leader.map_or("nobody".to_owned(), |at| format!("s{}", at + 1));
            let applied = self.world.region(region.id).map_or(0, |model| model.applied);
            let epoch = region.region_epoch.unwrap_or_default();
            let (conf_ver, version) = (epoch.conf_ver, epoch.version);
            let _ = write!(text, "r{} ({conf_ver},{version}) ", region.id);
            let _ = write!(text, "at {applied} led by {leader}:");
            for peer in &region.peers {
                let store = store_place(peer.store_id);
                let view = self.view(store, region.id);
                let up = if self.processes[store].is_up() { "" } else { " down" };
                let role = peer.role().as_str_name();
                let _ = write!(
                    text,
                    " s{}{up} {role} {} term {} commit {} applied {} log {:?};",
                    store + 1,
                    peer.id,
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

    /// What happened to messages so far.
    pub fn network_counts(&self) -> NetworkCounts {
        self.network.counts
    }

    /// What a store holds of the clients' data, without asking anybody.
    pub fn data(&self, store: usize) -> Vec<(Bytes, Bytes)> {
        scan(self.processes[store].engine.as_ref(), self.cf, b"", b"")
    }
}

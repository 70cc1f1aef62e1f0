//! A cluster of many regions: who leads what, writes that find their region, orders.

use bytes::Bytes;
use proto::codec::encode;
use proto::ids::{PeerId, RegionId};
use proto::metapb;
use raftstore::command::{Request, WriteResult};
use raftstore::msg::{NewRegion, SplitRequest};
use raftstore::{AdminRequest, Order, RegionError, RegionStatus, RequestHeader, StoreMsg};

use super::cluster::{Cluster, Slot, put};

/// The boundary at a user's key.
pub(crate) fn cut(key: &str) -> Bytes {
    encode(key.as_bytes())
}

pub(crate) fn contains(region: &metapb::Region, key: &str) -> bool {
    let key = key.as_bytes();
    key >= &region.start_key[..] && (region.end_key.is_empty() || key < &region.end_key[..])
}

impl Cluster {
    pub(crate) fn regions(&self, store: u64) -> Vec<RegionStatus> {
        self.nodes[store as usize - 1].store.status().regions
    }

    pub(crate) fn region(&self, store: u64, id: u64) -> Option<RegionStatus> {
        self.regions(store).into_iter().find(|status| status.region.id == id)
    }

    /// The store whose peer leads a region and serves, in its highest term.
    pub(crate) fn leader_of(&self, id: u64) -> Option<u64> {
        let running = self.nodes.iter().filter(|node| !node.down).map(|node| node.id.get());
        let leads = running.filter_map(|store| {
            let status = self.region(store, id)?;
            let raft = &status.raft;
            let serves = raft.role == raft::Role::Leader
                && raft.last_term == raft.term
                && raft.commit == raft.last_index
                && status.applied_index == raft.commit;
            serves.then_some((raft.term, store))
        });
        leads.max().map(|(_, store)| store)
    }

    /// Lets time pass until `done`.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Cluster) -> bool) {
        for _ in 0..600 {
            if done(self) {
                return;
            }
            self.tick(1);
        }
        panic!("{what} did not happen: {}", self.summary());
    }

    /// Every peer in a line, for the reader of a failed test.
    fn summary(&self) -> String {
        let mut lines = String::new();
        for store in self.stores() {
            for status in self.regions(store) {
                let RegionStatus { region, raft, applied_index, merging, .. } = status;
                let epoch = region.region_epoch.unwrap_or_default();
                lines += &format!(
                    "\nstore {store} region {} {epoch:?} [{:?}, {:?}) {:?} term {} leader {:?} \
                     applied {applied_index} commit {} last {} merging {merging}",
                    region.id,
                    region.start_key,
                    region.end_key,
                    raft.role,
                    raft.term,
                    raft.leader,
                    raft.commit,
                    raft.last_index,
                );
            }
        }
        lines
    }

    /// Lets time pass until every region that anybody knows has a leader that serves.
    pub(crate) fn until_led(&mut self) {
        self.until("an election in every region", |cluster| {
            let mut ids: Vec<_> = cluster.stores().flat_map(|s| cluster.regions(s)).collect();
            ids.retain(|status| !status.region.peers.is_empty());
            ids.iter().all(|status| cluster.leader_of(status.region.id).is_some())
        });
    }

    /// Until all stores have applied the same.
    pub(crate) fn until_equal(&mut self) {
        self.until("agreement of all stores", |cluster| {
            let of = |store| {
                let regions = cluster.regions(store).into_iter();
                let of_one = |s: RegionStatus| (s.region, s.applied_index, s.state_hash);
                regions.map(of_one).collect::<Vec<_>>()
            };
            of(1) == of(2) && of(2) == of(3)
        });
    }

    /// Whether a leader of the region has entries that it has not applied.
    pub(crate) fn has_pending(&self, id: u64) -> bool {
        self.leader_of(id).is_none()
    }

    pub(crate) fn header_of(&self, id: u64) -> RequestHeader {
        let leader = self.leader_of(id).expect("somebody leads");
        let region = self.region(leader, id).expect("it lives there").region;
        RequestHeader::new(RegionId::from(id), region.region_epoch.unwrap_or_default())
    }

    /// The region that holds a key, by those who lead.
    pub(crate) fn region_with(&self, key: &str) -> metapb::Region {
        self.try_region_with(key).expect("somebody leads the key's region")
    }

    pub(crate) fn try_region_with(&self, key: &str) -> Option<metapb::Region> {
        let statuses = self.stores().flat_map(|store| self.regions(store));
        let mut holders = statuses.filter(|status| {
            status.raft.role == raft::Role::Leader && contains(&status.region, key)
        });
        let newest = holders.by_ref().max_by_key(|s| s.region.region_epoch.map(|e| e.version));
        newest.map(|status| metapb::Region::clone(&status.region))
    }

    /// Writes wherever the key lives.
    pub(crate) fn put_anywhere(&mut self, key: &str, value: &str) {
        let outcome = self.send_anywhere(key, put(key, value));
        assert_eq!(outcome, Some(Ok(WriteResult::Applied)), "{key}");
    }

    pub(crate) fn send_anywhere(
        &mut self,
        key: &str,
        request: Request,
    ) -> Option<Result<WriteResult, RegionError>> {
        let id = self.region_with(key).id;
        let (header, leader) = (self.header_of(id), self.leader_of(id).expect("led"));
        let slot = self.write_with(leader, header, request);
        self.settle();
        slot.take()
    }

    pub(crate) fn order(&mut self, store: u64, header: RequestHeader, order: Order) -> Slot<()> {
        let (slot, reply) = Slot::new();
        self.send(store, StoreMsg::Admin(AdminRequest { header, order, reply }));
        slot
    }

    /// Gives an order to a region's leader.
    pub(crate) fn order_region(&mut self, id: u64, order: Order) -> Result<(), RegionError> {
        let (header, leader) = (self.header_of(id), self.leader_of(id).expect("led"));
        self.order(leader, header, order).take().expect("orders are answered at once")
    }

    /// Fresh ids for a request, as the scheduler gives them.
    pub(crate) fn new_ids(&mut self, request: &SplitRequest) -> Vec<NewRegion> {
        let mut next = || {
            self.last_id += 1;
            self.last_id
        };
        let peers = request.region.peers.len();
        let mut one = || NewRegion {
            region: next().into(),
            peers: (0..peers).map(|_| next().into()).collect(),
        };
        request.keys.iter().map(|_| one()).collect()
    }

    /// Answers what a store has asked the scheduler.
    pub(crate) fn answer_split_requests(&mut self, store: u64) -> Vec<u64> {
        self.settle();
        let mut ids = Vec::new();
        for request in std::mem::take(&mut self.node(store).seen.split_requests) {
            let new = self.new_ids(&request);
            ids.extend(new.iter().map(|new| new.region.get()));
            self.send(store, StoreMsg::SplitIds { request, ids: Ok(new) });
        }
        ids
    }

    /// The same, and then only so many rounds.
    pub(crate) fn answer_split_requests_by_steps(&mut self, store: u64, rounds: usize) {
        self.answer_split_requests(store);
        for _ in 0..rounds {
            self.round();
        }
    }

    /// Cuts a region and lets what follows happen. Returns the new ids.
    pub(crate) fn split(&mut self, id: u64, keys: &[&str]) -> Vec<u64> {
        let leader = self.leader_of(id).expect("led");
        let keys = keys.iter().map(|key| cut(key)).collect();
        assert_eq!(self.order_region(id, Order::Split { keys }), Ok(()));
        let ids = self.answer_split_requests(leader);
        self.settle();
        ids
    }

    pub(crate) fn move_lead_of(&mut self, id: u64, to: u64) {
        let leader = self.leader_of(id).expect("led");
        if leader != to {
            let (slot, reply) = Slot::new();
            let header = self.header_of(id);
            let region = self.region(leader, id).expect("it lives there").region;
            let peer = region.peers.iter().find(|peer| peer.store_id == to).expect("a member").id;
            let to = PeerId::from(peer);
            self.send(leader, StoreMsg::TransferLeader { header, to, reply });
            self.settle();
            assert_eq!(slot.take(), Some(Ok(())));
        }
        self.until("a transfer of the lead", |cluster| cluster.leader_of(id) == Some(to));
    }

    /// The regions of every store tile the keyspace: those with a lead, in their newest version.
    pub(crate) fn check_tiled(&self) {
        let mut regions: Vec<_> = self
            .stores()
            .flat_map(|store| self.regions(store))
            .filter(|status| status.raft.role == raft::Role::Leader)
            .map(|status| metapb::Region::clone(&status.region))
            .collect();
        regions.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        regions.dedup();
        let mut at = Bytes::new();
        for (count, region) in regions.iter().enumerate() {
            assert_eq!(region.start_key, at, "the regions leave a hole or overlap: {regions:#?}");
            at = region.end_key.clone();
            let last = count + 1 == regions.len();
            assert_eq!(at.is_empty(), last, "the last region ends the keyspace, and no other");
        }
        for store in self.stores() {
            self.check_disjoint(store);
        }
    }

    /// No two regions of a store have keys in common (I8).
    pub(crate) fn check_disjoint(&self, store: u64) {
        let mut regions: Vec<_> = self.regions(store).into_iter().map(|s| s.region).collect();
        regions.retain(|region| !region.peers.is_empty());
        regions.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        for pair in regions.windows(2) {
            let end = &pair[0].end_key;
            let apart = !end.is_empty() && *end <= pair[1].start_key;
            assert!(apart, "store {store}: regions overlap: {pair:#?}");
        }
    }
}

//! Operations carried out: what is ordered of whom, as far as it makes sense at the moment.

use super::Cluster;
use crate::sim::event::{Answer, Event};
use crate::sim::faults::Keep;
use crate::sim::layout::{store_id, store_place};
use crate::sim::operations::OperationKind;
use crate::sim::scheduler::Question;
use bytes::Bytes;
use proto::eraftpb::ConfChangeType;
use proto::flotillapb::{AddOperatorRequest, ChangeStoreRequest, add_operator_request as wish};
use proto::flotillapb::{add_operator_request::Wish, change_store_request as store_change};
use proto::metapb::{self, PeerRole};
use proto::pdpb;
use raftstore::Reply;
use raftstore::msg::{AdminRequest, Order, StoreMsg};
use std::rc::Rc;

type Region = Rc<metapb::Region>;

impl Cluster {
    /// Starts to order things.
    pub(super) fn begin_operations(&mut self) {
        if let Some(pause) = self.steward.pause() {
            self.queue.after(pause, Event::Operate);
        }
    }

    /// Orders the next thing.
    pub(super) fn operate(&mut self) {
        let Some(kind) = self.steward.draw() else { return };
        let regions = self.regions();
        let region = self.steward.rng.pick(&regions).clone();
        let now = self.now();
        self.trace.event(now, 0x500, kind as u64);
        self.trace.line(now, |line| line.push_str(&format!("ORDER {kind:?} r{}", region.id)));
        match kind {
            OperationKind::Split => self.split(&region, 1),
            OperationKind::SplitMany => self.split(&region, 3),
            OperationKind::WishSplit => {
                let split = wish::Split { region_id: region.id, keys: vec![] };
                self.wish(Wish::Split(split));
            }
            OperationKind::Merge => self.merge(&regions, &region),
            OperationKind::WishMerge => self.wish_merge(&regions, &region),
            OperationKind::AddPeer => self.add_peer(&region),
            OperationKind::Promote => self.promote(&region),
            OperationKind::RemovePeer => {
                let peer = *self.steward.rng.pick(&region.peers);
                let change = change(peer, ConfChangeType::RemoveNode);
                self.order(&region, Order::ChangePeers(vec![change]));
            }
            OperationKind::JointChange => self.joint_change(&region),
            OperationKind::WishMove => self.wish_move(&region),
            OperationKind::WishScatter => {
                let region_ids = regions.iter().map(|region| region.id).collect();
                self.wish(Wish::Scatter(wish::Scatter { region_ids }));
            }
            OperationKind::Transfer => {
                let to = *self.steward.rng.pick(&region.peers);
                self.transfer(region.id, store_place(to.store_id));
            }
            OperationKind::CheckConsistency => {
                let header = self.header(&region);
                let reply = Reply::ignored();
                self.tell_leader(region.id, StoreMsg::CheckConsistency { header, reply });
            }
            OperationKind::Idle => {
                let election = self.knobs.election_timeout();
                let span = self.steward.rng.span(election.times(4), election.times(16));
                self.idle_until = now + span;
            }
            OperationKind::Join => drop(self.join()),
            OperationKind::DrainStore => self.drain_store(),
            OperationKind::LoseStore => self.lose_store(&regions),
        }
        self.begin_operations();
    }

    fn tell_leader(&mut self, region: u64, message: StoreMsg) {
        if let Some(leader) =
            self.leader_of(region).filter(|leader| !self.processes[*leader].paused)
        {
            self.tell(leader, message);
        }
    }

    pub(super) fn order(&mut self, region: &metapb::Region, order: Order) {
        let header = self.header(region);
        let request = AdminRequest { header, order, reply: Reply::ignored() };
        self.tell_leader(region.id, StoreMsg::Admin(request));
    }

    fn wish(&mut self, wish: Wish) {
        let request = AddOperatorRequest { header: None, wish: Some(wish) };
        self.tell_scheduler(Question::Operate(Box::new(request)));
    }

    /// Asks the scheduler for something and waits for no answer.
    fn tell_scheduler(&mut self, question: Question) {
        let attempt = self.calls.next_number();
        let node = self.adviser();
        self.question(attempt, node, question);
    }

    fn split(&mut self, region: &metapb::Region, cuts_max: usize) {
        let inside = |key: &Bytes| {
            *key > region.start_key && (region.end_key.is_empty() || *key < region.end_key)
        };
        let mut cuts: Vec<Bytes> = self.layout.cuts().into_iter().filter(inside).collect();
        self.steward.rng.shuffle(&mut cuts);
        cuts.truncate(cuts_max);
        cuts.sort();
        // Far more regions than keys would be of no use.
        if !cuts.is_empty() && self.regions().len() < 10 {
            self.order(region, Order::Split { keys: cuts });
        }
    }

    fn neighbour(&mut self, regions: &[Region], region: &Region) -> Option<Region> {
        let place = regions.iter().position(|other| other.id == region.id)?;
        let right = self.steward.rng.chance(500);
        let other = if right { place + 1 } else { place.wrapping_sub(1) };
        regions.get(other).cloned()
    }

    fn merge(&mut self, regions: &[Region], region: &Region) {
        if let Some(target) = self.neighbour(regions, region) {
            self.order(region, Order::Merge { target: (*target).clone() });
        }
    }

    fn wish_merge(&mut self, regions: &[Region], region: &Region) {
        if let Some(target) = self.neighbour(regions, region) {
            let merge = wish::Merge { source_region_id: region.id, target_region_id: target.id };
            self.wish(Wish::Merge(merge));
        }
    }

    /// A member store without a peer of the region.
    fn free_store(&mut self, region: &metapb::Region) -> Option<usize> {
        let free = |store: &usize| {
            self.processes[*store].is_member() && Self::peer_on(region, *store).is_none()
        };
        let free: Vec<usize> = (0..self.places).filter(free).collect();
        (!free.is_empty()).then(|| *self.steward.rng.pick(&free))
    }

    fn add_peer(&mut self, region: &Region) {
        let Some(store) = self.free_store(region) else { return };
        let attempt = self.calls.next_number();
        self.plans.insert(attempt, (region.clone(), store));
        let node = self.adviser();
        self.question(attempt, node, Question::Ids(1));
        self.queue.after(self.knobs.election_timeout().times(2), Event::GiveUp { attempt });
    }

    /// The id for a planned peer has come.
    pub(super) fn told_ids(&mut self, attempt: u64, answer: &Answer) {
        let (Some((region, store)), Answer::Ids(id)) = (self.plans.remove(&attempt), answer) else {
            return;
        };
        self.invariants.unique.id(*id);
        let peer = metapb::Peer { id: *id, store_id: store_id(store).get(), ..Default::default() };
        let change = change(peer, ConfChangeType::AddLearnerNode);
        self.order(&region, Order::ChangePeers(vec![change]));
    }

    fn promote(&mut self, region: &metapb::Region) {
        let learner = region.peers.iter().find(|peer| peer.role() == PeerRole::Learner);
        if let Some(learner) = learner {
            let change = change(*learner, ConfChangeType::AddNode);
            self.order(region, Order::ChangePeers(vec![change]));
        }
    }

    fn joint_change(&mut self, region: &metapb::Region) {
        let of = |role: PeerRole| {
            region.peers.iter().filter(move |peer| peer.role() == role).copied().collect::<Vec<_>>()
        };
        let (voters, learners) = (of(PeerRole::Voter), of(PeerRole::Learner));
        let mut changes = Vec::new();
        if let Some(learner) = learners.first() {
            changes.push(change(*learner, ConfChangeType::AddNode));
        }
        if voters.len() > 1 {
            let demoted = *self.steward.rng.pick(&voters);
            changes.push(change(demoted, ConfChangeType::AddLearnerNode));
        }
        if changes.len() > 1 {
            self.order(region, Order::ChangePeers(changes));
        }
    }

    fn wish_move(&mut self, region: &metapb::Region) {
        let Some(to) = self.free_store(region) else { return };
        let from = self.steward.rng.pick(&region.peers).store_id;
        let (region_id, to_store_id) = (region.id, store_id(to).get());
        self.wish(Wish::MovePeer(wish::MovePeer { region_id, from_store_id: from, to_store_id }));
    }

    /// A machine that was no store becomes one.
    fn join(&mut self) -> bool {
        let Some(place) = (0..self.places).find(|place| !self.processes[*place].joined) else {
            return false;
        };
        self.processes[place].joined = true;
        self.queue.after(self.knobs.tick, Event::Fault(crate::sim::faults::Fault::Restart(place)));
        true
    }

    /// Stores that have a disk and are not being emptied.
    fn keepers(&self) -> Vec<usize> {
        let kept =
            |store: &usize| self.processes[*store].is_member() && !self.leaving.contains(store);
        (0..self.places).filter(kept).collect()
    }

    fn drain_store(&mut self) {
        let keepers = self.keepers();
        if keepers.len() > self.knobs.replicas && self.leaving.is_empty() {
            let store = *self.steward.rng.pick(&keepers);
            self.leaving.insert(store);
            let drain = store_change::Drain { cancel: false };
            let change = Some(store_change::Change::Drain(drain));
            let store_id = store_id(store).get();
            self.tell_scheduler(Question::ChangeStore(ChangeStoreRequest {
                header: None,
                store_id,
                change,
            }));
        }
    }

    /// A store is lost if every region can do without it and another one can take its place.
    fn lose_store(&mut self, regions: &[Region]) {
        let keepers = self.keepers();
        let store = *self.steward.rng.pick(&keepers);
        let joins = (0..self.places).any(|place| !self.processes[place].joined);
        let enough = keepers.len() - 1 + usize::from(joins) >= self.knobs.replicas;
        let dispensable = |region: &Region| {
            let voters = || region.peers.iter().filter(|peer| peer.role() == PeerRole::Voter);
            let joint = region
                .peers
                .iter()
                .any(|peer| !matches!(peer.role(), PeerRole::Voter | PeerRole::Learner));
            let lost = Self::homes(region).any(|home| self.processes[home].wiped);
            let others = voters().filter(|peer| store_place(peer.store_id) != store);
            let safe = |peer: &metapb::Peer| {
                let home = store_place(peer.store_id);
                self.processes[home].is_up() && !self.processes[home].paused
            };
            let kept = others.filter(|peer| safe(peer)).count();
            Self::peer_on(region, store).is_none()
                || (!joint && !lost && voters().count() >= 3 && kept * 2 > voters().count())
        };
        let frozen = regions.iter().any(|region| {
            self.world.region(region.id).is_some_and(|model| model.merging.is_some())
        });
        if !enough || frozen || !self.losses_allowed() || !regions.iter().all(dispensable) {
            return;
        }
        self.join();
        self.crash(store, Keep::None);
        self.processes[store].wipe();
        self.counts.stores_lost += 1;
        let now = self.now();
        self.trace.line(now, |line| line.push_str(&format!("s{} IS LOST", store + 1)));
        let lost = store_change::Remove { lost: true };
        let change = Some(store_change::Change::Remove(lost));
        let store_id = store_id(store).get();
        self.tell_scheduler(Question::ChangeStore(ChangeStoreRequest {
            header: None,
            store_id,
            change,
        }));
    }

    /// One store may be lost in a run: what was acknowledged by it and one other rests on that one until it is replaced.
    fn losses_allowed(&self) -> bool {
        (0..self.places).all(|place| !self.processes[place].wiped)
    }
}

fn change(peer: metapb::Peer, kind: ConfChangeType) -> pdpb::ChangePeer {
    let peer = metapb::Peer { id: peer.id, store_id: peer.store_id, ..Default::default() };
    pdpb::ChangePeer { peer: Some(peer), change_type: kind.into() }
}

//! Peers by hand, for scripts: they come, get a vote, lead, and go, as the course's stand-in for a scheduler has it.

use super::Cluster;
use crate::sim::event::{Answer, Ask, AskWhat, Event, StoreEvent};
use crate::sim::invariants::Broken;
use crate::sim::layout::store_id;
use crate::sim::time::Nanos;
use proto::eraftpb::ConfChangeType;
use proto::metapb::{self, PeerRole};
use proto::pdpb;
use raftstore::command::{Request, WriteResult};
use raftstore::error::RegionError;
use raftstore::msg::{Order, RequestHeader};

/// How often a script looks whether what it wants has come, and how long it waits in between.
const LOOKS_MAX: u32 = 500;
const LOOK_PAUSE: Nanos = Nanos::millis(10);
/// Looks between two requests for the same thing.
const LOOKS_PER_REQUEST: u32 = 5;

impl Cluster {
    /// The scheduler's node never fails and is always reached, and nobody obeys it: for scripts, which decide themselves.
    pub fn spare_the_scheduler(&mut self) {
        self.network.calm_from(self.places);
        self.obstinate = true;
    }

    /// Whether a region has a peer with a vote on a store; `None` if there is no such region any more.
    pub fn is_voter(&self, region: u64, store: usize) -> Option<bool> {
        let regions = self.regions();
        let region = regions.iter().find(|other| other.id == region)?;
        let peer = Self::peer_on(region, store);
        Some(peer.is_some_and(|peer| peer.role() == PeerRole::Voter))
    }

    /// Asks the region's leader for the next step towards a peer with a vote on a store, or towards none there.
    pub fn ask_for_peer(&mut self, region: u64, store: usize, add: bool) {
        let regions = self.regions();
        let Some(region) = regions.iter().find(|other| other.id == region).cloned() else { return };
        let changed = |peer: metapb::Peer, kind: ConfChangeType| {
            let peer = metapb::Peer { id: peer.id, store_id: peer.store_id, ..Default::default() };
            Order::ChangePeers(vec![pdpb::ChangePeer {
                peer: Some(peer),
                change_type: kind.into(),
            }])
        };
        match (Self::peer_on(&region, store), add) {
            (Some(peer), false) => self.order(&region, changed(peer, ConfChangeType::RemoveNode)),
            (Some(peer), true) => self.order(&region, changed(peer, ConfChangeType::AddNode)),
            (None, true) => {
                // Ids from the scheduler grow; so do these, which are above all of those.
                self.next_peer_id += 1;
                let store_id = store_id(store).get();
                let peer = metapb::Peer { id: self.next_peer_id, store_id, ..Default::default() };
                self.order(&region, changed(peer, ConfChangeType::AddLearnerNode));
            }
            (None, false) => {}
        }
    }

    /// Looks again and again, up to five seconds, until `holds`; now and then `request` is made.
    fn look_until(
        &mut self,
        what: &str,
        holds: impl Fn(&Cluster) -> bool,
        mut request: impl FnMut(&mut Cluster),
    ) -> Result<(), Broken> {
        for look in 0..LOOKS_MAX {
            if holds(self) {
                return Ok(());
            }
            if look % LOOKS_PER_REQUEST == 0 {
                request(self);
            }
            self.sleep(LOOK_PAUSE)?;
        }
        Err(Broken::new("request timeout", format!("{what}: {}", self.describe())))
    }

    /// The region gets a peer with a vote on the store.
    pub fn must_add_peer(&mut self, region: u64, store: usize) -> Result<(), Broken> {
        let what = format!("add a peer of region {region} on store {}", store + 1);
        let holds = |cluster: &Cluster| cluster.is_voter(region, store) == Some(true);
        self.look_until(&what, holds, |cluster| cluster.ask_for_peer(region, store, true))
    }

    /// The region has no peer on the store any more.
    pub fn must_remove_peer(&mut self, region: u64, store: usize) -> Result<(), Broken> {
        let what = format!("remove the peer of region {region} from store {}", store + 1);
        let holds = |cluster: &Cluster| {
            let regions = cluster.regions();
            let region = regions.iter().find(|other| other.id == region);
            region.is_some_and(|region| Self::peer_on(region, store).is_none())
        };
        self.look_until(&what, holds, |cluster| cluster.ask_for_peer(region, store, false))
    }

    /// The peer on the store leads the region.
    pub fn must_transfer_leader(&mut self, region: u64, store: usize) -> Result<(), Broken> {
        let what = format!("let store {} lead region {region}", store + 1);
        let holds = |cluster: &Cluster| cluster.leader_of(region) == Some(store);
        self.look_until(&what, holds, |cluster| cluster.transfer(region, store))
    }

    /// Waits up to six seconds until a store's engine holds nothing of the clients'.
    pub fn must_be_empty(&mut self, store: usize) -> Result<(), Broken> {
        for _ in 0..600 {
            if self.data(store).is_empty() {
                return Ok(());
            }
            self.sleep(LOOK_PAUSE)?;
        }
        let what = format!("store {} still holds {:?}", store + 1, self.data(store));
        Err(Broken::new("removed peers leave nothing", what))
    }

    /// Sends one write to one store and waits for its answer.
    pub fn write_directly(
        &mut self,
        store: usize,
        header: RequestHeader,
        request: Request,
    ) -> Result<Result<WriteResult, RegionError>, Broken> {
        let attempt = self.calls.next_number();
        self.direct = Some((attempt, None));
        let ask = Ask { attempt, header, lease: false, position: 0, what: AskWhat::Write(request) };
        let event = StoreEvent::Ask(ask);
        self.queue.after(Nanos::micros(100), Event::Store { store, life: None, event });
        for _ in 0..LOOKS_MAX {
            self.sleep(LOOK_PAUSE)?;
            match self.direct.take() {
                Some((_, Some(Answer::Wrote(result)))) => return Ok(Ok(result)),
                Some((_, Some(Answer::Error(error)))) => return Ok(Err(error)),
                waiting => self.direct = waiting,
            }
        }
        Err(Broken::new("request timeout", format!("store {} does not answer", store + 1)))
    }
}

//! The stores' dealings with the scheduler: what they report, and what comes of its answers.

use super::Cluster;
use crate::sim::event::{Event, StoreEvent};
use crate::sim::layout::store_id;
use crate::sim::scheduler::{Advice, Asker, Consult, Question};
use crate::sim::time::Nanos;
use proto::{metapb, pdpb};
use raftstore::Reply;
use raftstore::msg::{
    AdminRequest, Order, RegionHeartbeat, RegionQuestion, RequestHeader, SplitRequest, StoreMsg,
};

/// What a store has to say.
pub(super) enum Report {
    /// About a region it leads.
    Region(RegionHeartbeat),
    /// That it wants to split one.
    AskSplit(SplitRequest),
    /// That it has.
    Split(Vec<metapb::Region>),
    /// That a peer of its wonders.
    Question(RegionQuestion),
}

impl Cluster {
    /// A store reports; a node of the scheduler's does not.
    pub(super) fn report(&mut self, store: usize, report: Report) {
        if self.is_node(store) {
            return;
        }
        let question = match report {
            Report::Region(heartbeat) => Question::RegionHeartbeat(Box::new(request(heartbeat))),
            Report::AskSplit(request) => Question::AskSplit(request),
            Report::Split(regions) => Question::ReportSplit(regions),
            Report::Question(RegionQuestion { region, .. }) => {
                Question::WhoHolds(region.id.into(), region.start_key.clone())
            }
        };
        self.ask_scheduler(store, question);
    }

    fn ask_scheduler(&mut self, store: usize, question: Question) {
        let nodes = self.nodes();
        if nodes.is_empty() {
            return;
        }
        let known = self.processes[store].adviser.filter(|node| nodes.contains(node));
        let node = known.unwrap_or(nodes.start);
        let consult = Consult { from: Asker::Store(store), question };
        for at in self.network.deliveries(self.now(), store, node) {
            let event = StoreEvent::Consult(Box::new(consult.clone()));
            self.queue.at(at, Event::Store { store: node, life: None, event });
        }
    }

    /// The scheduler's answer reaches a store.
    pub(super) fn advised(&mut self, store: usize, advice: Advice) {
        match advice {
            Advice::Redirect(hint) => {
                let nodes = self.nodes();
                let count = nodes.len();
                let last = self.processes[store].adviser.unwrap_or(nodes.start);
                let next = nodes.start + (last + 1 - nodes.start) % count;
                self.processes[store].adviser = Some(hint.unwrap_or(next));
            }
            Advice::Registered => self.processes[store].registered = true,
            Advice::SplitIds(request, ids) => self.tell(store, StoreMsg::SplitIds { request, ids }),
            Advice::Holder(asked, holder) => {
                self.tell(store, StoreMsg::RegionAnswer { asked, holder });
            }
            Advice::Instruction(response) => {
                self.counts.instructions += 1;
                let now = self.now();
                self.trace.line(now, |line| {
                    let what =
                        (&response.change_peer_v2, &response.transfer_leader, &response.merge);
                    line.push_str(&format!(
                        "s{} INSTRUCTED r{} {what:?}",
                        store + 1,
                        response.region_id
                    ));
                });
                if self.obstinate {
                    return;
                }
                if let Some(message) = order(*response) {
                    self.tell(store, message);
                }
            }
        }
    }

    /// A store tells that it lives, again and again; until it is known, also who it is.
    pub(super) fn store_heartbeat(&mut self, store: usize) {
        let pause = Nanos(self.knobs.election_timeout().0 / 2);
        self.schedule(store, pause, StoreEvent::Heartbeat);
        if !self.processes[store].registered {
            let meta = metapb::Store {
                id: store_id(store).get(),
                address: format!("store{}:20160", store + 1),
                ..Default::default()
            };
            self.ask_scheduler(store, Question::Register(meta));
        }
        let regions = self.statuses(store).len() as u32;
        let used: u64 =
            self.data(store).iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        let capacity = 1 << 30;
        let stats = pdpb::StoreStats {
            store_id: store_id(store).get(),
            capacity,
            available: capacity - used,
            used_size: used,
            region_count: regions,
            ..Default::default()
        };
        self.ask_scheduler(store, Question::StoreHeartbeat(stats));
    }
}

/// A report as it goes over the wire.
fn request(heartbeat: RegionHeartbeat) -> pdpb::RegionHeartbeatRequest {
    let down = |(peer, down_seconds): (metapb::Peer, u64)| pdpb::PeerStats {
        peer: Some(peer),
        down_seconds,
    };
    pdpb::RegionHeartbeatRequest {
        header: None,
        region: Some((*heartbeat.region).clone()),
        leader: Some(heartbeat.leader),
        down_peers: heartbeat.down_peers.into_iter().map(down).collect(),
        pending_peers: heartbeat.pending_peers,
        bytes_written: heartbeat.flow.bytes_written,
        bytes_read: heartbeat.flow.bytes_read,
        keys_written: heartbeat.flow.keys_written,
        keys_read: heartbeat.flow.keys_read,
        approximate_size: heartbeat.approximate_bytes,
        interval: None,
        approximate_keys: heartbeat.approximate_keys,
        term: heartbeat.term.0,
    }
}

/// The order to the store's loop that an instruction stands for.
fn order(response: pdpb::RegionHeartbeatResponse) -> Option<StoreMsg> {
    let epoch = response.region_epoch.unwrap_or_default();
    let mut header = RequestHeader::new(response.region_id.into(), epoch);
    header.peer = response.target_peer.map(|peer| peer.id.into());
    let reply = Reply::ignored();
    if let Some(transfer) = response.transfer_leader {
        let to = transfer.peer?.id.into();
        return Some(StoreMsg::TransferLeader { header, to, reply });
    }
    let order = if let Some(changes) = response.change_peer_v2 {
        Order::ChangePeers(changes.changes)
    } else if let Some(change) = response.change_peer {
        Order::ChangePeers(vec![change])
    } else if let Some(split) = response.split_region {
        Order::Split { keys: split.keys }
    } else {
        Order::Merge { target: response.merge?.target? }
    };
    Some(StoreMsg::Admin(AdminRequest { header, order, reply }))
}

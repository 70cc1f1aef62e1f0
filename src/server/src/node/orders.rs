//! What the scheduler asks of a region, as orders to the store.
//!
//! Every order names the epoch that it was decided on; the store refuses it for any other. A refusal is logged and nothing
//! else: the scheduler sees in the next report what has become of the region, and decides anew.

use bytes::Bytes;
use proto::pdpb::{ChangePeerV2, RegionHeartbeatResponse};
use raftstore::worker::Router;
use raftstore::{AdminRequest, Order, RegionError, Reply, RequestHeader, StoreMsg};

/// One order of the scheduler.
#[derive(Debug, PartialEq)]
enum Wish {
    TransferLeader { to: u64 },
    Order(Order),
}

/// Passes an order on to the region that it is for.
pub(super) fn obey(answer: RegionHeartbeatResponse, router: &Router, log: &slog::Logger) {
    let region_id = answer.region_id;
    let header = RequestHeader {
        // The leader that the scheduler knew; another peer of ours must not act on its behalf.
        peer: answer.target_peer.map(|peer| peer.id.into()).filter(|_| has_target(&answer)),
        ..RequestHeader::new(region_id.into(), answer.region_epoch.unwrap_or_default())
    };
    let Some(wish) = wish(answer) else {
        slog::warn!(log, "the scheduler asks for something unknown"; "region_id" => region_id);
        return;
    };
    slog::debug!(log, "ordered by the scheduler";
        "region_id" => region_id, "order" => format!("{wish:?}"));
    let log = log.clone();
    let reply = Reply::new(move |outcome: Result<(), RegionError>| match outcome {
        Ok(()) => slog::info!(log, "order accepted"; "region_id" => region_id),
        Err(error) => {
            // Often only too early: the scheduler repeats what is not done.
            slog::debug!(log, "order refused"; "region_id" => region_id, "reason" => %error);
        }
    });
    // A store that has stopped has answered the reply.
    let _ = router.send(match wish {
        Wish::TransferLeader { to } => StoreMsg::TransferLeader { header, to: to.into(), reply },
        Wish::Order(order) => StoreMsg::Admin(AdminRequest { header, order, reply }),
    });
}

fn has_target(answer: &RegionHeartbeatResponse) -> bool {
    answer.target_peer.is_some_and(|peer| peer.id != 0)
}

/// The one thing that is asked for; `None` for something this version does not know.
fn wish(answer: RegionHeartbeatResponse) -> Option<Wish> {
    if let Some(ChangePeerV2 { changes }) = answer.change_peer_v2 {
        return Some(Wish::Order(Order::ChangePeers(changes)));
    }
    if let Some(change) = answer.change_peer {
        return Some(Wish::Order(Order::ChangePeers(vec![change])));
    }
    if let Some(transfer) = answer.transfer_leader {
        let to = transfer.peer.or_else(|| transfer.peers.first().copied())?;
        return Some(Wish::TransferLeader { to: to.id });
    }
    if let Some(merge) = answer.merge {
        return Some(Wish::Order(Order::Merge { target: merge.target? }));
    }
    let split = answer.split_region?;
    let mut keys: Vec<Bytes> = split.keys;
    keys.sort_unstable();
    Some(Wish::Order(Order::Split { keys }))
}

#[cfg(test)]
mod tests {
    use proto::eraftpb::ConfChangeType;
    use proto::metapb::{Peer, Region};
    use proto::pdpb::{ChangePeer, Merge, SplitRegion, TransferLeader};

    use super::*;

    fn answer() -> RegionHeartbeatResponse {
        RegionHeartbeatResponse { region_id: 7, ..RegionHeartbeatResponse::default() }
    }

    #[test]
    fn every_instruction_becomes_its_order() {
        let peer = Peer { id: 3, store_id: 2, ..Peer::default() };
        let change =
            ChangePeer { peer: Some(peer), change_type: ConfChangeType::AddLearnerNode as i32 };
        let one = RegionHeartbeatResponse { change_peer: Some(change), ..answer() };
        assert_eq!(wish(one), Some(Wish::Order(Order::ChangePeers(vec![change]))));
        let changes = vec![change, change];
        let joint = Some(ChangePeerV2 { changes: changes.clone() });
        let joint = RegionHeartbeatResponse { change_peer_v2: joint, ..answer() };
        assert_eq!(wish(joint), Some(Wish::Order(Order::ChangePeers(changes))));
        let leave = Some(ChangePeerV2::default());
        let leave = RegionHeartbeatResponse { change_peer_v2: leave, ..answer() };
        assert_eq!(wish(leave), Some(Wish::Order(Order::ChangePeers(vec![]))));
        let transfer = Some(TransferLeader { peer: Some(peer), peers: vec![] });
        let transfer = RegionHeartbeatResponse { transfer_leader: transfer, ..answer() };
        assert_eq!(wish(transfer), Some(Wish::TransferLeader { to: 3 }));
        let target = Region { id: 8, ..Region::default() };
        let merge = Some(Merge { target: Some(target.clone()) });
        let merge = RegionHeartbeatResponse { merge, ..answer() };
        assert_eq!(wish(merge), Some(Wish::Order(Order::Merge { target })));
        let (m, z) = (Bytes::from_static(b"m"), Bytes::from_static(b"z"));
        let split = SplitRegion { keys: vec![z.clone(), m.clone()], ..SplitRegion::default() };
        let split = RegionHeartbeatResponse { split_region: Some(split), ..answer() };
        assert_eq!(wish(split), Some(Wish::Order(Order::Split { keys: vec![m, z] })));
    }

    #[test]
    fn what_is_incomplete_or_unknown_is_no_order() {
        assert_eq!(wish(answer()), None);
        let merge = RegionHeartbeatResponse { merge: Some(Merge::default()), ..answer() };
        assert_eq!(wish(merge), None);
        let transfer = Some(TransferLeader::default());
        let transfer = RegionHeartbeatResponse { transfer_leader: transfer, ..answer() };
        assert_eq!(wish(transfer), None);
    }
}

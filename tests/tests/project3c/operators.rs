//! Operators step by step: what is told to whom, when a step counts as done, who gives way, what a new
//! scheduler remembers. Counterparts of the course's tests of its coordinator, controller and checkers.

use proto::eraftpb::ConfChangeType;
use proto::flotillapb::add_operator_request::{Merge, MovePeer, TransferLeader, Wish};
use proto::flotillapb::{AddOperatorRequest, BalanceRequest, OperatorState};
use proto::metapb::PeerRole;
use proto::pdpb::{self, RegionHeartbeatResponse};
use scheduler::core::{Error, RegionInfo};

use super::fixture::{Cluster, MIB, peer, region};

fn wish(cluster: &mut Cluster, wish: Wish) -> Result<u64, Error> {
    let request = AddOperatorRequest { wish: Some(wish), ..Default::default() };
    let (change, response) = cluster.core.add_operator(request, cluster.now_ms)?;
    cluster.commit(change);
    Ok(response.operators[0].operator_id)
}

fn move_peer(region_id: u64, from_store_id: u64, to_store_id: u64) -> Wish {
    Wish::MovePeer(MovePeer { region_id, from_store_id, to_store_id })
}

/// Four stores and one region on the first three; nothing moves by itself.
fn quiet() -> (Cluster, RegionInfo) {
    let mut cluster = Cluster::new(4);
    pause(&mut cluster, 1, "");
    let info = RegionInfo { approximate_size: 20 * MIB, ..region(1, ("", ""), (1, 1), &[1, 2, 3]) };
    cluster.heartbeat(info.clone()).unwrap();
    cluster.run(5);
    assert!(cluster.operators().is_empty());
    (cluster, info)
}

fn pause(cluster: &mut Cluster, action: i32, balancer: &str) {
    let request = BalanceRequest { action, balancer: balancer.into(), ..Default::default() };
    let (change, _) = cluster.core.balance(&request, cluster.now_ms).unwrap();
    cluster.commit(change);
}

/// What is told, as kind and stores.
fn read(told: &RegionHeartbeatResponse) -> Vec<(ConfChangeType, u64)> {
    let changes = &told.change_peer_v2.as_ref().expect("a change of peers").changes;
    changes.iter().map(|change| (change.change_type(), change.peer.unwrap().store_id)).collect()
}

fn bump(info: &mut RegionInfo) {
    info.meta.region_epoch.as_mut().unwrap().conf_ver += 1;
}

#[test]
fn a_move_is_dispatched_step_by_step() {
    let (mut cluster, mut info) = quiet();
    let id = wish(&mut cluster, move_peer(1, 2, 4)).unwrap();
    let told = cluster.heartbeat(info.clone()).unwrap().unwrap();
    assert_eq!(read(&told), [(ConfChangeType::AddLearnerNode, 4)]);
    assert_eq!(told.target_peer, info.leader);
    assert_eq!(told.region_epoch, info.meta.region_epoch);
    // Told once; again only if nothing comes of it.
    assert_eq!(cluster.heartbeat(info.clone()).unwrap(), None);
    let again: Vec<_> = (0..25).flat_map(|_| cluster.tick()).collect();
    assert_eq!(again, std::slice::from_ref(&told));

    let mut learner = told.change_peer_v2.unwrap().changes[0].peer.unwrap();
    assert_eq!(learner.role(), PeerRole::Learner);
    info.meta.peers.push(learner);
    info.pending_peers = vec![learner];
    bump(&mut info);
    // It does not count before it has caught up.
    assert_eq!(cluster.heartbeat(info.clone()).unwrap(), None);
    info.pending_peers.clear();
    let told = cluster.heartbeat(info.clone()).unwrap().unwrap();
    assert_eq!(read(&told), [(ConfChangeType::AddNode, 4), (ConfChangeType::AddLearnerNode, 2)]);

    learner.set_role(PeerRole::IncomingVoter);
    info.meta.peers[3] = learner;
    info.meta.peers[1].set_role(PeerRole::DemotingVoter);
    bump(&mut info);
    assert_eq!(read(&cluster.heartbeat(info.clone()).unwrap().unwrap()), []);

    info.meta.peers[3].set_role(PeerRole::Voter);
    info.meta.peers[1].set_role(PeerRole::Learner);
    bump(&mut info);
    let told = cluster.heartbeat(info.clone()).unwrap().unwrap();
    assert_eq!(read(&told), [(ConfChangeType::RemoveNode, 2)]);

    info.meta.peers.remove(1);
    bump(&mut info);
    assert_eq!(cluster.heartbeat(info).unwrap(), None);
    assert!(cluster.operators().is_empty());
    let ended = &cluster.ended()[0];
    assert_eq!((ended.operator_id, ended.state()), (id, OperatorState::Finished));
}

#[test]
fn a_transfer_goes_to_whoever_leads_now() {
    let (mut cluster, mut info) = quiet();
    wish(&mut cluster, Wish::TransferLeader(TransferLeader { region_id: 1, to_store_id: 3 }))
        .unwrap();
    let told = cluster.tick();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].target_peer.unwrap().store_id, 1);
    assert_eq!(told[0].transfer_leader.as_ref().unwrap().peer.unwrap().store_id, 3);
    // The lead went elsewhere: the new leader hears of it.
    info.leader = Some(info.meta.peers[1]);
    info.term += 1;
    cluster.heartbeat(info.clone()).unwrap();
    let told: Vec<_> = (0..25).flat_map(|_| cluster.tick()).collect();
    assert_eq!(told[0].target_peer.unwrap().store_id, 2);
    info.leader = Some(info.meta.peers[2]);
    info.term += 1;
    cluster.heartbeat(info).unwrap();
    assert_eq!(cluster.ended()[0].state(), OperatorState::Finished);
}

#[test]
fn an_instruction_carries_the_newest_epoch_and_an_old_report_gets_none() {
    let (mut cluster, mut info) = quiet();
    wish(&mut cluster, move_peer(1, 2, 4)).unwrap();
    let old = info.clone();
    // The region was cut meanwhile: its peers are the same, so the move goes on.
    info.meta.region_epoch.as_mut().unwrap().version += 1;
    info.meta.end_key = super::fixture::key("m");
    let told = cluster.heartbeat(info.clone()).unwrap().unwrap();
    assert_eq!(told.region_epoch, info.meta.region_epoch);
    assert!(matches!(cluster.heartbeat(old), Err(Error::RegionStale { .. })));
    // Its peers were changed by another: the move is off.
    info.meta.region_epoch.as_mut().unwrap().conf_ver += 2;
    assert_eq!(cluster.heartbeat(info).unwrap(), None);
    assert_eq!(cluster.ended()[0].state(), OperatorState::Overtaken);
}

#[test]
fn one_operator_per_region_and_somebodys_wish_comes_first() {
    let (mut cluster, mut info) = quiet();
    wish(&mut cluster, move_peer(1, 2, 4)).unwrap();
    let second = wish(&mut cluster, move_peer(1, 3, 4)).unwrap_err().to_string();
    assert!(second.contains("under way"), "{second}");
    cluster.cancel(1);
    // A repair that is under way gives way to a wish.
    info.meta.peers.pop();
    bump(&mut info);
    cluster.heartbeat(info).unwrap();
    assert_eq!(cluster.operators()[0].origin, "add-replica");
    wish(&mut cluster, Wish::TransferLeader(TransferLeader { region_id: 1, to_store_id: 2 }))
        .unwrap();
    assert_eq!(cluster.operators().len(), 1);
    assert_eq!(cluster.operators()[0].origin, "admin");
    assert_eq!(cluster.ended()[0].state(), OperatorState::Cancelled);
}

#[test]
fn too_few_and_too_many_replicas_are_put_right() {
    let (mut cluster, mut info) = quiet();
    // Down to two: a third on the store that holds least.
    let gone = info.meta.peers.pop().unwrap();
    bump(&mut info);
    let told = cluster.heartbeat(info.clone()).unwrap().unwrap();
    assert_eq!(read(&told).len(), 1);
    assert_eq!(read(&told)[0].0, ConfChangeType::AddLearnerNode);
    cluster.cancel(1);
    // Up to four: the one that leads is not the one that goes.
    info.meta.peers.push(gone);
    info.meta.peers.push(peer(77, 4));
    bump(&mut info);
    let told = cluster.heartbeat(info.clone()).unwrap().unwrap();
    let [(ConfChangeType::RemoveNode, store)] = read(&told)[..] else { panic!("{told:?}") };
    assert_ne!(store, 1);
    cluster.cancel(1);
    // Rather one that is down.
    info.down_peers = vec![pdpb::PeerStats { peer: Some(info.meta.peers[1]), down_seconds: 60 }];
    let told = cluster.heartbeat(info).unwrap().unwrap();
    assert_eq!(read(&told), [(ConfChangeType::RemoveNode, 2)]);
}

#[test]
fn peers_of_lost_and_leaving_stores_are_replaced() {
    let (mut cluster, info) = quiet();
    // Down for less than half an hour: it may come back.
    let mut down = info.clone();
    down.down_peers = vec![pdpb::PeerStats { peer: Some(info.meta.peers[2]), down_seconds: 1799 }];
    assert_eq!(cluster.heartbeat(down.clone()).unwrap(), None);
    down.down_peers[0].down_seconds = 1800;
    cluster.heartbeat(down).unwrap().unwrap();
    assert_eq!(cluster.operators()[0].origin, "replace-down-peer");
    assert_eq!(cluster.operators()[0].description, "replace the peer on store 3 by one on store 4");
    cluster.cancel(1);
    cluster.heartbeat(info).unwrap();

    let drain = proto::flotillapb::ChangeStoreRequest {
        store_id: 1,
        change: Some(proto::flotillapb::change_store_request::Change::Drain(Default::default())),
        ..Default::default()
    };
    let (change, _) = cluster.core.change_store(drain, cluster.now_ms).unwrap();
    cluster.commit(change);
    cluster.tick();
    let operator = &cluster.operators()[0];
    assert_eq!(operator.origin, "drain-store");
    // It leads: the lead leaves before the peer does.
    assert!(operator.steps[1].starts_with("transfer leader"), "{:?}", operator.steps);
}

#[test]
fn nothing_is_decided_before_four_of_five_regions_have_reported() {
    let mut cluster = Cluster::new(3);
    let bound = |at: u64| if at == 0 || at == 10 { String::new() } else { at.to_string() };
    let part = |at: u64| region(at + 1, (&bound(at), &bound(at + 1)), (1, 1), &[1, 2]);
    for at in 0..10 {
        cluster.heartbeat(part(at)).unwrap();
    }
    let mut cluster = cluster.restart();
    assert_eq!(cluster.core.region_count(), 10, "the journal has them");
    cluster.run(5);
    for at in 0..7 {
        cluster.heartbeat(part(at)).unwrap();
        cluster.run(2);
        assert!(cluster.operators().is_empty(), "after {} reports", at + 1);
    }
    cluster.heartbeat(part(7)).unwrap();
    cluster.run(2);
    assert!(!cluster.operators().is_empty());
}

#[test]
fn a_new_scheduler_knows_stores_settings_and_pauses_and_has_no_operators() {
    let (mut cluster, info) = quiet();
    cluster.set("max_replicas", 5);
    wish(&mut cluster, move_peer(1, 2, 4)).unwrap();
    let mut cluster = cluster.restart();
    assert_eq!(cluster.core.stores().count(), 4);
    let (_, settings) = cluster.core.configure(&Default::default()).unwrap();
    assert_eq!(settings.items[0].value, "5");
    let (_, balance) = cluster.core.balance(&Default::default(), cluster.now_ms).unwrap();
    assert!(balance.balancers.iter().all(|balancer| balancer.paused));
    assert!(cluster.operators().is_empty());
    // The first that is told to the region rests on what it is now.
    let told = cluster.heartbeat(info).unwrap().unwrap();
    assert_eq!(read(&told), [(ConfChangeType::AddLearnerNode, 4)]);
    assert_eq!(cluster.operators()[0].origin, "add-replica");
}

#[test]
fn a_balancer_that_finds_nothing_looks_less_and_less_often() {
    let (mut cluster, _) = quiet();
    pause(&mut cluster, 2, "");
    // Several rounds without work.
    cluster.run(600);
    let view = |cluster: &mut Cluster| {
        let request = BalanceRequest { balancer: "balance-leader".into(), ..Default::default() };
        let (_, shown) = cluster.core.balance(&request, cluster.now_ms).unwrap();
        shown.balancers[0].view.clone()
    };
    assert_eq!(view(&mut cluster), "leader counts 1, 0, 0, 0");
    // What changes now is seen within five seconds, but not in the next tick every time.
    let mut seen_after = Vec::new();
    for round in 0..6 {
        let mut info = region(1, ("", ""), (1, 1), &[1, 2, 3]);
        info.approximate_size = 20 * MIB;
        info.term = 2 + round;
        info.leader = Some(info.meta.peers[((round + 1) % 3) as usize]);
        cluster.heartbeat(info).unwrap();
        let before = view(&mut cluster);
        let ticks = (1..=60).find(|_| {
            cluster.tick();
            view(&mut cluster) != before
        });
        seen_after.push(ticks.expect("within six seconds"));
    }
    assert!(seen_after.iter().any(|ticks| *ticks > 20), "{seen_after:?}");
}

#[test]
fn an_unknown_stores_heartbeat_is_an_error() {
    let mut cluster = Cluster::new(1);
    let stats = pdpb::StoreStats { store_id: 9, ..Default::default() };
    let refused = cluster.core.store_heartbeat(stats, cluster.now_ms);
    assert_eq!(refused, Err(Error::StoreUnknown(9.into())));
}

#[test]
fn a_merge_brings_the_peers_together_first_and_ends_with_the_source() {
    let mut cluster = Cluster::new(4);
    pause(&mut cluster, 1, "");
    let mut source = region(1, ("", "m"), (1, 1), &[1, 2, 3]);
    let mut target = region(2, ("m", ""), (1, 1), &[1, 2, 4]);
    cluster.heartbeat(source.clone()).unwrap();
    cluster.heartbeat(target.clone()).unwrap();
    let id = wish(&mut cluster, Wish::Merge(Merge { source_region_id: 1, target_region_id: 2 }))
        .unwrap();
    let operator = cluster.operators()[0].clone();
    assert_eq!(operator.steps.last().unwrap(), "merge into region 2");
    // The target stands still, too.
    assert!(wish(&mut cluster, move_peer(2, 1, 3)).unwrap_err().to_string().contains("under way"));

    let told = cluster.heartbeat(source.clone()).unwrap().unwrap();
    let [(ConfChangeType::AddLearnerNode, 4)] = read(&told)[..] else { panic!("{told:?}") };
    // All the changes at once, as if reports had been lost.
    source.meta.peers[2] = told.change_peer_v2.unwrap().changes[0].peer.unwrap();
    source.meta.peers[2].set_role(PeerRole::Voter);
    source.meta.region_epoch.as_mut().unwrap().conf_ver += 4;
    let told = cluster.heartbeat(source.clone()).unwrap().unwrap();
    assert_eq!(told.merge.unwrap().target.unwrap(), target.meta);
    // The target's leader is told nothing.
    assert_eq!(cluster.heartbeat(target.clone()).unwrap(), None);
    // Frozen, then taken over.
    let epoch = source.meta.region_epoch.as_mut().unwrap();
    (epoch.conf_ver, epoch.version) = (epoch.conf_ver + 1, 1001);
    cluster.heartbeat(source).unwrap();
    assert_eq!(cluster.operators()[0].operator_id, id);
    target.meta.start_key = Default::default();
    target.meta.region_epoch.as_mut().unwrap().version = 1002;
    cluster.heartbeat(target).unwrap();
    assert_eq!(
        (cluster.ended()[0].operator_id, cluster.ended()[0].state()),
        (id, OperatorState::Finished)
    );
    assert_eq!(cluster.core.region_count(), 1);
}

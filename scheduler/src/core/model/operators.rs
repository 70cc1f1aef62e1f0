//! Operators that are overtaken, time out, give way, or are forgotten half way.

use proto::flotillapb::add_operator_request::{MovePeer, TransferLeader, Wish};
use proto::flotillapb::{AddOperatorRequest, BalanceRequest, OperatorState};
use proto::metapb::{self, PeerRole};

use super::super::{Config, Scheduler};
use super::Model;

/// Four stores, three regions on the first three, balancers paused.
fn model() -> Model {
    let mut model = Model::new(4);
    model.lay(&vec![vec![1, 2, 3]; 3], 20 << 20);
    let pause = BalanceRequest { action: 1, ..Default::default() };
    let (change, _) = model.core.balance(&pause, model.now_ms).unwrap();
    model.core.apply(change, model.now_ms);
    model.run(2);
    model
}

fn wish(model: &mut Model, wish: Wish) -> u64 {
    let request = AddOperatorRequest { wish: Some(wish), ..Default::default() };
    let (change, response) = model.core.add_operator(request, model.now_ms).unwrap();
    assert!(change.is_empty(), "operators are not remembered");
    response.operators[0].operator_id
}

fn move_one(model: &mut Model) -> u64 {
    wish(model, Wish::MovePeer(MovePeer { region_id: 1, from_store_id: 1, to_store_id: 4 }))
}

fn ended(model: &Model, id: u64) -> (OperatorState, String) {
    let found = model.operators_that_ended().into_iter().find(|ended| ended.operator_id == id);
    let found = found.expect("it ended");
    (found.state(), found.reason)
}

#[test]
fn an_operator_is_overtaken_by_a_change_it_does_not_explain() {
    let mut model = model();
    let id = move_one(&mut model);
    let epoch = model.groups.get_mut(&1).unwrap().meta.region_epoch.as_mut().unwrap();
    epoch.conf_ver += 2;
    model.run(2);
    let (state, reason) = ended(&model, id);
    assert_eq!(state, OperatorState::Overtaken, "{reason}");
    assert!(reason.contains("conf_ver 3 after 1, 1 explained"), "{reason}");
}

#[test]
fn an_operator_ends_when_its_store_dies_and_what_it_left_is_tidied_up() {
    let mut model = model();
    model.lag = 100_000;
    let id = move_one(&mut model);
    model.run(2);
    assert_eq!(model.groups[&1].meta.peers.len(), 4, "the learner waits for its data");
    assert_eq!(model.groups[&1].meta.peers[3].role(), PeerRole::Learner);
    model.alive.remove(&4);
    model.run(40);
    assert_eq!(ended(&model, id), (OperatorState::Cancelled, "store 4 is down".into()));
    model.settle(60);
    model.assert_sound(3);
}

#[test]
fn a_pending_peer_holds_its_operator_back_and_time_ends_it() {
    let mut model = model();
    model.lag = 100_000;
    let id = move_one(&mut model);
    model.run(590);
    let running: Vec<_> = model.core.agenda.operators.running().map(|running| running.id).collect();
    assert_eq!(running, [id], "it waits");
    model.run(20);
    let (state, reason) = ended(&model, id);
    assert_eq!(state, OperatorState::TimedOut);
    assert!(reason.starts_with("not done after 600 s: add learner"), "{reason}");
    model.lag = 2;
    model.settle(60);
    model.assert_sound(3);
}

#[test]
fn a_transfer_has_ten_seconds() {
    let mut model = model();
    let heir = model.groups[&2].meta.peers[1];
    let id = wish(
        &mut model,
        Wish::TransferLeader(TransferLeader { region_id: 2, to_store_id: heir.store_id }),
    );
    // It falls behind now, and no one tells the scheduler.
    model.groups.get_mut(&2).unwrap().pending.insert(heir.id, 100_000);
    model.run(12);
    assert_eq!(ended(&model, id).0, OperatorState::TimedOut);
}

#[test]
fn the_lead_that_comes_back_to_a_peer_on_its_way_out_is_sent_on() {
    let mut model = model();
    model.lag = 30;
    let id = move_one(&mut model);
    // The lead has left store 1, and returns while the new peer learns.
    for _ in 0..60 {
        model.run(1);
        let group = model.groups.get_mut(&1).unwrap();
        if let Some(first) = group.meta.peers.iter().find(|peer| peer.store_id == 1)
            && first.role() == PeerRole::Voter
        {
            group.leader = first.id;
        }
    }
    model.settle(100);
    assert_eq!(ended(&model, id).0, OperatorState::Finished);
    model.assert_sound(3);
}

#[test]
fn a_merge_that_its_stores_gave_up_is_not_told_again() {
    let mut model = model();
    // The stores freeze the source and then roll back, whatever the target does.
    model.refuses_merges = true;
    let id = wish(
        &mut model,
        Wish::Merge(proto::flotillapb::add_operator_request::Merge {
            source_region_id: 1,
            target_region_id: 2,
        }),
    );
    let version = |model: &Model| model.groups[&1].meta.region_epoch.unwrap().version;
    model.run(1);
    assert_eq!(version(&model), 1001, "frozen");
    model.run(20);
    assert_eq!(version(&model), 1001, "told once");
    model.groups.get_mut(&1).unwrap().meta.region_epoch.as_mut().unwrap().version += 1;
    model.run(2);
    let (state, reason) = ended(&model, id);
    assert_eq!(
        (state, reason.as_str()),
        (OperatorState::Cancelled, "the stores gave the merge up")
    );
    model.run(30);
    assert_eq!(version(&model), 1002);
}

#[test]
fn history_keeps_the_last_ones_only() {
    let mut model = model();
    for turn in 0..300 {
        let to_store_id = 2 + turn % 2;
        wish(&mut model, Wish::TransferLeader(TransferLeader { region_id: 1, to_store_id }));
        model.settle(60);
        model.groups.get_mut(&1).unwrap().leader = model.groups[&1].meta.peers[0].id;
        model.heartbeat(1);
        if turn == 270 {
            break;
        }
    }
    let ended = model.operators_that_ended();
    assert_eq!(ended.len(), 256);
    assert!(ended.is_sorted_by(|a, b| a.operator_id > b.operator_id), "newest first");
}

#[test]
fn what_somebody_asks_for_comes_before_what_a_balancer_wants() {
    let mut model = Model::new(4);
    model.lag = 1000;
    model.lay(&vec![vec![1, 2, 3]; 4], 20 << 20);
    model.run(3);
    let busy: Vec<_> = model
        .core
        .agenda
        .operators
        .running()
        .filter(|operator| operator.plan.origin == "balance-region")
        .map(|operator| (operator.id, operator.plan.region))
        .collect();
    let (id, region) = busy[0];
    let leads = model.groups[&region.get()].clone();
    let to = leads.meta.peers.iter().find(|peer| peer.id != leads.leader && peer.store_id != 4);
    let to_store_id = to.unwrap().store_id;
    wish(&mut model, Wish::TransferLeader(TransferLeader { region_id: region.get(), to_store_id }));
    let (state, reason) = ended(&model, id);
    assert_eq!(state, OperatorState::Cancelled);
    assert!(reason.starts_with("gives way"), "{reason}");
}

#[test]
fn a_new_scheduler_finishes_what_an_old_one_left_half_done() {
    for steps in 1..12 {
        let mut model = model();
        move_one(&mut model);
        for _ in 0..steps {
            model.step();
        }
        // A new leader knows what the journal knows: here, the stores.
        let mut records = vec![super::super::Record::Format(1), super::super::Record::ClusterId(7)];
        records.push(super::super::Record::IdWindow(50_000));
        records.extend(
            model.core.stores().map(|store| super::super::Record::Store(store.meta.clone())),
        );
        let (core, change) = Scheduler::open(Config::default(), records, 7, model.now_ms).unwrap();
        model.core = core;
        model.core.apply(change, model.now_ms);
        model.settle(100);
        model.assert_sound(3);
    }
}

#[test]
fn a_learner_or_joint_membership_of_unknown_origin_is_repaired() {
    let mut model = model();
    let group = model.groups.get_mut(&3).unwrap();
    let mut stray = metapb::Peer { id: 424_242, store_id: 4, ..Default::default() };
    stray.set_role(PeerRole::Learner);
    group.meta.peers.push(stray);
    group.meta.peers[0].set_role(PeerRole::DemotingVoter);
    group.leader = group.meta.peers[1].id;
    model.settle(100);
    model.assert_sound(3);
    let origins: Vec<_> =
        model.operators_that_ended().into_iter().map(|ended| ended.origin).collect();
    assert!(origins.contains(&"leave-joint".to_owned()), "{origins:?}");
}

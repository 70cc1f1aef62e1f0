//! What people ask for and do not get, each with its reason.

use bytes::Bytes;
use proto::codec;
use proto::flotillapb::add_operator_request::{self as add, Wish};
use proto::flotillapb::change_store_request::{Change, Drain, Label, Remove, Replace};
use proto::flotillapb::{
    AddOperatorRequest, BalanceRequest, CancelOperatorRequest, ChangeStoreRequest, ConfigItem,
    ConfigRequest, ListRegionsRequest, ListStoresRequest, OperatorState,
};
use proto::metapb::{self, PeerRole};

use super::super::{Error, sentinel};
use super::Model;

/// Five regions on stores 1 to 3 of five; store 4 is dead, store 5 empty; all have reported.
fn model() -> Model {
    let mut model = Model::new(5);
    model.lay(&vec![vec![1, 2, 3]; 5], 20 << 20);
    model.groups.get_mut(&4).unwrap().meta.end_key = sentinel();
    model.groups.get_mut(&5).unwrap().meta.start_key = sentinel();
    let pause = BalanceRequest { action: 1, ..Default::default() };
    let (change, _) = model.core.balance(&pause, model.now_ms).unwrap();
    model.core.apply(change, model.now_ms);
    model.alive.remove(&4);
    model.run(40);
    assert_eq!(model.made(), 0);
    model
}

fn wish(model: &mut Model, wish: Wish) -> String {
    let request = AddOperatorRequest { wish: Some(wish), ..Default::default() };
    match model.core.add_operator(request, model.now_ms) {
        Ok((_, response)) => format!("accepted: {}", response.operators[0].description),
        Err(error) => error.to_string(),
    }
}

fn split(region_id: u64, keys: Vec<Bytes>) -> Wish {
    Wish::Split(add::Split { region_id, keys })
}

fn merge(source_region_id: u64, target_region_id: u64) -> Wish {
    Wish::Merge(add::Merge { source_region_id, target_region_id })
}

fn move_peer(region_id: u64, from_store_id: u64, to_store_id: u64) -> Wish {
    Wish::MovePeer(add::MovePeer { region_id, from_store_id, to_store_id })
}

fn transfer(region_id: u64, to_store_id: u64) -> Wish {
    Wish::TransferLeader(add::TransferLeader { region_id, to_store_id })
}

#[test]
fn splits_that_cannot_be() {
    let mut model = model();
    let start = model.groups[&3].meta.start_key.clone();
    for (asked, reason) in [
        (split(99, vec![]), "region 99 is not known"),
        (
            split(3, vec![Bytes::from_static(b"raw")]),
            "split key raw is not a valid encoding of a key",
        ),
        (split(3, vec![Bytes::new()]), "split key  is not a valid encoding of a key"),
        (split(3, vec![codec::encode(b"000009")]), "lies outside of region 3"),
        (split(3, vec![start]), "region 3 begins at the split key"),
        (
            split(3, vec![codec::encode(b"000002b"), codec::encode(b"000002a")]),
            "keys: must ascend, each once",
        ),
        (split(3, vec![codec::encode(b"000002b"); 257]), "keys: 257 keys, more than 256"),
    ] {
        let refusal = wish(&mut model, asked);
        assert!(refusal.contains(reason), "{refusal}");
    }
    assert_eq!(model.made(), 0);
    assert_eq!(wish(&mut model, split(3, vec![])), "accepted: split region 3 in halves");
}

#[test]
fn merges_that_cannot_be() {
    let mut model = model();
    for (asked, reason) in [
        (merge(1, 99), "region 99 is not known"),
        (merge(99, 1), "region 99 is not known"),
        (merge(1, 1), "region 1 cannot be merged into itself"),
        (merge(1, 3), "regions 1 and 3 are not neighbours"),
        (merge(1, 5), "regions 1 and 5 are not neighbours"),
        (merge(4, 5), "kept apart: the boundary between them ends every scan"),
        (merge(5, 4), "kept apart"),
    ] {
        let refusal = wish(&mut model, asked);
        assert!(refusal.contains(reason), "{refusal}");
    }
    let last = model.groups[&2].meta.peers[2];
    model.groups.get_mut(&2).unwrap().pending.insert(last.id, 1000);
    model.run(2);
    let refusal = wish(&mut model, merge(1, 2));
    assert_eq!(refusal, "region 2 has a peer that is down, behind or a learner");
    assert!(wish(&mut model, merge(3, 4)).starts_with("accepted"));
    assert!(wish(&mut model, merge(3, 4)).contains("cancel it first"));
}

#[test]
fn moves_that_cannot_be() {
    let mut model = model();
    model.change_store(3, Change::Drain(Drain { cancel: false }));
    for (asked, reason) in [
        (move_peer(99, 1, 5), "region 99 is not known"),
        (move_peer(1, 1, 77), "store 77 is not registered"),
        (move_peer(1, 77, 5), "store 77 is not registered"),
        (move_peer(1, 5, 5), "region 1 has no peer on store 5"),
        (move_peer(1, 1, 2), "region 1 has a peer on store 2 already"),
        (move_peer(1, 1, 4), "store 4 is down"),
    ] {
        let refusal = wish(&mut model, asked);
        assert!(refusal.contains(reason), "{refusal}");
    }
    model.change_store(4, Change::Remove(Remove { lost: false }));
    assert!(wish(&mut model, move_peer(1, 1, 4)).contains("store 4 is a tombstone"));
    let full = proto::pdpb::StoreStats {
        store_id: 5,
        capacity: 1000,
        available: 20,
        ..Default::default()
    };
    model.core.store_heartbeat(full, model.now_ms).unwrap();
    let refusal = wish(&mut model, move_peer(1, 1, 5));
    assert_eq!(refusal, "store 5 has only 2 % of its space free");
}

#[test]
fn transfers_that_cannot_be() {
    let mut model = model();
    let one = model.groups.get_mut(&1).unwrap();
    one.meta.peers[2].set_role(PeerRole::Learner);
    one.pending.insert(one.meta.peers[2].id, 1000);
    model.heartbeat(1);
    let behind = model.groups[&2].meta.peers[2];
    model.groups.get_mut(&2).unwrap().pending.insert(behind.id, 1000);
    model.heartbeat(2);
    let leads = model.groups[&3].meta.peers.iter().find(|peer| peer.id == model.groups[&3].leader);
    let leads = leads.unwrap().store_id;
    let led = format!("store {leads} leads region 3 already");
    for (asked, reason) in [
        (transfer(99, 1), "region 99 is not known"),
        (transfer(1, 77), "store 77 is not registered"),
        (transfer(2, 5), "region 2 has no peer on store 5"),
        (transfer(2, 3), "the peer of region 2 on store 3 is down or behind"),
        (transfer(3, leads), led.as_str()),
    ] {
        let refusal = wish(&mut model, asked);
        assert!(refusal.contains(reason), "{refusal}");
    }
    let learner = wish(&mut model, transfer(1, 3));
    assert_eq!(learner, "the peer of region 1 on store 3 is a learner");
}

#[test]
fn scatters_cancels_and_looks_that_cannot_be() {
    let mut model = model();
    let scatter = |region_ids| Wish::Scatter(add::Scatter { region_ids });
    assert!(wish(&mut model, scatter(vec![])).contains("region_ids: 0 regions"));
    assert_eq!(wish(&mut model, scatter(vec![1, 99])), "region 99 is not known");
    let cancel = |model: &mut Model, region_id| {
        let request = CancelOperatorRequest { region_id, ..Default::default() };
        model.core.cancel_operator(request, model.now_ms)
    };
    assert_eq!(cancel(&mut model, 99).unwrap_err(), Error::RegionUnknown(99.into()));
    assert_eq!(cancel(&mut model, 1).unwrap_err().to_string(), "region 1 has no operator");
    assert!(wish(&mut model, move_peer(1, 1, 5)).starts_with("accepted"));
    let (_, cancelled) = cancel(&mut model, 1).unwrap();
    assert_eq!(cancelled.operator.unwrap().state(), OperatorState::Cancelled);

    let now_ms = model.now_ms;
    let none = ListRegionsRequest { region_id: 99, ..Default::default() };
    assert_eq!(model.core.list_regions(&none, now_ms), Err(Error::RegionUnknown(99.into())));
    let none = ListRegionsRequest { store_id: 99, ..Default::default() };
    assert_eq!(model.core.list_regions(&none, now_ms), Err(Error::StoreUnknown(99.into())));
    let none = ListStoresRequest { store_id: 99, ..Default::default() };
    assert_eq!(model.core.list_stores(&none, now_ms), Err(Error::StoreUnknown(99.into())));
    let empty = AddOperatorRequest::default();
    assert!(model.core.add_operator(empty, now_ms).unwrap_err().to_string().starts_with("wish:"));
    let by_key =
        ListRegionsRequest { by_key: true, key: codec::encode(b"a"), ..Default::default() };
    assert_eq!(model.core.list_regions(&by_key, now_ms).unwrap().regions.len(), 1);
    let nothing = Model::new(1);
    let unknown = nothing.core.list_regions(&by_key, now_ms).unwrap_err();
    assert!(matches!(unknown, Error::KeyUnknown(_)), "{unknown}");
}

fn change_store(model: &mut Model, store_id: u64, change: Change) -> String {
    let request = ChangeStoreRequest { store_id, change: Some(change), ..Default::default() };
    match model.core.change_store(request, model.now_ms) {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn changes_of_stores_that_cannot_be() {
    let mut model = model();
    let remove = |lost| Change::Remove(Remove { lost });
    let drain = |cancel| Change::Drain(Drain { cancel });
    let replace = |new_store_id| Change::Replace(Replace { new_store_id });
    let label = |key: &str, value: &str, remove: &[&str]| {
        Change::Label(Label {
            labels: vec![metapb::StoreLabel { key: key.into(), value: value.into() }],
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        })
    };
    for (store, asked, reason) in [
        (77, remove(false), "store 77 is not registered"),
        (1, remove(false), "store 1 still has 5 peers: drain it first"),
        (1, remove(true), "so it is not lost"),
        (1, replace(0), "store 1 was heard of"),
        (4, replace(4), "store 4 cannot take its own place"),
        (4, replace(77), "store 77 is not registered"),
        (1, drain(true), "store 1 is not being drained"),
        (1, label("", "x", &[]), "labels: \"\" = \"x\""),
        (1, label("a,b", "x", &[]), "the name no comma"),
        (1, label("zone", "x", &["host"]), "store 1 has no label \"host\""),
    ] {
        let refusal = change_store(&mut model, store, asked);
        assert!(refusal.contains(reason), "{refusal}");
    }
    model.change_store(4, remove(false));
    assert!(
        change_store(&mut model, 4, drain(false)).contains("removed from the cluster for good")
    );
    for store in [1, 2, 3] {
        model.change_store(store, drain(false));
    }
    let last = change_store(&mut model, 5, drain(false));
    assert_eq!(last, "no store is left that could take the peers of store 5");
    let empty = ChangeStoreRequest { store_id: 1, ..Default::default() };
    let refusal = model.core.change_store(empty, model.now_ms).unwrap_err();
    assert!(refusal.to_string().starts_with("change:"));
}

#[test]
fn settings_and_balancers_that_cannot_be() {
    let mut model = model();
    let item = |name: &str, value: &str| ConfigItem {
        name: name.into(),
        value: value.into(),
        ..Default::default()
    };
    // One wrong item spoils all.
    let set = vec![item("max_replicas", "5"), item("max_replica", "1")];
    let refusal = model.core.configure(&ConfigRequest { set, ..Default::default() }).unwrap_err();
    assert!(refusal.to_string().ends_with("did you mean max_replicas?"), "{refusal}");
    let (change, shown) = model.core.configure(&ConfigRequest::default()).unwrap();
    assert!(change.is_empty());
    assert_eq!(shown.items[0].value, "0");

    let pause =
        BalanceRequest { action: 1, balancer: "balance-leaders".into(), ..Default::default() };
    let refusal = model.core.balance(&pause, model.now_ms).unwrap_err().to_string();
    assert!(refusal.ends_with("did you mean balance-leader?"), "{refusal}");
    let strange = BalanceRequest { action: 7, ..Default::default() };
    assert!(model.core.balance(&strange, model.now_ms).is_err());
}

#[test]
fn a_pause_ends_by_itself_or_when_it_is_told_to() {
    let mut model = model();
    let ask = |model: &mut Model, action, pause_ms| {
        let request = BalanceRequest {
            action,
            pause_ms,
            balancer: "balance-leader".into(),
            ..Default::default()
        };
        let (change, response) = model.core.balance(&request, model.now_ms).unwrap();
        model.core.apply(change, model.now_ms);
        response.balancers[0].clone()
    };
    assert!(ask(&mut model, 0, 0).paused);
    let paused = ask(&mut model, 1, 5000);
    assert_eq!((paused.paused, paused.paused_ms_left), (true, 5000));
    model.run(4);
    assert_eq!(ask(&mut model, 0, 0).operators_made, 0);
    model.settle(60);
    let shown = ask(&mut model, 0, 0);
    assert!(!shown.paused && shown.operators_made > 0 && shown.view.starts_with("leader counts"));
    assert!(ask(&mut model, 1, 0).paused);
    assert!(!ask(&mut model, 2, 0).paused);
}

//! Regions that are too small or too large, and what people ask for.

use proto::codec;
use proto::flotillapb::add_operator_request::{self as add, Wish};
use proto::flotillapb::{AddOperatorRequest, OperatorState};

use super::super::sentinel;
use super::Model;

fn wish(model: &mut Model, wish: Wish) -> Result<u64, String> {
    let request = AddOperatorRequest { wish: Some(wish), ..Default::default() };
    let now_ms = model.now_ms;
    let (_, response) =
        model.core.add_operator(request, now_ms).map_err(|error| error.to_string())?;
    Ok(response.operators.first().map_or(0, |operator| operator.operator_id))
}

fn state_of(model: &Model, id: u64) -> OperatorState {
    let ended = model.operators_that_ended();
    ended.iter().find(|operator| operator.operator_id == id).unwrap().state()
}

#[test]
fn small_neighbours_become_one_region_after_a_while_and_only_up_to_the_sentinel() {
    let mut model = Model::new(4);
    model.set("split_merge_interval_ms", "10000");
    model.lay(&(0..8).map(|at| (0..3).map(|n| (at + n) % 4 + 1).collect()).collect::<Vec<_>>(), 0);
    // The last boundary is the one that stays.
    model.groups.get_mut(&7).unwrap().meta.end_key = sentinel();
    model.groups.get_mut(&8).unwrap().meta.start_key = sentinel();
    model.run(9);
    assert_eq!(model.groups.len(), 8, "nothing is merged before its time");
    model.settle(400);
    assert_eq!(model.groups.len(), 2, "{:?}", model.groups);
    model.assert_sound(3);
    let last = model.groups.values().find(|group| group.meta.end_key.is_empty()).unwrap();
    assert_eq!(last.meta.start_key, sentinel());
}

#[test]
fn what_was_cut_is_not_merged_at_once_and_large_regions_are_cut() {
    let mut model = Model::new(3);
    model.set("split_merge_interval_ms", "60000");
    model.lay(&[vec![1, 2, 3]], 300 << 20);
    model.run(70);
    assert_eq!(model.groups.len(), 2);
    for group in model.groups.values_mut() {
        group.bytes = 0;
    }
    model.run(40);
    assert_eq!(model.groups.len(), 2, "cut a minute ago");
    model.settle(200);
    assert_eq!(model.groups.len(), 1);
}

#[test]
fn wishes_are_carried_out() {
    let mut model = Model::new(4);
    model.lay(&vec![vec![1, 2, 3]; 4], 20 << 20);
    let pause = proto::flotillapb::BalanceRequest { action: 1, ..Default::default() };
    let now_ms = model.now_ms;
    let (change, _) = model.core.balance(&pause, now_ms).unwrap();
    model.core.apply(change, now_ms);
    model.settle(100);
    assert_eq!(model.made(), 0, "balancers rest");

    let moved = wish(
        &mut model,
        Wish::MovePeer(add::MovePeer { region_id: 1, from_store_id: 1, to_store_id: 4 }),
    );
    model.settle(60);
    assert_eq!(state_of(&model, moved.unwrap()), OperatorState::Finished);
    let stores = super::super::placement::stores_of(&model.groups[&1].meta);
    assert_eq!(stores, [2, 3, 4].map(Model::store).into());

    let to = wish(
        &mut model,
        Wish::TransferLeader(add::TransferLeader { region_id: 1, to_store_id: 4 }),
    );
    model.settle(60);
    assert_eq!(state_of(&model, to.unwrap()), OperatorState::Finished);
    assert_eq!(model.counts()[&4], (1, 1));

    let key = codec::encode(b"000001x");
    let cut = wish(&mut model, Wish::Split(add::Split { region_id: 2, keys: vec![key.clone()] }));
    model.settle(60);
    assert_eq!(state_of(&model, cut.unwrap()), OperatorState::Finished);
    assert_eq!(model.groups[&2].meta.end_key, key);

    // Their peers are not on the same stores: they are brought together first.
    let merged =
        wish(&mut model, Wish::Merge(add::Merge { source_region_id: 1, target_region_id: 2 }));
    model.settle(60);
    assert_eq!(state_of(&model, merged.unwrap()), OperatorState::Finished);
    assert!(!model.groups.contains_key(&1));
    assert!(model.groups[&2].meta.start_key.is_empty());

    let region_ids = model.groups.keys().copied().collect();
    wish(&mut model, Wish::Scatter(add::Scatter { region_ids })).unwrap();
    model.settle(60);
    model.assert_sound(3);
    model.assert_even(|_| true, 1);
}

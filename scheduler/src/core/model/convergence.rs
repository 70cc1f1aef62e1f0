//! From random beginnings to an even cluster, and then to rest.

use proto::metapb::PeerRole;

use super::{Dice, Model};

/// `count` different stores of `all`.
fn some_stores(dice: &mut Dice, all: u64, count: u64) -> Vec<u64> {
    let mut stores: Vec<u64> = (1..=all).collect();
    while stores.len() as u64 > count {
        let gone = dice.below(stores.len() as u64);
        stores.remove(gone as usize);
    }
    let first = dice.below(stores.len() as u64);
    stores.rotate_left(first as usize);
    stores
}

/// Any number of peers anywhere; some regions were left in the middle of a change.
fn random_model(seed: u64) -> Model {
    let mut dice = Dice::new(seed);
    let stores = 3 + dice.below(5);
    let mut model = Model::new(stores);
    let regions = 5 + dice.below(40);
    let homes: Vec<Vec<u64>> = (0..regions)
        .map(|_| {
            let count = 1 + dice.below(stores.min(5));
            some_stores(&mut dice, stores, count)
        })
        .collect();
    // Large enough not to be merged, small enough not to be split.
    model.lay(&homes, 20 << 20);
    for group in model.groups.values_mut() {
        let last = group.meta.peers.len() - 1;
        if last == 0 {
            continue;
        }
        match dice.below(6) {
            0 => group.meta.peers[last].set_role(PeerRole::Learner),
            1 => group.meta.peers[last].set_role(PeerRole::DemotingVoter),
            2 => group.meta.peers[last].set_role(PeerRole::IncomingVoter),
            _ => {}
        }
    }
    model
}

#[test]
fn random_beginnings_become_even_and_then_rest() {
    for seed in 0..25 {
        let mut model = random_model(seed);
        let took = model.settle(600);
        model.assert_sound(3);
        model.assert_even(|_| true, 1);
        let made = model.made();
        let (peers, ops) = (model.groups.len() * 5, made);
        assert!(ops <= peers * 2 + 20, "seed {seed}: {ops} operators, {took} s");
        model.run(120);
        assert_eq!(model.made(), made, "seed {seed}: at rest, and yet it moves");
        assert!(
            model.operators_that_ended().iter().all(|operator| operator.reason.is_empty()),
            "seed {seed}: {:?}",
            model.operators_that_ended()
        );
    }
}

#[test]
fn sizes_become_even_within_a_fifth() {
    for seed in 0..6 {
        let mut dice = Dice::new(seed);
        let stores = 4 + dice.below(3);
        let mut model = Model::new(stores);
        let homes: Vec<Vec<u64>> = (0..120).map(|_| some_stores(&mut dice, 3, 3)).collect();
        model.lay(&homes, 0);
        for group in model.groups.values_mut() {
            group.bytes = (16 + dice.below(80)) << 20;
        }
        model.settle(900);
        let bytes: Vec<u64> =
            (1..=stores).map(|store| model.store_view(store).region_bytes).collect();
        let (most, least) = (*bytes.iter().max().unwrap(), *bytes.iter().min().unwrap());
        assert!(most - least <= most / 5, "seed {seed}: {bytes:?}");
        let made = model.made();
        model.run(60);
        assert_eq!(model.made(), made, "seed {seed}");
    }
}

#[test]
fn a_new_store_takes_its_share_and_one_that_starts_late_does_not_disturb() {
    let mut model = Model::new(3);
    model.lay(&vec![vec![1, 2, 3]; 30], 20 << 20);
    model.settle(200);
    model.assert_even(|_| true, 0);
    model.add_store(4, &[]);
    model.settle(300);
    model.assert_sound(3);
    model.assert_even(|_| true, 1);
    let moved = model.operators_that_ended().len();
    assert!(moved <= 22 + 40, "{moved} operators for 22 peers");
}

#[test]
fn hot_leaders_are_exchanged_for_cold_ones() {
    let mut model = Model::new(3);
    model.lay(&vec![vec![1, 2, 3]; 12], 20 << 20);
    model.settle(200);
    // All the work is at what store 1 leads.
    for group in model.groups.values_mut() {
        let leads = group.meta.peers.iter().find(|peer| peer.id == group.leader).unwrap();
        group.flow = if leads.store_id == 1 { 10 << 20 } else { 0 };
    }
    model.run(5);
    model.settle(200);
    model.assert_even(|_| true, 0);
    let flow = |model: &Model, store: u64| -> u64 {
        let led = model.groups.values().filter(|group| {
            group.meta.peers.iter().any(|peer| peer.id == group.leader && peer.store_id == store)
        });
        led.map(|group| group.flow).sum()
    };
    let flows: Vec<u64> = (1..=3).map(|store| flow(&model, store) >> 20).collect();
    assert!(flows.iter().max().unwrap() - flows.iter().min().unwrap() <= 10, "{flows:?}");
    let made = model.made();
    model.run(120);
    assert_eq!(model.made(), made, "hot leaders go back and forth");
}

#[test]
fn ten_thousand_regions_are_looked_after_in_slices() {
    let mut model = Model::new(4);
    let homes: Vec<Vec<u64>> = (0..10_000u64)
        .map(|at| {
            let first = at % 4;
            (0..3).map(|next| (first + next) % 4 + 1).collect()
        })
        .collect();
    model.lay(&homes, 20 << 20);
    let regions: Vec<u64> = model.groups.keys().copied().collect();
    regions.into_iter().for_each(|region| model.heartbeat(region));
    let begun = std::collections::BTreeSet::from([1u64, 2, 3, 4]);
    assert_eq!(model.alive, begun);
    for _ in 0..50 {
        model.now_ms += 100;
        let (change, told) = model.core.tick(model.now_ms);
        model.core.apply(change, model.now_ms);
        assert!(told.len() < 100, "{} at once", told.len());
    }
}

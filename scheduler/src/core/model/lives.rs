//! Stores that die, leave, and come in the place of others.

use proto::flotillapb::StoreLife;
use proto::flotillapb::change_store_request::{Change, Drain, Label, Remove, Replace};
use proto::metapb;

use super::Model;

fn thirty(homes: &[u64]) -> Vec<Vec<u64>> {
    (0..30)
        .map(|at| homes.iter().copied().cycle().skip(at % homes.len()).take(3).collect())
        .collect()
}

#[test]
fn the_peers_of_a_dead_store_are_made_anew_elsewhere() {
    let mut model = Model::new(5);
    model.lay(&thirty(&[1, 2, 3, 4, 5]), 20 << 20);
    model.settle(200);
    model.alive.remove(&3);
    model.run(15);
    assert_eq!(model.store_view(3).life(), StoreLife::Disconnected);
    assert!(model.store_view(3).region_count > 0, "it may come back");
    model.run(20);
    assert_eq!(model.store_view(3).life(), StoreLife::Down);
    model.settle(300);
    model.assert_sound(3);
    model.assert_even(|_| true, 1);
    assert_eq!(model.store_view(3).region_count, 0);
    // It returns, empty, and gets its share.
    model.alive.insert(3);
    model.settle(300);
    model.assert_even(|_| true, 1);
}

#[test]
fn with_three_stores_a_dead_one_is_waited_for() {
    let mut model = Model::new(3);
    model.lay(&thirty(&[1, 2, 3]), 20 << 20);
    model.settle(200);
    let made = model.made();
    model.alive.remove(&3);
    model.run(300);
    assert!(model.groups.values().all(|group| group.meta.peers.len() == 3), "nothing is given up");
    // Leaders moved by themselves; at most they are evened out over the two that live.
    assert!(model.made() - made <= 30);
}

#[test]
fn a_drained_store_is_emptied_and_can_be_removed() {
    for leaving in 1..=4 {
        let mut model = Model::new(4);
        model.lay(&thirty(&[1, 2, 3, 4]), 20 << 20);
        model.settle(200);
        let before = model.store_view(leaving).region_count;
        model.change_store(leaving, Change::Drain(Drain { cancel: false }));
        model.run(1);
        assert_eq!(model.store_view(leaving).life(), StoreLife::Draining);
        assert_eq!(model.store_view(leaving).drain_peers_total, before);
        model.settle(300);
        let view = model.store_view(leaving);
        assert_eq!((view.region_count, view.leader_count, view.drain_peers_left), (0, 0, 0));
        model.assert_sound(3);
        model.assert_even(|store| store != leaving, 1);
        model.change_store(leaving, Change::Remove(Remove { lost: false }));
        assert_eq!(model.store_view(leaving).life(), StoreLife::Tombstone);
    }
}

#[test]
fn a_drain_with_no_place_to_go_leaves_fewer_replicas_or_says_why_not() {
    // Of three stores one leaves: two replicas are what two stores can hold.
    let mut model = Model::new(3);
    model.lay(&thirty(&[1, 2, 3]), 20 << 20);
    model.settle(200);
    model.change_store(2, Change::Drain(Drain { cancel: false }));
    model.settle(300);
    model.assert_sound(2);
    assert_eq!(model.store_view(2).region_count, 0);
    // Back again: three.
    model.change_store(2, Change::Drain(Drain { cancel: true }));
    model.settle(300);
    model.assert_sound(3);
    model.assert_even(|_| true, 1);

    // With three asked for, the drain waits, and says what for.
    model.set("max_replicas", "3");
    model.change_store(2, Change::Drain(Drain { cancel: false }));
    model.run(30);
    let view = model.store_view(2);
    assert_eq!((view.drain_peers_left, view.drain_peers_total), (30, 30));
    assert_eq!(view.blockers.len(), 30);
    assert!(view.blockers.iter().all(|blocker| blocker.reason == "no other store is up"));
    model.add_store(4, &[]);
    model.settle(300);
    assert_eq!(model.store_view(2).region_count, 0);
    model.assert_sound(3);
}

#[test]
fn a_store_given_up_becomes_a_tombstone_when_its_peers_are_replaced() {
    let mut model = Model::new(4);
    model.lay(&thirty(&[1, 2, 3, 4]), 20 << 20);
    model.settle(200);
    model.alive.remove(&4);
    model.run(12);
    model.change_store(4, Change::Remove(Remove { lost: true }));
    assert_eq!(model.store_view(4).life(), StoreLife::Offline);
    model.settle(300);
    assert_eq!(model.store_view(4).life(), StoreLife::Tombstone);
    model.assert_sound(3);
}

#[test]
fn a_newcomer_takes_the_place_labels_and_load_of_a_replaced_store() {
    let mut model = Model::new(3);
    model.lay(&thirty(&[1, 2, 3]), 20 << 20);
    model.settle(200);
    let host = metapb::StoreLabel { key: "host".into(), value: "h2".into() };
    model.change_store(2, Change::Label(Label { labels: vec![host.clone()], remove: vec![] }));
    let newcomer = metapb::Store { id: 9, address: "store-2:1".into(), ..Default::default() };
    model.run(1);
    let refusal = model.core.put_store(newcomer.clone(), model.now_ms).unwrap_err().to_string();
    assert!(refusal.contains("flotilla store replace 2"), "{refusal}");
    model.alive.remove(&2);
    model.run(12);
    model.change_store(2, Change::Replace(Replace { new_store_id: 0 }));
    let change = model.core.put_store(newcomer, model.now_ms).unwrap();
    model.core.apply(change, model.now_ms);
    model.alive.insert(9);
    model.settle(300);
    model.assert_sound(3);
    model.assert_even(|_| true, 1);
    assert_eq!(model.store_view(9).store.unwrap().labels, [host]);
    assert_eq!(model.store_view(2).life(), StoreLife::Tombstone);
    // The old one comes back: its place is taken.
    let old = metapb::Store { id: 2, address: "store-2:1".into(), ..Default::default() };
    assert!(model.core.put_store(old, model.now_ms).is_err());
}

#[test]
fn peers_are_spread_over_zones_and_hosts_and_never_closer() {
    let mut model = Model::new(0);
    for id in 1..=6 {
        let zone = format!("z{}", (id - 1) / 2);
        model.add_store(id, &[("zone", &zone), ("host", &format!("h{id}"))]);
    }
    // All begin in the first two zones.
    model.lay(&thirty(&[1, 2, 3, 4]), 20 << 20);
    model.settle(600);
    model.assert_sound(3);
    model.assert_even(|_| true, 1);
    for group in model.groups.values() {
        let zones: std::collections::BTreeSet<u64> =
            group.meta.peers.iter().map(|peer| (peer.store_id - 1) / 2).collect();
        assert_eq!(zones.len(), 3, "{:?}", group.meta);
    }
    let made = model.made();
    model.run(60);
    assert_eq!(model.made(), made);
}

#[test]
fn no_two_peers_share_a_host_and_a_drain_says_so() {
    let mut model = Model::new(0);
    for (id, host) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
        model.add_store(id, &[("host", host)]);
    }
    model.lay(&thirty(&[1, 2, 3]), 20 << 20);
    model.settle(300);
    model.set("max_replicas", "3");
    for group in model.groups.values() {
        let here = |store: u64| group.meta.peers.iter().any(|peer| peer.store_id == store);
        assert!(!(here(1) && here(4)), "{:?}", group.meta);
    }
    model.change_store(2, Change::Drain(Drain { cancel: false }));
    model.run(20);
    let view = model.store_view(2);
    assert_eq!(view.drain_peers_left, 30);
    assert!(view.blockers.iter().all(|why| why.reason == "no store satisfies host isolation"));
}

#[test]
fn a_single_store_grows_to_three_replicas_as_stores_join() {
    let mut model = Model::new(1);
    model.lay(&vec![vec![1]; 12], 20 << 20);
    model.settle(100);
    model.assert_sound(1);
    model.add_store(2, &[]);
    model.settle(200);
    model.assert_sound(2);
    model.add_store(3, &[]);
    model.settle(200);
    model.assert_sound(3);
    model.assert_even(|_| true, 1);
    model.set("max_replicas", "1");
    model.settle(300);
    model.assert_sound(1);
    model.assert_even(|_| true, 1);
    model.set("max_replicas", "3");
    model.settle(300);
    model.assert_sound(3);
}

#[test]
fn a_clock_that_jumps_kills_no_store() {
    let mut model = Model::new(4);
    model.lay(&thirty(&[1, 2, 3, 4]), 20 << 20);
    model.settle(200);
    let made = model.made();
    for jump in [3_600_000u64, 86_400_000] {
        model.now_ms += jump;
        model.run(5);
        model.now_ms -= jump;
        model.run(5);
    }
    assert_eq!(model.made(), made);
    assert_eq!(model.store_view(1).life(), StoreLife::Up);
}

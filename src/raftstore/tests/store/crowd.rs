//! Many regions at rest: what they cost is counted, for one tick and for the loss of a store.

use bytes::Bytes;
use proto::ids::PeerId;
use proto::{codec, metapb};
use raftstore::{RequestHeader, StoreMsg, StoreStatus};

use super::cluster::{Cluster, Slot};

const REGIONS: u64 = 400;

/// Region `id` of so many, with a peer on each of three stores.
fn region(id: u64, count: u64) -> metapb::Region {
    let boundary = |id: u64| codec::encode(format!("{id:06}").as_bytes());
    let edge = |id: u64, last: u64| if id == last { Bytes::new() } else { boundary(id) };
    let peer =
        |store: u64| metapb::Peer { id: 10 * id + store, store_id: store, ..Default::default() };
    metapb::Region {
        id,
        start_key: edge(id, 1),
        end_key: edge(id + 1, count + 1),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: (1..=3).map(peer).collect(),
    }
}

/// Three stores, all regions asleep.
fn asleep(count: u64) -> Cluster {
    let mut cluster = Cluster::of(3, &[], |config| config.tick_ms = 50);
    for store in 1..=3 {
        for id in 1..=count {
            let (_slot, reply) = Slot::<()>::new();
            cluster.send(store, StoreMsg::Bootstrap { region: region(id, count), reply });
        }
    }
    cluster.settle();
    for _ in 0..40 {
        cluster.tick(10);
        if (1..=3).all(|store| status(&cluster, store).asleep == count as usize) {
            return cluster;
        }
    }
    let awake: Vec<_> = (1..=3).map(|store| status(&cluster, store).asleep).collect();
    panic!("of {count} regions {awake:?} sleep");
}

fn status(cluster: &Cluster, store: u64) -> StoreStatus {
    cluster.nodes[store as usize - 1].store.status()
}

fn leads(cluster: &Cluster, store: u64) -> usize {
    let regions = status(cluster, store).regions;
    regions.iter().filter(|region| region.raft.role == raft::Role::Leader).count()
}

#[test]
fn many_sleeping_regions_cost_as_much_as_one() {
    let mut cluster = asleep(REGIONS);
    let before: Vec<_> = (1..=3).map(|store| status(&cluster, store).counters).collect();
    cluster.tick(60);
    for store in 1..=3 {
        let (now, before) = (status(&cluster, store).counters, &before[store as usize - 1]);
        assert_eq!(now.messages_sent - before.messages_sent, 60, "pings to two stores");
        assert_eq!(now.log_writes - before.log_writes, 0);
        assert_eq!(now.wakes, before.wakes);
        assert_eq!(status(&cluster, store).asleep as u64, REGIONS);
    }
}

#[test]
fn the_regions_of_a_lost_store_are_led_again_soon_and_the_others_sleep_on() {
    let mut cluster = asleep(REGIONS);
    let lost = leads(&cluster, 1);
    assert!(lost > 20, "store 1 leads {lost}");
    let wakes = status(&cluster, 2).counters.wakes;
    cluster.crash(1);
    cluster.tick(cluster.config.election_timeout_ticks as usize + 12);
    assert_eq!(leads(&cluster, 2) + leads(&cluster, 3), REGIONS as usize);
    let woken = status(&cluster, 2).counters.wakes - wakes;
    assert_eq!(woken as usize, lost, "those that store 1 led, and no other");
    // With one store gone they sleep as well.
    cluster.tick(200);
    assert_eq!(status(&cluster, 2).asleep as u64, REGIONS);
    let sent = status(&cluster, 2).counters.messages_sent;
    cluster.tick(20);
    assert_eq!(status(&cluster, 2).counters.messages_sent - sent, 20);
    // What the store missed wakes it all; then everybody sleeps again.
    cluster.restart(1);
    cluster.tick(200);
    assert!((1..=3).all(|store| status(&cluster, store).asleep as u64 == REGIONS));
}

#[test]
fn a_store_that_was_cut_off_finds_its_place_again_and_everybody_sleeps() {
    let mut cluster = asleep(REGIONS);
    cluster.isolate(3);
    cluster.tick(100);
    let id = (1..=REGIONS)
        .find(|id| {
            let regions = status(&cluster, 1).regions;
            regions.iter().any(|r| r.region.id == *id && r.raft.role == raft::Role::Leader)
        })
        .expect("store 1 leads something");
    // One region that store 3 follows is changed meanwhile.
    let to = PeerId::from(10 * id + 2);
    let header = RequestHeader::new(id.into(), region(id, REGIONS).region_epoch.unwrap());
    let (slot, reply) = Slot::new();
    cluster.send(1, StoreMsg::TransferLeader { header, to, reply });
    cluster.settle();
    assert_eq!(slot.take(), Some(Ok(())));
    cluster.tick(150);
    let sleeping = |cluster: &Cluster| [1, 2].map(|store| status(cluster, store).asleep as u64);
    assert_eq!(sleeping(&cluster), [REGIONS; 2]);
    let wakes = status(&cluster, 2).counters.wakes;
    cluster.cut.clear();
    cluster.tick(200);
    assert!((1..=3).all(|store| status(&cluster, store).asleep as u64 == REGIONS));
    let one = status(&cluster, 3).regions.into_iter().find(|r| r.region.id == id).unwrap();
    assert_eq!(one.raft.leader.map(|leader| leader.0), Some(to.get()));
    // The peers of store 3 had given their leaders up and ask everybody; nobody is woken over and over.
    assert!(status(&cluster, 2).counters.wakes - wakes <= 2 * REGIONS);
}

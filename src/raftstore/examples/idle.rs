//! What regions at rest cost: memory for each replica, time for each tick. Three stores in one process, each with a peer of
//! every region, over the in-memory engine.
//!
//! `cargo run --release -p flotilla-raftstore --example idle -- 10000`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    dead_code,
    reason = "a measurement for people"
)]

#[path = "../tests/store/cluster.rs"]
mod cluster;

use std::time::Instant;

use bytes::Bytes;
use proto::{codec, metapb};
use raftstore::StoreMsg;

use cluster::{Cluster, Slot};

/// Resident bytes of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn region(id: u64, count: u64) -> metapb::Region {
    let edge = |id: u64, outermost: u64| match id {
        id if id == outermost => Bytes::new(),
        id => codec::encode(format!("{id:06}").as_bytes()),
    };
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

fn main() {
    let count: u64 = std::env::args().nth(1).map_or(1000, |n| n.parse().unwrap());
    let mut cluster = Cluster::of(3, &[], |_| {});
    let before = resident_bytes();
    for store in 1..=3 {
        for id in 1..=count {
            let (_slot, reply) = Slot::<()>::new();
            cluster.send(store, StoreMsg::Bootstrap { region: region(id, count), reply });
        }
    }
    cluster.settle();
    let sleepers = |cluster: &Cluster| {
        cluster.nodes.iter().map(|node| node.store.sleepers()).collect::<Vec<_>>()
    };
    let mut ticks = 0;
    while sleepers(&cluster).iter().any(|asleep| *asleep as u64 != count) {
        cluster.tick(1);
        ticks += 1;
        assert!(ticks < 2000, "{:?} of {count} regions sleep", sleepers(&cluster));
    }
    let grown = resident_bytes() - before;
    println!("{count} regions asleep on three stores after {ticks} ticks");
    println!("memory: {:.1} KiB for each replica", grown as f64 / (3 * count) as f64 / 1024.0);
    let start = Instant::now();
    cluster.tick(1000);
    let each = start.elapsed() / 3000;
    println!("time: {each:?} for each tick of a store, at rest");
}

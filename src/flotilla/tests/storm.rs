//! Everything at once, with real processes: five stores and three schedulers under load, while regions split, merge, move and
//! change leaders all the time, and kill -9 hits any process in the middle of it. Every acknowledged write is there afterwards,
//! and the cluster passes the audit of `harness/audit.rs`.
//!
//! `FLOTILLA_STORM_CYCLES` sets the number of kills, `FLOTILLA_CRASH_SEED` the choice of victims.

// Only an engine with a disk survives anything.
#![cfg(feature = "rocksdb")]

mod harness;

use std::time::Duration;

use client::Settings;
use harness::audit::{Happened, audit};
use harness::ledger::{Load, dice, number};
use harness::operations::Operations;
use harness::{Cluster, Layout};

const WRITERS: u64 = 6;
const CYCLES: u64 = 12;
const STORES: usize = 5;
const SCHEDULERS: usize = 3;
const REPLICAS: usize = 3;

/// Acknowledged writes after each blow.
const PROGRESS: u64 = 40;

/// Changes asked for before each blow, so that it hits something.
const STIRS: u64 = 6;

/// Regions are cut early, logs are short so that there are snapshots.
const STORE_ARGS: [&str; 3] =
    ["--region-max-bytes=65536", "--region-part-bytes=32768", "--log-gc-count=64"];
/// A store may be away for as long as it takes to start it again, and not much longer.
const SCHEDULER_ARGS: [&str; 2] = ["--store-down-ms=2000", "--max-store-down-ms=8000"];

async fn start() -> Cluster {
    let layout = Layout {
        stores: STORES,
        schedulers: SCHEDULERS,
        store_args: &STORE_ARGS,
        scheduler_args: &SCHEDULER_ARGS,
    };
    Cluster::start_with(layout).await
}

fn patient() -> Settings {
    Settings { budget: Duration::from_secs(30), ..Settings::default() }
}

/// Asks for changes, to which the scheduler agrees or not.
async fn stir(operations: &Operations, seed: &mut u64) {
    for _ in 0..STIRS {
        operations.stir(seed).await;
    }
}

/// Which process, or processes, a blow hits.
fn victims(seed: &mut u64) -> (Vec<usize>, Vec<usize>) {
    let one = |seed: &mut u64, n: usize| (dice(seed) % n as u64) as usize;
    match dice(seed) % 8 {
        0 => ((0..STORES).collect(), (0..SCHEDULERS).collect()),
        1 | 2 => (Vec::new(), vec![one(seed, SCHEDULERS)]),
        3 => (vec![one(seed, STORES)], vec![one(seed, SCHEDULERS)]),
        _ => (vec![one(seed, STORES)], Vec::new()),
    }
}

async fn blow(cluster: &mut Cluster, load: &Load, seed: &mut u64, cycle: u64) {
    let (stores, schedulers) = victims(seed);
    stores.iter().for_each(|at| cluster.stores[*at].kill());
    schedulers.iter().for_each(|at| cluster.schedulers[*at].kill());
    if stores.len() < 2 {
        let what = format!("cycle {cycle}: without stores {stores:?}, schedulers {schedulers:?}");
        load.progress(PROGRESS, cluster, &what).await;
    }
    schedulers.iter().for_each(|at| cluster.schedulers[*at].start());
    stores.iter().for_each(|at| cluster.stores[*at].start());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_that_split_merge_and_move_survive_kill_9() {
    let mut cluster = start().await;
    let client = cluster.client(patient()).await;
    let operations = Operations::new(&client, &cluster.endpoints);
    // Small regions are merged, though not each one as soon as it has been cut.
    operations.configure("split_merge_interval_ms", "2000").await.expect("a known setting");
    operations.configure("merge_max_bytes", "8192").await.expect("a known setting");
    operations.split_until(12).await;
    let load = Load::start(&client, WRITERS, 200);
    let mut seed = number("FLOTILLA_CRASH_SEED", 1);
    let mut happened = Happened::default();
    for cycle in 0..number("FLOTILLA_STORM_CYCLES", CYCLES) {
        stir(&operations, &mut seed).await;
        if let Ok(status) = client.status().await {
            happened.look(&status);
        }
        blow(&mut cluster, &load, &mut seed, cycle).await;
        load.progress(PROGRESS, &cluster, &format!("cycle {cycle}: after the blow")).await;
    }
    for what in ["splits", "merges", "conf_changes", "peers_destroyed", "snapshots_received"] {
        assert!(happened.count(what) > 0, "no {what}: {happened:?}");
    }
    let ledger = load.stop().await;
    let reader = cluster.client(patient()).await;
    ledger.verify(&reader, &cluster).await;
    audit(&cluster, &reader, REPLICAS).await;
    ledger.verify(&reader, &cluster).await;
}

/// Two of three schedulers: no ids, no timestamps, no orders. The stores know enough without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_serve_without_a_majority_of_schedulers() {
    let mut cluster = start().await;
    let client = cluster.client(patient()).await;
    Operations::new(&client, &cluster.endpoints).split_until(6).await;
    let load = Load::start(&client, WRITERS, 200);
    load.progress(20 * PROGRESS, &cluster, "before").await;
    let before = client.timestamp().await.expect("there is a majority");
    cluster.schedulers[0].kill();
    cluster.schedulers[1].kill();
    load.progress(20 * PROGRESS, &cluster, "without a majority").await;
    let hasty = client.with_settings(Settings { budget: Duration::from_secs(1), ..patient() });
    assert!(hasty.timestamp().await.is_err(), "a timestamp without a majority");
    cluster.schedulers[2].kill();
    load.progress(10 * PROGRESS, &cluster, "without any scheduler").await;
    cluster.schedulers.iter_mut().for_each(harness::Node::start);
    let after = client.timestamp().await.expect("all are back");
    assert!(after > before, "{after} after {before}");
    load.progress(10 * PROGRESS, &cluster, "with all of them again").await;
    let ledger = load.stop().await;
    ledger.verify(&client, &cluster).await;
    audit(&cluster, &client, REPLICAS).await;
}

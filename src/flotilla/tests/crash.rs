//! kill -9 under load: of one process, of the scheduler, of all at once, for many cycles. Every write that was acknowledged is
//! there afterwards, appends took effect exactly once, and a cluster that lost one process goes on.
//!
//! `FLOTILLA_CRASH_CYCLES` sets the number of cycles, `FLOTILLA_CRASH_SEED` the choice of victims.

// Only an engine with a disk survives anything.
#![cfg(feature = "rocksdb")]

mod harness;

use std::time::Duration;

use client::Settings;
use harness::Cluster;
use harness::ledger::{Load, dice, number};

const WRITERS: u64 = 6;
const CYCLES: u64 = 20;

/// Acknowledged writes between two blows, so that there is something to lose.
const PROGRESS: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let mut cluster = Cluster::start(3).await;
    let patient = Settings { budget: Duration::from_secs(30), ..Settings::default() };
    let client = cluster.client(patient).await;
    let load = Load::start(&client, WRITERS, 0);
    let mut seed = number("FLOTILLA_CRASH_SEED", 1);
    for cycle in 0..number("FLOTILLA_CRASH_CYCLES", CYCLES) {
        let progress = async |cluster: &Cluster, when: &str| {
            load.progress(PROGRESS, cluster, &format!("cycle {cycle}: {when}")).await;
        };
        progress(&cluster, "before the kill").await;
        match dice(&mut seed) % 5 {
            0 => cluster.restart_all(),
            1 => {
                cluster.schedulers[0].kill();
                progress(&cluster, "without the scheduler").await;
                cluster.schedulers[0].start();
            }
            _ => {
                let victim = (dice(&mut seed) % 3) as usize;
                cluster.stores[victim].kill();
                progress(&cluster, "without one store").await;
                cluster.stores[victim].start();
            }
        }
    }
    load.progress(PROGRESS, &cluster, "after the last kill").await;
    let ledger = load.stop().await;
    // One more blow to all of them, and then a client that knows nothing.
    cluster.restart_all();
    let reader = cluster.client(patient).await;
    ledger.verify(&reader, &cluster).await;
    assert!(ledger.keys() >= PROGRESS, "the load has lost its teeth");
}

//! Stores that leave: one is emptied, others die for good. The cluster restores its replicas elsewhere, without losing a write,
//! and the emptying without an error.

mod harness;

use std::time::Duration;

use client::{Client, Settings};
use harness::audit::{audit, until};
use harness::ledger::Load;
use harness::operations::Operations;
use harness::{Cluster, Layout};
use proto::flotillapb::change_store_request::{self as change, Change};

const WRITERS: u64 = 6;
const STORES: usize = 5;
const SCHEDULERS: usize = 3;
const REPLICAS: usize = 3;
const REGIONS: usize = 12;

/// Acknowledged writes between two steps.
const PROGRESS: u64 = 60;

/// Regions are cut early; a store that is away is soon given up.
const STORE_ARGS: [&str; 2] = ["--region-max-bytes=65536", "--region-part-bytes=32768"];
const SCHEDULER_ARGS: [&str; 2] = ["--store-down-ms=1000", "--max-store-down-ms=3000"];

async fn start() -> (Cluster, Client, Operations) {
    let layout = Layout {
        stores: STORES,
        schedulers: SCHEDULERS,
        store_args: &STORE_ARGS,
        scheduler_args: &SCHEDULER_ARGS,
    };
    let cluster = Cluster::start_with(layout).await;
    let patient = Settings { budget: Duration::from_secs(30), ..Settings::default() };
    let client = cluster.client(patient).await;
    let operations = Operations::new(&client, &cluster.endpoints);
    operations.split_until(REGIONS).await;
    (cluster, client, operations)
}

/// The ids of the stores by the number of their process.
async fn ids(client: &Client, cluster: &Cluster) -> Vec<u64> {
    let status = client.status().await.expect("it answers");
    let id_of = |node: &harness::Node| {
        let row = status.stores.iter().find(|row| node.address() == row.store.address);
        row.expect("every process is a store").store.id
    };
    cluster.stores.iter().map(id_of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_drained_without_an_error() {
    let (cluster, client, operations) = start().await;
    let load = Load::start(&client, WRITERS, 200);
    load.progress(PROGRESS, &cluster, "before the drain").await;
    let leaving = ids(&client, &cluster).await[1];
    operations.drain(leaving).await.expect("it can be drained");
    let empty = async || {
        let stores = operations.stores().await?;
        let view = stores.iter().find(|s| s.store.as_ref().is_some_and(|s| s.id == leaving));
        match view {
            Some(view) if view.region_count == 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    until(&cluster, "the store is empty", empty).await;
    let removal = Change::Remove(change::Remove { lost: false });
    operations.change_store(leaving, removal).await.expect("it holds nothing any more");
    load.progress(PROGRESS, &cluster, "after the drain").await;
    let ledger = load.stop().await;
    assert!(ledger.errors().is_empty(), "{:?}", ledger.errors());
    ledger.verify(&client, &cluster).await;
    audit(&cluster, &client, REPLICAS).await;
}

/// One after the other: with three replicas, only a repair in between makes that bearable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_die_one_after_the_other_and_are_replaced() {
    let (mut cluster, client, _) = start().await;
    let ids = ids(&client, &cluster).await;
    let load = Load::start(&client, WRITERS, 200);
    for dead in [0, 3] {
        cluster.stores[dead].kill();
        load.progress(PROGRESS, &cluster, "without a store").await;
        let repaired = async || {
            let regions = client.regions().await.map_err(|error| error.to_string())?;
            for (region, _) in regions {
                let gone = region.peers.iter().any(|peer| peer.store_id == ids[dead]);
                if gone || region.peers.len() != REPLICAS {
                    return Err(format!("{region:?}"));
                }
            }
            Ok(())
        };
        until(&cluster, "every region has three replicas elsewhere", repaired).await;
    }
    load.progress(PROGRESS, &cluster, "after both repairs").await;
    let ledger = load.stop().await;
    ledger.verify(&client, &cluster).await;
}

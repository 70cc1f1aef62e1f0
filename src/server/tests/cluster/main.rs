//! Whole stores and a scheduler in one process, over real sockets and the in-memory engine: joining, serving, failing over,
//! stopping, refusing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "every store has a main thread, as in production")]

mod harness;
mod steered;

use std::time::Duration;

use bytes::Bytes;
use proto::flotillapb::StoreStatusResponse;
use proto::kvrpcpb::{RawGetRequest, RawPutRequest, RawScanRequest};
use server::{Config, Reads};

use crate::harness::{Cluster, eventually};

fn key(number: usize) -> Bytes {
    Bytes::from(format!("key{number:04}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_stores_serve_through_the_leader() {
    let cluster = Cluster::start(3).await;
    for number in 0..50 {
        let context = cluster.context(&key(number)).await;
        let (key, value) = (key(number), Bytes::from_static(b"value"));
        cluster.put(RawPutRequest { context, key, value, ..Default::default() }).await;
    }
    let context = cluster.context(b"key0000").await;
    let leader = cluster.leader(b"key0000").await;
    let mut client = cluster.client(leader).await;
    let get = RawGetRequest { context: context.clone(), key: key(49), ..Default::default() };
    let found = client.raw_get(get).await.unwrap().into_inner();
    assert_eq!((found.region_error, &found.value[..]), (None, &b"value"[..]));
    let scan = RawScanRequest { context, limit: 100, ..Default::default() };
    let found = client.raw_scan(scan).await.unwrap().into_inner();
    assert_eq!(found.region_error, None);
    assert_eq!(found.kvs.len(), 50);

    let status = cluster.status(leader).await;
    assert_eq!((status.regions.len(), status.poisoned.as_str()), (2, ""));
    assert!(cluster.counter(leader, "writes").await >= 50);
    for counted in ["log_syncs", "messages_sent", "engine_syncs", "replies"] {
        assert!(cluster.counter(leader, counted).await > 0, "{counted}");
    }
    let by_lease = cluster.counter(leader, "reads_by_lease").await;
    assert!(by_lease > 0, "a settled leader reads by its lease");
    let metrics = cluster.http(leader, "/metrics").await;
    assert!(metrics.contains("flotilla_regions 2"), "{metrics}");
    assert!(cluster.http(leader, "/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_for_others_are_refused_with_what_helps() {
    let cluster = Cluster::start(3).await;
    let context = cluster.context(b"k").await.unwrap();
    let leader = cluster.leader(b"k").await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let ask = async |store: u64, context: proto::kvrpcpb::Context, key: &[u8]| {
        let mut client = cluster.client(store).await;
        let key = Bytes::copy_from_slice(key);
        let get = RawGetRequest { context: Some(context), key, ..Default::default() };
        client.raw_get(get).await.unwrap().into_inner().region_error
    };
    assert_eq!(ask(leader, context.clone(), b"k").await, None);
    let mut wrong = context.clone();
    wrong.peer.as_mut().unwrap().store_id = 99;
    let error = ask(leader, wrong, b"k").await.expect("refused");
    assert_eq!(error.store_not_match.map(|e| e.actual_store_id), Some(leader));
    let mut wrong = context.clone();
    wrong.region_id = 4_000_000;
    let error = ask(leader, wrong, b"k").await.expect("refused");
    assert!(error.region_not_found.is_some(), "{error:?}");
    let mut stale = context.clone();
    stale.region_epoch.as_mut().unwrap().version += 1;
    let error = ask(leader, stale, b"k").await.expect("refused");
    assert_eq!(error.epoch_not_match.map(|e| e.current_regions.len()), Some(1));
    let error = ask(leader, context.clone(), &[0xff; 40]).await.expect("refused");
    assert!(error.key_not_in_region.is_some(), "{error:?}");
    let mut elsewhere = context;
    elsewhere.peer = None;
    let error = ask(follower, elsewhere, b"k").await.expect("refused");
    let named = error.not_leader.expect("not the leader").leader;
    assert_eq!(named.map(|peer| peer.store_id), Some(leader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_hands_over_and_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let context = cluster.context(b"k").await;
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"1"));
    cluster.put(RawPutRequest { context, key, value, ..Default::default() }).await;
    let old = cluster.leader(b"k").await;
    cluster.stop(old).await;
    let new = eventually("another store leads", async || {
        let leader = cluster.leader(b"k").await;
        (leader != old).then_some(leader)
    })
    .await;
    let context = cluster.context(b"k").await;
    let mut client = cluster.client(new).await;
    let get = RawGetRequest { context, key: Bytes::from_static(b"k"), ..Default::default() };
    let found = eventually("the value is there", async || {
        let found = client.clone().raw_get(get.clone()).await.ok()?.into_inner();
        found.region_error.is_none().then_some(found)
    })
    .await;
    assert_eq!(&found.value[..], b"1");
    let context = cluster.context(b"k").await;
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"2"));
    let put = RawPutRequest { context, key, value, ..Default::default() };
    assert_eq!(client.raw_put(put).await.unwrap().into_inner().region_error, None);

    cluster.restart(old).await;
    eventually("it has caught up", async || {
        let status = cluster.status(old).await;
        let applied = |status: &StoreStatusResponse| {
            status.regions.iter().map(|region| region.applied_index).collect::<Vec<_>>()
        };
        (applied(&status) == applied(&cluster.status(new).await)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_cluster_is_refused_in_one_line() {
    let mut cluster = Cluster::start(1).await;
    let id = cluster.ids()[0];
    cluster.stop(id).await;
    let other = Cluster::start(1).await;
    let error = cluster.restart_at(id, &other).await.expect_err("refused").to_string();
    assert!(error.contains("belongs to cluster") && !error.contains('\n'), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_store_and_says_why() {
    let mut cluster = Cluster::start(1).await;
    let id = cluster.ids()[0];
    let context = cluster.context(b"k").await;
    cluster.engine(id).fail_next_sync("disk on fire");
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"1"));
    let put = RawPutRequest { context, key, value, ..Default::default() };
    let mut client = cluster.client(id).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), client.raw_put(put)).await;
    if let Ok(response) = answer.expect("it answers") {
        let error = response.into_inner().region_error.expect("never acknowledged");
        assert!(error.message.contains("disk on fire"), "{}", error.message);
    }
    let error = cluster.ended(id).await.expect_err("it failed").to_string();
    assert!(error.contains("disk on fire"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_can_do_without_any_clock() {
    let settings = Config { reads: Reads::ReadIndex, ..Config::default() };
    let cluster = Cluster::start_with(3, settings).await;
    let context = cluster.context(b"k").await;
    let leader = cluster.leader(b"k").await;
    let mut client = cluster.client(leader).await;
    let get = RawGetRequest { context, key: Bytes::from_static(b"k"), ..Default::default() };
    let found = client.raw_get(get).await.unwrap().into_inner();
    assert_eq!((found.region_error, found.not_found), (None, true));
    let (lease, quorum) = ("reads_by_lease", "reads_by_quorum");
    assert_eq!(cluster.counter(leader, lease).await, 0);
    assert!(cluster.counter(leader, quorum).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_away_too_long_gets_a_snapshot() {
    let settings = Config { log_gc_count: 32, ..Config::default() };
    let mut cluster = Cluster::start_with(3, settings).await;
    let leader = cluster.leader(b"key").await;
    let away = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    cluster.stop(away).await;
    for number in 0..200 {
        let (key, value) = (key(number), Bytes::from_static(b"while it was away"));
        cluster.put(RawPutRequest { key, value, ..Default::default() }).await;
    }
    let leader = cluster.leader(b"key").await;
    let of_data = |status: StoreStatusResponse| {
        let data = status.regions.into_iter().find(|region| {
            region.region.as_ref().is_some_and(|region| region.start_key.is_empty())
        });
        data.unwrap()
    };
    eventually("the log has been cut", async || {
        (of_data(cluster.status(leader).await).first_index > 100).then_some(())
    })
    .await;
    cluster.restart(away).await;
    eventually("it has caught up", async || {
        let applied = of_data(cluster.status(leader).await).applied_index;
        (of_data(cluster.status(away).await).applied_index == applied).then_some(())
    })
    .await;
    assert!(cluster.counter(away, "snapshots_received").await > 0);
    assert!(cluster.counter(away, "snapshots_installed").await > 0);
}

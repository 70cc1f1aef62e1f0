//! Stores that obey a scheduler, and stores that have lost theirs.

use bytes::Bytes;
use proto::flotillapb::AddOperatorRequest;
use proto::flotillapb::add_operator_request::{Split, TransferLeader, Wish};
use proto::flotillapb::operations_client::OperationsClient;
use proto::kvrpcpb::{RawGetRequest, RawPutRequest};
use server::Config;

use crate::harness::{Cluster, eventually};

async fn order(cluster: &Cluster, wish: Wish) {
    eventually("the scheduler takes the order", async || {
        let url = format!("http://{}", cluster.scheduler());
        let mut client = OperationsClient::connect(url).await.ok()?;
        let request = AddOperatorRequest { header: cluster.header(), wish: Some(wish.clone()) };
        let answer = client.add_operator(request).await.ok()?.into_inner();
        answer.header.is_some_and(|header| header.error.is_none()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regions_are_cut_and_led_as_ordered() {
    let cluster = Cluster::start(3).await;
    let (left, right) = (Bytes::from_static(b"apple"), Bytes::from_static(b"zebra"));
    for key in [&left, &right] {
        let (key, value) = (key.clone(), Bytes::from_static(b"1"));
        cluster.put(RawPutRequest { key, value, ..Default::default() }).await;
    }
    let old = cluster.context(&left).await;
    let region_id = old.as_ref().unwrap().region_id;
    let leader = cluster.leader(&left).await;
    let keys = vec![proto::codec::encode(b"m")];
    order(&cluster, Wish::Split(Split { region_id, keys })).await;
    let new = eventually("two regions", async || {
        let context = cluster.context(&right).await?;
        (context.region_id != region_id).then_some(context)
    })
    .await;
    // Whoever knows the whole learns of both parts at once.
    let get = RawGetRequest { context: old, key: left.clone(), ..Default::default() };
    let answer = cluster.client(leader).await.raw_get(get).await.unwrap().into_inner();
    let error = answer.region_error.and_then(|error| error.epoch_not_match).expect("it is old");
    let mut told: Vec<u64> = error.current_regions.iter().map(|region| region.id).collect();
    told.sort_unstable();
    let mut parts = vec![region_id, new.region_id];
    parts.sort_unstable();
    assert_eq!(told, parts);
    assert!(cluster.counter(leader, "splits").await >= 1);

    let other = cluster.ids().into_iter().find(|id| *id != leader).unwrap();
    let wish = TransferLeader { region_id, to_store_id: other };
    order(&cluster, Wish::TransferLeader(wish)).await;
    eventually("the lead is where it was ordered to", async || {
        (cluster.leader(&left).await == other).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_scheduler_stores_serve_and_say_so() {
    let settings = Config { store_heartbeat_ms: 50, ..Config::default() };
    let mut cluster = Cluster::start_with(1, settings).await;
    let context = cluster.context(b"k").await;
    let store = cluster.ids()[0];
    let reachable = "flotilla_scheduler_reachable 1";
    eventually("a report has come through", async || {
        cluster.http(store, "/metrics").await.contains(reachable).then_some(())
    })
    .await;
    cluster.stop_scheduler();
    eventually("the store has noticed", async || {
        let metrics = cluster.http(store, "/metrics").await;
        metrics.contains("flotilla_scheduler_reachable 0").then_some(())
    })
    .await;
    let mut client = cluster.client(store).await;
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"1"));
    let put = RawPutRequest { context: context.clone(), key, value, ..Default::default() };
    assert_eq!(client.raw_put(put).await.unwrap().into_inner().region_error, None);
    let get = RawGetRequest { context, key: Bytes::from_static(b"k"), ..Default::default() };
    assert_eq!(&client.raw_get(get).await.unwrap().into_inner().value[..], b"1");
    assert!(cluster.http(store, "/readyz").await.starts_with("HTTP/1.1 200"));
}

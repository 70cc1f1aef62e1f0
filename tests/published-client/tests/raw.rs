//! The published `tikv-client` crate's raw client, unmodified, against a real cluster: every verb it has for this surface, and
//! a checked workload with a store killed in the middle.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flotilla_published_client::{Playground, signal};
use tikv_client::{KvPair, RawClient};

async fn connect(playground: &Playground) -> RawClient {
    RawClient::new(vec![playground.endpoint()]).await.expect("the client connects")
}

fn pair(i: usize) -> (String, String) {
    (format!("key/{i:05}"), format!("value {i}"))
}

fn plain(pairs: Vec<KvPair>) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.into_iter().map(|p| (p.0.into(), p.1)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_raw_verb_agrees_with_a_model() {
    let playground = Playground::start();
    let client = connect(&playground).await;

    assert_eq!(client.get("absent".to_owned()).await.expect("get"), None);
    client.put("one".to_owned(), "1".to_owned()).await.expect("put");
    assert_eq!(client.get("one".to_owned()).await.expect("get"), Some(b"1".to_vec()));
    client.put("one".to_owned(), "uno".to_owned()).await.expect("overwrite");
    assert_eq!(client.get("one".to_owned()).await.expect("get"), Some(b"uno".to_vec()));
    client.delete("one".to_owned()).await.expect("delete");
    assert_eq!(client.get("one".to_owned()).await.expect("get"), None);

    // More than one 16 KiB batch of the client's.
    let model: BTreeMap<String, String> = (0..2_000).map(pair).collect();
    client.batch_put(model.clone()).await.expect("batch_put");
    let some: Vec<String> =
        model.keys().step_by(7).cloned().chain(["no such".to_owned()]).collect();
    let got = plain(client.batch_get(some).await.expect("batch_get"));
    let want: Vec<_> = model
        .iter()
        .step_by(7)
        .map(|(k, v)| (k.clone().into_bytes(), v.clone().into_bytes()))
        .collect();
    assert_eq!(got, want, "batch_get gives the found keys");

    let range = "key/00100".to_owned().."key/00250".to_owned();
    let got = plain(client.scan(range.clone(), 1_000).await.expect("scan"));
    let want: Vec<_> = model
        .range(range.clone())
        .map(|(k, v)| (k.clone().into_bytes(), v.clone().into_bytes()))
        .collect();
    assert_eq!(got, want, "a scan is the range, in order");
    let keys = client.scan_keys(range.clone(), 10).await.expect("scan_keys");
    let keys: Vec<Vec<u8>> = keys.into_iter().map(Into::into).collect();
    assert_eq!(keys, want.iter().take(10).map(|p| p.0.clone()).collect::<Vec<_>>());
    let got = plain(client.scan_reverse(range.clone(), 10).await.expect("scan_reverse"));
    assert_eq!(got, want.iter().rev().take(10).cloned().collect::<Vec<_>>(), "reverse");
    let ranges = vec![
        "key/00000".to_owned().."key/00005".to_owned(),
        "key/01000".to_owned().."key/01003".to_owned(),
    ];
    assert_eq!(client.batch_scan(ranges, 100).await.expect("batch_scan").len(), 8);

    client
        .batch_delete(vec!["key/00100".to_owned(), "key/00101".to_owned()])
        .await
        .expect("delete");
    client
        .delete_range("key/00102".to_owned().."key/00200".to_owned())
        .await
        .expect("delete_range");
    let left = client.scan_keys(range, 1_000).await.expect("scan_keys");
    assert_eq!(left.len(), 50, "key/00200 ..= key/00249 are left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_input_is_refused_and_harms_nothing() {
    let playground = Playground::start();
    let client = connect(&playground).await;
    let error = client.put("k".repeat(64 * 1024), "v".to_owned()).await.expect_err("refused");
    assert!(error.to_string().contains("key"), "the error names the field: {error}");
    client.put("k".to_owned(), "v".to_owned()).await.expect("and the client goes on");
    assert_eq!(client.get("k".to_owned()).await.expect("get"), Some(b"v".to_vec()));
}

/// One writer per key, so that every read has one right answer; a write whose outcome the client does not know is written
/// again until it is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_loses_nothing_acknowledged() {
    let playground = Playground::start();
    let client = connect(&playground).await;
    let writer = |worker: usize| {
        let client = client.clone();
        tokio::spawn(async move {
            let stop = Instant::now() + Duration::from_secs(12);
            let mut acknowledged = Vec::new();
            let mut refused = 0_u32;
            let mut i = 0;
            while Instant::now() < stop {
                let (key, value) = (format!("w{worker}/{i:06}"), format!("{worker}:{i}"));
                match client.put(key.clone(), value.clone()).await {
                    Ok(()) => {
                        acknowledged.push((key, value));
                        i += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            (acknowledged, refused)
        })
    };
    let writers: Vec<_> = (0..4).map(writer).collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    signal("-KILL", playground.leading_store_pid());
    let mut total = 0;
    for writer in writers {
        let (acknowledged, refused) = writer.await.expect("the writer ends");
        assert!(acknowledged.len() > 100, "only {} writes went through", acknowledged.len());
        total += acknowledged.len();
        for chunk in acknowledged.chunks(500) {
            let keys: Vec<String> = chunk.iter().map(|p| p.0.clone()).collect();
            let got = plain(client.batch_get(keys).await.expect("batch_get"));
            let want: Vec<_> = chunk
                .iter()
                .map(|(k, v)| (k.clone().into_bytes(), v.clone().into_bytes()))
                .collect();
            assert_eq!(got, want, "every acknowledged write is there");
        }
        println!("{} acknowledged, {refused} refused", acknowledged.len());
    }
    println!("{total} acknowledged writes verified after a kill -9");
}

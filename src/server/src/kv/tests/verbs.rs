//! What each verb does.

use proto::flotillapb::kv_server::Kv;
use proto::flotillapb::{OpenSessionRequest, WriteRequest, mutation, write_result};

use super::*;

#[tokio::test]
async fn a_value_comes_back_until_it_is_deleted() {
    let store = Store::new();
    assert_eq!(store.get("k").await, None);
    store.put("k", "1").await;
    store.put("k", "2").await;
    assert_eq!(store.get("k").await.as_deref(), Some("2"));
    let request = RawDeleteRequest { key: bytes("k"), ..Default::default() };
    store.service.raw_delete(Request::new(request)).await.unwrap();
    assert_eq!(store.get("k").await, None);
    store.put("k", "").await;
    assert_eq!(store.get("k").await.as_deref(), Some(""), "an empty value is a value");
}

#[tokio::test]
async fn column_families_are_apart() {
    let store = Store::new();
    for cf in ["", "lock", "write"] {
        let (key, value, cf) = (bytes("k"), bytes(cf), cf.to_owned());
        let request = RawPutRequest { key, value, cf, ..Default::default() };
        store.service.raw_put(Request::new(request)).await.unwrap();
    }
    for (cf, value) in [("", ""), ("default", ""), ("lock", "lock"), ("write", "write")] {
        let request = RawGetRequest { key: bytes("k"), cf: cf.to_owned(), ..Default::default() };
        let response = store.service.raw_get(Request::new(request)).await.unwrap().into_inner();
        assert_eq!((response.not_found, text(&response.value)), (false, value.to_owned()));
    }
}

#[tokio::test]
async fn batches_put_get_and_delete() {
    let store = Store::new();
    let pairs = pairs(&[("c", "3"), ("a", "1"), ("b", "2")]);
    let request = RawBatchPutRequest { pairs, ttls: vec![0, 0, 0], ..Default::default() };
    store.service.raw_batch_put(Request::new(request)).await.unwrap();
    let keys = ["b", "x", "c"].map(bytes).to_vec();
    let request = RawBatchGetRequest { keys, ..Default::default() };
    let found = store.service.raw_batch_get(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(rows(found.pairs), owned(&[("b", "2"), ("c", "3")]), "in the request's order");
    let keys = ["b", "x"].map(bytes).to_vec();
    let request = RawBatchDeleteRequest { keys, ..Default::default() };
    store.service.raw_batch_delete(Request::new(request)).await.unwrap();
    assert_eq!(store.get("b").await, None);
    assert_eq!(store.get("c").await.as_deref(), Some("3"));
}

#[tokio::test]
async fn scans_go_both_ways_within_their_bounds() {
    let store = Store::new();
    for key in ["a", "b", "c", "d"] {
        store.put(key, key).await;
    }
    let all = RawScanRequest { limit: 10, ..Default::default() };
    let keys = |rows: Vec<(String, String)>| {
        rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>().join("")
    };
    assert_eq!(keys(store.scan(all.clone()).await), "abcd");
    let part = RawScanRequest { start_key: bytes("b"), end_key: bytes("d"), ..all.clone() };
    assert_eq!(keys(store.scan(part).await), "bc", "the end is exclusive");
    assert_eq!(keys(store.scan(RawScanRequest { limit: 3, ..all.clone() }).await), "abc");
    assert_eq!(keys(store.scan(RawScanRequest { limit: 0, ..all.clone() }).await), "");
    let reverse = RawScanRequest { reverse: true, ..all.clone() };
    assert_eq!(keys(store.scan(reverse.clone()).await), "dcba");
    let part = RawScanRequest { start_key: bytes("d"), end_key: bytes("b"), ..reverse.clone() };
    assert_eq!(keys(store.scan(part).await), "cb", "down from below the start to the end");
    assert_eq!(keys(store.scan(RawScanRequest { limit: 1, ..reverse }).await), "d");
    let keys_only = RawScanRequest { key_only: true, limit: 1, ..all };
    assert_eq!(store.scan(keys_only).await, owned(&[("a", "")]));
}

#[tokio::test]
async fn a_batch_scan_limits_each_range() {
    let store = Store::new();
    for key in ["a", "b", "c", "d", "e"] {
        store.put(key, key).await;
    }
    let range = |start, end| KeyRange { start_key: bytes(start), end_key: bytes(end) };
    let ranges = vec![range("d", ""), range("a", "c"), range("x", "y")];
    let request =
        RawBatchScanRequest { ranges, each_limit: 1, key_only: true, ..Default::default() };
    let found = store.service.raw_batch_scan(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(rows(found.kvs), owned(&[("d", ""), ("a", "")]));
}

#[tokio::test]
async fn a_range_is_deleted_up_to_its_end() {
    let store = Store::new();
    for key in ["a", "b", "c"] {
        store.put(key, key).await;
    }
    let (start_key, end_key) = (bytes("a"), bytes("c"));
    let request = RawDeleteRangeRequest { start_key, end_key, ..Default::default() };
    store.service.raw_delete_range(Request::new(request)).await.unwrap();
    let left = store.scan(RawScanRequest { limit: 9, ..Default::default() }).await;
    assert_eq!(left, owned(&[("c", "c")]));
    let everything = RawDeleteRangeRequest::default();
    store.service.raw_delete_range(Request::new(everything)).await.unwrap();
    assert_eq!(store.get("c").await, None);
}

#[tokio::test]
async fn keys_of_a_keyspace_are_stored_encoded_and_come_back_plain() {
    let store = Store::new();
    let context = Some(Context { api_version: ApiVersion::V2 as i32, ..Context::default() });
    let pairs = pairs(&[("r\0\0\0a", "1"), ("r\0\0\0ab", "2")]);
    let request = RawBatchPutRequest { context: context.clone(), pairs, ..Default::default() };
    store.service.raw_batch_put(Request::new(request)).await.unwrap();
    store.put("plain", "3").await;
    let scan = RawScanRequest { context, limit: 10, ..Default::default() };
    let seen = store.scan(scan.clone()).await;
    assert_eq!(seen, owned(&[("r\0\0\0a", "1"), ("r\0\0\0ab", "2")]));
    let from = RawScanRequest { start_key: bytes("r\0\0\0ab"), ..scan };
    assert_eq!(store.scan(from).await, owned(&[("r\0\0\0ab", "2")]));
    assert_eq!(store.get("r\0\0\0a").await, None, "not under its plain form");
}

#[tokio::test]
async fn mixed_writes_are_atomic_and_sessions_need_replication() {
    let store = Store::new();
    store.put("old", "x").await;
    let put = mutation::Put { key: bytes("new"), value: bytes("y"), ..Default::default() };
    let delete = mutation::Delete { key: bytes("old"), ..Default::default() };
    let mutations = [mutation::Op::Put(put), mutation::Op::Delete(delete)]
        .map(|op| proto::flotillapb::Mutation { op: Some(op) })
        .to_vec();
    let request = WriteRequest { mutations, ..Default::default() };
    let response = store.service.write(Request::new(request)).await.unwrap().into_inner();
    let result = response.result.and_then(|result| result.result);
    assert!(matches!(result, Some(write_result::Result::Ok(_))), "{result:?}");
    assert_eq!((store.get("old").await, store.get("new").await), (None, Some("y".to_owned())));
    let request = OpenSessionRequest { client_id: 5, ..Default::default() };
    let response = store.service.open_session(Request::new(request)).await.unwrap().into_inner();
    let result = response.result.and_then(|result| result.result);
    let Some(write_result::Result::Error(reason)) = result else { panic!("{result:?}") };
    assert!(reason.contains("replicated"), "{reason}");
}

#[tokio::test]
async fn a_key_without_ttl_says_zero() {
    let store = Store::new();
    store.put("k", "v").await;
    for (key, not_found) in [("k", false), ("x", true)] {
        let request = RawGetKeyTtlRequest { key: bytes(key), ..Default::default() };
        let found = store.service.raw_get_key_ttl(Request::new(request)).await.unwrap();
        let expected = RawGetKeyTtlResponse { not_found, ..Default::default() };
        assert_eq!(found.into_inner(), expected);
    }
}

#[tokio::test]
async fn an_acknowledged_write_is_synced_and_a_failed_sync_ends_the_service() {
    let store = Store::new();
    store.put("k", "1").await;
    assert_eq!(store.engine.unsynced_batches(), 0);
    store.engine.fail_next_sync("disk on fire");
    let request = RawPutRequest { key: bytes("k"), value: bytes("2"), ..Default::default() };
    let response = store.service.raw_put(Request::new(request)).await.unwrap().into_inner();
    let message = response.region_error.expect("not acknowledged").message;
    assert!(message.contains("disk on fire"), "{message}");
    let request = RawGetRequest { key: bytes("k"), ..Default::default() };
    let response = store.service.raw_get(Request::new(request)).await.unwrap().into_inner();
    assert!(response.region_error.is_some(), "what may not be durable is not served");
    assert_eq!(store.counters.region_errors.get(), 2);
}

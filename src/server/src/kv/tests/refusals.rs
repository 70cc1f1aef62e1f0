//! What is refused, each with the field and the limit in the error.

use proto::flotillapb::kv_server::Kv;
use proto::flotillapb::{AppendRequest, WriteRequest, write_result};
use proto::limits::*;

use super::*;
use crate::limits::REPLY_BYTES_MAX;

fn zeros(length: usize) -> Bytes {
    Bytes::from(vec![0; length])
}

async fn refused_put(request: RawPutRequest) -> String {
    let store = Store::new();
    let response = store.service.raw_put(Request::new(request)).await.unwrap().into_inner();
    assert_eq!((response.region_error, store.counters.refused.get()), (None, 1));
    response.error
}

#[tokio::test]
async fn puts_beyond_a_limit_are_refused_by_field_and_limit() {
    let good = RawPutRequest { key: bytes("k"), value: bytes("v"), ..Default::default() };
    let v2 = Some(Context { api_version: 2, ..Context::default() });
    let v9 = Some(Context { api_version: 9, ..Context::default() });
    let cases = [
        (RawPutRequest { key: zeros(0), ..good.clone() }, "key is empty"),
        (
            RawPutRequest { key: zeros(KEY_BYTES_MAX + 1), ..good.clone() },
            "key is 8193 bytes, the limit is 8192 (KEY_BYTES_MAX)",
        ),
        (
            RawPutRequest { key: zeros(KEY_BYTES_MAX), context: v2, ..good.clone() },
            "key is 9225 bytes, the limit is 8192 (KEY_BYTES_MAX)",
        ),
        (
            RawPutRequest { value: zeros(VALUE_BYTES_MAX + 1), ..good.clone() },
            "value is 6291457 bytes, the limit is 6291456 (VALUE_BYTES_MAX)",
        ),
        (RawPutRequest { ttl: 5, ..good.clone() }, "ttl is not supported"),
        (
            RawPutRequest { cf: "nope".to_owned(), ..good.clone() },
            "cf \"nope\" is unknown: it is one of \"\", \"default\", \"lock\", \"write\"",
        ),
        (
            RawPutRequest { context: v9, ..good.clone() },
            "context.api_version 9 is unknown: it is one of 0 (V1), 1 (V1TTL), 2 (V2)",
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(refused_put(request).await, expected);
    }
    let store = Store::new();
    let (key, value) = (zeros(KEY_BYTES_MAX), zeros(VALUE_BYTES_MAX));
    let largest = RawPutRequest { key, value, ..good };
    let response = store.service.raw_put(Request::new(largest)).await.unwrap().into_inner();
    assert_eq!(response.error, "", "the limits themselves are within");
}

#[tokio::test]
async fn batches_beyond_a_limit_are_refused() {
    let store = Store::new();
    let put = async |pairs: Vec<KvPair>, ttls: Vec<u64>| {
        let request = RawBatchPutRequest { pairs, ttls, ..Default::default() };
        store.service.raw_batch_put(Request::new(request)).await.unwrap().into_inner().error
    };
    let pair = |key, value| KvPair { error: None, key, value };
    assert_eq!(put(vec![], vec![]).await, "pairs is empty");
    let many = vec![pair(bytes("k"), zeros(0)); BATCH_OPS_MAX + 1];
    let expected = "pairs is 16385 operations, the limit is 16384 (BATCH_OPS_MAX)";
    assert_eq!(put(many, vec![]).await, expected);
    let large = vec![pair(bytes("k"), zeros(VALUE_BYTES_MAX)); 2];
    let expected = "pairs is 12582914 bytes, the limit is 8388608 (WRITE_BYTES_MAX)";
    assert_eq!(put(large, vec![]).await, expected);
    let two = vec![pair(bytes("a"), zeros(1)), pair(bytes("b"), zeros(1))];
    assert_eq!(put(two.clone(), vec![0, 0, 0]).await, "ttls has 3 entries for 2 keys");
    assert_eq!(put(two.clone(), vec![0, 9]).await, "ttl is not supported");
    assert_eq!(put(two.clone(), vec![0]).await, "");
    let holed = vec![two[0].clone(), pair(zeros(0), zeros(1))];
    assert_eq!(put(holed, vec![]).await, "pairs[].key is empty");
    let request = RawBatchDeleteRequest::default();
    let response = store.service.raw_batch_delete(Request::new(request)).await.unwrap();
    assert_eq!(response.into_inner().error, "keys is empty");
}

#[tokio::test]
async fn reads_beyond_a_limit_are_refused_for_good() {
    let store = Store::new();
    let scan = RawScanRequest { limit: SCAN_LIMIT_MAX + 1, ..Default::default() };
    let response = store.service.raw_scan(Request::new(scan)).await.unwrap().into_inner();
    let error = response.region_error.expect("refused");
    assert_eq!(error.message, "limit is 10241 rows, the limit is 10240 (SCAN_LIMIT_MAX)");
    assert!(error.raft_entry_too_large.is_some(), "the kind that no client retries");
    let keys = vec![bytes("k"); BATCH_GET_KEYS_MAX + 1];
    let get = RawBatchGetRequest { keys, ..Default::default() };
    let response = store.service.raw_batch_get(Request::new(get)).await.unwrap().into_inner();
    let message = response.region_error.expect("refused").message;
    assert_eq!(message, "keys is 131073 keys, the limit is 131072 (BATCH_GET_KEYS_MAX)");
    let ranges = vec![KeyRange::default(); BATCH_SCAN_RANGES_MAX + 1];
    let scan = RawBatchScanRequest { ranges, each_limit: 1, ..Default::default() };
    let response = store.service.raw_batch_scan(Request::new(scan)).await.unwrap().into_inner();
    let message = response.region_error.expect("refused").message;
    assert_eq!(message, "ranges is 1025 ranges, the limit is 1024 (BATCH_SCAN_RANGES_MAX)");
}

#[tokio::test]
async fn a_reply_that_would_be_too_large_is_refused_not_cut() {
    let store = Store::new();
    let value = "x".repeat(1 << 20);
    for key in ["a", "b", "c", "d"] {
        store.put(key, &value).await;
    }
    let scan = |limit| RawScanRequest { limit, ..Default::default() };
    assert_eq!(store.scan(scan(3)).await.len(), 3);
    let response = store.service.raw_scan(Request::new(scan(4))).await.unwrap().into_inner();
    let message = response.region_error.expect("refused").message;
    let expected = format!(
        "RawScan: the result exceeds {REPLY_BYTES_MAX} bytes (REPLY_BYTES_MAX), \
         ask for fewer rows or keys"
    );
    assert_eq!(message, expected);
    let keys = ["a", "b", "c", "d"].map(bytes).to_vec();
    let get = RawBatchGetRequest { keys, ..Default::default() };
    let response = store.service.raw_batch_get(Request::new(get)).await.unwrap().into_inner();
    assert!(response.region_error.is_some() && response.pairs.is_empty());
}

#[tokio::test]
async fn inverted_ranges_and_foreign_verbs_are_refused() {
    let store = Store::new();
    let (start_key, end_key) = (bytes("b"), bytes("a"));
    let range = RawDeleteRangeRequest { start_key, end_key, ..Default::default() };
    let response = store.service.raw_delete_range(Request::new(range)).await.unwrap();
    assert_eq!(response.into_inner().error, "end_key: the range ends before it starts");
    let request = RawCoprocessorRequest { copr_name: "sum".to_owned(), ..Default::default() };
    let response = store.service.raw_coprocessor(Request::new(request)).await.unwrap();
    let error = response.into_inner().error;
    assert_eq!(error, "no coprocessor \"sum\" is installed on this store");
    let status = store.service.kv_get(Request::new(GetRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert!(status.message().starts_with("KvGet "), "{}", status.message());
}

#[tokio::test]
async fn our_own_writes_name_what_they_lack() {
    let store = Store::new();
    let reason = |result: Option<proto::flotillapb::WriteResult>| match result
        .and_then(|result| result.result)
    {
        Some(write_result::Result::Error(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    };
    let response = store.service.append(Request::new(AppendRequest::default())).await.unwrap();
    let error = reason(response.into_inner().result);
    assert_eq!(error, "session is missing or of an unknown kind");
    let response = store.service.write(Request::new(WriteRequest::default())).await.unwrap();
    assert_eq!(reason(response.into_inner().result), "mutations is empty");
    let mutations = vec![proto::flotillapb::Mutation { op: None }];
    let request = WriteRequest { mutations, ..Default::default() };
    let response = store.service.write(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(reason(response.result), "mutations[].op is missing or of an unknown kind");
}

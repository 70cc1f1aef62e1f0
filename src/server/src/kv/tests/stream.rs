//! `BatchCommands`: one stream, many requests.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use proto::tikvpb::batch_commands_request as request;
use proto::tikvpb::{BatchCommandsEmptyRequest, BatchCommandsRequest, BatchCommandsResponse};
use tonic::Status;

use super::super::batch::BatchStream;
use super::super::queue::ResponseCmd;
use super::*;
use proto::tikvpb::batch_commands_request::request::Cmd;

fn batch(commands: Vec<(u64, Cmd)>) -> BatchCommandsRequest {
    let (request_ids, requests) =
        commands.into_iter().map(|(id, cmd)| (id, request::Request { cmd: Some(cmd) })).unzip();
    BatchCommandsRequest { requests, request_ids }
}

fn put(key: &str, value: &str) -> Cmd {
    Cmd::RawPut(RawPutRequest { key: bytes(key), value: bytes(value), ..Default::default() })
}

fn get(key: &str) -> Cmd {
    Cmd::RawGet(RawGetRequest { key: bytes(key), ..Default::default() })
}

/// Everything the stream answers, as (id, command) in the order of arrival, and how it ends.
async fn serve(
    store: &Store,
    batches: Vec<BatchCommandsRequest>,
) -> (Vec<(u64, ResponseCmd)>, Option<Status>) {
    let requests = stream::iter(batches.into_iter().map(Ok));
    let responses = BatchStream::new(store.verbs.clone(), requests);
    collect(responses).await
}

async fn collect(
    responses: impl futures::Stream<Item = Result<BatchCommandsResponse, Status>>,
) -> (Vec<(u64, ResponseCmd)>, Option<Status>) {
    let mut answers = Vec::new();
    let mut responses = std::pin::pin!(responses);
    let deadline = Duration::from_secs(30);
    while let Some(response) =
        tokio::time::timeout(deadline, responses.next()).await.expect("the stream moves")
    {
        let BatchCommandsResponse { responses, request_ids, .. } = match response {
            Ok(response) => response,
            Err(status) => return (answers, Some(status)),
        };
        assert_eq!(responses.len(), request_ids.len());
        let commands = responses.into_iter().map(|response| response.cmd.expect("a command"));
        answers.extend(request_ids.into_iter().zip(commands));
    }
    (answers, None)
}

#[tokio::test]
async fn every_request_is_answered_once_under_its_id() {
    let store = Store::new();
    store.put("k", "old").await;
    let writes = (0..500).map(|id| (id, put(&format!("key{id}"), "v"))).collect();
    let reads = (500..1000).map(|id| (id, get("k"))).collect();
    let (answers, end) = serve(&store, vec![batch(writes), batch(reads)]).await;
    assert!(end.is_none(), "{end:?}");
    let mut ids: Vec<u64> = answers.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..1000).collect::<Vec<_>>());
    for (id, answer) in answers {
        match answer {
            ResponseCmd::RawPut(response) => {
                assert!(id < 500);
                assert_eq!(response, RawPutResponse::default());
            }
            ResponseCmd::RawGet(response) => {
                assert!(id >= 500);
                assert_eq!(text(&response.value), "old");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.get("key499").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn reads_that_arrive_together_leave_together() {
    let store = Store::new();
    let reads: Vec<_> = (0..300).map(|id| (id, get("k"))).collect();
    let requests = stream::iter([Ok(batch(reads))]);
    let mut responses = BatchStream::new(store.verbs.clone(), requests);
    let first = responses.next().await.expect("a response").unwrap();
    assert_eq!(first.request_ids, (0..300).collect::<Vec<_>>(), "one message, in order");
    assert!(responses.next().await.is_none());
}

#[tokio::test]
async fn a_refusal_concerns_its_request_only() {
    let store = Store::new();
    let scan = Cmd::RawScan(RawScanRequest { limit: u32::MAX, ..Default::default() });
    let (answers, end) = serve(&store, vec![batch(vec![(7, put("", "v")), (8, scan)])]).await;
    assert!(end.is_none(), "{end:?}");
    for (id, answer) in answers {
        match (id, answer) {
            (7, ResponseCmd::RawPut(response)) => assert_eq!(response.error, "key is empty"),
            (8, ResponseCmd::RawScan(response)) => assert!(response.region_error.is_some()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_large_scan_is_cut_after_the_last_row_that_fits() {
    let store = Store::new();
    let value = "x".repeat(1 << 20);
    for key in ["a", "b", "c", "d", "e"] {
        store.put(key, &value).await;
    }
    let scan = Cmd::RawScan(RawScanRequest { limit: 5, ..Default::default() });
    let (answers, _) = serve(&store, vec![batch(vec![(1, scan)])]).await;
    let [(1, ResponseCmd::RawScan(response))] = &answers[..] else { panic!("one answer") };
    let keys: Vec<_> = response.kvs.iter().map(|pair| text(&pair.key)).collect();
    assert_eq!(keys, ["a", "b", "c"]);
}

#[tokio::test]
async fn what_is_not_served_ends_the_stream_by_name() {
    let store = Store::new();
    let prewrite = batch(vec![(1, Cmd::Prewrite(PrewriteRequest::default()))]);
    let (answers, end) = serve(&store, vec![prewrite]).await;
    let status = end.expect("the stream is refused");
    assert_eq!((answers.len(), status.code()), (0, tonic::Code::Unimplemented));
    assert!(status.message().starts_with("Prewrite "), "{}", status.message());

    let mut uneven = batch(vec![(1, get("k"))]);
    uneven.request_ids.push(2);
    let (_, end) = serve(&store, vec![uneven]).await;
    assert_eq!(end.expect("refused").message(), "request_ids has 2 entries for 1 requests");

    let unknown = BatchCommandsRequest {
        requests: vec![request::Request { cmd: None }],
        request_ids: vec![4],
    };
    let (_, end) = serve(&store, vec![unknown]).await;
    assert_eq!(end.expect("refused").code(), tonic::Code::Unimplemented);
}

#[tokio::test]
async fn a_stream_that_fails_passes_the_failure_on() {
    let store = Store::new();
    let requests = stream::iter([Err(Status::internal("connection lost"))]);
    let (answers, end) = collect(BatchStream::new(store.verbs.clone(), requests)).await;
    assert_eq!((answers.len(), end.expect("ended").message()), (0, "connection lost"));
}

#[tokio::test]
async fn an_empty_command_is_answered_at_once() {
    let store = Store::new();
    let empty = BatchCommandsEmptyRequest { test_id: 9, delay_time: 60_000 };
    let (answers, _) = serve(&store, vec![batch(vec![(3, Cmd::Empty(empty))])]).await;
    assert!(matches!(&answers[..], [(3, ResponseCmd::Empty(e))] if e.test_id == 9), "{answers:?}");
}

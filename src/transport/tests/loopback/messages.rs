//! Raft messages: delivery, reconnection, bounds, refusals.

use std::sync::atomic::Ordering;

use proto::raft_serverpb::RaftMessage;
use raftstore::worker::Transport as _;

use crate::harness::{Client, Server, THEM, US, count, eventually, identity};

#[tokio::test]
async fn messages_arrive_in_order_and_in_batches() {
    let server = Server::start(identity(7, THEM));
    let client = Client::start(identity(7, US));
    client.knows(&server);
    client.send(0..1000);
    client.send(1000..1003);
    eventually("all arrive", || server.inbox.regions().len() == 1003).await;
    assert_eq!(server.inbox.regions(), (0..1003).collect::<Vec<_>>());
    let batches = count(&client.counters, "message_batches_sent");
    assert!(batches <= 2, "what is queued leaves together, not in {batches} batches");
    assert_eq!((client.dropped(), count(&server.counters, "messages_received")), (0, 1003));
}

#[tokio::test]
async fn a_store_that_comes_back_elsewhere_is_found() {
    let first = Server::start(identity(7, THEM));
    let client = Client::start(identity(7, US));
    client.knows(&first);
    client.send(0..1);
    eventually("the first arrives", || first.inbox.regions() == [0]).await;
    drop(first);
    eventually("the loss is noticed", || client.unreachable.load(Ordering::SeqCst) > 0).await;

    let second = Server::start(identity(7, THEM));
    client.knows(&second);
    let mut region = 1;
    eventually("later ones arrive at the new address", || {
        client.send(region..region + 1);
        region += 1;
        !second.inbox.regions().is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_dropped_and_counted() {
    let client = Client::start(identity(7, US));
    client.send(0..20_000);
    let at_once = client.dropped();
    assert!(at_once >= 10_000, "the queue is bounded: only {at_once} were dropped");
    eventually("the rest goes when nobody knows the store", || client.dropped() == 20_000).await;
    assert!(client.unreachable.load(Ordering::SeqCst) > 0);
    client.transport.send(vec![RaftMessage::default()]);
    assert_eq!(client.dropped(), 20_001, "a message for nobody");
}

#[tokio::test]
async fn another_cluster_and_another_store_are_refused() {
    for (ours, theirs) in [(identity(8, US), identity(7, THEM)), (identity(7, US), identity(7, 3))]
    {
        let server = Server::start(theirs);
        let client = Client::start(ours);
        client.knows(&server);
        client.send(0..1);
        eventually("the stream is refused", || server.refused() > 0).await;
        eventually("the sender is told", || client.unreachable.load(Ordering::SeqCst) > 0).await;
        assert_eq!(server.inbox.regions(), [0; 0]);
    }
}

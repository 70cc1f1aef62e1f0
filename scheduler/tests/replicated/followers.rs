//! Every member answers, whoever leads.

use std::time::Duration;

use proto::flotillapb::bootstrap_client::BootstrapClient;
use proto::flotillapb::operations_client::OperationsClient;
use proto::flotillapb::{ConfigRequest, InitialRegionsRequest};
use proto::keyspacepb::LoadKeyspaceRequest;
use proto::keyspacepb::keyspace_client::KeyspaceClient;
use proto::pdpb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::group::{DEADLINE, Group, number, store};

/// What a page holds.
async fn get(address: &str, path: &str) -> (u16, String) {
    let mut http = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    http.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    http.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn every_member_names_the_same_leader_and_members() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let expected = group.members(leader).await.unwrap();
    assert_eq!(expected.members.len(), 3);
    let url = format!("http://{}", group.address(leader));
    assert_eq!(expected.leader.as_ref().unwrap().client_urls, [url]);
    for at in 0..3 {
        let shown = group.members(at).await.unwrap();
        // The urls between members differ here: each has ways of its own.
        assert_eq!(
            shown.leader.unwrap().client_urls,
            expected.leader.as_ref().unwrap().client_urls
        );
        assert_eq!(shown.header, expected.header);
        let names = |members: &[pdpb::Member]| -> Vec<_> {
            members.iter().map(|m| (m.name.clone(), m.member_id, m.client_urls.clone())).collect()
        };
        assert_eq!(names(&shown.members), names(&expected.members));
    }
}

#[tokio::test]
async fn a_follower_answers_everything_in_the_leaders_place() {
    let group = Group::start(3).await;
    let header = group.header().await;
    let follower = group.followers().await[0];
    let mut pd = group.pd(follower);
    for id in 1..=3 {
        let request = pdpb::PutStoreRequest { header, store: store(id) };
        let put = pd.put_store(request).await.unwrap().into_inner();
        assert_eq!(put.header.unwrap().error, None);
    }
    let region = pd.get_region(pdpb::GetRegionRequest { header, ..Default::default() }).await;
    assert!(region.unwrap().into_inner().region.is_some());
    let id = pd.alloc_id(pdpb::AllocIdRequest { header }).await.unwrap().into_inner().id;
    assert!(id > 0);
    let channel = group.channel(follower);
    let plan = InitialRegionsRequest { header, store_id: 1 };
    let plan = BootstrapClient::new(channel.clone()).initial_regions(plan).await.unwrap();
    assert!(plan.into_inner().planned);
    let keyspace = LoadKeyspaceRequest { header, name: "DEFAULT".into() };
    let keyspace = KeyspaceClient::new(channel.clone()).load_keyspace(keyspace).await.unwrap();
    assert!(keyspace.into_inner().keyspace.is_some());
    let config = ConfigRequest { header, set: vec![] };
    let config = OperationsClient::new(channel).config(config).await.unwrap();
    assert_eq!(config.into_inner().header.unwrap().cluster_id, header.unwrap().cluster_id);
    // A refusal comes through as it is.
    let foreign = Some(pdpb::RequestHeader { cluster_id: 5, sender_id: 0 });
    let refused = pd.alloc_id(pdpb::AllocIdRequest { header: foreign }).await.unwrap().into_inner();
    assert!(refused.header.unwrap().error.unwrap().message.contains("cluster 5"));
}

#[tokio::test]
async fn a_stream_through_a_follower_works_and_ends_with_the_leader() {
    let mut group = Group::start(3).await;
    let header = group.header().await;
    let (leader, follower) = (group.leader().await, group.followers().await[0]);
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let request = pdpb::TsoRequest { header, count: 1, ..Default::default() };
    sender.send(request.clone()).await.unwrap();
    let mut stream =
        group.pd(follower).tso(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let first = number(&stream.message().await.unwrap().unwrap());
    sender.send(request).await.unwrap();
    let second = number(&stream.message().await.unwrap().unwrap());
    assert!(second > first);
    group.kill(leader);
    let ended = tokio::time::timeout(DEADLINE, stream.message()).await;
    assert!(ended.expect("it ends by itself").is_err());
    assert!(group.any_timestamp(header).await > second);
}

#[tokio::test]
async fn calls_to_a_follower_outlast_a_failover() {
    let mut group = Group::start(3).await;
    let header = group.header().await;
    let (leader, follower) = (group.leader().await, group.followers().await[0]);
    group.kill(leader);
    // At once, while the follower still believes in the dead one. It waits rather than refuse.
    let mut pd = group.pd(follower);
    let mut tries = 0;
    let id = loop {
        tries += 1;
        match pd.alloc_id(pdpb::AllocIdRequest { header }).await {
            Ok(answer) => break answer.into_inner().id,
            // Three seconds of patience are long, but a machine can be slower than that.
            Err(status) => assert!(status.code() == Code::Unavailable && tries < 10, "{status}"),
        }
    };
    assert!(id > 0);
}

#[tokio::test]
async fn tools_find_their_pages_at_every_member() {
    let group = Group::start(3).await;
    let header = group.header().await;
    let mut pd = group.pd(0);
    for id in 1..=3 {
        let request = pdpb::PutStoreRequest { header, store: store(id) };
        pd.put_store(request).await.unwrap();
    }
    for at in 0..3 {
        let address = group.address(at);
        for (path, part) in [
            ("/pd/api/v1/regions", "\"count\": 2"),
            ("/pd/api/v1/stores", "\"count\": 3"),
            ("/pd/api/v1/members", "\"name\": \"member-2\""),
            ("/metrics", "flotilla_scheduler_has_leader 1"),
            ("/readyz", "ok"),
        ] {
            let (status, body) = get(&address, path).await;
            assert_eq!(status, 200, "{path} at {at}: {body}");
            assert!(body.contains(part), "{path} at {at}: {body}");
        }
    }
    // Who is heard is known after the first heartbeats.
    let start = std::time::Instant::now();
    loop {
        let (_, body) = get(&group.address(0), "/pd/api/v1/health").await;
        if body.matches("\"health\": true").count() == 3 {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "{body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

//! Every member answers, whoever leads.

use proto::flotillapb::bootstrap_client::BootstrapClient;
use proto::flotillapb::operations_client::OperationsClient;
use proto::flotillapb::{ConfigRequest, InitialRegionsRequest};
use proto::keyspacepb::LoadKeyspaceRequest;
use proto::keyspacepb::keyspace_client::KeyspaceClient;
use proto::pdpb;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::group::{DEADLINE, Group, number, store};

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

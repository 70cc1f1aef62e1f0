//! Two thousand reports at once, through the real service.

use std::time::Duration;

use proto::metapb;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{self, RegionHeartbeatRequest};
use scheduler::server::{Config, Surroundings, serve};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::fixture::{key, peer};

const DEADLINE: Duration = Duration::from_secs(60);
const STORES: u64 = 10;
const REGIONS: u64 = 2000;

fn request(cluster_id: u64, id: u64) -> RegionHeartbeatRequest {
    let store = id % STORES + 1;
    let bound = |at: u64| if at == 0 || at == REGIONS { String::new() } else { format!("{at:05}") };
    let leader = peer(100_000 + id, store);
    RegionHeartbeatRequest {
        header: Some(pdpb::RequestHeader { cluster_id, sender_id: store }),
        region: Some(metapb::Region {
            id: 1000 + id,
            start_key: key(&bound(id)),
            end_key: key(&bound(id + 1)),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 2, version: 2 }),
            peers: vec![leader],
        }),
        leader: Some(leader),
        term: 6,
        ..Default::default()
    }
}

#[tokio::test]
async fn concurrent_handle_region_3c() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (_stop, stopped) = oneshot::channel::<()>();
    let config = Config { initial_stores: 1000, ..Config::default() };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let shutdown = async {
        let _ = stopped.await;
    };
    tokio::spawn(serve(config, Surroundings::in_memory(listener, logger), shutdown));
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut pd = PdClient::new(channel);
    let members = pd.get_members(pdpb::GetMembersRequest::default()).await.unwrap();
    let cluster_id = members.into_inner().header.unwrap().cluster_id;
    for id in 1..=STORES {
        let store = metapb::Store { id, address: format!("store-{id}:1"), ..Default::default() };
        let header = Some(pdpb::RequestHeader { cluster_id, sender_id: id });
        let request = pdpb::PutStoreRequest { header, store: Some(store) };
        let answer = pd.put_store(request).await.unwrap().into_inner();
        assert_eq!(answer.header.unwrap().error, None);
    }

    let mut senders = Vec::new();
    let mut first = None;
    for store in 0..STORES {
        let (sender, reports) = mpsc::channel(REGIONS as usize);
        let answers = pd.region_heartbeat(ReceiverStream::new(reports)).await.unwrap().into_inner();
        senders.push(sender);
        if store == 0 {
            first = Some(answers);
        } else {
            // Somebody has to read what the others are told.
            let mut answers = answers;
            tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
        }
    }
    let reporting = (0..REGIONS).map(|id| {
        let sender = senders[(id % STORES) as usize].clone();
        tokio::spawn(async move { sender.send(request(cluster_id, id)).await.unwrap() })
    });
    for report in reporting.collect::<Vec<_>>() {
        report.await.unwrap();
    }
    // One peer is too few: the first store is told to add one.
    let mut first = first.unwrap();
    let told = tokio::time::timeout(DEADLINE, async {
        loop {
            let answer = first.message().await.unwrap().expect("the stream goes on");
            assert_eq!(answer.header.as_ref().unwrap().error, None);
            if answer.change_peer_v2.is_some() {
                return answer;
            }
        }
    });
    let told = told.await.expect("the first store is told something");
    assert_eq!(told.target_peer.unwrap().store_id, 1);

    let all_known = tokio::time::timeout(DEADLINE, async {
        loop {
            let header = Some(pdpb::RequestHeader { cluster_id, sender_id: 0 });
            let request = pdpb::ScanRegionsRequest { header, ..Default::default() };
            let listed = pd.scan_regions(request).await;
            if listed.is_ok_and(|listed| listed.into_inner().regions.len() as u64 == REGIONS) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    all_known.await.expect("every region is known");
}

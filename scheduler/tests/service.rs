//! The scheduler over gRPC: what a client and a store see, over restarts, refusals and failures.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use engine::mem::MemEngine;
use proto::flotillapb::InitialRegionsRequest;
use proto::flotillapb::bootstrap_client::BootstrapClient;
use proto::keyspacepb::LoadKeyspaceRequest;
use proto::keyspacepb::keyspace_client::KeyspaceClient;
use proto::metapb;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{self, ErrorType};
use scheduler::server::{Config, Error, Surroundings, serve};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

/// Nothing here takes long; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running scheduler and a client of it.
struct Rig {
    url: String,
    channel: Channel,
    pd: PdClient<Channel>,
    cluster_id: u64,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), Error>>,
}

impl Rig {
    async fn start(engine: &Arc<MemEngine>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let config = Config { cluster_id_seed: Some(1), ..Config::default() };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let engine = Arc::clone(engine) as Arc<dyn engine::Engine>;
        let surroundings = Surroundings { engine, ..Surroundings::in_memory(listener, logger) };
        let shutdown = async {
            let _ = stopped.await;
        };
        let served = tokio::spawn(serve(config, surroundings, shutdown));
        let channel = Channel::from_shared(url.clone()).unwrap().connect().await.unwrap();
        let mut pd = PdClient::new(channel.clone());
        let members = pd.get_members(pdpb::GetMembersRequest::default()).await.unwrap();
        let cluster_id = members.into_inner().header.unwrap().cluster_id;
        Self { url, channel, pd, cluster_id, stop, served }
    }

    /// A fresh engine and three registered stores.
    async fn bootstrapped() -> Self {
        let mut rig = Self::start(&Arc::new(MemEngine::new())).await;
        for id in 1..=3 {
            assert_eq!(rig.put_store(id).await, None);
        }
        rig
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(DEADLINE, self.served).await.unwrap().unwrap().unwrap();
    }

    fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader { cluster_id: self.cluster_id, sender_id: 0 })
    }

    async fn put_store(&mut self, id: u64) -> Option<pdpb::Error> {
        let address = format!("127.0.0.1:{}", 20_160 + id);
        let store = Some(metapb::Store { id, address, ..Default::default() });
        let request = pdpb::PutStoreRequest { header: self.header(), store };
        self.pd.put_store(request).await.unwrap().into_inner().header.unwrap().error
    }

    async fn alloc_id(&mut self) -> u64 {
        let request = pdpb::AllocIdRequest { header: self.header() };
        self.pd.alloc_id(request).await.unwrap().into_inner().id
    }

    async fn get_region(&mut self, key: &[u8]) -> pdpb::GetRegionResponse {
        let region_key = key.to_vec().into();
        let request =
            pdpb::GetRegionRequest { header: self.header(), region_key, need_buckets: false };
        self.pd.get_region(request).await.unwrap().into_inner()
    }

    fn tso_request(&self, count: u32) -> pdpb::TsoRequest {
        pdpb::TsoRequest { header: self.header(), count, ..Default::default() }
    }

    /// Sends the requests on one stream and ends it; returns every answer.
    async fn tso(
        &mut self,
        requests: Vec<pdpb::TsoRequest>,
    ) -> Vec<Result<pdpb::TsoResponse, tonic::Status>> {
        let mut stream = self.pd.tso(tokio_stream::iter(requests)).await.unwrap().into_inner();
        let mut answers = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(answer)) => answers.push(Ok(answer)),
                Ok(None) => return answers,
                Err(status) => {
                    answers.push(Err(status));
                    return answers;
                }
            }
        }
    }
}

fn number(response: &pdpb::TsoResponse) -> u64 {
    let timestamp = response.timestamp.as_ref().unwrap();
    assert!(timestamp.logical < 1 << 18 && timestamp.logical + 1 >= i64::from(response.count));
    (timestamp.physical as u64) << 18 | timestamp.logical as u64
}

#[tokio::test]
async fn members_name_one_leader_that_can_be_connected_to() {
    let mut rig = Rig::start(&Arc::new(MemEngine::new())).await;
    let request = pdpb::GetMembersRequest::default();
    let members = rig.pd.get_members(request).await.unwrap().into_inner();
    assert_eq!(members.leader.unwrap().client_urls, [rig.url.clone()]);
    assert_eq!(members.members.len(), 1);
    assert_ne!(rig.cluster_id, 0);
    rig.stop().await;
}

#[tokio::test]
async fn timestamps_grow_within_a_stream_over_streams_and_over_restarts() {
    let engine = Arc::new(MemEngine::new());
    let mut last = 0;
    for _life in 0..3 {
        let mut rig = Rig::start(&engine).await;
        for _stream in 0..2 {
            let counts = [1, 64, 1, 262_143, 262_143, 5];
            let requests: Vec<_> = counts.iter().map(|&count| rig.tso_request(count)).collect();
            let answers = rig.tso(requests).await;
            assert_eq!(answers.len(), counts.len());
            for (answer, count) in answers.into_iter().zip(counts) {
                let answer = answer.unwrap();
                assert_eq!(answer.count, count);
                let smallest = number(&answer) - u64::from(count - 1);
                assert!(smallest > last, "{smallest} after {last}");
                last = number(&answer);
            }
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn ids_are_unique_over_concurrency_and_restarts() {
    let engine = Arc::new(MemEngine::new());
    let mut seen = std::collections::BTreeSet::new();
    for _life in 0..3 {
        let rig = Rig::start(&engine).await;
        let clients = (0..8).map(|_| {
            let (mut pd, header) = (rig.pd.clone(), rig.header());
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..200 {
                    let request = pdpb::AllocIdRequest { header };
                    ids.push(pd.alloc_id(request).await.unwrap().into_inner().id);
                }
                ids
            })
        });
        for client in clients.collect::<Vec<_>>() {
            for id in client.await.unwrap() {
                assert!(id > 0 && seen.insert(id), "{id} twice");
            }
        }
        rig.stop().await;
    }
    assert_eq!(seen.len(), 3 * 8 * 200);
}

#[tokio::test]
async fn a_bad_timestamp_request_ends_the_stream_with_a_reason() {
    let mut rig = Rig::start(&Arc::new(MemEngine::new())).await;
    for count in [0, 262_144] {
        let requests = vec![rig.tso_request(1), rig.tso_request(count), rig.tso_request(1)];
        let answers = rig.tso(requests).await;
        assert_eq!(answers.len(), 2, "nothing after the error");
        let status = answers[1].as_ref().unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let expected = format!("count: must be between 1 and 262143, not {count}");
        assert_eq!(status.message(), expected);
    }
    let mut foreign = rig.tso_request(1);
    foreign.header = Some(pdpb::RequestHeader { cluster_id: 5, sender_id: 0 });
    let status = rig.tso(vec![foreign]).await.remove(0).unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("cluster 5"), "{status}");
    rig.stop().await;
}

#[tokio::test]
async fn requests_for_another_cluster_are_refused_with_both_ids() {
    let mut rig = Rig::start(&Arc::new(MemEngine::new())).await;
    for header in [None, Some(pdpb::RequestHeader { cluster_id: 5, sender_id: 0 })] {
        let asked = header.map_or(0, |header| header.cluster_id);
        let response = rig.pd.alloc_id(pdpb::AllocIdRequest { header }).await.unwrap().into_inner();
        let answered = response.header.unwrap();
        assert_eq!(answered.cluster_id, rig.cluster_id);
        let expected =
            format!("the request is for cluster {asked}, this is cluster {}", rig.cluster_id);
        assert_eq!(answered.error.unwrap().message, expected);
        assert_eq!(response.id, 0);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_cluster_comes_to_be_and_survives_a_restart() {
    let engine = Arc::new(MemEngine::new());
    let mut rig = Rig::start(&engine).await;
    let mut bootstrap = BootstrapClient::new(rig.channel.clone());
    let ask = |rig: &Rig, store_id| InitialRegionsRequest { header: rig.header(), store_id };

    let early = rig.get_region(b"k").await;
    let error = early.header.unwrap().error.unwrap();
    assert_eq!(error.r#type(), ErrorType::NotBootstrapped);
    assert_eq!(error.message, "the cluster has no regions yet: 0 of 3 stores registered");

    let mut stores = Vec::new();
    for _ in 0..3 {
        let id = rig.alloc_id().await;
        assert_eq!(rig.put_store(id).await, None);
        stores.push(id);
        let plan = bootstrap.initial_regions(ask(&rig, stores[0])).await.unwrap().into_inner();
        assert_eq!(plan.planned, stores.len() == 3);
        assert_eq!(plan.stores_registered as usize, stores.len());
    }
    let plan = bootstrap.initial_regions(ask(&rig, stores[2])).await.unwrap().into_inner();
    assert_eq!(plan.regions.len(), 2);
    for region in &plan.regions {
        let homes: Vec<_> = region.peers.iter().map(|peer| peer.store_id).collect();
        assert!(stores.iter().all(|store| homes.contains(store)), "{homes:?}");
    }
    let stranger = bootstrap.initial_regions(ask(&rig, 999)).await.unwrap().into_inner();
    assert_eq!(stranger.header.unwrap().error.unwrap().r#type(), ErrorType::EntryNotFound);
    let cluster_id = rig.cluster_id;
    rig.stop().await;

    let mut rig = Rig::start(&engine).await;
    assert_eq!(rig.cluster_id, cluster_id);
    let mut bootstrap = BootstrapClient::new(rig.channel.clone());
    let again = bootstrap.initial_regions(ask(&rig, stores[2])).await.unwrap().into_inner();
    assert_eq!(again.regions, plan.regions);
    assert_eq!(rig.get_region(b"k").await.region, Some(plan.regions[0].clone()));
    rig.stop().await;
}

#[tokio::test]
async fn a_lookup_waits_for_the_region_that_is_about_to_be() {
    let mut rig = Rig::start(&Arc::new(MemEngine::new())).await;
    for id in 1..=2 {
        rig.put_store(id).await;
    }
    let (mut pd, header) = (rig.pd.clone(), rig.header());
    let lookup = tokio::spawn(async move {
        let request = pdpb::GetRegionRequest { header, ..Default::default() };
        pd.get_region(request).await.unwrap().into_inner()
    });
    rig.put_store(3).await;
    let found = tokio::time::timeout(DEADLINE, lookup).await.unwrap().unwrap();
    assert!(found.region.is_some() && found.header.unwrap().error.is_none());
    rig.stop().await;
}

#[tokio::test]
async fn region_heartbeats_move_the_leader_and_stale_ones_are_told() {
    let mut rig = Rig::bootstrapped().await;
    let region = rig.get_region(b"").await.region.unwrap();
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let stream = rig.pd.region_heartbeat(ReceiverStream::new(requests)).await.unwrap();
    let mut answers = stream.into_inner();
    let header = rig.header();
    let heartbeat = |region: &metapb::Region, term| pdpb::RegionHeartbeatRequest {
        header,
        leader: Some(region.peers[1]),
        region: Some(region.clone()),
        term,
        ..Default::default()
    };
    sender.send(heartbeat(&region, 6)).await.unwrap();
    let mut stale = region.clone();
    stale.region_epoch = None;
    sender.send(heartbeat(&stale, 7)).await.unwrap();
    // Answers come in order, and only for what was refused: the first one has been taken in.
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.region_id, region.id);
    assert!(answer.header.unwrap().error.unwrap().message.contains("stale"));
    let found = rig.get_region(b"").await;
    assert_eq!(found.leader, Some(region.peers[1]));
    assert_eq!(found.region, Some(region.clone()));

    let mut halves = [region.clone(), region.clone()];
    let middle: bytes::Bytes = proto::codec::encode(b"m");
    halves[0].end_key = middle.clone();
    halves[1].start_key = middle;
    halves[1].id = rig.alloc_id().await;
    for half in &mut halves {
        half.region_epoch = Some(metapb::RegionEpoch { conf_ver: 1, version: 2 });
    }
    sender.send(heartbeat(&halves[0], 6)).await.unwrap();
    sender.send(heartbeat(&halves[1], 6)).await.unwrap();
    drop(sender);
    assert!(answers.message().await.unwrap().is_none());
    let scan = pdpb::ScanRegionsRequest { header: rig.header(), ..Default::default() };
    let scan = rig.pd.scan_regions(scan).await.unwrap().into_inner();
    assert_eq!(scan.region_metas.len(), 3);
    assert_eq!(scan.region_metas[..2], halves);
    let new_form: Vec<_> = scan.regions.into_iter().map(|region| region.region.unwrap()).collect();
    assert_eq!(new_form, scan.region_metas);
    assert_eq!(scan.leaders.len(), 3);

    let after = pdpb::GetRegionRequest {
        header: rig.header(),
        region_key: halves[1].start_key.clone(),
        need_buckets: false,
    };
    let previous = rig.pd.get_prev_region(after).await.unwrap().into_inner();
    assert_eq!(previous.region.unwrap().id, halves[0].id);
    rig.stop().await;
}

#[tokio::test]
async fn stores_are_shown_with_their_heartbeats_and_refused_by_name() {
    let mut rig = Rig::bootstrapped().await;
    let stats = pdpb::StoreStats { store_id: 2, region_count: 9, ..Default::default() };
    let beat = pdpb::StoreHeartbeatRequest { header: rig.header(), stats: Some(stats) };
    let answer = rig.pd.store_heartbeat(beat).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().error, None);
    let header = rig.header();
    let get = |store_id| pdpb::GetStoreRequest { header, store_id };
    let store = rig.pd.get_store(get(2)).await.unwrap().into_inner();
    assert_eq!(store.stats.unwrap().region_count, 9);
    assert!(store.store.unwrap().last_heartbeat > 0);
    let unknown = rig.pd.get_store(get(9)).await.unwrap().into_inner();
    assert_eq!(unknown.header.unwrap().error.unwrap().message, "store 9 is not registered");
    let all = pdpb::GetAllStoresRequest { header: rig.header(), ..Default::default() };
    assert_eq!(rig.pd.get_all_stores(all).await.unwrap().into_inner().stores.len(), 3);

    let thief = metapb::Store { id: 8, address: "127.0.0.1:20161".into(), ..Default::default() };
    let put = pdpb::PutStoreRequest { header: rig.header(), store: Some(thief) };
    let error = rig.pd.put_store(put).await.unwrap().into_inner().header.unwrap().error.unwrap();
    assert_eq!(error.r#type(), ErrorType::DuplicatedEntry);
    assert!(error.message.starts_with("address 127.0.0.1:20161 belongs to store 1"));
    rig.stop().await;
}

#[tokio::test]
async fn the_default_key_space_exists_and_no_other() {
    let rig = Rig::start(&Arc::new(MemEngine::new())).await;
    let mut keyspaces = KeyspaceClient::new(rig.channel.clone());
    let load = |name: &str| LoadKeyspaceRequest { header: rig.header(), name: name.to_owned() };
    let found = keyspaces.load_keyspace(load("DEFAULT")).await.unwrap().into_inner();
    assert_eq!(found.keyspace.unwrap().id, 0);
    let missing = keyspaces.load_keyspace(load("other")).await.unwrap().into_inner();
    assert!(missing.keyspace.is_none() && missing.header.unwrap().error.is_some());
    rig.stop().await;
}

#[tokio::test]
async fn the_safe_point_only_grows() {
    let mut rig = Rig::start(&Arc::new(MemEngine::new())).await;
    for (asked, answered) in [(10, 10), (5, 10), (11, 11)] {
        let request = pdpb::UpdateGcSafePointRequest { header: rig.header(), safe_point: asked };
        let response = rig.pd.update_gc_safe_point(request).await.unwrap().into_inner();
        assert_eq!(response.new_safe_point, answered);
    }
    rig.stop().await;
}

#[tokio::test]
async fn timestamps_are_unique_over_concurrent_streams() {
    let rig = Rig::start(&Arc::new(MemEngine::new())).await;
    let clients = (0..10).map(|_| {
        let (mut pd, request) = (rig.pd.clone(), rig.tso_request(10));
        tokio::spawn(async move {
            let requests = tokio_stream::iter(vec![request; 100]);
            let mut stream = pd.tso(requests).await.unwrap().into_inner();
            let mut largest = Vec::new();
            while let Some(answer) = stream.message().await.unwrap() {
                largest.push(number(&answer));
            }
            assert!(largest.is_sorted());
            largest
        })
    });
    let mut seen = std::collections::BTreeSet::new();
    for client in clients.collect::<Vec<_>>() {
        for largest in client.await.unwrap() {
            assert!((largest - 9..=largest).all(|timestamp| seen.insert(timestamp)));
        }
    }
    assert_eq!(seen.len(), 10 * 100 * 10);
    rig.stop().await;
}

#[tokio::test]
async fn tools_find_health_reflection_and_the_number_of_regions() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_client};

    let rig = Rig::bootstrapped().await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(rig.channel.clone());
    for service in ["", "pdpb.PD"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }

    let mut reflection = server_reflection_client::ServerReflectionClient::new(rig.channel.clone());
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { message_request: Some(list), ..Default::default() };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap()
        .into_inner();
    let listed = format!("{:?}", answers.message().await.unwrap());
    assert!(listed.contains("pdpb.PD") && listed.contains("flotilla.Bootstrap"), "{listed}");
    drop(answers);

    let mut http =
        tokio::net::TcpStream::connect(rig.url.trim_start_matches("http://")).await.unwrap();
    let request = b"GET /pd/api/v1/regions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    http.write_all(request).await.unwrap();
    let mut reply = String::new();
    http.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(reply.contains("\"count\": 2,"), "{reply}");
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_ends_idle_timestamp_streams_with_an_error() {
    let mut rig = Rig::start(&Arc::new(MemEngine::new())).await;
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    sender.send(rig.tso_request(1)).await.unwrap();
    let mut stream = rig.pd.tso(ReceiverStream::new(requests)).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let ended = tokio::spawn(async move { stream.message().await });
    rig.stop().await;
    let status = tokio::time::timeout(DEADLINE, ended).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "the scheduler is shutting down");
    drop(sender);
}

#[tokio::test]
async fn a_failed_sync_ends_the_scheduler_and_nothing_is_promised_after_it() {
    let engine = Arc::new(MemEngine::new());
    let mut rig = Rig::start(&engine).await;
    engine.fail_next_sync("the disk is gone");
    let store = Some(metapb::Store { id: 1, address: "a:1".into(), ..Default::default() });
    let request = pdpb::PutStoreRequest { header: rig.header(), store };
    let status = rig.pd.put_store(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("the disk is gone"), "{status}");
    let served = tokio::time::timeout(DEADLINE, rig.served).await.unwrap().unwrap();
    assert!(matches!(served, Err(Error::Stopped(reason)) if reason.contains("the disk is gone")));
}

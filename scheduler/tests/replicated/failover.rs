//! What survives the loss of the member that leads: every promise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::pdpb::{self, ErrorType};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::group::{DEADLINE, Group, number, store};

/// Leaders killed one after the other.
const FAILOVERS: usize = 10;
/// Ids asked for at once, and how often.
const ASKERS: usize = 10;
const IDS_EACH: usize = 200;

#[tokio::test]
async fn timestamps_never_fall_back_over_ten_failovers() {
    let mut group = Group::start(3).await;
    let header = group.header().await;
    let mut last = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..FAILOVERS {
        for _ in 0..5 {
            let timestamp = group.any_timestamp(header).await;
            assert!(timestamp > last, "round {round}: {timestamp} after {last}");
            last = timestamp;
        }
        let leader = group.leader().await;
        // Every other time the next leader's clock is far behind.
        for at in 0..3 {
            group.jump(at, Duration::from_secs(3600), round % 2 == 0);
        }
        group.kill(leader);
        let killed = Instant::now();
        let timestamp = group.any_timestamp(header).await;
        slowest = slowest.max(killed.elapsed());
        assert!(timestamp > last, "after kill {round}: {timestamp} after {last}");
        last = timestamp;
        group.run(leader).await;
    }
    // Clients give up after four to five seconds; a loaded machine is given some more.
    assert!(slowest < Duration::from_secs(10), "a failover took {slowest:?}");
}

#[tokio::test]
async fn ids_are_unique_however_many_ask_and_whoever_leads() {
    let mut group = Group::start(3).await;
    let header = group.header().await;
    let done = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..ASKERS)
        .map(|asker| {
            let clients: Vec<_> = (0..group.count()).map(|at| group.pd(at)).collect();
            tokio::spawn(async move {
                let (mut ids, start) = (Vec::new(), Instant::now());
                let mut turn = asker;
                while ids.len() < IDS_EACH {
                    turn += 1;
                    let mut pd = clients[turn % clients.len()].clone();
                    // Answers that were lost are ids that were wasted; that is all.
                    if let Ok(answer) = pd.alloc_id(pdpb::AllocIdRequest { header }).await {
                        ids.push(answer.into_inner().id);
                    } else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    assert!(start.elapsed() < 2 * DEADLINE, "{} ids only", ids.len());
                }
                ids
            })
        })
        .collect();
    let finished = done.clone();
    let gather = tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        for asker in askers {
            for id in asker.await.unwrap() {
                assert!(id > 0 && seen.insert(id), "{id} was given twice");
            }
        }
        finished.store(true, Ordering::Relaxed);
        seen.len()
    });
    let mut failovers = 0;
    while failovers == 0 || (!done.load(Ordering::Relaxed) && failovers < 5) {
        let leader = group.leader().await;
        group.kill(leader);
        group.leader().await;
        group.run(leader).await;
        failovers += 1;
    }
    assert_eq!(gather.await.unwrap(), ASKERS * IDS_EACH);
}

#[tokio::test]
async fn a_deposed_leader_ends_its_timestamp_streams_with_an_error() {
    let group = Group::start(3).await;
    let (header, leader) = (group.header().await, group.leader().await);
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let request = pdpb::TsoRequest { header, count: 1, ..Default::default() };
    sender.send(request).await.unwrap();
    let stream = group.pd(leader).tso(ReceiverStream::new(requests)).await.unwrap();
    let mut stream = stream.into_inner();
    let before = number(&stream.message().await.unwrap().unwrap());

    // Cut off from the others, it is deposed without being told. Nobody asks it anything meanwhile.
    group.isolate(leader, true);
    let ended = tokio::time::timeout(DEADLINE, stream.message()).await;
    let status = ended.expect("the stream ends by itself").unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    drop(sender);

    // The others go on, behind everything it gave out; it gives out nothing more.
    let others: Vec<_> = (0..3).filter(|at| *at != leader).collect();
    let after = loop {
        match group.timestamp(others[0], header).await {
            Ok(timestamp) => break timestamp,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(after > before, "{after} after {before}");
    let refused = group.timestamp(leader, header).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    group.isolate(leader, false);
    assert!(group.any_timestamp(header).await > after);
}

#[tokio::test]
async fn a_member_that_stops_hands_the_lead_over() {
    let mut group = Group::start(3).await;
    let header = group.header().await;
    let before = group.any_timestamp(header).await;
    let leader = group.leader().await;
    group.stop(leader).await;
    assert!(group.any_timestamp(header).await > before);
    assert_ne!(group.leader().await, leader);
}

#[tokio::test]
async fn the_cluster_keeps_its_id_its_stores_and_its_bootstrap() {
    let mut group = Group::start(3).await;
    let header = group.header().await;
    for id in 1..=3 {
        let request = pdpb::PutStoreRequest { header, store: store(id) };
        let put = group.pd(group.leader().await).put_store(request).await.unwrap().into_inner();
        assert_eq!(put.header.unwrap().error, None);
    }
    for _ in 0..3 {
        let leader = group.leader().await;
        group.kill(leader);
        assert_eq!(group.header().await, header, "another cluster id");
        let mut pd = group.pd(group.leader().await);
        let bootstrap = pdpb::BootstrapRequest { header, ..Default::default() };
        let answer = pd.bootstrap(bootstrap).await.unwrap().into_inner();
        let error = answer.header.unwrap().error.unwrap();
        assert_eq!(error.r#type(), ErrorType::AlreadyBootstrapped);
        let request = pdpb::GetAllStoresRequest { header, ..Default::default() };
        let stores = pd.get_all_stores(request).await.unwrap().into_inner().stores;
        assert_eq!(stores.iter().map(|store| store.id).collect::<Vec<_>>(), [1, 2, 3]);
        let request = pdpb::GetRegionRequest { header, ..Default::default() };
        let found = pd.get_region(request).await.unwrap().into_inner();
        assert!(found.region.is_some(), "{found:?}");
        group.run(leader).await;
    }
}

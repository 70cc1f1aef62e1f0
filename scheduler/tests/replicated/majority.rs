//! Without a majority nothing is promised, everybody says so, and nothing is forgotten.

use std::time::{Duration, Instant};

use proto::{metapb, pdpb};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::group::{DEADLINE, Group, store};
use crate::pages::get;

#[tokio::test]
async fn a_lost_majority_is_told_and_comes_back_with_everything() {
    let mut group = Group::start(3).await;
    let header = group.header().await;
    let put = pdpb::PutStoreRequest { header, store: store(1) };
    group.pd(group.leader().await).put_store(put).await.unwrap();
    let before = group.any_timestamp(header).await;
    let leader = group.leader().await;
    let followers = group.followers().await;
    for at in &followers {
        group.kill(*at);
    }
    // The survivor, which led, ceases to promise anything …
    let start = Instant::now();
    let status = loop {
        match group.timestamp(leader, header).await {
            Err(status) => break status,
            Ok(_) => assert!(start.elapsed() < DEADLINE, "it goes on alone"),
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let status = group.members(leader).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "an error, not a response without a leader");
    // … and says that it is not ready.
    let mut health = HealthClient::new(group.channel(leader));
    loop {
        let request = HealthCheckRequest { service: "pdpb.PD".into() };
        let status = health.check(request).await.unwrap().into_inner().status();
        if status == ServingStatus::NotServing {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    group.run(followers[0]).await;
    assert!(group.any_timestamp(header).await > before);
    let request = pdpb::GetStoreRequest { header, store_id: 1 };
    let found = group.pd(leader).get_store(request).await.unwrap().into_inner();
    assert_eq!(found.store.unwrap().id, 1);
}

#[tokio::test]
async fn all_members_stop_and_start_again() {
    let mut group = Group::start(3).await;
    let header = group.header().await;
    let mut last = group.any_timestamp(header).await;
    for round in 0..2 {
        for at in 0..3 {
            match round {
                0 => group.stop(at).await,
                _ => group.kill(at),
            }
        }
        for at in 0..3 {
            group.jump(at, Duration::from_secs(7200), true);
            group.run(at).await;
        }
        assert_eq!(group.header().await, header);
        let timestamp = group.any_timestamp(header).await;
        assert!(timestamp > last, "{timestamp} after {last}");
        last = timestamp;
    }
}

#[tokio::test]
async fn a_member_that_was_away_catches_up_and_may_lead() {
    let mut group = Group::start(3).await;
    let header = group.header().await;
    let away = group.followers().await[0];
    group.kill(away);
    let mut last = 0;
    for _ in 0..20 {
        let request = pdpb::AllocIdRequest { header };
        let mut pd = group.pd(group.leader().await);
        last = pd.alloc_id(request).await.unwrap().into_inner().id;
    }
    group.run(away).await;
    let leader = group.leader().await;
    let other = (0..3).find(|at| *at != away && *at != leader).unwrap();
    group.stop(leader).await;
    // With the third one away too, the one that was away is half of the majority.
    let next = group.pd(away).alloc_id(pdpb::AllocIdRequest { header }).await.unwrap();
    assert!(next.into_inner().id > last);
    assert!([away, other].contains(&group.leader().await));
}

#[tokio::test]
async fn a_member_that_lost_its_disk_does_not_take_part_as_if_it_were_new() {
    let mut group = Group::start(3).await;
    let lost = group.followers().await[0];
    group.everybody_took_part().await;
    group.kill(lost);
    group.empty(lost);
    group.run(lost).await;
    let refused = group.ended(lost).await.unwrap_err().to_string();
    assert!(refused.contains("it is empty, but member"), "{refused}");
    // The others go on without it.
    let header = group.header().await;
    group.any_timestamp(header).await;
}

/// Changes after which the log is cut short, so that whoever missed them needs a snapshot; and a few more.
const CHANGES: u64 = 4_500;

#[tokio::test]
async fn a_member_that_starts_late_is_given_a_snapshot() {
    let mut group = Group::start_some(3, 2).await;
    let header = group.header().await;
    let pd = group.pd(group.leader().await);
    let mut version = 0;
    while version < CHANGES {
        // Each differs from the one before, so each is an entry of the log.
        let batch = (0..100).map(|_| {
            version += 1;
            let record = metapb::Store { version: version.to_string(), ..store(1).unwrap() };
            let (mut pd, store) = (pd.clone(), Some(record));
            async move { pd.put_store(pdpb::PutStoreRequest { header, store }).await }
        });
        for put in futures::future::join_all(batch.collect::<Vec<_>>()).await {
            assert_eq!(put.unwrap().into_inner().header.unwrap().error, None);
        }
    }
    let version = last_version(&group).await;
    let start = Instant::now();
    while group.first_in_log(group.leader().await) < CHANGES / 2 {
        assert!(start.elapsed() < DEADLINE, "the log is not cut");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    group.run(2).await;
    // From its own data it knows which cluster it belongs to.
    let start = Instant::now();
    while group.members(2).await.ok().and_then(|members| members.header) != Some(answered(header)) {
        assert!(start.elapsed() < DEADLINE, "it knows nothing");
    }
    let (_, metrics) = get(&group.address(2), "/metrics").await;
    assert!(metrics.contains("flotilla_scheduler_snapshots_installed 1"), "{metrics}");
    // It takes part: with one of the others it goes on.
    let leader = group.leader().await;
    group.kill(leader);
    assert_eq!(last_version(&group).await, version);
}

/// What the store that was registered over and over says last.
async fn last_version(group: &Group) -> String {
    let request = pdpb::GetStoreRequest { header: group.header().await, store_id: 1 };
    let found = group.pd(group.leader().await).get_store(request).await.unwrap().into_inner();
    found.store.unwrap().version
}

fn answered(header: Option<pdpb::RequestHeader>) -> pdpb::ResponseHeader {
    let cluster_id = header.map_or(0, |header| header.cluster_id);
    pdpb::ResponseHeader { cluster_id, error: None }
}

//! The pages over HTTP/1.1, field by field as tools read them.

use std::time::{Duration, Instant};

use proto::{metapb, pdpb};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::group::{DEADLINE, Group, store};

/// What a page holds.
pub(crate) async fn get(address: &str, path: &str) -> (u16, String) {
    let mut http = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    http.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    http.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A page that is JSON.
async fn page(group: &Group, at: usize, path: &str) -> Value {
    let (status, body) = get(&group.address(at), path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// A member that knows three stores and two regions, the first of which is led by store 2; and that region.
async fn populated() -> (Group, metapb::Region) {
    let group = Group::start(1).await;
    let header = group.header().await;
    let mut pd = group.pd(0);
    for id in 1..=3 {
        let labels = vec![metapb::StoreLabel { key: "zone".into(), value: format!("z{id}") }];
        let record = metapb::Store { labels, version: "9.9".into(), ..store(id).unwrap() };
        let request = pdpb::PutStoreRequest { header, store: Some(record) };
        pd.put_store(request).await.unwrap();
    }
    let stats = pdpb::StoreStats {
        store_id: 2,
        capacity: 100 << 30,
        available: 50 << 30,
        start_time: 1_700_000_000,
        ..Default::default()
    };
    pd.store_heartbeat(pdpb::StoreHeartbeatRequest { header, stats: Some(stats) }).await.unwrap();
    let found = pd.get_region(pdpb::GetRegionRequest { header, ..Default::default() }).await;
    let region = found.unwrap().into_inner().region.unwrap();
    let report = pdpb::RegionHeartbeatRequest {
        header,
        leader: region.peers.iter().find(|peer| peer.store_id == 2).copied(),
        region: Some(region.clone()),
        term: 6,
        approximate_size: 3 << 20,
        approximate_keys: 17,
        ..Default::default()
    };
    let answers = pd.region_heartbeat(tokio_stream::iter([report])).await.unwrap();
    // The stream ends when everything on it has been taken in.
    assert_eq!(answers.into_inner().message().await.unwrap(), None);
    (group, region)
}

#[tokio::test]
async fn regions_have_the_shape_of_pd() {
    let (group, region) = populated().await;
    let regions = page(&group, 0, "/pd/api/v1/regions").await;
    assert_eq!(regions["count"], json!(2));
    let peer = |peer: &metapb::Peer| json!({ "id": peer.id, "store_id": peer.store_id, "role_name": "Voter" });
    let leader = region.peers.iter().find(|peer| peer.store_id == 2).unwrap();
    let expected = json!({
        "id": region.id,
        "start_key": "",
        "end_key": "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF0000000000000000F7",
        "epoch": { "conf_ver": 1, "version": 1 },
        "peers": region.peers.iter().map(peer).collect::<Vec<_>>(),
        "leader": peer(leader),
        "down_peers": [],
        "pending_peers": [],
        "written_bytes": 0,
        "read_bytes": 0,
        "written_keys": 0,
        "read_keys": 0,
        "approximate_size": 3,
        "approximate_keys": 17,
    });
    assert_eq!(regions["regions"][0], expected);
}

#[tokio::test]
async fn stores_have_the_shape_of_pd() {
    let (group, _) = populated().await;
    let stores = page(&group, 0, "/pd/api/v1/stores").await;
    assert_eq!(stores["count"], json!(3));
    let mut all = stores["stores"].as_array().unwrap().iter();
    let second = all.find(|store| store["store"]["id"] == json!(2)).unwrap();
    let expected = [
        ("/store/address", json!("127.0.0.1:20162")),
        ("/store/version", json!("9.9")),
        ("/store/state_name", json!("Up")),
        ("/store/labels", json!([{ "key": "zone", "value": "z2" }])),
        ("/status/capacity", json!("100GiB")),
        ("/status/available", json!("50GiB")),
        ("/status/leader_count", json!(1)),
        ("/status/leader_size", json!(3)),
        ("/status/region_count", json!(2)),
        ("/status/region_size", json!(3)),
        ("/status/start_ts", json!("2023-11-14T22:13:20.000Z")),
    ];
    for (at, value) in expected {
        assert_eq!(second.pointer(at), Some(&value), "{at} of {second:#}");
    }
    for at in ["/status/last_heartbeat_ts", "/status/uptime", "/store/last_heartbeat"] {
        assert!(second.pointer(at).is_some(), "{at} of {second:#}");
    }
}

#[tokio::test]
async fn members_and_their_health_have_the_shape_of_pd() {
    let group = Group::start(1).await;
    let cluster_id = group.header().await.unwrap().cluster_id;
    let url = format!("http://{}", group.address(0));
    let member = json!({
        "name": "member-0",
        "member_id": 1,
        "peer_urls": [url],
        "client_urls": [url],
        "binary_version": env!("CARGO_PKG_VERSION"),
    });
    let expected = json!({
        "header": { "cluster_id": cluster_id },
        "members": [member],
        "leader": member,
        "etcd_leader": member,
    });
    assert_eq!(page(&group, 0, "/pd/api/v1/members").await, expected);
    let expected =
        json!([{ "name": "member-0", "member_id": 1, "client_urls": [url], "health": true }]);
    assert_eq!(page(&group, 0, "/pd/api/v1/health").await, expected);
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
    let start = Instant::now();
    loop {
        let (_, body) = get(&group.address(0), "/pd/api/v1/health").await;
        if body.matches("\"health\": true").count() == 3 {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "{body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

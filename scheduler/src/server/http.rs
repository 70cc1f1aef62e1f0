//! The pages that tools of TiKV's world read over HTTP/1.1, on the port of the gRPC services, and this process's own.
//!
//! ```text
//! GET /pd/api/v1/regions   every region                      from the leader
//!     /pd/api/v1/stores    every store but those removed     from the leader
//!     /pd/api/v1/members   the members and who leads         from any member
//!     /pd/api/v1/health    which members take part           from the leader; without one, nobody does
//!     /livez /readyz       whether this member runs, and whether somebody leads
//!     /metrics             counters of this member
//!     /flotilla/roll/{id}  whether a member ever took part   asked by members
//! ```
//! The shapes are PD's: names, nesting, keys in upper-case hexadecimal, sizes in MiB or as text. Fields without a meaning
//! here are left out. Any other path is for gRPC, which answers "unimplemented" to what it does not know.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use proto::metapb::{self, StoreState};
use proto::pdpb;
use serde_json::{Value, json};

use super::answer::Service;
use super::driver::{Driver, Refusal, Role};
use super::error_map::status;
use super::metrics;
use super::roll;
use super::words;
use crate::core::{RegionInfo, Scheduler, StoreInfo};

/// Adds the pages to the gRPC services.
pub(super) fn routes(grpc: Router, service: Service) -> Router {
    let driver = Arc::clone(&service.driver);
    let own = Router::new()
        .route("/pd/api/v1/regions", get(regions))
        .route("/pd/api/v1/stores", get(stores))
        .route("/pd/api/v1/health", get(health))
        .route(roll::PATH, get(roll::page))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics::page))
        .with_state(driver);
    let members = Router::new().route("/pd/api/v1/members", get(members)).with_state(service);
    grpc.merge(own).merge(members)
}

fn page(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json; charset=utf-8")], format!("{value:#}\n")).into_response()
}

/// A page that cannot be shown; it carries the mark of a member that does not lead, if that is why.
fn refused(refusal: Refusal) -> Response {
    let status = status(refusal);
    let mut response =
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", status.message())).into_response();
    response.headers_mut().extend(status.metadata().clone().into_headers());
    response
}

async fn regions(State(driver): State<Arc<Driver>>) -> Response {
    let look = |core: &mut Scheduler, _| {
        core.scan_regions(b"", b"", usize::MAX).into_iter().map(region).collect::<Vec<_>>()
    };
    match driver.step(look).await {
        Ok(regions) => page(&json!({ "count": regions.len(), "regions": regions })),
        Err(refusal) => refused(refusal),
    }
}

async fn stores(State(driver): State<Arc<Driver>>) -> Response {
    let look = |core: &mut Scheduler, now_ms| {
        let there = core.stores().filter(|store| store.meta.state() != StoreState::Tombstone);
        there.map(|info| store(core, info, now_ms)).collect::<Vec<_>>()
    };
    match driver.step(look).await {
        Ok(stores) => page(&json!({ "count": stores.len(), "stores": stores })),
        Err(refusal) => refused(refusal),
    }
}

async fn members(State(service): State<Service>) -> Response {
    let (header, leader) = match service.leader().await {
        Ok(known) => known,
        Err(status) => {
            let text = format!("{}\n", status.message());
            return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
        }
    };
    let members = &service.driver.members;
    let all: Vec<_> =
        members.iter().filter_map(|(id, _)| members.wire(id)).map(|m| member(&m)).collect();
    page(&json!({
        "header": { "cluster_id": header.cluster_id },
        "members": all,
        "leader": member(&leader),
        "etcd_leader": member(&leader),
    }))
}

async fn health(State(driver): State<Arc<Driver>>) -> Response {
    let serves = matches!(&*driver.role().borrow(), Role::Serves(_) | Role::Follows(_));
    let active = driver.active();
    let members = driver.members.iter().filter_map(|(id, _)| {
        let wire = driver.members.wire(id)?;
        let health = serves && active.contains(&id);
        Some(json!({
            "name": wire.name,
            "member_id": wire.member_id,
            "client_urls": wire.client_urls,
            "health": health,
        }))
    });
    page(&members.collect())
}

async fn ready(State(driver): State<Arc<Driver>>) -> Response {
    match &*driver.role().borrow() {
        Role::Serves(_) | Role::Follows(_) => "ok\n".into_response(),
        Role::Begins(_) | Role::Leaderless | Role::Stopped(_) => {
            let (active, all) = (driver.active().len(), driver.members.len());
            let text =
                format!("not ready: no leader; this member hears {active} of {all} members\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

fn member(member: &pdpb::Member) -> Value {
    json!({
        "name": member.name,
        "member_id": member.member_id,
        "peer_urls": member.peer_urls,
        "client_urls": member.client_urls,
        "binary_version": member.binary_version,
    })
}

fn peer(peer: &metapb::Peer) -> Value {
    let mut value = json!({
        "id": peer.id,
        "store_id": peer.store_id,
        "role_name": words::role(peer.role()),
    });
    match peer.role() {
        metapb::PeerRole::Voter => {}
        metapb::PeerRole::Learner => value["is_learner"] = true.into(),
        other => value["role"] = (other as i32).into(),
    }
    value
}

fn region(info: &RegionInfo) -> Value {
    let meta = &info.meta;
    let epoch = meta.region_epoch.unwrap_or_default();
    let down = |stats: &pdpb::PeerStats| {
        let down = stats.peer.unwrap_or_default();
        json!({ "peer": peer(&down), "down_seconds": stats.down_seconds })
    };
    json!({
        "id": meta.id,
        "start_key": words::hex(&meta.start_key),
        "end_key": words::hex(&meta.end_key),
        "epoch": { "conf_ver": epoch.conf_ver, "version": epoch.version },
        "peers": meta.peers.iter().map(peer).collect::<Vec<_>>(),
        "leader": info.leader.as_ref().map_or_else(|| json!({}), peer),
        "down_peers": info.down_peers.iter().map(down).collect::<Vec<_>>(),
        "pending_peers": info.pending_peers.iter().map(peer).collect::<Vec<_>>(),
        "written_bytes": info.flow.write_bytes,
        "read_bytes": info.flow.read_bytes,
        "written_keys": info.flow.write_keys,
        "read_keys": info.flow.read_keys,
        "approximate_size": words::mebibytes(info.approximate_size),
        "approximate_keys": info.approximate_keys,
    })
}

/// What a store holds, in bytes and regions.
#[derive(Default)]
struct Held {
    leaders: u64,
    leader_bytes: u64,
    regions: u64,
    region_bytes: u64,
}

fn held(core: &Scheduler, store: u64) -> Held {
    let mut held = Held::default();
    for info in core.scan_regions(b"", b"", usize::MAX) {
        if info.leader.is_some_and(|leader| leader.store_id == store) {
            held.leaders += 1;
            held.leader_bytes += info.approximate_size;
        }
        if info.meta.peers.iter().any(|peer| peer.store_id == store) {
            held.regions += 1;
            held.region_bytes += info.approximate_size;
        }
    }
    held
}

fn store(core: &Scheduler, info: &StoreInfo, now_ms: u64) -> Value {
    let (meta, stats) = (&info.meta, info.stats.unwrap_or_default());
    let held = held(core, meta.id);
    let labels = meta.labels.iter().map(|l| json!({ "key": l.key, "value": l.value }));
    let started_ms = u64::from(stats.start_time) * 1000;
    let mut status = json!({
        "capacity": words::bytes(stats.capacity),
        "available": words::bytes(stats.available),
        "used_size": words::bytes(stats.used_size),
        "leader_count": held.leaders,
        "leader_weight": 1,
        "leader_score": held.leaders,
        "leader_size": words::mebibytes(held.leader_bytes),
        "region_count": held.regions,
        "region_weight": 1,
        "region_score": held.regions,
        "region_size": words::mebibytes(held.region_bytes),
        "last_heartbeat_ts": words::time(info.heard_ms),
    });
    if started_ms > 0 {
        status["start_ts"] = words::time(started_ms).into();
        status["uptime"] = words::duration(now_ms.saturating_sub(started_ms)).into();
    }
    json!({
        "store": {
            "id": meta.id,
            "address": meta.address,
            "status_address": meta.status_address,
            "version": meta.version,
            "labels": labels.collect::<Vec<_>>(),
            "last_heartbeat": info.heard_ms.saturating_mul(1_000_000),
            "state_name": words::state(meta.state()),
        },
        "status": status,
    })
}

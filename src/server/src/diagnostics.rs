//! What a process tells about itself: `flotilla.Diagnostics` over gRPC, and `/livez`, `/readyz`, `/metrics` over
//! HTTP/1.1 on the same port. Numbers and names only; no key, no value.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use proto::flotillapb::diagnostics_server::Diagnostics;
use proto::flotillapb::{
    CheckConsistencyRequest, CheckConsistencyResponse, Counter, PeerProgress, PeerState, RaftRole,
    RegionStatus, StoreStatusRequest, StoreStatusResponse,
};
use raft::Role;
use raftstore::msg::ConsistencyHash;
use raftstore::worker::Router;
use raftstore::{RegionError, Reply, RequestHeader, StoreMsg, StoreStatus};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};
use transport::Identity;

use crate::counters::Counters;
use crate::scheduler::Scheduler;

/// What the status is put together from; clones share it.
#[derive(Clone)]
pub struct Observer {
    /// The same for the whole life of the process.
    pub(crate) about: Arc<About>,
    /// `None` for a bare engine.
    pub(crate) store: Option<Router>,
}

/// The unchanging part.
pub(crate) struct About {
    pub(crate) identity: Option<Identity>,
    pub(crate) address: String,
    pub(crate) started: tokio::time::Instant,
    pub(crate) ready: AtomicBool,
    pub(crate) kv: Arc<Counters>,
    pub(crate) transport: Arc<transport::Counters>,
    pub(crate) engine: Arc<dyn engine::Engine>,
    /// `None` for a bare engine.
    pub(crate) scheduler: Option<Arc<Scheduler>>,
}

impl Observer {
    /// From now on the process is, or is not, ready to serve.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.about.ready.store(ready, Ordering::Relaxed);
    }

    /// The store's own view of itself, from its loop.
    pub(crate) async fn store_status(&self) -> Option<StoreStatus> {
        let router = self.store.as_ref()?;
        let (sender, receiver) = oneshot::channel();
        let reply = Reply::new(move |status| {
            let _ = sender.send(status);
        });
        // A store that has stopped has answered the reply.
        let _ = router.send(StoreMsg::Status(reply));
        receiver.await.ok()?.ok()
    }

    /// Has the peers of a region compare their data.
    async fn consistency(&self, header: RequestHeader) -> Result<ConsistencyHash, RegionError> {
        let not_here = RegionError::RegionNotFound { region: header.region };
        let Some(router) = &self.store else { return Err(not_here) };
        let (sender, receiver) = oneshot::channel();
        let reply = Reply::new(move |outcome| {
            let _ = sender.send(outcome);
        });
        // A store that has stopped has answered the reply.
        let _ = router.send(StoreMsg::CheckConsistency { header, reply });
        receiver.await.unwrap_or(Err(not_here))
    }

    fn counters(&self, store: Option<&StoreStatus>) -> Vec<(String, u64)> {
        let About { kv, transport, engine, .. } = &*self.about;
        let engine = engine.counters();
        let mut counters: Vec<(String, u64)> = Vec::new();
        let mut add = |name: &str, value| counters.push((name.to_owned(), value));
        kv.list().into_iter().for_each(|(name, value)| add(name, value));
        transport.list().into_iter().for_each(|(name, value)| add(name, value));
        add("engine_writes", engine.writes);
        add("engine_written_bytes", engine.written_bytes);
        add("engine_syncs", engine.syncs);
        add("engine_ingests", engine.ingests);
        if let Some(router) = &self.store {
            for (name, value) in router.counters().pairs() {
                add(name, value);
            }
        }
        if let Some(scheduler) = &self.about.scheduler {
            add("scheduler_unanswered", scheduler.unanswered());
        }
        if let Some(store) = store {
            let counted = &store.counters;
            add("ticks", counted.ticks);
            add("raft_messages_received", counted.messages_received);
            add("raft_messages_sent", counted.messages_sent);
            add("splits", counted.splits);
            add("merges", counted.merges);
            add("conf_changes", counted.conf_changes);
            add("peers_created", counted.peers_created);
            add("peers_destroyed", counted.peers_destroyed);
            add("raft_messages_malformed", counted.messages_dropped.values().sum());
            for (reason, count) in &counted.messages_dropped {
                counters.push((format!("raft_messages_dropped_{reason:?}").to_lowercase(), *count));
            }
        }
        counters
    }

    async fn status(&self) -> StoreStatusResponse {
        let store = self.store_status().await;
        let counters = self.counters(store.as_ref());
        let (cluster_id, store_id) = match self.about.identity {
            Some(identity) => (identity.cluster_id, identity.store_id.get()),
            None => (0, 0),
        };
        let counter = |(name, value)| Counter { name, value };
        StoreStatusResponse {
            cluster_id,
            store_id,
            address: self.about.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.about.started.elapsed().as_secs(),
            counters: counters.into_iter().map(counter).collect(),
            poisoned: store.as_ref().and_then(|s| s.poisoned.clone()).unwrap_or_default(),
            regions: store.map_or(Vec::new(), |s| s.regions.into_iter().map(region).collect()),
        }
    }

    async fn metrics(&self) -> String {
        let store = self.store_status().await;
        let mut text = String::new();
        for (name, value) in self.counters(store.as_ref()) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# TYPE flotilla_{name} counter\nflotilla_{name} {value}");
        }
        if let Some(scheduler) = &self.about.scheduler {
            let reachable = u64::from(scheduler.is_reachable());
            let _ = writeln!(text, "# TYPE flotilla_scheduler_reachable gauge");
            let _ = writeln!(text, "flotilla_scheduler_reachable {reachable}");
        }
        if let Some(store) = store {
            let leads = store.regions.iter().filter(|r| r.raft.role == Role::Leader).count();
            let mut gauge = |name: &str, value: usize| {
                let _ = writeln!(text, "# TYPE flotilla_{name} gauge\nflotilla_{name} {value}");
            };
            gauge("regions", store.regions.len());
            gauge("regions_led", leads);
            let asleep = store.regions.iter().filter(|r| r.hibernating).count();
            gauge("regions_asleep", asleep);
            gauge("log_writes_in_flight", store.log_writes_in_flight);
            gauge("snapshots_sending", store.snapshots_sending);
            gauge("snapshots_installing", store.snapshots_installing);
        }
        text
    }

    /// The pages over HTTP/1.1, beside `router`.
    pub(crate) fn pages(&self, router: axum::Router) -> axum::Router {
        use axum::routing::get;
        let (ready, metrics) = (self.clone(), self.clone());
        router
            .route("/livez", get(async || "ok\n"))
            .route(
                "/readyz",
                get(move || {
                    let answer = match ready.about.ready.load(Ordering::Relaxed) {
                        true => (StatusCode::OK, "ok\n"),
                        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
                    };
                    async move { answer }
                }),
            )
            .route(
                "/metrics",
                get(move || {
                    let metrics = metrics.clone();
                    async move { metrics.metrics().await }
                }),
            )
    }
}

fn region(status: raftstore::RegionStatus) -> RegionStatus {
    let raftstore::RegionStatus { region, peer, raft, applied_index, state_hash, .. } = status;
    let (approximate_bytes, approximate_keys) = (status.approximate_bytes, status.approximate_keys);
    let hibernating = status.hibernating;
    let state = match (status.installing, status.merging) {
        (true, _) => PeerState::Applying,
        (false, true) => PeerState::Merging,
        (false, false) => PeerState::Normal,
    };
    let role = match raft.role {
        Role::Follower => RaftRole::Follower,
        Role::PreCandidate => RaftRole::PreCandidate,
        Role::Candidate => RaftRole::Candidate,
        Role::Leader => RaftRole::Leader,
    };
    let progress = raft.progress.iter().map(|progress| PeerProgress {
        peer_id: progress.id.0,
        match_index: progress.matched.0,
        next_index: progress.next.0,
        recent_active: progress.recent_active,
    });
    RegionStatus {
        region: Some((*region).clone()),
        peer: Some(peer),
        role: role as i32,
        term: raft.term.0,
        leader_peer_id: raft.leader.map_or(0, |leader| leader.0),
        first_index: raft.first_index.0,
        last_index: raft.last_index.0,
        committed_index: raft.commit.0,
        applied_index: applied_index.0,
        progress: progress.collect(),
        state_hash,
        state: state as i32,
        approximate_bytes,
        approximate_keys,
        hibernating,
    }
}

#[tonic::async_trait]
impl Diagnostics for Observer {
    async fn store_status(
        &self,
        _request: Request<StoreStatusRequest>,
    ) -> Result<Response<StoreStatusResponse>, Status> {
        Ok(Response::new(self.status().await))
    }

    async fn check_consistency(
        &self,
        request: Request<CheckConsistencyRequest>,
    ) -> Result<Response<CheckConsistencyResponse>, Status> {
        let context = request.into_inner().context.unwrap_or_default();
        let header =
            RequestHeader::new(context.region_id.into(), context.region_epoch.unwrap_or_default());
        let response = match self.consistency(header).await {
            Ok(ConsistencyHash { index, hash }) => {
                CheckConsistencyResponse { region_error: None, index: index.0, hash }
            }
            Err(error) => CheckConsistencyResponse {
                region_error: Some(error.into()),
                ..CheckConsistencyResponse::default()
            },
        };
        Ok(Response::new(response))
    }
}

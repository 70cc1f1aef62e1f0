//! The receiving half: the gRPC service that other stores send to.
//!
//! Batches are checked for cluster and store, then handed on whole. There is no queue here: a receiver that cannot keep up
//! stops reading, flow control reaches the sender, and the sender's bounded queue drops.
//!
//! Tests: `tests/loopback`.

use std::sync::Arc;

use proto::flotillapb::transport_server::{Transport, TransportServer};
use proto::flotillapb::{RaftBatch, RaftDone, SnapshotChunk, SnapshotDone};
use proto::limits::GRPC_REQUEST_BYTES_MAX;
use proto::raft_serverpb::RaftMessage;
use raftstore::snapshot::{ReceiveLimits, ReceivedSnapshot, Slots, SnapshotFiles};
use tonic::{Request, Response, Status, Streaming};

use crate::counters::{Counters, add};
use crate::{Identity, Pace};

/// Takes what arrives.
pub trait Deliver: Send + Sync + 'static {
    /// Messages of one batch, in order. Must not block for long; `false` ends the stream (the store is stopping).
    fn deliver(&self, messages: Vec<RaftMessage>) -> bool;

    /// A snapshot that is checked and durable, with its message; `false`: the store is stopping.
    fn snapshot(&self, message: RaftMessage, file: ReceivedSnapshot) -> bool;
}

/// Where snapshots are received to, and within which bounds.
#[derive(Clone)]
pub struct SnapshotSpace {
    /// The files.
    pub files: Arc<dyn SnapshotFiles>,
    /// Bounds of one snapshot.
    pub limits: ReceiveLimits,
    /// How many at once.
    pub slots: Slots,
    /// How fast all of them together.
    pub pace: Pace,
}

/// The service `flotilla.Transport`.
#[derive(Clone)]
pub struct Receiver {
    identity: Identity,
    pub(crate) deliver: Arc<dyn Deliver>,
    pub(crate) snapshots: SnapshotSpace,
    pub(crate) counters: Arc<Counters>,
    pub(crate) log: slog::Logger,
}

impl Receiver {
    /// A receiver for the store `identity`.
    pub fn new(
        identity: Identity,
        deliver: Arc<dyn Deliver>,
        snapshots: SnapshotSpace,
        counters: Arc<Counters>,
        log: slog::Logger,
    ) -> Receiver {
        Receiver { identity, deliver, snapshots, counters, log }
    }

    /// The service, with its limits set.
    pub fn into_service(self) -> TransportServer<Receiver> {
        TransportServer::new(self).max_decoding_message_size(GRPC_REQUEST_BYTES_MAX)
    }

    pub(crate) fn admit(&self, cluster_id: u64, from: u64, to: u64) -> Result<(), Status> {
        let Identity { cluster_id: ours, store_id } = self.identity;
        let refusal = if cluster_id != ours {
            format!("cluster_id {cluster_id} is not ours, which is {ours}")
        } else if to != store_id.get() {
            format!("to_store_id {to} is not ours, which is {store_id}")
        } else if from == 0 || from == store_id.get() {
            format!("from_store_id {from} cannot be another store's")
        } else {
            return Ok(());
        };
        add(&self.counters.streams_refused, 1);
        slog::warn!(self.log, "stream of another store refused"; "reason" => &refusal);
        Err(Status::failed_precondition(refusal))
    }
}

#[tonic::async_trait]
impl Transport for Receiver {
    async fn raft(
        &self,
        request: Request<Streaming<RaftBatch>>,
    ) -> Result<Response<RaftDone>, Status> {
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            let RaftBatch { cluster_id, from_store_id, to_store_id, messages } = batch;
            self.admit(cluster_id, from_store_id, to_store_id)?;
            add(&self.counters.messages_received, messages.len());
            if !self.deliver.deliver(messages) {
                return Err(Status::unavailable("the store is shutting down"));
            }
        }
        Ok(Response::new(RaftDone {}))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotDone>, Status> {
        self.receive_snapshot(request.into_inner()).await
    }
}

//! The receiving half for snapshots: a stream becomes a checked file, and only then a message to the region.
//!
//! A blocking thread writes and checks, so that a large snapshot does not hold up the network; a short queue lies between.
//! What is refused leaves no file behind. How many are received at once is limited: a further one is refused, and its
//! sender tries again later. All of them share one rate limit ([`crate::Pace`]).
//!
//! Tests: `tests/loopback`.

use std::time::Duration;

use proto::flotillapb::snapshot_chunk::{Header, Part};
use proto::flotillapb::{SnapshotChunk, SnapshotDone};
use proto::raft_serverpb::RaftMessage;
use raftstore::snapshot::{ReceiveError, ReceivedSnapshot, SnapshotReceiver};
use tokio::sync::mpsc;
use tonic::{Response, Status, Streaming};

use crate::counters::add;
use crate::receive::Receiver;

/// Chunks between the network and the writing thread.
const CHUNKS_QUEUED_MAX: usize = 4;
/// A sender that is silent for so long is given up.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

impl Receiver {
    /// Receives one snapshot and hands it on.
    pub(crate) async fn receive_snapshot(
        &self,
        mut chunks: Streaming<SnapshotChunk>,
    ) -> Result<Response<SnapshotDone>, Status> {
        let Some(Part::Header(header)) = next_part(&mut chunks).await? else {
            return Err(Status::invalid_argument("a snapshot stream begins with its header"));
        };
        let Header { cluster_id, from_store_id, to_store_id, message } = header;
        self.admit(cluster_id, from_store_id, to_store_id)?;
        let message = message
            .ok_or_else(|| Status::invalid_argument("the header of a snapshot has no message"))?;
        let Some(_slot) = self.snapshots.slots.take() else {
            return Err(Status::resource_exhausted("too many snapshots are being received"));
        };
        let region_id = message.region_id;
        let outcome = self.spool(&message, chunks).await;
        let counters = &self.counters;
        match outcome {
            Ok(file) => {
                add(&counters.snapshots_received, 1);
                slog::info!(self.log, "snapshot received"; "region_id" => region_id,
                    "from_store" => from_store_id, "bytes" => file.content_bytes);
                if !self.deliver.snapshot(message, file) {
                    return Err(Status::unavailable("the store is shutting down"));
                }
                Ok(Response::new(SnapshotDone {}))
            }
            Err(status) => {
                add(&counters.snapshots_failed, 1);
                slog::warn!(self.log, "snapshot refused"; "region_id" => region_id,
                    "from_store" => from_store_id, "reason" => status.message());
                Err(status)
            }
        }
    }

    async fn spool(
        &self,
        message: &RaftMessage,
        mut chunks: Streaming<SnapshotChunk>,
    ) -> Result<ReceivedSnapshot, Status> {
        let (parts, mut queue) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let (files, limits) = (self.snapshots.files.clone(), self.snapshots.limits);
        let message = message.clone();
        let writer = tokio::task::spawn_blocking(move || {
            let mut receiver = SnapshotReceiver::begin(files, limits, &message)?;
            while let Some(part) = queue.blocking_recv() {
                if let Some(file) = receiver.take(part)? {
                    return Ok(Some(file));
                }
            }
            Ok(None)
        });
        // The writer ends the queue when it has seen enough, or too much.
        while let Some(part) = next_part(&mut chunks).await? {
            if let Part::Data(data) = &part {
                add(&self.counters.snapshot_bytes_received, data.data.len());
                // Not reading on holds the sender back.
                tokio::time::sleep(self.snapshots.pace.take(data.data.len())).await;
            }
            if parts.send(part).await.is_err() {
                break;
            }
        }
        drop(parts);
        let written: Result<Option<ReceivedSnapshot>, ReceiveError> =
            writer.await.map_err(|error| Status::internal(error.to_string()))?;
        match written {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(Status::aborted("the stream ended before the snapshot did")),
            Err(ReceiveError::Io(error)) => Err(Status::internal(error.to_string())),
            Err(error) => Err(Status::invalid_argument(error.to_string())),
        }
    }
}

async fn next_part(chunks: &mut Streaming<SnapshotChunk>) -> Result<Option<Part>, Status> {
    let next = tokio::time::timeout(CHUNK_TIMEOUT, chunks.message()).await;
    match next.map_err(|_| Status::deadline_exceeded("the snapshot's sender is silent"))?? {
        None => Ok(None),
        Some(SnapshotChunk { part: Some(part) }) => Ok(Some(part)),
        Some(SnapshotChunk { part: None }) => {
            Err(Status::invalid_argument("a chunk of a snapshot is empty or of an unknown kind"))
        }
    }
}

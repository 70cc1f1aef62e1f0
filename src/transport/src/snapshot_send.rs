//! The sending half for snapshots: a stream of its own for each.
//!
//! # Life of a snapshot
//! The header goes first, and holds the Raft message. A blocking thread reads the frozen engine chunk by chunk; a short
//! queue carries them to the stream, so the disk is read at the pace of the network. All snapshots of a store share one
//! rate limit: they must not crowd out Raft messages. The receiver's answer means that everything is checked and on its
//! disk; anything else, a silence included, is a failure, and Raft starts over.
//!
//! Tests: `tests/loopback`.

use std::sync::Arc;
use std::time::Duration;

use proto::flotillapb::SnapshotChunk;
use proto::flotillapb::snapshot_chunk::{Header, Part};
use proto::flotillapb::transport_client::TransportClient;
use proto::ids::StoreId;
use raftstore::msg::SnapshotSend;
use raftstore::snapshot::SnapshotSource;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::counters::add;
use crate::link::connect;
use crate::{SendError, Shared};

/// Chunks between the reading thread and the network.
const CHUNKS_QUEUED_MAX: usize = 4;
/// A chunk that cannot leave for so long ends the attempt.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(20);
/// After the last chunk, the receiver has so long to check its file and make it durable.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Sends one snapshot and says whether it has arrived.
pub(crate) async fn send(shared: Arc<Shared>, snapshot: SnapshotSend) -> bool {
    let (region, to) = (snapshot.region, StoreId::from(snapshot.to.store_id));
    let outcome = stream(&shared, snapshot, to).await;
    let log = &shared.log;
    match &outcome {
        Ok(()) => {
            add(&shared.counters.snapshots_sent, 1);
            slog::info!(log, "snapshot sent"; "region_id" => region.get(), "to_store" => to.get());
        }
        Err(error) => {
            add(&shared.counters.snapshots_failed, 1);
            shared.addresses.forget(to);
            slog::warn!(log, "snapshot not sent"; "region_id" => region.get(),
                "to_store" => to.get(), "reason" => %error);
        }
    }
    outcome.is_ok()
}

async fn stream(
    shared: &Arc<Shared>,
    snapshot: SnapshotSend,
    to: StoreId,
) -> Result<(), SendError> {
    let channel = connect(shared, to).await?;
    let SnapshotSend { message, source, .. } = snapshot;
    let header = Header {
        cluster_id: shared.identity.cluster_id,
        from_store_id: shared.identity.store_id.get(),
        to_store_id: to.get(),
        message: Some(message),
    };
    let (chunks, queue) = mpsc::channel(CHUNKS_QUEUED_MAX);
    let mut reader = {
        let (shared, source) = (shared.clone(), SnapshotSource::new(source));
        shared.runtime.clone().spawn_blocking(move || read(&shared, header, source, &chunks))
    };
    let mut client = TransportClient::new(channel);
    let answer = client.snapshot(ReceiverStream::new(queue));
    tokio::pin!(answer);
    // The reader has its own timeout; what it has read must be answered.
    let answer = tokio::select! {
        answer = &mut answer => answer,
        read = &mut reader => {
            match read {
                Ok(Ok(()) | Err(SendError::Ended)) => {}
                Ok(Err(error)) => return Err(error),
                Err(panicked) => return Err(SendError::Source(panicked.to_string())),
            }
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
            answer.map_err(|_| SendError::TimedOut)?
        }
    };
    answer.map(|_| ()).map_err(|status| SendError::Refused(Box::new(status)))
}

/// Runs on a blocking thread: everything of the snapshot into the queue.
fn read(
    shared: &Shared,
    header: Header,
    mut source: SnapshotSource,
    chunks: &mpsc::Sender<SnapshotChunk>,
) -> Result<(), SendError> {
    send_part(&shared.runtime, chunks, Part::Header(header))?;
    loop {
        let part = source.next_part().map_err(|error| SendError::Source(error.to_string()))?;
        let Some(part) = part else { return Ok(()) };
        if let Part::Data(data) = &part {
            add(&shared.counters.snapshot_bytes_sent, data.data.len());
            let wait = shared.pace.take(data.data.len());
            if !wait.is_zero() {
                shared.runtime.block_on(tokio::time::sleep(wait));
            }
        }
        send_part(&shared.runtime, chunks, part)?;
    }
}

fn send_part(
    runtime: &Handle,
    chunks: &mpsc::Sender<SnapshotChunk>,
    part: Part,
) -> Result<(), SendError> {
    let chunk = SnapshotChunk { part: Some(part) };
    match runtime.block_on(chunks.send_timeout(chunk, CHUNK_TIMEOUT)) {
        Ok(()) => Ok(()),
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(SendError::TimedOut),
        // The stream is gone; its answer says why.
        Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(SendError::Ended),
    }
}

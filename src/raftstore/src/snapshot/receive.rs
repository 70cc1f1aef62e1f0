//! The receiving end: parts of a stream become a spool file that has been checked from end to end.
//!
//! Everything here comes from the network and is refused, never asserted, when it is not what it must be (P2). A stream
//! that ends early, or is refused, leaves no file behind. What counts as received is durable (D5).

use std::io;
use std::sync::Arc;

use proto::flotillapb::snapshot_chunk::{Data, Footer, Part};
use proto::ids::RegionId;
use proto::limits::SNAPSHOT_CHUNK_BYTES_MAX;
use proto::raft_serverpb::RaftMessage;

use super::files::{SnapshotFileId, SnapshotFiles, SpoolWriter};
use super::meta::{MetaError, decode_meta};
use super::records::{ContentError, RecordReader};
use super::spool::{self, SpoolError, SpoolReader, Totals};
use crate::apply::{ApplyState, SnapshotMeta};

/// Bounds on what is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveLimits {
    /// Bytes of content of one snapshot. Default 16 GiB.
    pub content_bytes_max: u64,
}

impl Default for ReceiveLimits {
    fn default() -> ReceiveLimits {
        ReceiveLimits { content_bytes_max: 16 << 30 }
    }
}

/// A snapshot that is on disk, durable and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedSnapshot {
    /// The file.
    pub id: SnapshotFileId,
    /// Records in it.
    pub pairs: u64,
    /// Bytes of content.
    pub content_bytes: u64,
    /// Checksum of the content.
    pub crc32: u32,
}

/// Why a stream was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The header's message is no snapshot of the region it names.
    #[error("snapshot stream has a bad header: {0}")]
    Header(&'static str),
    /// The header's description of the snapshot.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// A chunk is not the next one.
    #[error("snapshot chunk {found} arrived where {expected} was expected")]
    Order {
        /// The next one.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A chunk's data does not match its checksum.
    #[error("snapshot chunk {0} is damaged")]
    ChunkDamaged(u64),
    /// A chunk is empty or too long.
    #[error("snapshot chunk has {0} bytes; 1 to {SNAPSHOT_CHUNK_BYTES_MAX} are allowed")]
    ChunkSize(usize),
    /// All chunks together are too long.
    #[error("snapshot is larger than {0} bytes")]
    TooLarge(u64),
    /// The totals do not match what came.
    #[error("snapshot footer does not match its chunks")]
    Footer,
    /// A header in the middle, or a part without content.
    #[error("snapshot stream has a part out of place")]
    OutOfPlace,
    /// The content.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The file cannot be written.
    #[error("snapshot file cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Receives one snapshot.
pub struct SnapshotReceiver {
    files: Arc<dyn SnapshotFiles>,
    limits: ReceiveLimits,
    meta: SnapshotMeta,
    id: SnapshotFileId,
    /// `None` once finished.
    writer: Option<Box<dyn SpoolWriter>>,
    totals: Totals,
    complete: bool,
}

impl SnapshotReceiver {
    /// Starts to receive the snapshot that `message`, the stream's header, announces.
    pub fn begin(
        files: Arc<dyn SnapshotFiles>,
        limits: ReceiveLimits,
        message: &RaftMessage,
    ) -> Result<SnapshotReceiver, ReceiveError> {
        let meta = announced(message)?;
        let region = RegionId::from(meta.region.id);
        let (id, mut writer) = files.create(region, meta.term, meta.index)?;
        let begun = writer.append(spool::magic());
        let (totals, complete) = Default::default();
        let receiver =
            SnapshotReceiver { files, limits, meta, id, writer: Some(writer), totals, complete };
        begun?;
        Ok(receiver)
    }

    /// Takes the next part. The footer ends the stream and yields the snapshot.
    ///
    /// # Errors
    /// The stream must be given up; dropping the receiver removes the file.
    pub fn take(&mut self, part: Part) -> Result<Option<ReceivedSnapshot>, ReceiveError> {
        match part {
            Part::Data(data) => self.chunk(data).map(|()| None),
            Part::Footer(footer) => self.finish(footer).map(Some),
            Part::Header(_) => Err(ReceiveError::OutOfPlace),
        }
    }

    fn chunk(&mut self, chunk: Data) -> Result<(), ReceiveError> {
        let Data { sequence, data, crc32 } = chunk;
        if sequence != self.totals.chunks {
            return Err(ReceiveError::Order { expected: self.totals.chunks, found: sequence });
        }
        if data.is_empty() || data.len() > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(ReceiveError::ChunkSize(data.len()));
        }
        if self.totals.bytes + data.len() as u64 > self.limits.content_bytes_max {
            return Err(ReceiveError::TooLarge(self.limits.content_bytes_max));
        }
        if crc32fast::hash(&data) != crc32 {
            return Err(ReceiveError::ChunkDamaged(sequence));
        }
        let writer = self.writer.as_mut().ok_or(ReceiveError::OutOfPlace)?;
        writer.append(&spool::chunk_prefix(&data, crc32))?;
        writer.append(&data)?;
        self.totals.add(&data);
        Ok(())
    }

    fn finish(&mut self, footer: Footer) -> Result<ReceivedSnapshot, ReceiveError> {
        let Totals { chunks, bytes, .. } = self.totals;
        let crc32 = self.totals.crc32();
        if footer != (Footer { chunks, bytes, crc32 }) {
            return Err(ReceiveError::Footer);
        }
        let mut writer = self.writer.take().ok_or(ReceiveError::OutOfPlace)?;
        writer.append(&spool::footer(&self.totals))?;
        writer.finish()?;
        let pairs = check(self.files.as_ref(), self.id, &self.meta)?;
        self.complete = true;
        Ok(ReceivedSnapshot { id: self.id, pairs, content_bytes: bytes, crc32 })
    }
}

impl Drop for SnapshotReceiver {
    fn drop(&mut self) {
        if !self.complete {
            // What cannot be removed now is an orphan, removed when the store opens.
            let _ = self.files.remove(self.id);
        }
    }
}

/// The snapshot that a header's message announces.
fn announced(message: &RaftMessage) -> Result<SnapshotMeta, ReceiveError> {
    let raft = message.message.as_ref().ok_or(ReceiveError::Header("no Raft message"))?;
    let snapshot = raft.snapshot.as_ref().ok_or(ReceiveError::Header("no snapshot"))?;
    let outer = snapshot.metadata.as_ref().ok_or(ReceiveError::Header("no metadata"))?;
    let meta = decode_meta(snapshot.data.clone())?;
    if message.region_id != meta.region.id {
        return Err(ReceiveError::Header("it names two regions"));
    }
    if (outer.index, outer.term) != (meta.index.0, meta.term.0) {
        return Err(ReceiveError::Header("it names two positions"));
    }
    Ok(meta)
}

/// Reads a whole file and returns how many records it holds.
pub(super) fn check(
    files: &dyn SnapshotFiles,
    id: SnapshotFileId,
    meta: &SnapshotMeta,
) -> Result<u64, ContentError> {
    let (_, mut reader) = open(files, id, meta)?;
    let mut pairs = 1;
    while reader.next()?.is_some() {
        pairs += 1;
    }
    Ok(pairs)
}

/// Reads the records of a spool file.
pub(super) type FileReader = RecordReader<SpoolReader<Box<dyn io::Read + Send>>>;

/// The apply state in a file, and a reader of the rest.
pub(super) fn open(
    files: &dyn SnapshotFiles,
    id: SnapshotFileId,
    meta: &SnapshotMeta,
) -> Result<(ApplyState, FileReader), ContentError> {
    let file = files.open(id).map_err(SpoolError::Io)?;
    RecordReader::open(SpoolReader::open(file)?, meta)
}

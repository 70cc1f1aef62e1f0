//! The content of a snapshot: records one after another, in this order and each with strictly ascending keys:
//!
//! 1. the apply state of the region, whose position must be the one the snapshot claims;
//! 2. its sessions;
//! 3. its data, range by range as [`keys::data_ranges`] lists them.
//!
//! A record is `cf u8 | key length u32 | key | value length u32 | value`, big-endian. Chunks cut the stream anywhere.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use engine::{Cf, KeyRange};
use proto::ids::RegionId;
use proto::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use proto::metapb;
use raft::LogIndex;

use super::spool::{ChunkSource, SpoolError};
use crate::apply::{ApplyState, SESSIONS_MAX, SnapshotMeta, is_session};
use crate::keys::{self, Key};

/// An engine key: a user's key and its tag, or a local key, which is shorter.
const ENGINE_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 1;
/// Column family and length of the key.
const PREFIX_BYTES: usize = 5;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) cf: Cf,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

/// What is wrong with the content of a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The file under it.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// It ends inside a record.
    #[error("snapshot content ends inside a record")]
    Truncated,
    /// A length beyond the limit, or an unknown column family.
    #[error("snapshot content has a malformed record: {0}")]
    Malformed(String),
    /// It does not begin with the apply state that belongs to its position.
    #[error("snapshot content does not begin with the apply state of index {index}")]
    WrongState {
        /// What the snapshot claims.
        index: LogIndex,
    },
    /// A key out of order, or one that does not belong to the region.
    #[error("snapshot content has a key out of place in {cf}: {key:?}")]
    Misplaced {
        /// Where.
        cf: Cf,
        /// Which.
        key: Bytes,
    },
}

/// Appends a record to `out`.
pub(super) fn put(out: &mut BytesMut, cf: Cf, key: &[u8], value: &[u8]) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys and values are bounded");
    out.reserve(PREFIX_BYTES + key.len() + 4 + value.len());
    out.put_u8(cf.index() as u8);
    out.put_u32(length(key));
    out.put_slice(key);
    out.put_u32(length(value));
    out.put_slice(value);
}

/// The apply state a snapshot of this position begins with: nothing before it is in the log.
pub(super) fn apply_state(meta: &SnapshotMeta) -> ApplyState {
    ApplyState { state_hash: meta.state_hash, ..ApplyState::initial(meta.index, meta.term) }
}

/// What follows the apply state, in order.
pub(super) fn sections(region: &metapb::Region) -> Vec<(Cf, KeyRange)> {
    let mut sections = vec![(Cf::Raft, keys::session_range(region.id.into()))];
    sections.extend(keys::data_ranges(region));
    sections
}

/// Reads records from chunks and checks that each is where it belongs.
#[derive(Debug)]
pub(super) struct RecordReader<C> {
    chunks: C,
    buffer: BytesMut,
    region: RegionId,
    sections: Vec<(Cf, KeyRange)>,
    /// The section of the last record.
    section: usize,
    last_key: Option<Bytes>,
    sessions: usize,
}

impl<C: ChunkSource> RecordReader<C> {
    /// A reader that has read and checked the apply state.
    pub(super) fn open(
        chunks: C,
        meta: &SnapshotMeta,
    ) -> Result<(ApplyState, RecordReader<C>), ContentError> {
        let mut reader = RecordReader {
            chunks,
            buffer: BytesMut::new(),
            region: meta.region.id.into(),
            sections: sections(&meta.region),
            section: 0,
            last_key: None,
            sessions: 0,
        };
        let wrong = ContentError::WrongState { index: meta.index };
        let Some(record) = reader.record()? else { return Err(wrong) };
        let key = Key::ApplyState(reader.region).encode();
        match ApplyState::decode(&record.value) {
            Some(state) if record.key == key && state == apply_state(meta) => Ok((state, reader)),
            _ => Err(wrong),
        }
    }

    /// The next record; `None` after the last one.
    pub(super) fn next(&mut self) -> Result<Option<Record>, ContentError> {
        let Some(record) = self.record()? else { return Ok(None) };
        if self.last_key.as_ref().is_some_and(|last| record.key <= *last) {
            self.advance();
        }
        while self.sections.get(self.section).is_some_and(|s| !belongs(s, &record)) {
            self.advance();
        }
        if self.section == self.sections.len() {
            return Err(ContentError::Misplaced { cf: record.cf, key: record.key });
        }
        if record.cf == Cf::Raft {
            self.check_session(&record)?;
        }
        self.last_key = Some(record.key.clone());
        Ok(Some(record))
    }

    /// A session that could not be read back would stop the store much later.
    fn check_session(&mut self, record: &Record) -> Result<(), ContentError> {
        self.sessions += 1;
        if !is_session(&record.key, &record.value) {
            return Err(ContentError::Malformed("a session that is none".to_owned()));
        }
        if self.sessions > SESSIONS_MAX {
            return Err(ContentError::Malformed(format!("more than {SESSIONS_MAX} sessions")));
        }
        Ok(())
    }

    fn advance(&mut self) {
        self.section += 1;
        self.last_key = None;
    }

    fn record(&mut self) -> Result<Option<Record>, ContentError> {
        if !self.fill(PREFIX_BYTES)? {
            return if self.buffer.is_empty() { Ok(None) } else { Err(ContentError::Truncated) };
        }
        let number = usize::from(self.buffer.get_u8());
        let malformed = |what: String| Err(ContentError::Malformed(what));
        let Some(cf) = Cf::ALL.get(number).copied() else {
            return malformed(format!("column family {number}"));
        };
        let key_bytes = self.buffer.get_u32() as usize;
        if key_bytes > ENGINE_KEY_BYTES_MAX {
            return malformed(format!("a key of {key_bytes} bytes"));
        }
        self.demand(key_bytes + 4)?;
        let key = self.buffer.split_to(key_bytes).freeze();
        let value_bytes = self.buffer.get_u32() as usize;
        if value_bytes > VALUE_BYTES_MAX {
            return malformed(format!("a value of {value_bytes} bytes"));
        }
        self.demand(value_bytes)?;
        let value = self.buffer.split_to(value_bytes).freeze();
        Ok(Some(Record { cf, key, value }))
    }

    fn demand(&mut self, bytes: usize) -> Result<(), ContentError> {
        if self.fill(bytes)? { Ok(()) } else { Err(ContentError::Truncated) }
    }

    /// Reads chunks until `bytes` are buffered; whether there are so many.
    fn fill(&mut self, bytes: usize) -> Result<bool, ContentError> {
        while self.buffer.len() < bytes {
            let Some(chunk) = self.chunks.next_chunk()? else { return Ok(false) };
            self.buffer.extend_from_slice(&chunk);
        }
        Ok(true)
    }
}

fn belongs((cf, range): &(Cf, KeyRange), record: &Record) -> bool {
    *cf == record.cf && range.contains(&record.key)
}

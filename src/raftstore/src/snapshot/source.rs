//! The sending end: turns a frozen engine into the parts of a stream, as they are asked for.
//!
//! Nothing is built ahead: a part is read from the engine when it is wanted, so a snapshot under way costs the frozen view
//! and one chunk. Between parts no iterator is held; the next one starts behind the last key.

use bytes::{BufMut, Bytes, BytesMut};
use engine::{Cf, KeyRange};
use proto::flotillapb::snapshot_chunk::{Data, Footer, Part};

use super::records::{self, sections};
use super::spool::Totals;
use crate::apply::SnapshotReady;
use crate::keys::Key;
use crate::planted::{Bug, planted};

/// Bytes of content in a chunk; the last one has fewer.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 << 10;

/// The stream of one snapshot, without its header.
#[derive(Debug)]
pub struct SnapshotSource {
    ready: SnapshotReady,
    /// Still to be read, the next one last.
    sections: Vec<(Cf, KeyRange)>,
    /// Read and not yet handed out.
    buffer: BytesMut,
    totals: Totals,
    done: bool,
}

impl SnapshotSource {
    /// The stream of `ready`.
    pub fn new(ready: SnapshotReady) -> SnapshotSource {
        let meta = &ready.meta;
        let mut sections = sections(&meta.region);
        sections.reverse();
        let state = records::apply_state(meta);
        let mut buffer = BytesMut::new();
        let key = Key::ApplyState(ready.region).encode();
        records::put(&mut buffer, Cf::Raft, &key, &state.encode());
        SnapshotSource { ready, sections, buffer, totals: Totals::default(), done: false }
    }

    /// The next part: chunks, then the footer, then nothing.
    pub fn next_part(&mut self) -> engine::Result<Option<Part>> {
        if self.done {
            return Ok(None);
        }
        while self.buffer.len() < SNAPSHOT_CHUNK_BYTES && !self.sections.is_empty() {
            self.read()?;
        }
        if self.buffer.is_empty() {
            self.done = true;
            let Totals { chunks, bytes, .. } = self.totals;
            return Ok(Some(Part::Footer(Footer { chunks, bytes, crc32: self.totals.crc32() })));
        }
        let length = self.buffer.len().min(SNAPSHOT_CHUNK_BYTES);
        let data = self.buffer.split_to(length).freeze();
        let sequence = self.totals.chunks;
        self.totals.add(&data);
        let crc32 = crc32fast::hash(&data);
        Ok(Some(Part::Data(Data { sequence, data, crc32 })))
    }

    /// Reads on in the current section until there is enough for a chunk.
    fn read(&mut self) -> engine::Result<()> {
        let Some((cf, range)) = self.sections.last_mut() else { return Ok(()) };
        let mut iter = self.ready.engine.iter(*cf, range.clone());
        let mut more = iter.seek_to_first()?;
        if more && *cf == Cf::Raw && planted(Bug::SnapshotMissesRange) {
            more = iter.next()?;
        }
        while more {
            records::put(&mut self.buffer, *cf, iter.key(), iter.value());
            if self.buffer.len() >= SNAPSHOT_CHUNK_BYTES {
                range.lower = successor(iter.key());
                return Ok(());
            }
            more = iter.next()?;
        }
        drop(iter);
        self.sections.pop();
        Ok(())
    }
}

/// The first key after `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

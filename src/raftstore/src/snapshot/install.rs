//! Installation: the region's data becomes what the spool file holds.
//!
//! # Steps, and what a crash after each leaves
//! 1. The store loop's log write: marker, Raft state, empty log ([`put_marker`]). *Durable before step 2 begins.*
//! 2. Check the whole file again. Nothing has changed; a damaged file is found before anything is deleted.
//! 3. Destroy the regions that were merged into this one while this store was away (M16), then delete the region's data
//!    and sessions (not synced). Some, all or none of it is gone; the marker is there.
//! 4. Load the file's data. Some or all of it is there; the marker is there.
//! 5. One batch: region state, apply state, sessions, the marker's removal. Synced. Before: the marker is there. After: done.
//! 6. Delete the file. Before: an orphan, deleted when the store opens.
//!
//! As long as the marker is there, [`finish_pending`] starts again at step 2, and each step does not care how often it ran.
//!
//! Between steps 1 and 5 the peer must not act, and the applier must have nothing of the region in hand.

use std::sync::Arc;

use bytes::Bytes;
use engine::{Cf, Engine, WriteBatch};
use prost::Message;
use proto::flotillapb::{self, PeerState};
use proto::ids::RegionId;
use proto::metapb;

use super::files::{SnapshotFileId, SnapshotFiles};
use super::meta::{from_wire, to_wire};
use super::receive::{self, ReceivedSnapshot};
use super::records::{ContentError, Record, RecordReader};
use super::spool::ChunkSource;
use crate::apply::{self, ApplyState, SnapshotMeta};
use crate::keys::{self, Key};
use crate::peer::records::{ReadError, RegionRecord};
use crate::planted::{Bug, planted};

/// An installation to be carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotInstall {
    /// Of which region.
    pub region: RegionId,
    /// This store's peer, which the snapshot's region lists.
    pub peer: metapb::Peer,
    /// What the snapshot stands for.
    pub meta: SnapshotMeta,
    /// Where it is.
    pub file: ReceivedSnapshot,
    /// Tombstones of the regions that end with it: they were merged into this one without this store.
    pub merged: Vec<MergedAway>,
}

/// A region of this store whose keys arrive with another region's snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedAway {
    /// As this store knew it last.
    pub region: metapb::Region,
    /// This store's peer of it.
    pub peer: metapb::Peer,
}

impl MergedAway {
    fn tombstone(&self) -> RegionRecord {
        RegionRecord::tombstone(self.region.clone(), Some(self.peer), None)
    }
}

/// Why an installation cannot be carried out. Fatal to the store: the region has promised to hold this state.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The engine failed.
    #[error("snapshot of region {region}: {source}")]
    Engine {
        /// Whose.
        region: RegionId,
        /// How.
        source: engine::Error,
    },
    /// The spool file cannot be read, or is not what was received.
    #[error("snapshot of region {region}: {source}")]
    File {
        /// Whose.
        region: RegionId,
        /// How.
        source: ContentError,
    },
    /// The marker is not one that this version wrote.
    #[error("snapshot of region {region}: the record of its installation is malformed")]
    Marker {
        /// Whose.
        region: RegionId,
    },
    /// The record of the region as it was cannot be read.
    #[error("snapshot of region {region}: {source}")]
    Record {
        /// Whose.
        region: RegionId,
        /// Why.
        source: ReadError,
    },
    /// The spool directory cannot be cleaned.
    #[error("snapshot directory: {0}")]
    Files(#[from] std::io::Error),
}

/// Adds the marker of an installation to a batch.
pub fn put_marker(install: &SnapshotInstall, batch: &mut WriteBatch) {
    let marker = flotillapb::PendingSnapshot {
        meta: Some(to_wire(&install.meta, Some(&install.file))),
        file_name: install.file.id.to_string(),
        merged: install.merged.iter().map(|merged| merged.tombstone().to_wire()).collect(),
        peer: Some(install.peer),
    };
    batch.put(Cf::Raft, Key::PendingSnapshot(install.region).encode(), marker.encode_to_vec());
}

/// Carries out an installation whose marker is durable. Returns where the region now stands, durably.
pub fn install(
    engine: &dyn Engine,
    files: &dyn SnapshotFiles,
    install: &SnapshotInstall,
) -> Result<ApplyState, InstallError> {
    let region = install.region;
    let failed = |source| InstallError::Engine { region, source };
    let damaged = |source| InstallError::File { region, source };
    let SnapshotInstall { meta, file, .. } = install;
    let pairs = receive::check(files, file.id, meta).map_err(damaged)?;
    if pairs != file.pairs {
        return Err(InstallError::Marker { region });
    }
    if !planted(Bug::MergedRegionSurvives) {
        bury_merged(engine, &install.merged)?;
    }
    let old = RegionRecord::read(engine.snapshot().as_ref(), region);
    let old = old.map_err(|source| InstallError::Record { region, source })?;
    clear(engine, meta, old.as_ref()).map_err(failed)?;
    let (state, mut reader) = receive::open(files, file.id, meta).map_err(damaged)?;

    let mut batch = WriteBatch::new();
    let mut next = reader.next().map_err(damaged)?;
    // The sessions come first, and are few.
    while let Some(record) = next.take_if(|record| record.cf == Cf::Raft) {
        batch.put(Cf::Raft, record.key, record.value);
        next = reader.next().map_err(damaged)?;
    }
    while let Some(first) = next {
        let cf = first.cf;
        let mut load = Load { reader: &mut reader, cf, next: Some(first), failure: None };
        let loaded = engine.ingest(cf, &mut load);
        let Load { next: following, failure, .. } = load;
        if let Some(source) = failure {
            return Err(damaged(source));
        }
        loaded.map_err(failed)?;
        next = following;
    }

    let mut record = RegionRecord::normal(meta.region.clone(), Some(install.peer));
    record.snapshot_epoch = meta.region.region_epoch;
    batch.put(Cf::Raft, Key::RegionState(region).encode(), record.encode());
    batch.put(Cf::Raft, Key::ApplyState(region).encode(), state.encode());
    batch.delete(Cf::Raft, Key::PendingSnapshot(region).encode());
    engine.write(&batch).map_err(failed)?;
    engine.sync().map_err(failed)?;
    // An orphan at worst.
    let _ = files.remove(file.id);
    Ok(state)
}

/// Finishes every installation that a crash interrupted and deletes spool files that nobody needs. To be called when a
/// store opens, before any peer acts.
pub fn finish_pending(
    engine: &Arc<dyn Engine>,
    files: &dyn SnapshotFiles,
) -> Result<Vec<SnapshotInstall>, InstallError> {
    let pending = load_pending(engine.as_ref())?;
    for unfinished in &pending {
        install(engine.as_ref(), files, unfinished)?;
    }
    for id in files.list()? {
        files.remove(id)?;
    }
    Ok(pending)
}

fn load_pending(engine: &dyn Engine) -> Result<Vec<SnapshotInstall>, InstallError> {
    let unknown = RegionId::default();
    let failed = |source| InstallError::Engine { region: unknown, source };
    let snapshot = engine.snapshot();
    let mut iter = snapshot.iter(Cf::Raft, keys::pending_snapshot_range());
    let mut pending = Vec::new();
    let mut more = iter.seek_to_first().map_err(failed)?;
    while more {
        let Ok(Key::PendingSnapshot(region)) = Key::decode(Cf::Raft, iter.key()) else {
            return Err(InstallError::Marker { region: unknown });
        };
        let decoded = decode_marker(region, iter.value());
        pending.push(decoded.ok_or(InstallError::Marker { region })?);
        more = iter.next().map_err(failed)?;
    }
    Ok(pending)
}

fn decode_marker(region: RegionId, bytes: &[u8]) -> Option<SnapshotInstall> {
    let marker = flotillapb::PendingSnapshot::decode(bytes).ok()?;
    let id: SnapshotFileId = marker.file_name.parse().ok()?;
    let wire = marker.meta?;
    let (pairs, content_bytes, crc32) = (wire.pairs, wire.bytes, wire.crc32);
    let meta = from_wire(wire).ok()?;
    let file = ReceivedSnapshot { id, pairs, content_bytes, crc32 };
    let peer = marker.peer?;
    let merged = marker.merged.into_iter().map(|record| {
        let (region, peer) = (record.region?, record.peer?);
        Some(MergedAway { region, peer })
    });
    let merged = merged.collect::<Option<Vec<_>>>()?;
    let whole = meta.region.id == region.get();
    whole.then_some(SnapshotInstall { region, peer, meta, file, merged })
}

/// Destroys the regions that were merged into the snapshot's. Usually the applier has done so before; after a crash it is
/// done here.
fn bury_merged(engine: &dyn Engine, merged: &[MergedAway]) -> Result<(), InstallError> {
    for victim in merged {
        let region = RegionId::from(victim.region.id);
        let stored = RegionRecord::read(engine.snapshot().as_ref(), region);
        let stored = stored.map_err(|source| InstallError::Record { region, source })?;
        if stored.is_none_or(|stored| stored.state == PeerState::Tombstone) {
            continue;
        }
        let mut batch = WriteBatch::new();
        apply::bury(&victim.tombstone(), &mut batch);
        engine.write(&batch).map_err(|source| InstallError::Engine { region, source })?;
    }
    Ok(())
}

/// Deletes everything of the region that the snapshot replaces, also what lies outside of its range by now: until the
/// installation is done, all of the old range is this region's alone.
fn clear(
    engine: &dyn Engine,
    meta: &SnapshotMeta,
    old: Option<&RegionRecord>,
) -> engine::Result<()> {
    let mut batch = WriteBatch::new();
    let sessions = (Cf::Raft, keys::session_range(meta.region.id.into()));
    // A peer that never had a snapshot has no range, and no data.
    let old = old.filter(|old| !old.region.peers.is_empty());
    let old_ranges = old.into_iter().flat_map(|old| keys::data_ranges(&old.region));
    let ranges = std::iter::once(sessions).chain(keys::data_ranges(&meta.region)).chain(old_ranges);
    for (cf, range) in ranges {
        if let Some(upper) = range.upper {
            batch.delete_range(cf, range.lower, upper);
        }
    }
    engine.write(&batch)
}

/// The records of one column family, as the engine wants to be fed; what follows them stays.
struct Load<'a, C> {
    reader: &'a mut RecordReader<C>,
    cf: Cf,
    next: Option<Record>,
    /// Why it ended early; the engine is told something of its own kind.
    failure: Option<ContentError>,
}

impl<C: ChunkSource> Iterator for Load<'_, C> {
    type Item = engine::Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failure.is_some() {
            return None;
        }
        let record = self.next.take_if(|record| record.cf == self.cf)?;
        match self.reader.next() {
            Ok(following) => self.next = following,
            Err(error) => {
                let detail = error.to_string();
                self.failure = Some(error);
                return Some(Err(engine::Error::Corruption { action: "read a snapshot", detail }));
            }
        }
        Some(Ok((record.key, record.value)))
    }
}

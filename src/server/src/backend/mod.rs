//! What the services stand on: one trait, so that the same verbs serve a replicated store and a bare engine.
//!
//! - *View*: the engine and the region a read was granted for. It exists only while the grant is being used.
//! - *Read now*: on the thread that received the request, by lease, checked before and after the read.
//! - *Permit*: what the store's loop hands out when there is no lease: a quorum has confirmed the lead and everything
//!   committed before is applied. It is used where the response is sent, so the loop never reads for a client.
//!
//! [`raft::RaftBackend`] is the store; [`standalone::StandaloneBackend`] is a bare engine behind the same services.

pub mod raft;
pub mod standalone;

use std::sync::Arc;

use bytes::Bytes;
use engine::{Cf, Engine, Iter, Snapshot};
use proto::metapb;
use raftstore::command::{Request, WriteResult};
use raftstore::keys::{self, RawCf};
use raftstore::{ReadMeter, ReadMiss, ReadPermit, RegionError, Reply, RequestHeader};

/// A read of the engine under a grant. May run more than once: a grant that ran out meanwhile voids what was read.
pub type ReadFn<'a> = &'a mut dyn FnMut(&View<'_>);

/// The store behind the services. Calls come from network threads and never wait for replication.
pub trait Backend: Send + Sync + 'static {
    /// Reads at once where that is safe.
    fn read_now(&self, header: &RequestHeader, read: ReadFn<'_>) -> Result<(), ReadMiss>;

    /// Asks for a permit to read.
    fn permit(&self, header: RequestHeader, reply: Reply<ReadPermit>);

    /// Reads with a permit.
    fn read_with(&self, permit: &ReadPermit, read: ReadFn<'_>) -> Result<(), RegionError>;

    /// Applies a request; the reply comes after it is durable and applied.
    fn write(&self, header: RequestHeader, request: Request, reply: Reply<WriteResult>);

    /// A read met an engine that no longer works: the store must stop serving and say why.
    fn engine_failed(&self, error: &engine::Error);
}

/// See the module header.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    engine: &'a dyn Engine,
    region: &'a metapb::Region,
    meter: Option<&'a ReadMeter>,
}

impl<'a> View<'a> {
    /// A view of what belongs to `region`.
    pub fn new(engine: &'a dyn Engine, region: &'a metapb::Region) -> View<'a> {
        View { engine, region, meter: None }
    }

    /// The same, which counts what is read.
    pub fn metered(self, meter: &'a ReadMeter) -> View<'a> {
        View { meter: Some(meter), ..self }
    }

    /// The value of one key.
    pub(crate) fn get(&self, cf: RawCf, key: &[u8]) -> engine::Result<Option<Bytes>> {
        debug_assert!(covers(self.region, key), "a read of a key that was not checked");
        let value = self.engine.get(Cf::Raw, &keys::raw(cf, key))?;
        count(self.meter, key, value.as_ref().map_or(0, Bytes::len));
        Ok(value)
    }

    /// One consistent state of the region, for reads of more than one key.
    pub(crate) fn freeze(&self) -> Frozen<'a> {
        Frozen { snapshot: self.engine.snapshot(), region: self.region, meter: self.meter }
    }

    /// Refuses a key outside of the region.
    pub(crate) fn check(&self, key: &Bytes) -> Result<(), RegionError> {
        if covers(self.region, key) {
            return Ok(());
        }
        Err(RegionError::KeyNotInRegion {
            key: key.clone(),
            region: self.region.id.into(),
            start_key: self.region.start_key.clone(),
            end_key: self.region.end_key.clone(),
        })
    }
}

/// A region at one instant.
pub(crate) struct Frozen<'a> {
    snapshot: Arc<dyn Snapshot>,
    region: &'a metapb::Region,
    meter: Option<&'a ReadMeter>,
}

impl Frozen<'_> {
    /// The value of one key.
    pub(crate) fn get(&self, cf: RawCf, key: &[u8]) -> engine::Result<Option<Bytes>> {
        debug_assert!(covers(self.region, key), "a read of a key that was not checked");
        let value = self.snapshot.get(Cf::Raw, &keys::raw(cf, key))?;
        count(self.meter, key, value.as_ref().map_or(0, Bytes::len));
        Ok(value)
    }

    /// A row that a cursor has found is read.
    pub(crate) fn count(&self, key: &[u8], value_bytes: usize) {
        count(self.meter, key, value_bytes);
    }

    /// A cursor over the part of `[start, end)` that lies in the region; an empty `end` is the end of the keyspace.
    pub(crate) fn iter(&self, cf: RawCf, start: &[u8], end: &[u8]) -> Box<dyn Iter + '_> {
        let region_end = &self.region.end_key[..];
        let start = start.max(&self.region.start_key[..]);
        let end = match (end.is_empty(), region_end.is_empty()) {
            (true, _) => region_end,
            (false, true) => end,
            (false, false) => end.min(region_end),
        };
        self.snapshot.iter(Cf::Raw, keys::raw_range(cf, start, end))
    }
}

fn count(meter: Option<&ReadMeter>, key: &[u8], value_bytes: usize) {
    if let Some(meter) = meter {
        meter.count(key, value_bytes);
    }
}

fn covers(region: &metapb::Region, key: &[u8]) -> bool {
    key >= &region.start_key[..] && (region.end_key.is_empty() || key < &region.end_key[..])
}

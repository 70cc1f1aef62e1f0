//! Linearizable reads on the caller's own thread.
//!
//! The store loop publishes, for every region it leads, a [`ReadDelegate`]: the region, the term, and until when its lease
//! runs. A reader on any thread finds the delegate, checks it, reads the engine, and checks it *again* (M19): if the lease
//! held at both ends, it held while the engine was read, so nobody else can have acknowledged a write the engine did not
//! show. The loop voids a delegate before it acts on whatever ended the lead or makes the data inconsistent (a vote, a step
//! down, a snapshot to install), so a check that passes happened before.
//!
//! # Invariants
//! 1. A delegate is published only once everything of earlier terms is applied (R13, R14), and never changes but for its
//!    lease and its validity; another term or another region is another delegate.
//! 2. Once void, it stays void.
//! 3. A lease is compared with the clock at each check, so a process that was paused cannot use it beyond its end (R12).
//!
//! When the check fails the read goes to the store loop ([`crate::msg::ReadRequest`]) and comes back with a
//! [`ReadPermit`], good for one engine read that starts after it arrived.
//!
//! Tests: below, and `tests/reads.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use parking_lot::RwLock;
use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb;
use raft::Term;

use crate::error::RegionError;
use crate::msg::RequestHeader;
use crate::read_load::{ReadCounters, ReadLoad, ReadMeter};
use crate::time::Instant;

/// `lease_until_ns` of a delegate that has no lease.
const NO_LEASE: u64 = 0;

/// What a reader needs to know of a region this store leads.
#[derive(Debug)]
pub struct ReadDelegate {
    region: Arc<metapb::Region>,
    peer: PeerId,
    term: Term,
    valid: AtomicBool,
    lease_until_ns: AtomicU64,
    /// Whether somebody read by the lease since the loop last asked.
    used: AtomicBool,
    counters: ReadCounters,
}

impl ReadDelegate {
    pub(crate) fn new(region: Arc<metapb::Region>, peer: PeerId, term: Term) -> ReadDelegate {
        ReadDelegate {
            region,
            peer,
            term,
            valid: AtomicBool::new(true),
            lease_until_ns: AtomicU64::new(NO_LEASE),
            used: AtomicBool::new(false),
            counters: ReadCounters::default(),
        }
    }

    /// Extends, or takes back, the lease.
    pub(crate) fn set_lease(&self, until: Option<Instant>) {
        let ns = until.map_or(NO_LEASE, Instant::ns);
        self.lease_until_ns.store(ns, Ordering::SeqCst);
    }

    /// From now on no check passes.
    pub(crate) fn void(&self) {
        self.valid.store(false, Ordering::SeqCst);
        self.lease_until_ns.store(NO_LEASE, Ordering::SeqCst);
    }

    /// Whether it was used since the last call.
    pub(crate) fn take_used(&self) -> bool {
        self.used.load(Ordering::Relaxed) && self.used.swap(false, Ordering::Relaxed)
    }

    /// What was read since the last call, if anything.
    pub(crate) fn take_load(&self) -> Option<ReadLoad> {
        self.counters.take()
    }

    fn has_lease(&self, now: Instant) -> bool {
        now.ns() < self.lease_until_ns.load(Ordering::SeqCst)
    }

    fn is_valid(&self) -> bool {
        self.valid.load(Ordering::SeqCst)
    }
}

/// The delegates of a store, shared between its loop and its readers.
#[derive(Debug, Default)]
pub struct ReadRegistry {
    delegates: RwLock<BTreeMap<RegionId, Arc<ReadDelegate>>>,
}

impl ReadRegistry {
    pub(crate) fn publish(&self, region: RegionId, delegate: Arc<ReadDelegate>) {
        let old = self.delegates.write().insert(region, delegate);
        if let Some(old) = old {
            old.void();
        }
    }

    /// Voids a region's delegate and forgets it.
    pub(crate) fn withdraw(&self, region: RegionId) {
        let old = self.delegates.write().remove(&region);
        if let Some(old) = old {
            old.void();
        }
    }

    /// Voids every delegate.
    pub(crate) fn withdraw_all(&self) {
        let mut delegates = self.delegates.write();
        delegates.values().for_each(|delegate| delegate.void());
        delegates.clear();
    }

    fn find(&self, region: RegionId) -> Option<Arc<ReadDelegate>> {
        self.delegates.read().get(&region).cloned()
    }
}

/// Leave to read a region once: the data of this store now holds everything that was acknowledged before the read was
/// asked for.
#[derive(Clone, Debug)]
pub struct ReadPermit {
    /// The region as of the permit.
    pub region: Arc<metapb::Region>,
    delegate: Arc<ReadDelegate>,
}

impl ReadPermit {
    pub(crate) fn new(delegate: Arc<ReadDelegate>) -> ReadPermit {
        ReadPermit { region: delegate.region.clone(), delegate }
    }

    /// Reads by `read` and checks that the region's data stayed whole meanwhile (M20).
    pub fn read<T>(&self, read: impl FnOnce(&metapb::Region) -> T) -> Result<T, RegionError> {
        self.read_metered(|region, _| read(region))
    }

    /// The same; `read` says on the meter what it has found.
    pub fn read_metered<T>(
        &self,
        read: impl FnOnce(&metapb::Region, &ReadMeter) -> T,
    ) -> Result<T, RegionError> {
        let meter = self.delegate.counters.meter();
        let value = read(&self.region, &meter);
        self.delegate.counters.add(meter);
        fence(Ordering::SeqCst);
        if self.delegate.is_valid() { Ok(value) } else { Err(RegionError::StaleCommand) }
    }
}

/// Why a read was not answered from the lease.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadMiss {
    /// Ask the store loop for a permit.
    NoLease,
    /// The request cannot be served here.
    Refused(RegionError),
}

/// Reads by lease.
#[derive(Clone, Debug)]
pub struct LocalReader {
    store: StoreId,
    registry: Arc<ReadRegistry>,
}

impl LocalReader {
    /// A reader of what `registry`'s store leads.
    pub fn new(store: StoreId, registry: Arc<ReadRegistry>) -> LocalReader {
        LocalReader { store, registry }
    }

    /// Answers a read from the engine by `read`, if the region's lease covers it. `now` reads the process's monotonic
    /// clock, the same one the store loop is given; it is called before and after `read`, which runs at most once and
    /// must take whatever it needs from the engine itself (a value, or a snapshot to keep).
    pub fn read<T>(
        &self,
        header: &RequestHeader,
        now: impl Fn() -> Instant,
        read: impl FnOnce(&Arc<metapb::Region>) -> T,
    ) -> Result<T, ReadMiss> {
        self.read_metered(header, now, |region, _| read(region))
    }

    /// The same; `read` says on the meter what it has found.
    pub fn read_metered<T>(
        &self,
        header: &RequestHeader,
        now: impl Fn() -> Instant,
        read: impl FnOnce(&Arc<metapb::Region>, &ReadMeter) -> T,
    ) -> Result<T, ReadMiss> {
        header.check_store(self.store).map_err(ReadMiss::Refused)?;
        let delegate = self.registry.find(header.region).ok_or(ReadMiss::NoLease)?;
        if !delegate.has_lease(now()) {
            return Err(ReadMiss::NoLease);
        }
        header.check_peer(delegate.peer).map_err(ReadMiss::Refused)?;
        header.check_term(delegate.term).map_err(ReadMiss::Refused)?;
        // The loop knows also what a region has been cut into, and says so.
        header.check_version(&delegate.region).map_err(|_| ReadMiss::NoLease)?;
        if !delegate.used.load(Ordering::Relaxed) {
            delegate.used.store(true, Ordering::Relaxed);
        }
        let meter = delegate.counters.meter();
        let value = read(&delegate.region, &meter);
        delegate.counters.add(meter);
        // What was read must not be older than the check that follows.
        fence(Ordering::SeqCst);
        if delegate.has_lease(now()) { Ok(value) } else { Err(ReadMiss::NoLease) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn reader() -> (LocalReader, Arc<ReadDelegate>, RequestHeader) {
        let registry = Arc::new(ReadRegistry::default());
        let epoch = metapb::RegionEpoch { conf_ver: 1, version: 1 };
        let region = metapb::Region { id: 7, region_epoch: Some(epoch), ..Default::default() };
        let delegate = Arc::new(ReadDelegate::new(Arc::new(region), PeerId::from(3), Term(6)));
        registry.publish(RegionId::from(7), delegate.clone());
        let header = RequestHeader::new(RegionId::from(7), epoch);
        (LocalReader::new(StoreId::from(1), registry), delegate, header)
    }

    #[test]
    fn the_lease_is_checked_before_and_after_the_read() {
        let (reader, delegate, header) = reader();
        delegate.set_lease(Some(Instant::from_ms(100)));
        let clock = Cell::new(Instant::from_ms(99));
        assert_eq!(reader.read(&header, || clock.get(), |_| 1), Ok(1));
        assert!(delegate.take_used());
        assert!(!delegate.take_used());
        let late = reader.read(&header, || clock.get(), |_| clock.set(Instant::from_ms(100)));
        assert_eq!(late, Err(ReadMiss::NoLease), "the process was paused while it read");
        let mut ran = false;
        let gone = reader.read(&header, || clock.get(), |_| ran = true);
        assert_eq!((gone, ran), (Err(ReadMiss::NoLease), false));
    }

    #[test]
    fn a_delegate_voided_during_the_read_refuses_it() {
        let (reader, delegate, header) = reader();
        delegate.set_lease(Some(Instant::from_ms(100)));
        let read = reader.read(&header, || Instant::ZERO, |_| reader.registry.withdraw_all());
        assert_eq!(read, Err(ReadMiss::NoLease));
        let permit = ReadPermit::new(delegate);
        assert_eq!(permit.read(|_| ()), Err(RegionError::StaleCommand));
    }

    #[test]
    fn the_header_is_checked() {
        let (reader, delegate, header) = reader();
        delegate.set_lease(Some(Instant::from_ms(100)));
        let read = |header: &RequestHeader| reader.read(header, || Instant::ZERO, |_| ());
        let other = RequestHeader { store: Some(StoreId::from(2)), ..header.clone() };
        assert!(matches!(read(&other), Err(ReadMiss::Refused(RegionError::StoreNotMatch { .. }))));
        let other = RequestHeader { peer: Some(PeerId::from(9)), ..header.clone() };
        assert!(matches!(read(&other), Err(ReadMiss::Refused(RegionError::MismatchPeerId { .. }))));
        let epoch = metapb::RegionEpoch { conf_ver: 1, version: 2 };
        let other = RequestHeader { epoch, ..header.clone() };
        assert_eq!(read(&other), Err(ReadMiss::NoLease), "the loop will say what it became");
        let other = RequestHeader { region: RegionId::from(8), ..header };
        assert_eq!(read(&other), Err(ReadMiss::NoLease), "unknown here: the loop will say why");
    }
}

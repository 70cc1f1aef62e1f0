//! Where the regions are: a map by start key and one by id, fed by the leaders' heartbeats.
//!
//! - **Staleness.** A report loses against what is known if its epoch is older: `version` (range) or
//!   `conf_ver` (peers) below that of the same region, or, for a region not known yet, `version` below
//!   that of any region it overlaps, or equal with a lower `conf_ver`. With a higher version it wins: of
//!   regions that held one key, one after the other, the later has the higher version, but a merge may
//!   leave the lower `conf_ver`. At equal epochs a lower Raft term loses.
//! - **Overlap.** A report that wins takes the place of everything it overlaps.
//! - **No hole.** After a split the halves report one by one. The range of the half not heard of yet
//!   stays with the old region's description, cut to that range: a client that follows it meets an
//!   epoch error with the current regions in it, and not a key without a region. Such a *remnant* is
//!   in memory only; while there are any, nothing of the tree is written, so that what is on the disk
//!   is whole, too.
//!
//! Invariants: entries are disjoint; remnants are disjoint, and disjoint from entries; a key once
//! covered stays covered.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use proto::codec::is_boundary;
use proto::ids::{RegionId, StoreId};
use proto::limits::REGION_PEERS_MAX;
use proto::{metapb, pdpb};

use super::error::Error;
use super::loads::{Loads, StoreLoad};
use crate::planted::{Bug, planted};

/// The largest size and rate that is believed, so that sums cannot overflow.
const ESTIMATE_MAX: u64 = 1 << 50;

/// A region as its leader reported it last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionInfo {
    /// Range, epoch and peers.
    pub meta: metapb::Region,
    /// Unknown until the first report since this scheduler started.
    pub leader: Option<metapb::Peer>,
    /// The Raft term of that leader.
    pub term: u64,
    /// Peers the leader has not heard of for a while.
    pub down_peers: Vec<pdpb::PeerStats>,
    /// Peers that lag too far behind to count.
    pub pending_peers: Vec<metapb::Peer>,
    /// Bytes.
    pub approximate_size: u64,
    /// Keys.
    pub approximate_keys: u64,
    /// What clients did, by its last report.
    pub flow: Flow,
    /// When its leader reported last, by the scheduler's own time; 0 is never.
    pub heard_ms: u64,
    /// When its range was first seen as it is, by the scheduler's own time.
    pub range_since_ms: u64,
}

/// What clients do to a region, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of keys and values written.
    pub write_bytes: u64,
    /// Bytes of keys and values read.
    pub read_bytes: u64,
    /// Keys written.
    pub write_keys: u64,
    /// Keys read.
    pub read_keys: u64,
}

impl Flow {
    /// Bytes, of whichever direction.
    pub(super) fn bytes(self) -> u64 {
        self.write_bytes + self.read_bytes
    }

    /// Keys, of whichever direction.
    pub(super) fn keys(self) -> u64 {
        self.write_keys + self.read_keys
    }
}

impl From<pdpb::RegionHeartbeatRequest> for RegionInfo {
    fn from(request: pdpb::RegionHeartbeatRequest) -> Self {
        let interval = request.interval.unwrap_or_default();
        let seconds = interval.end_timestamp.saturating_sub(interval.start_timestamp).max(1);
        Self {
            meta: request.region.unwrap_or_default(),
            leader: request.leader,
            term: request.term,
            down_peers: request.down_peers,
            pending_peers: request.pending_peers,
            approximate_size: request.approximate_size,
            approximate_keys: request.approximate_keys,
            flow: Flow {
                write_bytes: request.bytes_written / seconds,
                read_bytes: request.bytes_read / seconds,
                write_keys: request.keys_written / seconds,
                read_keys: request.keys_read / seconds,
            },
            heard_ms: 0,
            range_since_ms: 0,
        }
    }
}

impl RegionInfo {
    /// The region's id.
    pub fn id(&self) -> RegionId {
        self.meta.id.into()
    }

    pub(super) fn epoch(&self) -> metapb::RegionEpoch {
        self.meta.region_epoch.unwrap_or_default()
    }

    /// Brings what a leader said about itself into bounds: estimates, and peers it does not have.
    pub(super) fn trim(&mut self) {
        let peers = &self.meta.peers;
        let known = |id: u64| peers.iter().any(|peer| peer.id == id);
        self.pending_peers.retain(|peer| known(peer.id));
        self.pending_peers.sort_by_key(|peer| peer.id);
        self.pending_peers.dedup_by_key(|peer| peer.id);
        self.down_peers.retain(|down| down.peer.as_ref().is_some_and(|peer| known(peer.id)));
        // The list of peers says where a peer is.
        self.leader =
            self.leader.and_then(|leader| peers.iter().find(|peer| peer.id == leader.id)).copied();
        for place in self.pending_peers.iter_mut() {
            if let Some(peer) = peers.iter().find(|peer| peer.id == place.id) {
                *place = *peer;
            }
        }
        let Flow { write_bytes, read_bytes, write_keys, read_keys } = &mut self.flow;
        let sizes = [&mut self.approximate_size, &mut self.approximate_keys];
        for estimate in sizes.into_iter().chain([write_bytes, read_bytes, write_keys, read_keys]) {
            *estimate = (*estimate).min(ESTIMATE_MAX);
        }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.meta.start_key <= key && before_end(key, &self.meta.end_key)
    }

    fn overlaps(&self, start: &[u8], end: &[u8]) -> bool {
        before_end(start, &self.meta.end_key) && before_end(&self.meta.start_key, end)
    }

    /// The same description, cut to `[start, end)`.
    fn cut(&self, start: Bytes, end: Bytes) -> Self {
        let meta = metapb::Region { start_key: start, end_key: end, ..self.meta.clone() };
        Self { meta, ..self.clone() }
    }

    /// A copy for every part of this region that lies outside of `[start, end)`.
    fn outside(&self, start: &Bytes, end: &Bytes) -> impl Iterator<Item = Self> {
        let below = self.meta.start_key < start;
        let above = !end.is_empty() && before_end(end, &self.meta.end_key);
        let below = below.then(|| self.cut(self.meta.start_key.clone(), start.clone()));
        let above = above.then(|| self.cut(end.clone(), self.meta.end_key.clone()));
        below.into_iter().chain(above)
    }
}

/// Whether `key` lies below an end, where an empty end is +inf.
fn before_end(key: &[u8], end: &[u8]) -> bool {
    end.is_empty() || key < end
}

/// Regions by start key.
type ByStart = BTreeMap<Bytes, RegionInfo>;

/// The last entry that begins at or below `key`, if it contains it.
fn covering<'a>(map: &'a ByStart, key: &[u8]) -> Option<&'a RegionInfo> {
    let (_, info) = map.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
    info.contains(key).then_some(info)
}

fn first_after<'a>(map: &'a ByStart, key: &[u8]) -> Option<&'a RegionInfo> {
    Some(map.range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded)).next()?.1)
}

fn last_below<'a>(map: &'a ByStart, key: &[u8]) -> Option<&'a RegionInfo> {
    Some(map.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key))).next_back()?.1)
}

/// Start keys of the entries that overlap `[start, end)`, in order.
fn overlapping(map: &ByStart, start: &[u8], end: &[u8]) -> Vec<Bytes> {
    let first = covering(map, start).map(|info| info.meta.start_key.clone());
    let later = map.range::<[u8], _>((Bound::Excluded(start), Bound::Unbounded));
    let later = later.take_while(|(key, _)| before_end(key, end)).map(|(key, _)| key.clone());
    first.into_iter().chain(later).collect()
}

/// What a report did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Range, epoch or peers are new: worth remembering.
    pub(super) meta_changed: bool,
    /// Other regions that lost their place.
    pub(super) displaced: Vec<RegionId>,
}

/// All regions known.
#[derive(Debug, Default)]
pub(super) struct RegionTree {
    entries: ByStart,
    starts: BTreeMap<RegionId, Bytes>,
    remnants: ByStart,
    loads: Loads,
    /// Entries whose leader is known.
    led: usize,
}

impl RegionTree {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether every range that was ever covered belongs to a region that has reported.
    pub(super) fn is_whole(&self) -> bool {
        self.remnants.is_empty()
    }

    pub(super) fn by_id(&self, id: RegionId) -> Option<&RegionInfo> {
        self.entries.get(self.starts.get(&id)?)
    }

    /// The region that holds `key`; for a key whose region is not known yet, a remnant.
    pub(super) fn by_key(&self, key: &[u8]) -> Option<&RegionInfo> {
        covering(&self.entries, key).or_else(|| covering(&self.remnants, key))
    }

    /// As [`Self::by_key`], without remnants.
    pub(super) fn reported_by_key(&self, key: &[u8]) -> Option<&RegionInfo> {
        covering(&self.entries, key)
    }

    /// The region before the one that holds `key`.
    pub(super) fn previous(&self, key: &[u8]) -> Option<&RegionInfo> {
        let start = &self.by_key(key)?.meta.start_key;
        let below = [last_below(&self.entries, start), last_below(&self.remnants, start)];
        let previous = below.into_iter().flatten().max_by_key(|info| &info.meta.start_key)?;
        (previous.meta.end_key == start).then_some(previous)
    }

    /// The regions that overlap `[start, end)`, in order, at most `limit`.
    pub(super) fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Vec<&RegionInfo> {
        let mut found = Vec::new();
        let mut next = self.by_key(start).or_else(|| self.after(start));
        while let Some(info) = next {
            if found.len() == limit || !before_end(&info.meta.start_key, end) {
                break;
            }
            found.push(info);
            let from = &info.meta.end_key;
            if from.is_empty() {
                break;
            }
            next = self.by_key(from).or_else(|| self.after(from));
        }
        found
    }

    fn after(&self, key: &[u8]) -> Option<&RegionInfo> {
        let above = [first_after(&self.entries, key), first_after(&self.remnants, key)];
        above.into_iter().flatten().min_by_key(|info| &info.meta.start_key)
    }

    /// What a store carries; `None` if it never carried anything.
    pub(super) fn load(&self, store: StoreId) -> Option<&StoreLoad> {
        self.loads.of(store)
    }

    /// How many regions a store leads, and how many it has a peer of.
    pub(super) fn counts(&self, store: StoreId) -> (usize, usize) {
        self.load(store).map_or((0, 0), |load| (load.led.len(), load.regions.len()))
    }

    /// How many regions have reported since they were read from the disk.
    pub(super) fn led_count(&self) -> usize {
        self.led
    }

    /// Regions that have reported, or were read from the disk, from `key` on, at most `limit`.
    pub(super) fn entries_from(
        &self,
        key: &[u8],
        limit: usize,
    ) -> impl Iterator<Item = &RegionInfo> {
        let from = (Bound::Included(key), Bound::Unbounded);
        self.entries.range::<[u8], _>(from).take(limit).map(|(_, info)| info)
    }

    /// The neighbours of a region, if they are known: the one below, the one above.
    pub(super) fn neighbours(&self, info: &RegionInfo) -> [Option<&RegionInfo>; 2] {
        let below = last_below(&self.entries, &info.meta.start_key);
        let above = self.entries.get(&info.meta.end_key);
        [
            below.filter(|below| below.meta.end_key == info.meta.start_key),
            above.filter(|above| !above.meta.start_key.is_empty()),
        ]
    }

    fn insert_entry(&mut self, info: RegionInfo) {
        self.loads.add(&info);
        self.led += usize::from(info.leader.is_some());
        let before = self.entries.insert(info.meta.start_key.clone(), info);
        assert!(before.is_none(), "an entry was taken out before another takes its place");
    }

    fn remove_entry(&mut self, start: &[u8]) -> Option<RegionInfo> {
        let info = self.entries.remove(start)?;
        self.loads.remove(&info);
        self.led -= usize::from(info.leader.is_some());
        Some(info)
    }

    /// Takes a leader's report in, or a region read from the disk.
    pub(super) fn report(
        &mut self,
        mut report: RegionInfo,
        now_ms: u64,
    ) -> Result<Accepted, Error> {
        validate(&report.meta)?;
        self.check_stale(&report)?;
        report.trim();
        let known = self.by_id(report.id());
        let version = |info: &RegionInfo| info.epoch().version;
        report.range_since_ms = match known {
            Some(known) if version(known) == version(&report) => known.range_since_ms,
            _ => now_ms,
        };
        if known.is_some_and(|known| known.meta == report.meta) {
            self.remove_entry(&report.meta.start_key);
            self.insert_entry(report);
            return Ok(Accepted::default());
        }
        Ok(Accepted { meta_changed: true, displaced: self.replace(report) })
    }

    fn check_stale(&self, report: &RegionInfo) -> Result<(), Error> {
        let (id, epoch) = (report.id(), report.epoch());
        let stale = |reason: String| Err(Error::RegionStale { region: id, reason });
        let known = self.by_id(id);
        if let Some(known) = known {
            let have = known.epoch();
            if epoch.version < have.version || epoch.conf_ver < have.conf_ver {
                return stale(format!("epoch {} after {}", show(epoch), show(have)));
            }
            if epoch == have && report.term < known.term {
                return stale(format!("term {} after {}", report.term, known.term));
            }
        }
        let meta = &report.meta;
        for start in overlapping(&self.entries, &meta.start_key, &meta.end_key) {
            let other = &self.entries[&start];
            let have = other.epoch();
            let older = epoch.version < have.version
                || known.is_none()
                    && epoch.version == have.version
                    && epoch.conf_ver < have.conf_ver;
            if other.id() != id && older {
                let (epoch, have) = (show(epoch), show(have));
                return stale(format!("epoch {epoch} overlaps region {} at {have}", other.id()));
            }
        }
        Ok(())
    }

    /// Puts a region in the place of all it overlaps; returns which others lost theirs.
    fn replace(&mut self, report: RegionInfo) -> Vec<RegionId> {
        let id = report.id();
        let (start, end) = (report.meta.start_key.clone(), report.meta.end_key.clone());
        // What the same region covered before and no longer does is not known to belong to anybody.
        let before = self.starts.remove(&id).and_then(|start| self.remove_entry(&start));
        let mut left_over: Vec<_> =
            before.iter().flat_map(|old| old.remains(&start, &end)).collect();
        let mut displaced = Vec::new();
        for key in overlapping(&self.entries, &start, &end) {
            if let Some(old) = self.remove_entry(&key) {
                self.starts.remove(&old.id());
                displaced.push(old.id());
                left_over.extend(old.remains(&start, &end));
            }
        }
        for key in overlapping(&self.remnants, &start, &end) {
            if let Some(old) = self.remnants.remove(&key) {
                left_over.extend(old.outside(&start, &end));
            }
        }
        if planted(Bug::HoleAfterSplit) {
            left_over.clear();
        }
        for remnant in left_over {
            self.remnants.insert(remnant.meta.start_key.clone(), remnant);
        }
        self.starts.insert(id, start);
        self.insert_entry(report);
        displaced
    }

    /// A region that a running scheduler already knows, or one read back from the disk.
    pub(super) fn restore(&mut self, meta: metapb::Region, now_ms: u64) {
        let id = meta.id.into();
        if self.by_id(id).is_none_or(|known| known.meta != meta) {
            // Older than what was reported since: what is known stays.
            let _ = self.report(RegionInfo { meta, ..RegionInfo::default() }, now_ms);
        }
    }

    /// A region was displaced; on the way back from the disk this says so again.
    pub(super) fn forget(&mut self, id: RegionId) {
        if let Some(start) = self.starts.remove(&id) {
            self.remove_entry(&start);
        }
    }
}

impl RegionInfo {
    /// What is left of this region once `[start, end)` belongs to another: all of it if they are
    /// disjoint.
    fn remains(&self, start: &Bytes, end: &Bytes) -> Vec<Self> {
        if self.overlaps(start, end) {
            self.outside(start, end).collect()
        } else {
            vec![self.clone()]
        }
    }
}

fn show(epoch: metapb::RegionEpoch) -> String {
    format!("(conf_ver {}, version {})", epoch.conf_ver, epoch.version)
}

/// Checks a region from the network.
pub(super) fn validate(region: &metapb::Region) -> Result<(), Error> {
    if region.id == 0 {
        return Err(Error::invalid("region.id", "must not be 0"));
    }
    if !is_boundary(&region.start_key) || !is_boundary(&region.end_key) {
        let reason = "a boundary is not a memcomparable encoding";
        return Err(Error::invalid("region.start_key, region.end_key", reason));
    }
    if !before_end(&region.start_key, &region.end_key) {
        return Err(Error::invalid("region.end_key", "the range is empty"));
    }
    let peers = region.peers.len();
    if peers == 0 || peers > REGION_PEERS_MAX {
        let reason = format!("{peers} peers, not between 1 and {REGION_PEERS_MAX}");
        return Err(Error::invalid("region.peers", reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

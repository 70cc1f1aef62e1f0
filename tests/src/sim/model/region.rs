//! One region of the model: its description, its data, its sessions, and what they were after each entry.

use super::Broken;
use bytes::Bytes;
use proto::flotillapb::{self, mutation::Op};
use proto::metapb;
use raftstore::keys::{self, RawCf};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Whether a region is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It is.
    Lives,
    /// It was taken over.
    Ended {
        /// By this region.
        into: u64,
    },
}

/// A region after one of its entries.
#[derive(Clone, Debug)]
pub struct Point {
    /// Range, epoch, peers.
    pub region: Rc<metapb::Region>,
    /// Of the data.
    pub digest: u64,
}

/// A region that waits to be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merging {
    /// By whom, as it must be then.
    pub target: (u64, metapb::RegionEpoch),
    /// Where the preparation stands in the log.
    pub index: u64,
}

/// One region.
#[derive(Clone, Debug)]
pub struct RegionModel {
    /// As of the last entry.
    pub region: Rc<metapb::Region>,
    /// By engine key.
    pub data: BTreeMap<Bytes, Bytes>,
    /// The last sequence of each client.
    pub sessions: BTreeMap<u64, u64>,
    /// The last entry executed.
    pub applied: u64,
    /// Whether it is still there.
    pub life: Life,
    /// Set while it is frozen.
    pub merging: Option<Merging>,
    digest: u64,
    history: BTreeMap<u64, Point>,
    /// Earlier descriptions with other peers, and the entry that ended each.
    members: Vec<(u64, Rc<metapb::Region>)>,
}

impl RegionModel {
    /// A region without data whose log begins after `applied`.
    pub fn new(region: metapb::Region, applied: u64) -> RegionModel {
        let region = Rc::new(region);
        let history = BTreeMap::from([(applied, Point { region: region.clone(), digest: 0 })]);
        RegionModel {
            region,
            data: BTreeMap::new(),
            sessions: BTreeMap::new(),
            applied,
            life: Life::Lives,
            merging: None,
            digest: 0,
            history,
            members: Vec::new(),
        }
    }

    /// What it was after `index`.
    pub fn at(&self, index: u64) -> Option<&Point> {
        self.history.get(&index)
    }

    /// The memberships under which the entry at `index` may have been committed: those of the three descriptions before it.
    pub fn members_before(&self, index: u64) -> Vec<Rc<metapb::Region>> {
        let current = std::iter::once((u64::MAX, self.region.clone()));
        let all: Vec<_> = self.members.iter().cloned().chain(current).collect();
        // A description counts up to and including the entry that ended it.
        let last = all.partition_point(|(end, _)| *end < index);
        let first = last.saturating_sub(2);
        all[first..=last.min(all.len() - 1)].iter().map(|(_, region)| region.clone()).collect()
    }

    pub(super) fn advance(&mut self, index: u64) {
        self.applied = index;
        self.history.insert(index, Point { region: self.region.clone(), digest: self.digest });
    }

    /// Changes the description. `index` is the entry that does it.
    pub(super) fn describe(&mut self, index: u64, region: metapb::Region) {
        if region.peers != self.region.peers {
            self.members.push((index, self.region.clone()));
        }
        self.region = Rc::new(region);
    }

    pub(super) fn epoch(&self) -> metapb::RegionEpoch {
        self.region.region_epoch.unwrap_or_default()
    }

    pub(super) fn write(
        &mut self,
        epoch: metapb::RegionEpoch,
        requests: Vec<flotillapb::Request>,
    ) -> Result<(), Broken> {
        if epoch.version != self.epoch().version {
            return Ok(());
        }
        for request in requests {
            let client = request.session.as_ref().map_or(0, |session| session.client_id);
            if request.open_session {
                self.sessions.entry(client).or_insert(0);
            } else if request.session.is_none_or(|session| self.is_fresh(session)) {
                for mutation in request.mutations {
                    self.mutate(mutation)?;
                }
            }
        }
        Ok(())
    }

    fn is_fresh(&mut self, session: flotillapb::Session) -> bool {
        let Some(last) = self.sessions.get_mut(&session.client_id) else { return false };
        let fresh = session.sequence > *last;
        *last = session.sequence.max(*last);
        fresh
    }

    fn mutate(&mut self, mutation: flotillapb::Mutation) -> Result<(), Broken> {
        let Some(op) = mutation.op else { return Ok(()) };
        match op {
            Op::Put(put) => self.set(put.cf, &put.key, Some(put.value)),
            Op::Delete(delete) => self.set(delete.cf, &delete.key, None),
            Op::Append(append) => {
                let key = keys::raw(family(append.cf), &append.key);
                let mut whole = self.data.get(&key).map_or(Vec::new(), |old| old.to_vec());
                whole.extend_from_slice(&append.value);
                self.set(append.cf, &append.key, Some(whole.into()))
            }
            Op::DeleteRange(range) => {
                let start = range.start_key.max(self.region.start_key.clone());
                let region_end = &self.region.end_key;
                let end = match (range.end_key.is_empty(), region_end.is_empty()) {
                    (true, _) => region_end.clone(),
                    (false, true) => range.end_key,
                    (false, false) => range.end_key.min(region_end.clone()),
                };
                let range_of = keys::raw_range(family(range.cf), &start, &end);
                let inside = |key: &&Bytes| range_of.contains(key);
                let gone: Vec<Bytes> = self.data.keys().filter(inside).cloned().collect();
                gone.into_iter().for_each(|key| self.store(key, None));
                Ok(())
            }
        }
    }

    fn set(&mut self, cf: i32, key: &Bytes, value: Option<Bytes>) -> Result<(), Broken> {
        if !contains(&self.region, key) {
            let what = format!("{key:?} is written in region {:?}", self.region);
            return Err(Broken::new("I8 writes stay inside of their region", what));
        }
        self.store(keys::raw(family(cf), key), value);
        Ok(())
    }

    fn store(&mut self, key: Bytes, value: Option<Bytes>) {
        let old = match &value {
            Some(value) => {
                self.digest = self.digest.wrapping_add(pair_hash(&key, value));
                self.data.insert(key.clone(), value.clone())
            }
            None => self.data.remove(&key),
        };
        if let Some(old) = old {
            self.digest = self.digest.wrapping_sub(pair_hash(&key, &old));
        }
    }

    /// Takes everything out whose key is at or above `start` (and below `end`, if there is one).
    pub(super) fn take_range(&mut self, start: &[u8], end: &[u8]) -> BTreeMap<Bytes, Bytes> {
        let inside = |key: &Bytes| {
            let key = keys::raw_user_key(key);
            key >= start && (end.is_empty() || key < end)
        };
        let gone: Vec<Bytes> = self.data.keys().filter(|key| inside(key)).cloned().collect();
        let mut taken = BTreeMap::new();
        for key in gone {
            if let Some(value) = self.data.get(&key).cloned() {
                taken.insert(key.clone(), value);
                self.store(key, None);
            }
        }
        taken
    }

    pub(super) fn fill(&mut self, pairs: BTreeMap<Bytes, Bytes>) {
        pairs.into_iter().for_each(|(key, value)| self.store(key, Some(value)));
    }

    /// The point at the present index, after a change that was not its own entry's.
    pub(super) fn settle(&mut self) {
        self.advance(self.applied);
    }
}

/// Whether a user key belongs to a region.
pub(super) fn contains(region: &metapb::Region, key: &[u8]) -> bool {
    key >= &region.start_key[..] && (region.end_key.is_empty() || key < &region.end_key[..])
}

fn family(cf: i32) -> RawCf {
    u8::try_from(cf).ok().and_then(RawCf::from_tag).unwrap_or_default()
}

/// The digest of data: the sum over its pairs, so that the model can keep it up to date.
pub fn digest_of(snapshot: &dyn engine::Snapshot, region: &metapb::Region) -> u64 {
    let mut digest = 0_u64;
    for (cf, range) in keys::data_ranges(region) {
        let mut iter = snapshot.iter(cf, range);
        let mut more = iter.seek_to_first().unwrap_or(false);
        while more {
            digest = digest.wrapping_add(pair_hash(iter.key(), iter.value()));
            more = iter.next().unwrap_or(false);
        }
    }
    digest
}

fn pair_hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ key.len() as u64;
    for byte in key.iter().chain(value) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // Sums of plain FNV values would cancel too easily.
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

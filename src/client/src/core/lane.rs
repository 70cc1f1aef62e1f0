//! Lanes, the means of exactly-once writes (Raft thesis §6.3) over regions that split, merge and move.
//!
//! A *lane* is a client id with one write in flight in the whole cluster and one ever-growing sequence for all regions. A
//! region that *knows* a lane keeps its last sequence and the reply, so a retry of the same sequence is answered, not applied
//! again. The parts of a divided region know what the whole knew, and a region that took over another knows what that one
//! knew (the larger sequence wins). So whichever region holds a key later knows at least the lanes that wrote it before, and
//! a write in doubt may be repeated wherever its keys lie by then.
//!
//! Invariants: 1. an id is opened in a region only before the first attempt of a write there, and never again in a region
//! that forgot it: a copy of an old write that is still under way must not wake up. So a lane never forgets a region; one that
//! has got too many takes no more, and one whose opening got lost or whose region forgot it is retired for good. 2. Ids come
//! from the scheduler and are never used for a second lane. 3. What a lane believes to be known may be wrong: then the first
//! attempt says so, unapplied, and costs one round trip.
//!
//! Left open: a region forgets a lane when some thousands of others were used there since. If it does so between a write and
//! the repetition of that write, and is taken over in between by a region that remembers an older sequence of the lane, the
//! write is applied again. Nothing short of never forgetting prevents that.
//!
//! Memory is bounded: [`LANES_MAX`] idle lanes of at most 2 × [`REGIONS_MAX`] regions each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::ids::RegionId;

/// Regions a lane is opened in at most. By inheritance it may become known in twice as many.
const REGIONS_MAX: usize = 64;

/// Lanes kept; beyond that the one that was idle for longest goes first. Lanes in use do not end.
const LANES_MAX: usize = 4_096;

/// How many of the lanes that a region knows are looked at for an idle one.
const LOOKS_MAX: usize = 32;

/// A lane in the hands of one write.
#[derive(Debug, PartialEq, Eq)]
pub struct Lane {
    /// The id, unique in the cluster and for all time.
    pub client_id: u64,
    /// The sequence number of the next write, from 1 on.
    pub next_sequence: u64,
}

/// All lanes of a client, and the ids for new ones.
#[derive(Debug, Default)]
pub struct LanePool {
    lanes: BTreeMap<u64, Record>,
    /// For each region the lanes it knows.
    known_by: BTreeMap<RegionId, BTreeSet<u64>>,
    /// For each region the idle lanes that wrote there last, the latest on top.
    at_home: BTreeMap<RegionId, Vec<u64>>,
    /// Idle lanes that may be opened in more regions, and those that may not, by when they were used.
    roomy: BTreeMap<u64, u64>,
    full: BTreeMap<u64, u64>,
    uses: u64,
    client_ids: VecDeque<u64>,
}

#[derive(Debug, Default)]
struct Record {
    knows: BTreeSet<RegionId>,
    /// Unset while a write holds the lane.
    idle: Option<Idle>,
}

#[derive(Debug)]
struct Idle {
    next_sequence: u64,
    used: u64,
    home: Option<RegionId>,
}

impl LanePool {
    /// An idle lane that the region knows: the one used there last, if there is a choice.
    pub fn take(&mut self, region: RegionId) -> Option<Lane> {
        let home = self.at_home.get(&region).and_then(|stack| stack.last()).copied();
        let client_id = home.or_else(|| {
            let known = self.known_by.get(&region)?.iter().take(LOOKS_MAX);
            known.copied().find(|client_id| self.lanes[client_id].idle.is_some())
        })?;
        self.wake(client_id)
    }

    /// A lane for a region that knows no idle one: the one that was idle for longest, or a new one. None: ids are needed.
    pub fn take_for_opening(&mut self) -> Option<Lane> {
        if let Some((_, client_id)) = self.roomy.first_key_value() {
            return self.wake(*client_id);
        }
        let client_id = self.client_ids.pop_front()?;
        if self.lanes.len() >= LANES_MAX
            && let Some((_, oldest)) = self.full.first_key_value()
        {
            self.retire(*oldest);
        }
        let before = self.lanes.insert(client_id, Record::default());
        assert!(before.is_none(), "client id {client_id} was given out twice");
        Some(Lane { client_id, next_sequence: 1 })
    }

    fn wake(&mut self, client_id: u64) -> Option<Lane> {
        let Idle { next_sequence, used, home } = self.lanes.get_mut(&client_id)?.idle.take()?;
        self.roomy.remove(&used);
        self.full.remove(&used);
        if let Some(home) = home
            && let Some(stack) = self.at_home.get_mut(&home)
        {
            // Nearly always on top.
            if let Some(at) = stack.iter().rposition(|other| *other == client_id) {
                stack.remove(at);
            }
            if stack.is_empty() {
                self.at_home.remove(&home);
            }
        }
        Some(Lane { client_id, next_sequence })
    }

    /// Returns a lane whose write has a definite outcome; `home` is where it was last, if that region knows it.
    pub fn put_back(&mut self, lane: Lane, home: Option<RegionId>) {
        let Lane { client_id, next_sequence } = lane;
        self.uses += 1;
        let record = self.lanes.get_mut(&client_id).expect("a lane in use is in the pool");
        let home = home.filter(|home| record.knows.contains(home));
        let idle = Idle { next_sequence, used: self.uses, home };
        assert!(record.idle.replace(idle).is_none(), "a lane came back twice");
        let has_room = record.knows.len() < REGIONS_MAX;
        let idle = if has_room { &mut self.roomy } else { &mut self.full };
        idle.insert(self.uses, client_id);
        if let Some(home) = home {
            self.at_home.entry(home).or_default().push(client_id);
        }
    }

    /// Whether the region is believed to know the lane.
    pub fn is_known(&self, client_id: u64, region: RegionId) -> bool {
        self.lanes.get(&client_id).is_some_and(|record| record.knows.contains(&region))
    }

    /// The region has answered the opening of the lane, or a write in it.
    pub fn opened(&mut self, client_id: u64, region: RegionId) {
        let record = self.lanes.get_mut(&client_id).expect("a lane in use is in the pool");
        if record.knows.insert(region) {
            self.known_by.entry(region).or_default().insert(client_id);
        }
    }

    /// `heir` holds keys that `region` held before: it knows what that one knew.
    pub fn inherit(&mut self, region: RegionId, heir: RegionId) {
        let Some(known) = self.known_by.get(&region).cloned() else { return };
        for client_id in known {
            let record = self.lanes.get_mut(&client_id).expect("both maps name the same lanes");
            if record.knows.len() < 2 * REGIONS_MAX && record.knows.insert(heir) {
                self.known_by.entry(heir).or_default().insert(client_id);
            }
            let is_full = record.knows.len() >= REGIONS_MAX;
            if is_full
                && let Some(idle) = &record.idle
                && self.roomy.remove(&idle.used).is_some()
            {
                self.full.insert(idle.used, client_id);
            }
        }
    }

    /// Ends a lane for good: a write of it is in doubt, or a region has forgotten it.
    pub fn retire(&mut self, client_id: u64) {
        self.wake(client_id);
        let Some(record) = self.lanes.remove(&client_id) else { return };
        for region in record.knows {
            if let Some(known) = self.known_by.get_mut(&region) {
                known.remove(&client_id);
                if known.is_empty() {
                    self.known_by.remove(&region);
                }
            }
        }
    }

    /// The region has forgotten a lane: those below it on the stack were used there even longer ago.
    pub fn retire_all_at(&mut self, region: RegionId) {
        for client_id in self.at_home.get(&region).cloned().unwrap_or_default() {
            self.retire(client_id);
        }
    }

    /// Ids fresh from the scheduler.
    pub fn add_client_ids(&mut self, ids: impl IntoIterator<Item = u64>) {
        self.client_ids.extend(ids);
    }
}

#[cfg(test)]
#[path = "lane/tests.rs"]
mod tests;

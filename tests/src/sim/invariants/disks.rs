//! I8 and I9 on the disks: the regions of a store do not overlap; a destroyed peer stays destroyed; and in the end nothing is
//! left that belongs to nobody.

use super::{Broken, Sent};
use crate::sim::model::World;
use engine::{Cf, Engine, KeyRange, Snapshot};
use prost::Message;
use proto::flotillapb::{PeerState, RegionLocalState};
use proto::metapb;
use raftstore::keys::{self, Key};
use std::collections::{BTreeMap, BTreeSet};

/// What a disk says about regions.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Region states by region.
    pub regions: BTreeMap<u64, RegionLocalState>,
    /// Regions of which there is a hard state, a log, an apply state, a session, or an installation under way.
    pub hard_states: BTreeSet<u64>,
    /// See there.
    pub logs: BTreeSet<u64>,
    /// See there.
    pub apply_states: BTreeSet<u64>,
    /// See there.
    pub sessions: BTreeSet<u64>,
    /// See there.
    pub pending: BTreeSet<u64>,
}

/// Reads the local records of a disk.
pub fn survey(engine: &dyn Engine) -> Survey {
    let snapshot = engine.snapshot();
    let mut survey = Survey::default();
    let mut iter = snapshot.iter(Cf::Raft, KeyRange::all());
    let mut more = iter.seek_to_first().unwrap_or(false);
    while more {
        match Key::decode(Cf::Raft, iter.key()) {
            Ok(Key::RegionState(id)) => {
                if let Ok(state) = RegionLocalState::decode(iter.value()) {
                    survey.regions.insert(id.get(), state);
                }
            }
            Ok(Key::HardState(id)) => drop(survey.hard_states.insert(id.get())),
            Ok(Key::LogEntry(id, _)) => {
                survey.logs.insert(id.get());
                // The rest of this log says nothing new.
                let next = keys::log_range_all(id).upper;
                let Some(next) = next else { break };
                more = iter.seek(&next).unwrap_or(false);
                continue;
            }
            Ok(Key::ApplyState(id)) => drop(survey.apply_states.insert(id.get())),
            Ok(Key::Session(id, _)) => drop(survey.sessions.insert(id.get())),
            Ok(Key::PendingSnapshot(id)) => drop(survey.pending.insert(id.get())),
            _ => {}
        }
        more = iter.next().unwrap_or(false);
    }
    survey
}

/// The region states alone, which are few.
pub fn region_states(engine: &dyn Engine) -> BTreeMap<u64, RegionLocalState> {
    let snapshot = engine.snapshot();
    let mut states = BTreeMap::new();
    let mut iter = snapshot.iter(Cf::Raft, keys::region_state_range());
    let mut more = iter.seek_to_first().unwrap_or(false);
    while more {
        if let (Ok(Key::RegionState(id)), Ok(state)) =
            (Key::decode(Cf::Raft, iter.key()), RegionLocalState::decode(iter.value()))
        {
            states.insert(id.get(), state);
        }
        more = iter.next().unwrap_or(false);
    }
    states
}

/// Whether a peer is gone.
pub fn is_tombstone(state: &RegionLocalState) -> bool {
    state.state() == PeerState::Tombstone
}

/// Whether two regions have a key in common.
pub fn overlap(left: &metapb::Region, right: &metapb::Region) -> bool {
    let before = |end: &[u8], start: &[u8]| !end.is_empty() && end <= start;
    !before(&left.end_key, &right.start_key) && !before(&right.end_key, &left.start_key)
}

/// The tombstones known to be on the disks, by store and region: the id of the peer.
#[derive(Debug, Default)]
pub struct Disks {
    tombstones: BTreeMap<(usize, u64), u64>,
}

impl Disks {
    /// Looks at a store's region states: no overlap (I8), no peer back from below its tombstone (I9).
    pub fn look(
        &mut self,
        store: usize,
        states: &BTreeMap<u64, RegionLocalState>,
    ) -> Result<(), Broken> {
        let mut living: Vec<&metapb::Region> = Vec::new();
        for (id, state) in states {
            let peer = state.peer.as_ref().map_or(0, |peer| peer.id);
            if is_tombstone(state) {
                let known = self.tombstones.entry((store, *id)).or_default();
                *known = peer.max(*known);
                continue;
            }
            if self.tombstones.get(&(store, *id)).is_some_and(|dead| *dead >= peer) {
                let what = format!("peer {peer} of region {id} is back on store {}", store + 1);
                return Err(Broken::new("I9 no resurrection", what));
            }
            if let Some(region) = state.region.as_ref().filter(|region| !region.peers.is_empty()) {
                living.push(region);
            }
        }
        living.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        match living.windows(2).find(|pair| overlap(pair[0], pair[1])) {
            None => Ok(()),
            Some(pair) => {
                let what = format!("on store {}: {:?} and {:?}", store + 1, pair[0], pair[1]);
                Err(Broken::new("I8 regions on a store are disjoint", what))
            }
        }
    }

    /// A store has crashed: tombstones may be lost with what was not synced.
    pub fn crashed(&mut self, store: usize) {
        self.tombstones.retain(|(other, _), _| *other != store);
    }

    /// A Raft message leaves a store, whose loop still has its peer: not from a destroyed one (I9). What waited for the log
    /// may leave after the end of its peer; it was true when it was said.
    pub fn sent(&self, sent: Sent<'_>) -> Result<(), Broken> {
        match self.tombstones.get(&(sent.store, sent.region)) {
            Some(dead) if sent.message.from <= *dead => {
                let what = format!(
                    "peer {} of region {} speaks on store {}, where peer {dead} was destroyed",
                    sent.message.from,
                    sent.region,
                    sent.store + 1
                );
                Err(Broken::new("I9 no resurrection", what))
            }
            _ => Ok(()),
        }
    }
}

/// At the end of a run: nothing on the disk of a store that belongs to nobody. `world` says which peers there should be.
pub fn check_orphans(
    world: &World,
    store: usize,
    id: u64,
    engine: &dyn Engine,
) -> Result<(), Broken> {
    let fail = |what: String| {
        Err(Broken::new("I9 nothing is left behind", format!("store {}: {what}", store + 1)))
    };
    let survey = survey(engine);
    let here =
        |region: &metapb::Region| region.peers.iter().find(|peer| peer.store_id == id).copied();
    let living = world.living();
    let members: BTreeMap<u64, metapb::Peer> =
        living.iter().filter_map(|region| Some((region.id, here(region)?))).collect();
    for (region, state) in &survey.regions {
        let peer = state.peer.as_ref().map_or(0, |peer| peer.id);
        let member = members.get(region).map_or(0, |member| member.id);
        if !is_tombstone(state) && member == 0 {
            return fail(format!("peer {peer} of region {region} is no member and still there"));
        }
        if !is_tombstone(state) && peer != member {
            return fail(format!("peer {peer} of region {region} is there instead of {member}"));
        }
    }
    if let Some(region) = members.keys().find(|id| survey.regions.get(id).is_none_or(is_tombstone))
    {
        return fail(format!("the peer of region {region} is missing"));
    }
    let records = [
        ("hard state", &survey.hard_states),
        ("log", &survey.logs),
        ("apply state", &survey.apply_states),
        ("session", &survey.sessions),
        ("pending snapshot", &survey.pending),
    ];
    for (what, found) in records {
        if let Some(region) = found.iter().find(|id| !members.contains_key(id)) {
            return fail(format!("a {what} of region {region} is left"));
        }
    }
    let ranges: Vec<(Cf, KeyRange)> = living
        .iter()
        .filter(|region| members.contains_key(&region.id))
        .flat_map(|region| keys::data_ranges(region))
        .collect();
    match orphan_key(engine.snapshot().as_ref(), &ranges) {
        None => Ok(()),
        Some(key) => fail(format!("the key {key:?} belongs to no region here")),
    }
}

fn orphan_key(snapshot: &dyn Snapshot, ranges: &[(Cf, KeyRange)]) -> Option<Vec<u8>> {
    let mut iter = snapshot.iter(Cf::Raw, KeyRange::all());
    let mut more = iter.seek_to_first().unwrap_or(false);
    while more {
        let held = |(cf, range): &(Cf, KeyRange)| *cf == Cf::Raw && range.contains(iter.key());
        if !ranges.iter().any(held) {
            return Some(iter.key().to_vec());
        }
        more = iter.next().unwrap_or(false);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use engine::WriteBatch;
    use engine::mem::MemEngine;
    use proto::eraftpb::{Message as RaftMessage, MessageType};
    use proto::ids::RegionId;

    fn region(id: u64, start: &'static str, end: &'static str, peer: u64) -> metapb::Region {
        metapb::Region {
            id,
            start_key: Bytes::from(start),
            end_key: Bytes::from(end),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peers: vec![metapb::Peer { id: peer, store_id: 1, ..Default::default() }],
        }
    }

    fn state(region: metapb::Region, state: PeerState) -> RegionLocalState {
        let peer = region.peers.first().copied();
        let region = Some(region);
        RegionLocalState { state: state.into(), region, peer, ..Default::default() }
    }

    #[test]
    fn overlap_and_resurrection_are_caught() {
        let mut disks = Disks::default();
        let mut states = BTreeMap::new();
        states.insert(1, state(region(1, "", "m", 11), PeerState::Normal));
        states.insert(2, state(region(2, "m", "", 21), PeerState::Normal));
        assert_eq!(disks.look(0, &states), Ok(()));
        states.insert(2, state(region(2, "l", "", 21), PeerState::Normal));
        assert!(disks.look(0, &states).is_err(), "overlap");
        states.insert(2, state(region(2, "l", "", 21), PeerState::Tombstone));
        assert_eq!(disks.look(0, &states), Ok(()));
        states.insert(2, state(region(2, "m", "", 21), PeerState::Normal));
        assert!(disks.look(0, &states).is_err(), "back from the dead");
        states.insert(2, state(region(2, "m", "", 22), PeerState::Normal));
        assert_eq!(disks.look(0, &states), Ok(()), "a later peer may come");
        let mut message = RaftMessage { from: 21, term: 7, ..Default::default() };
        message.set_msg_type(MessageType::MsgRequestVote);
        assert!(disks.sent(Sent { region: 2, store: 0, message: &message }).is_err());
        message.from = 22;
        assert_eq!(disks.sent(Sent { region: 2, store: 0, message: &message }), Ok(()));
    }

    #[test]
    fn what_belongs_to_nobody_is_found() {
        let mut away = region(2, "m", "", 21);
        away.peers[0].store_id = 2;
        let world = World::new(&[region(1, "", "m", 11), away], &region(9, "", "", 91));
        let engine = MemEngine::new();
        let write = |fill: &dyn Fn(&mut WriteBatch)| {
            let mut batch = WriteBatch::new();
            fill(&mut batch);
            engine.write(&batch).unwrap();
        };
        let put = |key: Key, value: Vec<u8>| {
            write(&|batch| {
                batch.put(key.cf(), key.encode(), value.clone());
            });
        };
        let check = || check_orphans(&world, 0, 1, &engine);
        assert!(check().is_err(), "the peer is missing");
        let id = RegionId::from(1);
        let normal = state(region(1, "", "m", 11), PeerState::Normal);
        put(Key::RegionState(id), normal.encode_to_vec());
        put(Key::Raw(keys::RawCf::Default, Bytes::from_static(b"a")), b"1".to_vec());
        assert_eq!(check(), Ok(()));
        let foreign = Key::Raw(keys::RawCf::Default, Bytes::from_static(b"x"));
        put(foreign.clone(), b"1".to_vec());
        assert!(check().is_err(), "a key of a region that is elsewhere");
        write(&|batch| {
            batch.delete(Cf::Raw, foreign.encode());
        });
        let hard_state = Key::HardState(RegionId::from(2));
        put(hard_state.clone(), vec![]);
        assert!(check().is_err(), "a hard state of nobody");
        write(&|batch| {
            batch.delete(Cf::Raft, hard_state.encode());
        });
        let zombie = state(region(2, "m", "", 20), PeerState::Normal);
        put(Key::RegionState(RegionId::from(2)), zombie.encode_to_vec());
        assert!(check().is_err(), "a peer that is no member");
    }
}

//! I10 and I11 (Raft thesis §5.1, §6.3): the data of a region is what the entries up to the applied index say, each executed
//! once, whether it came by log, by snapshot, or out of a crash.
//!
//! A model executes every committed entry once, in order, sessions included, and keeps a digest of the data after each. A
//! store's data is digested in the same way whenever its applied index is known to belong to what is on its disk.

use super::Broken;
use bytes::Bytes;
use engine::Engine;
use proto::ids::RegionId;
use proto::metapb;
use raft::{Entry, EntryKind};
use raftstore::apply::ApplyState;
use raftstore::command::{Command, Mutation, Request, Session};
use raftstore::keys::{self, Key};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
struct Model {
    data: BTreeMap<Bytes, Bytes>,
    sessions: BTreeMap<u64, u64>,
    digest: u64,
    applied: u64,
    /// By index.
    digests: BTreeMap<u64, u64>,
}

/// The models of all regions.
#[derive(Debug, Default)]
pub struct ExactlyOnce {
    models: BTreeMap<u64, Model>,
}

impl ExactlyOnce {
    /// An entry is handed to an applier; only the first time counts.
    pub fn committed(&mut self, region: u64, entry: &Entry) -> Result<(), Broken> {
        let model = self.models.entry(region).or_default();
        let index = entry.index.0;
        if model.applied == 0 {
            // The log of a region does not begin at 1; before its first entry there is no data.
            model.applied = index - 1;
            model.digests.insert(index - 1, 0);
        }
        if index <= model.applied {
            return Ok(());
        }
        if index != model.applied + 1 {
            let what = format!(
                "region {region} applies {index} though nobody applied {}",
                model.applied + 1
            );
            return Err(Broken::new("I10 exactly once", what));
        }
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            match Command::decode(entry.data.clone()) {
                Ok(command) => model.execute(command),
                Err(error) => {
                    let what = format!("entry {index} of region {region}: {error}");
                    return Err(Broken::new("I10 exactly once", what));
                }
            }
        }
        model.applied = index;
        model.digests.insert(index, model.digest);
        Ok(())
    }

    /// What the region holds after everything anybody applied.
    pub fn data(&self, region: u64) -> Option<&BTreeMap<Bytes, Bytes>> {
        self.models.get(&region).map(|model| &model.data)
    }

    /// The last index anybody applied.
    pub fn applied(&self, region: u64) -> u64 {
        self.models.get(&region).map_or(0, |model| model.applied)
    }

    /// Compares the data of `region` in `engine` with the model at the applied index recorded beside it.
    pub fn compare(
        &self,
        store: usize,
        region: &metapb::Region,
        engine: &dyn Engine,
    ) -> Result<(), Broken> {
        let Some(model) = self.models.get(&region.id) else { return Ok(()) };
        let snapshot = engine.snapshot();
        let key = Key::ApplyState(RegionId::from(region.id)).encode();
        let stored = snapshot.get(engine::Cf::Raft, &key).ok().flatten();
        let Some(state) = stored.as_deref().and_then(ApplyState::decode) else { return Ok(()) };
        let pending = Key::PendingSnapshot(RegionId::from(region.id)).encode();
        if snapshot.get(engine::Cf::Raft, &pending).ok().flatten().is_some() {
            // Half installed; the store must finish that before it does anything with the data.
            return Ok(());
        }
        let index = state.applied_index.0;
        let Some(expected) = model.digests.get(&index) else {
            let what = format!(
                "store {} claims to have applied {index} of region {}, which nobody has",
                store + 1,
                region.id
            );
            return Err(Broken::new("I10 exactly once", what));
        };
        let found = digest(snapshot.as_ref(), region);
        if found == *expected {
            return Ok(());
        }
        let what = format!(
            "the data of region {} on store {} is not what its entries up to {index} say",
            region.id,
            store + 1,
        );
        Err(Broken::new("I10 exactly once / I11 snapshot equals state", what))
    }
}

impl Model {
    fn execute(&mut self, command: Command) {
        let Command::Write { requests, .. } = command else { return };
        for request in requests {
            match request {
                Request::OpenSession { client } => {
                    self.sessions.entry(client.0).or_insert(0);
                }
                Request::Mutate { mutations, session } => {
                    if session.is_none_or(|session| self.is_fresh(session)) {
                        mutations.into_iter().for_each(|mutation| self.mutate(mutation));
                    }
                }
            }
        }
    }

    fn is_fresh(&mut self, session: Session) -> bool {
        let Some(last) = self.sessions.get_mut(&session.client.0) else { return false };
        let fresh = session.sequence > *last;
        *last = session.sequence.max(*last);
        fresh
    }

    fn mutate(&mut self, mutation: Mutation) {
        match mutation {
            Mutation::Put { cf, key, value } => self.set(keys::raw(cf, &key), Some(value)),
            Mutation::Delete { cf, key } => self.set(keys::raw(cf, &key), None),
            Mutation::Append { cf, key, value } => {
                let key = keys::raw(cf, &key);
                let mut whole = self.data.get(&key).map_or(Vec::new(), |old| old.to_vec());
                whole.extend_from_slice(&value);
                self.set(key, Some(whole.into()));
            }
            Mutation::DeleteRange { cf, start, end } => {
                let range = keys::raw_range(cf, &start, &end);
                let gone: Vec<Bytes> =
                    self.data.keys().filter(|key| range.contains(key)).cloned().collect();
                gone.into_iter().for_each(|key| self.set(key, None));
            }
        }
    }

    fn set(&mut self, key: Bytes, value: Option<Bytes>) {
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
}

/// The digest of a region's data: the sum over its pairs, so that the model can keep it up to date.
fn digest(snapshot: &dyn engine::Snapshot, region: &metapb::Region) -> u64 {
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

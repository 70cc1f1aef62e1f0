//! Where the scheduler's records live: the data of one region, replicated like any other.
//!
//! The members of a scheduler form a small cluster of their own, with one store each and one region, [`REGION`], that
//! spans the whole key space and never splits, moves or merges. A [`Change`] becomes one raw write of that region
//! ([`request`]), applied as a whole or not at all; the state is what its data say ([`load`]).
//!
//! # Invariants
//! 1. A write carries the term in which it was decided ([`header`]): no other leadership's log takes it.
//! 2. `load` is meaningful only under leave to read in that same term: then nothing committed before is missing, and
//!    nothing else can be committed behind its back.
//!
//! This is the only mapping; the processes and the simulator both use it. Tests: below, and at [`crate::lead`].

use bytes::Bytes;
use engine::{Cf, Engine, KeyRange, Op};
use proto::ids::{RegionId, StoreId};
use proto::metapb;
use raft::Term;
use raftstore::RequestHeader;
use raftstore::command::{Mutation, Request};
use raftstore::keys::{self, RawCf};

use crate::core::{Change, Key, Record, RecordError};

/// The one region.
pub const REGION: RegionId = RegionId::new(1);
/// Its generation, for ever.
const EPOCH: metapb::RegionEpoch = metapb::RegionEpoch { conf_ver: 1, version: 1 };
/// Where its data live.
const DATA: RawCf = RawCf::Default;

/// Why records cannot be read back. Always final.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk or the engine failed.
    #[error("scheduler state cannot be read: {0}")]
    Engine(#[from] engine::Error),
    /// What is there is not what a scheduler writes.
    #[error("scheduler state cannot be read: {0}")]
    Record(#[from] RecordError),
}

/// The region with one voter on each of `members`; a peer's id is its store's. The same on every member, for ever.
pub fn region(members: &[StoreId]) -> metapb::Region {
    let peer = |store: &StoreId| metapb::Peer {
        id: store.get(),
        store_id: store.get(),
        ..metapb::Peer::default()
    };
    metapb::Region {
        id: REGION.get(),
        region_epoch: Some(EPOCH),
        peers: members.iter().map(peer).collect(),
        ..metapb::Region::default()
    }
}

/// For a request to the region by the leader of `term`.
pub fn header(term: Term) -> RequestHeader {
    RequestHeader { term: Some(term), ..RequestHeader::new(REGION, EPOCH) }
}

/// A change as one replicated write.
pub fn request(change: &Change) -> Request {
    let batch = change.batch(Cf::Raw);
    let mutation = |op: &Op| match op.clone() {
        Op::Put { key, value, .. } => Mutation::Put { cf: DATA, key, value },
        Op::Delete { key, .. } => Mutation::Delete { cf: DATA, key },
        Op::DeleteRange { start, end, .. } => Mutation::DeleteRange { cf: DATA, start, end },
    };
    Request::Mutate { mutations: batch.ops().iter().map(mutation).collect(), session: None }
}

/// Every record.
pub fn load(engine: &dyn Engine) -> Result<Vec<Record>, JournalError> {
    let snapshot = engine.snapshot();
    let rows = KeyRange::new(row(Bytes::new()), Bytes::from(vec![DATA.tag() + 1]));
    let mut rows = snapshot.iter(Cf::Raw, rows);
    let mut records = Vec::new();
    let mut valid = rows.seek_to_first()?;
    while valid {
        records.push(Record::decode(&rows.key()[1..], rows.value())?);
        valid = rows.next()?;
    }
    Ok(records)
}

/// The id of the cluster that is scheduled, if it has been drawn. It never changes, so any member may say it.
pub fn cluster_id(engine: &dyn Engine) -> Result<Option<u64>, JournalError> {
    let key = Key::ClusterId.encode();
    let Some(value) = engine.get(Cf::Raw, &row(key.clone()))? else { return Ok(None) };
    match Record::decode(&key, &value)? {
        Record::ClusterId(id) => Ok(Some(id)),
        _ => Ok(None),
    }
}

/// A record's key in the engine.
fn row(key: Bytes) -> Bytes {
    keys::Key::Raw(DATA, key).encode()
}

#[cfg(test)]
mod tests {
    use engine::mem::MemEngine;

    use super::*;
    use crate::core::{Config, Scheduler};

    /// What the applier of a store does to its engine.
    fn apply(engine: &MemEngine, request: Request) {
        let Request::Mutate { mutations, session: None } = request else { panic!("{request:?}") };
        let mut batch = engine::WriteBatch::new();
        for mutation in mutations {
            match mutation {
                Mutation::Put { cf, key, value } => {
                    batch.put(Cf::Raw, keys::Key::Raw(cf, key).encode(), value);
                }
                Mutation::Delete { cf, key } => {
                    batch.delete(Cf::Raw, keys::Key::Raw(cf, key).encode());
                }
                other => panic!("{other:?}"),
            }
        }
        engine.write(&batch).unwrap();
    }

    #[test]
    fn what_was_requested_is_what_is_loaded_and_other_families_are_not() {
        let engine = MemEngine::new();
        assert!(load(&engine).unwrap().is_empty());
        assert_eq!(cluster_id(&engine).unwrap(), None);
        let (_, change) = Scheduler::open(Config::default(), vec![], 7, 1_000).unwrap();
        apply(&engine, request(&change));
        let mut foreign = engine::WriteBatch::new();
        foreign.put(Cf::Raw, keys::Key::Raw(RawCf::Lock, "x".into()).encode(), "y");
        engine.write(&foreign).unwrap();
        let records = load(&engine).unwrap();
        assert_eq!(request(&change), {
            let (_, again) = Scheduler::open(Config::default(), vec![], 7, 1_000).unwrap();
            request(&again)
        });
        assert!(records.contains(&Record::ClusterId(7)) && records.len() >= 3, "{records:?}");
        assert_eq!(cluster_id(&engine).unwrap(), Some(7));
        let (reopened, _) = Scheduler::open(Config::default(), records, 9, 2_000).unwrap();
        assert_eq!(reopened.cluster_id(), 7);
    }

    #[test]
    fn a_row_that_is_no_record_is_refused_by_name() {
        let engine = MemEngine::new();
        let mut batch = engine::WriteBatch::new();
        batch.put(Cf::Raw, row(Bytes::from_static(b"\x7f")), "?");
        engine.write(&batch).unwrap();
        assert!(load(&engine).unwrap_err().to_string().contains("record 7f"));
    }

    #[test]
    fn every_member_derives_the_same_region() {
        let members: Vec<StoreId> = (1..=3).map(StoreId::new).collect();
        let region = region(&members);
        assert_eq!((region.start_key.len(), region.end_key.len()), (0, 0));
        let homes: Vec<_> = region.peers.iter().map(|peer| (peer.id, peer.store_id)).collect();
        assert_eq!(homes, [(1, 1), (2, 2), (3, 3)]);
        let header = header(Term(6));
        assert_eq!((header.region, header.term), (REGION, Some(Term(6))));
        assert_eq!(Some(header.epoch), region.region_epoch);
    }
}

//! Client sessions: what makes a retried request harmless (Raft thesis §6.3).
//!
//! A session remembers the last request of a client and what became of it. The table is part of the replicated state: every
//! change happens at apply, is written in the same batch as the data it speaks about, and travels in snapshots.
//!
//! # Invariants
//! 1. A request with the session's own sequence number is answered from the record, not executed (hazard M25).
//! 2. What is evicted depends on the log alone: the least recently *used by log index*, ties by client id. No clock.
//! 3. `by_use` holds exactly one pair for every record.
//!
//! A client whose session was evicted is told that it expired; whether its last request was applied is then unknown to it.
//! Left out: expiry by time (it would need a replicated clock) and closing by the client (the cap does both).

use std::collections::{BTreeMap, BTreeSet};

use engine::{Cf, Snapshot};
use prost::Message;
use proto::flotillapb;
use proto::ids::RegionId;
use raft::LogIndex;

use super::batch::ApplyBatch;
use crate::command::{ClientId, Session, WriteResult};
use crate::keys::{self, Key};
use crate::planted::{Bug, planted};

/// How many sessions a region remembers. A record takes about 100 bytes of memory.
pub const SESSIONS_MAX: usize = 4096;

/// What a region remembers of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionRecord {
    /// The last request.
    sequence: u64,
    /// What became of it.
    result: WriteResult,
    /// Where in the log the session was last used.
    last_used_index: LogIndex,
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Execute it.
    Fresh,
    /// Answer what it was answered when it was executed.
    Repeated(WriteResult),
    /// Answer why it must not be executed.
    Refused(WriteResult),
}

/// The sessions of one region.
#[derive(Debug)]
pub(super) struct Sessions {
    region: RegionId,
    records_max: usize,
    records: BTreeMap<ClientId, SessionRecord>,
    by_use: BTreeSet<(LogIndex, ClientId)>,
}

/// A stored session that this version cannot have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed session record in region {region}")]
pub struct SessionDecodeError {
    /// Whose.
    pub region: RegionId,
}

/// Whether a record from elsewhere is a session that [`Sessions::load`] will read.
pub(crate) fn is_session(key: &[u8], value: &[u8]) -> bool {
    matches!(Key::decode(Cf::Raft, key), Ok(Key::Session(..)))
        && SessionRecord::decode(value).is_some()
}

impl Sessions {
    /// The sessions of `region` as stored in `engine`.
    pub(super) fn load(
        region: RegionId,
        engine: &dyn Snapshot,
    ) -> engine::Result<Result<Sessions, SessionDecodeError>> {
        let mut sessions = Sessions {
            region,
            records_max: SESSIONS_MAX,
            records: BTreeMap::new(),
            by_use: BTreeSet::new(),
        };
        let mut iter = engine.iter(Cf::Raft, keys::session_range(region));
        let mut more = iter.seek_to_first()?;
        while more {
            let key = Key::decode(Cf::Raft, iter.key());
            let (Ok(Key::Session(_, client)), Some(record)) =
                (key, SessionRecord::decode(iter.value()))
            else {
                return Ok(Err(SessionDecodeError { region }));
            };
            sessions.by_use.insert((record.last_used_index, client));
            sessions.records.insert(client, record);
            more = iter.next()?;
        }
        Ok(Ok(sessions))
    }

    /// The same sessions for another region, which comes from this one.
    pub(super) fn copy_to(&self, region: RegionId, batch: &mut ApplyBatch) -> Sessions {
        let mut copy = Sessions {
            region,
            records_max: self.records_max,
            records: BTreeMap::new(),
            by_use: BTreeSet::new(),
        };
        if planted(Bug::SessionsNotCopied) {
            return copy;
        }
        for (client, record) in &self.records {
            copy.store(*client, record.clone(), batch);
        }
        copy
    }

    /// Takes over the sessions of a region that ends. Of two records of a client the later request's stays: a client has one
    /// request under way in all regions together. Those taken over count as used at `index`; if there are too many, the
    /// least recently used go.
    pub(super) fn absorb(&mut self, other: &Sessions, index: LogIndex, batch: &mut ApplyBatch) {
        for (client, theirs) in &other.records {
            let ours = self.records.get(client);
            if ours.is_some_and(|ours| ours.sequence >= theirs.sequence) {
                continue;
            }
            if let Some(ours) = ours {
                self.by_use.remove(&(ours.last_used_index, *client));
            }
            self.store(*client, SessionRecord { last_used_index: index, ..theirs.clone() }, batch);
        }
        while self.records.len() > self.records_max {
            self.evict(batch);
        }
    }

    fn evict(&mut self, batch: &mut ApplyBatch) {
        if let Some((_, evicted)) = self.by_use.pop_first() {
            self.records.remove(&evicted);
            batch.delete_local(Key::Session(self.region, evicted).encode());
        }
    }

    /// Opens a session, evicting the least recently used one if there are too many.
    pub(super) fn open(&mut self, client: ClientId, index: LogIndex, batch: &mut ApplyBatch) {
        if self.records.contains_key(&client) {
            self.touch(client, index, batch);
            return;
        }
        if self.records.len() >= self.records_max {
            self.evict(batch);
        }
        let result = WriteResult::Applied;
        self.store(client, SessionRecord { sequence: 0, result, last_used_index: index }, batch);
    }

    /// What to do with the request that `session` names.
    pub(super) fn verdict(&self, session: Session) -> Verdict {
        let Session { client, sequence } = session;
        if sequence == 0 {
            // 0 is what an open session stands at: nobody's request.
            let reason = "sequence numbers count from 1".to_owned();
            return Verdict::Refused(WriteResult::Refused { reason });
        }
        match self.records.get(&client) {
            None => Verdict::Refused(WriteResult::SessionExpired { client }),
            Some(record) if sequence > record.sequence => Verdict::Fresh,
            Some(record) if sequence == record.sequence => Verdict::Repeated(record.result.clone()),
            Some(record) => Verdict::Refused(WriteResult::StaleSequence { last: record.sequence }),
        }
    }

    /// Remembers what became of a fresh request.
    pub(super) fn record(
        &mut self,
        session: Session,
        result: WriteResult,
        index: LogIndex,
        batch: &mut ApplyBatch,
    ) {
        let Session { client, sequence } = session;
        if let Some(old) = self.records.get(&client) {
            assert!(sequence >= old.sequence, "a session never goes back");
            self.by_use.remove(&(old.last_used_index, client));
        }
        self.store(client, SessionRecord { sequence, result, last_used_index: index }, batch);
    }

    /// Notes that a session was used, if it exists.
    pub(super) fn touch(&mut self, client: ClientId, index: LogIndex, batch: &mut ApplyBatch) {
        if let Some(record) = self.records.get(&client).cloned() {
            self.by_use.remove(&(record.last_used_index, client));
            self.store(client, SessionRecord { last_used_index: index, ..record }, batch);
        }
    }

    fn store(&mut self, client: ClientId, record: SessionRecord, batch: &mut ApplyBatch) {
        batch.put_local(Key::Session(self.region, client).encode(), record.encode());
        self.by_use.insert((record.last_used_index, client));
        self.records.insert(client, record);
        debug_assert_eq!(self.records.len(), self.by_use.len(), "one pair for every record");
    }
}

impl SessionRecord {
    fn encode(&self) -> Vec<u8> {
        let record = flotillapb::SessionRecord {
            sequence: self.sequence,
            reply: Some(self.result.clone().into()),
            last_used_index: self.last_used_index.0,
        };
        record.encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Option<SessionRecord> {
        let record = flotillapb::SessionRecord::decode(bytes).ok()?;
        Some(SessionRecord {
            sequence: record.sequence,
            result: record.reply?.try_into().ok()?,
            last_used_index: LogIndex(record.last_used_index),
        })
    }
}

#[cfg(test)]
mod tests {
    use engine::Engine;
    use engine::mem::MemEngine;

    use super::*;

    const APPLIED: WriteResult = WriteResult::Appended { value_bytes: 3 };

    fn sessions(engine: &MemEngine, records_max: usize) -> Sessions {
        let loaded = Sessions::load(RegionId::from(2), engine.snapshot().as_ref());
        Sessions { records_max, ..loaded.expect("engine").expect("well-formed") }
    }

    fn session(client: u64, sequence: u64) -> Session {
        Session { client: ClientId(client), sequence }
    }

    #[test]
    fn a_request_is_fresh_once_then_repeated_then_stale() {
        let (engine, mut batch) = (MemEngine::new(), ApplyBatch::default());
        let mut table = sessions(&engine, 4);
        let expired = WriteResult::SessionExpired { client: ClientId(1) };
        assert_eq!(table.verdict(session(1, 1)), Verdict::Refused(expired));
        table.open(ClientId(1), LogIndex(10), &mut batch);
        assert!(matches!(table.verdict(session(1, 0)), Verdict::Refused(_)), "never executed");
        assert_eq!(table.verdict(session(1, 1)), Verdict::Fresh);
        table.record(session(1, 1), APPLIED, LogIndex(11), &mut batch);
        assert_eq!(table.verdict(session(1, 1)), Verdict::Repeated(APPLIED));
        assert_eq!(table.verdict(session(1, 7)), Verdict::Fresh, "gaps are abandoned requests");
        table.record(session(1, 7), APPLIED, LogIndex(12), &mut batch);
        let stale = WriteResult::StaleSequence { last: 7 };
        assert_eq!(table.verdict(session(1, 1)), Verdict::Refused(stale));
    }

    #[test]
    fn the_least_recently_used_goes_first_and_ties_go_by_client() {
        let (engine, mut batch) = (MemEngine::new(), ApplyBatch::default());
        let mut table = sessions(&engine, 2);
        table.open(ClientId(9), LogIndex(10), &mut batch);
        table.open(ClientId(3), LogIndex(10), &mut batch);
        table.open(ClientId(5), LogIndex(11), &mut batch);
        assert_eq!(table.records.keys().map(|c| c.0).collect::<Vec<_>>(), [5, 9]);
        table.touch(ClientId(9), LogIndex(12), &mut batch);
        table.open(ClientId(6), LogIndex(13), &mut batch);
        assert_eq!(table.records.keys().map(|c| c.0).collect::<Vec<_>>(), [6, 9]);
    }

    #[test]
    fn a_table_that_is_taken_over_keeps_the_later_request_of_each_client() {
        let (engine, mut batch) = (MemEngine::new(), ApplyBatch::default());
        let mut ours = sessions(&engine, 3);
        let mut theirs = Sessions { region: 3.into(), ..sessions(&engine, 3) };
        let other = WriteResult::Appended { value_bytes: 9 };
        for client in [1, 2] {
            ours.open(ClientId(client), LogIndex(10), &mut batch);
            ours.record(session(client, 5), APPLIED, LogIndex(10 + client), &mut batch);
        }
        for (client, sequence) in [(1, 4), (2, 6), (3, 1), (4, 1)] {
            theirs.open(ClientId(client), LogIndex(2), &mut batch);
            theirs.record(session(client, sequence), other.clone(), LogIndex(2), &mut batch);
        }
        theirs.records_max = 3;
        ours.absorb(&theirs, LogIndex(20), &mut batch);
        assert_eq!(ours.verdict(session(2, 6)), Verdict::Repeated(other.clone()));
        assert_eq!(ours.verdict(session(4, 1)), Verdict::Repeated(other));
        let expired = WriteResult::SessionExpired { client: ClientId(1) };
        assert_eq!(ours.verdict(session(1, 5)), Verdict::Refused(expired), "the least recent");
        assert_eq!(ours.by_use.len(), 3);
        batch.write(&engine).expect("write");
        assert_eq!(sessions(&engine, 3).records, ours.records);
    }

    #[test]
    fn the_stored_table_is_the_table() {
        let (engine, mut batch) = (MemEngine::new(), ApplyBatch::default());
        let mut table = sessions(&engine, 2);
        for client in 1..=5 {
            table.open(ClientId(client), LogIndex(client), &mut batch);
            table.record(session(client, 2), APPLIED, LogIndex(client), &mut batch);
        }
        let refused = WriteResult::Refused { reason: "too large".to_owned() };
        table.record(session(5, 3), refused, LogIndex(6), &mut batch);
        batch.write(&engine).expect("write");
        let reloaded = sessions(&engine, 2);
        assert_eq!(reloaded.records, table.records);
        assert_eq!(reloaded.by_use, table.by_use);
        assert_eq!(reloaded.records.len(), 2);
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let engine = MemEngine::new();
        let mut batch = ApplyBatch::default();
        batch.put_local(Key::Session(RegionId::from(2), ClientId(1)).encode(), vec![1, 9, 0]);
        batch.write(&engine).expect("write");
        let loaded = Sessions::load(RegionId::from(2), engine.snapshot().as_ref());
        assert!(loaded.expect("engine").is_err());
    }
}

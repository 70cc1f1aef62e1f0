//! Client sessions, the means of exactly-once writes (Raft thesis §6.3).
//!
//! A session is a client id that one region knows, plus the next sequence number. The region keeps the last sequence and its
//! reply, so a retry of the same sequence is answered, not applied again. A session carries one write at a time; the
//! pool holds as many sessions per region as there ever were writes at once. Ids come from the scheduler and are never
//! used for a second session, nor is an id whose opening got lost: a request of a forgotten session that is still under way
//! cannot wake up again.
//!
//! The pool is a stack: what was used last is used next, so the sessions that nobody needs any more are the ones the region
//! forgets first.

use std::collections::BTreeMap;
use std::ops::Range;

use proto::ids::RegionId;

/// An opened session that no write is using.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The region that knows the session.
    pub region: RegionId,
    /// The id, unique in the cluster and for all time.
    pub client_id: u64,
    /// The sequence number of the next write, from 1 on.
    pub next_sequence: u64,
}

/// Idle sessions by region, and the ids for new ones.
#[derive(Debug, Default)]
pub struct SessionPool {
    idle: BTreeMap<RegionId, Vec<Session>>,
    client_ids: Vec<Range<u64>>,
}

impl SessionPool {
    /// An idle session of the region.
    pub fn take(&mut self, region: RegionId) -> Option<Session> {
        self.idle.get_mut(&region)?.pop()
    }

    /// Returns a session whose write has a definite outcome.
    pub fn put_back(&mut self, session: Session) {
        self.idle.entry(session.region).or_default().push(session);
    }

    /// A session has expired: those below it on the stack were used even longer ago.
    pub fn forget(&mut self, region: RegionId) {
        self.idle.remove(&region);
    }

    /// An id that has never been used.
    pub fn next_client_id(&mut self) -> Option<u64> {
        let ids = self.client_ids.last_mut()?;
        let id = ids.next();
        if ids.is_empty() {
            self.client_ids.pop();
        }
        id
    }

    /// Ids fresh from the scheduler.
    pub fn add_client_ids(&mut self, ids: Range<u64>) {
        if !ids.is_empty() {
            self.client_ids.push(ids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_used_last_comes_first_and_ids_never_repeat() {
        let region = RegionId::from(2);
        let session = |client_id| Session { region, client_id, next_sequence: 1 };
        let mut pool = SessionPool::default();
        pool.put_back(session(1));
        pool.put_back(session(2));
        assert_eq!(pool.take(region), Some(session(2)));
        assert_eq!(pool.take(RegionId::from(3)), None);
        pool.forget(region);
        assert_eq!(pool.take(region), None);

        pool.add_client_ids(10..12);
        pool.add_client_ids(5..5);
        pool.add_client_ids(20..21);
        let ids: Vec<u64> = std::iter::from_fn(|| pool.next_client_id()).collect();
        assert_eq!(ids, [20, 10, 11]);
    }
}

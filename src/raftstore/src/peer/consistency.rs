//! Comparing the data of all peers of a region.
//!
//! The leader proposes `ComputeHash`; every applier freezes the engine at that entry and a scanner hashes it
//! ([`crate::scan::data_hash`]). When the leader has its own hash it proposes it as `VerifyHash`, and every peer compares,
//! whichever comes later, the hash or the command. A peer that differs holds data that nobody may be served: its store
//! stops, and says for which region and index.
//!
//! A peer that was restarted, or got a snapshot in between, has no hash of that index and compares nothing.

use raft::LogIndex;

use super::{Context, Peer};
use crate::command::Command;
use crate::error::RegionError;
use crate::msg::{ConsistencyHash, RequestHeader};
use crate::reply::Reply;

/// Indexes remembered while one half of a comparison is missing.
const OPEN_MAX: usize = 4;

/// One index, and what is known of it.
#[derive(Debug, Default)]
struct Comparison {
    index: LogIndex,
    own: Option<u64>,
    leaders: Option<u64>,
}

/// The comparisons of one peer that are under way.
#[derive(Debug, Default)]
pub(super) struct Consistency {
    open: Vec<Comparison>,
    /// Who asked this leader, and at which index the region is compared for them.
    waiting: Vec<(LogIndex, Reply<ConsistencyHash>)>,
}

impl Consistency {
    /// Notes one half; an error if the other half is known and differs.
    fn note(
        &mut self,
        index: LogIndex,
        note: impl FnOnce(&mut Comparison),
    ) -> Result<(), (u64, u64)> {
        let at = self.open.iter().position(|open| open.index == index);
        let at = at.unwrap_or_else(|| {
            if self.open.len() >= OPEN_MAX {
                self.open.remove(0);
            }
            self.open.push(Comparison { index, ..Comparison::default() });
            self.open.len() - 1
        });
        note(&mut self.open[at]);
        let Comparison { own: Some(own), leaders: Some(leaders), .. } = self.open[at] else {
            return Ok(());
        };
        self.open.remove(at);
        if own == leaders { Ok(()) } else { Err((own, leaders)) }
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.waiting.is_empty()
    }
}

impl Peer {
    /// Somebody wants this leader's region compared.
    pub(crate) fn check_consistency(
        &mut self,
        header: &RequestHeader,
        reply: Reply<ConsistencyHash>,
        context: &Context<'_>,
    ) {
        if let Err(error) = self.check_leader(header, context) {
            return reply.fail(error);
        }
        match self.propose_command(Command::ComputeHash, context) {
            Ok(index) => self.consistency.get_or_insert_default().waiting.push((index, reply)),
            Err(error) => reply.fail(error),
        }
    }

    /// The scanner has hashed this peer's data as of `index`.
    pub(crate) fn on_hash_computed(
        &mut self,
        index: LogIndex,
        hash: u64,
        context: &Context<'_>,
    ) -> Result<(), String> {
        let consistency = self.consistency.get_or_insert_default();
        let compared = consistency.note(index, |comparison| comparison.own = Some(hash));
        if self.is_leader() {
            // If it cannot be proposed now, whoever asked will ask again.
            let proposed = self.propose_command(Command::VerifyHash { index, hash }, context);
            if let Err(error) = proposed {
                self.fail_comparisons(&error);
            }
        }
        self.end_comparison(index, compared)
    }

    /// The leader's hash has been committed.
    pub(crate) fn on_verify_hash(&mut self, index: LogIndex, hash: u64) -> Result<(), String> {
        let consistency = self.consistency.get_or_insert_default();
        let compared = consistency.note(index, |comparison| comparison.leaders = Some(hash));
        let done = consistency.waiting.extract_if(.., |(at, _)| *at == index);
        done.for_each(|(_, reply)| reply.send(Ok(ConsistencyHash { index, hash })));
        self.end_comparison(index, compared)
    }

    fn end_comparison(
        &mut self,
        index: LogIndex,
        compared: Result<(), (u64, u64)>,
    ) -> Result<(), String> {
        if self.consistency.as_ref().is_some_and(|consistency| consistency.is_idle()) {
            self.consistency = None;
        }
        compared.map_err(|(own, leaders)| {
            let (id, peer) = (self.id, self.peer_id());
            format!(
                "region {id}: the data of peer {peer} differ from the leader's at index {index}: \
                 hash {own:016x}, not {leaders:016x}"
            )
        })
    }

    /// Answers those who asked, because this peer cannot tell them any more.
    pub(super) fn fail_comparisons(&mut self, error: &RegionError) {
        let waiting =
            self.consistency.as_mut().map(|consistency| std::mem::take(&mut consistency.waiting));
        waiting.into_iter().flatten().for_each(|(_, reply)| reply.fail(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_half_comes_later_compares() {
        let mut consistency = Consistency::default();
        let (at, later) = (LogIndex(7), LogIndex(9));
        assert_eq!(consistency.note(at, |c| c.own = Some(1)), Ok(()));
        assert_eq!(consistency.note(later, |c| c.leaders = Some(2)), Ok(()));
        assert_eq!(consistency.note(at, |c| c.leaders = Some(1)), Ok(()));
        assert_eq!(consistency.note(later, |c| c.own = Some(3)), Err((3, 2)));
        assert!(consistency.is_idle());
    }

    #[test]
    fn what_is_never_completed_makes_room() {
        let mut consistency = Consistency::default();
        for index in 0..100 {
            assert_eq!(consistency.note(LogIndex(index), |c| c.own = Some(1)), Ok(()));
        }
        assert_eq!(consistency.open.len(), OPEN_MAX);
    }
}

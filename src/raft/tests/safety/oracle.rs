//! What must hold of all nodes together, remembered outside of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::{Entry, HardState, LogIndex, MemStorage, RawNode, ReadState, Role, Term};

/// Everything any node was ever seen to promise.
#[derive(Default)]
pub(crate) struct Oracle {
    leaders: BTreeMap<Term, u64>,
    committed: BTreeMap<LogIndex, (Term, Bytes)>,
    commit_of: BTreeMap<u64, LogIndex>,
    promised: BTreeMap<u64, HardState>,
    /// Highest commit index known to anyone when the read was asked for.
    reads: BTreeMap<Bytes, LogIndex>,
    pub(crate) reads_answered: u64,
}

impl Oracle {
    pub(crate) fn commit_max(&self) -> LogIndex {
        self.committed.last_key_value().map_or(LogIndex(0), |(index, _)| *index)
    }

    pub(crate) fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub(crate) fn ask_read(&mut self, context: Bytes) {
        self.reads.insert(context, self.commit_max());
    }

    pub(crate) fn drop_read(&mut self, context: &Bytes) {
        self.reads.remove(context).expect("a dropped read was asked for");
    }

    pub(crate) fn check_reads(&mut self, id: u64, reads: &[ReadState]) {
        for read in reads {
            let floor = self.reads.remove(&read.context).expect("an answered read was asked for");
            self.reads_answered += 1;
            assert!(read.index >= floor, "stale read at node {id}: {} < {floor}", read.index);
        }
    }

    /// State machine safety: every node applies the same entry at an index.
    pub(crate) fn check_applied(&self, id: u64, entry: &Entry) {
        let known = self.committed.get(&entry.index).expect("applied entries are committed");
        assert_eq!(known, &(entry.term, entry.data.clone()), "node {id} applies another entry");
    }

    pub(crate) fn forget(&mut self, id: u64) {
        self.commit_of.remove(&id);
    }

    /// Looks at a node after anything happened to it.
    pub(crate) fn check_node(&mut self, raw: &RawNode<MemStorage>) {
        let id = raw.id().0;
        let (term, commit) = (raw.term(), raw.commit_index());
        if raw.role() == Role::Leader {
            let known = *self.leaders.entry(term).or_insert(id);
            assert_eq!(known, id, "two leaders in term {term}");
        }
        let seen = self.commit_of.entry(id).or_insert(LogIndex(0));
        assert!(commit >= *seen, "commit index of node {id} fell from {seen} to {commit}");
        let mut index = seen.next().max(raw.log().first_index());
        *seen = commit;
        while index <= commit {
            let entry = raw.log().entries(index, index.next(), 0).expect("committed, so here");
            let found = (entry[0].term, entry[0].data.clone());
            let known = self.committed.entry(index).or_insert_with(|| found.clone());
            assert_eq!(known, &found, "node {id} commits another entry at {index}");
            index = index.next();
        }
    }

    /// Leader completeness: a leader holds everything that was committed in earlier terms. (One
    /// elected late, by votes that were long under way, need not hold what later terms have
    /// committed meanwhile.)
    pub(crate) fn check_new_leader(&self, raw: &RawNode<MemStorage>) {
        let first = raw.log().first_index();
        for (index, (term, _)) in self.committed.range(first..) {
            if *term < raw.term() {
                assert_eq!(raw.log().term(*index), Ok(*term), "leader {} lacks {index}", raw.id());
            }
        }
    }

    /// What a node has on disk never goes back.
    pub(crate) fn check_promise(&mut self, id: u64, now: HardState) {
        let before = self.promised.entry(id).or_default();
        assert!(now.term >= before.term, "term of node {id} fell");
        if now.term == before.term && before.vote.is_some() {
            assert_eq!(now.vote, before.vote, "node {id} voted twice in term {}", now.term);
        }
        *before = now;
    }

    /// Log matching: two logs that agree at an index agree before it.
    pub(crate) fn check_logs(&self, left: &RawNode<MemStorage>, right: &RawNode<MemStorage>) {
        let first = left.log().first_index().max(right.log().first_index());
        let mut index = left.last_index().min(right.last_index());
        let mut agreed = false;
        while index >= first && index > LogIndex(0) {
            let get = |raw: &RawNode<MemStorage>| {
                raw.log().entries(index, index.next(), 0).expect("in the log").remove(0)
            };
            let (a, b) = (get(left), get(right));
            if a.term == b.term || agreed {
                assert_eq!(a, b, "logs of {} and {} differ at {index}", left.id(), right.id());
                agreed = true;
            }
            index = index.prev();
        }
    }
}

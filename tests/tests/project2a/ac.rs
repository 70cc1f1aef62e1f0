//! Stage 2ac: the interface between a node and its driver.

use bytes::Bytes;
use raft::{HardState, LogIndex, MemStorage, RawNode, Term};

use crate::raft_group::{log_of, plain, with_state};

#[test]
fn raw_node_start_2ac() {
    let mut node = RawNode::new(&plain(1), MemStorage::with_voters([1])).unwrap();
    node.campaign();
    // A term and a vote, then the leader's own entry.
    while node.has_ready() {
        let ready = node.ready();
        node.storage_mut().append(&ready.entries);
        node.advance(ready);
    }
    let index = node.propose(Bytes::new(), Bytes::from_static(b"foo")).unwrap();
    let ready = node.ready();
    assert_eq!(ready.entries.iter().map(|e| e.index).collect::<Vec<_>>(), [index]);
    assert!(ready.must_sync, "entries are promises");
    assert!(ready.committed_entries.is_empty(), "not before it is on disk");
    node.storage_mut().append(&ready.entries);
    node.advance(ready);
    let ready = node.ready();
    assert!(ready.entries.is_empty());
    assert_eq!(ready.committed_entries.len(), 1);
    assert_eq!(ready.committed_entries[0].data, "foo");
    node.advance(ready);
    assert!(!node.has_ready(), "nothing is left to do");
}

#[test]
fn raw_node_restart_2ac() {
    let storage = with_state(log_of(1, &[1, 1]), 1, None, 1);
    let mut node = RawNode::new(&plain(1), storage).unwrap();
    let ready = node.ready();
    assert_eq!(ready.hard_state, None, "nothing has changed since it was stored");
    assert!(ready.entries.is_empty());
    let committed: Vec<LogIndex> = ready.committed_entries.iter().map(|e| e.index).collect();
    assert_eq!(committed, [LogIndex(1)]);
    node.advance(ready);
    assert!(!node.has_ready());
    let stored = HardState { term: Term(1), vote: None, commit: LogIndex(1) };
    assert_eq!(node.storage().hard_state, stored);
}

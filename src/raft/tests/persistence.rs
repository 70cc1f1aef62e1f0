//! What a completed write vouches for, and what has to be synced: told to one node message by
//! message.

use bytes::Bytes;
use raft::{
    Append, Config, Entry, LogIndex, MemStorage, Message, MessageBody, NodeId, RawNode, Role, Term,
    VoteRequest,
};

fn node(voters: u64) -> RawNode<MemStorage> {
    let storage = MemStorage::with_voters(1..=voters);
    let config = Config {
        id: NodeId(1),
        pre_vote: false,
        check_quorum: false,
        vote_cooldown_after_restart: false,
        ..Config::default()
    };
    RawNode::new(&config, storage).expect("an empty log")
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index: LogIndex(index), term: Term(term), ..Entry::default() }
}

fn append(from: u64, term: u64, prev: (u64, u64), entries: &[Entry], commit: u64) -> Message {
    let body = MessageBody::Append(Append {
        prev_index: LogIndex(prev.0),
        prev_term: Term(prev.1),
        entries: entries.to_vec(),
        commit: LogIndex(commit),
    });
    Message { to: NodeId(1), from: NodeId(from), term: Term(term), body }
}

/// Takes a Ready and returns its number; the write is under way.
fn begin_write(raw: &mut RawNode<MemStorage>) -> u64 {
    let ready = raw.ready();
    raw.storage_mut().append(&ready.entries);
    if let Some(hard_state) = ready.hard_state {
        raw.storage_mut().hard_state = hard_state;
    }
    raw.advance_append_async(&ready);
    ready.number
}

/// An entry is written, overwritten, and written again with the same term: the first completion
/// must not count for the last.
#[test]
fn completion_of_an_overwritten_entry_counts_for_nothing() {
    let mut raw = node(3);
    raw.step(append(2, 4, (0, 0), &[entry(1, 4)], 0)).unwrap();
    let first = begin_write(&mut raw);
    raw.step(append(3, 5, (0, 0), &[entry(1, 5)], 0)).unwrap();
    let second = begin_write(&mut raw);
    raw.step(append(2, 6, (0, 0), &[entry(1, 4), entry(2, 6)], 1)).unwrap();
    let third = begin_write(&mut raw);

    raw.on_persist(first);
    assert_eq!(raw.persisted_index(), LogIndex(0));
    raw.on_persist(second);
    assert_eq!(raw.persisted_index(), LogIndex(0));
    assert!(!raw.has_ready(), "entry 1 is committed, but not on this disk");
    raw.on_persist(third);
    assert_eq!(raw.persisted_index(), LogIndex(2));
    assert_eq!(raw.ready().committed_entries, [entry(1, 4)]);
}

/// A write that was overwritten in part vouches for the rest.
#[test]
fn completion_of_a_partly_overwritten_write_counts_for_the_rest() {
    let mut raw = node(3);
    raw.step(append(2, 4, (0, 0), &[entry(1, 4), entry(2, 4), entry(3, 4)], 0)).unwrap();
    let first = begin_write(&mut raw);
    raw.step(append(3, 5, (1, 4), &[entry(2, 5)], 0)).unwrap();
    let second = begin_write(&mut raw);
    raw.on_persist(first);
    assert_eq!(raw.persisted_index(), LogIndex(1));
    raw.on_persist(second);
    assert_eq!(raw.persisted_index(), LogIndex(2));
}

/// Completions may be reported together.
#[test]
fn one_completion_stands_for_all_before_it() {
    let mut raw = node(3);
    raw.step(append(2, 4, (0, 0), &[entry(1, 4)], 0)).unwrap();
    begin_write(&mut raw);
    raw.step(append(2, 4, (1, 4), &[entry(2, 4)], 0)).unwrap();
    let second = begin_write(&mut raw);
    raw.on_persist(second);
    assert_eq!(raw.persisted_index(), LogIndex(2));
}

/// Term, vote and entries have to be synced; a commit index has not.
#[test]
fn only_promises_must_be_synced() {
    let mut raw = node(3);
    raw.step(append(2, 4, (0, 0), &[], 0)).unwrap();
    let ready = raw.ready();
    assert!(ready.must_sync, "a new term");
    assert_eq!(ready.hard_state.map(|state| state.term), Some(Term(4)));
    raw.advance(ready);

    let request = VoteRequest { last_index: LogIndex(9), last_term: Term(4), ..Default::default() };
    let body = MessageBody::RequestVote(request);
    raw.step(Message { to: NodeId(1), from: NodeId(3), term: Term(5), body }).unwrap();
    let ready = raw.ready();
    assert!(ready.must_sync && ready.messages.is_empty(), "a vote waits for its sync");
    assert_eq!(ready.persisted_messages.len(), 1);
    raw.advance(ready);

    raw.step(append(3, 5, (0, 0), &[entry(1, 5)], 0)).unwrap();
    let ready = raw.ready();
    assert!(ready.must_sync, "an entry");
    raw.storage_mut().append(&ready.entries);
    raw.advance(ready);

    raw.step(append(3, 5, (1, 5), &[], 1)).unwrap();
    let ready = raw.ready();
    assert_eq!(ready.hard_state.map(|state| state.commit), Some(LogIndex(1)));
    assert!(!ready.must_sync, "a commit index can be learnt again");
    assert_eq!(ready.committed_entries, [entry(1, 5)]);
}

/// The simple way: write, then `advance`.
#[test]
fn a_simple_driver_needs_one_call() {
    let mut raw = node(1);
    assert!(raw.campaign());
    assert_eq!(raw.role(), Role::Leader);
    let index = raw.propose(Bytes::new(), Bytes::from_static(b"x")).unwrap();
    let mut applied = Vec::new();
    while raw.has_ready() {
        let ready = raw.ready();
        raw.storage_mut().append(&ready.entries);
        applied.extend(ready.committed_entries.clone());
        raw.advance(ready);
    }
    assert_eq!(raw.applied_index(), index);
    assert_eq!(applied.last().map(|entry| &entry.data[..]), Some(&b"x"[..]));
}

/// The applied index may be ahead of the stored commit index, which is not synced for its own sake.
#[test]
fn a_commit_index_that_lags_is_raised_to_what_is_applied() {
    let mut storage = MemStorage::with_voters([1]);
    storage.append(&[entry(1, 1), entry(2, 1)]);
    storage.hard_state.term = Term(1);
    let config = Config { id: NodeId(1), applied: LogIndex(2), ..Config::default() };
    let raw = RawNode::new(&config, storage.clone()).unwrap();
    assert_eq!(raw.commit_index(), LogIndex(2));
    let config = Config { applied: LogIndex(3), ..config };
    assert!(RawNode::new(&config, storage.clone()).is_err(), "applied entries are in the log");
    storage.hard_state.term = Term(0);
    let config = Config { applied: LogIndex(0), ..config };
    assert!(RawNode::new(&config, storage).is_err(), "no entry is newer than the term");
}

//! The log of one peer against the engine and its cache.

use engine::mem::MemEngine;

use super::*;

const REGION: RegionId = RegionId::new(7);
const START: LogStart = LogStart { index: LogIndex(5), term: Term(5) };

fn entry(index: u64, term: u64) -> Entry {
    let data = Bytes::from(format!("{index}@{term}"));
    Entry { index: LogIndex(index), term: Term(term), data, ..Entry::default() }
}

fn entries(from: u64, to: u64, term: u64) -> Vec<Entry> {
    (from..to).map(|index| entry(index, term)).collect()
}

fn fresh() -> (PeerStorage, Arc<MemEngine>) {
    let engine = Arc::new(MemEngine::new());
    let hard_state = HardState { term: Term(5), vote: None, commit: LogIndex(5) };
    let members = ConfState::simple([1], []);
    (PeerStorage::initial(engine.clone(), REGION, members, START, hard_state), engine)
}

fn reload(engine: &Arc<MemEngine>, start: LogStart, applied: u64) -> Result<PeerStorage, String> {
    let members = ConfState::simple([1], []);
    PeerStorage::load(engine.clone(), REGION, members, start, LogIndex(applied))
        .map_err(|error| error.to_string())
}

/// Appends, and carries the write out.
fn append(storage: &mut PeerStorage, engine: &MemEngine, number: u64, entries: &[Entry]) {
    let mut batch = WriteBatch::new();
    storage.append(entries, number, &mut batch);
    let term = entries.last().unwrap().term;
    let state = HardState { term, vote: None, commit: LogIndex(5) };
    storage.put_hard_state(&state, true, &mut batch);
    engine.write(&batch).unwrap();
    storage.on_written(number);
}

fn all(storage: &PeerStorage) -> Vec<Entry> {
    storage.entries(storage.first_index(), storage.last_index().next(), u64::MAX).unwrap()
}

#[test]
fn what_is_appended_is_there_before_and_after_a_restart() {
    let (mut storage, engine) = fresh();
    append(&mut storage, &engine, 1, &entries(6, 10, 6));
    let appended = all(&storage);
    storage.trim_cache(LogIndex(9), 0);
    assert_eq!(storage.cached_bytes(), 0);
    assert_eq!(all(&storage), appended, "from the engine");
    let storage = reload(&engine, START, 5).unwrap();
    assert_eq!(all(&storage), appended);
    assert_eq!(storage.term(LogIndex(5)), Ok(Term(5)));
    assert_eq!(storage.term(LogIndex(9)), Ok(Term(6)));
    assert_eq!(storage.term(LogIndex(4)), Err(StorageError::Compacted));
    assert_eq!(storage.term(LogIndex(10)), Err(StorageError::Unavailable));
}

#[test]
fn a_shorter_suffix_leaves_nothing_of_the_longer_one() {
    let (mut storage, engine) = fresh();
    append(&mut storage, &engine, 1, &entries(6, 10, 6));
    append(&mut storage, &engine, 2, &entries(8, 9, 7));
    let kept = [entry(6, 6), entry(7, 6), entry(8, 7)];
    assert_eq!(all(&storage), kept);
    assert_eq!(all(&reload(&engine, START, 5).unwrap()), kept);
    append(&mut storage, &engine, 3, &entries(9, 400, 7));
    append(&mut storage, &engine, 4, &entries(7, 8, 8));
    assert_eq!(all(&reload(&engine, START, 5).unwrap()), [entry(6, 6), entry(7, 8)]);
}

#[test]
fn an_old_write_does_not_vouch_for_what_replaced_it() {
    let (mut storage, _engine) = fresh();
    let mut batch = WriteBatch::new();
    storage.append(&entries(6, 10, 6), 1, &mut batch);
    storage.append(&entries(8, 10, 7), 2, &mut batch);
    storage.on_written(1);
    storage.trim_cache(LogIndex(9), 0);
    let kept = storage.entries(LogIndex(8), LogIndex(10), u64::MAX).unwrap();
    assert_eq!(kept, entries(8, 10, 7), "still in memory: write 2 is under way");
}

#[test]
fn a_truncated_log_stays_truncated() {
    let (mut storage, engine) = fresh();
    append(&mut storage, &engine, 1, &entries(6, 20, 6));
    let mut batch = WriteBatch::new();
    storage.truncate(LogIndex(12), Term(6), &mut batch);
    engine.write(&batch).unwrap();
    assert_eq!(storage.first_index(), LogIndex(13));
    assert_eq!(storage.entries(LogIndex(12), LogIndex(14), u64::MAX), Err(StorageError::Compacted));
    let start = LogStart { index: LogIndex(12), term: Term(6) };
    let storage = reload(&engine, start, 15).unwrap();
    assert_eq!(all(&storage), entries(13, 20, 6));
    let stored = engine.get(Cf::Raft, &Key::LogEntry(REGION, LogIndex(12)).encode());
    assert_eq!(stored, Ok(None));
}

#[test]
fn a_snapshot_takes_the_place_of_the_log() {
    let (mut storage, engine) = fresh();
    append(&mut storage, &engine, 1, &entries(6, 20, 6));
    let mut batch = WriteBatch::new();
    let start = LogStart { index: LogIndex(50), term: Term(9) };
    storage.restart_at(start, &mut batch);
    storage.append(&entries(51, 53, 9), 2, &mut batch);
    let state = HardState { term: Term(9), vote: None, commit: LogIndex(50) };
    storage.put_hard_state(&state, true, &mut batch);
    engine.write(&batch).unwrap();
    assert_eq!(all(&storage), entries(51, 53, 9));
    assert_eq!(all(&reload(&engine, start, 50).unwrap()), entries(51, 53, 9));
}

#[test]
fn a_commit_index_alone_forces_no_write() {
    let (mut storage, _engine) = fresh();
    let mut batch = WriteBatch::new();
    let mut state = HardState { term: Term(5), vote: None, commit: LogIndex(9) };
    assert!(!storage.put_hard_state(&state, false, &mut batch));
    assert!(batch.is_empty());
    state.vote = Some(NodeId(1));
    assert!(storage.put_hard_state(&state, false, &mut batch));
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let (mut storage, engine) = fresh();
    append(&mut storage, &engine, 1, &entries(6, 10, 6));
    let error = reload(&engine, START, 10).map(|_| ()).unwrap_err();
    assert!(error.contains("ends at 9, but 10 was committed"), "{error}");
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raft, Key::LogEntry(REGION, LogIndex(9)).encode(), &b"\xff\xff"[..]);
    engine.write(&batch).unwrap();
    assert!(reload(&engine, START, 5).is_err(), "a damaged entry");
}

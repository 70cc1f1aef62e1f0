//! The log against a plain vector, and its edges.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{ConfState, MemStorage};

fn entry(index: u64, term: u64) -> Entry {
    let data = Bytes::from(format!("{index}.{term}"));
    Entry { index: LogIndex(index), term: Term(term), data, ..Entry::default() }
}

fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(first..).map(|(term, index)| entry(index, *term)).collect()
}

fn log(stored: &[u64], unstored: &[u64]) -> RaftLog<MemStorage> {
    let mut storage = MemStorage::default();
    storage.append(&entries(1, stored));
    let mut log = RaftLog::new(storage).expect("a healthy log");
    log.extend(entries(stored.len() as u64 + 1, unstored));
    log
}

fn terms(log: &RaftLog<MemStorage>) -> Vec<u64> {
    let all = log.entries(log.first_index(), log.last_index().next(), u64::MAX).unwrap();
    all.iter().map(|entry| entry.term.0).collect()
}

#[test]
fn appends_are_taken_behind_a_matching_entry_only() {
    // Log 1 2 2 | 3: previous entry, terms appended, outcome.
    type Case = ((u64, u64), &'static [u64], Option<&'static [u64]>);
    let cases: [Case; 9] = [
        ((4, 3), &[4], Some(&[1, 2, 2, 3, 4])),
        ((4, 3), &[], Some(&[1, 2, 2, 3])),
        ((0, 0), &[1, 2], Some(&[1, 2, 2, 3])),
        ((2, 2), &[2, 3], Some(&[1, 2, 2, 3])),
        ((2, 2), &[4], Some(&[1, 2, 4])),
        ((1, 1), &[4, 4, 4, 4], Some(&[1, 4, 4, 4, 4])),
        ((4, 2), &[4], None),
        ((5, 3), &[4], None),
        ((2, 1), &[2], None),
    ];
    for (prev, appended, expected) in cases {
        let mut log = log(&[1, 2, 2], &[3]);
        let prev = (LogIndex(prev.0), Term(prev.1));
        let outcome = log.append(prev, entries(prev.0.0 + 1, appended)).unwrap();
        assert_eq!(outcome != Appended::Mismatch, expected.is_some(), "{prev:?} {appended:?}");
        assert_eq!(terms(&log), expected.unwrap_or(&[1, 2, 2, 3]), "{prev:?} {appended:?}");
        log.check_invariants();
    }
}

#[test]
fn committed_entries_are_never_overwritten() {
    let mut log = log(&[1, 2, 2], &[]);
    log.commit_to(LogIndex(2));
    let refused = log.append((LogIndex(1), Term(1)), entries(2, &[3]));
    let expected = Refusal::ContradictsCommitted { index: LogIndex(2), commit: LogIndex(2) };
    assert_eq!(refused, Err(expected));
    assert!(log.append((LogIndex(2), Term(2)), entries(3, &[3])).is_ok());
    assert_eq!(terms(&log), [1, 2, 3]);
    assert_eq!(log.persisted(), LogIndex(2), "the new entry 3 is not on disk");
}

#[test]
fn up_to_date_compares_terms_before_lengths() {
    let log = log(&[1, 2], &[]);
    let newer = |index, term| log.is_up_to_date(LogIndex(index), Term(term));
    assert!(newer(2, 2) && newer(3, 2) && newer(1, 3));
    assert!(!newer(1, 2) && !newer(9, 1));
}

#[test]
fn entries_straddle_storage_and_tail_within_the_limit() {
    let log = log(&[1, 1], &[1, 1]);
    let one = entry(1, 1).size_bytes();
    let count = |bytes| log.entries(LogIndex(1), LogIndex(5), bytes).unwrap().len() as u64;
    assert_eq!([0, one, 2 * one, 3 * one, 3 * one + 1, 4 * one].map(count), [1, 1, 2, 3, 3, 4]);
    assert_eq!(log.entries(LogIndex(3), LogIndex(5), 0).unwrap(), [entry(3, 1)]);
    assert_eq!(log.entries(LogIndex(2), LogIndex(6), 0), Err(StorageError::Unavailable));
    assert_eq!(log.entries(LogIndex(0), LogIndex(2), 0), Err(StorageError::Compacted));
}

#[test]
fn the_tail_keeps_entries_until_they_are_durable_and_handed_out() {
    let mut log = log(&[], &[1, 1, 1]);
    assert_eq!(log.tail.take_unwritten().len(), 3);
    log.commit_to(LogIndex(2));
    assert_eq!(log.next_committed(u64::MAX).unwrap(), [], "nothing is on disk yet");
    log.storage.append(&entries(1, &[1, 1, 1]));
    log.persist_to(LogIndex(3));
    assert_eq!(log.tail.first, LogIndex(1), "durable, but not handed out");
    assert_eq!(log.next_committed(0).unwrap(), [entry(1, 1)]);
    assert_eq!(log.tail.first, LogIndex(2));
    assert_eq!(log.next_committed(u64::MAX).unwrap(), [entry(2, 1)]);
    log.commit_to(LogIndex(3));
    assert_eq!(log.next_committed(u64::MAX).unwrap(), [entry(3, 1)]);
    assert_eq!((log.tail.first, log.tail.end()), (LogIndex(4), LogIndex(4)));
    log.check_invariants();
}

#[test]
fn a_snapshot_stands_for_the_log_before_it() {
    let mut log = log(&[1, 1], &[1]);
    let conf_state = ConfState::simple([1], []);
    log.restore(Snapshot { index: LogIndex(9), term: Term(3), conf_state, data: Bytes::new() });
    assert_eq!((log.first_index(), log.last_index()), (LogIndex(10), LogIndex(9)));
    assert_eq!(log.term(LogIndex(9)), Ok(Term(3)));
    assert_eq!(log.term(LogIndex(2)), Err(StorageError::Compacted));
    assert!(log.append((LogIndex(9), Term(3)), entries(10, &[4])).is_ok());
    log.commit_to(LogIndex(10));
    assert_eq!(log.applicable(), LogIndex(9), "nothing is applied before the snapshot is durable");
    let snapshot = log.tail.take_unwritten_snapshot().unwrap();
    assert_eq!(log.tail.take_unwritten_snapshot(), None);
    log.storage.install(&snapshot);
    log.tail.persist_snapshot(LogIndex(9));
    log.persist_to(LogIndex(9));
    log.storage.append(&entries(10, &[4]));
    log.persist_to(LogIndex(10));
    assert_eq!(log.next_committed(u64::MAX).unwrap(), [entry(10, 4)]);
    log.check_invariants();
}

#[test]
fn hints_skip_whole_terms() {
    let log = log(&[1, 1, 4, 4, 6], &[6]);
    let hint = |index, term| log.last_not_after_term(LogIndex(index), Term(term), LogIndex(0)).0.0;
    assert_eq!([hint(6, 5), hint(6, 4), hint(6, 3), hint(6, 0), hint(6, 6)], [4, 4, 2, 0, 6]);
}

proptest! {
    /// Any sequence of appends, cut anywhere by terms that rise, leaves the log as a vector would
    /// be.
    #[test]
    fn log_agrees_with_a_vector(steps in proptest::collection::vec((0usize..8, 0usize..4), 1..40)) {
        let mut log = log(&[], &[]);
        let mut model: Vec<u64> = Vec::new();
        for (term, (keep, count)) in (1u64..).zip(steps) {
            let keep = keep.min(model.len());
            let prev_term = if keep == 0 { 0 } else { model[keep - 1] };
            let appended = vec![term; count];
            let prev = (LogIndex(keep as u64), Term(prev_term));
            log.append(prev, entries(keep as u64 + 1, &appended)).unwrap();
            if count > 0 {
                model.truncate(keep);
                model.extend(&appended);
            }
            prop_assert_eq!(&terms(&log), &model);
            if term % 3 == 0 {
                let unwritten = log.tail.take_unwritten();
                log.storage.append(&unwritten);
                log.persist_to(log.last_index());
            }
            log.check_invariants();
        }
    }
}

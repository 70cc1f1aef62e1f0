//! Every way a leadership begins and ends, against a journal that is a list of committed requests.

use bytes::Bytes;
use raftstore::command::Mutation;

use super::*;

const APPLIED: Result<WriteResult, RegionError> = Ok(WriteResult::Applied);

fn lead() -> Lead {
    Lead::new(Config::default(), 7)
}

/// What has been committed, as the engine would hold it.
#[derive(Default)]
struct Journal(std::collections::BTreeMap<Bytes, Bytes>);

impl Journal {
    fn commit(&mut self, request: Request) {
        let Request::Mutate { mutations, .. } = request else { panic!("{request:?}") };
        for mutation in mutations {
            match mutation {
                Mutation::Put { key, value, .. } => drop(self.0.insert(key, value)),
                Mutation::Delete { key, .. } => drop(self.0.remove(&key)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn load(&self) -> Vec<Record> {
        self.0.iter().map(|(key, value)| Record::decode(key, value).unwrap()).collect()
    }

    /// Takes a leadership up to where it serves.
    fn serve(&mut self, lead: &mut Lead, term: u64, now_ms: u64) {
        let term = Term(term);
        assert_eq!(lead.observe(Some(term)), Some(Task::Load { term }));
        let task = lead.loaded(term, self.load(), now_ms).unwrap();
        assert_eq!(lead.serving(), None, "the windows are not open yet");
        let Some(Task::Commit { request, .. }) = task else { panic!("{task:?}") };
        self.commit(request);
        assert!(lead.committed(term, &APPLIED, now_ms));
        assert_eq!(lead.serving(), Some(term));
    }
}

/// A change that is never empty.
fn alloc(core: &mut Scheduler) -> Result<(Change, u64), core::Error> {
    let (change, ids) = core.alloc_ids(2 * core::ID_WINDOW);
    Ok((change, ids.start))
}

#[test]
fn the_next_leader_continues_behind_every_window_of_the_last_one() {
    let (mut first, mut second) = (lead(), lead());
    let mut journal = Journal::default();
    journal.serve(&mut first, 6, 1_000_000);
    let (_, before) = first.step(|core| core.timestamp(5, 1_000_001).unwrap()).unwrap();
    let (_, ids) = first.step(|core| core.try_alloc_ids(1).unwrap()).unwrap();
    // The second one's clock is an hour behind.
    journal.serve(&mut second, 7, 10);
    let (_, after) = second.step(|core| core.timestamp(1, 10)).unwrap();
    let after = after.unwrap();
    assert!(after > before, "{after:?} after {before:?}");
    let (_, more) = second.step(|core| core.try_alloc_ids(1).unwrap()).unwrap();
    assert!(more.start >= ids.end + core::ID_WINDOW - 1, "the rest of the window is skipped");
    assert_eq!(second.core().unwrap().cluster_id(), first.core().unwrap().cluster_id());
}

#[test]
fn another_term_or_none_drops_the_core() {
    let mut journal = Journal::default();
    let mut lead = lead();
    journal.serve(&mut lead, 6, 1_000);
    assert_eq!(lead.observe(Some(Term(6))), None, "still the same");
    assert!(lead.core().is_some());
    assert_eq!(lead.observe(None), None);
    assert!(lead.core().is_none());
    assert_eq!(lead.step(|_| ()), Err(NotServing));
    journal.serve(&mut lead, 8, 1_000);
    assert_eq!(lead.observe(Some(Term(9))), Some(Task::Load { term: Term(9) }));
    assert!(lead.core().is_none(), "a core never outlives its term");
}

#[test]
fn one_change_at_a_time_and_its_answer_after_the_commit() {
    let mut journal = Journal::default();
    let mut lead = lead();
    journal.serve(&mut lead, 6, 1_000);
    let Decision { term, task, .. } = lead.decide(alloc).unwrap();
    assert_eq!(lead.decide(alloc).unwrap_err(), Refusal::Busy);
    assert!(lead.step(|core| core.timestamp(1, 1_000)).is_ok(), "readers are not held up");
    let Some(Task::Commit { request, .. }) = task else { panic!("{task:?}") };
    journal.commit(request);
    assert!(lead.committed(term, &APPLIED, 1_000));
    assert!(lead.decide(alloc).is_ok());
    let nothing = |_: &mut Scheduler| Ok((Change::default(), ()));
    assert_eq!(lead.decide(nothing).unwrap_err(), Refusal::Busy);
}

#[test]
fn a_decision_that_changes_nothing_needs_no_commit_and_a_refusal_changes_nothing() {
    let mut journal = Journal::default();
    let mut lead = lead();
    journal.serve(&mut lead, 6, 1_000);
    let refused = lead.decide(|core| core.put_store(Default::default(), 1_000).map(|c| (c, ())));
    assert!(matches!(refused, Err(Refusal::Core(_))), "{refused:?}");
    let nothing = lead.decide(|_| Ok((Change::default(), 1))).unwrap();
    assert_eq!((nothing.task, nothing.answer, nothing.term), (None, 1, Term(6)));
}

#[test]
fn a_commit_that_did_not_succeed_ends_the_leadership_and_the_truth_is_read_back() {
    let failures = [
        Err(RegionError::StaleCommand),
        Err(RegionError::NotLeader { region: journal::REGION, leader: None }),
        Ok(WriteResult::Refused { reason: "too large".to_owned() }),
    ];
    for failure in failures {
        let mut journal = Journal::default();
        let mut lead = lead();
        journal.serve(&mut lead, 6, 1_000);
        let Decision { term, .. } = lead.decide(alloc).unwrap();
        assert!(!lead.committed(term, &failure, 1_000), "{failure:?}");
        assert!(lead.core().is_none());
        // It may turn out that the lead was never lost.
        journal.serve(&mut lead, 6, 1_000);
    }
}

#[test]
fn reports_of_an_earlier_leadership_are_ignored() {
    let mut journal = Journal::default();
    let mut lead = lead();
    journal.serve(&mut lead, 6, 1_000);
    let Decision { term: old, .. } = lead.decide(alloc).unwrap();
    assert_eq!(lead.observe(Some(Term(8))), Some(Task::Load { term: Term(8) }));
    assert!(!lead.committed(old, &APPLIED, 1_000), "the asker's core is gone");
    assert_eq!(lead.loaded(old, journal.load(), 1_000), Ok(None));
    lead.not_loaded(old);
    assert_eq!(lead.observe(Some(Term(8))), None, "still loading");
    assert!(!lead.committed(Term(8), &APPLIED, 1_000), "nothing was being committed");
    let task = lead.loaded(Term(8), journal.load(), 1_000).unwrap();
    assert!(matches!(task, Some(Task::Commit { term: Term(8), .. })));
    assert_eq!(lead.loaded(Term(8), journal.load(), 1_000), Ok(None), "loaded once");
}

#[test]
fn a_refused_load_is_tried_again() {
    let mut lead = lead();
    assert_eq!(lead.observe(Some(Term(6))), Some(Task::Load { term: Term(6) }));
    assert_eq!(lead.observe(Some(Term(6))), None);
    lead.not_loaded(Term(6));
    assert_eq!(lead.observe(Some(Term(6))), Some(Task::Load { term: Term(6) }));
}

#[test]
fn records_of_another_kind_are_final() {
    let mut lead = lead();
    lead.observe(Some(Term(6)));
    let foreign = vec![Record::Format(99)];
    assert!(matches!(lead.loaded(Term(6), foreign, 1_000), Err(OpenError::Foreign(_))));
}

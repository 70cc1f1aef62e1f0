//! Every planted bug of the apply side does what its name says: a bug without an effect would count as never caught.

use super::*;
use crate::planted::{Bug, activate};

/// Runs `check` with `bug` selected.
fn with<T>(bug: Bug, check: impl FnOnce() -> T) -> T {
    activate(Some(bug));
    let found = check();
    activate(None);
    found
}

#[test]
fn epoch_not_checked_at_apply() {
    let mut bench = Bench::new();
    let stale = Epoch { conf_ver: 1, version: 7 };
    let outcomes = with(Bug::EpochNotCheckedAtApply, || {
        bench.write_at(stale, vec![mutate(vec![put("k", "v")])])
    });
    assert_eq!(outcomes, [Ok(WriteResult::Applied)]);
}

#[test]
fn apply_state_not_in_batch() {
    let mut bench = Bench::new();
    bench.engine.sync().expect("sync");
    with(Bug::ApplyStateNotInBatch, || bench.one(mutate(vec![put("k", "v")])));
    let after = bench.crash(1);
    assert_eq!((after.state().applied_index, after.get("k")), (LogIndex(START + 1), None));
}

#[test]
fn session_not_deduplicated() {
    let mut bench = Bench::new();
    with(Bug::SessionNotDeduplicated, || {
        bench.one(open_session(7));
        bench.one(once(7, 1, append("k", "ab")));
        bench.one(once(7, 1, append("k", "ab")));
    });
    assert_eq!(bench.get("k").as_deref(), Some("abab"));
}

#[test]
fn snapshot_wrong_index() {
    let mut bench = Bench::new();
    bench.one(mutate(vec![put("k", "v")]));
    let ask = ApplyTask::Snapshot { region: REGION.into(), to: PeerId::from(3) };
    let turn = with(Bug::SnapshotWrongIndex, || bench.applier.handle(vec![ask]));
    assert!(turn.expect("apply").snapshots[0].meta.index > bench.state().applied_index);
}

#[test]
fn snapshot_misses_range() {
    let mut bench = Bench::new();
    bench.one(mutate(vec![put("k", "v"), put("l", "v")]));
    let moved = with(Bug::SnapshotMissesRange, || model::move_elsewhere(&mut bench));
    assert_eq!((moved.get("k"), moved.get("l").as_deref()), (None, Some("v")));
}

#[test]
fn reply_before_written() {
    let mut bench = Bench::new();
    let result = with(Bug::ReplyBeforeWritten, || bench.one(mutate(vec![put("k", "v")])));
    assert_eq!((result, bench.get("k")), (WriteResult::Applied, None));
}

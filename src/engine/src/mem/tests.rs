//! The crash model and the injected faults.

use super::*;
use crate::KeyRange;

fn put(key: &str, value: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Cf::Raw, key.to_owned(), value.to_owned());
    batch
}

/// Every pair of a family as `k=v k=v`.
fn dump(engine: &dyn Engine, cf: Cf) -> String {
    let snapshot = engine.snapshot();
    let mut iter = snapshot.iter(cf, KeyRange::all());
    let mut pairs = Vec::new();
    let mut valid = iter.seek_to_first().expect("memory does not fail");
    while valid {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        pairs.push(format!("{}={}", text(iter.key()), text(iter.value())));
        valid = iter.next().expect("memory does not fail");
    }
    pairs.join(" ")
}

fn raw(engine: &MemEngine) -> String {
    dump(engine, Cf::Raw)
}

/// `a` is durable, `b` and `c` are not.
fn one_of_three_synced() -> MemEngine {
    let engine = MemEngine::new();
    engine.write(&put("a", "1")).expect("write");
    engine.sync().expect("sync");
    engine.write(&put("b", "2")).expect("write");
    engine.write(&put("c", "3")).expect("write");
    engine
}

#[test]
fn a_crash_leaves_a_prefix_that_holds_all_that_was_synced() {
    for (keep, expected) in
        [(0, "a=1"), (1, "a=1 b=2"), (2, "a=1 b=2 c=3"), (usize::MAX, "a=1 b=2 c=3")]
    {
        assert_eq!(raw(&one_of_three_synced().crash(keep)), expected);
    }
}

#[test]
fn a_batch_survives_in_all_families_or_in_none() {
    let engine = MemEngine::new();
    let mut batch = put("a", "1");
    batch.put(Cf::Raft, "applied", "7");
    engine.write(&batch).expect("write");
    for (keep, expected) in [(0, ("", "")), (1, ("a=1", "applied=7"))] {
        let after = engine.crash(keep);
        assert_eq!((&*dump(&after, Cf::Raw), &*dump(&after, Cf::Raft)), expected);
    }
}

#[test]
fn a_sync_covers_what_was_written_when_it_began() {
    let engine = MemEngine::new();
    engine.write(&put("a", "1")).expect("write");
    let first = engine.begin_sync().expect("begin");
    engine.write(&put("b", "2")).expect("write");
    let second = engine.begin_sync().expect("begin");
    engine.write(&put("c", "3")).expect("write");
    assert_eq!(raw(&engine.fork()), "");
    engine.finish_sync(second).expect("finish");
    assert_eq!((raw(&engine.fork()), engine.unsynced_batches()), ("a=1 b=2".to_owned(), 1));
    engine.finish_sync(first).expect("an older sync that ends later takes nothing back");
    assert_eq!((raw(&engine.fork()), engine.counters().syncs), ("a=1 b=2".to_owned(), 2));
}

#[test]
fn the_dead_engine_accepts_nothing_and_the_new_one_goes_on() {
    let engine = one_of_three_synced();
    let new = engine.crash(1);
    assert!(matches!(engine.write(&put("x", "y")), Err(Error::Poisoned(_))));
    assert!(matches!(engine.sync(), Err(Error::Poisoned(_))));
    new.write(&put("d", "4")).expect("write");
    assert_eq!(raw(&new.crash(0)), "a=1 b=2", "what a restart found on the disk is durable");
}

#[test]
fn a_process_that_restarts_without_power_loss_finds_everything() {
    assert_eq!(raw(&one_of_three_synced().reopen()), "a=1 b=2 c=3");
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let engine = one_of_three_synced();
    engine.fail_next_sync("no space");
    let Err(Error::Io { detail, .. }) = engine.sync() else { panic!("the sync must fail") };
    assert_eq!(detail, "no space");
    assert!(matches!(engine.sync(), Err(Error::Poisoned(reason)) if reason.contains("no space")));
    assert!(matches!(engine.write(&put("d", "4")), Err(Error::Poisoned(_))));
    let ingest = engine.ingest(Cf::Raw, &mut std::iter::once(Ok(("e".into(), "5".into()))));
    assert!(matches!(ingest, Err(Error::Poisoned(_))));
    assert_eq!(raw(&engine), "a=1 b=2 c=3", "reads still see what is visible");
    assert_eq!(raw(&engine.crash(0)), "a=1", "and nothing of it was promised");
}

#[test]
fn a_failed_write_is_invisible_but_may_be_on_the_disk() {
    for (keep, expected) in [(2, "a=1 b=2 c=3"), (3, "a=1 b=2 c=3 d=4")] {
        let engine = one_of_three_synced();
        engine.fail_next_write("broken");
        assert!(matches!(engine.write(&put("d", "4")), Err(Error::Io { .. })));
        assert!(matches!(engine.write(&put("d", "4")), Err(Error::Poisoned(_))));
        assert_eq!(engine.get(Cf::Raw, b"d"), Ok(None));
        assert_eq!(raw(&engine.crash(keep)), expected);
    }
}

#[test]
fn a_failed_sync_of_an_overlapping_pair_fails_the_other_too() {
    let engine = one_of_three_synced();
    let (first, second) =
        (engine.begin_sync().expect("begin"), engine.begin_sync().expect("begin"));
    engine.fail_next_sync("lost");
    assert!(matches!(engine.finish_sync(first), Err(Error::Io { .. })));
    assert!(matches!(engine.finish_sync(second), Err(Error::Poisoned(_))));
}

#[test]
fn ingested_pairs_are_durable_at_once_and_win_over_older_batches() {
    let engine = one_of_three_synced();
    let pairs = [("b", "new"), ("d", "4")].map(|(k, v)| Ok((k.into(), v.into())));
    engine.ingest(Cf::Raw, &mut pairs.into_iter()).expect("ingest");
    assert_eq!(raw(&engine), "a=1 b=new c=3 d=4");
    assert_eq!(raw(&engine.fork()), "a=1 b=new d=4");
    assert_eq!(raw(&engine.crash(1)), "a=1 b=new d=4");
}

#[test]
fn keys_out_of_order_are_refused_and_harm_nothing() {
    let engine = one_of_three_synced();
    for keys in [["b", "a"], ["b", "b"]] {
        let mut pairs = keys.into_iter().map(|key| Ok((key.into(), Bytes::new())));
        assert_eq!(engine.ingest(Cf::Raw, &mut pairs), Err(Error::Unsorted { position: 1 }));
    }
    assert_eq!((raw(&engine), engine.poison()), ("a=1 b=2 c=3".to_owned(), None));
}

#[test]
fn a_failing_source_ends_the_ingest_and_harms_nothing() {
    let engine = one_of_three_synced();
    let broken = Error::Corruption { action: "read a snapshot file", detail: "crc".into() };
    let mut pairs = [Ok(("b".into(), "new".into())), Err(broken.clone())].into_iter();
    assert_eq!(engine.ingest(Cf::Raw, &mut pairs), Err(broken));
    assert_eq!((raw(&engine), engine.poison()), ("a=1 b=2 c=3".to_owned(), None));
}

#[test]
fn snapshots_outlive_later_writes_and_the_engine() {
    let engine = one_of_three_synced();
    let snapshot = engine.snapshot();
    let mut batch = WriteBatch::new();
    batch.delete_range(Cf::Raw, "a", "z");
    engine.write(&batch).expect("write");
    drop(engine);
    assert_eq!(snapshot.get(Cf::Raw, b"b"), Ok(Some("2".into())));
}

#[test]
fn an_empty_batch_is_not_a_write() {
    let engine = MemEngine::new();
    engine.write(&WriteBatch::new()).expect("write");
    assert_eq!((engine.unsynced_batches(), engine.counters().writes), (0, 0));
}

mod crashes {
    //! Any sequence of writes, syncs, bulk loads and crashes against a list of batches.

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u8),
        BeginSync,
        FinishSync(prop::sample::Index),
        Ingest(u8),
        Crash(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..20u8).prop_map(Step::Write),
            3 => Just(Step::BeginSync),
            3 => any::<prop::sample::Index>().prop_map(Step::FinishSync),
            1 => (0..20u8).prop_map(Step::Ingest),
            1 => (0..6usize).prop_map(Step::Crash),
        ]
    }

    /// What the disk must hold: the batches in order, how many of them are certain, and what was loaded after how many.
    #[derive(Default)]
    struct Model {
        writes: Vec<(u8, usize)>,
        certain: usize,
        loads: Vec<(usize, u8, usize)>,
    }

    impl Model {
        fn contents(&self, batches: usize) -> String {
            let mut pairs = std::collections::BTreeMap::new();
            for position in 0..=self.writes.len() {
                // Loads that happened when `position` batches were written win over all of those, lost or not.
                for (_, key, value) in self.loads.iter().filter(|(at, ..)| *at == position) {
                    pairs.insert(format!("{key:02}"), format!("load{value}"));
                }
                if let Some((key, value)) = self.writes.get(position).filter(|_| position < batches)
                {
                    pairs.insert(format!("{key:02}"), value.to_string());
                }
            }
            pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn leave_a_prefix_that_holds_all_that_was_promised(
            steps in prop::collection::vec(step(), 1..80),
        ) {
            let (mut engine, mut model) = (MemEngine::new(), Model::default());
            let mut begun: Vec<(SyncToken, usize)> = Vec::new();
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Write(key) => {
                        engine.write(&put(&format!("{key:02}"), &value.to_string())).expect("write");
                        model.writes.push((key, value));
                    }
                    Step::BeginSync => {
                        begun.push((engine.begin_sync().expect("begin"), model.writes.len()));
                    }
                    Step::FinishSync(_) if begun.is_empty() => {}
                    Step::FinishSync(which) => {
                        let (token, reached) = begun.swap_remove(which.index(begun.len()));
                        engine.finish_sync(token).expect("finish");
                        model.certain = model.certain.max(reached);
                    }
                    Step::Ingest(key) => {
                        let pair = (format!("{key:02}").into(), format!("load{value}").into());
                        engine.ingest(Cf::Raw, &mut std::iter::once(Ok(pair))).expect("ingest");
                        model.loads.push((model.writes.len(), key, value));
                    }
                    Step::Crash(keep) => {
                        let kept = (model.certain + keep).min(model.writes.len());
                        engine = engine.crash(keep);
                        prop_assert_eq!(raw(&engine), model.contents(kept));
                        // What a restart finds is where the next history begins.
                        let found = raw(&engine);
                        model = Model::default();
                        begun.clear();
                        for pair in found.split_whitespace() {
                            let (key, value) = pair.split_once('=').expect("a pair");
                            let number = value.trim_start_matches("load").parse().expect("digits");
                            let key = key.parse().expect("digits");
                            if value.starts_with("load") {
                                model.loads.push((0, key, number));
                            } else {
                                model.writes.push((key, number));
                            }
                        }
                        // Batches that survived cannot be told from loads any more; write them again, synced.
                        for (key, value) in &model.writes {
                            engine.write(&put(&format!("{key:02}"), &value.to_string())).expect("write");
                        }
                        engine.sync().expect("sync");
                        model.certain = model.writes.len();
                    }
                }
            }
            prop_assert_eq!(raw(&engine), model.contents(model.writes.len()));
            prop_assert_eq!(raw(&engine.fork()), model.contents(model.certain));
            prop_assert_eq!(engine.unsynced_batches(), model.writes.len() - model.certain);
        }
    }
}

//! Random operations on both engines and on plain maps: all three must agree at every step.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use engine::{Cf, KeyRange, Snapshot, WriteBatch};
use proptest::prelude::*;

use crate::lab::{Lab, MemLab, backward, forward};

type Pairs = BTreeMap<Bytes, Bytes>;
type Model = [Pairs; Cf::COUNT];

#[derive(Clone, Debug)]
enum Change {
    Put(Cf, Bytes, Bytes),
    Delete(Cf, Bytes),
    DeleteRange(Cf, Bytes, Bytes),
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>),
    Ingest(Cf, BTreeMap<Bytes, Bytes>),
    Get(Cf, Bytes),
    Scan(Cf, KeyRange),
    Walk(Cf, KeyRange, Vec<Move>),
    Snapshot,
    Sync,
    Reopen,
}

#[derive(Clone, Debug)]
enum Move {
    Seek(Bytes),
    SeekForPrev(Bytes),
    Next,
    Prev,
}

/// Few enough keys that operations meet, among them the empty one and neighbours of 0xff.
fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => prop::collection::vec(b'a'..b'e', 1..3).prop_map(Bytes::from),
        1 => prop::collection::vec(prop_oneof![Just(0u8), Just(0xff)], 0..3).prop_map(Bytes::from),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn cf() -> impl Strategy<Value = Cf> {
    prop_oneof![3 => Just(Cf::Raw), 1 => prop::sample::select(&Cf::ALL[..])]
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), prop::option::of(key())).prop_map(|(lower, upper)| KeyRange { lower, upper })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (cf(), key(), value()).prop_map(|(cf, k, v)| Change::Put(cf, k, v)),
        2 => (cf(), key()).prop_map(|(cf, k)| Change::Delete(cf, k)),
        1 => (cf(), key(), key()).prop_map(|(cf, a, b)| Change::DeleteRange(cf, a, b)),
    ]
}

fn movement() -> impl Strategy<Value = Move> {
    prop_oneof![
        key().prop_map(Move::Seek),
        key().prop_map(Move::SeekForPrev),
        Just(Move::Next),
        Just(Move::Prev),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let walk = (cf(), range(), prop::collection::vec(movement(), 1..12));
    prop_oneof![
        20 => prop::collection::vec(change(), 0..8).prop_map(Step::Write),
        2 => (cf(), prop::collection::btree_map(key(), value(), 0..10))
            .prop_map(|(cf, pairs)| Step::Ingest(cf, pairs)),
        10 => (cf(), key()).prop_map(|(cf, k)| Step::Get(cf, k)),
        6 => (cf(), range()).prop_map(|(cf, r)| Step::Scan(cf, r)),
        6 => walk.prop_map(|(cf, r, moves)| Step::Walk(cf, r, moves)),
        3 => Just(Step::Snapshot),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

fn batch_of(changes: &[Change]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for change in changes.iter().cloned() {
        match change {
            Change::Put(cf, key, value) => batch.put(cf, key, value),
            Change::Delete(cf, key) => batch.delete(cf, key),
            Change::DeleteRange(cf, start, end) => batch.delete_range(cf, start, end),
        }
    }
    batch
}

fn apply(model: &mut Model, changes: &[Change]) {
    for change in changes.iter().cloned() {
        match change {
            Change::Put(cf, key, value) => {
                model[cf.index()].insert(key, value);
            }
            Change::Delete(cf, key) => {
                model[cf.index()].remove(&key);
            }
            Change::DeleteRange(cf, start, end) => {
                model[cf.index()].retain(|key, _| *key < start || *key >= end);
            }
        }
    }
}

fn within(pairs: &Pairs, range: &KeyRange) -> Vec<(Bytes, Bytes)> {
    let inside = pairs.iter().filter(|(key, _)| range.contains(key));
    inside.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Where the moves of a cursor over `pairs` lead. A move from nowhere is not made.
fn walk_model(pairs: &[(Bytes, Bytes)], moves: &[Move]) -> Vec<Option<Bytes>> {
    let mut at: Option<usize> = None;
    let mut met = Vec::new();
    for movement in moves {
        at = match movement {
            Move::Seek(to) => pairs.iter().position(|(key, _)| key >= to),
            Move::SeekForPrev(to) => pairs.iter().rposition(|(key, _)| key <= to),
            Move::Next => at.and_then(|at| (at + 1 < pairs.len()).then_some(at + 1)),
            Move::Prev => at.and_then(|at| at.checked_sub(1)),
        };
        met.push(at.map(|at| pairs[at].0.clone()));
    }
    met
}

fn walk_engine(
    snapshot: &dyn Snapshot,
    cf: Cf,
    range: KeyRange,
    moves: &[Move],
) -> engine::Result<Vec<Option<Bytes>>> {
    let mut iter = snapshot.iter(cf, range);
    let mut met = Vec::new();
    for movement in moves {
        let valid = match movement {
            Move::Seek(to) => iter.seek(to)?,
            Move::SeekForPrev(to) => iter.seek_for_prev(to)?,
            Move::Next | Move::Prev if !iter.valid() => false,
            Move::Next => iter.next()?,
            Move::Prev => iter.prev()?,
        };
        met.push(valid.then(|| Bytes::copy_from_slice(iter.key())));
    }
    Ok(met)
}

/// One engine beside the model it must agree with.
struct Subject {
    lab: Box<dyn Lab>,
    model: Model,
    snapshots: Vec<(Arc<dyn Snapshot>, Model)>,
}

impl Subject {
    fn new(lab: impl Lab + 'static) -> Self {
        Self { lab: Box::new(lab), model: Model::default(), snapshots: Vec::new() }
    }

    fn run(&mut self, step: &Step) -> engine::Result<()> {
        let engine = self.lab.engine();
        match step {
            Step::Write(changes) => {
                engine.write(&batch_of(changes))?;
                apply(&mut self.model, changes);
            }
            Step::Ingest(cf, pairs) => {
                let owned = pairs.iter().map(|(k, v)| Ok((k.clone(), v.clone())));
                engine.ingest(*cf, &mut owned.collect::<Vec<_>>().into_iter())?;
                self.model[cf.index()].extend(pairs.clone());
            }
            Step::Get(cf, key) => {
                let expected = self.model[cf.index()].get(key);
                assert_eq!(engine.get(*cf, key)?.as_ref(), expected);
            }
            Step::Scan(cf, range) => {
                check_scan(&*engine.snapshot(), &self.model, *cf, range)?;
                for (snapshot, model) in &self.snapshots {
                    check_scan(&**snapshot, model, *cf, range)?;
                }
            }
            Step::Walk(cf, range, moves) => {
                let expected = walk_model(&within(&self.model[cf.index()], range), moves);
                let met = walk_engine(&*engine.snapshot(), *cf, range.clone(), moves)?;
                assert_eq!(met, expected);
            }
            Step::Snapshot => self.snapshots.push((engine.snapshot(), self.model.clone())),
            Step::Sync => engine.sync()?,
            Step::Reopen => {
                self.snapshots.clear();
                self.lab.reopen();
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> engine::Result<()> {
        for cf in Cf::ALL {
            self.run(&Step::Scan(cf, KeyRange::all()))?;
        }
        self.run(&Step::Reopen)?;
        for cf in Cf::ALL {
            self.run(&Step::Scan(cf, KeyRange::all()))?;
        }
        Ok(())
    }
}

fn check_scan(
    snapshot: &dyn Snapshot,
    model: &Model,
    cf: Cf,
    range: &KeyRange,
) -> engine::Result<()> {
    let mut expected = within(&model[cf.index()], range);
    assert_eq!(forward(&mut *snapshot.iter(cf, range.clone()))?, expected);
    expected.reverse();
    assert_eq!(backward(&mut *snapshot.iter(cf, range.clone()))?, expected);
    for (key, value) in &expected {
        assert_eq!(snapshot.get(cf, key)?.as_ref(), Some(value));
    }
    Ok(())
}

fn check(mut subject: Subject, steps: &[Step]) {
    for step in steps {
        subject.run(step).expect("no fault is injected");
    }
    subject.finish().expect("no fault is injected");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_agrees_with_plain_maps(steps in prop::collection::vec(step(), 1..60)) {
        check(Subject::new(MemLab::new()), &steps);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rocksdb_agrees_with_plain_maps(steps in prop::collection::vec(step(), 1..60)) {
        check(Subject::new(crate::lab::RocksLab::new()), &steps);
    }
}

//! The deciding half of the client against a world of regions that split, merge and move under it: whatever happens, each
//! caller sees exactly what it would see if there were one map and nothing ever moved.
//!
//! Several callers share one core, and each has the keys below its own letter to itself; so every answer has one right
//! value, known to a model. The regions know nothing of letters.

#![allow(clippy::disallowed_methods, reason = "the seeds' number comes from the environment")]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use client::Error;
use client::core::batch::{self, Batch, End};
use client::core::scan::{self, Missing, Scan};
use client::core::{
    Anchor, Call, Core, Instant, Mutation, Page, Pair, Question, Reply, Request, Send, Settings,
    Step,
};
use world::{Trouble, World};

const CALLERS: u8 = 4;
const KEYS: u8 = 24;
const CALLS: usize = 60;

fn key(caller: u8, n: u64) -> Bytes {
    Bytes::from(vec![b'a' + caller, b'0' + n as u8])
}

/// One call of the core, and the message that it waits for.
struct Line {
    request: Arc<Request>,
    call: Call,
    out: Option<Send>,
}

/// What a caller is doing.
#[expect(clippy::large_enum_variant, reason = "there are four of them")]
enum Doing {
    Nothing,
    One(Line),
    Batch { batch: Batch, lines: Vec<Line>, write: Vec<Mutation>, keys: Vec<Bytes> },
    Scan { scan: Scan, page: Option<Page>, line: Option<Line>, seen: Vec<Pair>, wanted: Vec<Pair> },
}

struct Caller {
    letter: u8,
    doing: Doing,
    left: usize,
    model: BTreeMap<Bytes, Bytes>,
    /// A write of theirs has an unknown outcome.
    doubtful: BTreeSet<Bytes>,
}

/// What came of all calls of a run.
#[derive(Debug, Default)]
struct Tally {
    answered: u32,
    undetermined: u32,
    failed: u32,
}

struct Run {
    world: World,
    core: Core,
    now: Instant,
    tally: Tally,
}

impl Run {
    fn start(&self, request: Arc<Request>) -> Line {
        let call = Call::new(Arc::clone(&request), &self.core.settings, self.now);
        Line { request, call, out: None }
    }

    /// One step of a call; how it ended, if it has.
    fn advance(&mut self, line: &mut Line) -> Option<Result<End, Error>> {
        if let Some(send) = line.out.take() {
            let attempt = self.world.deliver(&send);
            line.call.on_attempt(&mut self.core, self.now, attempt);
            return None;
        }
        match line.call.poll(&mut self.core, self.now) {
            Step::Send(send) => line.out = Some(send),
            Step::Wait(until) => self.now = until,
            Step::Regroup => return Some(Ok(End::Regroup)),
            Step::Done(outcome) => return Some(outcome.map(End::Reply)),
            Step::Ask(Question::ClientIds) => {
                let id = self.world.below(u64::MAX);
                line.call.on_client_ids(&mut self.core, self.now, Ok(vec![id]));
            }
            Step::Ask(Question::Region(anchor)) => {
                let answer = self.world.ask(&anchor);
                line.call.on_region(&mut self.core, self.now, Ok(answer));
            }
        }
        None
    }

    fn begin(&mut self, caller: &Caller) -> Doing {
        let letter = caller.letter;
        let some = |world: &mut World| key(letter, world.below(u64::from(KEYS)));
        let value = Bytes::from(format!("{}", self.world.below(1_000_000)));
        let put = |key| Mutation::Put { key, value: value.clone() };
        let count = self.world.below(12) + 1;
        let any = some(&mut self.world);
        let mut span = [some(&mut self.world), some(&mut self.world)];
        span.sort();
        let [start, end] = span;
        match self.world.below(10) {
            0 | 1 => Doing::One(self.start(Arc::new(Request::Get { key: any }))),
            2 | 3 => {
                let append = Mutation::Append { key: any, suffix: "x".into() };
                Doing::One(self.start(Arc::new(Request::Write(vec![append]))))
            }
            4 => Doing::One(self.start(Arc::new(Request::Write(vec![put(any)])))),
            5 | 6 => {
                let keys: BTreeSet<Bytes> = (0..count).map(|_| some(&mut self.world)).collect();
                let delete = self.world.below(4) == 0;
                let write = keys.into_iter().map(|key| match delete {
                    true => Mutation::Delete { key },
                    false => put(key),
                });
                self.begin_batch(write.collect(), Vec::new())
            }
            7 if start < end => {
                self.begin_batch(vec![Mutation::DeleteRange { start, end }], Vec::new())
            }
            8 => {
                let keys: BTreeSet<Bytes> = (0..count).map(|_| some(&mut self.world)).collect();
                self.begin_batch(Vec::new(), keys.into_iter().collect())
            }
            _ => {
                let reverse = self.world.below(2) == 0;
                let limit = (self.world.below(2) == 0).then_some(count);
                let most = limit.map_or(usize::MAX, |limit| limit as usize);
                let wanted = world::range(&caller.model, &start, &end, reverse, most);
                let scan = Scan::new(start, end, limit).reverse(reverse);
                Doing::Scan { scan, page: None, line: None, seen: Vec::new(), wanted }
            }
        }
    }

    fn begin_batch(&self, write: Vec<Mutation>, keys: Vec<Bytes>) -> Doing {
        let request = match keys.is_empty() {
            true => Request::Write(write.clone()),
            false => Request::BatchGet { keys: keys.clone() },
        };
        Doing::Batch { batch: Batch::new(request), lines: Vec::new(), write, keys }
    }

    /// One step of whatever the caller is doing.
    fn step(&mut self, caller: &mut Caller) {
        self.now = Instant(self.now.0 + 50_000);
        match std::mem::replace(&mut caller.doing, Doing::Nothing) {
            Doing::Nothing if caller.left == 0 => {}
            Doing::Nothing => {
                caller.left -= 1;
                caller.doing = self.begin(caller);
            }
            Doing::One(mut line) => match self.advance(&mut line) {
                None => caller.doing = Doing::One(line),
                Some(outcome) => self.check_one(caller, &line.request, outcome),
            },
            Doing::Batch { batch, lines, write, keys } => {
                self.step_batch(caller, batch, lines, (write, keys));
            }
            Doing::Scan { scan, page, line, seen, wanted } => {
                self.step_scan(caller, (scan, page, line), seen, wanted);
            }
        }
    }

    fn step_batch(
        &mut self,
        caller: &mut Caller,
        mut batch: Batch,
        mut lines: Vec<Line>,
        (write, keys): (Vec<Mutation>, Vec<Bytes>),
    ) {
        match batch.next(&mut self.core.regions) {
            batch::Next::Missing(wanted) => {
                let regions = self.world.scan_regions(&wanted, 3);
                self.core.adopt(regions);
            }
            batch::Next::Part(part) => lines.push(self.start(part)),
            batch::Next::Running => {
                let at = self.world.below(lines.len() as u64) as usize;
                if let Some(outcome) = self.advance(&mut lines[at]) {
                    let line = lines.swap_remove(at);
                    batch.on_part(line.request, outcome);
                }
            }
            batch::Next::Finished => {
                return self.check_batch(caller, batch.finish(), &write, &keys);
            }
        }
        caller.doing = Doing::Batch { batch, lines, write, keys };
    }

    fn step_scan(
        &mut self,
        caller: &mut Caller,
        (mut scan, mut page, mut line): (Scan, Option<Page>, Option<Line>),
        mut seen: Vec<Pair>,
        wanted: Vec<Pair>,
    ) {
        if let Some(mut running) = line.take() {
            match self.advance(&mut running) {
                None => line = Some(running),
                Some(Ok(End::Regroup)) => page = None,
                Some(Ok(End::Reply(Reply::Pairs(pairs)))) => {
                    scan.on_page(&page.take().expect("a page was asked for"), &pairs);
                    seen.extend(pairs);
                }
                Some(Ok(other)) => panic!("{other:?} is no answer to a scan"),
                Some(Err(error)) => {
                    assert!(error.is_retryable(), "{error}");
                    self.tally.failed += 1;
                    return;
                }
            }
        } else {
            match scan.next(&mut self.core.regions) {
                scan::Next::Page(next) => {
                    line = Some(self.start(Arc::new(Request::Scan(next.clone()))));
                    page = Some(next);
                }
                scan::Next::Missing(Missing::Ahead(wanted)) => {
                    let regions = self.world.scan_regions(&wanted, 3);
                    self.core.adopt(regions);
                }
                scan::Next::Missing(Missing::Below(end)) => {
                    let found = self.world.ask(&Anchor::Before(end));
                    self.core.adopt(found);
                }
                scan::Next::Finished => {
                    let sure = |pairs: Vec<Pair>| -> Vec<Pair> {
                        pairs.into_iter().filter(|(k, _)| !caller.doubtful.contains(k)).collect()
                    };
                    // Keys in doubt may count towards the limit, or not.
                    if caller.doubtful.is_empty() {
                        assert_eq!(seen, wanted);
                    } else {
                        let (seen, wanted) = (sure(seen), sure(wanted));
                        let both = seen.len().min(wanted.len());
                        assert_eq!(seen[..both], wanted[..both]);
                    }
                    self.tally.answered += 1;
                    return;
                }
            }
        }
        caller.doing = Doing::Scan { scan, page, line, seen, wanted };
    }

    fn check_one(&mut self, caller: &mut Caller, request: &Request, outcome: Result<End, Error>) {
        let reply = match outcome {
            Ok(End::Reply(reply)) => reply,
            Ok(End::Regroup) => panic!("one key always lies in one region"),
            Err(error) => {
                let Request::Write(mutations) = request else {
                    assert!(error.is_retryable(), "{error}");
                    self.tally.failed += 1;
                    return;
                };
                return self.doubt(caller, mutations, &error);
            }
        };
        self.tally.answered += 1;
        match request {
            Request::Get { key } if caller.doubtful.contains(key) => {}
            Request::Get { key } => {
                assert_eq!(reply, Reply::Value(caller.model.get(key).cloned()), "{key:?}");
            }
            Request::Write(mutations) => {
                let expected = world::write(&mut caller.model, mutations);
                if !caller.doubtful.contains(mutations[0].key()) {
                    assert_eq!(reply, expected, "{mutations:?}");
                }
            }
            other => panic!("{other:?} is no request of one key"),
        }
    }

    fn check_batch(
        &mut self,
        caller: &mut Caller,
        outcome: client::Result<Vec<Reply>>,
        write: &[Mutation],
        keys: &[Bytes],
    ) {
        let replies = match outcome {
            Ok(replies) => replies,
            Err(error) => return self.doubt(caller, write, &error),
        };
        self.tally.answered += 1;
        if keys.is_empty() {
            world::write(&mut caller.model, write);
            return;
        }
        let mut found = BTreeMap::new();
        for reply in replies {
            let Reply::Pairs(pairs) = reply else { panic!("{reply:?} is no answer to a read") };
            for (key, value) in pairs {
                assert!(found.insert(key, value).is_none(), "a key came twice");
            }
        }
        for key in keys.iter().filter(|key| !caller.doubtful.contains(*key)) {
            assert_eq!(found.get(key), caller.model.get(key), "{key:?}");
        }
    }

    /// A write that failed for certain leaves no trace; one in doubt takes its keys out of the comparison.
    fn doubt(&mut self, caller: &mut Caller, write: &[Mutation], error: &Error) {
        if error.is_retryable() {
            self.tally.failed += 1;
            return;
        }
        assert!(matches!(error, Error::Undetermined(_)), "{error}");
        self.tally.undetermined += 1;
        for mutation in write {
            match mutation {
                Mutation::DeleteRange { start, end } => {
                    let all = (0..u64::from(KEYS)).map(|n| key(caller.letter, n));
                    caller.doubtful.extend(all.filter(|key| key >= start && key < end));
                }
                other => {
                    caller.doubtful.insert(other.key().clone());
                }
            }
        }
    }
}

fn run(seed: u64, trouble: Trouble) -> (Tally, [u32; 3]) {
    let boundaries = (0..CALLERS)
        .flat_map(|caller| (0..u64::from(KEYS)).step_by(2).map(move |n| key(caller, n)));
    let mut run = Run {
        world: World::new(seed, trouble, boundaries.collect()),
        core: Core::new(Settings::default(), seed),
        now: Instant(0),
        tally: Tally::default(),
    };
    let caller = |letter| Caller {
        letter,
        doing: Doing::Nothing,
        left: CALLS,
        model: BTreeMap::new(),
        doubtful: BTreeSet::new(),
    };
    let mut callers: Vec<Caller> = (0..CALLERS).map(caller).collect();
    let is_busy = |caller: &Caller| caller.left > 0 || !matches!(caller.doing, Doing::Nothing);
    let mut steps = 0;
    while callers.iter().any(is_busy) {
        let at = run.world.below(u64::from(CALLERS)) as usize;
        run.step(&mut callers[at]);
        steps += 1;
        assert!(steps < 2_000_000, "seed {seed}: the calls do not end");
    }
    for caller in &callers {
        let sure = |(key, _): &(&Bytes, &Bytes)| {
            key[0] == b'a' + caller.letter && !caller.doubtful.contains(*key)
        };
        let applied: Vec<_> = run.world.data.iter().filter(sure).collect();
        let expected: Vec<_> = caller.model.iter().filter(sure).collect();
        assert_eq!(applied, expected, "seed {seed}: what is there in the end");
    }
    (run.tally, run.world.changes)
}

fn all(seeds: std::ops::Range<u64>, trouble: Trouble) -> Tally {
    let mut total = Tally::default();
    let mut changes = [0; 3];
    for seed in seeds.clone() {
        let (tally, changed) = run(seed, trouble);
        total.answered += tally.answered;
        total.undetermined += tally.undetermined;
        total.failed += tally.failed;
        changes = std::array::from_fn(|n| changes[n] + changed[n]);
    }
    let runs = u32::try_from(seeds.count()).expect("few");
    assert!(changes.iter().all(|count| *count > 5 * runs), "the world stands still: {changes:?}");
    total
}

/// How many seeds: more by the environment.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("FLOTILLA_SEEDS").ok().and_then(|text| text.parse().ok());
    0..wanted.unwrap_or(default)
}

#[test]
fn nothing_is_ever_in_doubt_while_no_message_is_lost() {
    let trouble = Trouble { reshape: 250, loss: 0, refusal: 50, remembered: 1_000 };
    let total = all(seeds(150), trouble);
    assert_eq!((total.undetermined, total.failed), (0, 0), "{total:?}");
}

#[test]
fn answers_are_exact_whatever_gets_lost() {
    let trouble = Trouble { reshape: 150, loss: 100, refusal: 50, remembered: 1_000 };
    let total = all(seeds(150), trouble);
    assert!(total.undetermined * 50 < total.answered, "too many in doubt: {total:?}");
    assert!(total.undetermined > 0, "nothing was ever in doubt: {total:?}");
}

#[test]
fn answers_are_exact_even_when_regions_forget() {
    let trouble = Trouble { reshape: 150, loss: 100, refusal: 50, remembered: 3 };
    let total = all(seeds(150), trouble);
    assert!(total.answered > 20 * total.undetermined, "{total:?}");
}

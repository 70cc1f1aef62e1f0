//! Clients' calls: which store is asked, what is tried again, and when an outcome stays unknown.
//!
//! An attempt that gets no answer, or one that says the command was overtaken, may still take effect. Calls that can be
//! repeated without harm (reads, and writes that name a session) are tried again; other writes end as
//! [`Outcome::Unknown`] right there, which is the honest answer.

use super::Cluster;
use crate::checkers::Moment;
use crate::sim::call::{Call, Outcome};
use crate::sim::event::{Answer, Ask, AskWhat, Event, StoreEvent};
use crate::sim::knobs::{Knobs, ReadMode};
use crate::sim::layout::{store_id, store_place};
use crate::sim::rng::Rng;
use crate::sim::time::Nanos;
use bytes::Bytes;
use proto::ids::RegionId;
use raftstore::command::{Mutation, Request, WriteResult};
use raftstore::error::RegionError;
use raftstore::keys::RawCf;
use raftstore::msg::RequestHeader;
use std::collections::BTreeMap;

/// What a cluster tells the driver of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A call has ended.
    Done {
        /// Whose it was.
        client: u64,
        /// What was asked.
        call: Call,
        /// What came of it.
        outcome: Outcome,
    },
    /// The time asked for has come.
    Wake(u64),
}

/// How patient a caller is.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    /// When to stop trying; `None` for never.
    pub deadline: Option<Nanos>,
    /// Attempts that are made even after the deadline.
    pub attempts_min: u32,
    /// Repeat a write even if it may have taken effect already: for callers that know this to be harmless.
    pub repeat_writes: bool,
}

struct OpenCall {
    client: u64,
    call: Call,
    options: CallOptions,
    invoked: Moment,
    attempts: u32,
    /// The attempt that is waited for.
    attempt: Option<u64>,
    asked: (usize, usize),
    /// Some attempt of a write may have taken effect.
    tainted: bool,
    /// Where a scan goes on.
    scan_from: Bytes,
    pairs: Vec<(Bytes, Bytes)>,
}

/// The clients' side.
pub(in crate::sim) struct Calls {
    rng: Rng,
    open: BTreeMap<u64, OpenCall>,
    attempts: BTreeMap<u64, u64>,
    counter: u64,
    /// By client and region: whom to ask first.
    leaders: BTreeMap<(u64, usize), usize>,
    record: bool,
    read_mode: ReadMode,
    /// How long an attempt is waited for.
    attempt_timeout: Nanos,
    /// Attempts that are sent to any store, per mille.
    astray_per_mille: u64,
    /// Whether plain puts are given up much earlier now and then.
    hasty: bool,
}

impl Calls {
    pub(super) fn new(rng: Rng, knobs: &Knobs, record: bool) -> Calls {
        Calls {
            rng,
            open: BTreeMap::new(),
            attempts: BTreeMap::new(),
            counter: 0,
            leaders: BTreeMap::new(),
            record,
            read_mode: knobs.read_mode,
            attempt_timeout: knobs.election_timeout().times(3).max(Nanos::millis(200)),
            astray_per_mille: if record { knobs.astray_per_mille } else { 0 },
            hasty: record && knobs.hasty,
        }
    }

    fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

/// What to do after an attempt.
enum Next {
    Finish(Outcome),
    /// Ask again, at this store if it is known to lead, after a pause unless it is.
    Again(Option<usize>),
}

impl Cluster {
    /// Starts a call. [`Notice::Done`] ends it.
    pub fn submit(&mut self, client: u64, call: Call, options: CallOptions) {
        let invoked = self.recorder.moment();
        let number = self.calls.next_number();
        let scan_from = call.key().clone();
        let now = self.queue.now();
        self.trace.event(now, 0x200, number);
        self.trace.line(now, |line| line.push_str(&format!("c{client} {invoked} calls {call:?}")));
        let open = OpenCall {
            client,
            call,
            options,
            invoked,
            attempts: 0,
            attempt: None,
            asked: (0, 0),
            tainted: false,
            scan_from,
            pairs: Vec::new(),
        };
        self.calls.open.insert(number, open);
        self.attempt(number);
    }

    /// How long an attempt is waited for.
    pub fn set_attempt_timeout(&mut self, timeout: Nanos) {
        self.calls.attempt_timeout = timeout;
    }

    /// Number of calls that have not ended.
    pub fn open_calls(&self) -> usize {
        self.calls.open.len()
    }

    pub(super) fn attempt(&mut self, number: u64) {
        let stores = self.processes.len() as u64;
        let calls = &mut self.calls;
        let attempt = calls.next_number();
        let Some(open) = calls.open.get_mut(&number) else { return };
        let region = self.layout.region_of(&open.scan_from);
        let known = calls.leaders.get(&(open.client, region)).copied();
        // Some calls go astray: to whoever led before, or never did.
        let known = known.filter(|_| !calls.rng.chance(calls.astray_per_mille));
        let store = known.unwrap_or_else(|| calls.rng.below(stores) as usize);
        open.attempts += 1;
        open.attempt = Some(attempt);
        open.asked = (region, store);
        let lease = match calls.read_mode {
            ReadMode::Lease => true,
            ReadMode::ReadIndex => false,
            ReadMode::Mixed => calls.rng.chance(500),
        };
        let range = &self.layout.regions[region];
        let what = ask_what(open, self.cf, &range.end_key);
        let mut header =
            RequestHeader::new(RegionId::from(range.id), range.region_epoch.unwrap_or_default());
        header.store = Some(store_id(store));
        if calls.rng.chance(500) {
            header.peer = Some(self.layout.peer(region, store));
        }
        let is_plain_put = matches!(open.call, Call::Put { session: None, .. });
        calls.attempts.insert(attempt, number);
        let delay = self.client_delay();
        let event = StoreEvent::Ask(Ask { attempt, header, lease, position: 0, what });
        self.queue.after(delay, Event::Store { store, life: None, event });
        let timeout = match is_plain_put && self.calls.hasty && self.calls.rng.chance(700) {
            true => Nanos(self.knobs.election_timeout().0 / 8),
            false => self.calls.attempt_timeout,
        };
        self.queue.after(timeout, Event::GiveUp { attempt });
    }

    /// Clients are near: a short way, and now and then a long one.
    fn client_delay(&mut self) -> Nanos {
        let knobs = self.network.knobs();
        let mut delay = self.calls.rng.span(Nanos::micros(30), Nanos::micros(300));
        if self.calls.rng.chance(knobs.tail_per_mille) {
            delay += self.calls.rng.span(Nanos::ZERO, knobs.tail_max);
        }
        delay
    }

    pub(super) fn reply_to(&mut self, attempt: u64, answer: Answer) {
        let delay = self.client_delay();
        self.queue.after(delay, Event::Answer { attempt, answer });
    }

    pub(super) fn answered(&mut self, attempt: u64, answer: Answer) {
        let Some(number) = self.calls.attempts.remove(&attempt) else { return };
        let Some(open) = self.calls.open.get_mut(&number) else { return };
        open.attempt = None;
        self.trace.event(self.queue.now(), 0x201, attempt);
        let next = conclude(open, answer, &self.layout.regions[open.asked.0].end_key);
        self.go_on(number, next);
    }

    pub(super) fn gave_up(&mut self, attempt: u64) {
        let Some(number) = self.calls.attempts.remove(&attempt) else { return };
        let Some(open) = self.calls.open.get_mut(&number) else { return };
        open.attempt = None;
        self.trace.event(self.queue.now(), 0x202, attempt);
        let next = after_silence(open);
        self.go_on(number, next);
    }

    fn go_on(&mut self, number: u64, next: Next) {
        let now = self.queue.now();
        let stores = self.processes.len();
        let Some(open) = self.calls.open.get(&number) else { return };
        let (region, store) = open.asked;
        let key = (open.client, region);
        match next {
            Next::Finish(outcome) => {
                self.calls.leaders.insert(key, store);
                self.finish(number, outcome);
            }
            Next::Again(leader) => {
                let late = open.options.deadline.is_some_and(|deadline| deadline <= now);
                if late && open.attempts >= open.options.attempts_min {
                    let unknown = open.tainted && !open.call.is_read();
                    return self
                        .finish(number, if unknown { Outcome::Unknown } else { Outcome::Failed });
                }
                let unchanged = leader == Some(store);
                let leader = leader.filter(|_| !unchanged);
                self.calls.leaders.insert(key, leader.unwrap_or((store + 1) % stores));
                if unchanged {
                    self.calls.leaders.insert(key, store);
                }
                let tick = self.knobs.tick;
                let delay = match leader {
                    Some(_) => Nanos::micros(1),
                    None => self.calls.rng.span(Nanos(tick.0 / 4), tick.times(2)),
                };
                self.queue.after(delay, Event::Retry { call: number });
            }
        }
    }

    fn finish(&mut self, number: u64, outcome: Outcome) {
        let Some(open) = self.calls.open.remove(&number) else { return };
        if let Some(attempt) = open.attempt {
            self.calls.attempts.remove(&attempt);
        }
        let OpenCall { client, call, invoked, .. } = open;
        if self.calls.record {
            self.recorder.finish(client, invoked, &call, &outcome, &self.layout.keys);
        }
        let now = self.queue.now();
        self.trace.event(now, 0x203, number);
        self.trace.line(now, |line| {
            line.push_str(&format!(
                "c{client} {invoked} {} → {outcome:?}  ({call:?})",
                call.name()
            ));
        });
        self.notices.push_back(Notice::Done { client, call, outcome });
    }
}

fn ask_what(open: &OpenCall, cf: RawCf, region_end: &Bytes) -> AskWhat {
    let write_all = |mutations| AskWhat::Write(Request::Mutate { mutations, session: None });
    let write =
        |mutation, session| AskWhat::Write(Request::Mutate { mutations: vec![mutation], session });
    match open.call.clone() {
        Call::Put { key, value, session } => write(Mutation::Put { cf, key, value }, session),
        Call::PutMany { pairs } => {
            let puts = pairs.into_iter().map(|(key, value)| Mutation::Put { cf, key, value });
            write_all(puts.collect())
        }
        Call::Delete { key } => write(Mutation::Delete { cf, key }, None),
        Call::DeleteRange { start, end } => write(Mutation::DeleteRange { cf, start, end }, None),
        Call::Append { key, value, session } => {
            write(Mutation::Append { cf, key, value }, Some(session))
        }
        Call::OpenSession { client, .. } => AskWhat::Write(Request::OpenSession { client }),
        Call::Get { key } => AskWhat::Get(key),
        Call::Scan { end, .. } => {
            let stop = if !region_end.is_empty() && (end.is_empty() || *region_end < end) {
                region_end.clone()
            } else {
                end
            };
            AskWhat::Scan(open.scan_from.clone(), stop)
        }
    }
}

fn conclude(open: &mut OpenCall, answer: Answer, region_end: &Bytes) -> Next {
    match answer {
        Answer::Wrote(WriteResult::Applied | WriteResult::Appended { .. }) => {
            Next::Finish(Outcome::Written)
        }
        Answer::Wrote(refusal) => Next::Finish(Outcome::Refused(refusal)),
        Answer::Value(value) => Next::Finish(Outcome::Value(value)),
        Answer::Pairs(pairs) => {
            open.pairs.extend(pairs);
            let Call::Scan { end, .. } = &open.call else { return Next::Finish(Outcome::Failed) };
            if region_end.is_empty() || (!end.is_empty() && end <= region_end) {
                return Next::Finish(Outcome::Pairs(std::mem::take(&mut open.pairs)));
            }
            open.scan_from = region_end.clone();
            Next::Again(Some(open.asked.1))
        }
        Answer::Unreachable => Next::Again(None),
        Answer::Error(error) => after_error(open, error),
    }
}

fn after_error(open: &mut OpenCall, error: RegionError) -> Next {
    match error {
        RegionError::NotLeader { leader, .. } => {
            Next::Again(leader.map(|peer| store_place(peer.store_id)))
        }
        RegionError::StaleCommand | RegionError::StoreStopped { .. } => after_silence(open),
        RegionError::RegionNotFound { .. }
        | RegionError::ReadIndexNotReady { .. }
        | RegionError::RegionNotInitialized { .. }
        | RegionError::StoreNotMatch { .. }
        | RegionError::MismatchPeerId { .. }
        | RegionError::KeyNotInRegion { .. }
        | RegionError::EpochNotMatch { .. } => Next::Again(None),
        RegionError::RaftEntryTooLarge { .. } => Next::Finish(Outcome::Failed),
    }
}

/// Nobody said whether it took effect.
fn after_silence(open: &mut OpenCall) -> Next {
    open.tainted = true;
    if open.call.is_repeatable() || open.options.repeat_writes {
        Next::Again(None)
    } else {
        Next::Finish(Outcome::Unknown)
    }
}

//! Clients' calls: which store is asked, and what is tried again. What an answer means is in [`super::outcome`].
//!
//! Each client knows regions by the cache of the real client, which goes stale and is healed by the stores' errors and by
//! asking the scheduler.

use super::Cluster;
use super::outcome::{Next, after_silence, conclude};
use crate::checkers::Moment;
use crate::sim::call::{Call, Outcome};
use crate::sim::event::{Answer, Ask, AskWhat, Event, StoreEvent};
use crate::sim::knobs::{Knobs, ReadMode};
use crate::sim::layout::{store_id, store_place};
use crate::sim::rng::Rng;
use crate::sim::scheduler::{Asker, Consult, Question};
use crate::sim::time::Nanos;
use bytes::Bytes;
use client::core::cache::RegionCache;
use proto::ids::RegionId;
use proto::metapb;
use raftstore::command::{Mutation, Request};
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

/// What an attempt was for.
#[derive(Clone, Debug, Default)]
pub(super) enum Asked {
    /// Nothing yet.
    #[default]
    Nobody,
    /// The scheduler, where the next key is.
    Scheduler,
    /// A store, about this region.
    Store(usize, metapb::Region),
}

pub(super) struct OpenCall {
    pub(super) client: u64,
    pub(super) call: Call,
    pub(super) options: CallOptions,
    invoked: Moment,
    pub(super) attempts: u32,
    /// The attempt that is waited for.
    attempt: Option<u64>,
    pub(super) asked: Asked,
    /// Some attempt of a write may have taken effect.
    pub(super) tainted: bool,
    /// The session must be opened first.
    pub(super) open_session: bool,
    /// Where it goes on, if it reaches over several regions.
    pub(super) cursor: Bytes,
    pub(super) pairs: Vec<(Bytes, Bytes)>,
}

/// The clients' side.
pub(in crate::sim) struct Calls {
    pub(super) rng: Rng,
    pub(super) open: BTreeMap<u64, OpenCall>,
    pub(super) attempts: BTreeMap<u64, u64>,
    counter: u64,
    /// What each client knows of the regions.
    pub(super) caches: BTreeMap<u64, RegionCache>,
    /// Timestamps asked for, by attempt: what was known then.
    pub(super) timestamps: BTreeMap<u64, u64>,
    /// Which node of the scheduler's is asked.
    pub(super) adviser: usize,
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
            caches: BTreeMap::new(),
            timestamps: BTreeMap::new(),
            adviser: 0,
            record,
            read_mode: knobs.read_mode,
            attempt_timeout: knobs.election_timeout().times(3).max(Nanos::millis(200)),
            astray_per_mille: if record { knobs.astray_per_mille } else { 0 },
            hasty: record && knobs.hasty,
        }
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

impl Cluster {
    /// Starts a call. [`Notice::Done`] ends it.
    pub fn submit(&mut self, client: u64, call: Call, options: CallOptions) {
        let invoked = self.recorder.moment();
        let number = self.calls.next_number();
        let cursor = call.key().clone();
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
            asked: Asked::Nobody,
            tainted: false,
            open_session: false,
            cursor,
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

    /// Makes the next attempt of a call: at the store that the client believes to lead the region of the key, or at the
    /// scheduler if it knows no such region.
    pub(super) fn attempt(&mut self, number: u64) {
        let now = client::core::Instant(self.queue.now().0);
        let calls = &mut self.calls;
        let Some(open) = calls.open.get_mut(&number) else { return };
        open.attempts += 1;
        let cache = calls.caches.entry(open.client).or_default();
        let route = cache.locate(&open.cursor);
        let route = route.and_then(|route| (!route.wants_refresh(now)).then(|| route.clone()));
        match route {
            Some(route) if open.call.fits(&route.region) => {
                self.ask_store(number, route.region, route.leader);
            }
            Some(_) => {
                // The keys have been parted.
                let outcome = if open.tainted { Outcome::Unknown } else { Outcome::Failed };
                self.finish(number, outcome);
            }
            None => self.locate(number),
        }
    }

    fn begin_attempt(&mut self, number: u64, asked: Asked) -> u64 {
        let attempt = self.calls.next_number();
        if let Some(open) = self.calls.open.get_mut(&number) {
            open.attempt = Some(attempt);
            open.asked = asked;
            self.calls.attempts.insert(attempt, number);
        }
        attempt
    }

    fn locate(&mut self, number: u64) {
        let Some(key) = self.calls.open.get(&number).map(|open| open.cursor.clone()) else {
            return;
        };
        let node = self.adviser();
        let attempt = self.begin_attempt(number, Asked::Scheduler);
        self.question(attempt, node, Question::Locate(key));
        self.queue.after(self.calls.attempt_timeout, Event::GiveUp { attempt });
    }

    /// The scheduler's node that clients ask.
    pub(super) fn adviser(&self) -> usize {
        let nodes = self.nodes();
        nodes.start + self.calls.adviser % nodes.len().max(1)
    }

    /// Sends a client's question to a node of the scheduler's.
    pub(super) fn question(&mut self, attempt: u64, node: usize, question: Question) {
        let delay = self.client_delay();
        let consult = Box::new(Consult { from: Asker::Client(attempt), question });
        let event = StoreEvent::Consult(consult);
        self.queue.after(delay, Event::Store { store: node, life: None, event });
    }

    fn ask_store(&mut self, number: u64, region: metapb::Region, leader: Option<metapb::Peer>) {
        let calls = &mut self.calls;
        let Some(open) = calls.open.get_mut(&number) else { return };
        // Some calls go astray: to whoever led before, or never did.
        let leader = leader.filter(|_| !calls.rng.chance(calls.astray_per_mille));
        let peer = leader.unwrap_or_else(|| *calls.rng.pick(&region.peers));
        let store = store_place(peer.store_id);
        let lease = match calls.read_mode {
            ReadMode::Lease => true,
            ReadMode::ReadIndex => false,
            ReadMode::Mixed => calls.rng.chance(500),
        };
        let what = ask_what(open, self.cf, &region);
        let is_plain_put = matches!(open.call, Call::Put { session: None, .. });
        let mut header =
            RequestHeader::new(RegionId::from(region.id), region.region_epoch.unwrap_or_default());
        header.store = Some(store_id(store));
        if calls.rng.chance(500) {
            header.peer = Some(peer.id.into());
        }
        let attempt = self.begin_attempt(number, Asked::Store(store, region));
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

    pub(super) fn answered(
        &mut self,
        attempt: u64,
        answer: Answer,
    ) -> Result<(), crate::sim::invariants::Broken> {
        if let Some((direct, slot)) = &mut self.direct
            && *direct == attempt
        {
            *slot = Some(answer);
            return Ok(());
        }
        if self.plans.contains_key(&attempt) {
            self.told_ids(attempt, &answer);
            return Ok(());
        }
        if self.calls.timestamps.contains_key(&attempt) {
            return self.told_timestamps(attempt, &answer);
        }
        let Some(number) = self.calls.attempts.remove(&attempt) else { return Ok(()) };
        let Some(open) = self.calls.open.get_mut(&number) else { return Ok(()) };
        open.attempt = None;
        let (now, client) = (self.queue.now(), open.client);
        self.trace.event(now, 0x201, attempt);
        if matches!(answer, Answer::Error(_) | Answer::Located(_) | Answer::Unreachable) {
            let asked = &open.asked;
            self.trace.line(now, |line| {
                line.push_str(&format!("c{client} attempt of {number}: {answer:?} from {asked:?}"));
            });
        }
        let cache = self.calls.caches.entry(open.client).or_default();
        let next = conclude(open, cache, answer);
        self.go_on(number, next);
        Ok(())
    }

    pub(super) fn gave_up(&mut self, attempt: u64) {
        self.calls.timestamps.remove(&attempt);
        self.plans.remove(&attempt);
        let Some(number) = self.calls.attempts.remove(&attempt) else { return };
        let Some(open) = self.calls.open.get_mut(&number) else { return };
        open.attempt = None;
        self.trace.event(self.queue.now(), 0x202, attempt);
        let cache = self.calls.caches.entry(open.client).or_default();
        let next = after_silence(open, cache);
        self.go_on(number, next);
    }

    fn go_on(&mut self, number: u64, next: Next) {
        let now = self.queue.now();
        let Some(open) = self.calls.open.get(&number) else { return };
        let soon = match next {
            Next::Finish(outcome) => return self.finish(number, outcome),
            Next::AtOnce => true,
            Next::Later => false,
            Next::OtherNode(hint) => {
                let nodes = self.nodes();
                let next = (self.calls.adviser + 1) % nodes.len().max(1);
                self.calls.adviser = hint.map_or(next, |hint| hint - nodes.start);
                false
            }
        };
        let late = open.options.deadline.is_some_and(|deadline| deadline <= now);
        if late && open.attempts >= open.options.attempts_min {
            let unknown = open.tainted && !open.call.is_read();
            return self.finish(number, if unknown { Outcome::Unknown } else { Outcome::Failed });
        }
        let tick = self.knobs.tick;
        let delay = match soon {
            true => Nanos::micros(1),
            false => self.calls.rng.span(Nanos(tick.0 / 4), tick.times(2)),
        };
        self.queue.after(delay, Event::Retry { call: number });
    }

    pub(super) fn finish(&mut self, number: u64, outcome: Outcome) {
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

fn ask_what(open: &OpenCall, cf: RawCf, region: &metapb::Region) -> AskWhat {
    let write_all = |mutations, session| AskWhat::Write(Request::Mutate { mutations, session });
    let write = |mutation, session| write_all(vec![mutation], session);
    if let (true, Some(session)) = (open.open_session, open.call.session()) {
        return AskWhat::Write(Request::OpenSession { client: session.client });
    }
    let stop = |end: Bytes| {
        let cut = !region.end_key.is_empty() && (end.is_empty() || region.end_key < end);
        if cut { region.end_key.clone() } else { end }
    };
    match open.call.clone() {
        Call::Put { key, value, session } => write(Mutation::Put { cf, key, value }, session),
        Call::PutMany { pairs } => {
            let puts = pairs.into_iter().map(|(key, value)| Mutation::Put { cf, key, value });
            write_all(puts.collect(), None)
        }
        Call::Delete { key } => write(Mutation::Delete { cf, key }, None),
        Call::DeleteRange { end, .. } => {
            write(Mutation::DeleteRange { cf, start: open.cursor.clone(), end: stop(end) }, None)
        }
        Call::Append { key, value, session } => {
            write(Mutation::Append { cf, key, value }, Some(session))
        }
        Call::Get { key } => AskWhat::Get(key),
        Call::Scan { end, .. } => AskWhat::Scan(open.cursor.clone(), stop(end)),
    }
}

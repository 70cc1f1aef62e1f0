//! One request to one region, driven until it has an outcome.
//!
//! A `Call` is a step machine: `poll` says what to do next, the driver does it and hands the result to the matching `on_…`
//! method, then polls again. The driver is the gRPC half of this crate, or a simulator.
//!
//! Life of a write: poll → `Ask(Region)` (only if the cache does not know) → poll → `Ask(ClientIds)`, `Send(OpenSession)`
//! (only if no session is idle) → poll → `Send(Write, session)` → `on_attempt(Ok)` → poll → `Done`.
//!
//! Invariants: 1. a write that has an ambiguous attempt behind it is only ever repeated under the same session of the same
//! region; if that cannot be, it ends as `Undetermined`. 2. A plain write is never repeated after an ambiguous attempt. 3. A
//! session goes back to the pool only when all attempts under its sequence are known. 4. Nothing is sent twice without a
//! wait in between, but for a bounded number of hints.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use proto::ids::{RegionId, StoreId};
use proto::metapb::{Peer, PeerRole, Region, RegionEpoch};

use super::backoff::{Backoff, Jitter};
use super::cache::RegionCache;
use super::classify::{Action, Effect, classify};
use super::request::{Anchor, Attempt, Body, Reply, Request, Send};
use super::session::{Session, SessionPool};
use super::time::Instant;
use crate::error::{Error, Result};

/// Attempts without a wait in between, after answers that say better where to go.
const HINTS_MAX: u32 = 3;

/// Times and limits of calls.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A call gives up after this.
    pub budget: Duration,
    /// An attempt that may be repeated gives up after this.
    pub attempt_timeout: Duration,
    /// The first wait between attempts.
    pub backoff_min: Duration,
    /// The longest wait between attempts.
    pub backoff_max: Duration,
    /// How long a store that did not answer is avoided where another may do.
    pub suspicion: Duration,
    /// Whether a retried write can be applied twice.
    pub write_mode: WriteMode,
}

/// What retries mean for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Writes go under a session: retried as long as needed, applied once.
    ExactlyOnce,
    /// Writes go without a session: never repeated once they may have been applied, so a lost answer is `Undetermined`.
    Plain,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            budget: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(4),
            backoff_max: Duration::from_millis(100),
            suspicion: Duration::from_millis(300),
            write_mode: WriteMode::ExactlyOnce,
        }
    }
}

/// What all calls of a client share.
#[derive(Debug)]
pub struct Core {
    /// Known regions.
    pub regions: RegionCache,
    /// Open sessions.
    pub sessions: SessionPool,
    /// Times and limits.
    pub settings: Settings,
    suspects: Suspects,
    jitter: Jitter,
}

impl Core {
    /// An empty core; `seed` decides the jitter of the waits.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Core {
            regions: RegionCache::default(),
            sessions: SessionPool::default(),
            settings,
            suspects: Suspects::default(),
            jitter: Jitter::new(seed),
        }
    }
}

impl Core {
    /// The next wait of `backoff`, with the core's jitter.
    pub fn delay(&mut self, backoff: &mut Backoff) -> Duration {
        backoff.delay(&mut self.jitter)
    }
}

/// Stores that did not answer lately, and until when each is avoided.
#[derive(Debug, Default)]
struct Suspects(BTreeMap<StoreId, Instant>);

impl Suspects {
    fn holds(&self, peer: &Peer, now: Instant) -> bool {
        self.0.get(&StoreId::from(peer.store_id)).is_some_and(|until| now < *until)
    }

    /// The believed leader, or else the voters in turn, those that answered lately first.
    fn choose(&self, peers: &[Peer], leader: Option<Peer>, turn: usize, now: Instant) -> Peer {
        if let Some(leader) = leader
            && !self.holds(&leader, now)
        {
            return leader;
        }
        let is_candidate =
            |peer: &&Peer| peer.role != PeerRole::Learner as i32 && !self.holds(peer, now);
        match peers.iter().filter(is_candidate).count() {
            0 => peers[turn % peers.len()],
            n => *peers.iter().filter(is_candidate).nth(turn % n).expect("counted"),
        }
    }
}

/// What the driver does next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Ask the scheduler, then `on_region` or `on_client_ids`.
    Ask(Question),
    /// Send to a store, then `on_attempt`.
    Send(Send),
    /// Poll again at that time.
    Wait(Instant),
    /// The request spans several regions now: split it again. Nothing of it was applied.
    Regroup,
    /// The outcome.
    Done(Result<Reply>),
}

/// What only the scheduler knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which region is there, and who leads it?
    Region(Anchor),
    /// A range of ids nobody has used.
    ClientIds,
}

/// One request on its way.
#[derive(Debug)]
pub struct Call {
    request: Arc<Request>,
    mode: WriteMode,
    budget: Duration,
    deadline: Instant,
    backoff: Backoff,
    wait_until: Option<Instant>,
    hints: u32,
    turn: usize,
    session: Option<Session>,
    opening: Option<(RegionId, u64)>,
    sent: Option<(RegionId, Peer)>,
    ambiguous: Option<String>,
    reached: bool,
    last_failure: Cow<'static, str>,
    outcome: Option<Result<Reply>>,
}

impl Call {
    /// A call that starts now.
    pub fn new(request: Arc<Request>, settings: &Settings, now: Instant) -> Self {
        // An append that may be applied twice is of no use to anybody.
        let mode = if request.appends() { WriteMode::ExactlyOnce } else { settings.write_mode };
        Call {
            request,
            mode,
            budget: settings.budget,
            deadline: now + settings.budget,
            backoff: Backoff::new(settings.backoff_min, settings.backoff_max),
            wait_until: None,
            hints: 0,
            turn: 0,
            session: None,
            opening: None,
            sent: None,
            ambiguous: None,
            reached: false,
            last_failure: Cow::Borrowed("nothing was tried"),
            outcome: None,
        }
    }

    /// The same call for a part of the request, within the same budget.
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = deadline;
        self
    }

    /// What to do next.
    pub fn poll(&mut self, core: &mut Core, now: Instant) -> Step {
        assert!(self.sent.is_none(), "polled while an attempt is out");
        if self.outcome.is_none() && now >= self.deadline {
            self.expire(core);
        }
        if let Some(outcome) = self.outcome.take() {
            return Step::Done(outcome);
        }
        if let Some(until) = self.wait_until {
            if now < until {
                return Step::Wait(until.min(self.deadline));
            }
            self.wait_until = None;
            self.hints = 0;
        }
        self.route(core, now)
    }

    fn route(&mut self, core: &mut Core, now: Instant) -> Step {
        let anchor = self.request.anchor();
        let Some(route) = anchor.locate(&mut core.regions) else {
            return Step::Ask(Question::Region(anchor));
        };
        if route.wants_refresh(now) {
            return Step::Ask(Question::Region(anchor));
        }
        let region = route.id();
        let moved = self.session.as_ref().is_some_and(|session| session.region != region);
        let fits = self.request.fits(route);
        if let Some(reason) = &self.ambiguous
            && (moved || !fits)
        {
            let outcome =
                Error::Undetermined(format!("{reason}; then the region was split or merged"));
            return Step::Done(Err(outcome));
        }
        if moved {
            core.sessions.put_back(self.session.take().expect("checked above"));
        }
        if !fits {
            self.give_back_session(core);
            return Step::Regroup;
        }
        self.address(core, anchor, now)
    }

    /// Sends to a peer of the region, which is known.
    fn address(&mut self, core: &mut Core, anchor: Anchor, now: Instant) -> Step {
        let Core { regions, suspects, .. } = core;
        let route = anchor.locate(regions).expect("located by the caller");
        let (region, epoch) = (route.id(), route.epoch);
        let peer = suspects.choose(&route.region.peers, route.leader, self.turn, now);

        if self.request.is_write() && self.mode == WriteMode::ExactlyOnce && self.session.is_none()
        {
            self.session = core.sessions.take(region);
        }
        let body = match (&self.session, self.mode) {
            (Some(session), _) => self.body(Some((session.client_id, session.next_sequence))),
            (None, WriteMode::ExactlyOnce) if self.request.is_write() => {
                if self.opening.is_none_or(|(opened_in, _)| opened_in != region) {
                    let Some(client_id) = core.sessions.next_client_id() else {
                        return Step::Ask(Question::ClientIds);
                    };
                    self.opening = Some((region, client_id));
                }
                let (_, client_id) = self.opening.expect("set above");
                Body::OpenSession { client_id }
            }
            (None, _) => self.body(None),
        };
        let timeout = self.attempt_timeout(core, &body, now);
        self.dispatch(region, epoch, peer, body, timeout)
    }

    fn body(&self, session: Option<(u64, u64)>) -> Body {
        Body::Request { request: Arc::clone(&self.request), session }
    }

    /// An attempt that cannot be repeated gets all the time there is.
    fn attempt_timeout(&self, core: &Core, body: &Body, now: Instant) -> Duration {
        let left = self.deadline.since(now);
        match body {
            Body::Request { request, session: None } if request.is_write() => left,
            _ => core.settings.attempt_timeout.min(left),
        }
    }

    fn dispatch(
        &mut self,
        region: RegionId,
        epoch: RegionEpoch,
        peer: Peer,
        body: Body,
        timeout: Duration,
    ) -> Step {
        self.sent = Some((region, peer));
        Step::Send(Send { region, epoch, peer, body, timeout })
    }

    /// The scheduler's answer to `Question::Region`: the region and its leader, or nothing for a hole in the key space.
    pub fn on_region(
        &mut self,
        core: &mut Core,
        now: Instant,
        answer: std::result::Result<Option<(Region, Option<Peer>)>, String>,
    ) {
        match answer {
            Ok(Some((region, leader))) => {
                self.reached = true;
                core.regions.insert(region, leader);
                if self.request.anchor().locate(&mut core.regions).is_none() {
                    self.wait(core, now, "the scheduler's regions do not cover the key");
                }
            }
            Ok(None) => {
                self.reached = true;
                self.wait(core, now, "the scheduler knows no region for the key");
            }
            // Without the scheduler, what we know has to do.
            Err(reason) if self.request.anchor().locate(&mut core.regions).is_some() => {
                self.last_failure = reason.into();
            }
            Err(reason) => self.wait(core, now, reason),
        }
    }

    /// The scheduler's answer to `Question::ClientIds`.
    pub fn on_client_ids(
        &mut self,
        core: &mut Core,
        now: Instant,
        answer: std::result::Result<Range<u64>, String>,
    ) {
        match answer {
            Ok(ids) if !ids.is_empty() => core.sessions.add_client_ids(ids),
            Ok(_) => self.wait(core, now, "the scheduler gave out no ids"),
            Err(reason) => self.wait(core, now, reason),
        }
    }

    /// How the attempt of the last `Step::Send` ended.
    pub fn on_attempt(&mut self, core: &mut Core, now: Instant, attempt: Attempt) {
        let (region, peer) = self.sent.take().expect("an attempt is out");
        let store = StoreId::from(peer.store_id);
        if !matches!(attempt, Attempt::Lost { .. }) {
            self.reached = true;
            core.suspects.0.remove(&store);
        }
        match attempt {
            Attempt::Ok(reply) => {
                core.regions.set_leader(region, peer);
                self.on_success(core, region, reply);
            }
            Attempt::RegionError(error) => {
                let verdict = classify(*error);
                self.last_failure = verdict.reason.clone().into();
                if verdict.effect == Effect::Ambiguous && self.lose_track(&verdict.reason) {
                    return;
                }
                self.act(core, now, (region, store), verdict.action);
            }
            Attempt::SessionExpired => self.on_session_expired(core, now, region),
            Attempt::StaleSequence => {
                self.session = None;
                let reason = "the region has seen a later write of the session";
                self.finish(Err(Error::Undetermined(reason.to_owned())));
            }
            Attempt::Refused(reason) => self.refuse(core, reason),
            Attempt::Lost { sent, reason } => {
                core.suspects.0.insert(store, now + core.settings.suspicion);
                core.regions.unset_leader(region, store);
                core.regions.doubt(region);
                self.last_failure = format!("store {store}: {reason}").into();
                if sent && self.lose_track(&reason) {
                    return;
                }
                self.wait_at_least(core, now, Duration::ZERO);
            }
        }
    }

    fn on_success(&mut self, core: &mut Core, region: RegionId, reply: Reply) {
        if let Some((opened_in, client_id)) = self.opening.take() {
            assert_eq!(opened_in, region, "a session was opened in another region");
            self.session = Some(Session { region, client_id, next_sequence: 1 });
            self.backoff.reset();
            return;
        }
        if let Some(session) = &mut self.session {
            session.next_sequence += 1;
        }
        self.ambiguous = None;
        self.give_back_session(core);
        self.finish(Ok(reply));
    }

    fn on_session_expired(&mut self, core: &mut Core, now: Instant, region: RegionId) {
        self.session = None;
        core.sessions.forget(region);
        match self.ambiguous.take() {
            Some(reason) => {
                let reason = format!("{reason}; then the session expired");
                self.finish(Err(Error::Undetermined(reason)));
            }
            None if self.opening.take().is_some() => {
                self.wait(core, now, "the session was not opened")
            }
            None => {
                self.last_failure = "the session expired".into();
                self.retry_soon(core, now);
            }
        }
    }

    fn refuse(&mut self, core: &mut Core, reason: String) {
        match self.ambiguous.take() {
            Some(first) => {
                self.session = None;
                self.finish(Err(Error::Undetermined(format!("{first}; then: {reason}"))));
            }
            None => {
                self.give_back_session(core);
                self.finish(Err(Error::Refused(reason)));
            }
        }
    }

    /// An attempt may have been applied. True if the call ends with that.
    fn lose_track(&mut self, reason: &str) -> bool {
        // An opening that got lost may arrive late and wake up a session that the region has forgotten, and with it
        // copies of its writes. So an id is in use only if its one opening was answered.
        if self.opening.take().is_some() || !self.request.is_write() {
            return false;
        }
        if self.mode == WriteMode::Plain {
            self.finish(Err(Error::Undetermined(reason.to_owned())));
            return true;
        }
        self.ambiguous.get_or_insert_with(|| reason.to_owned());
        false
    }

    /// Does what a region error asks for: `from` is the region and the store that sent it.
    fn act(&mut self, core: &mut Core, now: Instant, from: (RegionId, StoreId), action: Action) {
        let (region, store) = from;
        match action {
            Action::FollowLeader(leader) => {
                core.regions.unset_leader(region, store);
                let suspect = core.suspects.holds(&leader, now);
                let known = core.regions.set_leader(region, leader);
                if !known {
                    core.regions.doubt(region);
                }
                if suspect || !known {
                    self.wait_at_least(core, now, Duration::ZERO);
                } else {
                    self.retry_soon(core, now);
                }
            }
            Action::TryAnother => {
                core.regions.unset_leader(region, store);
                // After a round of peers that know no leader, the scheduler may know of other peers.
                if self.turn % 4 == 3 {
                    core.regions.doubt(region);
                }
                self.wait_at_least(core, now, Duration::ZERO);
            }
            Action::AdoptRegions(regions) => {
                let adopted = regions.into_iter().filter(|r| core.regions.insert(r.clone(), None));
                if adopted.count() == 0 {
                    core.regions.doubt(region);
                }
                self.retry_soon(core, now);
            }
            Action::Refresh => {
                core.regions.unset_leader(region, store);
                core.regions.doubt(region);
                self.wait_at_least(core, now, Duration::ZERO);
            }
            Action::Wait(pause) => self.wait_at_least(core, now, pause),
            Action::Fail => {
                let reason = self.last_failure.clone().into_owned();
                self.refuse(core, reason);
            }
        }
    }

    /// Tries again without a wait, but not for ever: two stores may contradict each other.
    fn retry_soon(&mut self, core: &mut Core, now: Instant) {
        self.hints += 1;
        if self.hints > HINTS_MAX {
            self.wait_at_least(core, now, Duration::ZERO);
        }
    }

    fn wait(&mut self, core: &mut Core, now: Instant, reason: impl Into<Cow<'static, str>>) {
        self.last_failure = reason.into();
        self.wait_at_least(core, now, Duration::ZERO);
    }

    fn wait_at_least(&mut self, core: &mut Core, now: Instant, pause: Duration) {
        self.turn += 1;
        let delay = core.delay(&mut self.backoff);
        self.wait_until = Some(now + delay.max(pause));
    }

    fn expire(&mut self, core: &mut Core) {
        let last = std::mem::take(&mut self.last_failure).into_owned();
        if let Some(reason) = self.ambiguous.take() {
            self.session = None;
            let reason = format!("{reason}; no answer within {:?}", self.budget);
            self.finish(Err(Error::Undetermined(reason)));
            return;
        }
        self.give_back_session(core);
        let error = match self.reached {
            true => Error::Timeout { budget: self.budget, last },
            false => Error::Unreachable(last),
        };
        self.finish(Err(error));
    }

    fn give_back_session(&mut self, core: &mut Core) {
        assert!(self.ambiguous.is_none(), "a session with an open question went back");
        if let Some(session) = self.session.take() {
            core.sessions.put_back(session);
        }
    }

    fn finish(&mut self, outcome: Result<Reply>) {
        self.outcome = Some(outcome);
    }
}

#[cfg(test)]
#[path = "call/tests.rs"]
mod tests;

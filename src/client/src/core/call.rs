//! One request to one region, driven until it has an outcome.
//!
//! A `Call` is a step machine: `poll` says what to do next, the driver does it and hands the result to the matching `on_…`
//! method, then polls again. The driver is the gRPC half of this crate, or a simulator.
//!
//! Life of a write: poll → `Ask(Region)` (only if the cache does not know) → poll → `Ask(ClientIds)`, `Send(OpenSession)`
//! (only if no idle lane is known to the region) → poll → `Send(Write, session)` → `on_attempt(Ok)` → poll → `Done`.
//!
//! Invariants: 1. a write that has an ambiguous attempt behind it is only ever repeated under the same lane and sequence,
//! and never opens the lane anew; it follows its keys from region to region as long as they stay together, and otherwise ends
//! as `Undetermined`. 2. A plain write is never repeated after an ambiguous attempt. 3. A lane goes back to the pool only
//! when all attempts under its sequence are known, and then never uses that sequence again. 4. Nothing is sent twice
//! without a wait in between, but for a bounded number of hints.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use proto::ids::{RegionId, StoreId};
use proto::metapb::{Peer, Region, RegionEpoch};

use super::backoff::Backoff;
use super::classify::{Action, Effect, classify};
use super::lane::Lane;
use super::request::{Anchor, Attempt, Body, Reply, Request, Send};
use super::state::{Core, Settings, WriteMode};
use super::time::Instant;
use crate::error::{Error, Result};

/// Attempts without a wait in between, after answers that say better where to go.
const HINTS_MAX: u32 = 3;

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
    lane: Option<Lane>,
    /// Where the lane is being opened.
    opening: Option<RegionId>,
    /// Where the lane's sequence was sent to last.
    used_in: Option<RegionId>,
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
            lane: None,
            opening: None,
            used_in: None,
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
        if self.request.fits(route) {
            return self.address(core, anchor, now);
        }
        if let Some(reason) = self.ambiguous.take() {
            self.retire_lane(core);
            let outcome = format!("{reason}; then the region was split between the keys");
            return Step::Done(Err(Error::Undetermined(outcome)));
        }
        self.give_back_lane(core);
        Step::Regroup
    }

    /// Sends to a peer of the region, which is known.
    fn address(&mut self, core: &mut Core, anchor: Anchor, now: Instant) -> Step {
        let Core { regions, suspects, .. } = core;
        let route = anchor.locate(regions).expect("located by the caller");
        let (region, epoch) = (route.id(), route.epoch);
        let peer = suspects.choose(&route.region.peers, route.leader, self.turn, now);
        let body = if !self.request.is_write() || self.mode == WriteMode::Plain {
            self.body(None)
        } else {
            if !self.has_lane_for(core, region) {
                return Step::Ask(Question::ClientIds);
            }
            self.body_in_lane(core, region)
        };
        let timeout = self.attempt_timeout(core, &body, now);
        self.dispatch(region, epoch, peer, body, timeout)
    }

    /// Picks a lane for the region, or keeps the one that it has to be. False: there is none without a new id.
    fn has_lane_for(&mut self, core: &mut Core, region: RegionId) -> bool {
        if let Some(lane) = &self.lane {
            let fits = self.ambiguous.is_some()
                || self.opening == Some(region)
                || core.lanes.is_known(lane.client_id, region);
            if fits {
                return true;
            }
            // The keys lie in another region by now.
            self.give_back_lane(core);
        }
        self.lane = core.lanes.take(region).or_else(|| core.lanes.take_for_opening());
        self.lane.is_some()
    }

    fn body_in_lane(&mut self, core: &Core, region: RegionId) -> Body {
        let lane = self.lane.as_ref().expect("picked by the caller");
        let (client_id, sequence) = (lane.client_id, lane.next_sequence);
        // Whatever became of the first attempt, the region that holds the keys now knows the lane, or has forgotten it.
        if self.ambiguous.is_some() || core.lanes.is_known(client_id, region) {
            // An opening that was refused elsewhere is of no interest any more.
            (self.opening, self.used_in) = (None, Some(region));
            return self.body(Some((client_id, sequence)));
        }
        self.opening = Some(region);
        Body::OpenSession { client_id }
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
                core.adopt([(region, leader)]);
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
        answer: std::result::Result<Vec<u64>, String>,
    ) {
        match answer {
            Ok(ids) if !ids.is_empty() => core.lanes.add_client_ids(ids),
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
            core.suspects.remove(store);
        }
        match attempt {
            Attempt::Ok(reply) => {
                core.regions.set_leader(region, peer);
                self.on_success(core, region, reply);
            }
            Attempt::RegionError(error) => {
                let verdict = classify(*error);
                self.last_failure = verdict.reason.clone().into();
                if verdict.effect == Effect::Ambiguous && self.lose_track(core, &verdict.reason) {
                    return;
                }
                self.act(core, now, (region, store), verdict.action);
            }
            Attempt::SessionExpired => self.on_session_expired(core, now, region),
            Attempt::StaleSequence => {
                self.retire_lane(core);
                let reason = "the region has seen a later write of the session";
                self.finish(Err(Error::Undetermined(reason.to_owned())));
            }
            Attempt::Refused(reason) => self.refuse(core, reason),
            Attempt::Lost { sent, reason } => {
                core.suspects.add(store, now + core.settings.suspicion);
                core.regions.unset_leader(region, store);
                core.regions.doubt(region);
                self.last_failure = format!("store {store}: {reason}").into();
                if sent && self.lose_track(core, &reason) {
                    return;
                }
                self.wait_at_least(core, now, Duration::ZERO);
            }
        }
    }

    fn on_success(&mut self, core: &mut Core, region: RegionId, reply: Reply) {
        if let Some(opened_in) = self.opening.take() {
            assert_eq!(opened_in, region, "a lane was opened in another region");
            let lane = self.lane.as_ref().expect("an opening is of a lane");
            core.lanes.opened(lane.client_id, region);
            self.backoff.reset();
            return;
        }
        self.ambiguous = None;
        if let Some(lane) = &self.lane {
            // A write in doubt goes where nobody has opened its lane; and where it has written, none is ever opened.
            core.lanes.opened(lane.client_id, region);
        }
        self.give_back_lane(core);
        self.finish(Ok(reply));
    }

    fn on_session_expired(&mut self, core: &mut Core, now: Instant, region: RegionId) {
        self.retire_lane(core);
        core.lanes.retire_all_at(region);
        match self.ambiguous.take() {
            Some(reason) => {
                let reason = format!("{reason}; then the session expired");
                self.finish(Err(Error::Undetermined(reason)));
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
                self.retire_lane(core);
                self.finish(Err(Error::Undetermined(format!("{first}; then: {reason}"))));
            }
            None => {
                self.give_back_lane(core);
                self.finish(Err(Error::Refused(reason)));
            }
        }
    }

    /// An attempt may have been applied. True if the call ends with that.
    fn lose_track(&mut self, core: &mut Core, reason: &str) -> bool {
        // An opening that got lost may arrive late and wake up a lane that the region has forgotten, and with it copies of
        // its writes. So that lane goes nowhere any more.
        if self.opening.is_some() {
            self.retire_lane(core);
            return false;
        }
        if !self.request.is_write() {
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
                if core.adopt(regions.into_iter().map(|region| (region, None))) == 0 {
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
            self.retire_lane(core);
            let reason = format!("{reason}; no answer within {:?}", self.budget);
            self.finish(Err(Error::Undetermined(reason)));
            return;
        }
        self.give_back_lane(core);
        let error = match self.reached {
            true => Error::Timeout { budget: self.budget, last },
            false => Error::Unreachable(last),
        };
        self.finish(Err(error));
    }

    /// Nobody waits for the call any more.
    pub fn abandon(&mut self, core: &mut Core) {
        self.retire_lane(core);
    }

    fn give_back_lane(&mut self, core: &mut Core) {
        assert!(self.ambiguous.is_none(), "a lane with an open question went back");
        self.opening = None;
        let used_in = self.used_in.take();
        if let Some(mut lane) = self.lane.take() {
            // Used up even if it was refused: the region may keep the refusal as the answer to it.
            lane.next_sequence += u64::from(used_in.is_some());
            core.lanes.put_back(lane, used_in);
        }
    }

    fn retire_lane(&mut self, core: &mut Core) {
        (self.opening, self.used_in) = (None, None);
        if let Some(lane) = self.lane.take() {
            core.lanes.retire(lane.client_id);
        }
    }

    fn finish(&mut self, outcome: Result<Reply>) {
        self.outcome = Some(outcome);
    }
}

#[cfg(test)]
#[path = "call/tests.rs"]
mod tests;

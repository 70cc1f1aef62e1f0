//! Runs a leadership: asks the replica for this member's role, does the tasks of [`Lead`], and gives the rest of the server
//! access to the core.
//!
//! Two locks. `lead` is held for moments, never across IO; readers and everything that needs no change take it alone.
//! `order` is held by a change from its decision to its application, so that changes are decided on what all earlier ones
//! left behind. Always `order` before `lead`.
//!
//! A change runs to its end even if the caller has gone away. Whatever was taken from the core is given out only after the
//! lead in the core's term has been confirmed: by the commit itself, by the lease, or by asking a quorum.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use proto::ids::StoreId;
use raft::Term;
use slog::{Logger, info, warn};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::members::Members;
use super::metrics::{Metrics, add};
use super::replica::{LoadError, Replica, Standing};
use super::roll;
use super::streams::Instructions;
use super::{Error, WallClock};
use crate::core::{self, Change, Scheduler, Timestamp, TimestampError};
use crate::journal;
use crate::lead::{self, Decision, Lead, Task};

/// Between looks at the role. A new leader says so itself; this is for the end of a lead and for changes elsewhere.
const ROLE_INTERVAL: Duration = Duration::from_millis(50);
/// A member not heard for this long takes no part.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a timestamp is tried again after its window was extended.
const TIMESTAMP_TRIES: usize = 3;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The core said no; nothing changed.
    #[error(transparent)]
    Core(#[from] core::Error),
    /// This member does not lead, or ceased to while it worked on this: what became of a change is unknown.
    #[error("this member does not lead the scheduler")]
    NotLeading,
    /// The scheduler no longer serves.
    #[error("{0}")]
    Stopped(String),
}

/// What this member is to those who ask it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It knows of no leader.
    Leaderless,
    /// Another member leads.
    Follows(StoreId),
    /// It leads, and is reading the state back.
    Begins(Term),
    /// It leads, and serves.
    Serves(Term),
    /// It has stopped, and why.
    Stopped(String),
}

pub(super) struct Driver {
    pub(super) members: Arc<Members>,
    pub(super) replica: Replica,
    pub(super) instructions: Instructions,
    pub(super) metrics: Metrics,
    clock: WallClock,
    lead: Mutex<Lead>,
    order: tokio::sync::Mutex<()>,
    standing: Mutex<Standing>,
    /// When each member was last known to take part.
    heard: Mutex<BTreeMap<StoreId, Instant>>,
    role: watch::Sender<Role>,
    cluster_id: OnceLock<u64>,
    /// Woken whenever regions may have become known.
    regions: Notify,
    /// Woken when the role should be looked at again.
    look: Notify,
    log: Logger,
}

impl Driver {
    pub(super) fn new(
        members: Arc<Members>,
        replica: Replica,
        lead: Lead,
        clock: WallClock,
        log: Logger,
    ) -> Driver {
        Driver {
            members,
            replica,
            instructions: Instructions::default(),
            metrics: Metrics::default(),
            clock,
            lead: Mutex::new(lead),
            order: tokio::sync::Mutex::new(()),
            standing: Mutex::default(),
            heard: Mutex::default(),
            role: watch::Sender::new(Role::Leaderless),
            cluster_id: OnceLock::new(),
            regions: Notify::new(),
            look: Notify::new(),
            log,
        }
    }

    // ---- the role -------------------------------------------------------------------------------

    /// Follows the replica's role until the driver stops. An error is final.
    pub(super) async fn follow(&self) -> Result<(), Error> {
        loop {
            let Some(standing) = self.replica.standing().await else {
                return Err(Error::Stopped("its store has stopped".to_owned()));
            };
            let task = self.lead.lock().observe(standing.leading);
            let now = Instant::now();
            self.heard.lock().extend(standing.active.iter().map(|member| (*member, now)));
            *self.standing.lock() = standing;
            self.publish();
            if let Some(task) = task {
                self.begin(task).await?;
                self.publish();
            }
            self.call_the_roll().await;
            // Keeps the lease, so that the first timestamp after a pause need not wait for a quorum.
            let serving = self.lead.lock().serving();
            serving.map(|term| self.replica.has_lease(term));
            tokio::select! {
                () = tokio::time::sleep(ROLE_INTERVAL) => {}
                () = self.replica.role_changed() => {}
                () = self.look.notified() => {}
            }
        }
    }

    /// Takes a leadership up: reads the state back, opens windows.
    async fn begin(&self, task: Task) -> Result<(), Error> {
        let Task::Load { term } = task else {
            unreachable!("observing a role asks for nothing else")
        };
        let records = match self.replica.load(term).await {
            Ok(records) => records,
            Err(LoadError::NotLed(error)) => {
                info!(self.log, "the lead went away"; "term" => term.0, "reason" => %error);
                self.lead.lock().not_loaded(term);
                return Ok(());
            }
            Err(LoadError::Journal(error)) => return Err(error.into()),
            Err(error @ LoadError::Broken(_)) => return Err(Error::Stopped(error.to_string())),
        };
        let count = records.len();
        let task = self.lead.lock().loaded(term, records, self.now_ms())?;
        let Some(task) = task else { return Ok(()) };
        if self.commit(task).await {
            add(&self.metrics.leads_begun, 1);
            info!(self.log, "this member leads the scheduler"; "term" => term.0, "records" => count);
        }
        Ok(())
    }

    /// Writes down the members that take part and are not written down yet. What fails is tried again.
    async fn call_the_roll(&self) {
        let Some(term) = self.lead.lock().serving() else { return };
        let mut news = self.standing.lock().holding.clone();
        news.retain(|member| matches!(self.replica.is_on_roll(*member), Ok(false)));
        if !news.is_empty() {
            info!(self.log, "members take part for the first time"; "members" => ?news);
            let _ = self.replica.write(term, roll::request(&news)).await;
        }
    }

    /// Carries a commit out; whether it succeeded and its change is applied.
    async fn commit(&self, task: Task) -> bool {
        let Task::Commit { term, request } = task else { unreachable!("a decision commits") };
        let outcome = self.replica.write(term, request).await;
        let applied = self.lead.lock().committed(term, &outcome, self.now_ms());
        if applied {
            add(&self.metrics.changes, 1);
            self.regions.notify_waiters();
        } else {
            add(&self.metrics.changes_lost, 1);
            warn!(self.log, "a change could not be committed"; "term" => term.0,
                "outcome" => ?outcome);
            self.publish();
            self.look.notify_one();
        }
        applied
    }

    /// Tells everybody what this member is now.
    fn publish(&self) {
        let lead = self.lead.lock();
        let standing = self.standing.lock();
        let role = match (lead.serving(), standing.leading, standing.leader) {
            (Some(term), ..) => Role::Serves(term),
            (None, Some(term), _) => Role::Begins(term),
            (None, None, Some(leader)) if leader != self.members.me() => Role::Follows(leader),
            (None, None, _) => Role::Leaderless,
        };
        if let Some(core) = lead.core() {
            self.cluster_id.get_or_init(|| core.cluster_id());
        }
        // Under both locks, so that an older role is never told after a newer one.
        self.role.send_if_modified(|told| {
            let news = *told != role && !matches!(told, Role::Stopped(_));
            if news {
                info!(self.log, "role"; "was" => ?told, "is" => ?role);
                *told = role;
            }
            news
        });
    }

    /// What this member is.
    pub(super) fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// The members that take part, as far as this one knows.
    pub(super) fn active(&self) -> Vec<StoreId> {
        let heard = self.heard.lock();
        let recent = heard.iter().filter(|(_, heard)| heard.elapsed() < SILENCE);
        recent.map(|(member, _)| *member).collect()
    }

    /// Ends all streams and refuses everything from here on. The first reason stays.
    pub(super) fn stop(&self, reason: &str) {
        self.role.send_if_modified(|role| {
            let first = !matches!(role, Role::Stopped(_));
            if first {
                *role = Role::Stopped(reason.to_owned());
            }
            first
        });
    }

    /// Resolves with the reason when the driver stops.
    pub(super) async fn stopped(&self) -> String {
        let mut role = self.role.subscribe();
        let stopped = role.wait_for(|role| matches!(role, Role::Stopped(_))).await;
        match stopped.as_deref() {
            Ok(Role::Stopped(reason)) => reason.clone(),
            _ => "the scheduler has ended".to_owned(),
        }
    }

    /// Why this member cannot answer now.
    fn refusal(&self) -> Refusal {
        match &*self.role.borrow() {
            Role::Stopped(reason) => Refusal::Stopped(reason.clone()),
            _ => Refusal::NotLeading,
        }
    }

    /// The cluster's id, if this member knows it.
    pub(super) fn cluster_id(&self) -> Result<Option<u64>, journal::JournalError> {
        if let Some(id) = self.cluster_id.get() {
            return Ok(Some(*id));
        }
        let known = self.replica.cluster_id()?;
        Ok(known.map(|id| *self.cluster_id.get_or_init(|| id)))
    }

    pub(super) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// How many regions and stores this member's core knows, if it serves.
    pub(super) fn sizes(&self) -> Option<(usize, usize)> {
        self.lead.lock().core().map(|core| (core.region_count(), core.stores().count()))
    }

    // ---- the core -------------------------------------------------------------------------------

    /// What needs no change: reads, heartbeats, ids and timestamps within their windows.
    pub(super) async fn step<R>(
        &self,
        step: impl FnOnce(&mut Scheduler, u64) -> R,
    ) -> Result<R, Refusal> {
        if matches!(&*self.role.borrow(), Role::Stopped(_)) {
            return Err(self.refusal());
        }
        let now_ms = self.now_ms();
        let stepped = self.lead.lock().step(|core| step(core, now_ms));
        let (term, answer) = stepped.map_err(|_| self.refusal())?;
        self.confirm(term).await?;
        Ok(answer)
    }

    async fn confirm(&self, term: Term) -> Result<(), Refusal> {
        self.replica.confirm(term).await.map_err(|_| {
            self.look.notify_one();
            self.refusal()
        })
    }

    /// Decides, commits, applies, answers.
    pub(super) async fn change<R: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut Scheduler, u64) -> Result<(Change, R), core::Error> + Send + 'static,
    ) -> Result<R, Refusal> {
        let driver = Arc::clone(self);
        let done = tokio::spawn(async move { driver.change_now(decide).await });
        done.await.unwrap_or_else(|failure| {
            let reason = format!("a change broke off: {failure}");
            self.stop(&reason);
            Err(Refusal::Stopped(reason))
        })
    }

    async fn change_now<R>(
        &self,
        decide: impl FnOnce(&mut Scheduler, u64) -> Result<(Change, R), core::Error>,
    ) -> Result<R, Refusal> {
        let _order = self.order.lock().await;
        if matches!(&*self.role.borrow(), Role::Stopped(_)) {
            return Err(self.refusal());
        }
        let now_ms = self.now_ms();
        let decision = self.lead.lock().decide(|core| decide(core, now_ms));
        let Decision { term, task, answer } = decision.map_err(|refusal| match refusal {
            lead::Refusal::Core(error) => Refusal::Core(error),
            lead::Refusal::NotServing(_) => self.refusal(),
            lead::Refusal::Busy => unreachable!("one change at a time holds the order"),
        })?;
        let Some(task) = task else {
            self.confirm(term).await?;
            return Ok(answer);
        };
        if self.commit(task).await { Ok(answer) } else { Err(self.refusal()) }
    }

    /// Extends what runs low, and lets the core decide what the stores shall do.
    pub(super) async fn tick(self: &Arc<Self>) -> Result<(), Refusal> {
        self.maintain().await?;
        let instructions = self.change(|core, now_ms| Ok(core.tick(now_ms))).await?;
        add(&self.metrics.instructions, instructions.len() as u64);
        self.instructions.send(instructions, self.cluster_id.get().copied().unwrap_or_default());
        Ok(())
    }

    async fn maintain(self: &Arc<Self>) -> Result<(), Refusal> {
        self.change(|core, now_ms| Ok((core.maintain(now_ms)?, ()))).await
    }

    /// The largest of `count` new timestamps.
    pub(super) async fn timestamp(self: &Arc<Self>, count: u32) -> Result<Timestamp, Refusal> {
        for _ in 0..TIMESTAMP_TRIES {
            match self.step(|core, now_ms| core.timestamp(count, now_ms)).await? {
                Ok(timestamp) => {
                    add(&self.metrics.timestamp_requests, 1);
                    add(&self.metrics.timestamps, count.into());
                    return Ok(timestamp);
                }
                Err(TimestampError::Invalid(error)) => return Err(error.into()),
                // Of all who come here at once, the first extends; the others find it done.
                Err(TimestampError::WindowUsedUp) => self.maintain().await?,
            }
        }
        Err(Refusal::Stopped("the clock runs away from its durable window".into()))
    }

    /// Fresh ids; their first.
    pub(super) async fn alloc_id(self: &Arc<Self>) -> Result<u64, Refusal> {
        if let Some(ids) = self.step(|core, _| core.try_alloc_ids(1)).await? {
            return Ok(ids.start);
        }
        Ok(self.change(|core, _| Ok(core.alloc_ids(1))).await?.start)
    }

    /// Looks for something about regions; waits for a while if it is not there yet.
    pub(super) async fn find_region<R>(
        &self,
        find: impl Fn(&Scheduler) -> Option<R>,
        patience: Duration,
    ) -> Result<Option<R>, Refusal> {
        let search = async {
            loop {
                let changed = self.regions.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = self.step(|core, _| find(core)).await? {
                    return Ok(Some(found));
                }
                changed.await;
            }
        };
        tokio::time::timeout(patience, search).await.unwrap_or(Ok(None))
    }
}

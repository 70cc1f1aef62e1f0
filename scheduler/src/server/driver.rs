//! Owns the core and its journal: one change at a time, decide → commit → apply.
//!
//! Two locks. `core` is held for moments, never across IO; readers and everything that needs no change
//! take it alone. `order` is held by a change from its decision to its application, so that changes are
//! decided on what all earlier ones left behind. Always `order` before `core`.
//!
//! A change runs to its end even if the caller has gone away. If it cannot be committed, nobody knows
//! what the disk holds: the driver stops for good, and says why to everyone who asks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Error;
use crate::core::{self, Change, Config, Scheduler, Timestamp, TimestampError};
use crate::journal::Journal;

/// How often a timestamp is tried again after its window was extended.
const TIMESTAMP_TRIES: usize = 3;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The core said no; nothing changed.
    #[error(transparent)]
    Core(#[from] core::Error),
    /// The scheduler no longer serves.
    #[error("{0}")]
    Stopped(String),
}

#[derive(Debug)]
pub(super) struct Driver {
    /// Never changes; here so that looking at it takes no lock.
    pub(super) cluster_id: u64,
    core: Mutex<Scheduler>,
    order: Mutex<()>,
    journal: Box<dyn Journal>,
    /// Why it has stopped.
    stop: watch::Sender<Option<String>>,
    /// Woken whenever regions may have become known.
    regions: Notify,
}

/// Unix milliseconds.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

impl Driver {
    /// Recovers the core from its journal, and commits what it needs before it can serve.
    pub(super) fn open(
        config: Config,
        fresh_cluster_id: u64,
        journal: Box<dyn Journal>,
    ) -> Result<Self, Error> {
        let now_ms = now_ms();
        let (mut core, change) =
            Scheduler::open(config, journal.load()?, fresh_cluster_id, now_ms)?;
        journal.commit(&change)?;
        core.apply(change, now_ms);
        Ok(Self {
            cluster_id: core.cluster_id(),
            core: Mutex::new(core),
            order: Mutex::new(()),
            journal,
            stop: watch::Sender::new(None),
            regions: Notify::new(),
        })
    }

    /// Ends all streams and refuses everything from here on. The first reason stays.
    pub(super) fn stop(&self, reason: &str) {
        self.stop.send_if_modified(|stopped| {
            let first = stopped.is_none();
            stopped.get_or_insert_with(|| reason.to_owned());
            first
        });
    }

    /// Becomes `Some(reason)` when the driver stops.
    pub(super) fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.stop.subscribe()
    }

    fn check_running(&self) -> Result<(), Refusal> {
        match &*self.stop.borrow() {
            None => Ok(()),
            Some(reason) => Err(Refusal::Stopped(reason.clone())),
        }
    }

    /// Looks at the core, without leave: for what stays true when the scheduler has stopped.
    pub(super) fn read<R>(&self, look: impl FnOnce(&Scheduler) -> R) -> R {
        look(&self.core.lock())
    }

    /// What needs no change: reads, heartbeats, ids and timestamps within their windows.
    pub(super) fn step<R>(
        &self,
        step: impl FnOnce(&mut Scheduler, u64) -> R,
    ) -> Result<R, Refusal> {
        self.check_running()?;
        Ok(step(&mut self.core.lock(), now_ms()))
    }

    /// Decides, commits, applies, answers.
    pub(super) async fn change<R: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut Scheduler, u64) -> Result<(Change, R), core::Error> + Send + 'static,
    ) -> Result<R, Refusal> {
        let driver = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || driver.change_now(decide));
        done.await.unwrap_or_else(|failure| {
            let reason = format!("a change broke off: {failure}");
            self.stop(&reason);
            Err(Refusal::Stopped(reason))
        })
    }

    fn change_now<R>(
        &self,
        decide: impl FnOnce(&mut Scheduler, u64) -> Result<(Change, R), core::Error>,
    ) -> Result<R, Refusal> {
        let _order = self.order.lock();
        let (change, answer) = self.step(decide)??;
        if !change.is_empty() {
            self.journal.commit(&change).map_err(|error| {
                let reason = error.to_string();
                self.stop(&reason);
                Refusal::Stopped(reason)
            })?;
            self.core.lock().apply(change, now_ms());
            self.regions.notify_waiters();
        }
        Ok(answer)
    }

    /// Extends what runs low.
    pub(super) async fn maintain(self: &Arc<Self>) -> Result<(), Refusal> {
        self.change(|core, now_ms| Ok((core.maintain(now_ms)?, ()))).await
    }

    /// The largest of `count` new timestamps.
    pub(super) async fn timestamp(self: &Arc<Self>, count: u32) -> Result<Timestamp, Refusal> {
        for _ in 0..TIMESTAMP_TRIES {
            match self.step(|core, now_ms| core.timestamp(count, now_ms))? {
                Ok(timestamp) => return Ok(timestamp),
                Err(TimestampError::Invalid(error)) => return Err(error.into()),
                // Of all who come here at once, the first extends; the others find it done.
                Err(TimestampError::WindowUsedUp) => self.maintain().await?,
            }
        }
        Err(Refusal::Stopped("the clock runs away from its durable window".into()))
    }

    /// Fresh ids; their first.
    pub(super) async fn alloc_id(self: &Arc<Self>) -> Result<u64, Refusal> {
        if let Some(ids) = self.step(|core, _| core.try_alloc_ids(1))? {
            return Ok(ids.start);
        }
        Ok(self.change(|core, _| Ok(core.alloc_ids(1))).await?.start)
    }

    /// Looks for something about regions; waits for a while if it is not there yet.
    pub(super) async fn find_region<R>(
        &self,
        find: impl Fn(&Scheduler) -> Option<R>,
        patience: std::time::Duration,
    ) -> Result<Option<R>, Refusal> {
        let search = async {
            loop {
                let changed = self.regions.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = self.step(|core, _| find(core))? {
                    return Ok(Some(found));
                }
                changed.await;
            }
        };
        tokio::time::timeout(patience, search).await.unwrap_or(Ok(None))
    }
}

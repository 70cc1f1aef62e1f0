//! Carries out what the core decides: sends, asks, waits, and feeds the results back.

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;

use crate::core::backoff::Backoff;
use crate::core::batch::{Split, split};
use crate::core::{Anchor, Call, Core, Instant, Question, Reply, Request, Settings, Step};
use crate::error::{Class, Error, Result};
use crate::scheduler::Scheduler;
use crate::stores::Stores;

/// Parts of one batch that are under way at once.
const PARTS_AT_ONCE: usize = 16;

/// The connections and the core that all handles of one client share.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) stores: Stores,
    core: Mutex<Core>,
    origin: tokio::time::Instant,
}

/// How a request to one region ended.
enum End {
    Reply(Reply),
    /// It spans several regions by now.
    Regroup,
}

/// What has become of a batch so far.
#[derive(Default)]
struct Tally {
    is_write: bool,
    replies: Vec<Reply>,
    error: Option<Error>,
}

impl Tally {
    /// Keeps the first error, but lets no definite one hide that something is in doubt.
    fn fail(&mut self, error: Error) {
        let worse = error.class() == Class::Undetermined;
        if self.error.is_none() || worse {
            self.error = Some(error);
        }
    }

    fn finish(self) -> Result<Vec<Reply>> {
        match self.error {
            None => Ok(self.replies),
            Some(error) if self.is_write && !self.replies.is_empty() => {
                let applied = self.replies.len();
                Err(Error::Undetermined(format!("{applied} parts were applied, then: {error}")))
            }
            Some(error) => Err(error),
        }
    }
}

/// A batched read whose answer would be too large, as two.
fn halves(part: &Request, error: &Error) -> Option<[Request; 2]> {
    match (part, error) {
        (Request::BatchGet { keys }, Error::Refused(_)) if keys.len() > 1 => {
            let (left, right) = keys.split_at(keys.len() / 2);
            Some([left, right].map(|keys| Request::BatchGet { keys: keys.to_vec() }))
        }
        _ => None,
    }
}

impl Driver {
    /// A driver with nothing known yet.
    pub(crate) fn new(scheduler: Arc<Scheduler>, settings: Settings, seed: u64) -> Driver {
        let stores = Stores::new(Arc::clone(&scheduler));
        let core = Mutex::new(Core::new(settings, seed));
        Driver { scheduler, stores, core, origin: tokio::time::Instant::now() }
    }

    fn now(&self) -> Instant {
        Instant(0) + self.origin.elapsed()
    }

    /// When a call that starts now has to end.
    pub(crate) fn deadline(&self, settings: &Settings) -> Instant {
        self.now() + settings.budget
    }

    /// Runs `work` with the core. Never across an await.
    pub(crate) fn with_core<T>(&self, work: impl FnOnce(&mut Core) -> T) -> T {
        work(&mut self.core.lock())
    }

    /// Runs a request that fits one region by its nature (one key, or one page) to its end. A page may have to be cut again.
    pub(crate) async fn one(
        &self,
        request: Request,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Option<Reply>> {
        match self.run(Arc::new(request), settings, deadline).await? {
            End::Reply(reply) => Ok(Some(reply)),
            End::Regroup => Ok(None),
        }
    }

    async fn run(
        &self,
        request: Arc<Request>,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<End> {
        let mut call = Call::new(request, settings, self.now()).with_deadline(deadline);
        loop {
            let step = call.poll(&mut self.core.lock(), self.now());
            match step {
                Step::Done(outcome) => return outcome.map(End::Reply),
                Step::Regroup => return Ok(End::Regroup),
                Step::Wait(until) => self.sleep_until(until).await,
                Step::Ask(Question::Region(anchor)) => {
                    let answer = self.scheduler.region(&anchor).await;
                    call.on_region(&mut self.core.lock(), self.now(), answer);
                }
                Step::Ask(Question::ClientIds) => {
                    let answer = self.scheduler.alloc_id().await.map(|id| id..id + 1);
                    call.on_client_ids(&mut self.core.lock(), self.now(), answer);
                }
                Step::Send(send) => {
                    let attempt = self.stores.attempt(&send).await;
                    call.on_attempt(&mut self.core.lock(), self.now(), attempt);
                }
            }
        }
    }

    /// Runs a request that may span regions: splits it by what is known, runs the parts side by side, and splits those again
    /// that the world has moved under. Replies come in no order.
    pub(crate) async fn batch(
        &self,
        request: Request,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Vec<Reply>> {
        let mut tally = Tally { is_write: request.is_write(), ..Tally::default() };
        let mut whole = vec![Arc::new(request)];
        let mut parts = Vec::new();
        let mut running = FuturesUnordered::new();
        loop {
            if let Some(request) = whole.pop() {
                match self.parts(&request, settings, deadline).await {
                    Ok(more) => parts.extend(more.into_iter().map(Arc::new)),
                    Err(error) => tally.fail(error),
                }
                continue;
            }
            while tally.error.is_none() && running.len() < PARTS_AT_ONCE {
                let Some(part) = parts.pop() else { break };
                running.push(self.part(part, settings, deadline));
            }
            let Some((part, end)) = running.next().await else { return tally.finish() };
            match end {
                Ok(End::Reply(reply)) => tally.replies.push(reply),
                Ok(End::Regroup) => whole.push(part),
                Err(error) => match halves(&part, &error) {
                    Some(halves) => parts.extend(halves.map(Arc::new)),
                    None => tally.fail(error),
                },
            }
        }
    }

    async fn part(
        &self,
        part: Arc<Request>,
        settings: &Settings,
        deadline: Instant,
    ) -> (Arc<Request>, Result<End>) {
        // A value on its own may be larger than a batched answer.
        let Request::BatchGet { keys } = &*part else {
            let end = self.run(Arc::clone(&part), settings, deadline).await;
            return (part, end);
        };
        let [key] = &keys[..] else {
            let end = self.run(Arc::clone(&part), settings, deadline).await;
            return (part, end);
        };
        let get = Arc::new(Request::Get { key: key.clone() });
        let end = self.run(get, settings, deadline).await.map(|end| match end {
            End::Reply(Reply::Value(value)) => End::Reply(Reply::Pairs(
                value.map(|value| (key.clone(), value)).into_iter().collect(),
            )),
            other => other,
        });
        (part, end)
    }

    async fn parts(
        &self,
        request: &Request,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Vec<Request>> {
        loop {
            let missing = match split(request, &mut self.core.lock().regions) {
                Split::Parts(parts) => return Ok(parts),
                Split::Missing(anchor) => anchor,
            };
            self.locate(&missing, settings, deadline).await?;
        }
    }

    /// Learns the region of an anchor that the cache does not know.
    pub(crate) async fn locate(
        &self,
        anchor: &Anchor,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<()> {
        let mut backoff = Backoff::new(settings.backoff_min, settings.backoff_max);
        loop {
            let failure = match self.scheduler.region(anchor).await {
                Ok(Some((region, leader))) => {
                    let mut core = self.core.lock();
                    core.regions.insert(region, leader);
                    if anchor.locate(&mut core.regions).is_some() {
                        return Ok(());
                    }
                    Ok("the scheduler's regions do not cover the key")
                }
                Ok(None) => Ok("the scheduler knows no region for the key"),
                Err(reason) => Err(reason),
            };
            let now = self.now();
            if now >= deadline {
                return Err(match failure {
                    Ok(last) => Error::Timeout { budget: settings.budget, last: last.to_owned() },
                    Err(reason) => Error::Unreachable(reason),
                });
            }
            let delay = self.core.lock().delay(&mut backoff);
            self.sleep_until(now + delay).await;
        }
    }

    async fn sleep_until(&self, until: Instant) {
        tokio::time::sleep_until(self.origin + until.since(Instant(0))).await;
    }
}

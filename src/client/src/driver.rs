//! Carries out what the core decides: sends, asks, waits, and feeds the results back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use proto::metapb::{Peer, Region};

use crate::core::backoff::Backoff;
use crate::core::batch::{Batch, End, Next};
use crate::core::scan::Missing;
use crate::core::{Anchor, Call, Core, Instant, Question, Reply, Request, Settings, Step, Wanted};
use crate::error::{Error, Result};
use crate::scheduler::Scheduler;
use crate::stores::Stores;

/// Parts of one batch that are under way at once.
const PARTS_AT_ONCE: usize = 16;

/// Regions learned at once for a scan or a batch.
const REGIONS_AT_ONCE: u32 = 64;

/// Client ids asked for at once, at most.
const IDS_AT_ONCE: u32 = 16;

/// The connections and the core that all handles of one client share.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) stores: Stores,
    core: Mutex<Core>,
    ids_wanted: AtomicU32,
    origin: tokio::time::Instant,
}

/// A call under way. Where nobody waits for it any more, its lane ends with it.
struct Running<'a> {
    driver: &'a Driver,
    call: Call,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.call.abandon(&mut self.driver.core.lock());
    }
}

impl Driver {
    /// A driver with nothing known yet.
    pub(crate) fn new(scheduler: Arc<Scheduler>, settings: Settings, seed: u64) -> Driver {
        let stores = Stores::new(Arc::clone(&scheduler));
        let core = Mutex::new(Core::new(settings, seed));
        let ids_wanted = AtomicU32::new(1);
        Driver { scheduler, stores, core, ids_wanted, origin: tokio::time::Instant::now() }
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
        let call = Call::new(request, settings, self.now()).with_deadline(deadline);
        let mut running = Running { driver: self, call };
        let call = &mut running.call;
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
                    let answer = self.client_ids().await;
                    call.on_client_ids(&mut self.core.lock(), self.now(), answer);
                }
                Step::Send(send) => {
                    let attempt = self.stores.attempt(&send).await;
                    call.on_attempt(&mut self.core.lock(), self.now(), attempt);
                }
            }
        }
    }

    /// Ids for new lanes, more each time: somebody who needs many gets a stock that outlasts an absence of the scheduler.
    async fn client_ids(&self) -> std::result::Result<Vec<u64>, String> {
        let wanted = self.ids_wanted.load(Ordering::Relaxed);
        let answers = join_all((0..wanted).map(|_| self.scheduler.alloc_id())).await;
        self.ids_wanted.store((wanted * 2).min(IDS_AT_ONCE), Ordering::Relaxed);
        let (mut ids, mut failure) = (Vec::new(), None);
        for answer in answers {
            match answer {
                Ok(id) => ids.push(id),
                Err(reason) => failure = Some(reason),
            }
        }
        match failure {
            Some(reason) if ids.is_empty() => Err(reason),
            _ => Ok(ids),
        }
    }

    /// Runs a request that may span regions, several parts side by side. Replies come in no order.
    pub(crate) async fn batch(
        &self,
        request: Request,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<Vec<Reply>> {
        let mut batch = Batch::new(request);
        let mut running = FuturesUnordered::new();
        loop {
            if running.len() < PARTS_AT_ONCE {
                let next = batch.next(&mut self.core.lock().regions);
                match next {
                    Next::Missing(wanted) => {
                        if let Err(error) = self.learn(&wanted, settings, deadline).await {
                            batch.fail(error);
                        }
                        continue;
                    }
                    Next::Part(part) => {
                        running.push(self.part(part, settings, deadline));
                        continue;
                    }
                    Next::Running => {}
                    Next::Finished => return batch.finish(),
                }
            }
            let (part, end) = running.next().await.expect("a part is under way");
            batch.on_part(part, end);
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

    /// Learns what a scan needs to know.
    pub(crate) async fn learn_for_scan(
        &self,
        missing: &Missing,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<()> {
        match missing {
            Missing::Ahead(wanted) => self.learn(wanted, settings, deadline).await,
            Missing::Below(end) => {
                let anchor = Anchor::Before(end.clone());
                self.learn_until(&anchor, None, settings, deadline).await
            }
        }
    }

    /// Learns regions, at least the first of those wanted.
    async fn learn(&self, wanted: &Wanted, settings: &Settings, deadline: Instant) -> Result<()> {
        let anchor = Anchor::At(wanted.from.clone());
        self.learn_until(&anchor, Some(wanted), settings, deadline).await
    }

    /// What the scheduler knows: of the regions `wanted`, or else of the one at `anchor`.
    async fn ask(
        &self,
        anchor: &Anchor,
        wanted: Option<&Wanted>,
    ) -> std::result::Result<Vec<(Region, Option<Peer>)>, String> {
        match wanted {
            Some(wanted) => self.scheduler.regions(wanted, REGIONS_AT_ONCE).await,
            None => Ok(self.scheduler.region(anchor).await?.into_iter().collect()),
        }
    }

    /// Asks again and again until the region at `anchor` is known.
    async fn learn_until(
        &self,
        anchor: &Anchor,
        wanted: Option<&Wanted>,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<()> {
        let mut backoff = Backoff::new(settings.backoff_min, settings.backoff_max);
        loop {
            let failure = match self.ask(anchor, wanted).await {
                Ok(regions) => {
                    let none = regions.is_empty();
                    let mut core = self.core.lock();
                    core.adopt(regions);
                    if anchor.locate(&mut core.regions).is_some() {
                        return Ok(());
                    }
                    Ok(match none {
                        true => "the scheduler knows no region for the key",
                        false => "the scheduler's regions do not cover the key",
                    })
                }
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

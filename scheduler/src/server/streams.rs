//! The two streams that live as long as a client does. Both end with an error when this member ceases to serve, never in
//! silence: clients wait for timestamps without a time limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use proto::ids::StoreId;
use proto::pdpb;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::answer::check_cluster;
use super::driver::{Driver, Refusal, Role};
use super::error_map::{header_error, not_leading, status};
use super::metrics::add;
use crate::core::RegionInfo;

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// Instructions and refusals that may wait for one store. Those beyond are dropped: the next heartbeat brings them again.
const ANSWERS_QUEUED_MAX: usize = 1024;

/// One incoming stream, watched for the end of the leadership in which it was opened.
struct Incoming<T> {
    driver: Arc<Driver>,
    requests: Streaming<T>,
    role: watch::Receiver<Role>,
    opened: Role,
}

impl<T> Incoming<T> {
    fn new(driver: Arc<Driver>, requests: Streaming<T>) -> Result<Self, Status> {
        let mut role = driver.role();
        let opened = role.borrow_and_update().clone();
        if !matches!(opened, Role::Serves(_)) {
            return Err(ended(&opened));
        }
        Ok(Self { driver, requests, role, opened })
    }

    /// The next request; `None` when the client is done.
    async fn next(&mut self) -> Result<Option<T>, Status> {
        let Self { requests, role, opened, .. } = self;
        tokio::select! {
            biased;
            now = role.wait_for(|now| now != opened) => {
                Err(ended(&now.map_or(Role::Leaderless, |now| now.clone())))
            }
            request = requests.message() => request,
        }
    }
}

/// Why a stream ends that was opened while this member served.
fn ended(role: &Role) -> Status {
    match role {
        Role::Stopped(reason) => Status::unavailable(reason),
        _ => not_leading(),
    }
}

/// Turns a step that yields an answer, the end, or an error into a stream that ends after an error.
fn answers<S, T, F, Fut>(state: S, step: F) -> Answers<T>
where
    S: Send + 'static,
    T: Send + 'static,
    F: Fn(S) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = (S, Result<Option<T>, Status>)> + Send + 'static,
{
    let stream = stream::unfold(Some(state), move |state| {
        let step = step.clone();
        async move {
            match step(state?).await {
                (state, Ok(Some(answer))) => Some((Ok(answer), Some(state))),
                (_, Ok(None)) => None,
                (_, Err(status)) => Some((Err(status), None)),
            }
        }
    });
    stream.boxed()
}

/// Timestamps: one answer per request, in order.
pub(super) fn timestamps(
    driver: Arc<Driver>,
    requests: Streaming<pdpb::TsoRequest>,
) -> Result<Answers<pdpb::TsoResponse>, Status> {
    let incoming = Incoming::new(driver, requests)?;
    Ok(answers(incoming, |mut incoming| async move {
        let answer = match incoming.next().await {
            Ok(Some(request)) => timestamp(&incoming.driver, request).await.map(Some),
            Ok(None) => Ok(None),
            Err(status) => Err(status),
        };
        (incoming, answer)
    }))
}

async fn timestamp(
    driver: &Arc<Driver>,
    request: pdpb::TsoRequest,
) -> Result<pdpb::TsoResponse, Status> {
    // Clients read these responses without their header, so every refusal ends the stream.
    let cluster_id = check_cluster(driver, request.header.as_ref())
        .map_err(|error| Status::failed_precondition(error.message))?;
    let largest = driver.timestamp(request.count).await.map_err(status)?;
    Ok(pdpb::TsoResponse {
        header: Some(pdpb::ResponseHeader { cluster_id, error: None }),
        count: request.count,
        timestamp: Some(pdpb::Timestamp {
            physical: largest.physical_ms as i64,
            logical: largest.logical as i64,
            suffix_bits: 0,
        }),
    })
}

/// The stores whose heartbeat streams are open, and the way down to each.
#[derive(Default)]
pub(super) struct Instructions {
    streams: Mutex<BTreeMap<StoreId, Way>>,
    last: AtomicU64,
}

/// The sending end of one stream.
#[derive(Clone)]
struct Way {
    number: u64,
    answers: mpsc::Sender<Result<pdpb::RegionHeartbeatResponse, Status>>,
}

impl Instructions {
    /// Sends each instruction to the store of its target peer, if that listens.
    pub(super) fn send(&self, instructions: Vec<pdpb::RegionHeartbeatResponse>, cluster_id: u64) {
        let streams = self.streams.lock();
        for instruction in instructions {
            let to = instruction.target_peer.as_ref().map_or(0, |peer| peer.store_id);
            if let Some(way) = streams.get(&StoreId::new(to)) {
                // A full queue, or a store that has just gone: it is given again.
                let _ = way.answers.try_send(Ok(headed(instruction, cluster_id)));
            }
        }
    }

    /// The newest stream of a store is the one that is used.
    fn open(&self, store: StoreId, way: &Way) {
        self.streams.lock().insert(store, way.clone());
    }

    fn close(&self, way: &Way) {
        self.streams.lock().retain(|_, open| open.number != way.number);
    }

    /// How many stores listen.
    pub(super) fn len(&self) -> usize {
        self.streams.lock().len()
    }
}

fn headed(
    response: pdpb::RegionHeartbeatResponse,
    cluster_id: u64,
) -> pdpb::RegionHeartbeatResponse {
    let header = Some(pdpb::ResponseHeader { cluster_id, error: None });
    pdpb::RegionHeartbeatResponse { header, ..response }
}

/// Region heartbeats: taken in; down go instructions, and a reason for each report that was refused.
pub(super) fn region_heartbeats(
    driver: Arc<Driver>,
    requests: Streaming<pdpb::RegionHeartbeatRequest>,
) -> Result<Answers<pdpb::RegionHeartbeatResponse>, Status> {
    let mut incoming = Incoming::new(Arc::clone(&driver), requests)?;
    let (answers, queue) = mpsc::channel(ANSWERS_QUEUED_MAX);
    let number = driver.instructions.last.fetch_add(1, Ordering::Relaxed);
    let way = Way { number, answers: answers.clone() };
    tokio::spawn(async move {
        let end = tokio::select! {
            end = take_heartbeats(&mut incoming, &way) => end,
            // The store has gone.
            () = answers.closed() => Ok(()),
        };
        driver.instructions.close(&way);
        if let Err(status) = end {
            let _ = answers.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(queue).boxed())
}

async fn take_heartbeats(
    incoming: &mut Incoming<pdpb::RegionHeartbeatRequest>,
    way: &Way,
) -> Result<(), Status> {
    let mut from = StoreId::default();
    while let Some(request) = incoming.next().await? {
        let driver = &incoming.driver;
        add(&driver.metrics.region_heartbeats, 1);
        let store = StoreId::new(request.leader.as_ref().map_or(0, |leader| leader.store_id));
        if store != from && !store.is_none() {
            from = store;
            driver.instructions.open(store, way);
        }
        if let Some(answer) = region_heartbeat(driver, request).await?
            && way.answers.send(Ok(answer)).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

async fn region_heartbeat(
    driver: &Arc<Driver>,
    request: pdpb::RegionHeartbeatRequest,
) -> Result<Option<pdpb::RegionHeartbeatResponse>, Status> {
    let region_id = request.region.as_ref().map_or(0, |region| region.id);
    let region_epoch = request.region.as_ref().and_then(|region| region.region_epoch);
    let cluster_id = driver.cluster_id().ok().flatten().unwrap_or_default();
    let refused = |error| {
        let header = Some(pdpb::ResponseHeader { cluster_id, error: Some(error) });
        pdpb::RegionHeartbeatResponse { header, region_id, region_epoch, ..Default::default() }
    };
    if let Err(error) = check_cluster(driver, request.header.as_ref()) {
        return Ok(Some(refused(error)));
    }
    match report(driver, RegionInfo::from(request)).await {
        Ok(instruction) => Ok(instruction.map(|instruction| headed(instruction, cluster_id))),
        Err(refusal) => Ok(Some(refused(header_error(refusal)?))),
    }
}

/// Takes a report in. One that changes nothing that is remembered does not wait for those that do.
async fn report(
    driver: &Arc<Driver>,
    report: RegionInfo,
) -> Result<Option<pdpb::RegionHeartbeatResponse>, Refusal> {
    let known = driver
        .step(|core, now_ms| {
            let known = core.knows_region(&report.meta);
            known.then(|| core.region_heartbeat(report.clone(), now_ms))
        })
        .await?;
    match known {
        Some(taken) => {
            let (change, instruction) = taken?;
            debug_assert!(change.is_empty(), "a region known as it stands changes nothing");
            Ok(instruction)
        }
        None => driver.change(|core, now_ms| core.region_heartbeat(report, now_ms)).await,
    }
}

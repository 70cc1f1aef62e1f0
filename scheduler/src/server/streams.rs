//! The two streams that live as long as a client does. Both end with an error when the scheduler
//! stops, never in silence.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use proto::pdpb;
use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::answer::check_cluster;
use super::driver::Driver;
use super::error_map::{header_error, status};
use crate::core::RegionInfo;

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// One incoming stream, watched for the scheduler's end.
struct Incoming<T> {
    driver: Arc<Driver>,
    requests: Streaming<T>,
    stopped: watch::Receiver<Option<String>>,
}

impl<T> Incoming<T> {
    fn new(driver: Arc<Driver>, requests: Streaming<T>) -> Self {
        let stopped = driver.stopped();
        Self { driver, requests, stopped }
    }

    /// The next request; `None` when the client is done.
    async fn next(&mut self) -> Result<Option<T>, Status> {
        tokio::select! {
            biased;
            reason = self.stopped.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|reason| reason.clone());
                Err(Status::unavailable(reason.unwrap_or_default()))
            }
            request = self.requests.message() => request,
        }
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
) -> Answers<pdpb::TsoResponse> {
    answers(Incoming::new(driver, requests), |mut incoming| async move {
        let answer = match incoming.next().await {
            Ok(Some(request)) => timestamp(&incoming.driver, request).await.map(Some),
            Ok(None) => Ok(None),
            Err(status) => Err(status),
        };
        (incoming, answer)
    })
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

/// Region heartbeats: taken in; an answer only for one that was refused.
pub(super) fn region_heartbeats(
    driver: Arc<Driver>,
    requests: Streaming<pdpb::RegionHeartbeatRequest>,
) -> Answers<pdpb::RegionHeartbeatResponse> {
    answers(Incoming::new(driver, requests), |mut incoming| async move {
        loop {
            let answer = match incoming.next().await {
                Ok(Some(request)) => region_heartbeat(&incoming.driver, request).await,
                Ok(None) => return (incoming, Ok(None)),
                Err(status) => Err(status),
            };
            match answer {
                Ok(None) => {}
                answer => return (incoming, answer),
            }
        }
    })
}

async fn region_heartbeat(
    driver: &Arc<Driver>,
    request: pdpb::RegionHeartbeatRequest,
) -> Result<Option<pdpb::RegionHeartbeatResponse>, Status> {
    let region_id = request.region.as_ref().map_or(0, |region| region.id);
    let epoch = request.region.as_ref().and_then(|region| region.region_epoch);
    let refused = |error| {
        let cluster_id = driver.cluster_id;
        Some(pdpb::RegionHeartbeatResponse {
            header: Some(pdpb::ResponseHeader { cluster_id, error: Some(error) }),
            region_id,
            region_epoch: epoch,
            ..Default::default()
        })
    };
    if let Err(error) = check_cluster(driver, request.header.as_ref()) {
        return Ok(refused(error));
    }
    let report = RegionInfo::from(request);
    let known = driver.step(|core, now_ms| {
        core.knows_region(&report.meta).then(|| core.region_heartbeat(report.clone(), now_ms))
    });
    let taken = match known.map_err(status)? {
        Some(Ok((change, instruction))) => {
            debug_assert!(change.is_empty(), "a region known as it stands changes nothing");
            Ok(instruction)
        }
        Some(Err(error)) => Err(error.into()),
        None => driver.change(|core, now_ms| core.region_heartbeat(report, now_ms)).await,
    };
    match taken {
        Ok(instruction) => Ok(instruction.map(|instruction| {
            let header = pdpb::ResponseHeader { cluster_id: driver.cluster_id, error: None };
            pdpb::RegionHeartbeatResponse { header: Some(header), ..instruction }
        })),
        Err(refusal) => Ok(refused(header_error(refusal)?)),
    }
}

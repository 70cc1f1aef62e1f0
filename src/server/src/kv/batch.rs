//! `BatchCommands`: one stream that carries many requests each way.
//!
//! There is no task per request and none per stream: the response stream itself, when polled, first reads the requests that
//! have arrived and starts them (lease reads are answered on the spot), then sends everything that is answered as one
//! message. What the store's threads answer later lands in the same queue and wakes the stream once. Nothing waits for a
//! timer: under load messages are large because the backlog is, alone a request is answered at once.
//!
//! # Invariants
//! 1. Every request that was read is answered exactly once, under its id; ids are the client's and opaque here.
//! 2. At most [`IN_FLIGHT_MAX`] requests of a stream are unanswered: beyond it the stream is not read, so back-pressure
//!    reaches the client through flow control and never as an error (`server_is_busy` is final to the published client).
//! 3. A client that does not read responses is not read from: both directions are driven by the same poll.
//!
//! There is no status per request: a request this store does not serve ends the stream with `Unimplemented` and its name.
//!
//! Tests: `kv/tests.rs`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use proto::limits::BATCH_COMMANDS_MAX;
use proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tonic::Status;

use super::Verbs;
use super::dispatch::dispatch;
use super::queue::{AnswerQueue, ResponseCmd};
use super::sink::{Fallible, Overflow, Sink, Work};

/// Requests of one stream that may be unanswered at a time.
pub(crate) const IN_FLIGHT_MAX: usize = 16 * 1024;
/// Requests started in one poll before what is answered is sent; the message that reaches it is started whole.
const STARTED_PER_POLL: usize = 512;

/// The sink of one request of a stream.
pub(crate) struct Slot<R> {
    queue: Arc<AnswerQueue>,
    id: u64,
    wrap: fn(R) -> ResponseCmd,
}

impl<R> Slot<R> {
    /// The slot of request `id`, whose response becomes a command by `wrap`.
    pub(crate) fn new(queue: &Arc<AnswerQueue>, id: u64, wrap: fn(R) -> ResponseCmd) -> Slot<R> {
        Slot { queue: queue.clone(), id, wrap }
    }
}

impl<R: Fallible> Sink<R> for Slot<R> {
    /// Clients of the stream ask on from the last row of a large page.
    const OVERFLOW: Overflow = Overflow::Cut;

    fn answer(self, response: R) {
        let bytes = response.encoded_len();
        self.queue.push(self.id, (self.wrap)(response), bytes);
    }

    fn later(self, work: Work<R>) {
        let wrap = self.wrap;
        let read = move || {
            let response = work();
            let bytes = response.encoded_len();
            (wrap(response), bytes)
        };
        self.queue.defer(self.id, Box::new(read));
    }
}

/// The response stream of one `BatchCommands` call; polling it also reads the requests.
pub(crate) struct BatchStream<I> {
    verbs: Verbs,
    requests: I,
    queue: Arc<AnswerQueue>,
    in_flight: usize,
    /// The client has sent its last request, or the call has failed with this status.
    ended: Option<Result<(), Status>>,
}

impl<I> BatchStream<I> {
    /// Serves the requests of one call.
    pub(crate) fn new(verbs: Verbs, requests: I) -> BatchStream<I> {
        let queue = Arc::default();
        BatchStream { verbs, requests, queue, in_flight: 0, ended: None }
    }

    fn start(&mut self, batch: BatchCommandsRequest) -> Result<(), Status> {
        if batch.requests.len() != batch.request_ids.len() {
            return Err(Status::invalid_argument(format!(
                "request_ids has {} entries for {} requests",
                batch.request_ids.len(),
                batch.requests.len()
            )));
        }
        if batch.requests.len() > BATCH_COMMANDS_MAX {
            return Err(Status::invalid_argument(format!(
                "requests is {} commands, the limit is {BATCH_COMMANDS_MAX} (BATCH_COMMANDS_MAX)",
                batch.requests.len()
            )));
        }
        for (id, request) in batch.request_ids.into_iter().zip(batch.requests) {
            let Some(cmd) = request.cmd else {
                return Err(Status::unimplemented(format!(
                    "request {id} is empty or of a kind this store does not know"
                )));
            };
            self.in_flight += 1;
            dispatch(&self.verbs, &self.queue, id, cmd)?;
        }
        Ok(())
    }
}

impl<I> BatchStream<I>
where
    I: Stream<Item = Result<BatchCommandsRequest, Status>> + Unpin,
{
    /// Reads and starts what has arrived, within the bounds. Says whether it stopped early and must be polled again.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let mut started = 0;
        while started < STARTED_PER_POLL {
            if self.ended.is_some() || self.in_flight >= IN_FLIGHT_MAX {
                return false;
            }
            match Pin::new(&mut self.requests).poll_next(cx) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(batch))) => {
                    // An empty message costs something, too.
                    started += batch.requests.len().max(1);
                    if let Err(status) = self.start(batch) {
                        self.ended = Some(Err(status));
                    }
                }
                Poll::Ready(Some(Err(status))) => self.ended = Some(Err(status)),
                Poll::Ready(None) => self.ended = Some(Ok(())),
            }
        }
        true
    }
}

impl<I> Stream for BatchStream<I>
where
    I: Stream<Item = Result<BatchCommandsRequest, Status>> + Unpin,
{
    type Item = Result<BatchCommandsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let more = this.read(cx);
        if let Some(Err(status)) = &this.ended {
            let status = status.clone();
            this.ended = Some(Ok(()));
            this.in_flight = 0;
            this.queue.close();
            return Poll::Ready(Some(Err(status)));
        }
        if this.ended.is_some() && this.in_flight == 0 {
            return Poll::Ready(None);
        }
        match this.queue.poll_next(cx) {
            Poll::Ready(message) => {
                assert!(message.request_ids.len() <= this.in_flight, "more answers than requests");
                this.in_flight -= message.request_ids.len();
                Poll::Ready(Some(Ok(message)))
            }
            Poll::Pending => {
                if more {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl<I> Drop for BatchStream<I> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

//! One connection to one store, with one `BatchCommands` stream that carries every request.
//!
//! There is no task per request and no timer: callers put requests into the outbox; whenever the stream can take a message, it
//! takes all that is waiting, as one message. Under load the batches grow by themselves; alone, a request leaves at once.
//! Answers come in any order and are matched by id. A store that does not know the stream is served with unary calls.
//!
//! Invariants: 1. a request is *waiting* (not yet taken by the stream, certainly not sent) or *out* (may have been sent);
//! when the link breaks, that difference is told to the caller. 2. A broken link stays broken; the next request makes a new
//! one. Tests: `link/tests.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use proto::limits::BATCH_COMMANDS_MAX;
use proto::tikvpb::batch_commands_request::Request;
use proto::tikvpb::batch_commands_request::request::Cmd as RequestCmd;
use proto::tikvpb::batch_commands_response::response::Cmd as ResponseCmd;
use proto::tikvpb::tikv_client::TikvClient;
use proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use crate::unary;

/// A message takes requests until it has so many bytes.
const MESSAGE_BYTES_AIM: usize = 1 << 20;

/// Answers may be as large as the largest value and then some.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
const WINDOW_BYTES: u32 = 8 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Whether the request may have reached the store.
    pub(crate) sent: bool,
    /// What happened.
    pub(crate) reason: String,
}

pub(crate) type Answer = Result<ResponseCmd, Broken>;

/// A handle to the link; clones share it. It closes when the last one is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<Handle>);

#[derive(Debug)]
struct Handle(Shared);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.break_off("closed");
    }
}

/// What the handles and the task that serves them share.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Outbox>>);

#[derive(Debug, Default)]
struct Outbox {
    waiting: VecDeque<Outgoing>,
    out: BTreeMap<u64, oneshot::Sender<Answer>>,
    next_id: u64,
    waker: Option<Waker>,
    broken: Option<String>,
    /// The store has refused the stream, which must take nothing any more.
    unary: bool,
}

#[derive(Debug)]
struct Outgoing {
    id: u64,
    bytes: usize,
    cmd: RequestCmd,
    reply: oneshot::Sender<Answer>,
}

impl Link {
    /// A link to `address` (host:port), which connects in the background. Must be called within a tokio runtime.
    pub(crate) fn open(address: &str) -> Link {
        let shared = Shared::default();
        let task = shared.clone();
        let address = address.to_owned();
        tokio::spawn(async move {
            let reason = task.run(&address).await;
            task.break_off(&reason);
        });
        Link(Arc::new(Handle(shared)))
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&self, cmd: RequestCmd, bytes: usize, timeout: Duration) -> Answer {
        let (reply, answer) = oneshot::channel();
        let shared = &self.0.0;
        let id = shared.push(cmd, bytes, reply)?;
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Broken { sent: true, reason: "the link was dropped".to_owned() }),
            Err(_) => {
                let reason = format!("no answer within {timeout:?}");
                Err(Broken { sent: shared.forget(id), reason })
            }
        }
    }

    /// Whether a new link is needed.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.0.0.lock().broken.is_some()
    }
}

impl Shared {
    fn push(
        &self,
        cmd: RequestCmd,
        bytes: usize,
        reply: oneshot::Sender<Answer>,
    ) -> Result<u64, Broken> {
        let mut outbox = self.0.lock();
        if let Some(reason) = &outbox.broken {
            return Err(Broken { sent: false, reason: reason.clone() });
        }
        let id = outbox.next_id;
        outbox.next_id += 1;
        outbox.waiting.push_back(Outgoing { id, bytes, cmd, reply });
        let waker = outbox.waker.take();
        drop(outbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(id)
    }

    /// The caller has stopped waiting. Says whether the request may have been sent.
    fn forget(&self, id: u64) -> bool {
        let mut outbox = self.0.lock();
        let before = outbox.waiting.len();
        outbox.waiting.retain(|outgoing| outgoing.id != id);
        let was_waiting = outbox.waiting.len() < before;
        outbox.out.remove(&id);
        !was_waiting
    }

    /// Connects and serves until something fails; the reason.
    async fn run(&self, address: &str) -> String {
        let channel = match connect(address).await {
            Ok(channel) => channel,
            Err(reason) => return reason,
        };
        let mut client =
            TikvClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        match client.batch_commands(Requests(self.clone())).await {
            Ok(answers) => self.receive(answers.into_inner()).await,
            Err(status) if status.code() == Code::Unimplemented => {
                self.give_up_stream();
                self.serve_unary(&channel).await
            }
            Err(status) => describe(&status),
        }
    }

    async fn receive(&self, mut answers: Streaming<BatchCommandsResponse>) -> String {
        loop {
            match answers.message().await {
                Ok(Some(batch)) => self.complete(batch),
                Ok(None) => return "the store closed the connection".to_owned(),
                Err(status) => return describe(&status),
            }
        }
    }

    fn complete(&self, batch: BatchCommandsResponse) {
        let mut outbox = self.0.lock();
        for (id, response) in batch.request_ids.into_iter().zip(batch.responses) {
            // A caller that has given up is not there any more.
            let Some(reply) = outbox.out.remove(&id) else { continue };
            let empty = || Broken { sent: true, reason: "an empty answer".to_owned() };
            let _ = reply.send(response.cmd.ok_or_else(empty));
        }
    }

    /// What the refused stream has taken was thrown away unread.
    fn give_up_stream(&self) {
        let mut outbox = self.0.lock();
        outbox.unary = true;
        let out = std::mem::take(&mut outbox.out);
        drop(outbox);
        for reply in out.into_values() {
            let reason = "the store serves no batched stream".to_owned();
            let _ = reply.send(Err(Broken { sent: false, reason }));
        }
    }

    /// One call per request, for stores without the stream.
    async fn serve_unary(&self, channel: &Channel) -> String {
        loop {
            let Some(taken) = std::future::poll_fn(|cx| self.poll_take(cx)).await else {
                return "closed".to_owned();
            };
            for Outgoing { cmd, reply, .. } in taken {
                let channel = channel.clone();
                tokio::spawn(async move {
                    let _ = reply.send(unary::call(channel, cmd).await);
                });
            }
        }
    }

    /// All that is waiting, up to the limits of one message; nothing more once the link is broken.
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Vec<Outgoing>>> {
        self.0.lock().poll_take(cx)
    }

    fn break_off(&self, reason: &str) {
        let mut outbox = self.0.lock();
        outbox.broken.get_or_insert_with(|| reason.to_owned());
        let waker = outbox.waker.take();
        let waiting = std::mem::take(&mut outbox.waiting);
        let out = std::mem::take(&mut outbox.out);
        drop(outbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        let broken = |sent| Err(Broken { sent, reason: reason.to_owned() });
        for outgoing in waiting {
            let _ = outgoing.reply.send(broken(false));
        }
        for reply in out.into_values() {
            let _ = reply.send(broken(true));
        }
    }
}

impl Outbox {
    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<Outgoing>>> {
        if self.broken.is_some() {
            return Poll::Ready(None);
        }
        if self.waiting.is_empty() {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut bytes = 0;
        let fitting = self.waiting.iter().take(BATCH_COMMANDS_MAX).take_while(|outgoing| {
            let room = bytes < MESSAGE_BYTES_AIM;
            bytes += outgoing.bytes;
            room
        });
        let count = fitting.count();
        Poll::Ready(Some(self.waiting.drain(..count).collect()))
    }
}

/// The request half of the stream: polled by the connection whenever it can send.
struct Requests(Shared);

impl Stream for Requests {
    type Item = BatchCommandsRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BatchCommandsRequest>> {
        let mut outbox = self.0.0.lock();
        if outbox.unary {
            return Poll::Ready(None);
        }
        let taken = match outbox.poll_take(cx) {
            Poll::Ready(Some(taken)) => taken,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let mut batch = BatchCommandsRequest {
            requests: Vec::with_capacity(taken.len()),
            request_ids: Vec::with_capacity(taken.len()),
        };
        for Outgoing { id, cmd, reply, .. } in taken {
            batch.requests.push(Request { cmd: Some(cmd) });
            batch.request_ids.push(id);
            outbox.out.insert(id, reply);
        }
        Poll::Ready(Some(batch))
    }
}

/// A connected channel to host:port.
pub(crate) async fn connect(address: &str) -> Result<Channel, String> {
    let endpoint = endpoint(address)?;
    endpoint.connect().await.map_err(|error| format!("{address}: {}", root_cause(&error)))
}

/// The settings of every connection of this crate.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, String> {
    let uri = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| format!("{address}: {error}"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .tcp_nodelay(true))
}

/// A status in one line.
pub(crate) fn describe(status: &tonic::Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => format!("{:?}: {message}", status.code()),
    }
}

/// The innermost cause: "connection refused" says more than "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
#[path = "link/tests.rs"]
mod tests;

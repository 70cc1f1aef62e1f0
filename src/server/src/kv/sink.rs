//! Where the answer to one request goes: to the task of a unary call, or into the queue of a `BatchCommands` stream.
//!
//! A verb is written once, in continuation style: it gets the request and a [`Sink`], and whoever knows the answer (this
//! thread for a lease read, the apply thread for a write) hands it over. No task exists per request on a batched stream.
//!
//! - *Work*: a read whose snapshot was granted on another thread. It runs where the response is sent, so that the store's
//!   threads never walk a range for a client.
//!
//! Tests: `kv/tests.rs`, through the services.

use proto::errorpb;
use tokio::sync::oneshot;
use tonic::{Response, Status};

use crate::limits::Refusal;

/// The rest of a read: run by whoever sends the response.
pub(crate) type Work<R> = Box<dyn FnOnce() -> R + Send>;

/// What happens to a scan whose result exceeds one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// It is refused: the client would take a part for the whole.
    Refuse,
    /// It is cut: the client asks on from the last row.
    Cut,
}

/// The obligation to answer one request; consumed by answering.
pub(crate) trait Sink<R>: Send + 'static {
    /// What the clients behind this sink do about large results.
    const OVERFLOW: Overflow;

    /// Hands the answer over.
    fn answer(self, response: R);

    /// Hands over the computation of the answer.
    fn later(self, work: Work<R>);
}

/// A response message that can say what went wrong.
pub(crate) trait Fallible: prost::Message + Default + Sized + Send + 'static {
    /// The response that carries only this region error.
    fn from_region_error(error: errorpb::Error) -> Self;

    /// The response that says why the request is refused for good.
    fn from_refusal(refusal: Refusal) -> Self;
}

/// The sink of a unary call.
pub(crate) struct Unary<R>(oneshot::Sender<Outcome<R>>);

enum Outcome<R> {
    Answer(R),
    Work(Work<R>),
}

impl<R: Send + 'static> Sink<R> for Unary<R> {
    /// The published client goes on at the region's end, whatever it got.
    const OVERFLOW: Overflow = Overflow::Refuse;

    fn answer(self, response: R) {
        // An error here only says that the caller has gone away.
        let _ = self.0.send(Outcome::Answer(response));
    }

    fn later(self, work: Work<R>) {
        let _ = self.0.send(Outcome::Work(work));
    }
}

/// Runs one unary call: `start` begins the verb, the answer becomes the response.
pub(crate) async fn unary<R: Fallible>(
    start: impl FnOnce(Unary<R>),
) -> Result<Response<R>, Status> {
    let (sender, receiver) = oneshot::channel();
    start(Unary(sender));
    match receiver.await {
        Ok(Outcome::Answer(response)) => Ok(Response::new(response)),
        Ok(Outcome::Work(work)) => Ok(Response::new(work())),
        Err(_) => Err(Status::unavailable("the store is shutting down")),
    }
}

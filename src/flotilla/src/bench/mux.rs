//! Many concurrent calls over one bidirectional stream: what is queued when the stream is polled leaves as one message.
//!
//! No timer and no size to wait for: alone, a request leaves at once; under load, batches are as large as the backlog.
//! Used for our own `BatchCommands` and, in the same shape, for the bare echo it is measured against.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::{Stream, StreamExt as _};
use tokio::sync::oneshot;

/// A message that carries many requests.
pub(super) trait Outgoing: Send + 'static {
    /// One request.
    type Item: Send;
    /// The message of these requests; `ids[i]` belongs to `items[i]`.
    fn pack(items: Vec<Self::Item>, ids: Vec<u64>) -> Self;
}

/// A message that carries many responses.
pub(super) trait Incoming: Send + 'static {
    /// One response.
    type Item: Send;
    /// The responses and their ids.
    fn unpack(self) -> (Vec<Self::Item>, Vec<u64>);
}

/// The stream ended before the answer came: the request may or may not have been carried out.
#[derive(Debug)]
pub(super) struct StreamEnded;

struct State<Q, A> {
    queue: Vec<Q>,
    ids: Vec<u64>,
    /// By request id: an id is a slot, used again once its response has come.
    waiting: Vec<Option<oneshot::Sender<A>>>,
    free: Vec<u64>,
    sender: Option<Waker>,
    closed: bool,
}

impl<Q, A> State<Q, A> {
    fn occupy(&mut self, sender: oneshot::Sender<A>) -> u64 {
        if let Some(id) = self.free.pop() {
            self.waiting[id as usize] = Some(sender);
            return id;
        }
        self.waiting.push(Some(sender));
        self.waiting.len() as u64 - 1
    }

    /// The caller of a request; nobody when the server made the id up.
    fn vacate(&mut self, id: u64) -> Option<oneshot::Sender<A>> {
        let sender = self.waiting.get_mut(usize::try_from(id).ok()?)?.take()?;
        self.free.push(id);
        Some(sender)
    }
}

/// The calling side of one stream.
pub(super) struct Mux<Q: Outgoing, A: Incoming> {
    state: Shared<Q::Item, A::Item>,
}

type Shared<Q, A> = Arc<Mutex<State<Q, A>>>;

/// What is to be sent.
pub(super) struct Requests<Q: Outgoing, A: Incoming> {
    state: Shared<Q::Item, A::Item>,
}

fn locked<Q, A, R>(shared: &Shared<Q, A>, change: impl FnOnce(&mut State<Q, A>) -> R) -> R {
    change(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

impl<Q: Outgoing, A: Incoming> Mux<Q, A> {
    /// A mux, and the stream of requests to open the call with. Then drive the responses with [`Mux::pump`].
    pub(super) fn new() -> (Self, Requests<Q, A>) {
        let state = Arc::new(Mutex::new(State {
            queue: Vec::new(),
            ids: Vec::new(),
            waiting: Vec::new(),
            free: Vec::new(),
            sender: None,
            closed: false,
        }));
        (Self { state: Arc::clone(&state) }, Requests { state })
    }

    /// One request and its response.
    pub(super) async fn call(&self, request: Q::Item) -> Result<A::Item, StreamEnded> {
        let (sender, receiver) = oneshot::channel();
        let waker = locked(&self.state, |state| {
            if state.closed {
                return None;
            }
            let id = state.occupy(sender);
            state.queue.push(request);
            state.ids.push(id);
            state.sender.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
        receiver.await.map_err(|_| StreamEnded)
    }

    /// Hands responses to their callers until the stream ends; then every caller learns of it.
    pub(super) async fn pump<E>(
        state: MuxHandle<Q, A>,
        mut responses: impl Stream<Item = Result<A, E>> + Unpin,
    ) {
        while let Some(Ok(batch)) = responses.next().await {
            let (items, ids) = batch.unpack();
            locked(&state.0, |state| {
                for (id, item) in ids.into_iter().zip(items) {
                    if let Some(waiting) = state.vacate(id) {
                        // A caller that gave up is not told.
                        let _ = waiting.send(item);
                    }
                }
            });
        }
        close(&state.0);
    }

    /// For [`Mux::pump`].
    pub(super) fn handle(&self) -> MuxHandle<Q, A> {
        MuxHandle(Arc::clone(&self.state))
    }
}

/// A share of a mux's state.
pub(super) struct MuxHandle<Q: Outgoing, A: Incoming>(Shared<Q::Item, A::Item>);

impl<Q: Outgoing, A: Incoming> MuxHandle<Q, A> {
    /// The call was refused.
    pub(super) fn fail(&self) {
        close(&self.0);
    }
}

fn close<Q, A>(shared: &Shared<Q, A>) {
    let waker = locked(shared, |state| {
        state.closed = true;
        state.waiting.clear();
        state.sender.take()
    });
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<Q: Outgoing, A: Incoming> Drop for Mux<Q, A> {
    fn drop(&mut self) {
        close(&self.state);
    }
}

impl<Q: Outgoing, A: Incoming> Stream for Requests<Q, A> {
    type Item = Q;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Q>> {
        locked(&self.state, |state| {
            if state.closed {
                return Poll::Ready(None);
            }
            if state.queue.is_empty() {
                state.sender = Some(context.waker().clone());
                return Poll::Pending;
            }
            let (items, ids) = (std::mem::take(&mut state.queue), std::mem::take(&mut state.ids));
            Poll::Ready(Some(Q::pack(items, ids)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Batch(Vec<u64>, Vec<u64>);

    impl Outgoing for Batch {
        type Item = u64;

        fn pack(items: Vec<u64>, ids: Vec<u64>) -> Self {
            Self(items, ids)
        }
    }

    impl Incoming for Batch {
        type Item = u64;

        fn unpack(self) -> (Vec<u64>, Vec<u64>) {
            (self.0, self.1)
        }
    }

    /// Doubles every number, and answers the last request of a message first.
    fn doubled(Batch(items, ids): Batch) -> Result<Batch, ()> {
        let items = items.into_iter().rev().map(|item| 2 * item).collect();
        Ok(Batch(items, ids.into_iter().rev().collect()))
    }

    #[tokio::test]
    async fn every_caller_gets_its_own_answer_whatever_the_order() {
        let (mux, requests) = Mux::<Batch, Batch>::new();
        let pump = Mux::pump(mux.handle(), requests.map(doubled));
        let calls = async {
            for round in 0..3_u64 {
                let calls = (0..100).map(|number| mux.call(round * 100 + number));
                let answers = futures::future::join_all(calls).await;
                for (number, answer) in (0_u64..).zip(answers) {
                    assert_eq!(answer.expect("answered"), 2 * (round * 100 + number));
                }
            }
            assert_eq!(locked(&mux.state, |state| state.waiting.len()), 100, "ids are used again");
            drop(mux);
        };
        tokio::join!(pump, calls);
    }

    #[tokio::test]
    async fn callers_learn_that_the_stream_has_ended() {
        let (mux, requests) = Mux::<Batch, Batch>::new();
        let one_answer = requests.map(doubled).take(1);
        let pump = Mux::pump(mux.handle(), one_answer);
        let calls = async {
            assert!(mux.call(1).await.is_ok());
            assert!(mux.call(2).await.is_err());
            assert!(mux.call(3).await.is_err(), "at once, without a stream");
        };
        tokio::join!(pump, calls);
    }
}

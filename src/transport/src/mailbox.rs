//! A bounded queue between threads that hand over one item at a time and one stream that takes everything at once.
//!
//! - *Push* never waits: a full mailbox refuses the item and gives it back, the caller counts or retries it.
//! - *Take* empties the mailbox into one batch of at most `batch_bytes_max`; what is over stays for the next take. There
//!   is no timer: what is queued when the stream is polled goes out, so a batch is as large as the backlog, and no older.
//! - The stream's task is woken by the first push after an empty take, not by the following ones.
//!
//! Invariants: 1. items leave in the order they came; 2. `bytes` is the sum of the queued weights; 3. at most one
//! [`Batches`] is live: opening a new one ends the earlier one, so a dead connection never swallows messages of its
//! successor.
//!
//! Tests: below.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use parking_lot::Mutex;

/// Bounds of one [`Mailbox`].
#[derive(Clone, Copy, Debug)]
pub struct MailboxLimits {
    /// Items queued at most.
    pub items_max: usize,
    /// Sum of the queued weights at most; one item alone may exceed it.
    pub bytes_max: usize,
    /// Weight of one batch at most; one item alone may exceed it.
    pub batch_bytes_max: usize,
}

/// See the module header.
#[derive(Debug)]
pub struct Mailbox<T> {
    limits: MailboxLimits,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    waker: Option<Waker>,
    /// Which [`Batches`] may take; earlier ones end.
    generation: u64,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// An empty mailbox.
    pub fn new(limits: MailboxLimits) -> Mailbox<T> {
        assert!(limits.items_max > 0 && limits.bytes_max > 0 && limits.batch_bytes_max > 0);
        let state =
            State { items: VecDeque::new(), bytes: 0, waker: None, generation: 0, closed: false };
        Mailbox { limits, state: Mutex::new(state) }
    }

    /// Queues one item of the given weight, or gives it back: the mailbox is full or closed.
    pub fn push(&self, item: T, bytes: usize) -> Result<(), T> {
        let mut state = self.state.lock();
        let waker = match state.push(&self.limits, item, bytes) {
            Ok(()) => state.waker.take(),
            Err(item) => return Err(item),
        };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Queues many items under one lock and one wake-up; returns how many were refused.
    pub fn push_all(&self, items: impl Iterator<Item = (T, usize)>) -> usize {
        let mut refused = 0;
        let mut state = self.state.lock();
        for (item, bytes) in items {
            if state.push(&self.limits, item, bytes).is_err() {
                refused += 1;
            }
        }
        let waker = if state.items.is_empty() { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        refused
    }

    /// Forgets everything queued; returns how many items that were.
    pub fn clear(&self) -> usize {
        let mut state = self.state.lock();
        state.bytes = 0;
        let cleared = std::mem::take(&mut state.items);
        drop(state);
        cleared.len()
    }

    /// Refuses every later push and ends the stream once it has taken what is queued.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether [`Mailbox::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Items queued now.
    pub fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stream of batches; the one opened before ends.
    pub fn batches(self: &Arc<Self>) -> Batches<T> {
        let mut state = self.state.lock();
        state.generation += 1;
        let (generation, waker) = (state.generation, state.waker.take());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Batches { mailbox: self.clone(), generation }
    }

    /// Ready as soon as something is queued or the mailbox is closed; nothing is taken.
    pub async fn wait(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.closed || !state.items.is_empty() {
                return Poll::Ready(());
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Takes one batch, or registers the task for the next push. `None`: closed and empty.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Vec<T>>> {
        self.state.lock().poll_take(&self.limits, cx)
    }
}

impl<T> State<T> {
    fn push(&mut self, limits: &MailboxLimits, item: T, bytes: usize) -> Result<(), T> {
        let full = self.items.len() >= limits.items_max
            || (!self.items.is_empty() && self.bytes.saturating_add(bytes) > limits.bytes_max);
        if self.closed || full {
            return Err(item);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.push_back((item, bytes));
        Ok(())
    }

    fn poll_take(&mut self, limits: &MailboxLimits, cx: &mut Context<'_>) -> Poll<Option<Vec<T>>> {
        if self.items.is_empty() {
            if self.closed {
                return Poll::Ready(None);
            }
            match &mut self.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                empty => *empty = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        self.waker = None;
        let mut batch = Vec::new();
        if self.bytes <= limits.batch_bytes_max {
            self.bytes = 0;
            batch.extend(self.items.drain(..).map(|(item, _)| item));
            return Poll::Ready(Some(batch));
        }
        let mut taken_bytes = 0_usize;
        while let Some((_, bytes)) = self.items.front() {
            if !batch.is_empty() && taken_bytes.saturating_add(*bytes) > limits.batch_bytes_max {
                break;
            }
            let Some((item, bytes)) = self.items.pop_front() else { break };
            taken_bytes = taken_bytes.saturating_add(bytes);
            self.bytes -= bytes;
            batch.push(item);
        }
        Poll::Ready(Some(batch))
    }
}

/// Everything queued, batch after batch. Ends when the mailbox is closed and empty, or when a newer one was opened.
#[derive(Debug)]
pub struct Batches<T> {
    mailbox: Arc<Mailbox<T>>,
    generation: u64,
}

impl<T> Stream for Batches<T> {
    type Item = Vec<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Vec<T>>> {
        let mut state = self.mailbox.state.lock();
        if state.generation != self.generation {
            return Poll::Ready(None);
        }
        state.poll_take(&self.mailbox.limits, cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::task::noop_waker_ref;

    use super::*;

    const LIMITS: MailboxLimits =
        MailboxLimits { items_max: 4, bytes_max: 100, batch_bytes_max: 50 };

    fn take(batches: &mut Batches<u32>) -> Poll<Option<Vec<u32>>> {
        batches.poll_next_unpin(&mut Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn everything_queued_leaves_as_one_batch_in_order() {
        let mailbox = Arc::new(Mailbox::new(LIMITS));
        let mut batches = mailbox.batches();
        assert_eq!(take(&mut batches), Poll::Pending);
        for item in 1..=3 {
            assert_eq!(mailbox.push(item, 10), Ok(()));
        }
        assert_eq!(take(&mut batches), Poll::Ready(Some(vec![1, 2, 3])));
        assert_eq!(take(&mut batches), Poll::Pending);
    }

    #[test]
    fn a_full_mailbox_refuses_and_gives_back() {
        let mailbox = Mailbox::new(LIMITS);
        assert_eq!(mailbox.push_all((0..6).map(|item| (item, 1))), 2);
        assert_eq!(mailbox.push(9, 1), Err(9));
        assert_eq!(mailbox.clear(), 4);
        assert_eq!(mailbox.push(1, 90), Ok(()));
        assert_eq!(mailbox.push(2, 11), Err(2), "over the byte bound");
        assert_eq!(mailbox.push(3, 10), Ok(()));
        assert_eq!(mailbox.clear(), 2);
        assert_eq!(mailbox.push(4, 1000), Ok(()), "one oversized item alone is let through");
    }

    #[test]
    fn a_batch_is_cut_at_its_byte_bound() {
        let mailbox = Arc::new(Mailbox::new(LIMITS));
        let mut batches = mailbox.batches();
        assert_eq!(mailbox.push_all([(1, 30), (2, 20), (3, 40)].into_iter()), 0);
        assert_eq!(take(&mut batches), Poll::Ready(Some(vec![1, 2])));
        assert_eq!(take(&mut batches), Poll::Ready(Some(vec![3])));
        assert_eq!(mailbox.push(4, 70), Ok(()));
        assert_eq!(take(&mut batches), Poll::Ready(Some(vec![4])), "alone over the bound");
    }

    #[test]
    fn a_newer_stream_ends_the_older_one_and_loses_nothing() {
        let mailbox = Arc::new(Mailbox::new(LIMITS));
        let mut old = mailbox.batches();
        assert_eq!(take(&mut old), Poll::Pending);
        let mut new = mailbox.batches();
        assert_eq!(mailbox.push(1, 1), Ok(()));
        assert_eq!(take(&mut old), Poll::Ready(None));
        assert_eq!(take(&mut new), Poll::Ready(Some(vec![1])));
    }

    #[test]
    fn closing_ends_the_stream_after_what_is_queued() {
        let mailbox = Arc::new(Mailbox::new(LIMITS));
        let mut batches = mailbox.batches();
        assert_eq!(mailbox.push(1, 1), Ok(()));
        mailbox.close();
        assert_eq!(mailbox.push(2, 1), Err(2));
        assert_eq!(take(&mut batches), Poll::Ready(Some(vec![1])));
        assert_eq!(take(&mut batches), Poll::Ready(None));
    }
}

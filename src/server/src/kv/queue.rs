//! The answers of one `BatchCommands` stream that wait to be sent.
//!
//! Answers are put together into response messages as they come, on whatever thread they come from, so that the stream
//! moves whole messages and never single answers. The stream is woken by the first answer after it found none.
//!
//! Invariants: 1. answers leave in the order they came, work excepted; 2. a message is not larger than
//! [`RESPONSE_BYTES_MAX`] unless it holds one answer only; 3. a closed queue holds nothing.
//!
//! Tests: below, and `kv/tests/stream.rs`.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use proto::tikvpb::BatchCommandsResponse;
use proto::tikvpb::batch_commands_response as response;

/// Answers are merged up to this size; one alone may be larger. Far below the 4 MiB that clients accept by default.
pub(crate) const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// The command of one answer.
pub(crate) type ResponseCmd = response::response::Cmd;

/// A read that runs when its answer is about to be sent.
pub(crate) type Deferred = Box<dyn FnOnce() -> (ResponseCmd, usize) + Send>;

/// See the module header.
#[derive(Default)]
pub(crate) struct AnswerQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Complete ones, and the one being filled last.
    messages: VecDeque<BatchCommandsResponse>,
    /// Encoded size of the last message's answers.
    last_bytes: usize,
    deferred: Vec<(u64, Deferred)>,
    waker: Option<Waker>,
    closed: bool,
}

impl AnswerQueue {
    /// Adds the answer to request `id`, which takes about `bytes` when encoded.
    pub(crate) fn push(&self, id: u64, cmd: ResponseCmd, bytes: usize) {
        let mut state = self.state.lock();
        state.push(id, cmd, bytes);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Adds a read that is still to be made.
    pub(crate) fn defer(&self, id: u64, read: Deferred) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.deferred.push((id, read));
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next message, or the promise to wake the task when there is one. Reads that were put off run here.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<BatchCommandsResponse> {
        let mut state = self.state.lock();
        while !state.deferred.is_empty() {
            let due = std::mem::take(&mut state.deferred);
            drop(state);
            let done: Vec<_> = due.into_iter().map(|(id, read)| (id, read())).collect();
            state = self.state.lock();
            for (id, (cmd, bytes)) in done {
                state.push(id, cmd, bytes);
            }
        }
        match state.messages.pop_front() {
            Some(message) => Poll::Ready(message),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Drops what is queued and everything that comes later: nobody is there to get it.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.messages);
        let deferred = std::mem::take(&mut state.deferred);
        drop(state);
        drop((dropped, deferred));
    }
}

impl State {
    fn push(&mut self, id: u64, cmd: ResponseCmd, bytes: usize) {
        if self.closed {
            return;
        }
        let fits = self.last_bytes.saturating_add(bytes) <= RESPONSE_BYTES_MAX;
        if self.messages.is_empty() || !fits {
            self.messages.push_back(BatchCommandsResponse::default());
            self.last_bytes = 0;
        }
        self.last_bytes = self.last_bytes.saturating_add(bytes);
        if let Some(message) = self.messages.back_mut() {
            message.request_ids.push(id);
            message.responses.push(response::Response { cmd: Some(cmd) });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;
    use proto::tikvpb::BatchCommandsEmptyResponse;

    use super::*;

    fn cmd(test_id: u64) -> ResponseCmd {
        ResponseCmd::Empty(BatchCommandsEmptyResponse { test_id })
    }

    fn take(queue: &AnswerQueue) -> Option<Vec<u64>> {
        match queue.poll_next(&Context::from_waker(noop_waker_ref())) {
            Poll::Ready(message) => {
                assert_eq!(message.request_ids.len(), message.responses.len());
                Some(message.request_ids)
            }
            Poll::Pending => None,
        }
    }

    #[test]
    fn answers_are_merged_up_to_the_bound() {
        let queue = AnswerQueue::default();
        assert_eq!(take(&queue), None);
        for id in 1..=3 {
            queue.push(id, cmd(id), RESPONSE_BYTES_MAX / 2);
        }
        queue.push(4, cmd(4), 3 * RESPONSE_BYTES_MAX);
        queue.push(5, cmd(5), 1);
        assert_eq!(take(&queue), Some(vec![1, 2]));
        assert_eq!(take(&queue), Some(vec![3]));
        assert_eq!(take(&queue), Some(vec![4]), "alone over the bound");
        assert_eq!(take(&queue), Some(vec![5]));
        queue.push(6, cmd(6), RESPONSE_BYTES_MAX);
        assert_eq!((take(&queue), take(&queue)), (Some(vec![6]), None));
    }

    #[test]
    fn deferred_reads_run_when_they_are_sent() {
        let queue = AnswerQueue::default();
        queue.push(1, cmd(1), 1);
        queue.defer(2, Box::new(|| (cmd(2), 1)));
        assert_eq!(take(&queue), Some(vec![1, 2]));
        queue.close();
        queue.push(3, cmd(3), 1);
        queue.defer(4, Box::new(|| unreachable!("nobody is there")));
        assert_eq!(take(&queue), None);
    }
}

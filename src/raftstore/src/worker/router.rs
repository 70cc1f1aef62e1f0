//! The way into a store, for any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::Sender;
use proto::raft_serverpb::RaftMessage;

use super::counters::{Counters, CountersView, add};
use crate::msg::StoreMsg;

/// Raft messages that may wait for the store loop. Beyond, they are dropped: Raft sends again, and a store that cannot keep
/// up does better without a backlog of old heartbeats.
pub const RAFT_MESSAGES_QUEUED_MAX: usize = 16 << 10;
/// The same for the bytes of their entries.
pub const RAFT_BYTES_QUEUED_MAX: usize = 256 << 20;

/// Something for the store loop.
pub(super) enum Input {
    /// For the store.
    Msg(StoreMsg),
    /// A Raft message, and what it counts for.
    Raft(RaftMessage, usize),
    /// End.
    Stop,
}

/// Why an input was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too many Raft messages wait; this one was dropped.
    #[error("too many Raft messages are waiting")]
    Full,
    /// The store has been stopped. Replies inside the input have been answered.
    #[error("the store has been stopped")]
    Stopped,
}

/// Sends inputs to a store. Cheap to clone; never blocks.
#[derive(Clone)]
pub struct Router {
    inputs: Sender<Input>,
    queued: Arc<Queued>,
    counters: Arc<Counters>,
}

/// Raft messages that wait.
#[derive(Debug, Default)]
struct Queued {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("queued", &self.queued).finish_non_exhaustive()
    }
}

impl Router {
    pub(super) fn new(inputs: Sender<Input>, counters: Arc<Counters>) -> Router {
        Router { inputs, queued: Arc::default(), counters }
    }

    /// Queues an input.
    pub fn send(&self, msg: StoreMsg) -> Result<(), SendError> {
        let input = match msg {
            StoreMsg::Raft(message) => self.admit(message)?,
            msg => Input::Msg(msg),
        };
        self.inputs.send(input).map_err(|_| SendError::Stopped)
    }

    /// What the threads have done so far.
    pub fn counters(&self) -> CountersView {
        self.counters.view()
    }

    pub(super) fn stop(&self) {
        // If it has stopped already, all the better.
        let _ = self.inputs.send(Input::Stop);
    }

    fn admit(&self, message: RaftMessage) -> Result<Input, SendError> {
        let bytes = entry_bytes(&message);
        let Queued { messages, bytes: total } = self.queued.as_ref();
        let full = messages.load(Ordering::Relaxed) >= RAFT_MESSAGES_QUEUED_MAX
            || total.load(Ordering::Relaxed) + bytes > RAFT_BYTES_QUEUED_MAX;
        if full {
            add(&self.counters.raft_messages_dropped, 1);
            return Err(SendError::Full);
        }
        messages.fetch_add(1, Ordering::Relaxed);
        total.fetch_add(bytes, Ordering::Relaxed);
        Ok(Input::Raft(message, bytes))
    }

    /// A Raft message has left the queue.
    pub(super) fn taken(&self, bytes: usize) {
        self.queued.messages.fetch_sub(1, Ordering::Relaxed);
        self.queued.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn entry_bytes(message: &RaftMessage) -> usize {
    let entries = message.message.as_ref().map_or(&[][..], |message| &message.entries);
    entries.iter().map(|entry| entry.data.len()).sum()
}

//! Messages between stores: Raft messages on one batched stream per pair, snapshots on streams of their own.
//!
//! - *Link*: the sending half towards one store; one task, one stream, a bounded [`Mailbox`].
//! - *Snapshot stream*: one per snapshot, in checked chunks.
//! - *Receiver*: the gRPC service that takes both ([`Receiver`]) and hands them to a [`Deliver`].
//!
//! # Invariants
//! 1. A full queue drops Raft messages and counts them; it never makes the sender wait. Raft is built for loss.
//! 2. A batch of another cluster, or for another store, is refused with the stream: a store that moved to a foreign address
//!    is noticed, not fed.
//! 3. What arrives is handed on, never acted upon: whether a message makes sense is the region's business.
//! 4. A snapshot counts as sent only when the receiver has said that all of it is checked and on its disk.
//!
//! Nothing here knows regions beyond their ids, so the scheduler's replicas can use the same transport.
//!
//! Tests: at the modules, and `tests/loopback` over real sockets.

mod counters;
mod link;
pub mod mailbox;
mod pace;
mod receive;
pub mod resolve;
mod snapshot_receive;
mod snapshot_send;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use prost::Message as _;
use proto::ids::StoreId;
use proto::raft_serverpb::RaftMessage;
use raftstore::msg::SnapshotSend;
use raftstore::worker::SnapshotDone;
use tokio::runtime::Handle;

pub use crate::counters::Counters;
use crate::counters::add;
use crate::link::Link;
pub use crate::mailbox::{Batches, Mailbox, MailboxLimits};
pub use crate::pace::Pace;
pub use crate::receive::{Deliver, Receiver, SnapshotSpace};
use crate::resolve::Addresses;
pub use crate::resolve::{Resolve, ResolveError, Resolving};

/// Who a store is, as its messages say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster; messages never cross it.
    pub cluster_id: u64,
    /// The store.
    pub store_id: StoreId,
}

/// Called when messages to a store could not be delivered.
pub type OnUnreachable = Arc<dyn Fn(StoreId) + Send + Sync>;

/// Why something could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody knows where the store is.
    #[error("no address: {0}")]
    NoAddress(String),
    /// Nobody answers there.
    #[error("{address}: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// What failed.
        reason: String,
    },
    /// The other side refused, or the connection broke.
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    /// The other side ended the stream.
    #[error("ended by the other side")]
    Ended,
    /// Nothing moved for too long.
    #[error("timed out")]
    TimedOut,
    /// What was to be sent could not be read.
    #[error("cannot be read: {0}")]
    Source(String),
}

/// What a [`Transport`] is made of.
pub struct Parts {
    /// Who sends.
    pub identity: Identity,
    /// Where stores are.
    pub resolve: Arc<dyn Resolve>,
    /// Told when a store cannot be reached.
    pub on_unreachable: OnUnreachable,
    /// The rate of all snapshots that are sent, together; 0 is no limit.
    pub snapshot_bytes_per_second: u64,
    /// Shared with the receiving half.
    pub counters: Arc<Counters>,
}

/// The sending half; clones share it.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
    links: Arc<RwLock<BTreeMap<StoreId, Arc<Mailbox<RaftMessage>>>>>,
}

/// What every link needs.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) addresses: Addresses,
    pub(crate) on_unreachable: OnUnreachable,
    pub(crate) runtime: Handle,
    pub(crate) pace: Pace,
    pub(crate) counters: Arc<Counters>,
    pub(crate) log: slog::Logger,
}

impl Transport {
    /// A transport whose tasks run on `runtime`.
    pub fn new(parts: Parts, runtime: Handle, log: slog::Logger) -> Transport {
        let Parts { identity, resolve, on_unreachable, snapshot_bytes_per_second, counters } =
            parts;
        let addresses = Addresses::new(resolve);
        let pace = Pace::new(snapshot_bytes_per_second);
        let shared = Shared { identity, addresses, on_unreachable, runtime, pace, counters, log };
        Transport { shared: Arc::new(shared), links: Arc::default() }
    }

    /// Streams a snapshot and says whether it has arrived.
    pub async fn stream_snapshot(&self, snapshot: SnapshotSend) -> bool {
        snapshot_send::send(self.shared.clone(), snapshot).await
    }

    /// Ends every link after what it has queued; later messages are dropped.
    pub fn close(&self) {
        for mailbox in self.links.read().values() {
            mailbox.close();
        }
    }

    fn link(&self, to: StoreId) -> Arc<Mailbox<RaftMessage>> {
        if let Some(mailbox) = self.links.read().get(&to) {
            return mailbox.clone();
        }
        let mut links = self.links.write();
        links.entry(to).or_insert_with(|| Link::open(to, &self.shared)).clone()
    }
}

impl raftstore::worker::Transport for Transport {
    /// Queues messages for their stores; never waits. What does not fit is dropped and counted.
    fn send(&self, messages: Vec<RaftMessage>) {
        let mut by_store: Vec<(StoreId, Vec<(RaftMessage, usize)>)> = Vec::new();
        for message in messages {
            let to = StoreId::from(message.to_peer.map_or(0, |peer| peer.store_id));
            let bytes = message.encoded_len();
            match by_store.iter_mut().find(|(store, _)| *store == to) {
                Some((_, queue)) => queue.push((message, bytes)),
                None => by_store.push((to, vec![(message, bytes)])),
            }
        }
        for (to, messages) in by_store {
            let dropped = if to.is_none() || to == self.shared.identity.store_id {
                messages.len()
            } else {
                self.link(to).push_all(messages.into_iter())
            };
            add(&self.shared.counters.messages_dropped, dropped);
        }
    }

    fn send_snapshot(&self, snapshot: SnapshotSend, done: SnapshotDone) {
        let transport = self.clone();
        let sending = async move { done.report(transport.stream_snapshot(snapshot).await) };
        self.shared.runtime.spawn(sending);
    }
}

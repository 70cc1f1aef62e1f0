//! The sending half for Raft messages: one long-lived stream per target store.
//!
//! # Life of a message
//! The store's loop hands over everything of a turn; each message goes into its target's [`Mailbox`], or is dropped and
//! counted if that is full (Raft sends again). The link's one task keeps a stream to the target open; whenever it can
//! send, it sends all that is queued as one `RaftBatch`.
//!
//! When the connection breaks, or cannot be made, what is queued is dropped (it would be stale by the next attempt), the
//! store is told that the target is unreachable, the address is asked again, and the next attempt waits a little longer.
//!
//! Tests: `tests/loopback`.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use proto::flotillapb::RaftBatch;
use proto::flotillapb::transport_client::TransportClient;
use proto::ids::StoreId;
use proto::raft_serverpb::RaftMessage;
use tonic::transport::{Channel, Endpoint};

use crate::counters::add;
use crate::mailbox::{Mailbox, MailboxLimits};
use crate::{SendError, Shared};

/// Messages that wait for one store at most. At 100 ms per heartbeat this is many seconds of an idle store's traffic, and a
/// few turns of a busy one's.
const QUEUED_MESSAGES_MAX: usize = 8 * 1024;
/// Bytes that wait for one store at most.
const QUEUED_BYTES_MAX: usize = 32 << 20;
/// A batch is cut at this size; one message alone may be larger.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A connection is given up if it is not made within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is probed after this time …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// … and given up after this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Flow control lets this much be under way: several batches.
const WINDOW_BYTES: u32 = 16 << 20;

/// The wait before the second attempt; it doubles up to the maximum.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest wait between attempts: short, because a restarted store is wanted back within an election timeout.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A connection that held this long starts the waits anew.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// One target store.
pub(crate) struct Link {
    to: StoreId,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox<RaftMessage>>,
}

impl Link {
    /// Starts the link's task.
    pub(crate) fn open(to: StoreId, shared: &Arc<Shared>) -> Arc<Mailbox<RaftMessage>> {
        let mailbox = Arc::new(Mailbox::new(MailboxLimits {
            items_max: QUEUED_MESSAGES_MAX,
            bytes_max: QUEUED_BYTES_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
        }));
        let link = Link { to, shared: shared.clone(), mailbox: mailbox.clone() };
        shared.runtime.spawn(link.run());
        mailbox
    }

    async fn run(self) {
        let mut wait = BACKOFF_MIN;
        loop {
            self.mailbox.wait().await;
            if self.mailbox.is_closed() {
                return;
            }
            let started = tokio::time::Instant::now();
            let ended = self.serve().await;
            if self.mailbox.is_closed() {
                return;
            }
            if started.elapsed() >= STABLE_AFTER {
                wait = BACKOFF_MIN;
            }
            self.failed(&ended, wait);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(BACKOFF_MAX);
        }
    }

    /// Sends until the stream ends, and says why it did.
    async fn serve(&self) -> SendError {
        let channel = match connect(&self.shared, self.to).await {
            Ok(channel) => channel,
            Err(error) => return error,
        };
        slog::info!(self.shared.log, "connected to store"; "to_store" => self.to.get());
        let (identity, to) = (self.shared.identity, self.to.get());
        let shared = self.shared.clone();
        let batches = self.mailbox.batches().map(move |messages| {
            add(&shared.counters.messages_sent, messages.len());
            add(&shared.counters.batches_sent, 1);
            RaftBatch {
                cluster_id: identity.cluster_id,
                from_store_id: identity.store_id.get(),
                to_store_id: to,
                messages,
            }
        });
        match TransportClient::new(channel).raft(batches).await {
            Ok(_) => SendError::Ended,
            Err(status) => SendError::Refused(Box::new(status)),
        }
    }

    fn failed(&self, error: &SendError, wait: Duration) {
        add(&self.shared.counters.connections_failed, 1);
        add(&self.shared.counters.messages_dropped, self.mailbox.clear());
        self.shared.addresses.forget(self.to);
        slog::debug!(self.shared.log, "connection to store failed";
            "to_store" => self.to.get(), "reason" => %error, "retry_in_ms" => wait.as_millis() as u64);
        (self.shared.on_unreachable)(self.to);
    }
}

/// Opens a connection to a store.
pub(crate) async fn connect(shared: &Shared, to: StoreId) -> Result<Channel, SendError> {
    let address = tokio::time::timeout(CONNECT_TIMEOUT, shared.addresses.find(to))
        .await
        .map_err(|_| SendError::NoAddress("timed out".to_owned()))?
        .map_err(|error| SendError::NoAddress(error.to_string()))?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| SendError::NoAddress(format!("{address}: {error}")))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await;
    match connected {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(SendError::Unreachable { address, reason: chain(&error) }),
        Err(_) => Err(SendError::Unreachable { address, reason: "timed out".to_owned() }),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

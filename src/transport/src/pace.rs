//! Spreads the chunks of all snapshots of one direction over time: they must not crowd out Raft messages.
//!
//! The disk and the network have two ends: a store limits what it sends, and what all others together send to it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use raftstore::Instant;
use raftstore::snapshot::TokenBucket;

/// How much may pass at once before the limit begins to hold.
const BURST_BYTES: u64 = 4 << 20;

/// See the module header. Clones share the limit.
#[derive(Clone, Debug)]
pub struct Pace {
    bucket: Arc<Mutex<TokenBucket>>,
    origin: tokio::time::Instant,
}

impl Pace {
    /// At most `bytes_per_second` on average; 0 is no limit.
    pub fn new(bytes_per_second: u64) -> Pace {
        let bucket = Arc::new(Mutex::new(TokenBucket::new(bytes_per_second, BURST_BYTES)));
        Pace { bucket, origin: tokio::time::Instant::now() }
    }

    /// How long to wait before `bytes` more may pass.
    pub(crate) fn take(&self, bytes: usize) -> Duration {
        let since = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.bucket.lock().take(bytes as u64, Instant::from_ns(since))
    }
}

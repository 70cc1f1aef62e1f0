//! Writers that note what was acknowledged to them, and the reading that holds the cluster to it.
//!
//! Their keys are spread over the whole key space, so every region has some. Every other writer puts without a session;
//! appends always have one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::{Class, Client, Error, WriteMode};

use super::{Cluster, DEADLINE, wait_for_async};

/// A step of a random sequence (splitmix64).
pub(crate) fn dice(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number of the environment.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A name somewhere in the key space: a region can be cut wherever the first eight bytes change.
fn spread(name: &str) -> String {
    let mut seed = name.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(131) + u64::from(byte));
    format!("{:08x}/{name}", dice(&mut seed) >> 32)
}

/// What one writer knows for certain.
#[derive(Default)]
struct Journal {
    /// Key → value that was acknowledged.
    written: BTreeMap<String, String>,
    /// The counter key: the last value acknowledged, and the last one tried.
    counter: (u64, u64),
    /// Appends acknowledged, and those nobody knows about.
    appended: (u64, u64),
    /// Errors that were no doubts: the writes have certainly not been applied.
    failed: Vec<String>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Journal { written, counter, appended, failed } = self;
        let (written, failed) = (written.len(), failed.len());
        write!(f, "{written} written, counter {counter:?}, appended {appended:?}, {failed} failed")
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// Writers at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    writers: Vec<tokio::task::JoinHandle<Journal>>,
}

/// What all writers were told, once they have stopped.
pub(crate) struct Ledger(Vec<Journal>);

impl Load {
    /// So many writers, with values of so many bytes.
    pub(crate) fn start(client: &Client, writers: u64, value_bytes: usize) -> Load {
        let shared = Arc::new(Shared::default());
        let writer = |number| {
            let (client, shared) = (client.clone(), Arc::clone(&shared));
            tokio::spawn(write(number, value_bytes, client, shared))
        };
        let writers = (0..writers).map(writer).collect();
        Load { shared, writers }
    }

    /// Writes acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for so many more.
    pub(crate) async fn progress(&self, more: u64, cluster: &Cluster, what: &str) {
        let goal = self.acknowledged() + more;
        let reached = async || (self.acknowledged() >= goal).then_some(());
        let waiting = wait_for_async(what, reached);
        if tokio::time::timeout(DEADLINE - Duration::from_secs(5), waiting).await.is_err() {
            panic!("{what}: no progress\n{}", cluster.logs());
        }
    }

    /// Ends the writers.
    pub(crate) async fn stop(self) -> Ledger {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut journals = Vec::new();
        for writer in self.writers {
            journals.push(writer.await.expect("the writer ends"));
        }
        Ledger(journals)
    }
}

async fn write(writer: u64, value_bytes: usize, client: Client, shared: Arc<Shared>) -> Journal {
    let mut journal = Journal::default();
    let client = if is_plain(writer) { client.with_write_mode(WriteMode::Plain) } else { client };
    let (counter, appended) = (spread(&format!("c{writer}")), spread(&format!("a{writer}")));
    let acknowledge = || shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    for turn in 1.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let key = spread(&format!("w{writer}/{turn}"));
        let mut value = format!("value {turn} of {writer} ");
        value.extend(std::iter::repeat_n('.', value_bytes.saturating_sub(value.len())));
        match client.put(key.clone(), value.clone()).await {
            Ok(()) => {
                journal.written.insert(key, value);
                acknowledge();
            }
            Err(error) => journal.failed(error),
        }
        journal.counter.1 = turn;
        match client.put(counter.clone(), turn.to_string()).await {
            Ok(()) => {
                journal.counter.0 = turn;
                acknowledge();
            }
            Err(error) => journal.failed(error),
        }
        match client.append(appended.clone(), "x").await {
            Ok(_) => {
                journal.appended.0 += 1;
                acknowledge();
            }
            Err(error) => {
                journal.appended.1 += u64::from(error.class() == Class::Undetermined);
                journal.failed(error);
            }
        }
    }
    journal
}

/// Whether the writer's puts may be applied late, after a later one: then its counter says nothing.
fn is_plain(writer: u64) -> bool {
    writer % 2 == 1
}

impl Journal {
    fn failed(&mut self, error: Error) {
        self.failed.push(error.to_string());
    }
}

impl Ledger {
    /// How many different keys were acknowledged.
    pub(crate) fn keys(&self) -> u64 {
        self.0.iter().map(|journal| journal.written.len() as u64).sum()
    }

    /// What the writers were told instead of an acknowledgement.
    pub(crate) fn errors(&self) -> Vec<&str> {
        self.0.iter().flat_map(|journal| &journal.failed).map(String::as_str).collect()
    }

    /// Reads all of it again. Panics where something acknowledged is not there, or was applied twice.
    pub(crate) async fn verify(&self, client: &Client, cluster: &Cluster) {
        for (writer, journal) in (0..).zip(&self.0) {
            verify(client, writer, journal, cluster).await;
        }
    }
}

async fn verify(client: &Client, writer: u64, journal: &Journal, cluster: &Cluster) {
    let keys: Vec<Bytes> = journal.written.keys().map(|key| Bytes::from(key.clone())).collect();
    for chunk in keys.chunks(500) {
        let found: BTreeMap<Bytes, Bytes> =
            client.batch_get(chunk.to_vec()).await.expect("reads work").into_iter().collect();
        for key in chunk {
            let text = std::str::from_utf8(key).expect("ours");
            let expected = journal.written[text].as_bytes();
            let value = found.get(key).map(|value| &value[..]);
            assert!(value == Some(expected), "{text} was acknowledged\n{}", cluster.logs());
        }
    }
    let (acknowledged, tried) = journal.counter;
    let counter = client.get(spread(&format!("c{writer}"))).await.expect("reads work");
    let counter: u64 = counter
        .map_or(0, |text| std::str::from_utf8(&text).expect("ours").parse().expect("a number"));
    assert!(
        is_plain(writer) || (acknowledged..=tried).contains(&counter),
        "writer {writer}: counter {counter} of {journal:?}\n{}",
        cluster.logs()
    );
    let (once, unknown) = journal.appended;
    let length = client.get(spread(&format!("a{writer}"))).await.expect("reads work");
    let length = length.map_or(0, |value| value.len() as u64);
    assert!(
        (once..=once + unknown).contains(&length),
        "writer {writer}: {once} appends acknowledged, {unknown} unknown, {length} bytes there\n{}",
        cluster.logs()
    );
}

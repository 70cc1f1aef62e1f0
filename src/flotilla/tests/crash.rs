//! kill -9 under load: of one process, of the scheduler, of all at once, for many cycles. Every write that was acknowledged is
//! there afterwards, appends took effect exactly once, and a cluster that lost one process goes on.
//!
//! Every other writer puts without a session; appends always have one.
//!
//! `FLOTILLA_CRASH_CYCLES` sets the number of cycles, `FLOTILLA_CRASH_SEED` the choice of victims.

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::{Class, Client, Settings, WriteMode};
use harness::{Cluster, wait_for_async};

const WRITERS: u64 = 6;
const CYCLES: u64 = 30;

/// Acknowledged writes between two blows, so that there is something to lose.
const PROGRESS: u64 = 60;

/// What one writer knows for certain.
#[derive(Default)]
struct Journal {
    /// Key → value that was acknowledged.
    written: BTreeMap<String, String>,
    /// The counter key: the last value acknowledged, and the last one tried.
    counter: (u64, u64),
    /// Appends acknowledged, and those nobody knows about.
    appended: (u64, u64),
}

struct Load {
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

async fn write(writer: u64, client: Client, load: Arc<Load>) -> Journal {
    let mut journal = Journal::default();
    let client = if is_plain(writer) { client.with_write_mode(WriteMode::Plain) } else { client };
    let acknowledge = || load.acknowledged.fetch_add(1, Ordering::Relaxed);
    for turn in 1.. {
        if load.stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (format!("w{writer}/{turn}"), format!("value {turn} of {writer}"));
        if client.put(key.clone(), value.clone()).await.is_ok() {
            journal.written.insert(key, value);
            acknowledge();
        }
        journal.counter.1 = turn;
        if client.put(format!("c{writer}"), turn.to_string()).await.is_ok() {
            journal.counter.0 = turn;
            acknowledge();
        }
        match client.append(format!("a{writer}"), "x").await {
            Ok(_) => {
                journal.appended.0 += 1;
                acknowledge();
            }
            Err(error) if error.class() == Class::Undetermined => journal.appended.1 += 1,
            Err(_) => {}
        }
    }
    journal
}

/// Whether the writer's puts may be applied late, after a later one: then its counter says nothing.
fn is_plain(writer: u64) -> bool {
    writer % 2 == 1
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
            assert_eq!(value, Some(expected), "{text} was acknowledged\n{}", cluster.logs());
        }
    }
    let (acknowledged, tried) = journal.counter;
    let counter = client.get(format!("c{writer}")).await.expect("reads work");
    let counter: u64 = counter
        .map_or(0, |text| std::str::from_utf8(&text).expect("ours").parse().expect("a number"));
    assert!(
        is_plain(writer) || (acknowledged..=tried).contains(&counter),
        "counter {counter} of {journal:?}"
    );
    let (once, unknown) = journal.appended;
    let length = client.get(format!("a{writer}")).await.expect("reads work");
    let length = length.map_or(0, |value| value.len() as u64);
    assert!(
        (once..=once + unknown).contains(&length),
        "writer {writer}: {once} appends acknowledged, {unknown} unknown, {length} bytes there",
    );
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Journal { written, counter, appended } = self;
        write!(f, "{} written, counter {counter:?}, appended {appended:?}", written.len())
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A step of a random sequence (splitmix64).
fn dice(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^ (bits >> 29)
}

async fn progress(load: &Load, cluster: &Cluster, what: &str) {
    let goal = load.acknowledged.load(Ordering::Relaxed) + PROGRESS;
    let reached = async || (load.acknowledged.load(Ordering::Relaxed) >= goal).then_some(());
    let waiting = wait_for_async(what, reached);
    if tokio::time::timeout(harness::DEADLINE - Duration::from_secs(5), waiting).await.is_err() {
        panic!("{what}: no progress\n{}", cluster.logs());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let mut cluster = Cluster::start(3).await;
    let client =
        cluster.client(Settings { budget: Duration::from_secs(30), ..Settings::default() }).await;
    let load = Arc::new(Load { stop: AtomicBool::new(false), acknowledged: AtomicU64::new(0) });
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(writer, client.clone(), Arc::clone(&load))))
        .collect();
    let mut seed = number("FLOTILLA_CRASH_SEED", 1);
    for cycle in 0..number("FLOTILLA_CRASH_CYCLES", CYCLES) {
        progress(&load, &cluster, &format!("cycle {cycle}: before the kill")).await;
        match dice(&mut seed) % 5 {
            0 => {
                cluster.stores.iter_mut().for_each(harness::Node::kill);
                cluster.scheduler.kill();
                cluster.scheduler.start();
                cluster.stores.iter_mut().for_each(harness::Node::start);
            }
            1 => {
                cluster.scheduler.kill();
                progress(&load, &cluster, &format!("cycle {cycle}: without the scheduler")).await;
                cluster.scheduler.start();
            }
            _ => {
                let victim = (dice(&mut seed) % 3) as usize;
                cluster.stores[victim].kill();
                progress(&load, &cluster, &format!("cycle {cycle}: without store {victim}")).await;
                cluster.stores[victim].start();
            }
        }
    }
    progress(&load, &cluster, "after the last kill").await;
    load.stop.store(true, Ordering::Relaxed);
    let mut journals = Vec::new();
    for writer in writers {
        journals.push(writer.await.expect("the writer ends"));
    }
    // One more blow to all of them, and then a client that knows nothing.
    cluster.stores.iter_mut().for_each(harness::Node::kill);
    cluster.scheduler.kill();
    cluster.scheduler.start();
    cluster.stores.iter_mut().for_each(harness::Node::start);
    let reader =
        cluster.client(Settings { budget: Duration::from_secs(30), ..Settings::default() }).await;
    for (writer, journal) in (0..).zip(&journals) {
        verify(&reader, writer, journal, &cluster).await;
    }
    let total: usize = journals.iter().map(|journal| journal.written.len()).sum();
    assert!(total as u64 >= PROGRESS, "the load has lost its teeth");
}

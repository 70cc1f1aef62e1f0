//! The threads of a store: the one place in this crate that has any, or reads a clock.
//!
//! ```text
//!  Router ──▶ store loop ──┬─▶ log writer ──┐        one write and one sync for all that has queued up
//!  (clients,   (Store)     ├─▶ applier ─────┤        one engine write for all that has queued up; replies to clients
//!   transport)    ▲        ├─▶ installer ───┤        snapshots taken over, files thrown away
//!                 │        ├─▶ scanner ─────┤        whole regions read: sizes, cuts, hashes (also for the applier)
//!                 │        └─▶ Transport, Placement (must not block)
//!                 └─────────────────────────┘        Persisted, Applied, SnapshotReady, SnapshotInstalled, …
//! ```
//! Every thread blocks until something arrives, then takes all that is there: batches form by themselves under load, and an
//! idle store adds no wait. Only the store loop has a timer, for ticks.
//!
//! # Invariants
//! 1. Raft messages are dropped, and counted, when too many wait; nothing else is ever dropped (M23), and nobody but the
//!    five threads ever waits for a queue.
//! 2. The first failure, be it an error of the engine or a panic on any thread, stops the store for good (`fatal`): the
//!    loop refuses everything from then on, and whoever started the worker is told once and ends the process.
//! 3. Ticks follow a monotonic clock; those that a pause swallowed are not made up for.
//!
//! # Shutting down
//! [`Worker::stop`] ends the loop; the other threads finish what they were handed, so nothing acknowledged depends on it.
//! Leads are handed over before, if wanted ([`Worker::drain`]).
//!
//! Tests: `worker/tests.rs`. What the threads carry is tested without them.

#![expect(
    clippy::disallowed_methods,
    reason = "the edge: threads, sleep and the monotonic clock live here"
)]

mod apply_loop;
mod clock;
mod counters;
mod fatal;
mod installer;
mod log_writer;
mod router;
mod scanner;
mod store_loop;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use engine::Engine;
use proto::ids::{PeerId, RegionId};
use proto::metapb;
use proto::raft_serverpb::RaftMessage;

use crate::apply::{Applier, ApplyTask};
use crate::local_reader::LocalReader;
use crate::msg::{LogWrite, RegionHeartbeat, RegionQuestion, SnapshotSend, SplitRequest, StoreMsg};
use crate::snapshot::SnapshotFiles;
use crate::store::Store;

pub use clock::Clock;
pub use counters::{Counters, CountersView};
pub use router::{RAFT_BYTES_QUEUED_MAX, RAFT_MESSAGES_QUEUED_MAX, Router, SendError};

use fatal::Fatal;
use installer::InstallerTask;
use scanner::ScannerTask;

/// Where outgoing messages go. Called on the store loop: must not block.
pub trait Transport: Send + Sync {
    /// Sends messages; any may be lost.
    fn send(&self, messages: Vec<RaftMessage>);

    /// Streams a snapshot; `done` must learn, once, whether it arrived. Dropping `done` means that it did not.
    fn send_snapshot(&self, snapshot: SnapshotSend, done: SnapshotDone);
}

/// Reports the fate of a snapshot to the store, when dropped.
#[derive(Debug)]
pub struct SnapshotDone {
    router: Router,
    region: RegionId,
    to: PeerId,
    ok: bool,
}

/// Where reports for the scheduler go. Called on the store loop: must not block.
pub trait Placement: Send + Sync {
    /// Sends reports; any may be lost.
    fn region_heartbeats(&self, heartbeats: Vec<RegionHeartbeat>);

    /// Asks for ids; each answer is a [`StoreMsg::SplitIds`], or never comes.
    fn ask_splits(&self, requests: Vec<SplitRequest>);

    /// Reports splits, the parts of each together; any may be lost.
    fn report_splits(&self, splits: Vec<Vec<metapb::Region>>);

    /// Asks who holds a region's start key; each answer is a [`StoreMsg::RegionAnswer`], or never comes.
    fn ask_regions(&self, questions: Vec<RegionQuestion>);
}

/// What surrounds a store.
pub struct Edges {
    /// Outgoing messages.
    pub transport: Arc<dyn Transport>,
    /// Outgoing reports.
    pub placement: Arc<dyn Placement>,
    /// Called once, on the thread that failed, with the reason; should see to it that the process ends, and must not wait
    /// for the threads itself.
    pub on_fatal: Box<dyn FnOnce(&str) + Send>,
    /// Role changes, failures.
    pub log: slog::Logger,
}

/// Settings of the threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerOptions {
    /// Added to every sync of the log: a slow disk to measure with. Default none.
    pub log_sync_delay: Option<Duration>,
    /// Log writes under way beyond which the loop gathers inputs instead of taking another turn. Few keep batches large
    /// when the processor is the limit; more hide the latency of the disk. Default 4, at least 1.
    pub log_writes_in_flight_max: usize,
    /// Inputs taken between two turns. Default 4096, at least 1.
    pub inputs_per_turn_max: usize,
}

impl Default for WorkerOptions {
    fn default() -> WorkerOptions {
        WorkerOptions {
            log_sync_delay: None,
            log_writes_in_flight_max: 4,
            inputs_per_turn_max: 4096,
        }
    }
}

/// What the threads are built from.
pub struct Parts {
    /// The store, opened.
    pub store: Store,
    /// Its engine.
    pub engine: Arc<dyn Engine>,
    /// Its spool files.
    pub files: Arc<dyn SnapshotFiles>,
    /// The clock it lives by; readers by lease must use the same.
    pub clock: Clock,
    /// Time between ticks.
    pub tick: Duration,
}

/// The running threads of one store.
pub struct Worker {
    router: Router,
    reader: LocalReader,
    drained: Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

/// The sending ends of the queues that only the store loop feeds.
struct Queues {
    log: Sender<LogWrite>,
    apply: Sender<Vec<ApplyTask>>,
    install: Sender<InstallerTask>,
    scan: Sender<ScannerTask>,
}

impl Worker {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the operating system gives no thread; those already started end by themselves.
    pub fn start(parts: Parts, edges: Edges, options: WorkerOptions) -> io::Result<Worker> {
        let Parts { store, engine, files, clock, tick } = parts;
        let Edges { transport, placement, on_fatal, log } = edges;
        let counters = Arc::new(Counters::default());
        let (input, inputs) = unbounded();
        let (drained_sender, drained) = bounded(1);
        let router = Router::new(input, counters.clone());
        let fatal = Fatal::new(router.clone(), on_fatal, log.clone());
        let reader = store.local_reader();

        let (log_sender, log_writes) = unbounded();
        let (apply_sender, tasks) = unbounded();
        let (install_sender, installs) = unbounded();
        let (scan_sender, scans) = unbounded();
        let queues = Queues {
            log: log_sender,
            apply: apply_sender,
            install: install_sender,
            scan: scan_sender.clone(),
        };
        let writer = log_writer::LogWriter {
            engine: engine.clone(),
            router: router.clone(),
            counters: counters.clone(),
            delay: options.log_sync_delay,
        };
        let applier = apply_loop::ApplyLoop {
            applier: Applier::new(engine.clone()),
            scans: scan_sender,
            router: router.clone(),
            counters: counters.clone(),
        };
        let scanner = scanner::Scanner {
            engine: engine.clone(),
            router: router.clone(),
            counters: counters.clone(),
        };
        let installer = installer::Installer {
            engine,
            files,
            router: router.clone(),
            counters: counters.clone(),
            log,
        };
        let store_loop = store_loop::StoreLoop {
            store,
            clock,
            tick,
            options,
            queues,
            transport,
            placement,
            router: router.clone(),
            counters,
            drained: drained_sender,
            fatal: fatal.clone(),
        };
        let threads = vec![
            spawn("log-writer", &fatal, move || writer.run(&log_writes))?,
            spawn("applier", &fatal, move || applier.run(&tasks))?,
            spawn("installer", &fatal, move || installer.run(&installs))?,
            spawn("scanner", &fatal, move || scanner.run(&scans))?,
            spawn("store", &fatal, move || {
                store_loop.run(&inputs);
                Ok(())
            })?,
        ];
        Ok(Worker { router, reader, drained, threads })
    }

    /// Where to send inputs.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// A reader by lease.
    pub fn reader(&self) -> LocalReader {
        self.reader.clone()
    }

    /// Hands every lead away and waits until none is left, at most `patience`. Whether none is left.
    pub fn drain(&self, patience: Duration) -> bool {
        self.router.send(StoreMsg::Drain).is_ok() && self.drained.recv_timeout(patience).is_ok()
    }

    /// Ends all threads and waits for them. Whoever still waits for an answer is told that its command is stale.
    pub fn stop(self) {
        self.router.stop();
        for thread in self.threads {
            // A panic has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Starts a thread whose failure, by error or by panic, is the store's.
fn spawn(
    name: &'static str,
    fatal: &Fatal,
    run: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let fatal = fatal.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || fatal.watch(name, run))
}

impl SnapshotDone {
    fn new(router: Router, snapshot: &SnapshotSend) -> SnapshotDone {
        let (region, to) = (snapshot.region, snapshot.to.id.into());
        SnapshotDone { router, region, to, ok: false }
    }

    /// It arrived, or it did not.
    pub fn report(mut self, ok: bool) {
        self.ok = ok;
    }
}

impl Drop for SnapshotDone {
    fn drop(&mut self) {
        let SnapshotDone { region, to, ok, .. } = *self;
        // A store that has stopped need not know.
        let _ = self.router.send(StoreMsg::SnapshotSent { region, to, ok });
    }
}

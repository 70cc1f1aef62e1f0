//! The closed-loop load generator: each client sends its next request when the last one is answered.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use super::data::Dice;
use super::process::{CpuMeter, Pid};

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Op {
    /// Writes a random key.
    Put,
    /// Reads a random key, linearizably.
    Get,
    /// Reads a range of [`super::data::SCAN_ROWS`] keys.
    Scan,
}

/// A request that was not answered as it should be, for the note below the table.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

/// A system under load.
pub(super) trait Driver {
    /// One request of one client.
    async fn call(&self, client: usize, op: Op, dice: &Dice) -> Result<(), Failure>;
}

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// Before anything counts.
    pub(super) warmup: Duration,
    /// While it counts.
    pub(super) measured: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Measurement {
    /// Answers per second.
    pub(super) rate: f64,
    /// Median latency in microseconds.
    pub(super) p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    pub(super) p99_us: f64,
    /// Processor time per answer, load generator included, in microseconds.
    pub(super) cpu_us: Option<f64>,
    /// Syncs per put of the store that synced most.
    pub(super) syncs: Option<f64>,
    /// Processors used by strangers.
    pub(super) other_cores: f64,
    /// Failed requests, and one of the reasons.
    pub(super) failures: u64,
    /// See `failures`.
    pub(super) failure: Option<String>,
    /// Answers counted.
    pub(super) answers: u64,
}

/// Whose processor time counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Processes {
    /// The servers that do the work. Empty: unknown, and nothing is said about processor time.
    pub(super) measured: Vec<Pid>,
    /// Servers that are idle meanwhile.
    pub(super) bystanders: Vec<Pid>,
}

struct Recorder {
    recording: Cell<bool>,
    stopped: Cell<bool>,
    latencies_ns: RefCell<Histogram<u64>>,
    failures: Cell<u64>,
    failure: RefCell<Option<String>>,
}

/// Runs `clients` clients against `driver`.
pub(super) async fn run<D: Driver + 'static>(
    driver: Rc<D>,
    (op, clients): (Op, usize),
    dice: &Rc<Dice>,
    span: Span,
    processes: &Processes,
) -> Measurement {
    let recorder = Rc::new(Recorder {
        recording: Cell::new(false),
        stopped: Cell::new(false),
        latencies_ns: RefCell::new(Histogram::new(3).expect("three digits are valid")),
        failures: Cell::new(0),
        failure: RefCell::new(None),
    });
    let tasks = LocalSet::new();
    for client in 0..clients {
        let (driver, dice, recorder) = (driver.clone(), Rc::clone(dice), Rc::clone(&recorder));
        tasks.spawn_local(async move { run_client(&*driver, client, op, &dice, &recorder).await });
    }
    let measuring = async {
        tokio::time::sleep(span.warmup).await;
        let mut measured = processes.measured.clone();
        measured.push(std::process::id());
        let meter = CpuMeter::start(&measured, &processes.bystanders);
        let began = Instant::now();
        recorder.recording.set(true);
        tokio::time::sleep(span.measured).await;
        recorder.recording.set(false);
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), meter.stop());
        recorder.stopped.set(true);
        (elapsed, cpu)
    };
    let (elapsed, cpu) = tasks.run_until(measuring).await;
    tasks.await;
    let latencies = recorder.latencies_ns.borrow();
    let answers = latencies.len();
    Measurement {
        rate: answers as f64 / elapsed,
        p50_us: latencies.value_at_quantile(0.50) as f64 / 1e3,
        p99_us: latencies.value_at_quantile(0.99) as f64 / 1e3,
        cpu_us: (!processes.measured.is_empty() && answers > 0)
            .then(|| cpu.seconds * 1e6 / answers as f64),
        syncs: None,
        other_cores: cpu.other_seconds / elapsed,
        failures: recorder.failures.get(),
        failure: recorder.failure.take(),
        answers,
    }
}

async fn run_client(driver: &impl Driver, client: usize, op: Op, dice: &Dice, recorder: &Recorder) {
    /// After a failure, so that a system that is down is not asked in a tight loop.
    const PAUSE: Duration = Duration::from_millis(2);
    while !recorder.stopped.get() {
        let began = Instant::now();
        match driver.call(client, op, dice).await {
            Ok(()) if recorder.recording.get() => {
                let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                // Fails only when the histogram cannot grow to centuries.
                let _ = recorder.latencies_ns.borrow_mut().record(nanos);
            }
            Ok(()) => {}
            Err(Failure(reason)) => {
                recorder.failures.set(recorder.failures.get() + 1);
                recorder.failure.replace(Some(reason));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

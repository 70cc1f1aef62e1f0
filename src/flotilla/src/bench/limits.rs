//! The limits of the storage alone, measured in this process: what no replicated put can be cheaper than.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rocksdb::{BlockBasedOptions, DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use super::BenchError;
use super::data::Dice;
use super::load::{Measurement, Span};

/// Threads that put and sync one by one, relying on RocksDB's own group commit.
const SYNC_THREADS: u64 = 64;
/// Entries per synced batch of the replicated floor.
const BATCH: u64 = 64;
/// Replicas of it.
const REPLICAS: u64 = 3;

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(128 << 20);
    options
}

fn open(path: &Path) -> Result<DB, BenchError> {
    DB::open(&options(), path).map_err(|error| BenchError::Storage(error.to_string()))
}

/// Counts what threads do between a warm-up and an end.
struct Clock {
    recording: AtomicBool,
    stopped: AtomicBool,
    began: Instant,
}

impl Clock {
    fn new() -> Self {
        let (recording, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { recording, stopped, began: Instant::now() }
    }

    /// Lets the threads work for the span; answers how long counted, in seconds.
    fn run(&self, span: Span) -> f64 {
        std::thread::sleep(span.warmup);
        let before = self.began.elapsed();
        self.recording.store(true, Ordering::Relaxed);
        std::thread::sleep(span.measured);
        self.recording.store(false, Ordering::Relaxed);
        let counted = self.began.elapsed() - before;
        self.stopped.store(true, Ordering::Relaxed);
        counted.as_secs_f64()
    }

    fn count(&self, counter: &AtomicU64, operations: u64) {
        if self.recording.load(Ordering::Relaxed) {
            counter.fetch_add(operations, Ordering::Relaxed);
        }
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

fn measurement(answers: u64, seconds: f64) -> Measurement {
    Measurement { rate: answers as f64 / seconds, answers, ..Measurement::default() }
}

/// Synced puts of one value each from 64 threads into one RocksDB.
pub(super) fn synced_puts(
    directory: &Path,
    span: Span,
    keys: u64,
) -> Result<Measurement, BenchError> {
    let db = open(directory)?;
    let (clock, puts) = (Clock::new(), AtomicU64::new(0));
    let seconds = std::thread::scope(|scope| {
        for thread in 0..SYNC_THREADS {
            let (db, clock, puts) = (&db, &clock, &puts);
            scope.spawn(move || {
                let dice = Dice::new(thread, keys);
                let mut synced = WriteOptions::default();
                synced.set_sync(true);
                while !clock.stopped() && db.put_opt(dice.key(), dice.value(), &synced).is_ok() {
                    clock.count(puts, 1);
                }
            });
        }
        clock.run(span)
    });
    finished(measurement(puts.into_inner(), seconds), directory)
}

/// Three replicas, each with a log that is synced per batch of 64 and a data database applied to beside it, without its
/// own log. Puts per second of the slowest replica: the storage floor of a replicated put.
pub(super) fn replicated(
    directory: &Path,
    span: Span,
    keys: u64,
) -> Result<Measurement, BenchError> {
    let mut databases = Vec::new();
    for replica in 0..REPLICAS {
        let path = directory.join(format!("replica-{replica}"));
        std::fs::create_dir_all(&path)?;
        databases.push((open(&path.join("log"))?, open(&path.join("data"))?, AtomicU64::new(0)));
    }
    let clock = Clock::new();
    let seconds = std::thread::scope(|scope| {
        for (replica, (log, data, puts)) in databases.iter().enumerate() {
            let (sender, receiver) = sync_channel::<WriteBatch>(2);
            let clock = &clock;
            scope.spawn(move || {
                let dice = Dice::new(replica as u64, keys);
                let mut synced = WriteOptions::default();
                synced.set_sync(true);
                let mut index = 0_u64;
                while !clock.stopped() {
                    let (mut entries, mut apply) = (WriteBatch::default(), WriteBatch::default());
                    for _ in 0..BATCH {
                        let value = dice.value();
                        entries.put(index.to_be_bytes(), &value);
                        apply.put(dice.key(), &value);
                        index += 1;
                    }
                    if log.write_opt(entries, &synced).is_err() || sender.send(apply).is_err() {
                        break;
                    }
                }
            });
            scope.spawn(move || {
                let mut unlogged = WriteOptions::default();
                unlogged.disable_wal(true);
                while let Ok(batch) = receiver.recv_timeout(Duration::from_secs(10)) {
                    if data.write_opt(batch, &unlogged).is_err() {
                        break;
                    }
                    clock.count(puts, BATCH);
                }
            });
        }
        clock.run(span)
    });
    let slowest = databases.iter().map(|(_, _, puts)| puts.load(Ordering::Relaxed)).min();
    drop(databases.drain(..));
    finished(measurement(slowest.unwrap_or(0), seconds), directory)
}

fn finished(measured: Measurement, directory: &Path) -> Result<Measurement, BenchError> {
    std::fs::remove_dir_all(directory)?;
    if measured.answers == 0 {
        return Err(BenchError::Storage("not one synced write succeeded".to_owned()));
    }
    Ok(measured)
}

//! How far a load is: a bar on stderr if that is a terminal, counters either way.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};

/// The counters of one load; clones share them.
#[derive(Clone)]
pub(super) struct Progress {
    bar: ProgressBar,
    counters: Arc<Counters>,
    /// The bar is of records, not of bytes read.
    of_records: bool,
}

#[derive(Default)]
struct Counters {
    records: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
}

impl Progress {
    /// Starts now; the bar is of bytes read if the length is known.
    pub(super) fn new(length: Option<u64>) -> Progress {
        let bar = match length {
            Some(length) => ProgressBar::new(length).with_style(style(
                "{bar:32} {percent:>3}%  {msg}  {binary_bytes_per_sec}  {eta} left",
            )),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}  {elapsed}")),
        };
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar, counters: Arc::default(), of_records: false }
    }

    /// Starts now; the bar is of records written.
    pub(super) fn of_records(count: u64) -> Progress {
        let style = style("{bar:32} {percent:>3}%  {msg}  {per_sec}  {eta} left");
        let bar = ProgressBar::new(count).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar, counters: Arc::default(), of_records: true }
    }

    /// Counts what is read through it.
    pub(super) fn reader<R: Read>(&self, input: R) -> impl Read + use<R> {
        self.bar.wrap_read(input)
    }

    /// Records that were acknowledged.
    pub(super) fn written(&self, records: u64, bytes: u64) {
        let total = self.counters.records.fetch_add(records, Ordering::Relaxed) + records;
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.of_records {
            self.bar.set_position(total);
        }
        self.bar.set_message(format!("{} records", HumanCount(total)));
    }

    /// A record that could not be read.
    pub(super) fn skipped(&self) {
        self.counters.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes the bar; what there is to say in the end.
    pub(super) fn finish(&self) -> String {
        self.bar.finish_and_clear();
        let records = self.counters.records.load(Ordering::Relaxed);
        let bytes = self.counters.bytes.load(Ordering::Relaxed);
        let skipped = self.counters.skipped.load(Ordering::Relaxed);
        let elapsed = self.bar.elapsed();
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let rate = (records as f64 / seconds) as u64;
        let skipped = match skipped {
            0 => String::new(),
            count => format!(", {count} bad records skipped"),
        };
        format!(
            "{} records ({}) in {}: {} records/s{skipped}",
            HumanCount(records),
            HumanBytes(bytes),
            match elapsed.as_secs() {
                0..60 => format!("{seconds:.2} s"),
                _ => HumanDuration(elapsed).to_string(),
            },
            HumanCount(rate),
        )
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

//! `load`: records from a file or stdin into the cluster.
//!
//! One thread reads and cuts records; each record goes to the writer that its key hashes to; writers send batches side by
//! side. So two records of one key are written in the order of the input, and the last one stays. Everything between reader
//! and network is bounded. A leader that dies costs time: batches are retried within `--timeout` (here 60 s unless given).
//!
//! What was counted was acknowledged. The first batch that fails for good ends the load.

mod generate;
mod progress;
mod records;
mod writer;

use std::fs::File;
use std::io::{BufReader, Read};
use std::time::Duration;

use client::{Pair, Settings};

use crate::context::{Context, note, settings};
use crate::failure::Failure;
pub(crate) use generate::key as generated_key;
use progress::Progress;
use records::{Format, RecordError, Records};

/// The budget of a batch if `--timeout` is left at its default: a load should outlive a restart of the cluster.
const BUDGET: Duration = Duration::from_secs(60);

/// Writes records.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file; `-` is stdin
    #[arg(default_value = "-")]
    file: String,
    /// No file: make up so many records, with keys that are spread evenly over all of 16 hex digits
    #[arg(long, value_name = "N", conflicts_with_all = ["file", "format"])]
    generate: Option<u64>,
    /// Bytes of a value that is made up
    #[arg(long, default_value_t = 256, requires = "generate",
        value_parser = clap::value_parser!(u32).range(0..=6 << 20))]
    value_bytes: u32,
    /// How the input is made up
    #[arg(long, short, value_enum, default_value = "jsonl")]
    format: Format,
    /// For debian-stanzas: the field whose content is the key
    #[arg(long, default_value = "Package")]
    key_field: String,
    /// Put before every key
    #[arg(long, default_value = "")]
    key_prefix: String,
    /// Batches on their way at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Records of one batch at most
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=8192))]
    batch: u32,
    /// Skip records that cannot be read instead of stopping
    #[arg(long)]
    skip_bad: bool,
}

/// Reads, writes, and tells how much and how fast.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let prefix = context.key(&args.key_prefix)?;
    let default_budget = Settings::default().budget;
    let mut settings = settings(&context.global);
    if settings.budget == default_budget {
        settings.budget = BUDGET;
    }
    let client = context.client().await?.with_settings(settings);
    let (progress, records): (Progress, Source) = match args.generate {
        Some(count) => {
            (Progress::of_records(count), Box::new(generate::records(count, args.value_bytes)))
        }
        None => {
            let (input, length) = open(&args.file)?;
            let progress = Progress::new(length);
            let reader = BufReader::new(progress.reader(input));
            let records = Records::new(reader, args.format, &args.key_field);
            (progress, Box::new(records))
        }
    };
    let writers = writer::Writers::start(&client, &args.limits(), &progress);
    let loading = writers.feed(records, prefix, args.skip_bad, args.file.clone());
    let outcome = tokio::select! {
        outcome = loading => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
    };
    let summary = progress.finish();
    note(&summary);
    outcome
}

/// Where records come from.
type Source = Box<dyn Iterator<Item = Result<Pair, RecordError>> + Send>;

impl Args {
    fn limits(&self) -> writer::Limits {
        writer::Limits { writers: usize::from(self.concurrency), records: self.batch as usize }
    }
}

/// The input, and its length if that is known.
fn open(path: &str) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if path == "-" {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let file = File::open(path).map_err(Failure::io(path))?;
    let metadata = file.metadata().map_err(Failure::io(path))?;
    let length = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), length))
}

/// A record that cannot be read, with its place.
fn bad_record(path: &str, error: &RecordError) -> Failure {
    Failure::Input(format!("{path}: {error}"))
}

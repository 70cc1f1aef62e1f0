//! Our own cluster, as a user starts it: `flotilla playground` as a child process, with its stores below it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use serde::Deserialize;
use tokio::process::{Child, Command};

use super::BenchError;
use super::ours::Cluster;
use super::process::Pid;

/// How often it is asked whether it is ready, and for how long.
const READY_PAUSE: Duration = Duration::from_millis(50);
const READY_ATTEMPTS: u32 = 800;
/// How long it may take to stop by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A running playground; it ends with this.
pub(super) struct Playground {
    process: Child,
    members: Vec<Member>,
    /// What is known about the cluster.
    pub(super) cluster: Cluster,
}

/// What the ready file says. Further fields are none of our business.
#[derive(Deserialize)]
struct Ready {
    endpoints: Vec<String>,
    processes: Vec<Member>,
}

/// One process of the cluster.
#[derive(Deserialize)]
struct Member {
    name: String,
    pid: String,
    address: String,
}

impl Playground {
    /// Starts a fresh one of three stores with its data below `directory`; `settings` are those of every store,
    /// `name=value`.
    pub(super) async fn start(directory: &Path, settings: &[String]) -> Result<Self, BenchError> {
        Self::start_many(directory, 3, settings).await
    }

    /// The same with another number of stores.
    pub(super) async fn start_many(
        directory: &Path,
        stores: u16,
        settings: &[String],
    ) -> Result<Self, BenchError> {
        std::fs::create_dir_all(directory)?;
        let ready_file = directory.join("ready.json");
        let log = std::fs::File::create(directory.join("playground.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["playground", "--port", "0", "--stores", &stores.to_string(), "--ready-file"])
            .arg(&ready_file)
            .arg("--data-dir")
            .arg(directory)
            .args(settings.iter().flat_map(|setting| ["--store-setting", setting]))
            // Other commands of this user go on finding the user's own playground.
            .env("XDG_STATE_HOME", directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let mut process = command.spawn()?;
        let ready = wait_for(&mut process, &ready_file).await?;
        let scheduler = ready.endpoints.first().map_or("", String::as_str);
        let cluster = Cluster::join(scheduler).await?;
        let mut last = String::new();
        for _ in 0..READY_ATTEMPTS {
            match cluster.probe().await {
                Ok(()) => return Ok(Self { process, members: ready.processes, cluster }),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
        Err(BenchError::NotReady(format!("the playground takes no writes: {last}")))
    }

    /// The playground and everything below it.
    pub(super) fn pids(&self) -> Vec<Pid> {
        let members = self.members.iter().filter_map(|member| member.pid.parse().ok());
        members.chain(self.process.id()).collect()
    }

    /// The stores alone.
    pub(super) fn store_pids(&self) -> Vec<Pid> {
        let stores = self.members.iter().filter(|member| member.name.starts_with("store"));
        stores.filter_map(|member| member.pid.parse().ok()).collect()
    }

    /// The process of the store that serves on `host:port`.
    pub(super) fn store_at(&self, address: &str) -> Result<Pid, BenchError> {
        let member = self.members.iter().find(|member| member.address == address);
        member.and_then(|member| member.pid.parse().ok()).ok_or_else(|| {
            BenchError::NotReady(format!("the playground has no process at {address}"))
        })
    }

    /// Ends it and everything below it.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.process.id() {
            send(pid, Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.process.wait()).await.is_err() {
            self.pids().into_iter().for_each(kill);
            // It has been killed.
            let _ = self.process.wait().await;
        }
    }
}

/// Waits for the ready file.
async fn wait_for(process: &mut Child, ready_file: &PathBuf) -> Result<Ready, BenchError> {
    for _ in 0..READY_ATTEMPTS {
        if let Ok(text) = std::fs::read(ready_file) {
            return serde_json::from_slice(&text)
                .map_err(|error| BenchError::NotReady(format!("the ready file: {error}")));
        }
        if let Some(status) = process.try_wait()? {
            return Err(BenchError::NotReady(format!("the playground ended: {status}")));
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
    Err(BenchError::NotReady("the playground did not become ready".to_owned()))
}

/// Kills a process, as `kill -9` does. One that has ended already is no error.
pub(super) fn kill(pid: Pid) {
    send(pid, Signal::SIGKILL);
}

fn send(pid: Pid, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    }
}

//! The processes of a playground: started from this same binary, watched, and ended together.
//!
//! Each child has its own process group, so that a Ctrl-C in the terminal reaches the playground alone, which then stops the
//! children in order. It holds the other end of their stdin, so they stop by themselves should the playground be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::context::note;
use crate::failure::Failure;
use crate::playground::state::Process;

/// Lines of a dead child's log that are worth showing.
const LAST_WORDS: usize = 5;

/// How long a child may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);

/// One child.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) process: Process,
    child: Child,
    args: Vec<String>,
    ended: bool,
}

impl Member {
    /// Starts `flotilla <args>` under a name; it logs to a file of that name.
    pub(crate) fn start(
        name: String,
        address: String,
        data_dir: &Path,
        args: Vec<String>,
    ) -> Result<Member, Failure> {
        let log = data_dir.join(format!("{name}.log"));
        let (child, pid) = spawn(&name, &log, &args)?;
        Ok(Member { process: Process { name, pid, address, log }, child, args, ended: false })
    }

    /// Starts it again, with the same settings and on the data it left. Refused while it runs.
    pub(crate) fn start_again(&mut self) -> Result<(), Failure> {
        if self.check() {
            return Err(Failure::Server(format!("{} runs", self.process.name)));
        }
        let (child, pid) = spawn(&self.process.name, &self.process.log, &self.args)?;
        self.child = child;
        self.process.pid = pid;
        self.ended = false;
        Ok(())
    }

    /// Whether the child still runs. Says so once when it does not.
    pub(crate) fn check(&mut self) -> bool {
        if self.ended {
            return false;
        }
        match self.child.try_wait() {
            Ok(None) => return true,
            Ok(Some(status)) => note(&format!("{} has ended: {status}", self.process.name)),
            Err(error) => note(&format!("{} cannot be watched: {error}", self.process.name)),
        }
        self.ended = true;
        for line in last_lines(&self.process.log) {
            note(&format!("    {line}"));
        }
        false
    }

    fn terminate(&self) {
        if !self.ended
            && let Ok(pid) = i32::try_from(self.process.pid)
        {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// Waits for the end; after a while, makes one.
    async fn end(&mut self) {
        if self.ended {
            return;
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            note(&format!("{} does not stop, killing it", self.process.name));
            let _ = self.child.kill().await;
        }
        self.ended = true;
    }
}

/// Starts `flotilla <args>`; its log is appended to the file.
fn spawn(name: &str, log: &Path, args: &[String]) -> Result<(Child, u32), Failure> {
    let shown = log.display().to_string();
    let file = File::options().create(true).append(true).open(log);
    let file = file.map_err(Failure::io(shown.clone()))?;
    let binary = std::env::current_exe().map_err(Failure::io("this binary"))?;
    let mut command = Command::new(binary);
    // What is set for the playground is not meant for every store of it.
    let inherited =
        std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("FLOTILLA_"));
    command
        .args(args)
        .env_clear()
        .envs(inherited)
        .stdin(Stdio::piped())
        .stdout(Stdio::from(file.try_clone().map_err(Failure::io(shown))?))
        .stderr(Stdio::from(file))
        .process_group(0)
        .kill_on_drop(true);
    let child = command.spawn().map_err(Failure::io(name.to_owned()))?;
    let pid = child.id().ok_or_else(|| Failure::Server(format!("{name} did not start")))?;
    Ok((child, pid))
}

/// Stops stores first, all at once, so that they can still hand over and report; then the schedulers.
pub(crate) async fn stop_all(members: &mut [Member]) {
    let (schedulers, stores): (Vec<&mut Member>, Vec<&mut Member>) =
        members.iter_mut().partition(|member| member.process.name.starts_with("scheduler"));
    for group in [stores, schedulers] {
        group.iter().for_each(|member| member.terminate());
        for member in group {
            member.end().await;
        }
    }
}

fn last_lines(log: &PathBuf) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<String> = text.lines().rev().take(LAST_WORDS).map(str::to_owned).collect();
    lines.reverse();
    lines
}

//! Which playgrounds run on this machine, so that other commands find them: one file per playground in the user's state
//! directory, removed when it ends. A file whose process is gone is leftover from a crash, and is removed by whoever sees it.

use std::path::PathBuf;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::endpoints;
use crate::failure::Failure;

/// A running playground.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: i32,
    /// Its schedulers, host:port.
    pub(crate) endpoints: Vec<String>,
    /// Where its data live.
    pub(crate) data_dir: PathBuf,
    /// Its children.
    pub(crate) processes: Vec<Process>,
}

/// One child of a playground.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// `scheduler-1`, `store-2`.
    pub(crate) name: String,
    /// Its process.
    pub(crate) pid: u32,
    /// host:port.
    pub(crate) address: String,
    /// Where it logs to.
    pub(crate) log: PathBuf,
}

/// The file of a running playground; removed when dropped.
#[derive(Debug)]
pub(crate) struct Announcement(PathBuf);

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes the playground known. `None` where there is no home directory.
pub(crate) fn announce(running: &Running) -> Result<Option<Announcement>, Failure> {
    Ok(write(running)?.map(Announcement))
}

/// Tells what has changed: a process has another id.
pub(crate) fn update(running: &Running) -> Result<(), Failure> {
    write(running).map(drop)
}

fn write(running: &Running) -> Result<Option<PathBuf>, Failure> {
    let Some(dir) = dir() else { return Ok(None) };
    let shown = dir.display().to_string();
    std::fs::create_dir_all(&dir).map_err(Failure::io(shown.clone()))?;
    let path = dir.join(format!("{}.json", running.pid));
    // Renamed into place: nobody reads half of it.
    let draft = dir.join(format!("{}.new", running.pid));
    let text = serde_json::to_string_pretty(running).map_err(|e| Failure::Input(e.to_string()))?;
    std::fs::write(&draft, text).map_err(Failure::io(shown.clone()))?;
    std::fs::rename(&draft, &path).map_err(Failure::io(shown))?;
    Ok(Some(path))
}

/// Where a running playground listens to `playground start`.
pub(crate) fn socket(pid: i32) -> Option<PathBuf> {
    Some(dir()?.join(format!("{pid}.sock")))
}

/// The playground that was started last and still runs.
pub(crate) fn newest_running() -> Option<Running> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir()?).ok()?.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let Ok(running) = serde_json::from_str::<Running>(&text) else { continue };
        let Ok(started) = entry.metadata().and_then(|metadata| metadata.modified()) else {
            continue;
        };
        // Signal 0 only asks whether the process exists.
        if kill(Pid::from_raw(running.pid), None).is_ok() {
            found.push((started, running));
        } else {
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::remove_file(path.with_extension("sock"));
        }
    }
    found.into_iter().max_by_key(|(started, _)| *started).map(|(_, running)| running)
}

fn dir() -> Option<PathBuf> {
    Some(endpoints::state_dir()?.join("playgrounds"))
}

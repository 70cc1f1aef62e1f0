//! Where the cluster is, if nobody says so: the newest playground that runs, else the usual port.

use std::path::PathBuf;

use crate::playground::state;

/// The port of a scheduler.
pub(crate) const SCHEDULER_PORT: u16 = 2379;

/// The endpoints to try, in order of preference: given, playground, default.
pub(crate) fn discover(given: &[String]) -> Vec<String> {
    let given: Vec<String> = given.iter().filter(|given| !given.is_empty()).cloned().collect();
    if !given.is_empty() {
        return given;
    }
    match state::newest_running() {
        Some(playground) => playground.endpoints,
        None => vec![format!("127.0.0.1:{SCHEDULER_PORT}")],
    }
}

/// `$XDG_STATE_HOME/flotilla`, or where that defaults to. `None` without a home directory.
pub(crate) fn state_dir() -> Option<PathBuf> {
    xdg_dir("XDG_STATE_HOME", ".local/state")
}

/// `$XDG_DATA_HOME/flotilla`, or where that defaults to.
pub(crate) fn data_dir() -> Option<PathBuf> {
    xdg_dir("XDG_DATA_HOME", ".local/share")
}

fn xdg_dir(variable: &str, default: &str) -> Option<PathBuf> {
    let base = match std::env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME")?).join(default),
    };
    base.is_absolute().then(|| base.join("flotilla"))
}

//! The thread that takes snapshots over and throws unwanted ones away: long work on files, apart from everything else.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use engine::Engine;

use super::counters::{Counters, add};
use super::router::Router;
use crate::msg::StoreMsg;
use crate::snapshot::{ReceivedSnapshot, SnapshotFiles, SnapshotInstall, install};

/// Work for the installer.
pub(super) enum InstallerTask {
    /// Take it over.
    Install(Box<SnapshotInstall>),
    /// Nobody wants it.
    Discard(ReceivedSnapshot),
}

pub(super) struct Installer {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) files: Arc<dyn SnapshotFiles>,
    pub(super) router: Router,
    pub(super) counters: Arc<Counters>,
    pub(super) log: slog::Logger,
}

impl Installer {
    pub(super) fn run(self, queue: &Receiver<InstallerTask>) -> Result<(), String> {
        while let Ok(task) = queue.recv() {
            match task {
                InstallerTask::Install(what) => {
                    install(self.engine.as_ref(), self.files.as_ref(), &what)
                        .map_err(|error| error.to_string())?;
                    add(&self.counters.snapshots_installed, 1);
                    let region = what.region;
                    slog::info!(self.log, "snapshot installed"; "region_id" => region.get(),
                        "index" => what.meta.index.0, "bytes" => what.file.content_bytes);
                    // A store that has stopped need not know.
                    let _ = self.router.send(StoreMsg::SnapshotInstalled { region });
                }
                InstallerTask::Discard(file) => {
                    if let Err(error) = self.files.remove(file.id) {
                        slog::warn!(self.log, "a snapshot file stays behind";
                            "name" => %file.id, "reason" => %error);
                    }
                }
            }
        }
        Ok(())
    }
}

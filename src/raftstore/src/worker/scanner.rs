//! The thread that reads whole regions: measures them and hashes them, apart from everything that somebody waits for.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use engine::Engine;

use super::counters::{Counters, add};
use super::router::Router;
use crate::apply::HashTask;
use crate::msg::{SplitCheck, StoreMsg};
use crate::scan;

/// Work for the scanner.
pub(super) enum ScannerTask {
    /// Measure it, and say where it could be cut.
    Measure(SplitCheck),
    /// Hash it.
    Hash(HashTask),
}

pub(super) struct Scanner {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) router: Router,
    pub(super) counters: Arc<Counters>,
}

impl Scanner {
    pub(super) fn run(self, queue: &Receiver<ScannerTask>) -> Result<(), String> {
        while let Ok(task) = queue.recv() {
            let msg = self.carry_out(task).map_err(|error| error.to_string())?;
            add(&self.counters.scans, 1);
            // A store that has stopped need not know.
            let _ = self.router.send(msg);
        }
        Ok(())
    }

    fn carry_out(&self, task: ScannerTask) -> engine::Result<StoreMsg> {
        match task {
            ScannerTask::Measure(check) => {
                let snapshot = self.engine.snapshot();
                Ok(StoreMsg::SplitChecked(scan::measure(check, snapshot.as_ref())?))
            }
            ScannerTask::Hash(task) => task.carry_out(),
        }
    }
}

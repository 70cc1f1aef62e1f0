//! The thread that applies committed entries and answers clients.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::counters::{Counters, add};
use super::router::Router;
use super::scanner::ScannerTask;
use crate::apply::{Applier, ApplyTask, ApplyTurn};
use crate::msg::StoreMsg;

/// Tasks taken at once, beyond those that arrived together.
const TASKS_MAX: usize = 1024;

pub(super) struct ApplyLoop {
    pub(super) applier: Applier,
    pub(super) scans: Sender<ScannerTask>,
    pub(super) router: Router,
    pub(super) counters: Arc<Counters>,
}

impl ApplyLoop {
    pub(super) fn run(mut self, queue: &Receiver<Vec<ApplyTask>>) -> Result<(), String> {
        while let Ok(mut tasks) = queue.recv() {
            while tasks.len() < TASKS_MAX
                && let Ok(more) = queue.try_recv()
            {
                tasks.extend(more);
            }
            add(&self.counters.apply_batches, 1);
            add(&self.counters.applied_entries, tasks.iter().map(entries).sum());
            let turn = self.applier.handle(tasks).map_err(|error| error.to_string())?;
            self.hand_out(turn);
        }
        Ok(())
    }

    fn hand_out(&self, turn: ApplyTurn) {
        let ApplyTurn { results, replies, snapshots, hashes } = turn;
        add(&self.counters.replies, replies.len());
        for (reply, outcome) in replies {
            reply.send(outcome);
        }
        // A store that has stopped need not know.
        if !results.is_empty() {
            let _ = self.router.send(StoreMsg::Applied(results));
        }
        for task in hashes {
            let _ = self.scans.send(ScannerTask::Hash(task));
        }
        for ready in snapshots {
            let _ = self.router.send(StoreMsg::SnapshotReady(ready));
        }
    }
}

fn entries(task: &ApplyTask) -> usize {
    match task {
        ApplyTask::Committed { entries, .. } => entries.len(),
        ApplyTask::Register { .. }
        | ApplyTask::Snapshot { .. }
        | ApplyTask::Create { .. }
        | ApplyTask::Destroy { .. } => 0,
    }
}

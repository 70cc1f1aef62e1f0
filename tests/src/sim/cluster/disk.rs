//! The log writer: writes in order, one sync for all that waits, and what a failing disk does.

use super::Cluster;
use crate::sim::event::StoreEvent;
use crate::sim::invariants::Broken;
use crate::sim::process::Syncing;
use crate::sim::time::Nanos;
use engine::Engine;
use raftstore::msg::{LogWrite, StoreMsg};

impl Cluster {
    /// The loop hands a write over.
    pub(super) fn write_log(&mut self, store: usize, write: LogWrite) -> Result<(), Broken> {
        self.invariants.hard_states.write(store, &write.batch)?;
        if let Some(machine) = &mut self.processes[store].machine {
            machine.log_waiting.push(write);
        }
        self.begin_sync(store);
        Ok(())
    }

    /// Takes everything that waits, if the writer is idle.
    fn begin_sync(&mut self, store: usize) {
        let process = &mut self.processes[store];
        let Some(machine) = &mut process.machine else { return };
        if machine.syncing.is_some() || machine.log_waiting.is_empty() {
            return;
        }
        let writes = std::mem::take(&mut machine.log_waiting);
        let number = writes.last().map_or(0, |write| write.number);
        let must_sync = writes.iter().any(|write| write.sync);
        let written = writes.iter().try_for_each(|write| process.engine.write(&write.batch));
        let begun = written.and_then(|()| process.engine.begin_sync());
        match begun {
            Ok(token) => {
                machine.syncing = Some(Syncing { token, number, must_sync });
                let delay = if must_sync { self.sync_delay(store) } else { Nanos::micros(5) };
                self.schedule(store, delay, StoreEvent::Synced);
            }
            Err(error) => self.disk_failed(store, &error),
        }
    }

    fn sync_delay(&mut self, store: usize) -> Nanos {
        let mut delay = self.disk_rng.around(self.disk.sync_mean);
        if self.disk_rng.chance(self.disk.stall_per_mille) {
            delay += self.disk_rng.span(Nanos::ZERO, self.disk.stall_max);
        }
        if self.processes[store].slow_disk {
            let election = self.knobs.election_timeout();
            delay += self.disk_rng.span(Nanos(election.0 / 8), election.times(4));
        }
        delay
    }

    /// The sync under way ends, well or not.
    pub(super) fn synced(&mut self, store: usize) {
        let process = &mut self.processes[store];
        let Some(machine) = &mut process.machine else { return };
        let Some(Syncing { token, number, must_sync }) = machine.syncing.take() else { return };
        let finished = if must_sync { process.engine.finish_sync(token) } else { Ok(()) };
        match finished {
            Ok(()) => {
                self.tell(store, StoreMsg::Persisted { number });
                self.begin_sync(store);
            }
            Err(error) => self.disk_failed(store, &error),
        }
    }

    pub(super) fn disk_failed(&mut self, store: usize, error: &engine::Error) {
        self.counts.syncs_failed += 1;
        self.tell(store, StoreMsg::WriteFailed { reason: error.to_string() });
    }
}

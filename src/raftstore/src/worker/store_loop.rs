//! The thread that owns the store: feeds it what has arrived, takes a turn, carries it out.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use super::clock::Clock;
use super::counters::{Counters, add};
use super::fatal::Fatal;
use super::installer::InstallerTask;
use super::router::{Input, Router};
use super::scanner::ScannerTask;
use super::{Placement, Queues, SnapshotDone, Transport, WorkerOptions};
use crate::msg::{StoreMsg, Turn};
use crate::store::Store;
use crate::time::Instant;

pub(super) struct StoreLoop {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) tick: Duration,
    pub(super) options: WorkerOptions,
    pub(super) queues: Queues,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) placement: Arc<dyn Placement>,
    pub(super) router: Router,
    pub(super) counters: Arc<Counters>,
    pub(super) drained: Sender<()>,
    pub(super) fatal: Fatal,
}

/// Why there is no input.
enum Idle {
    /// Nothing has come.
    Yet,
    /// Nothing will.
    ForGood,
}

impl StoreLoop {
    pub(super) fn run(mut self, inputs: &Receiver<Input>) {
        let mut log_writes_in_flight = LogWritesInFlight::default();
        let mut tick_at = self.clock.now() + self.tick;
        // What opening the store left to be done.
        let mut more = true;
        let mut poisoned = false;
        loop {
            let first = self.wait(inputs, more, tick_at);
            if !self.gather(first, inputs, &mut log_writes_in_flight) {
                return;
            }
            let now = self.clock.now();
            if now >= tick_at {
                self.store.handle(StoreMsg::Tick, now);
                tick_at = next_tick(tick_at, self.tick, now);
            } else if log_writes_in_flight.count() >= self.options.log_writes_in_flight_max {
                // The next `Persisted` comes by itself; until then let a larger batch form.
                more = false;
                continue;
            }
            let turn = self.store.turn(now);
            more = !turn.is_empty();
            if let Some(reason) = &turn.poisoned {
                if !poisoned {
                    self.fatal.report("store", reason);
                }
                // From now on the store refuses whatever comes.
                (poisoned, more) = (true, false);
                continue;
            }
            log_writes_in_flight.begun(&turn);
            self.carry_out(turn);
        }
    }

    /// Waits for an input: not at all if there is `more` to do, at most until the next tick.
    fn wait(&self, inputs: &Receiver<Input>, more: bool, tick_at: Instant) -> Result<Input, Idle> {
        match poll(inputs) {
            Err(Idle::Yet) if !more => {
                let patience = tick_at.since(self.clock.now());
                inputs.recv_timeout(patience).map_err(|error| match error {
                    RecvTimeoutError::Timeout => Idle::Yet,
                    RecvTimeoutError::Disconnected => Idle::ForGood,
                })
            }
            arrival => arrival,
        }
    }

    /// Feeds the store what has arrived; whether the loop goes on.
    fn gather(
        &mut self,
        first: Result<Input, Idle>,
        inputs: &Receiver<Input>,
        in_flight: &mut LogWritesInFlight,
    ) -> bool {
        let (mut arrival, mut taken) = (first, 0);
        loop {
            match arrival {
                Err(Idle::ForGood) => return false,
                Err(Idle::Yet) => break,
                Ok(input) => {
                    if !self.take(input, in_flight) {
                        return false;
                    }
                    taken += 1;
                }
            }
            if taken >= self.options.inputs_per_turn_max {
                break;
            }
            arrival = poll(inputs);
        }
        add(&self.counters.inputs, taken);
        true
    }

    /// Feeds an input to the store; whether the loop goes on.
    fn take(&mut self, input: Input, in_flight: &mut LogWritesInFlight) -> bool {
        let msg = match input {
            Input::Msg(msg) => msg,
            Input::Raft(message, bytes) => {
                self.router.taken(bytes);
                StoreMsg::Raft(message)
            }
            Input::Stop => return false,
        };
        if let StoreMsg::Persisted { number } = &msg {
            in_flight.finished(*number);
        }
        let now = self.clock.now();
        self.store.handle(msg, now);
        true
    }

    /// The log first, so that the disk works while the rest is handed on.
    fn carry_out(&self, turn: Turn) {
        if turn.is_empty() {
            return;
        }
        add(&self.counters.turns, 1);
        let Queues { log, apply, install, scan } = &self.queues;
        // A thread that is gone has reported why; its report is on its way to us.
        if let Some(write) = turn.log_write {
            let _ = log.send(write);
        }
        if !turn.messages.is_empty() {
            self.transport.send(turn.messages);
        }
        if !turn.apply.is_empty() {
            let _ = apply.send(turn.apply);
        }
        for snapshot in turn.snapshots {
            let done = SnapshotDone::new(self.router.clone(), &snapshot);
            self.transport.send_snapshot(snapshot, done);
        }
        for what in turn.installs {
            let _ = install.send(InstallerTask::Install(Box::new(what)));
        }
        for file in turn.discarded_snapshots {
            let _ = install.send(InstallerTask::Discard(file));
        }
        for check in turn.split_checks {
            let _ = scan.send(ScannerTask::Measure(check));
        }
        if !turn.heartbeats.is_empty() {
            self.placement.region_heartbeats(turn.heartbeats);
        }
        if !turn.split_requests.is_empty() {
            self.placement.ask_splits(turn.split_requests);
        }
        if !turn.split_reports.is_empty() {
            self.placement.report_splits(turn.split_reports);
        }
        if !turn.region_questions.is_empty() {
            self.placement.ask_regions(turn.region_questions);
        }
        if turn.drained {
            // Told once; the place in the queue is free.
            let _ = self.drained.try_send(());
        }
    }
}

fn poll(inputs: &Receiver<Input>) -> Result<Input, Idle> {
    inputs.try_recv().map_err(|error| match error {
        TryRecvError::Empty => Idle::Yet,
        TryRecvError::Disconnected => Idle::ForGood,
    })
}

/// When the tick after one that was due at `due` is: on the beat, unless that has passed already.
fn next_tick(due: Instant, tick: Duration, now: Instant) -> Instant {
    let next = due + tick;
    if next > now { next } else { now + tick }
}

/// How many log writes have begun and not finished.
#[derive(Debug, Default)]
struct LogWritesInFlight {
    begun: u64,
    finished: u64,
}

impl LogWritesInFlight {
    fn begun(&mut self, turn: &Turn) {
        if let Some(write) = &turn.log_write {
            self.begun = write.number;
        }
    }

    fn finished(&mut self, number: u64) {
        self.finished = number;
    }

    fn count(&self) -> usize {
        usize::try_from(self.begun.saturating_sub(self.finished)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_the_beat_and_are_not_made_up_for() {
        let (at, tick) = (Instant::from_ms, Duration::from_millis(50));
        assert_eq!(next_tick(at(100), tick, at(103)), at(150));
        assert_eq!(next_tick(at(100), tick, at(5000)), at(5050));
    }
}

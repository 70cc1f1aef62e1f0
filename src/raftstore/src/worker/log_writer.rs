//! The thread that makes the log durable.
//!
//! While one sync is under way, turns go on and their writes queue up; the next round merges all of them into one batch and
//! one sync. Waiting is on the queue alone: an idle log writer begins the moment a write arrives.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use engine::Engine;

use super::counters::{Counters, add};
use super::router::Router;
use crate::msg::{LogWrite, StoreMsg};

/// A merged batch does not grow beyond about this: the first writes in it should not wait for too many others.
const BATCH_BYTES_MAX: usize = 8 << 20;

pub(super) struct LogWriter {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) router: Router,
    pub(super) counters: Arc<Counters>,
    pub(super) delay: Option<Duration>,
}

impl LogWriter {
    pub(super) fn run(self, writes: &Receiver<LogWrite>) -> Result<(), String> {
        let mut last_number = 0;
        while let Ok(first) = writes.recv() {
            let LogWrite { mut number, mut batch, mut sync } = first;
            assert!(number > last_number, "log writes come in order");
            let mut merged = 1;
            while batch.size_bytes() < BATCH_BYTES_MAX
                && let Ok(mut next) = writes.try_recv()
            {
                assert!(next.number > number, "log writes come in order");
                number = next.number;
                sync |= next.sync;
                batch.append(&mut next.batch);
                merged += 1;
            }
            let bytes = batch.size_bytes();
            self.engine.write(&batch).map_err(|error| format!("log write: {error}"))?;
            if sync {
                self.engine.sync().map_err(|error| format!("log sync: {error}"))?;
                if let Some(delay) = self.delay {
                    std::thread::sleep(delay);
                }
                add(&self.counters.log_syncs, 1);
            }
            add(&self.counters.log_writes, merged);
            add(&self.counters.log_batches, 1);
            add(&self.counters.log_bytes, bytes);
            last_number = number;
            // A store that has stopped need not know; what it was promised is durable all the same.
            let _ = self.router.send(StoreMsg::Persisted { number });
        }
        Ok(())
    }
}

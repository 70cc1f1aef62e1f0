//! A bare engine behind the services: one process, one copy, no region.
//!
//! Region headers are not checked: whatever a client believes about regions, all keys are here. Sessions are refused: what
//! they promise rests on the replicated state.
//!
//! # Life of a write
//! The network thread applies the mutations to the engine under one lock (an append reads before it writes), and queues the
//! reply. A thread of its own syncs the engine once for everything queued, then answers: an acknowledged write is on disk,
//! and many writers share a sync. A value may be read before it is durable; its writer has no answer yet.
//!
//! The first failed write or sync ends the service: every later request is answered [`RegionError::StoreStopped`].
//!
//! Tests: `kv/tests.rs`.

use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver, Sender, unbounded};
use engine::{Cf, Engine, Op, WriteBatch};
use parking_lot::Mutex;
use proto::{limits, metapb};
use raftstore::command::{Mutation, Request, WriteResult};
use raftstore::keys;
use raftstore::{ReadMiss, ReadPermit, RegionError, Reply, RequestHeader};

use super::{Backend, ReadFn, View};

/// See the module header.
pub struct StandaloneBackend {
    engine: Arc<dyn Engine>,
    /// The one region there is.
    everything: metapb::Region,
    writer: Mutex<Writer>,
    syncer: Option<JoinHandle<()>>,
    /// Why the service ended; shared with the syncing thread.
    failure: Arc<Mutex<Option<String>>>,
}

struct Writer {
    /// `None` once the backend is being dropped.
    unsynced: Option<Sender<Unsynced>>,
}

/// A write that is applied but not yet durable.
struct Unsynced {
    reply: Reply<WriteResult>,
    result: WriteResult,
}

impl StandaloneBackend {
    /// Serves `engine`.
    pub fn new(engine: Arc<dyn Engine>) -> std::io::Result<StandaloneBackend> {
        let (sender, receiver) = unbounded();
        let failure = Arc::new(Mutex::new(None));
        let syncer = {
            let (engine, failure) = (engine.clone(), failure.clone());
            std::thread::Builder::new()
                .name("sync".to_owned())
                .spawn(move || sync_loop(&*engine, &receiver, &failure))?
        };
        let writer = Mutex::new(Writer { unsynced: Some(sender) });
        let everything = metapb::Region::default();
        Ok(StandaloneBackend { engine, everything, writer, syncer: Some(syncer), failure })
    }

    fn stopped(&self) -> Option<RegionError> {
        let reason = self.failure.lock().clone()?;
        Some(RegionError::StoreStopped { reason })
    }

    fn apply(&self, mutations: &[Mutation]) -> engine::Result<WriteResult> {
        let mut batch = WriteBatch::default();
        let mut result = WriteResult::Applied;
        for mutation in mutations {
            match mutation {
                Mutation::Put { cf, key, value } => {
                    batch.put(Cf::Raw, keys::raw(*cf, key), value.clone());
                }
                Mutation::Delete { cf, key } => batch.delete(Cf::Raw, keys::raw(*cf, key)),
                Mutation::DeleteRange { cf, start, end } => {
                    let range = keys::raw_range(*cf, start, end);
                    batch.delete_range(Cf::Raw, range.lower, range.upper.unwrap_or_default());
                }
                Mutation::Append { cf, key, value } => {
                    let key = keys::raw(*cf, key);
                    let old = match written(&batch, &key) {
                        Some(old) => old,
                        None => self.engine.get(Cf::Raw, &key)?,
                    };
                    let old = old.unwrap_or_default();
                    let size = old.len() + value.len();
                    if size > limits::VALUE_BYTES_MAX {
                        let max = limits::VALUE_BYTES_MAX;
                        let reason = format!("the value would have {size} bytes, over {max}");
                        return Ok(WriteResult::Refused { reason });
                    }
                    let mut whole = BytesMut::with_capacity(size);
                    whole.extend_from_slice(&old);
                    whole.extend_from_slice(value);
                    result = WriteResult::Appended { value_bytes: size as u64 };
                    batch.put(Cf::Raw, key, whole.freeze());
                }
            }
        }
        self.engine.write(&batch)?;
        Ok(result)
    }
}

impl Backend for StandaloneBackend {
    fn read_now(&self, _header: &RequestHeader, read: ReadFn<'_>) -> Result<(), ReadMiss> {
        if let Some(error) = self.stopped() {
            return Err(ReadMiss::Refused(error));
        }
        read(&View::new(&*self.engine, &self.everything));
        Ok(())
    }

    fn permit(&self, _header: RequestHeader, reply: Reply<ReadPermit>) {
        // Never asked for: every read is answered at once.
        reply.fail(RegionError::StaleCommand);
    }

    fn read_with(&self, _permit: &ReadPermit, _read: ReadFn<'_>) -> Result<(), RegionError> {
        Err(RegionError::StaleCommand)
    }

    fn write(&self, _header: RequestHeader, request: Request, reply: Reply<WriteResult>) {
        let Request::Mutate { mutations, session: None } = request else {
            let reason = "sessions need a replicated store".to_owned();
            return reply.send(Ok(WriteResult::Refused { reason }));
        };
        let writer = self.writer.lock();
        if let Some(error) = self.stopped() {
            return reply.fail(error);
        }
        match self.apply(&mutations) {
            Ok(result) => {
                if let Some(unsynced) = &writer.unsynced {
                    // Refused only while shutting down; the dropped reply then answers by itself.
                    let _ = unsynced.send(Unsynced { reply, result });
                }
            }
            Err(error) => {
                self.engine_failed(&error);
                reply.fail(RegionError::StoreStopped { reason: error.to_string() });
            }
        }
    }

    fn engine_failed(&self, error: &engine::Error) {
        self.failure.lock().get_or_insert_with(|| error.to_string());
    }
}

impl Drop for StandaloneBackend {
    fn drop(&mut self) {
        self.writer.lock().unsynced = None;
        if let Some(syncer) = self.syncer.take() {
            // A panic there was told when it happened.
            let _ = syncer.join();
        }
    }
}

/// What the batch makes of `key`: `None` if it does not touch it, else its value afterwards.
fn written(batch: &WriteBatch, key: &[u8]) -> Option<Option<Bytes>> {
    batch.ops().iter().rev().find_map(|op| match op {
        Op::Put { key: put, value, .. } => (put == key).then(|| Some(value.clone())),
        Op::Delete { key: deleted, .. } => (deleted == key).then_some(None),
        Op::DeleteRange { start, end, .. } => (&start[..] <= key && key < &end[..]).then_some(None),
    })
}

fn sync_loop(engine: &dyn Engine, queue: &Receiver<Unsynced>, failure: &Mutex<Option<String>>) {
    while let Ok(first) = queue.recv() {
        let mut due = vec![first];
        due.extend(queue.try_iter());
        let failed = failure.lock().clone().or_else(|| engine.sync().err().map(|e| e.to_string()));
        match failed {
            None => {
                for Unsynced { reply, result } in due {
                    reply.send(Ok(result));
                }
            }
            Some(reason) => {
                failure.lock().get_or_insert_with(|| reason.clone());
                for Unsynced { reply, result: _ } in due {
                    reply.fail(RegionError::StoreStopped { reason: reason.clone() });
                }
            }
        }
    }
}

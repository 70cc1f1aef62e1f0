//! The replicated store behind the services.
//!
//! A read by lease never leaves the thread it came on. What it lacks a lease for goes to the store's loop for a permit;
//! writes go there too, and are answered by the apply thread.

use std::sync::Arc;

use engine::Engine;
use raftstore::command::{Request, WriteResult};
use raftstore::worker::{Clock, Router};
use raftstore::{
    LocalReader, ReadMiss, ReadPermit, ReadRequest, RegionError, Reply, RequestHeader, StoreMsg,
    WriteRequest,
};

use super::{Backend, ReadFn, View};

/// See the module header.
pub struct RaftBackend {
    engine: Arc<dyn Engine>,
    reader: LocalReader,
    router: Router,
    clock: Clock,
}

impl RaftBackend {
    /// Serves the store behind `router`; `clock` is the one its loop lives by.
    pub fn new(
        engine: Arc<dyn Engine>,
        reader: LocalReader,
        router: Router,
        clock: Clock,
    ) -> RaftBackend {
        RaftBackend { engine, reader, router, clock }
    }

    fn send(&self, msg: StoreMsg) {
        // A store that has stopped has answered the reply inside.
        let _ = self.router.send(msg);
    }
}

impl Backend for RaftBackend {
    fn read_now(&self, header: &RequestHeader, read: ReadFn<'_>) -> Result<(), ReadMiss> {
        let clock = || self.clock.now();
        self.reader.read_metered(header, clock, |region, meter| {
            read(&View::new(&*self.engine, region).metered(meter));
        })
    }

    fn permit(&self, header: RequestHeader, reply: Reply<ReadPermit>) {
        self.send(StoreMsg::Read(ReadRequest { header, reply }));
    }

    fn read_with(&self, permit: &ReadPermit, read: ReadFn<'_>) -> Result<(), RegionError> {
        permit.read_metered(|region, meter| {
            read(&View::new(&*self.engine, region).metered(meter));
        })
    }

    fn write(&self, header: RequestHeader, request: Request, reply: Reply<WriteResult>) {
        self.send(StoreMsg::Write(WriteRequest { header, request, reply }));
    }

    fn engine_failed(&self, error: &engine::Error) {
        self.send(StoreMsg::WriteFailed { reason: format!("a read failed: {error}") });
    }
}

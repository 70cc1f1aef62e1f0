//! The key-value services: verbs over a [`Backend`], served one by one and in streams.
//!
//! A *verb* is one file's worth of one request: how it is checked (`admit`), what it reads or writes, how the outcome
//! becomes its response. Everything around it (grants, replies, errors, counting) is written once, here: [`Verbs::read`] and
//! [`Verbs::write`]. The gRPC services ([`service`]) and the batched stream ([`batch`], [`dispatch`]) differ only in the
//! [`Sink`] they pass.
//!
//! # Errors
//! A region error travels in the response, and so does a refused input ([`fallible`]); `tonic::Status` is for transport and
//! for methods that are not served. A failed engine stops the store.
//!
//! # Left out
//! Transactions, compare-and-swap and TTL, refused by name.
//!
//! Tests: `kv/tests.rs`.

mod batch;
mod dispatch;
mod fallible;
mod keyspace;
mod lists;
mod point;
mod queue;
mod scan;
pub mod service;
mod session;
mod sink;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use proto::kvrpcpb::Context;
use raftstore::command::{Request, WriteResult};
use raftstore::{ReadMiss, ReadPermit, RegionError, Reply, RequestHeader};
use tonic::Status;

use self::keyspace::KeyForm;
use self::sink::{Fallible, Overflow, Sink};
use crate::backend::{Backend, View};
use crate::counters::Counters;
use crate::limits::Refusal;

/// A verb that reads. The value is the admitted request.
pub(crate) trait ReadVerb: Sized + Send + 'static {
    /// What the client sends.
    type Request;
    /// What it gets.
    type Response: Fallible;

    /// Checks a request against the limits.
    fn admit(request: Self::Request) -> Result<(RequestHeader, Self), Refusal>;

    /// Reads. May be called again if the grant ran out meanwhile.
    fn run(&self, view: &View<'_>, overflow: Overflow) -> Result<Self::Response, Failure>;
}

/// A verb that writes.
pub(crate) trait WriteVerb {
    /// What the client sends.
    type Request;
    /// What it gets.
    type Response: Fallible;

    /// Checks a request against the limits and says what it replicates.
    fn admit(request: Self::Request) -> Result<(RequestHeader, Request), Refusal>;

    /// The response to an outcome.
    fn respond(result: WriteResult) -> Self::Response;
}

/// Why a read gave nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Ask elsewhere.
    Region(RegionError),
    /// Ask for something else.
    Refused(Refusal),
    /// The store cannot go on.
    Engine(engine::Error),
}

impl From<RegionError> for Failure {
    fn from(error: RegionError) -> Failure {
        Failure::Region(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Failure {
        Failure::Engine(error)
    }
}

/// The verbs of one store; clones share it.
#[derive(Clone)]
pub struct Verbs {
    backend: Arc<dyn Backend>,
    counters: Arc<Counters>,
}

impl Verbs {
    /// Verbs over `backend`, counted in `counters`.
    pub fn new(backend: Arc<dyn Backend>, counters: Arc<Counters>) -> Verbs {
        Verbs { backend, counters }
    }

    /// Serves one read: here and now by lease, else through a permit and on the thread that sends the response.
    pub(crate) fn read<V: ReadVerb>(&self, request: V::Request, sink: impl Sink<V::Response>) {
        let (header, verb) = match V::admit(request) {
            Ok(admitted) => admitted,
            Err(refusal) => return sink.answer(self.refuse(refusal)),
        };
        let overflow = overflow_of(&sink);
        let mut outcome = None;
        let mut read = |view: &View<'_>| outcome = Some(verb.run(view, overflow));
        match self.backend.read_now(&header, &mut read) {
            Ok(()) => {
                self.counters.reads_by_lease.increment();
                sink.answer(self.settle(outcome));
            }
            Err(ReadMiss::Refused(error)) => sink.answer(self.fail(error)),
            Err(ReadMiss::NoLease) => self.read_by_permit(header, verb, sink),
        }
    }

    fn read_by_permit<V: ReadVerb>(
        &self,
        header: RequestHeader,
        verb: V,
        sink: impl Sink<V::Response>,
    ) {
        self.counters.reads_by_quorum.increment();
        let overflow = overflow_of(&sink);
        let verbs = self.clone();
        let reply = Reply::new(move |permit: Result<ReadPermit, RegionError>| match permit {
            Ok(permit) => sink.later(Box::new(move || {
                let mut outcome = None;
                let mut read = |view: &View<'_>| outcome = Some(verb.run(view, overflow));
                match verbs.backend.read_with(&permit, &mut read) {
                    Ok(()) => verbs.settle(outcome),
                    Err(error) => verbs.fail(error),
                }
            })),
            Err(error) => sink.answer(verbs.fail(error)),
        });
        self.backend.permit(header, reply);
    }

    /// Serves one write; whoever applies it answers.
    pub(crate) fn write<V: WriteVerb>(&self, request: V::Request, sink: impl Sink<V::Response>) {
        let (header, request) = match V::admit(request) {
            Ok(admitted) => admitted,
            Err(refusal) => return sink.answer(self.refuse(refusal)),
        };
        self.counters.writes.increment();
        let verbs = self.clone();
        let reply = Reply::new(move |outcome| {
            sink.answer(match outcome {
                Ok(result) => V::respond(result),
                Err(error) => verbs.fail(error),
            });
        });
        self.backend.write(header, request, reply);
    }

    fn refuse<R: Fallible>(&self, refusal: Refusal) -> R {
        self.counters.refused.increment();
        R::from_refusal(refusal)
    }

    fn fail<R: Fallible>(&self, error: RegionError) -> R {
        self.counters.region_errors.increment();
        R::from_region_error(error.into())
    }

    fn settle<R: Fallible>(&self, outcome: Option<Result<R, Failure>>) -> R {
        match outcome {
            Some(Ok(response)) => response,
            Some(Err(Failure::Refused(refusal))) => self.refuse(refusal),
            Some(Err(Failure::Region(error))) => self.fail(error),
            Some(Err(Failure::Engine(error))) => {
                self.backend.engine_failed(&error);
                self.fail(RegionError::StoreStopped { reason: error.to_string() })
            }
            // A backend that says it has read but did not has nothing to show.
            None => self.fail(RegionError::StaleCommand),
        }
    }
}

fn overflow_of<R, S: Sink<R>>(_sink: &S) -> Overflow {
    S::OVERFLOW
}

/// The status of a method that is not served.
fn unsupported(name: &str) -> Status {
    Status::unimplemented(format!("{name} is not supported by this store"))
}

/// What a request says about where it goes, and the form of its keys.
fn address(context: Option<Context>) -> Result<(RequestHeader, KeyForm), Refusal> {
    let context = context.unwrap_or_default();
    let form = KeyForm::of(context.api_version)?;
    let mut header =
        RequestHeader::new(context.region_id.into(), context.region_epoch.unwrap_or_default());
    if let Some(peer) = context.peer {
        header.peer = (peer.id != 0).then(|| peer.id.into());
        header.store = (peer.store_id != 0).then(|| peer.store_id.into());
    }
    if context.term != 0 {
        header.term = Some(raft::Term(context.term));
    }
    Ok((header, form))
}

//! This member's store: the scheduler's one region, on threads of its own, over the transport between members.
//!
//! Nothing here knows what the records mean. What it offers: the role of this member, leave to read in a term, and a
//! replicated write in a term.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use engine::{Cf, Engine};
use parking_lot::Mutex;
use proto::ids::StoreId;
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raft::{Role, Term};
use raftstore::command::{Request, WriteResult};
use raftstore::msg::{RegionHeartbeat, RegionQuestion, SplitRequest};
use raftstore::snapshot::{ReceiveLimits, ReceivedSnapshot, Slots, SnapshotFiles};
use raftstore::store::{IdentError, format};
use raftstore::worker::{Clock, Edges, Parts, Placement, Router, SendError, Worker, WorkerOptions};
use raftstore::{
    LocalReader, ReadPermit, ReadRequest, RegionError, RegionStatus, Reply, Store, StoreMsg,
    WriteRequest,
};
use slog::Logger;
use tokio::sync::{Notify, oneshot};
use transport::{Deliver, Pace, Receiver, SnapshotSpace, Transport};

use super::Error;
use super::members::Members;
use super::roll;
use crate::core::Record;
use crate::journal::{self, JournalError};

/// Where an unreplicated scheduler of earlier versions kept its records.
const EARLIER_FAMILY: Cf = Cf::Default;

/// How this member stands in its region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The term it leads, if it leads.
    pub(super) leading: Option<Term>,
    /// The member that leads, if one is known.
    pub(super) leader: Option<StoreId>,
    /// The members that take part as far as this one knows: all it hears if it leads, else itself and its leader.
    pub(super) active: Vec<StoreId>,
    /// The members that are known to hold some of this leader's log; none if it does not lead.
    pub(super) holding: Vec<StoreId>,
}

/// See the module header.
pub(super) struct Replica {
    me: StoreId,
    engine: Arc<dyn Engine>,
    router: Router,
    reader: LocalReader,
    clock: Clock,
    worker: Mutex<Option<Worker>>,
    transport: Transport,
    counters: Arc<transport::Counters>,
    role_changed: Arc<Notify>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("me", &self.me).finish_non_exhaustive()
    }
}

/// Settings of the store, with another seed for each start.
///
/// A member that is alone need not wait for anybody's silence: it ticks faster, so that it leads soon after its start.
fn config(members: &Members) -> raftstore::Config {
    let identity = members.identity();
    let seed = RandomState::new().hash_one("scheduler");
    let config = raftstore::Config {
        seed,
        // The one region is never divided, so it need not be measured; and it is never idle for long.
        region_max_bytes: u64::MAX,
        region_max_keys: u64::MAX,
        hibernate_ticks: 0,
        ..raftstore::Config::new(identity.cluster_id, identity.store_id)
    };
    match members.len() {
        1 => raftstore::Config { tick_ms: 20, election_timeout_ticks: 5, lease_ms: 50, ..config },
        _ => config,
    }
}

impl Replica {
    /// Opens the store, creating it if the engine is empty, and starts it. Messages of other members come in through the
    /// receiver.
    pub(super) async fn start(
        members: &Arc<Members>,
        engine: Arc<dyn Engine>,
        files: Arc<dyn SnapshotFiles>,
        on_fatal: impl FnOnce(&str) + Send + 'static,
        log: &Logger,
    ) -> Result<(Replica, Receiver), Error> {
        let config = config(members);
        if members.len() > 1 && is_empty(engine.as_ref())? {
            roll::check(members).await?;
        }
        claim(engine.as_ref(), members)?;
        let tick = config.tick();
        let store = Store::open(config, engine.clone(), files.as_ref())?;
        let counters = Arc::new(transport::Counters::default());
        let (to, role_changed) = (Arc::new(OnceLock::<Router>::new()), Arc::new(Notify::new()));
        let transport = connect(members, &to, &counters, log);
        let edges = Edges {
            transport: Arc::new(transport.clone()),
            placement: Arc::new(Unplaced { role_changed: role_changed.clone() }),
            on_fatal: Box::new(on_fatal),
            log: log.clone(),
        };
        let (clock, reader) = (Clock::start(), store.local_reader());
        let parts = Parts { store, engine: engine.clone(), files: files.clone(), clock, tick };
        let worker = Worker::start(parts, edges, WorkerOptions::default())?;
        let router = worker.router();
        assert!(to.set(router.clone()).is_ok(), "connected once");
        let (slots, pace) = (Slots::new(1), Pace::new(0));
        let space = SnapshotSpace { files, limits: ReceiveLimits::default(), slots, pace };
        let deliver = Arc::new(Delivery(router.clone()));
        let receiver =
            Receiver::new(members.identity(), deliver, space, counters.clone(), log.clone());
        let replica = Replica {
            me: members.me(),
            engine,
            router,
            reader,
            clock,
            worker: Mutex::new(Some(worker)),
            transport,
            counters,
            role_changed,
        };
        let region = members.region();
        let created = replica.ask(|reply| StoreMsg::Bootstrap { region, reply }).await;
        created.map_err(|error| Error::Stopped(format!("its region cannot be made: {error}")))?;
        Ok((replica, receiver))
    }

    /// The role this member has now; `None` if its store has stopped.
    pub(super) async fn standing(&self) -> Option<Standing> {
        let status = self.ask(StoreMsg::Status).await.ok()?;
        if status.poisoned.is_some() {
            return None;
        }
        status.regions.first().map(|region| self.describe(region))
    }

    fn describe(&self, region: &RegionStatus) -> Standing {
        let raft = &region.raft;
        // A peer's id is its store's.
        let leader = raft.leader.map(|id| StoreId::new(id.0));
        let leading = (raft.role == Role::Leader).then_some(raft.term);
        let those = |which: fn(&raft::ProgressStatus) -> bool| -> Vec<StoreId> {
            let those = raft.progress.iter().filter(|member| leading.is_some() && which(member));
            those.map(|member| StoreId::new(member.id.0)).collect()
        };
        let mut active = those(|member| member.recent_active);
        active.extend(leader);
        active.push(self.me);
        let holding = those(|member| member.matched > raft::LogIndex(0));
        Standing { leading, leader, active, holding }
    }

    /// Resolves when the role may have changed.
    pub(super) async fn role_changed(&self) {
        self.role_changed.notified().await;
    }

    /// Whether a lease of `term` holds at this moment; using it keeps it.
    pub(super) fn has_lease(&self, term: Term) -> bool {
        self.reader.read(&journal::header(term), || self.clock.now(), |_| ()).is_ok()
    }

    /// Whether this member leads in `term`, at some moment after the call.
    pub(super) async fn confirm(&self, term: Term) -> Result<(), RegionError> {
        if self.has_lease(term) {
            return Ok(());
        }
        self.permit(term).await?.read(|_| ())
    }

    async fn permit(&self, term: Term) -> Result<ReadPermit, RegionError> {
        let header = journal::header(term);
        self.ask(|reply| StoreMsg::Read(ReadRequest { header, reply })).await
    }

    /// Every record, under leave to read in `term`.
    pub(super) async fn load(&self, term: Term) -> Result<Vec<Record>, LoadError> {
        let permit = self.permit(term).await?;
        let engine = self.engine.clone();
        let read = move || permit.read(|_| journal::load(engine.as_ref()));
        let read = tokio::task::spawn_blocking(read).await;
        Ok(read.map_err(|panic| LoadError::Broken(panic.to_string()))???)
    }

    /// Replicates a write in `term`.
    pub(super) async fn write(
        &self,
        term: Term,
        request: Request,
    ) -> Result<WriteResult, RegionError> {
        let header = journal::header(term);
        self.ask(|reply| StoreMsg::Write(WriteRequest { header, request, reply })).await
    }

    /// The cluster's id, if it has been drawn, as far as this member knows.
    pub(super) fn cluster_id(&self) -> Result<Option<u64>, JournalError> {
        journal::cluster_id(self.engine.as_ref())
    }

    /// Whether a member is known to have taken part, as far as this one knows.
    pub(super) fn is_on_roll(&self, member: StoreId) -> Result<bool, engine::Error> {
        roll::is_on(self.engine.as_ref(), member)
    }

    /// What the store's threads and the transport have counted.
    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        let worker = self.router.counters();
        worker.pairs().into_iter().chain(self.counters.list()).collect()
    }

    /// Hands the lead over if this member has it. Blocks, for at most `patience`.
    pub(super) fn drain(&self, patience: Duration) -> bool {
        self.worker.lock().as_ref().is_none_or(|worker| worker.drain(patience))
    }

    /// Ends the threads. Blocks until they have.
    pub(super) fn stop(&self) {
        if let Some(worker) = self.worker.lock().take() {
            self.transport.close();
            worker.stop();
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        msg: impl FnOnce(Reply<T>) -> StoreMsg,
    ) -> Result<T, RegionError> {
        let (sender, receiver) = oneshot::channel();
        let reply = Reply::new(move |outcome| {
            // Whoever asked may have gone.
            let _ = sender.send(outcome);
        });
        // A store that has stopped has answered the reply.
        let _ = self.router.send(msg(reply));
        receiver.await.unwrap_or(Err(RegionError::StaleCommand))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why the records were not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// The lead went away: try again when it is there.
    #[error(transparent)]
    NotLed(#[from] RegionError),
    /// The records are damaged, or the disk is.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The reading thread broke.
    #[error("reading the records broke off: {0}")]
    Broken(String),
}

/// Makes an empty engine this member's, and refuses anybody else's.
fn claim(engine: &dyn Engine, members: &Members) -> Result<(), Error> {
    let identity = members.identity();
    let refuse = |reason: String| Err(Error::Foreign(reason));
    match format(engine, identity.cluster_id, identity.store_id) {
        Ok(()) => Ok(()),
        Err(IdentError::Lost) if holds_earlier_records(engine)? => Err(earlier_version()),
        Err(IdentError::Mismatch { .. }) => refuse(
            "it belongs to another member, or to a scheduler of other members: the list of names, \
             and each member's own, stay the same for ever"
                .to_owned(),
        ),
        Err(error) => refuse(error.to_string()),
    }
}

/// The refusal of what an unreplicated scheduler wrote.
pub(super) fn earlier_version() -> Error {
    Error::Foreign(
        "it was written by an earlier version, whose scheduler was not replicated; start with an \
         empty directory"
            .to_owned(),
    )
}

fn holds_earlier_records(engine: &dyn Engine) -> Result<bool, engine::Error> {
    Ok(!is_empty_family(engine, EARLIER_FAMILY)?)
}

fn is_empty(engine: &dyn Engine) -> Result<bool, engine::Error> {
    Cf::ALL.into_iter().try_fold(true, |empty, cf| Ok(empty && is_empty_family(engine, cf)?))
}

fn is_empty_family(engine: &dyn Engine, cf: Cf) -> Result<bool, engine::Error> {
    Ok(!engine.snapshot().iter(cf, engine::KeyRange::all()).seek_to_first()?)
}

fn connect(
    members: &Arc<Members>,
    to: &Arc<OnceLock<Router>>,
    counters: &Arc<transport::Counters>,
    log: &Logger,
) -> Transport {
    let to = to.clone();
    let parts = transport::Parts {
        identity: members.identity(),
        resolve: members.clone(),
        on_unreachable: Arc::new(move |store| {
            if let Some(router) = to.get() {
                // A store that has stopped need not know.
                let _ = router.send(StoreMsg::Unreachable { store });
            }
        }),
        snapshot_bytes_per_second: 0,
        counters: counters.clone(),
    };
    Transport::new(parts, tokio::runtime::Handle::current(), log.clone())
}

/// Nobody places the scheduler's own region. Its leader's reports tell that the role has changed.
struct Unplaced {
    role_changed: Arc<Notify>,
}

impl Placement for Unplaced {
    fn region_heartbeats(&self, _: Vec<RegionHeartbeat>) {
        self.role_changed.notify_one();
    }

    fn ask_splits(&self, _: Vec<SplitRequest>) {}
    fn report_splits(&self, _: Vec<Vec<metapb::Region>>) {}
    fn ask_regions(&self, _: Vec<RegionQuestion>) {}
}

/// What comes in from other members.
struct Delivery(Router);

impl Deliver for Delivery {
    fn deliver(&self, messages: Vec<RaftMessage>) -> bool {
        let stopped =
            |message| matches!(self.0.send(StoreMsg::Raft(message)), Err(SendError::Stopped));
        !messages.into_iter().any(stopped)
    }

    fn snapshot(&self, message: RaftMessage, file: ReceivedSnapshot) -> bool {
        self.0.send(StoreMsg::SnapshotReceived { message, file }).is_ok()
    }
}

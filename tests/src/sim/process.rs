//! One store's process: the step-able store and applier, and around them what the threads of a real process would be: a log
//! writer that syncs, an applier that works through its tasks, readers, a clock.
//!
//! A process may be down (only the disk remains), up, or paused (up, but nothing happens in it; its clock goes on).

use super::clock::Clock;
use super::event::{Ask, StoreEvent};
use super::scheduler::Brain;
use super::time::Nanos;
use engine::Engine;
use engine::mem::{MemEngine, SyncToken};
use raftstore::apply::{Applier, ApplyTask};
use raftstore::command::WriteResult;
use raftstore::error::RegionError;
use raftstore::msg::LogWrite;
use raftstore::snapshot::{MemFiles, SnapshotFiles};
use raftstore::{LocalReader, ReadPermit, Store};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Messages a paused process buffers; what comes beyond is lost, as a full socket would refuse it.
pub const STALLED_MAX: usize = 4096;

/// What a reply of the store says; handed over through a channel because replies are functions.
#[derive(Debug)]
pub enum Said {
    /// To a write.
    Wrote(u64, Result<WriteResult, RegionError>),
    /// To a read that needs leave.
    Permit(Ask, Result<ReadPermit, RegionError>),
    /// To a node of the scheduler's that wants to read its records.
    MayRead(raft::Term, Result<ReadPermit, RegionError>),
    /// To a change of the scheduler's.
    Committed(raft::Term, Result<WriteResult, RegionError>),
}

/// The sync under way: how far the log reached, and the last write it covers.
#[derive(Debug)]
pub struct Syncing {
    /// The engine's token.
    pub token: SyncToken,
    /// The number of the last log write covered.
    pub number: u64,
    /// Whether any of the writes asked for durability; without that, having been written is enough.
    pub must_sync: bool,
}

/// What exists only while the process lives.
pub struct Machine {
    /// The store loop.
    pub store: Store,
    /// The applier.
    pub applier: Applier,
    /// Reads by lease.
    pub reader: LocalReader,
    /// Log writes the writer has not begun.
    pub log_waiting: Vec<LogWrite>,
    /// The sync under way.
    pub syncing: Option<Syncing>,
    /// Tasks the applier has not begun.
    pub apply_waiting: Vec<ApplyTask>,
    /// Whether the applier will wake.
    pub apply_scheduled: bool,
    /// Whether the loop will take a turn.
    pub turn_scheduled: bool,
}

/// A store: its disk, its clock, and its process if there is one.
pub struct Process {
    /// The disk.
    pub engine: Arc<MemEngine>,
    /// Received snapshots.
    files: MemFiles,
    /// The clock.
    pub clock: Clock,
    /// Counts the starts.
    pub life: u64,
    /// The living part.
    pub machine: Option<Machine>,
    /// Whether it has ever been part of the cluster; what has not is a machine without a store.
    pub joined: bool,
    /// Whether its disk was lost: its store never comes back.
    pub wiped: bool,
    /// Whether it is stopped.
    pub paused: bool,
    /// Whether it was told to hand its leads away.
    pub draining: bool,
    /// What it thinks, if it is a node of the scheduler's.
    pub brain: Brain,
    /// How far its wall clock has jumped.
    pub jump_ms: i64,
    /// Peers asleep and wakes, when last looked at.
    pub sleep: (usize, u64),
    /// The node of the scheduler's it asks.
    pub adviser: Option<usize>,
    /// Whether the scheduler knows it.
    pub registered: bool,
    /// Since when it has run without a stop.
    pub awake_since: Nanos,
    /// What happened to it meanwhile.
    pub stalled: Vec<(Option<u64>, StoreEvent)>,
    /// Whether syncs take very long.
    pub slow_disk: bool,
    said: (Sender<Said>, Receiver<Said>),
}

impl Process {
    /// A store with an empty disk, not started.
    pub fn new(clock: Clock) -> Process {
        Process {
            engine: Arc::new(MemEngine::new()),
            files: MemFiles::new(),
            clock,
            life: 0,
            machine: None,
            joined: false,
            wiped: false,
            paused: false,
            draining: false,
            brain: Brain::default(),
            jump_ms: 0,
            sleep: (0, 0),
            adviser: None,
            registered: false,
            awake_since: Nanos::ZERO,
            stalled: Vec::new(),
            slow_disk: false,
            said: channel(),
        }
    }

    /// The engine as the store sees it.
    pub fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    /// The spool files as the store sees them.
    pub fn files(&self) -> Arc<dyn SnapshotFiles> {
        Arc::new(self.files.clone())
    }

    /// The next operation on a spool file fails.
    pub fn fail_next_file(&self) {
        self.files.fail_next(std::io::ErrorKind::Other);
    }

    /// Where replies go.
    pub fn mouth(&self) -> Sender<Said> {
        self.said.0.clone()
    }

    /// Everything said since the last call.
    pub fn listen(&self) -> Vec<Said> {
        self.said.1.try_iter().collect()
    }

    /// Ends the process; nothing it still says is heard. `keep` of the unsynced batches survive. Returns what it had not
    /// looked at.
    pub fn end(&mut self, keep: usize) -> Vec<StoreEvent> {
        self.engine = Arc::new(self.engine.crash(keep));
        self.files = self.files.crash(keep % 2 == 1);
        self.machine = None;
        self.paused = false;
        self.draining = false;
        self.registered = false;
        self.brain = Brain::default();
        drop(self.listen());
        std::mem::take(&mut self.stalled).into_iter().map(|(_, event)| event).collect()
    }

    /// Its disk is lost, and the store with it.
    pub fn wipe(&mut self) {
        self.engine = Arc::new(MemEngine::new());
        self.files = MemFiles::new();
        self.wiped = true;
    }

    /// True for a store that is part of the cluster, whether it runs or not.
    pub fn is_member(&self) -> bool {
        self.joined && !self.wiped
    }

    /// True when the process runs, paused or not.
    pub fn is_up(&self) -> bool {
        self.machine.is_some()
    }
}

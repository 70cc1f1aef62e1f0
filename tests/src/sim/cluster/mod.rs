//! The simulated cluster: whole stores, their disks and clocks, the network between them, and the clients' calls, all moved
//! by one event queue.
//!
//! # Vocabulary
//! *Call*: what a client wants; it may take several *attempts*, one per store asked. *Notice*: what the cluster tells the
//! driver of a run (a call is done, a wake-up is due). *Place*: the number of a store, from 0.
//!
//! # Life of a put
//! `submit` → attempt → `Ask` reaches a store → the loop's turn → log write and messages → sync ends → votes and acks →
//! committed → `Apply` → reply → `Answer` → notice. Every arrow is an event with a delay of its own, and a fault may fall
//! between any two.
//!
//! # Files
//! `store_loop` (messages in, turns out) · `disk` (log writer) · `applying` · `snapshots` · `calls` and `outcome` (clients) ·
//! `placement` and `brain` (the scheduler) · `lifecycle` (start, crash, pause, every fault) · `view`, `columns`, `audit` (looking
//! at it).
//!
//! # Left out
//! The wire: messages travel as values, since encoding has tests of its own. Threads: what a store's threads do takes time
//! here but never runs inside another's step.

mod applying;
mod audit;
mod brain;
mod calls;
mod columns;
mod disk;
mod lifecycle;
mod operating;
mod outcome;
mod peers;
mod placement;
mod scripted;
mod snapshots;
mod store_loop;
mod timestamps;
mod view;

use super::clock::Clock;
use super::event::{Answer, Event, StoreEvent};
use super::faults::{FaultCounts, Nemesis, View};
use super::invariants::{Broken, Invariants};
use super::knobs::{DiskKnobs, Knobs};
use super::layout::Layout;
use super::matrix::{Change, Matrix};
use super::model::{Changes, World};
use super::network::Network;
use super::operations::{OperationCounts, Steward};
use super::process::Process;
use super::queue::Queue;
use super::record::Recorder;
use super::rng::{Rng, Stream};
use super::scheduler;
use super::time::Nanos;
use super::trace::{Timeline, Trace};
use calls::Calls;
use proto::metapb;
use raftstore::Config;
use raftstore::keys::RawCf;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

pub use calls::{CallOptions, Notice};
pub use view::StoreView;

/// Peer ids that scripts make up begin here, above those that the scheduler gives.
const SCRIPT_PEER_IDS: u64 = 1_000_000;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed of every die.
    pub seed: u64,
    /// Sizes and habits.
    pub knobs: Knobs,
    /// Regions and keys.
    pub layout: Layout,
    /// The configuration of a store; the store's own id is filled in.
    pub store_config: Config,
    /// Which lines the timeline keeps.
    pub timeline: Timeline,
    /// Whether calls are recorded for the checkers; their keys and values must then be the workload's.
    pub record: bool,
}

/// Counts of what happened, beyond the network's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By kind, as drawn.
    pub faults: FaultCounts,
    /// Processes ended with loss of power.
    pub crashes: u64,
    /// Batches lost by them.
    pub batches_lost: u64,
    /// Processes started.
    pub starts: u64,
    /// Failed syncs.
    pub syncs_failed: u64,
    /// Snapshots that arrived whole.
    pub snapshots: u64,
    /// Log compactions applied.
    pub compactions: u64,
    /// Reads answered from a lease.
    pub lease_reads: u64,
    /// Reads answered after asking a quorum.
    pub index_reads: u64,
    /// Leaders seen, over all regions and terms.
    pub leaders: u64,
    /// Changes of regions.
    pub changes: Changes,
    /// Instructions of the scheduler that reached a store.
    pub instructions: u64,
    /// Times a node of the scheduler's began to lead.
    pub scheduler_terms: u64,
    /// Orders by kind, as drawn.
    pub operations: OperationCounts,
    /// Stores that lost their disks.
    pub stores_lost: u64,
    /// Peers destroyed.
    pub destroyed: u64,
    /// Regions that fell asleep.
    pub sleeps: u64,
    /// Timestamps told.
    pub timestamps: u64,
}

/// The cluster.
pub struct Cluster {
    pub(super) queue: Queue<Event>,
    pub(super) network: Network,
    /// Stores first, present and future ones, then the scheduler's nodes.
    pub(super) processes: Vec<Process>,
    /// How many of them are stores.
    pub(super) places: usize,
    pub(super) layout: Layout,
    pub(super) knobs: Knobs,
    pub(super) disk: DiskKnobs,
    pub(super) store_config: Config,
    pub(super) invariants: Invariants,
    pub(super) world: World,
    pub(super) nemesis: Nemesis,
    pub(super) steward: Steward,
    pub(super) matrix: Matrix,
    /// Until then no client begins a call.
    pub idle_until: Nanos,
    /// Peers to be added when their ids have come, by attempt.
    pub(super) plans: BTreeMap<u64, (Rc<metapb::Region>, usize)>,
    /// Instructions of the scheduler are not carried out.
    pub(super) obstinate: bool,
    /// The last peer id that a script made up.
    pub(super) next_peer_id: u64,
    /// The attempt of a script's own request, and its answer.
    pub(super) direct: Option<(u64, Option<Answer>)>,
    /// Stores being emptied.
    pub(super) leaving: BTreeSet<usize>,
    pub(super) calls: Calls,
    pub(super) notices: VecDeque<Notice>,
    pub(super) disk_rng: Rng,
    pub(super) process_rng: Rng,
    /// When a store last heard another about a region: by region, hearer, speaker.
    pub(super) heard: BTreeMap<(u64, usize, usize), Nanos>,
    /// When a store's peer of a region was last seen asleep.
    pub(super) rested_at: BTreeMap<(usize, u64), Nanos>,
    /// Term and version of a led region when its leases were last looked at, by store.
    pub(super) looked_at: BTreeMap<(usize, u64), (u64, u64)>,
    /// When a region's membership last changed.
    pub(super) changed_at: BTreeMap<u64, Nanos>,
    /// What the timeline last said about each region's nodes.
    pub(super) columns: BTreeMap<u64, String>,
    /// The column family that clients use.
    pub cf: RawCf,
    /// The record of what clients did and saw.
    pub recorder: Recorder,
    /// The record of events.
    pub trace: Trace,
    /// Counts.
    pub counts: Counts,
}

impl Cluster {
    /// A cluster with empty disks, every store starting within the first tick.
    pub fn new(setup: Setup) -> Cluster {
        let Setup { seed, knobs, layout, store_config, timeline, record } = setup;
        let mut process_rng = Rng::new(seed, Stream::Process);
        let drift = |rng: &mut Rng| {
            let ppm = rng.between(0, 2 * knobs.drift_ppm_max);
            i64::try_from(ppm).unwrap_or(0) - i64::try_from(knobs.drift_ppm_max).unwrap_or(0)
        };
        let clock = |rng: &mut Rng| {
            let origin = rng.span(Nanos::secs(1), Nanos::secs(10_000));
            Clock::new(origin, drift(rng))
        };
        let places = knobs.stores + knobs.spares;
        let machines = places + knobs.schedulers;
        let processes: Vec<Process> =
            (0..machines).map(|_| Process::new(clock(&mut process_rng))).collect();
        let network = Network::new(machines, knobs.network, Rng::new(seed, Stream::Network));
        let node_places: Vec<usize> = (places..machines).collect();
        let nodes = scheduler::region(&node_places);
        let faults = Rng::new(seed, Stream::Faults);
        let mut cluster = Cluster {
            queue: Queue::default(),
            network,
            processes,
            places,
            disk: knobs.disk,
            nemesis: Nemesis::new(knobs.faults.clone(), knobs.fault_interval, faults),
            steward: Steward::new(
                knobs.operations.clone(),
                knobs.operation_interval,
                Rng::new(seed, Stream::Operations),
            ),
            matrix: Matrix::new(knobs.election_timeout().times(3)),
            idle_until: Nanos::ZERO,
            plans: BTreeMap::new(),
            obstinate: false,
            next_peer_id: SCRIPT_PEER_IDS,
            direct: None,
            leaving: BTreeSet::new(),
            calls: Calls::new(Rng::new(seed, Stream::Clients), &knobs, record),
            world: World::new(&layout.regions, &nodes),
            layout,
            knobs,
            store_config,
            invariants: Invariants::default(),
            rested_at: BTreeMap::new(),
            looked_at: BTreeMap::new(),
            changed_at: BTreeMap::new(),
            notices: VecDeque::new(),
            disk_rng: Rng::new(seed, Stream::Disk),
            process_rng,
            heard: BTreeMap::new(),
            columns: BTreeMap::new(),
            cf: RawCf::Default,
            recorder: Recorder::default(),
            trace: Trace::new(timeline),
            counts: Counts::default(),
        };
        cluster.plan();
        let present = (0..cluster.knobs.stores).chain(places..machines);
        for store in present {
            cluster.processes[store].joined = true;
            let delay = cluster.process_rng.span(Nanos::ZERO, cluster.knobs.tick);
            cluster.queue.after(delay, Event::Fault(super::faults::Fault::Restart(store)));
        }
        cluster
    }

    /// The virtual time.
    pub fn now(&self) -> Nanos {
        self.queue.now()
    }

    /// The first regions, and the keys.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Sizes and habits.
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// Lets things happen until there is something to tell, or nothing more is due by `end`.
    pub fn run_until(&mut self, end: Nanos) -> Result<Option<Notice>, Broken> {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Ok(Some(notice));
            }
            match self.queue.next_until(end) {
                Some(event) => self.dispatch(event)?,
                None => return Ok(None),
            }
        }
    }

    /// Asks to be told [`Notice::Wake`] after `delay`.
    pub fn wake_after(&mut self, delay: Nanos, name: u64) {
        self.queue.after(delay, Event::Wake { name });
    }

    fn dispatch(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Store { store, life, event } => self.reach_store(store, life, event)?,
            Event::Answer { attempt, answer } => self.answered(attempt, answer)?,
            Event::GiveUp { attempt } => self.gave_up(attempt),
            Event::Retry { call } => self.attempt(call),
            Event::Wake { name } => self.notices.push_back(Notice::Wake(name)),
            Event::Fault(fault) => self.suffer(fault)?,
            Event::Strike => self.strike(),
            Event::Operate => self.operate(),
        }
        Ok(())
    }

    /// Starts the phase with faults and operations.
    pub fn begin_faults(&mut self) {
        self.begin_operations();
        self.await_strike();
    }

    fn await_strike(&mut self) {
        if let Some(pause) = self.nemesis.pause() {
            self.queue.after(pause, Event::Strike);
        }
    }

    fn strike(&mut self) {
        let view = View {
            stores: self.places,
            leaders: self.leads(),
            election: self.knobs.election_timeout(),
            nodes: self.nodes(),
            node_leader: self.leader_of(scheduler::SCHEDULER_REGION),
        };
        if let Some((kind, plan)) = self.nemesis.strike(&view) {
            self.matrix.fault(self.queue.now(), kind);
            for (delay, fault) in plan {
                self.queue.after(delay, Event::Fault(fault));
            }
        }
        self.counts.faults = self.nemesis.counts.clone();
        self.await_strike();
    }

    /// The living regions and who leads them.
    fn leads(&self) -> Vec<(u64, Option<usize>)> {
        self.regions().iter().map(|region| (region.id, self.leader_of(region.id))).collect()
    }

    /// A change is seen.
    pub(super) fn happened(&mut self, change: Change) {
        self.matrix.change(self.queue.now(), change);
    }

    /// Schedules something for a store's present life.
    pub(super) fn schedule(&mut self, store: usize, delay: Nanos, event: StoreEvent) {
        let life = Some(self.processes[store].life);
        self.queue.after(delay, Event::Store { store, life, event });
    }
}

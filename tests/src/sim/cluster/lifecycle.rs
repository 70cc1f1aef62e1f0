//! Starting, ending, stopping: every fault, carried out.

use super::Cluster;
use crate::sim::event::{Event, StoreEvent};
use crate::sim::faults::{Fault, Keep};
use crate::sim::invariants::Broken;
use crate::sim::knobs::DiskKnobs;
use crate::sim::layout::store_id;
use crate::sim::process::Machine;
use crate::sim::scheduler::{self, SCHEDULER_CLUSTER};
use crate::sim::time::Nanos;
use engine::Engine;
use raftstore::apply::Applier;
use raftstore::msg::StoreMsg;
use raftstore::{Config, Reply, Store};

impl Cluster {
    pub(super) fn suffer(&mut self, fault: Fault) -> Result<(), Broken> {
        if fault.is_harm() && !self.nemesis.is_active() {
            // Planned before the healing, for later.
            return Ok(());
        }
        let now = self.queue.now();
        self.trace.event(now, 0x300, fault_number(&fault));
        if !matches!(fault, Fault::Restart(store) if self.processes[store].is_up()) {
            self.trace.line(now, |line| line.push_str(&format!("FAULT {fault:?}")));
        }
        match fault {
            Fault::Cut(links) => {
                links.into_iter().for_each(|(from, to)| self.network.cut(from, to));
            }
            Fault::Mend(links) => {
                links.into_iter().for_each(|(from, to)| self.network.mend(from, to));
            }
            Fault::Clog(links, span) => {
                links.into_iter().for_each(|(from, to)| self.network.clog(from, to, now + span));
            }
            Fault::Crash(store, keep) => self.crash(store, keep),
            Fault::Restart(store) => self.start(store)?,
            Fault::Pause(store) => self.processes[store].paused = self.processes[store].is_up(),
            Fault::Resume(store) => self.resume(store)?,
            Fault::SlowDisk(store, slow) => self.processes[store].slow_disk = slow,
            Fault::FailSync(_) | Fault::FailWrite(_) | Fault::FailFile(_) | Fault::Drain(_) => {
                self.trouble(&fault);
            }
            Fault::Transfer(region, store) => self.transfer(region, store),
            Fault::Jump(node, jump_ms) => {
                let jumped = &mut self.processes[node].jump_ms;
                *jumped = jumped.saturating_add(jump_ms);
            }
            Fault::CrashLeader(region, span) => {
                if let Some(leader) = self.leader_of(region) {
                    self.crash(leader, Keep::Prefix);
                    self.queue.after(span, Event::Fault(Fault::Restart(leader)));
                }
            }
        }
        Ok(())
    }

    /// Faults of a living process only.
    fn trouble(&mut self, fault: &Fault) {
        let reason = "injected failure";
        match *fault {
            Fault::FailSync(store) if self.processes[store].is_up() => {
                self.processes[store].engine.fail_next_sync(reason);
            }
            Fault::FailWrite(store) if self.processes[store].is_up() => {
                self.processes[store].engine.fail_next_write(reason);
            }
            Fault::FailFile(store) if self.processes[store].is_up() => {
                self.processes[store].fail_next_file();
            }
            Fault::Drain(store)
                if self.processes[store].is_up() && !self.processes[store].paused =>
            {
                self.processes[store].draining = true;
                self.tell(store, StoreMsg::Drain);
            }
            _ => {}
        }
    }

    /// Ends the process and loses what was not synced, as far as `keep` says.
    pub(super) fn crash(&mut self, store: usize, keep: Keep) {
        let process = &mut self.processes[store];
        if !process.is_up() {
            return;
        }
        let unsynced = process.engine.unsynced_batches();
        let kept = match keep {
            Keep::None => 0,
            Keep::Prefix => self.disk_rng.below(unsynced as u64 + 1) as usize,
            Keep::All => unsynced,
        };
        self.counts.crashes += u64::from(keep != Keep::All);
        self.invariants.hard_states.crashed(store);
        self.invariants.disks.crashed(store);
        self.counts.batches_lost += (unsynced - kept) as u64;
        for event in process.end(kept) {
            self.missed(event);
        }
    }

    /// A store that cannot write any more stops itself, and is started again later on what its disk holds.
    pub(super) fn stop_poisoned(&mut self, store: usize, reason: &str) {
        let now = self.queue.now();
        self.trace.line(now, |line| line.push_str(&format!("s{} STOPS: {reason}", store + 1)));
        // It lives long enough to answer those who wait.
        if let Some(machine) = &mut self.processes[store].machine {
            machine.apply_waiting.clear();
        }
        self.listen(store);
        self.crash(store, Keep::Prefix);
        let delay = self.process_rng.span(Nanos::millis(1), self.knobs.election_timeout().times(2));
        self.queue.after(delay, Event::Fault(Fault::Restart(store)));
    }

    /// The scheduler's nodes begin with the plan of the first regions on their disks.
    pub(super) fn plan(&mut self) {
        let settings = scheduler::settings(&self.knobs);
        let cluster_id = self.store_config.cluster_id;
        let batch = scheduler::first_records(&self.layout.regions, &settings, cluster_id);
        for node in self.nodes() {
            let engine = &self.processes[node].engine;
            raftstore::store::format(engine.as_ref(), SCHEDULER_CLUSTER, store_id(node))
                .expect("an empty engine can be formatted");
            let written = engine.write(&batch).and_then(|()| engine.sync());
            written.expect("an empty engine can be written to");
        }
        self.world.plan(scheduler::SCHEDULER_REGION, &batch);
    }

    /// Starts the process of a store that is down.
    pub(super) fn start(&mut self, store: usize) -> Result<(), Broken> {
        if self.processes[store].is_up() || !self.processes[store].is_member() {
            return Ok(());
        }
        self.check_disk(store)?;
        self.counts.starts += 1;
        let process = &mut self.processes[store];
        process.life += 1;
        process.awake_since = self.queue.now();
        let cluster_id =
            if self.is_node(store) { SCHEDULER_CLUSTER } else { self.store_config.cluster_id };
        let is_node = self.is_node(store);
        let hibernate_ticks = if is_node { 0 } else { self.store_config.hibernate_ticks };
        let process = &mut self.processes[store];
        let config = Config {
            hibernate_ticks,
            cluster_id,
            store_id: store_id(store),
            // Another life draws other timeouts.
            seed: self.store_config.seed ^ (store as u64) << 32 ^ process.life,
            ..self.store_config.clone()
        };
        let engine = process.engine();
        let refused = |error: String| {
            Broken::new("I6 restart", format!("store {} does not open: {error}", store + 1))
        };
        raftstore::store::format(engine.as_ref(), config.cluster_id, config.store_id)
            .map_err(|error| refused(error.to_string()))?;
        let opened = Store::open(config, engine, process.files().as_ref())
            .map_err(|error| refused(error.to_string()))?;
        let reader = opened.local_reader();
        process.machine = Some(Machine {
            store: opened,
            applier: Applier::new(process.engine()),
            reader,
            log_waiting: Vec::new(),
            syncing: None,
            apply_waiting: Vec::new(),
            apply_scheduled: false,
            turn_scheduled: false,
        });
        let first = match self.is_node(store) {
            true => vec![scheduler::region(&self.nodes().collect::<Vec<_>>())],
            false => self.layout.regions.clone(),
        };
        for region in first {
            if Cluster::peer_on(&region, store).is_some() {
                self.tell(store, StoreMsg::Bootstrap { region, reply: Reply::ignored() });
            }
        }
        if is_node {
            self.awake(store);
        } else {
            self.schedule(store, self.knobs.tick, StoreEvent::Heartbeat);
        }
        self.schedule(store, self.knobs.tick, StoreEvent::Tick);
        Ok(())
    }

    fn resume(&mut self, store: usize) -> Result<(), Broken> {
        let process = &mut self.processes[store];
        if !process.paused {
            return Ok(());
        }
        process.paused = false;
        process.awake_since = self.queue.now();
        let stalled = std::mem::take(&mut process.stalled);
        for (life, event) in stalled {
            self.reach_store(store, life, event)?;
        }
        Ok(())
    }

    pub(super) fn transfer(&mut self, region: u64, to: usize) {
        let Some(leader) = self.leader_of(region) else { return };
        let Some(region) = self.world.region(region).map(|model| model.region.clone()) else {
            return;
        };
        let Some(to) = Cluster::peer_on(&region, to) else { return };
        let header = self.header(&region);
        if !self.processes[leader].paused {
            let (to, reply) = (to.id.into(), Reply::ignored());
            self.tell(leader, StoreMsg::TransferLeader { header, to, reply });
        }
    }

    /// Ends every fault: whole links, healthy disks, every process up and running. The clocks keep their rates.
    pub fn heal(&mut self) -> Result<(), Broken> {
        self.nemesis.stop();
        self.steward.stop();
        self.counts.operations = self.steward.counts.clone();
        self.network.heal();
        self.disk = DiskKnobs::CALM;
        self.trace.line(self.queue.now(), |line| line.push_str("HEAL"));
        for store in 0..self.processes.len() {
            self.processes[store].slow_disk = false;
            self.resume(store)?;
            self.processes[store].jump_ms = 0;
            if self.processes[store].draining {
                self.crash(store, Keep::All);
            }
            self.start(store)?;
        }
        Ok(())
    }
}

fn fault_number(fault: &Fault) -> u64 {
    match fault {
        Fault::Cut(links) => links.len() as u64,
        Fault::Mend(links) => 0x100 + links.len() as u64,
        Fault::Clog(links, span) => 0x200 + links.len() as u64 + span.0,
        Fault::Crash(store, keep) => 0x300 + 16 * *store as u64 + *keep as u64,
        Fault::Restart(store) => 0x400 + *store as u64,
        Fault::Pause(store) => 0x500 + *store as u64,
        Fault::Resume(store) => 0x600 + *store as u64,
        Fault::SlowDisk(store, slow) => 0x700 + 2 * *store as u64 + u64::from(*slow),
        Fault::FailSync(store) => 0x800 + *store as u64,
        Fault::Transfer(region, store) => 0x900 + 16 * *region + *store as u64,
        Fault::FailWrite(store) => 0xb00 + *store as u64,
        Fault::FailFile(store) => 0xc00 + *store as u64,
        Fault::Drain(store) => 0xd00 + *store as u64,
        Fault::Jump(node, jump) => 0xe00 + *node as u64 + jump.unsigned_abs(),
        Fault::CrashLeader(region, span) => 0xa00 + *region + span.0,
    }
}

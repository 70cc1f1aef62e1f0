//! The applier's thread: tasks wait, are executed together, and their results go back to the loop.

use super::Cluster;
use crate::sim::event::StoreEvent;
use crate::sim::invariants::{Broken, durable};
use crate::sim::process::Process;
use raft::Entry;
use raftstore::apply::{ApplyError, ApplyResult, ApplyTask, ApplyTurn, Effect};
use raftstore::msg::StoreMsg;

impl Cluster {
    /// The loop hands tasks over; what is in them counts as committed from now on.
    pub(super) fn queue_apply(
        &mut self,
        store: usize,
        tasks: Vec<ApplyTask>,
    ) -> Result<(), Broken> {
        if tasks.is_empty() {
            return Ok(());
        }
        for task in &tasks {
            if let ApplyTask::Committed { region, entries, .. } = task {
                self.check_durable(store, region.get(), entries)?;
                for entry in entries {
                    let (region, index, term) = (region.get(), entry.index.0, entry.term.0);
                    self.invariants.commit_rule.committed(region, index);
                    self.invariants.state_machine.committed(store, region, entry)?;
                    self.invariants.exactly_once.committed(region, entry)?;
                    self.invariants.leader_complete.committed(region, index, term);
                }
            }
        }
        let Some(machine) = &mut self.processes[store].machine else { return Ok(()) };
        machine.apply_waiting.extend(tasks);
        if !machine.apply_scheduled {
            machine.apply_scheduled = true;
            let delay = self.process_rng.around(self.knobs.apply_mean);
            self.schedule(store, delay, StoreEvent::Apply);
        }
        Ok(())
    }

    /// I5, for the last entry: with it, everything before it.
    fn check_durable(&self, store: usize, region: u64, entries: &[Entry]) -> Result<(), Broken> {
        let Some(last) = entries.last() else { return Ok(()) };
        let at = (region, last.index.0, last.term.0);
        let held = |process: &Process| durable::holds(&process.engine.fork(), at.0, at.1, at.2);
        let on_disk: Vec<bool> = self.processes.iter().map(held).collect();
        durable::check(store, at, &on_disk)
    }

    /// The applier takes everything that waits.
    pub(super) fn apply(&mut self, store: usize) -> Result<(), Broken> {
        let Some(machine) = &mut self.processes[store].machine else { return Ok(()) };
        machine.apply_scheduled = false;
        let tasks = std::mem::take(&mut machine.apply_waiting);
        match machine.applier.handle(tasks) {
            Ok(turn) => self.applied(store, turn)?,
            Err(ApplyError::Engine(error)) => self.disk_failed(store, &error),
            Err(error) => return Err(Broken::new("I10 apply", error.to_string())),
        }
        self.listen(store);
        Ok(())
    }

    fn applied(&mut self, store: usize, turn: ApplyTurn) -> Result<(), Broken> {
        let ApplyTurn { results, replies, snapshots } = turn;
        for result in &results {
            self.check_applied(store, result)?;
            self.check_lead(store, result)?;
        }
        for (reply, answer) in replies {
            reply.send(answer);
        }
        for ready in snapshots {
            self.tell(store, StoreMsg::SnapshotReady(ready));
        }
        if !results.is_empty() {
            self.tell(store, StoreMsg::Applied(results));
        }
        Ok(())
    }

    /// I8: what a leader applies counts as acknowledged; from its first own entry on nobody may hold a lease of an
    /// earlier term.
    fn check_lead(&mut self, store: usize, result: &ApplyResult) -> Result<(), Broken> {
        let Some(place) = self.layout.place_of(result.region) else { return Ok(()) };
        let lead = self.status(store, place).filter(|node| node.role == raft::Role::Leader);
        let Some(lead) = lead else { return Ok(()) };
        let region = result.region.get();
        self.invariants.fresh_reads.acknowledged(region, result.applied_index.0);
        if result.applied_term != lead.term {
            return Ok(());
        }
        let deposed = |other: &usize| *other != store && self.term(*other, place) < lead.term.0;
        match self.lease_holders(place).find(deposed) {
            None => Ok(()),
            Some(holder) => {
                let what = format!(
                    "store {} leads region {region} in term {} and serves while store {} has a \
                     lease",
                    store + 1,
                    lead.term,
                    holder + 1,
                );
                Err(Broken::new("I8 one lease holder", what))
            }
        }
    }

    fn check_applied(&mut self, store: usize, result: &ApplyResult) -> Result<(), Broken> {
        let ApplyResult { region, applied_index, state_hash, effects, .. } = result;
        let index = applied_index.0;
        self.trace.event(self.queue.now(), 0x100 + store as u64, index);
        let compactions =
            effects.iter().filter(|effect| matches!(effect, Effect::CompactLog { .. }));
        self.counts.compactions += compactions.count() as u64;
        self.invariants.state_machine.applied(store, region.get(), index, *state_hash)?;
        // Comparing costs a walk over the data: always while it is small, else now and then.
        let small =
            self.invariants.exactly_once.data(region.get()).is_none_or(|data| data.len() < 64);
        if let Some(place) = self.layout.place_of(*region)
            && (small || index.is_multiple_of(16))
        {
            let engine = self.processes[store].engine();
            let region = &self.layout.regions[place];
            self.invariants.exactly_once.compare(store, region, engine.as_ref())?;
        }
        Ok(())
    }
}

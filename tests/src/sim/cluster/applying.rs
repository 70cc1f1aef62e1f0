//! The applier's thread: tasks wait, are executed together, and their results go back to the loop.

use super::Cluster;
use crate::sim::event::StoreEvent;
use crate::sim::invariants::{Broken, durable, exactly_once};
use crate::sim::layout::store_place;
use crate::sim::matrix::Change;
use engine::Engine;
use raft::Entry;
use raftstore::apply::{ApplyError, ApplyResult, ApplyTask, ApplyTurn, Effect, HashTask};
use raftstore::msg::{SplitCheck, StoreMsg};
use raftstore::scan;

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
                    self.advance_world(region, entry)?;
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

    /// The model executes an entry, the first time it is seen.
    fn advance_world(&mut self, region: u64, entry: &Entry) -> Result<(), Broken> {
        let before = self.world.changes;
        self.world.committed(region, entry)?;
        let after = self.world.changes;
        if after != before {
            self.counts.changes = after;
            for (seen, change) in [
                (after.splits > before.splits, Change::Split),
                (after.merge_steps() > before.merge_steps(), Change::Merge),
                (after.conf_changes > before.conf_changes, Change::ConfChange),
                (after.hash_checks > before.hash_checks, Change::ConsistencyCheck),
            ] {
                if seen {
                    self.happened(change);
                }
            }
            let now = self.now();
            self.changed_at.insert(region, now);
            for living in self.world.living() {
                self.changed_at.entry(living.id).or_insert(now);
            }
            self.trace.line(now, |line| {
                line.push_str(&format!("r{region} CHANGES at {}: {after:?}", entry.index));
            });
        }
        Ok(())
    }

    /// I5, for the last entry: with it, everything before it.
    fn check_durable(&self, store: usize, region: u64, entries: &[Entry]) -> Result<(), Broken> {
        let Some(last) = entries.last() else { return Ok(()) };
        let at = (region, last.index.0, last.term.0);
        let Some(model) = self.world.region(region) else { return Ok(()) };
        let memberships = model.members_before(last.index.0);
        let held = |id: u64| {
            let process = &self.processes[store_place(id)];
            // What is gone on purpose says nothing about what was there.
            process.wiped
                || durable::is_gone(process.engine.as_ref(), region)
                || durable::holds(&process.engine.fork(), at.0, at.1, at.2)
        };
        durable::check(store, at, &memberships, held)
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
        let ApplyTurn { results, replies, snapshots, hashes } = turn;
        for result in &results {
            self.check_applied(store, result)?;
            self.check_lead(store, result)?;
        }
        for (reply, answer) in replies {
            reply.send(answer);
        }
        for task in hashes {
            let delay = self.process_rng.around(self.knobs.apply_mean).times(4);
            self.schedule(store, delay, StoreEvent::Hash(Box::new(task)));
        }
        for ready in snapshots {
            self.tell(store, StoreMsg::SnapshotReady(ready));
        }
        if !results.is_empty() {
            self.tell(store, StoreMsg::Applied(results));
        }
        Ok(())
    }

    /// The scanner measures a region.
    pub(super) fn measure(&mut self, store: usize, check: SplitCheck) {
        let snapshot = self.processes[store].engine.snapshot();
        match scan::measure(check, snapshot.as_ref()) {
            Ok(checked) => self.tell(store, StoreMsg::SplitChecked(checked)),
            Err(error) => self.disk_failed(store, &error),
        }
    }

    /// The scanner hashes a region.
    pub(super) fn hash(&mut self, store: usize, task: HashTask) {
        match task.carry_out() {
            Ok(message) => self.tell(store, message),
            Err(error) => self.disk_failed(store, &error),
        }
    }

    /// I8: what a leader applies counts as acknowledged; from its first own entry on nobody else may hold a lease.
    fn check_lead(&mut self, store: usize, result: &ApplyResult) -> Result<(), Broken> {
        let region = result.region.get();
        let lead = self.status(store, region).filter(|at| at.raft.role == raft::Role::Leader);
        let Some(lead) = lead else { return Ok(()) };
        self.invariants.fresh_reads.acknowledged(region, result.applied_index.0);
        if result.applied_term != lead.raft.term {
            return Ok(());
        }
        let point = self.world.region(region).and_then(|model| model.at(result.applied_index.0));
        let Some(described) = point.map(|point| point.region.clone()) else { return Ok(()) };
        self.check_deposed(store, region, lead.raft.term.0)?;
        // The other regions are many: looked at when this one begins to be led or has changed, and now and then.
        let epoch = described.region_epoch.unwrap_or_default();
        let seen = (lead.raft.term.0, epoch.version);
        let known = self.looked_at.insert((store, region), seen) == Some(seen);
        if known && !result.applied_index.0.is_multiple_of(16) {
            return Ok(());
        }
        self.check_other_leases(store, &described)
    }

    fn check_applied(&mut self, store: usize, result: &ApplyResult) -> Result<(), Broken> {
        let ApplyResult { region, applied_index, state_hash, effects, .. } = result;
        let index = applied_index.0;
        self.trace.event(self.queue.now(), 0x100 + store as u64, index);
        let effects_of =
            |kind: fn(&Effect) -> bool| effects.iter().filter(|e| kind(e)).count() as u64;
        let compactions = effects_of(|effect| matches!(effect, Effect::CompactLog { .. }));
        let destroyed = effects_of(|effect| matches!(effect, Effect::Destroyed { .. }));
        let created = effects_of(|effect| matches!(effect, Effect::Created { .. }));
        self.counts.compactions += compactions;
        self.counts.destroyed += destroyed;
        if compactions > 0 {
            self.happened(Change::LogGc);
        }
        if destroyed > 0 {
            self.happened(Change::Destroy);
        }
        if index == 0 && destroyed + created > 0 {
            // Of the peer's life alone; positions mean nothing.
            return Ok(());
        }
        self.invariants.state_machine.applied(store, region.get(), index, *state_hash)?;
        // Comparing costs a walk over the data: always while it is small, else now and then.
        let small = self.world.region(region.get()).is_none_or(|model| model.data.len() < 64);
        if small || index.is_multiple_of(16) {
            let engine = self.processes[store].engine();
            exactly_once::compare(&self.world, store, region.get(), engine.as_ref())?;
        }
        Ok(())
    }
}

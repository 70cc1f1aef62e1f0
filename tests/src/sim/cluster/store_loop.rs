//! The store loop: events in, turns out.

use super::Cluster;
use super::placement::Report;
use crate::sim::event::{Answer, Ask, AskWhat, Event, StoreEvent};
use crate::sim::invariants::fresh_reads::FreshReads;
use crate::sim::invariants::{Broken, Sent};
use crate::sim::layout::{store_id, store_place};
use crate::sim::matrix::Change;
use crate::sim::process::{STALLED_MAX, Said};
use crate::sim::time::Nanos;
use crate::sim::trace::Trace;
use bytes::Bytes;
use engine::{Cf, Engine};
use proto::eraftpb::MessageType;
use proto::raft_serverpb::RaftMessage;
use raftstore::keys::RawCf;
use raftstore::local_reader::ReadMiss;
use raftstore::msg::{ReadRequest, StoreMsg, Turn, WriteRequest};
use raftstore::{Reply, keys};

impl Cluster {
    /// Something reaches a process, if it is there and not stopped.
    pub(super) fn reach_store(
        &mut self,
        store: usize,
        life: Option<u64>,
        event: StoreEvent,
    ) -> Result<(), Broken> {
        let process = &mut self.processes[store];
        if !process.is_up() || life.is_some_and(|life| life != process.life) {
            self.missed(event);
            return Ok(());
        }
        if process.paused {
            if process.stalled.len() < STALLED_MAX {
                process.stalled.push((life, event));
            }
            return Ok(());
        }
        self.note(store, &event);
        match event {
            StoreEvent::Raft(message) => {
                let speaker = store_place(message.from_peer.as_ref().map_or(0, |p| p.store_id));
                self.heard.insert((message.region_id, store, speaker), self.queue.now());
                let rejected = message.message.as_ref().is_some_and(|inner| inner.reject);
                self.tell(store, StoreMsg::Raft(*message));
                if rejected {
                    self.check_nodes()?;
                }
            }
            StoreEvent::Tick => self.tick(store),
            StoreEvent::Turn => return self.turn(store),
            StoreEvent::Synced => self.synced(store),
            StoreEvent::Apply => return self.apply(store),
            StoreEvent::Ask(ask) => self.ask(store, ask)?,
            StoreEvent::ReadNow(ask, permit) => {
                self.check_read(store, &ask, "permit", permit.read(|_| ()).is_ok())?;
                let answer = match permit.read(|_| self.read_engine(store, &ask.what)) {
                    Ok(answer) => {
                        self.counts.index_reads += 1;
                        answer
                    }
                    Err(error) => Answer::Error(error),
                };
                self.reply_to(ask.attempt, answer);
            }
            StoreEvent::Snapshot(message, parts, awaited) => {
                self.snapshot_arrives(store, *message, parts, awaited);
            }
            StoreEvent::SnapshotSent(region, to, ok) => {
                self.tell(store, StoreMsg::SnapshotSent { region, to, ok });
            }
            StoreEvent::Install(install) => self.install(store, *install),
            StoreEvent::Unreachable(other) => {
                self.tell(store, StoreMsg::Unreachable { store: store_id(other) });
            }
            StoreEvent::Measure(check) => self.measure(store, *check),
            StoreEvent::Hash(task) => self.hash(store, *task),
            StoreEvent::Heartbeat => self.store_heartbeat(store),
            StoreEvent::Advice(advice) => self.advised(store, *advice),
            StoreEvent::Consult(consult) => self.consult(store, *consult)?,
            StoreEvent::BrainTick => self.brain_tick(store)?,
            StoreEvent::Think => self.think(store)?,
        }
        self.listen(store);
        Ok(())
    }

    /// Something came for a process that is no more; whoever holds the other end of the connection notices.
    pub(super) fn missed(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Ask(ask) => self.reply_to(ask.attempt, Answer::Unreachable),
            StoreEvent::Snapshot(message, _, true) => self.snapshot_ended(&message, false),
            _ => {}
        }
    }

    /// Hands a message to the loop, which will take a turn soon.
    pub(super) fn tell(&mut self, store: usize, message: StoreMsg) {
        let now = self.queue.now();
        let process = &mut self.processes[store];
        let local = process.clock.read(now);
        let Some(machine) = &mut process.machine else { return };
        machine.store.handle(message, local);
        if !machine.turn_scheduled {
            machine.turn_scheduled = true;
            let delay = self.process_rng.span(Nanos::micros(2), Nanos::micros(80));
            self.schedule(store, delay, StoreEvent::Turn);
        }
    }

    fn tick(&mut self, store: usize) {
        // A timer fires a little late, and the loop may be busy.
        let late = self.process_rng.span(Nanos::ZERO, Nanos(self.knobs.tick.0 / 16));
        let delay = self.processes[store].clock.real_span(self.knobs.tick) + late;
        self.schedule(store, delay, StoreEvent::Tick);
        self.tell(store, StoreMsg::Tick);
    }

    fn turn(&mut self, store: usize) -> Result<(), Broken> {
        let local = self.processes[store].clock.read(self.queue.now());
        let Some(machine) = &mut self.processes[store].machine else { return Ok(()) };
        machine.turn_scheduled = false;
        let turn = machine.store.turn(local);
        self.listen(store);
        let Turn {
            log_write,
            messages,
            apply,
            snapshots,
            installs,
            discarded_snapshots,
            heartbeats,
            split_checks,
            split_requests,
            split_reports,
            region_questions,
            drained: _,
            poisoned,
        } = turn;
        if let Some(reason) = poisoned {
            self.stop_poisoned(store, &reason);
            return Ok(());
        }
        if let Some(write) = log_write {
            self.write_log(store, write)?;
        }
        for message in messages {
            self.send(store, message)?;
        }
        self.queue_apply(store, apply)?;
        for send in snapshots {
            self.send_snapshot(store, send)?;
        }
        for discarded in discarded_snapshots {
            // What is left behind is removed when the store opens.
            let _ = self.processes[store].files().remove(discarded.id);
        }
        for install in installs {
            let delay = self.process_rng.span(Nanos::micros(50), Nanos::millis(20));
            self.schedule(store, delay, StoreEvent::Install(Box::new(install)));
        }
        for heartbeat in heartbeats {
            self.report(store, Report::Region(heartbeat));
        }
        for request in split_requests {
            self.report(store, Report::AskSplit(request));
        }
        for regions in split_reports {
            self.report(store, Report::Split(regions));
        }
        for question in region_questions {
            self.report(store, Report::Question(question));
        }
        for check in split_checks {
            let delay = self.process_rng.around(self.knobs.apply_mean);
            self.schedule(store, delay, StoreEvent::Measure(Box::new(check)));
        }
        if self.knobs.probes {
            self.probe_lease(store)?;
        }
        if self.trace.is_on() {
            self.draw_columns();
        }
        Ok(())
    }

    fn send(&mut self, from: usize, message: RaftMessage) -> Result<(), Broken> {
        self.watch(from, &message)?;
        let to = store_place(message.to_peer.as_ref().map_or(0, |peer| peer.store_id));
        if to >= self.processes.len() || to == from {
            let what = format!("store {} sends to store {}: {message:?}", from + 1, to + 1);
            return Err(Broken::new("I16 message to nowhere", what));
        }
        let arrivals = self.network.deliveries(self.queue.now(), from, to);
        if arrivals.is_empty() && self.network.is_cut(from, to) && self.process_rng.chance(50) {
            self.schedule(from, Nanos::millis(1), StoreEvent::Unreachable(to));
        }
        for at in arrivals {
            let event = StoreEvent::Raft(Box::new(message.clone()));
            self.queue.at(at, Event::Store { store: to, life: None, event });
        }
        Ok(())
    }

    /// Lets the invariants see a message that leaves a store.
    pub(super) fn watch(&mut self, from: usize, message: &RaftMessage) -> Result<(), Broken> {
        if self.trace.is_on() {
            describe_send(&mut self.trace, self.queue.now(), from, message);
        }
        let speaker = self.status(from, message.region_id).map(|status| status.peer.id);
        if let Some(sent) =
            Sent::of(from, message).filter(|sent| speaker == Some(sent.message.from))
        {
            // What is said after a peer's end, in its name or held back since, binds nobody.
            self.invariants.disks.sent(sent)?;
            self.invariants.promises.sent(sent)?;
        }
        let leaders = self.invariants.one_leader.count();
        self.invariants.sent(from, message)?;
        let mut rule = std::mem::take(&mut self.invariants.commit_rule);
        if let Some(sent) = Sent::of(from, message) {
            rule.sent(sent, |index| self.term_at(from, message.region_id, index))?;
        }
        self.invariants.commit_rule = rule;
        let is_transfer = |sent: Sent<'_>| sent.kind() == MessageType::MsgTimeoutNow;
        if Sent::of(from, message).is_some_and(is_transfer) {
            self.happened(Change::Transfer);
        }
        if self.invariants.one_leader.count() > leaders {
            self.counts.leaders += 1;
            self.check_election(from, message.region_id)?;
        }
        Ok(())
    }

    /// I8: nobody is elected while a lease is held (Raft thesis §6.4.1).
    fn check_election(&self, store: usize, region: u64) -> Result<(), Broken> {
        let term = self.term(store, region);
        for other in (0..self.processes.len()).filter(|other| *other != store) {
            let held = self.status(other, region);
            let held = held.filter(|status| self.has_lease(other, status));
            if held.is_some_and(|status| status.raft.term.0 < term) {
                let what = format!(
                    "store {} is elected in region {region} while store {} has a lease",
                    store + 1,
                    other + 1
                );
                return Err(Broken::new("I8 one lease holder", what));
            }
        }
        Ok(())
    }

    /// I7: a store that would serve reads by lease now would serve fresh ones.
    fn probe_lease(&self, store: usize) -> Result<(), Broken> {
        for held in self.leases(store) {
            let region = held.region.id;
            let position = self.invariants.fresh_reads.position(region);
            let applied = self.apply_state(store, region).applied_index.0;
            FreshReads::served(store, region, applied, position, "lease")?;
        }
        Ok(())
    }

    /// I7, for a read that is being served.
    fn check_read(&self, store: usize, ask: &Ask, by: &str, is_served: bool) -> Result<(), Broken> {
        if !is_served {
            return Ok(());
        }
        let region = ask.header.region.get();
        let applied = self.apply_state(store, region).applied_index.0;
        FreshReads::served(store, region, applied, ask.position, by)
    }

    fn ask(&mut self, store: usize, mut ask: Ask) -> Result<(), Broken> {
        ask.position = self.invariants.fresh_reads.position(ask.header.region.get());
        let mouth = self.processes[store].mouth();
        match &ask.what {
            AskWhat::Write(request) => {
                let attempt = ask.attempt;
                let reply = Reply::new(move |result| {
                    // The process may have ended: then nobody listens.
                    let _ = mouth.send(Said::Wrote(attempt, result));
                });
                let request = request.clone();
                let request = WriteRequest { header: ask.header, request, reply };
                self.tell(store, StoreMsg::Write(request));
            }
            AskWhat::Get(_) | AskWhat::Scan(..) => {
                if ask.lease {
                    let answer = match self.read_by_lease(store, &ask) {
                        Ok(answer) => Some(answer),
                        Err(ReadMiss::Refused(error)) => Some(Answer::Error(error)),
                        Err(ReadMiss::NoLease) => None,
                    };
                    if let Some(answer) = answer {
                        let is_served = !matches!(answer, Answer::Error(_));
                        self.check_read(store, &ask, "lease", is_served)?;
                        self.reply_to(ask.attempt, answer);
                        return Ok(());
                    }
                }
                let header = ask.header.clone();
                let reply = Reply::new(move |result| {
                    let _ = mouth.send(Said::Permit(ask, result));
                });
                self.tell(store, StoreMsg::Read(ReadRequest { header, reply }));
            }
        }
        Ok(())
    }

    fn read_by_lease(&mut self, store: usize, ask: &Ask) -> Result<Answer, ReadMiss> {
        let process = &self.processes[store];
        let Some(machine) = &process.machine else { return Err(ReadMiss::NoLease) };
        let (clock, now) = (process.clock, self.queue.now());
        let answer = machine.reader.read(
            &ask.header,
            || clock.read(now),
            |_| self.read_engine(store, &ask.what),
        )?;
        self.counts.lease_reads += 1;
        Ok(answer)
    }

    fn read_engine(&self, store: usize, what: &AskWhat) -> Answer {
        let engine = &self.processes[store].engine;
        match what {
            AskWhat::Get(key) => {
                let value = engine.get(Cf::Raw, &keys::raw(self.cf, key));
                Answer::Value(value.unwrap_or(None))
            }
            AskWhat::Scan(start, end) => Answer::Pairs(scan(engine.as_ref(), self.cf, start, end)),
            AskWhat::Write(_) => unreachable!("writes are not read"),
        }
    }

    /// Passes on what the store's replies said.
    pub(super) fn listen(&mut self, store: usize) {
        for said in self.processes[store].listen() {
            match said {
                Said::Wrote(attempt, Ok(result)) => self.reply_to(attempt, Answer::Wrote(result)),
                Said::Wrote(attempt, Err(error)) => self.reply_to(attempt, Answer::Error(error)),
                Said::Permit(ask, Ok(permit)) => {
                    // The reader's thread wakes up.
                    let delay = self.process_rng.span(Nanos::micros(1), Nanos::micros(50));
                    self.schedule(store, delay, StoreEvent::ReadNow(ask, Box::new(permit)));
                }
                Said::Permit(ask, Err(error)) => self.reply_to(ask.attempt, Answer::Error(error)),
                Said::MayRead(term, permit) => self.may_read(store, term, permit),
                Said::Committed(term, result) => self.change_ended(store, term, &result),
            }
        }
    }

    fn note(&mut self, store: usize, event: &StoreEvent) {
        let detail = match event {
            StoreEvent::Raft(message) => message_number(message),
            StoreEvent::Ask(ask) | StoreEvent::ReadNow(ask, _) => ask.attempt,
            _ => 0,
        };
        self.trace.event(self.queue.now(), (store as u64) << 8 | event.number(), detail);
    }
}

/// What tells messages apart, for the hash.
fn message_number(message: &RaftMessage) -> u64 {
    let Some(inner) = &message.message else { return 0 };
    let words =
        [message.region_id, inner.from, inner.term, inner.index, inner.entries.len() as u64];
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3);
    words.into_iter().fold(inner.msg_type as u64, mix)
}

fn describe_send(trace: &mut Trace, now: Nanos, from: usize, message: &RaftMessage) {
    let Some(sent) = Sent::of(from, message) else { return };
    let inner = sent.message;
    let to = message.to_peer.as_ref().map_or(0, |peer| peer.store_id);
    trace.line(now, |line| {
        use std::fmt::Write;
        let kind = sent.kind().as_str_name().trim_start_matches("Msg");
        let _ = write!(
            line,
            "s{} → s{to}  r{} {kind} term {} log {}@{} commit {}",
            from + 1,
            message.region_id,
            inner.term,
            inner.index,
            inner.log_term,
            inner.commit,
        );
        if let (Some(first), Some(last)) = (inner.entries.first(), inner.entries.last()) {
            let _ = write!(line, " entries {}..={}@{}", first.index, last.index, last.term);
        }
        if inner.reject {
            line.push_str(" reject");
        }
    });
}

/// The pairs of `[start, end)` in one family; an empty end is the end of everything.
pub(super) fn scan(
    engine: &dyn Engine,
    cf: RawCf,
    start: &[u8],
    end: &[u8],
) -> Vec<(Bytes, Bytes)> {
    let snapshot = engine.snapshot();
    let mut iter = snapshot.iter(Cf::Raw, keys::raw_range(cf, start, end));
    let mut pairs = Vec::new();
    let mut more = iter.seek_to_first().unwrap_or(false);
    while more {
        let key = Bytes::copy_from_slice(keys::raw_user_key(iter.key()));
        pairs.push((key, Bytes::copy_from_slice(iter.value())));
        more = iter.next().unwrap_or(false);
    }
    pairs
}

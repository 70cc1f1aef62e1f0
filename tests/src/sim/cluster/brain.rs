//! The scheduler's nodes at work: who leads thinks; what it decides goes through its region before it is said.

use super::Cluster;
use crate::sim::event::{Answer, Event, StoreEvent};
use crate::sim::invariants::Broken;
use crate::sim::layout::store_place;
use crate::sim::matrix::Change;
use crate::sim::process::Said as Word;
use crate::sim::scheduler::{Advice, Asker, Consult, Question, SCHEDULER_REGION, Said, Step};
use crate::sim::time::Nanos;
use raft::Term;
use raftstore::command::WriteResult;
use raftstore::error::RegionError;
use raftstore::msg::{ReadRequest, StoreMsg, WriteRequest};
use raftstore::{ReadPermit, Reply};
use scheduler::core::Config;
use scheduler::journal;
use scheduler::lead::Task;

impl Cluster {
    /// The places of the scheduler's nodes.
    pub(super) fn nodes(&self) -> std::ops::Range<usize> {
        self.places..self.processes.len()
    }

    /// Whether a place is a node of the scheduler's.
    pub(super) fn is_node(&self, place: usize) -> bool {
        place >= self.places
    }

    /// What a node's wall clock shows: a date, apart from the jumps it makes.
    fn wall_ms(&self, node: usize) -> u64 {
        let process = &self.processes[node];
        let shown = process.clock.read(self.now()).ns() / 1_000_000;
        (1_700_000_000_000 + shown).saturating_add_signed(process.jump_ms)
    }

    fn scheduler_config(&self) -> Config {
        let election_ms = self.knobs.election_timeout().0 / 1_000_000;
        Config {
            initial_stores: self.knobs.stores as u32,
            replicas: self.knobs.replicas as u32,
            store_down_ms: election_ms * 8,
            max_store_down_ms: election_ms * 40,
        }
    }

    /// A node's process begins.
    pub(super) fn awake(&mut self, node: usize) {
        let config = self.scheduler_config();
        let cluster_id = self.store_config.cluster_id;
        self.processes[node].brain.awake(config, cluster_id);
        self.schedule(node, self.knobs.tick, StoreEvent::BrainTick);
    }

    /// A question reaches a node.
    pub(super) fn consult(&mut self, node: usize, consult: Consult) -> Result<(), Broken> {
        if self.processes[node].brain.serving().is_some() {
            self.processes[node].brain.hear(consult);
            return self.think(node);
        }
        let leader = self.status(node, SCHEDULER_REGION).and_then(|status| {
            let leader = status.raft.leader?;
            let peer = status.region.peers.iter().find(|peer| peer.id == leader.0)?;
            Some(store_place(peer.store_id))
        });
        self.say(node, redirect(consult.from, leader.filter(|leader| *leader != node)));
        Ok(())
    }

    /// A node looks whether it leads, and after what time has brought.
    pub(super) fn brain_tick(&mut self, node: usize) -> Result<(), Broken> {
        let election = self.knobs.election_timeout();
        let pause = self.process_rng.span(Nanos(election.0 / 8), Nanos(election.0 / 2));
        self.schedule(node, pause, StoreEvent::BrainTick);
        let status = self.status(node, SCHEDULER_REGION);
        let lead = status.filter(|status| status.raft.role == raft::Role::Leader);
        let task = self.processes[node].brain.observe(lead.map(|status| status.raft.term));
        if let Some(task) = task {
            self.counts.scheduler_terms += 1;
            self.happened(Change::SchedulerFailover);
            self.carry_out(node, task);
        }
        for question in [Question::Maintain, Question::Tick] {
            let brain = &mut self.processes[node].brain;
            if brain.serving().is_some() {
                brain.hear(Consult { from: Asker::Nobody, question });
            }
        }
        self.think(node)
    }

    fn carry_out(&mut self, node: usize, task: Task) {
        let mouth = self.processes[node].mouth();
        match task {
            Task::Load { term } => {
                let reply = Reply::new(move |result| {
                    let _ = mouth.send(Word::MayRead(term, result));
                });
                self.tell(
                    node,
                    StoreMsg::Read(ReadRequest { header: journal::header(term), reply }),
                );
            }
            Task::Commit { term, request } => {
                let reply = Reply::new(move |result| {
                    let _ = mouth.send(Word::Committed(term, result));
                });
                let header = journal::header(term);
                self.tell(node, StoreMsg::Write(WriteRequest { header, request, reply }));
            }
        }
    }

    /// The node may read the records, all of them, or may not.
    pub(super) fn may_read(
        &mut self,
        node: usize,
        term: Term,
        permit: Result<ReadPermit, RegionError>,
    ) {
        let engine = self.processes[node].engine.clone();
        let records = permit.and_then(|permit| permit.read(|_| journal::load(engine.as_ref())));
        let now_ms = self.wall_ms(node);
        let brain = &mut self.processes[node].brain;
        let Ok(records) = records else { return brain.not_loaded(term) };
        let records = records.expect("the scheduler's region holds its records");
        if let Some(task) = brain.loaded(term, records, now_ms) {
            self.carry_out(node, task);
        }
    }

    /// A change has been applied, or may not have been.
    pub(super) fn change_ended(
        &mut self,
        node: usize,
        term: Term,
        result: &Result<WriteResult, RegionError>,
    ) {
        let now_ms = self.wall_ms(node);
        let said = self.processes[node].brain.committed(term, result, now_ms);
        self.say(node, said);
        // What else waits is looked at in an event of its own.
        self.schedule(node, Nanos::micros(1), StoreEvent::Think);
    }

    /// Decides what can be decided.
    pub(super) fn think(&mut self, node: usize) -> Result<(), Broken> {
        let now_ms = self.wall_ms(node);
        loop {
            match self.processes[node].brain.step(now_ms) {
                Step::Rest => return Ok(()),
                Step::Say(term, said) => {
                    if said.iter().all(|word| !needs_lease(word)) || self.holds_lease(node, term) {
                        self.say(node, said);
                    }
                }
                Step::Do(task) => {
                    self.carry_out(node, task);
                    return Ok(());
                }
            }
        }
    }

    fn say(&mut self, node: usize, said: Vec<Said>) {
        for word in said {
            match word {
                Said::ToStore(store, advice) => {
                    if let Advice::SplitIds(_, Ok(ids)) = &advice {
                        self.invariants.unique.ids(ids);
                    }
                    if store >= self.places {
                        continue;
                    }
                    for at in self.network.deliveries(self.now(), node, store) {
                        let event = StoreEvent::Advice(Box::new(advice.clone()));
                        self.queue.at(at, Event::Store { store, life: None, event });
                    }
                }
                Said::ToClient(attempt, answer) => self.reply_to(attempt, answer),
            }
        }
    }

    /// Whether the node certainly leads in this term.
    fn holds_lease(&self, node: usize, term: Term) -> bool {
        let lead = self.status(node, SCHEDULER_REGION);
        lead.is_some_and(|status| status.raft.term == term && self.has_lease(node, &status))
    }
}

/// Timestamps are told only by a node that certainly leads; what else is told may be out of date, or was committed.
fn needs_lease(word: &Said) -> bool {
    matches!(word, Said::ToClient(_, Answer::Timestamps(..)))
}

fn redirect(from: Asker, hint: Option<usize>) -> Vec<Said> {
    match from {
        Asker::Store(place) => vec![Said::ToStore(place, Advice::Redirect(hint))],
        Asker::Client(attempt) => vec![Said::ToClient(attempt, Answer::NotLeading(hint))],
        Asker::Nobody => Vec::new(),
    }
}

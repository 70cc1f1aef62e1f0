//! The scheduler's nodes at work: who leads thinks; what it decides goes through its region before it is said.

use super::Cluster;
use crate::sim::event::{Answer, Event, StoreEvent};
use crate::sim::invariants::Broken;
use crate::sim::matrix::Change as Seen;
use crate::sim::process::Said as Word;
use crate::sim::scheduler::{
    Advice, Asker, Consult, Mind, Question, SCHEDULER_REGION, Said, Step, load, mutations,
};
use crate::sim::time::Nanos;
use proto::ids::RegionId;
use raftstore::Reply;
use raftstore::command::{Request, WriteResult};
use raftstore::error::RegionError;
use raftstore::msg::{ReadRequest, RequestHeader, StoreMsg, WriteRequest};
use scheduler::core::{Change, Config};

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

    /// A question reaches a node.
    pub(super) fn consult(&mut self, node: usize, consult: Consult) -> Result<(), Broken> {
        let hint = self.status(node, SCHEDULER_REGION).and_then(|status| {
            let leader = status.raft.leader?;
            let peer = status.region.peers.iter().find(|peer| peer.id == leader.0)?;
            Some(crate::sim::layout::store_place(peer.store_id))
        });
        let brain = &mut self.processes[node].brain;
        if matches!(brain.mind, Mind::Blank) {
            let hint = hint.filter(|hint| *hint != node);
            self.say(node, redirect(consult.from, hint));
            return Ok(());
        }
        brain.hear(consult);
        self.think(node)
    }

    /// A node looks whether it leads, and after what time has brought.
    pub(super) fn brain_tick(&mut self, node: usize) -> Result<(), Broken> {
        let election = self.knobs.election_timeout();
        let pause = self.process_rng.span(Nanos(election.0 / 8), Nanos(election.0 / 2));
        self.schedule(node, pause, StoreEvent::BrainTick);
        let status = self.status(node, SCHEDULER_REGION);
        let lead = status.filter(|status| status.raft.role == raft::Role::Leader);
        match lead {
            None => {
                let brain = &mut self.processes[node].brain;
                if !matches!(brain.mind, Mind::Blank) {
                    brain.blank();
                }
            }
            Some(lead) if !self.processes[node].brain.thinks_in(lead.raft.term.0) => {
                let number = self.processes[node].brain.begin_reading(lead.raft.term.0);
                self.counts.scheduler_terms += 1;
                self.happened(Seen::SchedulerFailover);
                let header = self.node_header();
                let mouth = self.processes[node].mouth();
                let reply = Reply::new(move |result| {
                    let _ = mouth.send(Word::MayRead(number, result));
                });
                self.tell(node, StoreMsg::Read(ReadRequest { header, reply }));
            }
            Some(_) => {
                for question in [Question::Maintain, Question::Tick] {
                    self.processes[node].brain.hear(Consult { from: Asker::Nobody, question });
                }
                self.think(node)?;
            }
        }
        Ok(())
    }

    fn node_header(&self) -> RequestHeader {
        let region = self.world.region(SCHEDULER_REGION).map(|model| model.region.clone());
        region.map_or_else(
            || RequestHeader::new(RegionId::from(SCHEDULER_REGION), Default::default()),
            |region| self.header(&region),
        )
    }

    /// The node may read the records, all of them.
    pub(super) fn may_read(&mut self, node: usize, number: u64) {
        let config = self.scheduler_config();
        let now_ms = self.wall_ms(node);
        let records = load(self.processes[node].engine.as_ref());
        let brain = &mut self.processes[node].brain;
        if matches!(brain.mind, Mind::Reading(reading) if reading == number) {
            let change = brain.wake(config, records, now_ms);
            self.commit(node, change);
        }
    }

    fn commit(&mut self, node: usize, change: Change) {
        let brain = &mut self.processes[node].brain;
        brain.number += 1;
        let (number, term) = (brain.number, brain.term);
        let mouth = self.processes[node].mouth();
        let reply = Reply::new(move |result| {
            let _ = mouth.send(Word::Committed(number, result));
        });
        let mut header = self.node_header();
        header.term = Some(raft::Term(term));
        let request = Request::Mutate { mutations: mutations(&change), session: None };
        self.tell(node, StoreMsg::Write(WriteRequest { header, request, reply }));
    }

    /// A change has been applied, or may not have been.
    pub(super) fn change_ended(
        &mut self,
        node: usize,
        number: u64,
        result: Result<WriteResult, RegionError>,
    ) {
        let now_ms = self.wall_ms(node);
        let brain = &mut self.processes[node].brain;
        if brain.number != number {
            return;
        }
        if result != Ok(WriteResult::Applied) {
            brain.blank();
            return;
        }
        let said = brain.committed(now_ms);
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
                Step::Say(said) => self.say(node, said),
                Step::Commit(change) => {
                    self.commit(node, change);
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
                Said::ToClient(attempt, Answer::Timestamps(..)) if !self.holds_lease(node) => {
                    self.reply_to(attempt, Answer::NotLeading(None));
                }
                Said::ToClient(attempt, answer) => self.reply_to(attempt, answer),
            }
        }
    }

    /// Timestamps are told only by a node that certainly leads.
    fn holds_lease(&self, node: usize) -> bool {
        let lead = self.status(node, SCHEDULER_REGION);
        lead.is_some_and(|status| {
            status.raft.term.0 == self.processes[node].brain.term && self.has_lease(node, &status)
        })
    }
}

fn redirect(from: Asker, hint: Option<usize>) -> Vec<Said> {
    match from {
        Asker::Store(place) => vec![Said::ToStore(place, Advice::Redirect(hint))],
        Asker::Client(attempt) => vec![Said::ToClient(attempt, Answer::NotLeading(hint))],
        Asker::Nobody => Vec::new(),
    }
}

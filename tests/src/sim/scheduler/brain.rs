//! A node's thoughts: the real driver of the journal ([`Lead`]) with a queue before it. At most one change is on its way;
//! every other question waits for its turn.

use super::{Advice, Asker, Consult, Question};
use crate::sim::event::Answer;
use proto::metapb;
use proto::pdpb;
use raft::Term;
use raftstore::RegionError;
use raftstore::command::WriteResult;
use raftstore::msg::{NewRegion, SplitRequest};
use scheduler::core::{Change, Config, Record, RegionInfo, Scheduler, TimestampError};
use scheduler::lead::{Decision, Lead, Refusal, Task};
use std::collections::VecDeque;

/// Questions that may wait; those beyond are dropped, and asked again.
const QUEUE_MAX: usize = 1024;

/// What a node says when a change is durable.
#[derive(Clone, Debug)]
pub enum Said {
    /// To a store.
    ToStore(usize, Advice),
    /// To a client's attempt.
    ToClient(u64, Answer),
}

/// One node's.
#[derive(Debug, Default)]
pub struct Brain {
    /// The real driver of the journal; there while the process lives.
    lead: Option<Lead>,
    queue: VecDeque<Consult>,
    /// To be said when the change on its way is durable.
    waiting: Vec<Said>,
}

/// What comes of looking at the next question.
pub enum Step {
    /// Nothing waits, or a change is on its way.
    Rest,
    /// These may be said, by a node that still leads in this term.
    Say(Term, Vec<Said>),
    /// This must be done first.
    Do(Task),
}

impl Brain {
    /// A process starts.
    pub fn awake(&mut self, config: Config, fresh_cluster_id: u64) {
        *self = Brain { lead: Some(Lead::new(config, fresh_cluster_id)), ..Brain::default() };
    }

    /// A process ends, or a node does not lead any more.
    fn forget(&mut self) {
        self.queue.clear();
        self.waiting.clear();
    }

    /// The term that the node leads its region in, if it does.
    pub fn observe(&mut self, leading: Option<Term>) -> Option<Task> {
        let serving = self.serving();
        let task = self.lead.as_mut()?.observe(leading);
        if serving.is_some() && self.serving() != serving {
            self.forget();
        }
        task
    }

    /// The term in which the node decides.
    pub fn serving(&self) -> Option<Term> {
        self.lead.as_ref()?.serving()
    }

    /// The records have been read under leave to read in `term`.
    pub fn loaded(&mut self, term: Term, records: Vec<Record>, now_ms: u64) -> Option<Task> {
        let loaded = self.lead.as_mut()?.loaded(term, records, now_ms);
        loaded.expect("the records are a scheduler's own")
    }

    /// They must not be read.
    pub fn not_loaded(&mut self, term: Term) {
        if let Some(lead) = &mut self.lead {
            lead.not_loaded(term);
        }
    }

    /// Takes a question in.
    pub fn hear(&mut self, consult: Consult) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(consult);
        }
    }

    /// How the change on its way ended: what may be said now.
    pub fn committed(
        &mut self,
        term: Term,
        outcome: &Result<WriteResult, RegionError>,
        now_ms: u64,
    ) -> Vec<Said> {
        let Some(lead) = &mut self.lead else { return Vec::new() };
        if lead.committed(term, outcome, now_ms) {
            return std::mem::take(&mut self.waiting);
        }
        if lead.serving().is_none() {
            self.forget();
        }
        Vec::new()
    }

    /// Looks at the next question.
    pub fn step(&mut self, now_ms: u64) -> Step {
        let Some(lead) = &mut self.lead else { return Step::Rest };
        let Some(consult) = self.queue.front().cloned() else { return Step::Rest };
        match lead.decide(|core| Ok(decide(core, consult, now_ms))) {
            Err(Refusal::NotServing(_) | Refusal::Busy | Refusal::Core(_)) => Step::Rest,
            Ok(Decision { term, task, answer }) => {
                self.queue.pop_front();
                match task {
                    None => Step::Say(term, answer),
                    Some(task) => {
                        self.waiting = answer;
                        Step::Do(task)
                    }
                }
            }
        }
    }
}

fn instruction(response: pdpb::RegionHeartbeatResponse) -> Said {
    let store = response.target_peer.map_or(0, |peer| peer.store_id);
    Said::ToStore(crate::sim::layout::store_place(store), Advice::Instruction(Box::new(response)))
}

fn decide(core: &mut Scheduler, consult: Consult, now_ms: u64) -> (Change, Vec<Said>) {
    let nothing = || (Change::default(), Vec::new());
    let Consult { from, question } = consult;
    match question {
        Question::RegionHeartbeat(request) => {
            match core.region_heartbeat(RegionInfo::from(*request), now_ms) {
                Ok((change, told)) => (change, told.into_iter().map(instruction).collect()),
                Err(_) => nothing(),
            }
        }
        Question::StoreHeartbeat(stats) => {
            let _ = core.store_heartbeat(stats, now_ms);
            nothing()
        }
        Question::Register(store) => match (core.put_store(store, now_ms), from) {
            (Ok(change), Asker::Store(place)) => {
                (change, vec![Said::ToStore(place, Advice::Registered)])
            }
            (Ok(change), _) => (change, Vec::new()),
            (Err(_), _) => nothing(),
        },
        Question::AskSplit(request) => ask_split(core, from, request),
        Question::ReportSplit(regions) => {
            (core.report_split(regions).unwrap_or_default(), Vec::new())
        }
        Question::WhoHolds(asked, key) => {
            let holder = core.region_by_key(&key).map(|info| info.meta.clone());
            let (Some(holder), Asker::Store(place)) = (holder, from) else { return nothing() };
            (Change::default(), vec![Said::ToStore(place, Advice::Holder(asked, holder))])
        }
        Question::Locate(key) => {
            let found = core.region_by_key(&key);
            let found = found.map(|info| (info.meta.clone(), info.leader));
            (Change::default(), to_client(from, Answer::Located(found.map(Box::new))))
        }
        Question::Ids(count) => {
            let (change, ids) = core.alloc_ids(count);
            (change, to_client(from, Answer::Ids(ids.start)))
        }
        Question::Timestamps(count) => timestamps(core, from, count, now_ms),
        Question::Operate(request) => (
            core.add_operator(*request, now_ms)
                .map_or_else(|_| Change::default(), |(change, _)| change),
            vec![],
        ),
        Question::ChangeStore(request) => (
            core.change_store(request, now_ms)
                .map_or_else(|_| Change::default(), |(change, _)| change),
            vec![],
        ),
        Question::Configure(request) => (
            core.configure(&request).map_or_else(|_| Change::default(), |(change, _)| change),
            vec![],
        ),
        Question::Tick => {
            let (change, told) = core.tick(now_ms);
            (change, told.into_iter().map(instruction).collect())
        }
        Question::Maintain => (core.maintain(now_ms).unwrap_or_default(), Vec::new()),
    }
}

fn to_client(from: Asker, answer: Answer) -> Vec<Said> {
    match from {
        Asker::Client(attempt) => vec![Said::ToClient(attempt, answer)],
        Asker::Store(_) | Asker::Nobody => Vec::new(),
    }
}

fn timestamps(core: &mut Scheduler, from: Asker, count: u32, now_ms: u64) -> (Change, Vec<Said>) {
    match core.timestamp(count, now_ms) {
        Ok(last) => (Change::default(), to_client(from, Answer::Timestamps(last.get(), count))),
        Err(TimestampError::WindowUsedUp) => {
            (core.extend_timestamps(now_ms).unwrap_or_default(), Vec::new())
        }
        Err(TimestampError::Invalid(_)) => (Change::default(), Vec::new()),
    }
}

fn ask_split(core: &mut Scheduler, from: Asker, request: SplitRequest) -> (Change, Vec<Said>) {
    let region: &metapb::Region = &request.region;
    let Asker::Store(place) = from else { return (Change::default(), Vec::new()) };
    let (change, ids) = match core.ask_split(region, request.keys.len() as u32) {
        Ok((change, splits)) => {
            let new = |split: pdpb::SplitId| NewRegion {
                region: split.new_region_id.into(),
                peers: split.new_peer_ids.into_iter().map(Into::into).collect(),
            };
            (change, Ok(splits.into_iter().map(new).collect()))
        }
        Err(error) => (Change::default(), Err(error.to_string())),
    };
    (change, vec![Said::ToStore(place, Advice::SplitIds(request, ids))])
}

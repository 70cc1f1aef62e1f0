//! A node's thoughts: at most one change is on its way to the journal; everything that might make another one waits.

use super::{Advice, Asker, Consult, Question};
use crate::sim::event::Answer;
use proto::metapb;
use proto::pdpb;
use raftstore::msg::{NewRegion, SplitRequest};
use scheduler::core::{Change, Config, RegionInfo, Scheduler, TimestampError};
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

/// How far a node is with thinking.
#[derive(Debug, Default)]
pub enum Mind {
    /// Another node leads, or none.
    #[default]
    Blank,
    /// It leads and reads the records; the number tells readings apart.
    Reading(u64),
    /// It decides.
    Clear(Box<Scheduler>),
}

/// One node's.
#[derive(Debug, Default)]
pub struct Brain {
    /// Its state.
    pub mind: Mind,
    /// The Raft term in which it leads.
    pub term: u64,
    /// Counts readings and changes, so that late answers are told from present ones.
    pub number: u64,
    queue: VecDeque<Consult>,
    /// On its way to the journal.
    committing: Option<(Change, Vec<Said>)>,
}

/// What comes of looking at the next question.
pub enum Step {
    /// Nothing waits, or a change is on its way.
    Rest,
    /// These may be said at once.
    Say(Vec<Said>),
    /// This must be durable first.
    Commit(Change),
}

impl Brain {
    /// Forgets everything.
    pub fn blank(&mut self) {
        self.number += 1;
        *self = Brain { number: self.number, ..Brain::default() };
    }

    /// Whether it reads or decides in this term.
    pub fn thinks_in(&self, term: u64) -> bool {
        self.term == term && !matches!(self.mind, Mind::Blank)
    }

    /// Begins to read the records, in `term`.
    pub fn begin_reading(&mut self, term: u64) -> u64 {
        self.blank();
        self.term = term;
        self.mind = Mind::Reading(self.number);
        self.number
    }

    /// The records have been read; the change must be durable before anything else.
    pub fn wake(
        &mut self,
        config: Config,
        records: Vec<scheduler::core::Record>,
        now_ms: u64,
    ) -> Change {
        let (core, change) =
            Scheduler::open(config, records, 1, now_ms).expect("the records are a scheduler's own");
        self.mind = Mind::Clear(Box::new(core));
        self.committing = Some((change.clone(), Vec::new()));
        change
    }

    /// The scheduler, if this node decides.
    pub fn core(&mut self) -> Option<&mut Scheduler> {
        match &mut self.mind {
            Mind::Clear(core) => Some(core),
            Mind::Blank | Mind::Reading(_) => None,
        }
    }

    /// As [`Brain::core`], to look only.
    pub fn view(&self) -> Option<&Scheduler> {
        match &self.mind {
            Mind::Clear(core) => Some(core),
            Mind::Blank | Mind::Reading(_) => None,
        }
    }

    /// Takes a question in.
    pub fn hear(&mut self, consult: Consult) {
        if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(consult);
        }
    }

    /// The change on its way is durable: takes it in, and gives back what may be said now.
    pub fn committed(&mut self, now_ms: u64) -> Vec<Said> {
        let Some((change, said)) = self.committing.take() else { return Vec::new() };
        if let Some(core) = self.core() {
            core.apply(change, now_ms);
        }
        said
    }

    /// Looks at the next question.
    pub fn step(&mut self, now_ms: u64) -> Step {
        if self.committing.is_some() || !matches!(self.mind, Mind::Clear(_)) {
            return Step::Rest;
        }
        let Some(consult) = self.queue.pop_front() else { return Step::Rest };
        let Some(core) = self.core() else { return Step::Rest };
        let (change, said) = decide(core, consult, now_ms);
        if change.is_empty() {
            return Step::Say(said);
        }
        self.committing = Some((change.clone(), said));
        Step::Commit(change)
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

//! Who serves: the leader of the scheduler's region, for as long as it leads.
//!
//! # Life of a leadership
//! ```text
//!            observe(Some(term))        loaded              committed
//!  Following ───────────────▶ Loading ─────────▶ Opening ─────────────▶ Serving ──┐ decide → committed
//!      ▲                        │ │ not_loaded      │                    │  ▲ └────┘ one change at a time
//!      └────────────────────────┴─┴─────────────────┴────────────────────┘
//!              observe(anything but this term), or a commit that did not succeed
//! ```
//! A member that begins to lead asks for leave to read in its term, reads every record, and commits the opening of new id
//! and timestamp windows; from then on its [`Scheduler`] is the truth, because in this term nobody else can write. A commit
//! whose fate is unknown ends that: the core is dropped, and whatever the log says is read back when this member leads
//! again.
//!
//! # Invariants
//! 1. A core never outlives its term, and no change decided in one term is applied to the core of another.
//! 2. Nothing is served before the opening change is committed: the windows of earlier leaders are skipped (S1, S2, S3).
//! 3. At most one change is between decision and commit, so every decision rests on all before it.
//!
//! Pure: the edge reports the role, does the [`Task`]s and reports how they went. What it must add is the check that the
//! lead still holds *after* an answer was taken from the core and before it is given out ([`Lead::step`]): a lease of the
//! term, or leave to read in it.
//!
//! Tests: below; `tests/` runs it over real stores, and so does the simulator.

use raft::Term;
use raftstore::RegionError;
use raftstore::command::{Request, WriteResult};

use crate::core::{self, Change, Config, OpenError, Record, Scheduler};
use crate::journal;

/// What the edge has to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Get leave to read in this term, read all records, and call [`Lead::loaded`]; or [`Lead::not_loaded`].
    Load {
        /// In which term.
        term: Term,
    },
    /// Propose this in this term, and call [`Lead::committed`] with the outcome.
    Commit {
        /// In which term.
        term: Term,
        /// What.
        request: Request,
    },
}

/// A decision that was taken and is not yet to be told.
#[derive(Debug)]
#[must_use = "what is not committed never happened"]
pub struct Decision<R> {
    /// In which term.
    pub term: Term,
    /// The commit the answer waits for; `None` if there is nothing to remember: then the lead alone must be confirmed.
    pub task: Option<Task>,
    /// For the asker, afterwards.
    pub answer: R,
}

/// This member's core cannot be asked: it does not lead, or does not serve yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("this member does not lead the scheduler")]
pub struct NotServing;

/// Why nothing was decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// See there.
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// A change is being committed: come again afterwards.
    #[error("another change is being committed")]
    Busy,
    /// The core said no; nothing changed.
    #[error(transparent)]
    Core(#[from] core::Error),
}

/// See the module header.
#[derive(Debug)]
pub struct Lead {
    config: Config,
    fresh_cluster_id: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Following,
    Loading { term: Term },
    Opening { term: Term, core: Box<Scheduler>, change: Change },
    Serving { term: Term, core: Box<Scheduler>, committing: Option<Change> },
}

impl Lead {
    /// A member that follows. `fresh_cluster_id` is drawn at random; it becomes the cluster's id if no member ever had
    /// one.
    pub fn new(config: Config, fresh_cluster_id: u64) -> Lead {
        Lead { config, fresh_cluster_id, phase: Phase::Following }
    }

    /// The role this member has in the scheduler's region: the term it leads, or none. Observing the same again changes
    /// nothing; the task is returned once per attempt.
    pub fn observe(&mut self, leading: Option<Term>) -> Option<Task> {
        if self.term() == leading {
            return None;
        }
        let Some(term) = leading else {
            self.phase = Phase::Following;
            return None;
        };
        self.phase = Phase::Loading { term };
        Some(Task::Load { term })
    }

    /// The records, read under leave to read in `term`.
    ///
    /// # Errors
    /// If no scheduler can be built from them. This is final: every member would fail.
    pub fn loaded(
        &mut self,
        term: Term,
        records: Vec<Record>,
        now_ms: u64,
    ) -> Result<Option<Task>, OpenError> {
        if !matches!(self.phase, Phase::Loading { term: ours } if ours == term) {
            return Ok(None);
        }
        let opened = Scheduler::open(self.config.clone(), records, self.fresh_cluster_id, now_ms);
        let (core, change) = opened?;
        assert!(!change.is_empty(), "a new leader opens windows of its own");
        let request = journal::request(&change);
        self.phase = Phase::Opening { term, core: Box::new(core), change };
        Ok(Some(Task::Commit { term, request }))
    }

    /// Leave to read in `term` was refused: the next observation asks again.
    pub fn not_loaded(&mut self, term: Term) {
        if matches!(self.phase, Phase::Loading { term: ours } if ours == term) {
            self.phase = Phase::Following;
        }
    }

    /// How the commit in `term` ended. `false`: whoever waits for it must not be answered, for nobody knows what became
    /// of it; the core is gone.
    pub fn committed(
        &mut self,
        term: Term,
        outcome: &Result<WriteResult, RegionError>,
        now_ms: u64,
    ) -> bool {
        if self.term() != Some(term) {
            return false;
        }
        let applied = matches!(outcome, Ok(WriteResult::Applied));
        self.phase = match std::mem::replace(&mut self.phase, Phase::Following) {
            Phase::Opening { term, mut core, change } if applied => {
                core.apply(change, now_ms);
                Phase::Serving { term, core, committing: None }
            }
            Phase::Serving { term, mut core, committing: Some(change) } if applied => {
                core.apply(change, now_ms);
                Phase::Serving { term, core, committing: None }
            }
            Phase::Opening { .. } | Phase::Serving { committing: Some(_), .. } => Phase::Following,
            // Nothing of this phase was being committed: a report of an earlier attempt in the same term.
            other => {
                self.phase = other;
                return false;
            }
        };
        applied
    }

    /// The term in which this member serves, if it does.
    pub fn serving(&self) -> Option<Term> {
        match self.phase {
            Phase::Serving { term, .. } => Some(term),
            _ => None,
        }
    }

    /// The core, while this member serves. For what may be out of date.
    pub fn core(&self) -> Option<&Scheduler> {
        match &self.phase {
            Phase::Serving { core, .. } => Some(core),
            _ => None,
        }
    }

    /// What needs no change: reads, heartbeats, ids and timestamps within their windows. The answer may be given out once
    /// the lead in the returned term has been confirmed, later than this call.
    pub fn step<R>(
        &mut self,
        step: impl FnOnce(&mut Scheduler) -> R,
    ) -> Result<(Term, R), NotServing> {
        match &mut self.phase {
            Phase::Serving { term, core, .. } => Ok((*term, step(core))),
            _ => Err(NotServing),
        }
    }

    /// Decides on a change.
    pub fn decide<R>(
        &mut self,
        decide: impl FnOnce(&mut Scheduler) -> Result<(Change, R), core::Error>,
    ) -> Result<Decision<R>, Refusal> {
        let Phase::Serving { term, core, committing } = &mut self.phase else {
            return Err(NotServing.into());
        };
        if committing.is_some() {
            return Err(Refusal::Busy);
        }
        let term = *term;
        let (change, answer) = decide(core)?;
        if change.is_empty() {
            return Ok(Decision { term, task: None, answer });
        }
        let request = journal::request(&change);
        *committing = Some(change);
        Ok(Decision { term, task: Some(Task::Commit { term, request }), answer })
    }

    /// The term of the leadership that is being taken up or served.
    fn term(&self) -> Option<Term> {
        match self.phase {
            Phase::Following => None,
            Phase::Loading { term } | Phase::Opening { term, .. } | Phase::Serving { term, .. } => {
                Some(term)
            }
        }
    }
}

#[cfg(test)]
mod tests;

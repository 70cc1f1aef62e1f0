//! Checkers: judge a history of client operations against what the store promises.
//!
//! # Vocabulary
//! *Operation*: one client call, the interval from its invocation to its response, and what it did or saw. *Unknown*:
//! an operation whose answer never came; its response lies at [`Moment::NEVER`], so it may have taken effect at any
//! time after its invocation or not at all. *Linearizable*: every operation seems to take effect at one instant of its
//! own interval.
//!
//! # Which checker judges what
//! | history of one key                         | checker       | cost                                   |
//! |--------------------------------------------|---------------|----------------------------------------|
//! | puts of unique values, gets                | [`zone`]      | `O(n log n)`, any concurrency          |
//! | the same with deletes (absence is no name) | [`wgl`]       | search with cache and a step budget    |
//! | appends of unique tokens, gets             | [`append`]    | set checks, then [`wgl`] over a counter|
//!
//! Linearizability is local (Herlihy & Wing): a history is linearizable iff the history of each key is, so every
//! checker sees one key at a time and a scan counts as one read of each key it covers.
//!
//! # Who checks the checkers
//! `tests.rs`: planted violations by name, the checkers against each other on random histories, and both against
//! [`brute`], which tries every order.

pub mod append;
pub mod brute;
pub mod history;
pub mod register;
pub mod wgl;
pub mod zone;

pub use history::{ClientId, Moment, Operation};
pub use register::Register;

#[cfg(test)]
mod tests;

/// What a checker says about a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The promise holds.
    Ok,
    /// The promise is broken.
    Illegal(Violation),
    /// The budget ran out before an answer was found. Counts as a failure of the test, not of the store.
    Unknown,
}

impl Verdict {
    /// True for [`Verdict::Ok`].
    pub fn is_ok(&self) -> bool {
        matches!(self, Verdict::Ok)
    }

    /// True for [`Verdict::Illegal`].
    pub fn is_illegal(&self) -> bool {
        matches!(self, Verdict::Illegal(_))
    }
}

/// A broken promise: one sentence, and the operations of the history (by position) that break it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong, in the words of the history.
    pub what: String,
    /// Positions in the checked slice of the operations involved, most telling first.
    pub operations: Vec<usize>,
}

impl Violation {
    pub(crate) fn new(what: impl Into<String>, operations: Vec<usize>) -> Violation {
        Violation { what: what.into(), operations }
    }
}

//! The writes handed to the driver and not yet reported durable.
//!
//! Invariants: numbers rise; a write counts for exactly those of its entries that nothing has
//! overwritten since it was handed out, so that the completion of an old write never vouches for a
//! newer entry at the same index (even one of the same term). Tests: `tests/persistence.rs`.

use std::collections::VecDeque;

use crate::planted::{Bug, planted};
use crate::{LogIndex, Term};

/// What one Ready asked to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) number: u64,
    /// Last entry it makes durable; lowered when a later append overwrites some of them.
    pub(crate) last_index: Option<LogIndex>,
    pub(crate) snapshot_index: Option<LogIndex>,
    /// Term of the hard state it carries.
    pub(crate) term: Option<Term>,
}

/// Writes in flight, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Writes {
    in_flight: VecDeque<Write>,
    /// The term that is durable together with the vote in it.
    pub(crate) durable_term: Term,
}

impl Writes {
    pub(crate) fn new(durable_term: Term) -> Writes {
        Writes { in_flight: VecDeque::new(), durable_term }
    }

    pub(crate) fn push(&mut self, write: Write) {
        assert!(self.in_flight.back().is_none_or(|last| last.number < write.number));
        self.in_flight.push_back(write);
    }

    /// Entries from `from` on were overwritten or dropped: no write in flight vouches for them.
    pub(crate) fn overwrite_from(&mut self, from: LogIndex) {
        if planted(Bug::AsyncAppendAba) {
            return;
        }
        for write in &mut self.in_flight {
            write.last_index = write.last_index.map(|last| last.min(from.prev()));
        }
    }

    /// A snapshot replaced the log: no write in flight vouches for any entry.
    pub(crate) fn forget_entries(&mut self) {
        for write in &mut self.in_flight {
            write.last_index = None;
        }
    }

    /// The next write covered by the completion of `number`.
    pub(crate) fn pop_to(&mut self, number: u64) -> Option<Write> {
        self.in_flight.front().filter(|write| write.number <= number)?;
        let write = self.in_flight.pop_front()?;
        if let Some(term) = write.term {
            self.durable_term = term;
        }
        Some(write)
    }
}

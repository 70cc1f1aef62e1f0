//! A key that holds one value or none: puts of unique values, deletes, gets.
//!
//! [`check`] chooses the checker. Gets that see a value name the put they read from, which is what makes the zone check
//! linear; a get that sees nothing names no delete, so histories with deletes go to the search.

use super::history::{Moment, Operation};
use super::{Verdict, Violation, wgl, zone};
use std::collections::BTreeMap;

/// One operation on the key. Every put of a history carries a value of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// The key now holds this value.
    Put(u64),
    /// The key now holds nothing.
    Delete,
    /// The caller saw this value, or nothing.
    Get(Option<u64>),
}

/// The sequential meaning of [`Register`], for the search. The state is the value held.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegisterModel;

impl wgl::Model for RegisterModel {
    type State = Option<u64>;
    type Action = Register;

    fn initial(&self) -> Option<u64> {
        None
    }

    fn step(&self, state: &Option<u64>, action: &Register) -> Option<Option<u64>> {
        match *action {
            Register::Put(value) => Some(Some(value)),
            Register::Delete => Some(None),
            Register::Get(seen) => (seen == *state).then_some(*state),
        }
    }
}

/// Judges the history of one key that began empty.
pub fn check(history: &[Operation<Register>], budget_steps: u64) -> Verdict {
    if history.iter().any(|op| op.action == Register::Delete) {
        match settle_unknown(history) {
            Ok((settled, places)) => {
                name_originals(wgl::check(&RegisterModel, &settled, budget_steps), &places)
            }
            Err(violation) => Verdict::Illegal(violation),
        }
    } else {
        zone::check(history)
    }
}

/// Removes unknown puts that nobody read and ends the others at the first read that saw them: neither changes the
/// answer (the unread may be placed last, the read must precede its readers), and both shrink the search a lot.
/// Also returns where each kept operation stood in `history`.
fn settle_unknown(
    history: &[Operation<Register>],
) -> Result<(Vec<Operation<Register>>, Vec<usize>), Violation> {
    let mut first_read = BTreeMap::<u64, Moment>::new();
    for op in history {
        if let Register::Get(Some(value)) = op.action {
            let seen = first_read.entry(value).or_insert(Moment::NEVER);
            *seen = op.responded.min(*seen);
        }
    }
    let mut writers = BTreeMap::<u64, usize>::new();
    let (mut settled, mut places) = (Vec::with_capacity(history.len()), Vec::new());
    for (place, op) in history.iter().enumerate() {
        let mut op = op.clone();
        if let Register::Put(value) = op.action {
            if let Some(other) = writers.insert(value, place) {
                let what = format!("value {value} was put twice: values must be unique");
                return Err(Violation::new(what, vec![other, place]));
            }
            if op.is_unknown() {
                match first_read.get(&value) {
                    Some(seen) if *seen > op.invoked => op.responded = *seen,
                    Some(_) => {} // read before it was written: left for the search to refuse
                    None => continue,
                }
            }
        }
        settled.push(op);
        places.push(place);
    }
    Ok((settled, places))
}

fn name_originals(verdict: Verdict, places: &[usize]) -> Verdict {
    match verdict {
        Verdict::Illegal(mut violation) => {
            for position in &mut violation.operations {
                *position = places[*position];
            }
            Verdict::Illegal(violation)
        }
        Verdict::Ok | Verdict::Unknown => verdict,
    }
}

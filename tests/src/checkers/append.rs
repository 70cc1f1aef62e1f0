//! A key that only grows: appends of unique tokens, reads of the whole value, and the final value as the judge.
//!
//! Every read shows the whole order so far, and the final value shows all of it, so the promises of exactly-once writes
//! (Raft thesis §6.3) can be named one by one:
//!
//! 1. every token was sent by somebody, and appears once (no retry applied twice),
//! 2. every acknowledged token is there,
//! 3. the tokens of one client appear in the order it sent them,
//! 4. every read is a prefix of the final value,
//! 5. and the whole is linearizable: a search over one counter, since the order is already known.

use super::history::{ClientId, Operation};
use super::{Verdict, Violation, wgl};
use std::collections::BTreeMap;

/// One operation on the key. Every append of a history carries a token of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Append {
    /// The token was added at the end.
    Add(u64),
    /// The caller saw this sequence of tokens.
    Get(Vec<u64>),
}

/// Number of tokens present; the final value says which.
struct PrefixModel<'a> {
    last: &'a [u64],
}

impl wgl::Model for PrefixModel<'_> {
    type State = usize;
    type Action = Append;

    fn initial(&self) -> usize {
        0
    }

    fn step(&self, present: &usize, action: &Append) -> Option<usize> {
        match action {
            Append::Add(token) => (self.last.get(*present) == Some(token)).then_some(present + 1),
            Append::Get(seen) => (seen.len() == *present).then_some(*present),
        }
    }
}

/// Judges the history of one key that began empty and ended as `last`.
pub fn check(history: &[Operation<Append>], last: &[u64], budget_steps: u64) -> Verdict {
    match check_sets(history, last).and_then(|()| check_reads(history, last)) {
        Err(violation) => Verdict::Illegal(violation),
        Ok(()) => {
            // An unknown append that is not there never happened: it must not be searched for.
            let happened: Vec<_> = history
                .iter()
                .filter(|op| match &op.action {
                    Append::Add(token) => last.contains(token),
                    Append::Get(_) => true,
                })
                .cloned()
                .collect();
            wgl::check(&PrefixModel { last }, &happened, budget_steps)
        }
    }
}

fn check_sets(history: &[Operation<Append>], last: &[u64]) -> Result<(), Violation> {
    let mut senders = BTreeMap::<u64, (usize, ClientId)>::new();
    for (place, op) in history.iter().enumerate() {
        if let Append::Add(token) = op.action
            && let Some((other, _)) = senders.insert(token, (place, op.client))
        {
            let what = format!("token {token} was sent twice: tokens must be unique");
            return Err(Violation::new(what, vec![other, place]));
        }
    }
    let mut found = BTreeMap::<u64, usize>::new();
    let mut newest_of_client = BTreeMap::<ClientId, usize>::new();
    for (position, token) in last.iter().enumerate() {
        let Some((place, client)) = senders.get(token).copied() else {
            return Err(Violation::new(format!("token {token} was never sent"), vec![]));
        };
        if found.insert(*token, position).is_some() {
            return Err(Violation::new(format!("append {token} was applied twice"), vec![place]));
        }
        if let Some(newest) = newest_of_client.insert(client, place)
            && history[newest].invoked > history[place].invoked
        {
            let what = format!("append {token} of client {} was applied out of order", client.0);
            return Err(Violation::new(what, vec![place, newest]));
        }
    }
    let lost = history.iter().enumerate().find_map(|(place, op)| match op.action {
        Append::Add(token) if !op.is_unknown() && !found.contains_key(&token) => {
            Some((place, token))
        }
        _ => None,
    });
    match lost {
        Some((place, token)) => {
            Err(Violation::new(format!("acknowledged append {token} is lost"), vec![place]))
        }
        None => Ok(()),
    }
}

fn check_reads(history: &[Operation<Append>], last: &[u64]) -> Result<(), Violation> {
    for (place, op) in history.iter().enumerate() {
        if let Append::Get(seen) = &op.action
            && !last.starts_with(seen)
        {
            let what = format!("a read saw {seen:?}, which is no prefix of the final {last:?}");
            return Err(Violation::new(what, vec![place]));
        }
    }
    Ok(())
}

//! The record of what clients did and saw, per key, as the checkers want it.
//!
//! Every write carries a number of its own (its *token*) inside the value, so that a read names the write it saw. Keys come
//! in three kinds, told by their second byte: plain (`p`: puts only), deletable (`d`) and appended (`a`).

use super::call::{Call, Outcome};
use crate::checkers::append::{self, Append};
use crate::checkers::{ClientId, Moment, Operation, Register, Verdict, Violation, register};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Steps the search may take per key.
const SEARCH_STEPS_MAX: u64 = 300_000;

/// What may be done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// Puts and reads.
    Plain,
    /// Puts, deletes and reads.
    Deletable,
    /// Appends and reads.
    Appended,
}

impl KeyKind {
    /// The letter in the key.
    pub fn letter(self) -> char {
        match self {
            KeyKind::Plain => 'p',
            KeyKind::Deletable => 'd',
            KeyKind::Appended => 'a',
        }
    }

    /// The kind of a key made by the workload.
    pub fn of(key: &[u8]) -> KeyKind {
        match key.get(1) {
            Some(b'd') => KeyKind::Deletable,
            Some(b'a') => KeyKind::Appended,
            _ => KeyKind::Plain,
        }
    }
}

/// The value of a put with this token, padded to vary the sizes.
pub fn put_value(token: u64, padding: usize) -> Bytes {
    Bytes::from(format!("{token}{}", ".".repeat(padding)))
}

/// The piece an append with this token adds.
pub fn append_value(token: u64) -> Bytes {
    Bytes::from(format!("{token};"))
}

fn put_token(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim_end_matches('.').parse().ok()
}

/// The tokens of an appended value.
pub fn append_tokens(value: &[u8]) -> Option<Vec<u64>> {
    let text = std::str::from_utf8(value).ok()?;
    text.split_terminator(';').map(|token| token.parse().ok()).collect()
}

/// How calls ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Writes that were acknowledged.
    pub written: u64,
    /// Reads that were answered.
    pub read: u64,
    /// Writes whose outcome nobody told.
    pub unknown: u64,
    /// Calls that failed without effect.
    pub failed: u64,
}

impl CallCounts {
    /// Calls that were answered.
    pub fn ok(&self) -> u64 {
        self.written + self.read
    }
}

/// The history so far.
#[derive(Debug, Default)]
pub struct Recorder {
    moment: u64,
    registers: BTreeMap<Bytes, Vec<Operation<Register>>>,
    appends: BTreeMap<Bytes, Vec<Operation<Append>>>,
    /// How calls ended.
    pub counts: CallCounts,
    garbage: Option<String>,
}

impl Recorder {
    /// The next moment: of an invocation, or of a response.
    pub fn moment(&mut self) -> Moment {
        self.moment += 1;
        Moment(self.moment)
    }

    /// Adds a finished call. `keys` are all keys of the workload, which a scan read whether it saw them or not.
    pub fn finish(
        &mut self,
        client: u64,
        invoked: Moment,
        call: &Call,
        outcome: &Outcome,
        keys: &[Bytes],
    ) {
        let responded = self.moment();
        match outcome {
            Outcome::Written => self.counts.written += 1,
            Outcome::Value(_) | Outcome::Pairs(_) => self.counts.read += 1,
            Outcome::Unknown => self.counts.unknown += 1,
            Outcome::Refused(_) | Outcome::Failed => self.counts.failed += 1,
        }
        let entry = Entry { client: ClientId(client), invoked, responded };
        match (call, outcome) {
            (_, Outcome::Failed | Outcome::Refused(_)) => {}
            (Call::Get { key }, Outcome::Value(value)) => self.saw(entry, key, value.as_deref()),
            (Call::Scan { start, end }, Outcome::Pairs(pairs)) => {
                self.saw_range(entry, (start, end), pairs, keys);
            }
            (Call::Get { .. } | Call::Scan { .. }, _) => {}
            (_, Outcome::Written) => self.wrote(entry, call, keys),
            (_, Outcome::Unknown) => {
                self.wrote(Entry { responded: Moment::NEVER, ..entry }, call, keys);
            }
            (_, Outcome::Value(_) | Outcome::Pairs(_)) => {
                self.garbage = Some(format!("{} was answered with {outcome:?}", call.name()));
            }
        }
    }

    fn wrote(&mut self, entry: Entry, call: &Call, keys: &[Bytes]) {
        match call {
            Call::Put { key, value, .. } => self.put(entry, key, value),
            Call::PutMany { pairs } => {
                pairs.iter().for_each(|(key, value)| self.put(entry, key, value));
            }
            Call::Delete { key } => self.changed(entry, key, Register::Delete),
            Call::DeleteRange { start, end } => {
                let gone = keys.iter().filter(|key| start <= *key && *key < end);
                gone.for_each(|key| self.changed(entry, key, Register::Delete));
            }
            Call::Append { key, value, .. } => {
                let tokens = append_tokens(value).unwrap_or_default();
                let history = self.appends.entry(key.clone()).or_default();
                history.extend(tokens.into_iter().map(|token| entry.op(Append::Add(token))));
            }
            Call::Get { .. } | Call::Scan { .. } => {}
        }
    }

    fn put(&mut self, entry: Entry, key: &Bytes, value: &Bytes) {
        let token = put_token(value).expect("puts of the workload carry a token");
        self.changed(entry, key, Register::Put(token));
    }

    fn changed(&mut self, entry: Entry, key: &Bytes, action: Register) {
        self.registers.entry(key.clone()).or_default().push(entry.op(action));
    }

    fn saw(&mut self, entry: Entry, key: &Bytes, value: Option<&[u8]>) {
        let seen = match (KeyKind::of(key), value) {
            (KeyKind::Appended, value) => {
                let tokens = append_tokens(value.unwrap_or_default());
                tokens.map(|tokens| {
                    let history = self.appends.entry(key.clone()).or_default();
                    history.push(entry.op(Append::Get(tokens)));
                })
            }
            (_, value) => {
                let token = value.map(put_token).map_or(Some(None), |token| token.map(Some));
                token.map(|token| {
                    let history = self.registers.entry(key.clone()).or_default();
                    history.push(entry.op(Register::Get(token)));
                })
            }
        };
        if seen.is_none() {
            self.garbage = Some(format!("a read of {key:?} saw {value:?}"));
        }
    }

    fn saw_range(
        &mut self,
        entry: Entry,
        (start, end): (&Bytes, &Bytes),
        pairs: &[(Bytes, Bytes)],
        keys: &[Bytes],
    ) {
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            self.garbage = Some(format!("a scan came out of order: {pairs:?}"));
        }
        if let Some((key, _)) = pairs.iter().find(|(key, _)| !keys.contains(key)) {
            self.garbage = Some(format!("a scan saw the key {key:?}, which nobody wrote"));
        }
        for key in keys.iter().filter(|key| *start <= **key && **key < *end) {
            let value = pairs.iter().find(|(found, _)| found == key).map(|(_, value)| &value[..]);
            self.saw(entry, key, value);
        }
    }

    /// Judges everything recorded (invariant I7, and I5 through the final reads).
    pub fn check(&self, last: &BTreeMap<Bytes, Bytes>) -> Result<(), (Bytes, Violation)> {
        if let Some(garbage) = &self.garbage {
            return Err((Bytes::new(), Violation { what: garbage.clone(), operations: vec![] }));
        }
        for (key, history) in &self.registers {
            judge(key, register::check(history, SEARCH_STEPS_MAX), history)?;
        }
        for (key, history) in &self.appends {
            let tokens = last.get(key).map_or(Some(vec![]), |value| append_tokens(value));
            let tokens = tokens.unwrap_or_default();
            judge(key, append::check(history, &tokens, SEARCH_STEPS_MAX), history)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Entry {
    client: ClientId,
    invoked: Moment,
    responded: Moment,
}

impl Entry {
    fn op<A>(self, action: A) -> Operation<A> {
        let Entry { client, invoked, responded } = self;
        Operation { client, invoked, responded, action }
    }
}

/// Turns a verdict into a violation that quotes the operations involved.
fn judge<A: std::fmt::Debug>(
    key: &Bytes,
    verdict: Verdict,
    history: &[Operation<A>],
) -> Result<(), (Bytes, Violation)> {
    let mut violation = match verdict {
        Verdict::Ok => return Ok(()),
        Verdict::Illegal(violation) => violation,
        Verdict::Unknown => Violation {
            what: format!("the search ran out of steps on {} operations", history.len()),
            operations: vec![],
        },
    };
    for place in &violation.operations {
        if let Some(op) = history.get(*place) {
            let Operation { client, invoked, responded, action } = op;
            let client = client.0;
            let line = format!("\n    client {client} [{invoked}, {responded}] {action:?}");
            violation.what.push_str(&line);
        }
    }
    Err((key.clone(), violation))
}

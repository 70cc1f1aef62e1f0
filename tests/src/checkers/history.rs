//! The history of one key: operations as intervals on one line of moments.
//!
//! A moment is a count of events, not a time: the simulator hands out one number per invocation and per response, so no
//! two are equal and "responded before the other was invoked" is never a question of ties.

use std::fmt;

/// A point on the line of events; larger is later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Before every event: when the initial value was written.
    pub const START: Moment = Moment(0);
    /// After every event: the response of an operation whose outcome is unknown.
    pub const NEVER: Moment = Moment(u64::MAX);
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Moment::NEVER => f.write_str("never"),
            Moment(n) => write!(f, "#{n}"),
        }
    }
}

/// Who called. One client has at most one operation open at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// One call and, unless it is unknown, its answer. `A` says what was asked and what came back.
///
/// A read whose answer never came says nothing about the store and is left out of histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<A> {
    /// The caller.
    pub client: ClientId,
    /// When the call left the client.
    pub invoked: Moment,
    /// When the answer reached it, or [`Moment::NEVER`].
    pub responded: Moment,
    /// What was asked, and for a read what was seen.
    pub action: A,
}

impl<A> Operation<A> {
    /// True when the answer never came: the operation may or may not have taken effect.
    pub fn is_unknown(&self) -> bool {
        self.responded == Moment::NEVER
    }
}

//! Ids, terms and log positions as types of their own, so that two of them cannot be swapped in a
//! call.
//!
//! All three are plain `u64`s on the wire; 0 is "none" there (`NodeId`), "before any election"
//! (`Term`) and "before the first entry" (`LogIndex`).

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// Identity of a member of one raft group. Never 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// Logical time of elections (Raft thesis §3.3). At most one leader exists per term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// Position of an entry in the log, counted from 1. 0 is the position before the first entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl NodeId {
    /// The plain number, as the wire carries it.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The wire form of an optional id: 0 is none.
    pub const fn from_wire(id: u64) -> Option<NodeId> {
        if id == 0 { None } else { Some(NodeId(id)) }
    }
}

impl Term {
    /// The plain number, as the wire carries it.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The term a candidate in this term would ask for.
    pub const fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl LogIndex {
    /// The plain number, as the wire carries it.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The position after this one.
    pub const fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The position before this one. Panics at 0: nothing lies before the start.
    pub const fn prev(self) -> LogIndex {
        LogIndex(self.0 - 1)
    }

    /// How far `self` lies after `base`; 0 if it does not.
    pub const fn distance_from(self, base: LogIndex) -> u64 {
        self.0.saturating_sub(base.0)
    }
}

impl Add<u64> for LogIndex {
    type Output = LogIndex;
    fn add(self, count: u64) -> LogIndex {
        LogIndex(self.0 + count)
    }
}

impl AddAssign<u64> for LogIndex {
    fn add_assign(&mut self, count: u64) {
        self.0 += count;
    }
}

/// Number of positions between two indexes. Panics if the right one is the larger.
impl Sub for LogIndex {
    type Output = u64;
    fn sub(self, other: LogIndex) -> u64 {
        self.0 - other.0
    }
}

macro_rules! plain_number {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl From<u64> for $name {
            fn from(value: u64) -> $name {
                $name(value)
            }
        }
    };
}
plain_number!(NodeId);
plain_number!(Term);
plain_number!(LogIndex);

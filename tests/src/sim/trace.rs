//! What happened: a hash of every event, always; a timeline for people, when asked for.
//!
//! Runs are quiet by default. When one fails it is run again with the same seed and the timeline on: determinism makes the
//! second run the first one, with words.

use super::time::Nanos;
use std::collections::VecDeque;
use std::fmt::Write;

/// The lines a timeline keeps when nothing else is asked for.
pub const TIMELINE_LINES_MAX: usize = 400;

/// The record of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: VecDeque<String>,
    lines_max: usize,
}

impl Trace {
    /// A record that keeps the last `lines_max` lines; 0 for none.
    pub fn new(lines_max: usize) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: VecDeque::new(), lines_max }
    }

    /// Mixes an event into the hash: when, which kind, and what tells it from others of its kind.
    pub fn event(&mut self, now: Nanos, kind: u64, detail: u64) {
        self.events += 1;
        for word in [now.0, kind, detail] {
            self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    /// The hash so far. Two runs of one seed must agree.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Number of events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// True when lines are kept.
    pub fn is_on(&self) -> bool {
        self.lines_max > 0
    }

    /// Adds a line, composed only when lines are kept.
    pub fn line(&mut self, now: Nanos, compose: impl FnOnce(&mut String)) {
        if self.lines_max == 0 {
            return;
        }
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _ = write!(line, "{now:>12}  ");
        compose(&mut line);
        self.lines.push_back(line);
    }

    /// The lines kept, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

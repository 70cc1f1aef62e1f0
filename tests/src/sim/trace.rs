//! What happened: a hash of every event, always; a timeline for people, when asked for.
//!
//! Runs are quiet by default. When one fails it is run again with the same seed and the timeline on: determinism makes the
//! second run the first one, with words.

use super::time::Nanos;
use std::collections::VecDeque;
use std::fmt::Write;

/// The lines a timeline keeps when nothing else is asked for.
pub const TIMELINE_LINES_MAX: usize = 400;

/// What marks the lines that show every store side by side.
pub const COLUMNS: &str = "  ····  ";

/// The record of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: VecDeque<String>,
    timeline: Timeline,
}

/// Which lines a timeline keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The last so many; 0 for none.
    pub lines_max: usize,
    /// If given, only those that contain it, and faults and changes of stores.
    pub focus: Option<String>,
}

impl Timeline {
    /// No timeline.
    pub fn none() -> Timeline {
        Timeline::default()
    }

    /// The last lines, whatever they are about.
    pub fn last(lines_max: usize) -> Timeline {
        Timeline { lines_max, focus: None }
    }

    fn keeps(&self, line: &str) -> bool {
        let always = || ["FAULT", "HEAL", "STOPS", COLUMNS].iter().any(|word| line.contains(word));
        self.focus.as_ref().is_none_or(|focus| line.contains(focus) || always())
    }
}

impl Trace {
    /// A record with this timeline.
    pub fn new(timeline: Timeline) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: VecDeque::new(), timeline }
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
        self.timeline.lines_max > 0
    }

    /// True when only some lines are kept.
    pub fn is_focused(&self) -> bool {
        self.timeline.focus.is_some()
    }

    /// Adds a line, composed only when lines are kept.
    pub fn line(&mut self, now: Nanos, compose: impl FnOnce(&mut String)) {
        if !self.is_on() {
            return;
        }
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _ = write!(line, "{now:>12}  ");
        compose(&mut line);
        if !self.timeline.keeps(&line) {
            return;
        }
        if self.lines.len() == self.timeline.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The lines kept, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

//! Timestamps: asked for now and then, and compared with what was known when they were (I13).

use super::Cluster;
use crate::sim::event::{Answer, Event};
use crate::sim::invariants::Broken;
use crate::sim::scheduler::Question;

impl Cluster {
    /// Somebody asks for `count` timestamps, once.
    pub fn ask_timestamps(&mut self, count: u32) {
        if self.nodes().is_empty() {
            return;
        }
        let attempt = self.calls.next_number();
        self.calls.timestamps.insert(attempt, self.invariants.unique.known());
        let node = self.adviser();
        self.question(attempt, node, Question::Timestamps(count));
        let patience = self.knobs.election_timeout();
        self.queue.after(patience, Event::GiveUp { attempt });
    }

    /// The answer has come.
    pub(super) fn told_timestamps(&mut self, attempt: u64, answer: &Answer) -> Result<(), Broken> {
        let Some(known) = self.calls.timestamps.remove(&attempt) else { return Ok(()) };
        match answer {
            Answer::Timestamps(last, count) => {
                self.counts.timestamps += 1;
                self.invariants.unique.timestamps(known, *last, *count)
            }
            Answer::NotLeading(hint) => {
                let nodes = self.nodes();
                let next = (self.calls.adviser + 1) % nodes.len().max(1);
                self.calls.adviser = hint.map_or(next, |hint| hint - nodes.start);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

//! The timeline's columns: every store's node of a region side by side.

use super::Cluster;
use crate::sim::trace::COLUMNS;

impl Cluster {
    /// Adds a line to the timeline for each region whose nodes have changed: one column per store with role, term, commit
    /// and applied index. A focused timeline shows changes of role and term only.
    pub(super) fn draw_columns(&mut self) {
        for region in self.regions() {
            let nodes: Vec<_> = (0..self.processes.len())
                .map(|store| self.status(store, region.id).map(|status| status.raft))
                .collect();
            let column = |node: &Option<raft::Status>| match node {
                None => format!("{:22}", "-"),
                Some(node) => {
                    let role = match node.role {
                        raft::Role::Leader => "LEADS",
                        raft::Role::Follower => "",
                        raft::Role::Candidate => "asks",
                        raft::Role::PreCandidate => "preasks",
                    };
                    let raft::Status { term, commit, applied, .. } = node;
                    format!("{:22}", format!("{role} t{term} c{commit} a{applied}"))
                }
            };
            let line: Vec<String> = nodes.iter().map(column).collect();
            let line = line.join("| ");
            let lead = |node: &Option<raft::Status>| node.as_ref().map(|n| (n.role, n.term));
            let seen = match self.trace.is_focused() {
                true => format!("{:?}", nodes.iter().map(lead).collect::<Vec<_>>()),
                false => line.clone(),
            };
            if self.columns.get(&region.id) != Some(&seen) {
                let now = self.now();
                self.trace.line(now, |text| {
                    text.push_str(&format!("{COLUMNS}r{} | {line}", region.id));
                });
                self.columns.insert(region.id, seen);
            }
        }
    }
}

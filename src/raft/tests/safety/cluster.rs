//! The group, its network, and the schedule.

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use raft::{
    ConfChange, ConfChangeKind, ConfChangeV2, Config, LogIndex, Message, MessageBody, NodeId, Role,
    Term, Transition, wire,
};

use crate::node::{Counts, Node};
use crate::oracle::Oracle;

const NODES: u64 = 6;
const INITIAL_VOTERS: [u64; 3] = [1, 2, 3];
const MESSAGES_MAX: usize = 400;
const HEAL_ROUNDS_MAX: usize = 3_000;

/// What runs have exercised, in all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) terms: u64,
    pub(crate) commits: u64,
    pub(crate) reads: u64,
    pub(crate) snapshots: u64,
    pub(crate) changes: u64,
    pub(crate) crashes: u64,
}

/// A group under test.
pub(crate) struct Cluster {
    rng: ChaCha8Rng,
    nodes: Vec<Node>,
    network: Vec<Bytes>,
    /// Messages that take a very long time.
    stash: Vec<Bytes>,
    /// Side of the network each node is on; only nodes of one side hear each other.
    sides: [u64; NODES as usize],
    /// A node that applies nothing for a while.
    lazy: Option<usize>,
    oracle: Oracle,
    loss_percent: u64,
    crash_weight: u64,
    conf_change_weight: u64,
    serial: u64,
}

impl Cluster {
    pub(crate) fn new(seed: u64) -> Cluster {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |n: u64| rng.next_u64() % n;
        let (pre_vote, check_quorum) = (draw(3) > 0, draw(3) > 0);
        let tiny = draw(2) == 0;
        let template = Config {
            election_timeout_ticks: 6,
            heartbeat_interval_ticks: 2,
            pre_vote,
            check_quorum,
            message_entries_bytes_max: if tiny { 1 } else { 200 },
            inflight_messages_max: 1 + draw(4) as usize,
            inflight_bytes_max: 40 + draw(400),
            uncommitted_bytes_max: 400,
            ready_committed_bytes_max: if tiny { 1 } else { 1_000 },
            ..Config::default()
        };
        let (loss_percent, crash_weight, conf_change_weight) = (draw(20), draw(8), draw(30));
        let node = |id: u64| {
            let config = Config { id: NodeId(id), seed: seed * 100 + id, ..template.clone() };
            Node::new(config, if INITIAL_VOTERS.contains(&id) { &INITIAL_VOTERS } else { &[] })
        };
        let nodes = (1..=NODES).map(node).collect();
        Cluster {
            rng,
            nodes,
            network: Vec::new(),
            stash: Vec::new(),
            sides: [0; NODES as usize],
            lazy: None,
            oracle: Oracle::default(),
            loss_percent,
            crash_weight,
            conf_change_weight,
            serial: 0,
        }
    }

    fn draw(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    pub(crate) fn random_event(&mut self) {
        let at = self.draw(NODES) as usize;
        match self.draw(1_000) {
            0..400 => self.deliver_random(),
            400..560 => self.take_ready(at),
            560..700 => self.complete_write(at),
            700..780 => self.apply(at),
            780..880 => self.tick(at),
            880..920 => self.propose(at),
            920..940 => self.read(at),
            940..945 => self.nodes[at].compact(self.rng.next_u64() % 4),
            945..949 => self.partition(),
            949..954 => self.transfer(at),
            954..970 if self.conf_change_weight > self.rng.next_u64() % 30 => self.change(at),
            970..977 if self.crash_weight > self.rng.next_u64() % 8 => self.crash_or_restart(at),
            977..980 => self.campaign(at),
            980..988 => self.run_smoothly(),
            _ => {}
        }
        self.check(at);
    }

    /// A while in which nothing goes wrong, so that there is something to break.
    fn run_smoothly(&mut self) {
        let loss = std::mem::take(&mut self.loss_percent);
        for round in 0..self.draw(12) {
            (0..self.nodes.len()).for_each(|at| self.tick(at));
            if round % 3 == 0 {
                (0..self.nodes.len()).for_each(|at| self.propose(at));
            }
            for at in 0..self.nodes.len() {
                self.take_ready(at);
                self.complete_write(at);
                (0..3).for_each(|_| self.apply(at));
                self.check(at);
            }
            for bytes in std::mem::take(&mut self.network) {
                self.deliver(bytes);
            }
        }
        self.loss_percent = loss;
    }

    fn check(&mut self, at: usize) {
        if let Some(raw) = &self.nodes[at].raw {
            self.oracle.check_node(raw);
        }
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let lossy = self.rng.next_u64() % 100 < self.loss_percent;
            if lossy || !self.hears(message.from, message.to) || self.network.len() > MESSAGES_MAX {
                if matches!(message.body, MessageBody::Snapshot(_)) {
                    self.report(message.from, message.to, false);
                }
                continue;
            }
            let slow = self.loss_percent > 0 && self.draw(20) == 0;
            let queue = if slow { &mut self.stash } else { &mut self.network };
            queue.push(wire::encode_message(message));
        }
    }

    fn report(&mut self, from: NodeId, to: NodeId, ok: bool) {
        if let Some(raw) = &mut self.nodes[from.0 as usize - 1].raw {
            raw.report_snapshot(to, ok);
        }
    }

    fn deliver_random(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.draw(self.network.len() as u64) as usize;
        let duplicate = self.draw(20) == 0;
        let bytes = if duplicate { self.network[at].clone() } else { self.network.swap_remove(at) };
        self.deliver(bytes);
    }

    fn deliver(&mut self, bytes: Bytes) {
        let message = wire::decode_message(bytes).expect("we encoded it");
        let (from, to) = (message.from, message.to);
        let snapshot = matches!(message.body, MessageBody::Snapshot(_));
        let at = to.0 as usize - 1;
        let Some(raw) = &mut self.nodes[at].raw else {
            if snapshot {
                self.report(from, to, false);
            }
            return;
        };
        let (was_leader, term) = (raw.role() == Role::Leader, raw.term());
        if let Err(error) = raw.step(message.clone()) {
            assert!(tolerated(&error), "node {to} refuses {message:?}: {error}");
        }
        if raw.role() == Role::Leader && (!was_leader || raw.term() != term) {
            self.oracle.check_new_leader(raw);
        }
        if snapshot {
            self.report(from, to, true);
        }
        self.check(at);
    }

    fn take_ready(&mut self, at: usize) {
        let messages = self.nodes[at].take_ready(&mut self.oracle);
        self.send(messages);
    }

    fn complete_write(&mut self, at: usize) {
        let messages = self.nodes[at].complete_write();
        if let Some(raw) = &self.nodes[at].raw {
            self.oracle.check_promise(raw.id().0, raw.storage().hard_state);
        }
        self.send(messages);
    }

    fn tick(&mut self, at: usize) {
        if let Some(raw) = &mut self.nodes[at].raw {
            raw.tick();
        }
    }

    fn campaign(&mut self, at: usize) {
        if let Some(raw) = &mut self.nodes[at].raw {
            raw.campaign();
        }
    }

    fn propose(&mut self, at: usize) {
        self.serial += 1;
        let data = Bytes::from(format!("command {}", self.serial));
        if let Some(raw) = &mut self.nodes[at].raw {
            let _ = raw.propose(Bytes::new(), data);
        }
    }

    fn read(&mut self, at: usize) {
        self.serial += 1;
        let context = Bytes::from(self.serial.to_string());
        if let Some(raw) = &mut self.nodes[at].raw {
            self.oracle.ask_read(context.clone());
            raw.read_index(context);
        }
    }

    fn transfer(&mut self, at: usize) {
        let to = NodeId(1 + self.draw(NODES));
        if let Some(raw) = &mut self.nodes[at].raw {
            raw.transfer_leader(to);
        }
    }

    fn change(&mut self, at: usize) {
        let count = 1 + self.draw(3);
        let changes = (0..count).map(|_| {
            let node = NodeId(1 + self.draw(NODES));
            let kind = match self.draw(5) {
                0 | 1 => ConfChangeKind::AddVoter,
                2 | 3 => ConfChangeKind::Remove,
                _ => ConfChangeKind::AddLearner,
            };
            ConfChange { kind, node }
        });
        let changes = changes.collect();
        let transition = match self.draw(4) {
            0 => Transition::Explicit,
            1 => Transition::Implicit,
            _ => Transition::Auto,
        };
        let leave = self.draw(4) == 0;
        let change = match leave {
            true => ConfChangeV2::leave_joint(),
            false => ConfChangeV2 { transition, changes, context: Bytes::new() },
        };
        if let Some(raw) = &mut self.nodes[at].raw {
            let _ = raw.propose_conf_change(Bytes::new(), &change);
        }
    }

    /// Splits the network in two, or heals it; picks who is slow at applying.
    fn partition(&mut self) {
        let split = self.draw(3) > 0;
        for at in 0..self.sides.len() {
            self.sides[at] = if split { self.draw(2) } else { 0 };
        }
        self.lazy = Some(self.draw(2 * NODES) as usize);
        self.network.append(&mut self.stash);
    }

    fn hears(&self, from: NodeId, to: NodeId) -> bool {
        self.sides[from.0 as usize - 1] == self.sides[to.0 as usize - 1]
    }

    fn apply(&mut self, at: usize) {
        if self.lazy != Some(at) {
            self.nodes[at].apply_one(&mut self.oracle);
        }
    }

    fn crash_or_restart(&mut self, mut at: usize) {
        if let Some(down) = self.nodes.iter().position(|node| node.raw.is_none())
            && self.draw(8) > 0
        {
            at = down;
        }
        let (kept, lag) = (self.draw(4) as usize, self.draw(4));
        let node = &mut self.nodes[at];
        self.oracle.forget(node.id);
        if node.raw.is_some() {
            node.crash(kept);
        } else {
            node.restart(lag);
        }
    }

    /// What the run has exercised.
    pub(crate) fn coverage(&self) -> Coverage {
        let counts = self.nodes.iter().map(|node| node.counts);
        let sum = |of: fn(&Counts) -> u64| counts.clone().map(|counts| of(&counts)).sum();
        Coverage {
            terms: self.oracle.terms(),
            commits: self.oracle.commit_max().0,
            reads: self.oracle.reads_answered,
            snapshots: sum(|counts| counts.snapshots),
            changes: sum(|counts| counts.changes),
            crashes: sum(|counts| counts.crashes),
        }
    }

    /// Ends all faults and demands that the group agrees on a new entry.
    pub(crate) fn heal(&mut self) {
        self.sides = [0; NODES as usize];
        self.lazy = None;
        self.network.append(&mut self.stash);
        self.loss_percent = 0;
        for at in 0..self.nodes.len() {
            if self.nodes[at].raw.is_none() {
                self.oracle.forget(self.nodes[at].id);
                self.nodes[at].restart(1);
            }
        }
        let mut target = None;
        for _ in 0..HEAL_ROUNDS_MAX {
            (0..self.nodes.len()).for_each(|at| self.tick(at));
            self.settle();
            if target.is_none_or(|(term, _)| Some(term) != self.leader_term()) {
                target = self.propose_target();
            }
            if target.is_some_and(|(_, index)| self.all_members_applied(index)) {
                self.check_all_logs();
                return;
            }
        }
        let states: Vec<_> = self.nodes.iter().flat_map(|n| &n.raw).map(|r| r.status()).collect();
        panic!("no convergence: target {target:?}, {states:#?}");
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            for at in 0..self.nodes.len() {
                self.take_ready(at);
                self.complete_write(at);
                self.apply(at);
                self.check(at);
            }
            for bytes in std::mem::take(&mut self.network) {
                self.deliver(bytes);
            }
            if self.network.is_empty() && !self.nodes.iter().any(Node::has_work) {
                return;
            }
        }
        panic!("the group never comes to rest");
    }

    fn leader_term(&self) -> Option<Term> {
        let up = self.nodes.iter().flat_map(|node| &node.raw);
        up.filter(|raw| raw.role() == Role::Leader).map(|raw| raw.term()).max()
    }

    fn propose_target(&mut self) -> Option<(Term, LogIndex)> {
        let up = self.nodes.iter_mut().flat_map(|node| &mut node.raw);
        let leader = up.filter(|raw| raw.role() == Role::Leader).max_by_key(|raw| raw.term())?;
        let index = leader.propose(Bytes::new(), Bytes::from_static(b"the end")).ok()?;
        Some((leader.term(), index))
    }

    fn all_members_applied(&self, index: LogIndex) -> bool {
        let up = || self.nodes.iter().flat_map(|node| &node.raw);
        let leader = up().filter(|raw| raw.role() == Role::Leader).max_by_key(|raw| raw.term());
        let Some(leader) = leader else { return false };
        let members = leader.status().conf_state;
        up().filter(|raw| members.contains(raw.id())).all(|raw| raw.applied_index() >= index)
    }

    fn check_all_logs(&self) {
        let up: Vec<_> = self.nodes.iter().flat_map(|node| &node.raw).collect();
        for (at, left) in up.iter().enumerate() {
            for right in &up[at + 1..] {
                self.oracle.check_logs(left, right);
            }
        }
    }
}

/// Errors that an honest network can cause.
fn tolerated(error: &raft::Error) -> bool {
    use raft::Refusal;
    match error {
        raft::Error::MessageRefused { reason, .. } => {
            matches!(reason, Refusal::SnapshotMembership)
        }
        raft::Error::NotLeader { .. } => true,
        _ => false,
    }
}

//! The nodes of a script, their disks and the queue of messages between them.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fmt::Write as _;

use bytes::Bytes;
use raft::{
    ConfChange, ConfChangeKind, ConfChangeV2, ConfState, Config, Entry, HardState, LogIndex,
    MemStorage, Message, NodeId, RawNode, ReadOnlyOption, Ready, Snapshot, Storage as _, Term,
    Transition, wire,
};

use crate::display;

/// What the nodes of a group have in common.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    config: Config,
}

impl Settings {
    /// Plain Raft, changed by comma-separated names and `name=number`s.
    pub(crate) fn parse(text: &str) -> Result<Settings, Box<dyn Error>> {
        let mut config = Config {
            pre_vote: false,
            check_quorum: false,
            vote_cooldown_after_restart: false,
            heartbeat_interval_ticks: 1,
            ..Config::default()
        };
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, "1"));
            let value: u64 = value.parse()?;
            match name {
                "pre_vote" => config.pre_vote = true,
                "check_quorum" => config.check_quorum = true,
                "commit_rides" => config.commit_broadcast = false,
                "cooldown" => config.vote_cooldown_after_restart = true,
                "lease" => config.read_only = ReadOnlyOption::LeaseBased,
                "message_bytes" => config.message_entries_bytes_max = value,
                "inflight" => config.inflight_messages_max = value as usize,
                "inflight_bytes" => config.inflight_bytes_max = value,
                "uncommitted_bytes" => config.uncommitted_bytes_max = value,
                "committed_bytes" => config.ready_committed_bytes_max = value,
                _ => return Err(format!("unknown setting {name}").into()),
            }
        }
        Ok(Settings { config })
    }
}

struct Node {
    raw: Option<RawNode<MemStorage>>,
    config: Config,
    disk: MemStorage,
    writes: VecDeque<Ready>,
    to_apply: VecDeque<Entry>,
    conf_state: ConfState,
    applied: LogIndex,
}

/// A group of nodes, ids from 1.
#[derive(Default)]
pub(crate) struct Group {
    nodes: BTreeMap<u64, Node>,
    pub(crate) queue: Vec<Message>,
    pub(crate) cut: Vec<u64>,
}

impl Group {
    pub(crate) fn new(count: u64, voters: &[u64], learners: &str, settings: Settings) -> Group {
        let all: Vec<u64> = (1..=count).collect();
        let voters = if voters.is_empty() { &all } else { voters };
        let learners = learners.split(',').filter_map(|id| id.parse().ok()).collect::<Vec<u64>>();
        let mut group = Group::default();
        for id in 1..=count {
            let member = voters.contains(&id) || learners.contains(&id);
            let conf_state = match member {
                true => ConfState::simple(voters.iter().copied(), learners.iter().copied()),
                false => ConfState::default(),
            };
            let disk = MemStorage { conf_state, ..MemStorage::default() };
            let config = Config { id: NodeId(id), seed: id, ..settings.config.clone() };
            group.nodes.insert(id, Node::new(config, disk));
        }
        group
    }

    pub(crate) fn replace_log(
        &mut self,
        id: u64,
        terms: &[u64],
        term: Option<u64>,
        vote: Option<u64>,
        commit: u64,
    ) {
        let node = self.nodes.remove(&id).expect("a node");
        let entries = terms.iter().zip(1..).map(|(term, index)| Entry {
            index: LogIndex(index),
            term: Term(*term),
            data: Bytes::from(format!("{index}.{term}")),
            ..Entry::default()
        });
        let entries: Vec<Entry> = entries.collect();
        let last_term = terms.last().copied().unwrap_or(0);
        let hard_state = HardState {
            term: Term(term.unwrap_or(last_term)),
            vote: vote.map(NodeId),
            commit: LogIndex(commit),
        };
        let disk = MemStorage { hard_state, entries, ..node.disk };
        self.nodes.insert(id, Node::new(node.config, disk));
    }

    pub(crate) fn raw(&mut self, id: u64) -> Result<&mut RawNode<MemStorage>, String> {
        let node = self.nodes.get_mut(&id).ok_or("no such node")?;
        node.raw.as_mut().ok_or_else(|| format!("node {id} is down"))
    }

    fn send(&mut self, messages: Vec<Message>) {
        let cut = &self.cut;
        let heard = |m: &Message| !cut.contains(&m.from.0) && !cut.contains(&m.to.0);
        self.queue.extend(messages.into_iter().filter(heard));
    }

    pub(crate) fn take_ready(&mut self, id: u64) -> Result<String, String> {
        let raw = self.raw(id)?;
        if !raw.has_ready() {
            return Ok("nothing to do\n".into());
        }
        let mut ready = raw.ready();
        raw.advance_append_async(&ready);
        let out = display::ready(&ready);
        let messages = std::mem::take(&mut ready.messages);
        let node = self.nodes.get_mut(&id).expect("a node");
        node.to_apply.extend(std::mem::take(&mut ready.committed_entries));
        node.writes.push_back(ready);
        self.send(messages);
        Ok(out)
    }

    pub(crate) fn persist(&mut self, id: u64) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).ok_or("no such node")?;
        let ready = node.writes.pop_front().ok_or("no write is under way")?;
        let messages = node.persist(ready);
        self.send(messages);
        Ok(())
    }

    pub(crate) fn apply(&mut self, id: u64, count: u64) -> Result<String, String> {
        let node = self.nodes.get_mut(&id).ok_or("no such node")?;
        let mut out = String::new();
        for _ in 0..count {
            let Some(entry) = node.to_apply.pop_front() else { break };
            writeln!(out, "applied {}", display::entry(&entry)).unwrap();
            node.apply(&entry);
        }
        Ok(out)
    }

    pub(crate) fn take_messages(
        &mut self,
        from: Option<u64>,
        to: Option<u64>,
        kind: Option<&str>,
        count: usize,
    ) -> Vec<Message> {
        let fits = |m: &Message| {
            from.is_none_or(|id| id == m.from.0)
                && to.is_none_or(|id| id == m.to.0)
                && kind.is_none_or(|kind| kind == m.body.name())
        };
        let mut taken = Vec::new();
        self.queue = std::mem::take(&mut self.queue)
            .into_iter()
            .filter_map(|message| {
                if taken.len() < count && fits(&message) {
                    taken.push(message);
                    return None;
                }
                Some(message)
            })
            .collect();
        taken
    }

    pub(crate) fn duplicate(&mut self, from: Option<u64>, to: Option<u64>, kind: Option<&str>) {
        let taken = self.take_messages(from, to, kind, usize::MAX);
        self.queue.extend(taken.clone());
        self.queue.extend(taken);
    }

    /// Delivers a message, by way of its encoding. Returns the line that tells of it.
    pub(crate) fn deliver(&mut self, message: Message) -> String {
        let mut line = display::message(&message);
        let encoded = wire::encode_message(message.clone());
        assert_eq!(wire::decode_message(encoded).as_ref(), Ok(&message), "the wire keeps all");
        match self.raw(message.to.0) {
            Ok(raw) => {
                if let Err(error) = raw.step(message) {
                    write!(line, " ✗ {error}").unwrap();
                }
            }
            Err(down) => write!(line, " ✗ {down}").unwrap(),
        }
        line
    }

    pub(crate) fn stabilize(&mut self, only: &[u64]) -> String {
        let ids: Vec<u64> = match only.is_empty() {
            true => self.nodes.keys().copied().collect(),
            false => only.to_vec(),
        };
        let mut trace = String::new();
        for _ in 0..1_000 {
            let mut busy = false;
            for id in &ids {
                busy |= self.work(*id, &mut trace);
            }
            let to_us: Vec<Message> = std::mem::take(&mut self.queue);
            for message in to_us {
                if ids.contains(&message.to.0) {
                    busy = true;
                    writeln!(trace, "{}", self.deliver(message)).unwrap();
                } else {
                    self.queue.push(message);
                }
            }
            if !busy {
                return trace;
            }
        }
        panic!("the group never comes to rest");
    }

    /// Does everything one node has to do. True if there was anything.
    fn work(&mut self, id: u64, trace: &mut String) -> bool {
        let mut busy = false;
        while self.raw(id).is_ok_and(|raw| raw.has_ready()) || self.has_writes(id) {
            busy = true;
            if self.raw(id).is_ok_and(|raw| raw.has_ready()) {
                let _ = self.take_ready(id);
                let last = self.nodes[&id].writes.back().expect("just pushed");
                for line in display::reads(last).lines() {
                    writeln!(trace, "n{id}{line}").unwrap();
                }
            }
            let _ = self.persist(id);
            let _ = self.apply(id, u64::MAX);
        }
        busy | !self.apply(id, u64::MAX).unwrap_or_default().is_empty()
    }

    fn has_writes(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.raw.is_some() && !node.writes.is_empty())
    }

    pub(crate) fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            for node in self.nodes.values_mut() {
                if let Some(raw) = &mut node.raw {
                    raw.tick();
                }
            }
            self.stabilize(&[]);
        }
    }

    pub(crate) fn status(&self, only: &[u64]) -> String {
        let mut out = String::new();
        for (id, node) in &self.nodes {
            if only.is_empty() || only.contains(id) {
                match &node.raw {
                    Some(raw) => writeln!(out, "{}", display::status(&raw.status())).unwrap(),
                    None => writeln!(out, "n{id} is down").unwrap(),
                }
            }
        }
        out
    }

    pub(crate) fn compact(&mut self, id: u64, index: LogIndex) -> Result<(), String> {
        let node = self.nodes.get_mut(&id).ok_or("no such node")?;
        node.refresh_snapshot();
        let raw = node.raw.as_mut().ok_or("the node is down")?;
        raw.storage_mut().compact(index);
        Ok(())
    }

    pub(crate) fn crash(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if let Some(raw) = node.raw.take() {
            node.disk = raw.storage().clone();
        }
        node.writes.clear();
        node.to_apply.clear();
    }

    pub(crate) fn restart(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.config.applied = node.applied;
        node.disk.conf_state = node.conf_state.clone();
        node.raw = Some(RawNode::new(&node.config, node.disk.clone()).expect("a healthy disk"));
    }
}

impl Node {
    fn new(config: Config, disk: MemStorage) -> Node {
        Node {
            raw: Some(RawNode::new(&config, disk.clone()).expect("a healthy disk")),
            conf_state: disk.conf_state.clone(),
            config,
            disk,
            writes: VecDeque::new(),
            to_apply: VecDeque::new(),
            applied: LogIndex(0),
        }
    }

    fn persist(&mut self, ready: Ready) -> Vec<Message> {
        let Some(raw) = &mut self.raw else { return Vec::new() };
        if let Some(snapshot) = &ready.snapshot {
            raw.storage_mut().install(snapshot);
            self.conf_state = snapshot.conf_state.clone();
            self.applied = snapshot.index;
            self.to_apply.clear();
            raw.advance_apply_to(snapshot.index);
        }
        raw.storage_mut().append(&ready.entries);
        if let Some(hard_state) = ready.hard_state {
            raw.storage_mut().hard_state = hard_state;
        }
        raw.on_persist(ready.number);
        self.refresh_snapshot();
        ready.persisted_messages
    }

    fn apply(&mut self, entry: &Entry) {
        let Some(raw) = &mut self.raw else { return };
        if entry.kind.is_conf_change() {
            let change = wire::decode_conf_change(entry).expect("a change we encoded");
            if let Ok(conf_state) = raw.apply_conf_change(&change) {
                self.conf_state = conf_state;
            }
        }
        self.applied = entry.index;
        raw.advance_apply_to(entry.index);
        self.refresh_snapshot();
    }

    /// The state machine can be snapshotted where it stands.
    fn refresh_snapshot(&mut self) {
        let Some(raw) = &mut self.raw else { return };
        let (index, conf_state) = (self.applied, self.conf_state.clone());
        if let Ok(term) = raw.storage().term(index) {
            raw.storage_mut().snapshot =
                Some(Snapshot { index, term, conf_state, data: Bytes::new() });
        }
    }
}

/// A membership change from words like `v4`, `l4`, `r4`.
pub(crate) fn conf_change(
    words: &[String],
    transition: &str,
) -> Result<ConfChangeV2, Box<dyn Error>> {
    let change = |word: &String| -> Result<ConfChange, Box<dyn Error>> {
        let (kind, node) = word.split_at(1);
        let kind = match kind {
            "v" => ConfChangeKind::AddVoter,
            "l" => ConfChangeKind::AddLearner,
            "r" => ConfChangeKind::Remove,
            _ => return Err(format!("unknown change {word}").into()),
        };
        Ok(ConfChange { kind, node: NodeId(node.parse()?) })
    };
    let transition = match transition {
        "" | "auto" => Transition::Auto,
        "implicit" => Transition::Implicit,
        "explicit" => Transition::Explicit,
        other => return Err(format!("unknown transition {other}").into()),
    };
    let changes = words.iter().map(change).collect::<Result<_, _>>()?;
    Ok(ConfChangeV2 { transition, changes, context: Bytes::new() })
}

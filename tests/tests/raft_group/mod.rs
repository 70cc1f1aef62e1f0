//! Raft nodes on a network without time, for the stage tests of the core: what is sent is delivered until nothing is left,
//! links can be cut, and every log and term can be set up as a test needs it.
//!
//! Plain Raft by default (no pre-vote, no check-quorum): that is what the stage tests pin.
#![allow(dead_code, reason = "each stage uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft::{
    Append, ConfChangeKind, ConfChangeV2, Config, Entry, EntryKind, HardState, LogIndex,
    MemStorage, Message, MessageBody, NodeId, RawNode, Role, Snapshot, Term, VoteRequest, wire,
};

/// Ticks of the election timeout in every test here; the real one is drawn from `[10, 20)`.
pub(crate) const ELECTION_TICKS: u32 = 10;

/// A configuration of plain Raft.
pub(crate) fn plain(id: u64) -> Config {
    Config {
        id: NodeId(id),
        election_timeout_ticks: ELECTION_TICKS,
        heartbeat_interval_ticks: 1,
        pre_vote: false,
        check_quorum: false,
        vote_cooldown_after_restart: false,
        bootstrap_index: LogIndex(0),
        seed: id,
        ..Config::default()
    }
}

/// A log whose entries have these terms, from index 1, and the last of them as the node's term.
pub(crate) fn log_of(voters: u64, terms: &[u64]) -> MemStorage {
    let mut storage = MemStorage::with_voters(1..=voters);
    storage.append(&entries(1, terms));
    storage.hard_state.term = Term(terms.last().copied().unwrap_or(0));
    storage
}

/// Entries of these terms from `first` on, each with its index as data.
pub(crate) fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    (first..).zip(terms).map(|(index, term)| entry(index, *term)).collect()
}

/// One entry with data.
pub(crate) fn entry(index: u64, term: u64) -> Entry {
    let data = Bytes::from(format!("{index}@{term}"));
    Entry { index: LogIndex(index), term: Term(term), data, ..Entry::default() }
}

/// The node's term and vote before it starts.
pub(crate) fn with_state(
    mut storage: MemStorage,
    term: u64,
    vote: Option<u64>,
    commit: u64,
) -> MemStorage {
    storage.hard_state =
        HardState { term: Term(term), vote: vote.map(NodeId), commit: LogIndex(commit) };
    storage
}

/// A message.
pub(crate) fn message(from: u64, to: u64, term: u64, body: MessageBody) -> Message {
    Message { from: NodeId(from), to: NodeId(to), term: Term(term), body }
}

/// An append of entries after a position.
pub(crate) fn append(prev: (u64, u64), entries: Vec<Entry>, commit: u64) -> MessageBody {
    MessageBody::Append(Append {
        prev_index: LogIndex(prev.0),
        prev_term: Term(prev.1),
        entries,
        commit: LogIndex(commit),
    })
}

/// A heartbeat without a read round.
pub(crate) fn heartbeat(commit: u64) -> MessageBody {
    MessageBody::Heartbeat { commit: LogIndex(commit), context: Bytes::new() }
}

/// A request for a vote by a candidate whose log ends at a position.
pub(crate) fn request_vote(last: (u64, u64)) -> MessageBody {
    MessageBody::RequestVote(VoteRequest {
        last_index: LogIndex(last.0),
        last_term: Term(last.1),
        ..VoteRequest::default()
    })
}

/// One node, its disk, and what it has applied.
pub(crate) struct Member {
    /// The node.
    pub(crate) node: RawNode<MemStorage>,
    /// Entries with data that were applied, in order.
    pub(crate) applied: Vec<Entry>,
    /// How many snapshots it has installed.
    pub(crate) snapshots: usize,
}

impl Member {
    /// A node over a log.
    pub(crate) fn new(config: &Config, storage: MemStorage) -> Member {
        let node = RawNode::new(config, storage).expect("a valid configuration");
        Member { node, applied: Vec::new(), snapshots: 0 }
    }

    /// Node `id` of `voters` with an empty log.
    pub(crate) fn fresh(id: u64, voters: u64) -> Member {
        Member::new(&plain(id), MemStorage::with_voters(1..=voters))
    }

    /// Node 1 of `voters`, elected, with everything so far acknowledged by nobody else.
    pub(crate) fn leader(voters: u64) -> Member {
        Member::leader_over(voters, MemStorage::with_voters(1..=voters))
    }

    /// Node 1 of `voters` over a log, elected in the next term.
    pub(crate) fn leader_over(voters: u64, storage: MemStorage) -> Member {
        let mut member = Member::new(&plain(1), storage);
        member.node.campaign();
        member.work();
        let term = member.term();
        for id in 2..=voters {
            member.step(message(id, 1, term, MessageBody::RequestVoteResponse(Default::default())));
        }
        assert_eq!(member.role(), Role::Leader);
        member
    }

    /// Steps a message and does the work; returns what the node sends.
    pub(crate) fn step(&mut self, message: Message) -> Vec<Message> {
        // Refused messages are part of the scenarios.
        self.node.step(message).ok();
        self.work()
    }

    /// Ticks and does the work; returns what the node sends.
    pub(crate) fn tick(&mut self, ticks: u32) -> Vec<Message> {
        let mut sent = Vec::new();
        for _ in 0..ticks {
            self.node.tick();
            sent.extend(self.work());
        }
        sent
    }

    /// Proposes a command and does the work; returns what the node sends.
    pub(crate) fn propose(&mut self, data: &str) -> Vec<Message> {
        let data = Bytes::copy_from_slice(data.as_bytes());
        self.node.propose(Bytes::new(), data).ok();
        self.work()
    }

    /// Persists, applies and sends until the node wants nothing more.
    pub(crate) fn work(&mut self) -> Vec<Message> {
        let mut sent = Vec::new();
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            sent.append(&mut ready.messages);
            if let Some(snapshot) = &ready.snapshot {
                self.node.storage_mut().install(snapshot);
                self.snapshots += 1;
            }
            self.node.storage_mut().append(&ready.entries);
            if let Some(hard_state) = ready.hard_state {
                self.node.storage_mut().hard_state = hard_state;
            }
            sent.append(&mut ready.persisted_messages);
            for entry in &ready.committed_entries {
                self.apply(entry.clone());
            }
            self.node.advance(ready);
        }
        sent
    }

    fn apply(&mut self, entry: Entry) {
        if entry.kind == EntryKind::Normal {
            if !entry.data.is_empty() {
                self.applied.push(entry);
            }
            return;
        }
        let change = wire::decode_conf_change(&entry).expect("a membership change");
        if let Ok(conf_state) = self.node.apply_conf_change(&change) {
            self.node.storage_mut().conf_state = conf_state;
        }
    }

    /// Its term.
    pub(crate) fn term(&self) -> u64 {
        self.node.term().get()
    }

    /// Its role.
    pub(crate) fn role(&self) -> Role {
        self.node.role()
    }

    /// The leader it knows; 0 for none.
    pub(crate) fn leader_id(&self) -> u64 {
        self.node.leader_id().map_or(0, NodeId::get)
    }

    /// Its commit index.
    pub(crate) fn commit(&self) -> u64 {
        self.node.commit_index().get()
    }

    /// `(index, term)` of every entry of its log.
    pub(crate) fn log(&self) -> Vec<(u64, u64)> {
        let entries = &self.node.storage().entries;
        entries.iter().map(|e| (e.index.get(), e.term.get())).collect()
    }

    /// The data of what it has applied.
    pub(crate) fn applied_data(&self) -> Vec<String> {
        self.applied.iter().map(|e| String::from_utf8_lossy(&e.data).into_owned()).collect()
    }

    /// What the leader knows of a member: `(matched, next)`.
    pub(crate) fn progress(&self, id: u64) -> Option<(u64, u64)> {
        let status = self.node.status();
        let found = status.progress.iter().find(|p| p.id == NodeId(id));
        found.map(|p| (p.matched.get(), p.next.get()))
    }

    /// The voters as of what it has applied.
    pub(crate) fn voters(&self) -> Vec<u64> {
        self.node.storage().conf_state.voters.iter().map(|id| id.get()).collect()
    }
}

/// A group and the network between its members. Ids without a member swallow what they are sent.
pub(crate) struct Group {
    /// The members that live.
    pub(crate) members: BTreeMap<u64, Member>,
    cut: BTreeSet<(u64, u64)>,
    dropped: BTreeSet<&'static str>,
    queue: VecDeque<Message>,
}

impl Group {
    /// `n` nodes with empty logs.
    pub(crate) fn new(n: u64) -> Group {
        Group::over((1..=n).map(|_| Some(MemStorage::with_voters(1..=n))).collect())
    }

    /// Nodes over these logs; `None` is a dead one.
    pub(crate) fn over(storages: Vec<Option<MemStorage>>) -> Group {
        Group::configured(storages, |_| {})
    }

    /// Nodes over these logs, each configuration adjusted.
    pub(crate) fn configured(
        storages: Vec<Option<MemStorage>>,
        adjust: impl Fn(&mut Config),
    ) -> Group {
        let live = (1..).zip(storages).filter_map(|(id, storage)| {
            let mut config = plain(id);
            adjust(&mut config);
            storage.map(|storage| (id, Member::new(&config, storage)))
        });
        Group {
            members: live.collect(),
            cut: BTreeSet::new(),
            dropped: BTreeSet::new(),
            queue: VecDeque::new(),
        }
    }

    /// A member.
    pub(crate) fn at(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).expect("the member lives")
    }

    /// Makes a node campaign and delivers everything.
    pub(crate) fn campaign(&mut self, id: u64) {
        self.at(id).node.campaign();
        self.settle();
    }

    /// Proposes at a node and delivers everything.
    pub(crate) fn propose(&mut self, id: u64, data: &str) {
        let sent = self.at(id).propose(data);
        self.queue.extend(sent);
        self.settle();
    }

    /// Proposes a membership change of one member and delivers everything.
    pub(crate) fn change(&mut self, at: u64, kind: ConfChangeKind, id: u64) {
        let change = ConfChangeV2::single(kind, NodeId(id));
        self.at(at).node.propose_conf_change(Bytes::new(), &change).expect("accepted");
        self.settle();
    }

    /// Asks a node to see that leadership goes to another, and delivers everything.
    pub(crate) fn transfer(&mut self, at: u64, to: u64) {
        self.at(at).node.transfer_leader(NodeId(to));
        self.settle();
    }

    /// Makes a node send heartbeats if it leads, and delivers everything.
    pub(crate) fn beat(&mut self, id: u64) {
        self.at(id).node.ping();
        self.settle();
    }

    /// Hands a message to its receiver and delivers everything that follows.
    pub(crate) fn send(&mut self, message: Message) {
        self.queue.push_back(message);
        self.settle();
    }

    /// Everybody works until nothing is on its way.
    pub(crate) fn settle(&mut self) {
        loop {
            for member in self.members.values_mut() {
                self.queue.extend(member.work());
            }
            let Some(message) = self.queue.pop_front() else {
                if self.queue.is_empty() {
                    return;
                }
                continue;
            };
            let (from, to) = (message.from.get(), message.to.get());
            if self.cut.contains(&(from, to)) || self.dropped.contains(message.body.name()) {
                continue;
            }
            if let Some(member) = self.members.get_mut(&to) {
                let is_snapshot = matches!(message.body, MessageBody::Snapshot(_));
                let sent = member.step(message);
                self.queue.extend(sent);
                if is_snapshot && let Some(sender) = self.members.get_mut(&from) {
                    sender.node.report_snapshot(NodeId(to), true);
                }
            }
        }
    }

    /// Cuts the link between two nodes, both ways.
    pub(crate) fn cut(&mut self, a: u64, b: u64) {
        self.cut.insert((a, b));
        self.cut.insert((b, a));
    }

    /// Cuts a node off from everybody.
    pub(crate) fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = (1..=10).filter(|other| *other != id).collect();
        for other in others {
            self.cut(id, other);
        }
    }

    /// Loses every message of a kind ([`MessageBody::name`]).
    pub(crate) fn drop_kind(&mut self, name: &'static str) {
        self.dropped.insert(name);
    }

    /// Mends every link and loses nothing more.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.dropped.clear();
    }

    /// The role, term and commit index of every member.
    pub(crate) fn states(&self) -> Vec<(Role, u64, u64)> {
        self.members.values().map(|m| (m.role(), m.term(), m.commit())).collect()
    }

    /// Drops a node's log up to its commit index, so that whoever is behind needs a snapshot.
    pub(crate) fn compact(&mut self, id: u64) {
        let member = self.at(id);
        let applied = member.node.applied_index();
        let snapshot = raft::Storage::snapshot(member.node.storage(), applied, NodeId(0));
        let snapshot: Snapshot = snapshot.expect("a snapshot of what is applied");
        member.node.storage_mut().snapshot = Some(snapshot);
        member.node.storage_mut().compact(applied);
    }
}

//! A raft-rs 0.7 node, driven as its documentation says: ready, persist, send, apply, advance.

use std::cell::RefCell;
use std::rc::Rc;

use protobuf::Message as _;
use raft_rs::prelude::{
    ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Config, Entry,
    EntryType, HardState, Message, MessageType, RaftState, RawNode, Snapshot, Storage,
};
use raft_rs::{GetEntriesContext, SnapshotStatus, StateRole, StorageError};

use crate::machine::Machine;
use crate::{Change, Packet, Peer};

/// What the node has on disk. Everything is written at once, so a restart finds all of it.
#[derive(Default)]
struct Disk {
    hard_state: HardState,
    conf_state: ConfState,
    start: (u64, u64),
    entries: Vec<Entry>,
    machine: Machine,
}

impl Disk {
    fn last_index(&self) -> u64 {
        self.start.0 + self.entries.len() as u64
    }

    fn term(&self, index: u64) -> raft_rs::Result<u64> {
        if index == self.start.0 {
            return Ok(self.start.1);
        }
        if index < self.start.0 {
            return Err(StorageError::Compacted.into());
        }
        let at = (index - self.start.0 - 1) as usize;
        self.entries.get(at).map(|e| e.term).ok_or(StorageError::Unavailable.into())
    }

    fn append(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            self.entries.truncate((first.index - self.start.0 - 1) as usize);
            self.entries.extend(entries);
        }
    }

    fn compact(&mut self) {
        let Ok(term) = self.term(self.machine.applied) else { return };
        self.entries.drain(..(self.machine.applied - self.start.0) as usize);
        self.start = (self.machine.applied, term);
    }
}

#[derive(Clone)]
struct Shared(Rc<RefCell<Disk>>);

impl Storage for Shared {
    fn initial_state(&self) -> raft_rs::Result<RaftState> {
        let disk = self.0.borrow();
        Ok(RaftState::new(disk.hard_state.clone(), disk.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft_rs::Result<Vec<Entry>> {
        let disk = self.0.borrow();
        if low <= disk.start.0 {
            return Err(StorageError::Compacted.into());
        }
        let at = |index: u64| (index - disk.start.0 - 1) as usize;
        let mut found = disk.entries[at(low)..at(high)].to_vec();
        raft_rs::util::limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> raft_rs::Result<u64> {
        self.0.borrow().term(index)
    }

    fn first_index(&self) -> raft_rs::Result<u64> {
        Ok(self.0.borrow().start.0 + 1)
    }

    fn last_index(&self) -> raft_rs::Result<u64> {
        Ok(self.0.borrow().last_index())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft_rs::Result<Snapshot> {
        let disk = self.0.borrow();
        if disk.machine.applied < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let term = disk.term(disk.machine.applied)?;
        let meta = snapshot.mut_metadata();
        meta.index = disk.machine.applied;
        meta.term = term;
        meta.set_conf_state(disk.conf_state.clone());
        snapshot.data = disk.machine.encode().into();
        Ok(snapshot)
    }
}

/// A raft-rs member.
pub struct Theirs {
    id: u64,
    disk: Shared,
    node: RawNode<Shared>,
    machine: Machine,
    snapshots_installed: usize,
    /// It has applied its own removal. A raft-rs node must be torn down then: as a leader it would panic at the next
    /// acknowledgement.
    removed: bool,
}

impl Theirs {
    /// A member of a group created with `voters` at log position `start`; without voters, one that waits to be added.
    #[must_use]
    pub fn new(id: u64, voters: &[u64], start: u64) -> Self {
        let mut disk = Disk::default();
        if !voters.is_empty() {
            disk.conf_state.set_voters(voters.to_vec());
            disk.start = (start, start);
            disk.hard_state.commit = start;
            disk.hard_state.term = start;
            disk.machine = Machine::at(start);
        }
        let machine = disk.machine.clone();
        let disk = Shared(Rc::new(RefCell::new(disk)));
        let node = Self::open(id, &disk);
        Self { id, disk, node, machine, snapshots_installed: 0, removed: false }
    }

    fn open(id: u64, disk: &Shared) -> RawNode<Shared> {
        let config = Config {
            id,
            applied: disk.0.borrow().machine.applied,
            election_tick: 10,
            heartbeat_tick: 2,
            pre_vote: true,
            check_quorum: true,
            max_size_per_msg: 4096,
            max_inflight_msgs: 16,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        RawNode::new(&config, disk.clone(), &logger).expect("the configuration is valid")
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.machine.apply(entry.index, entry.term, &entry.data);
            let change = match entry.get_entry_type() {
                EntryType::EntryNormal => None,
                EntryType::EntryConfChange => {
                    let mut change = ConfChange::default();
                    change.merge_from_bytes(&entry.data).expect("a membership change");
                    Some(self.node.apply_conf_change(&change))
                }
                EntryType::EntryConfChangeV2 => {
                    let mut change = ConfChangeV2::default();
                    change.merge_from_bytes(&entry.data).expect("a membership change");
                    Some(self.node.apply_conf_change(&change))
                }
            };
            if let Some(Ok(conf_state)) = change {
                let members =
                    [&conf_state.voters, &conf_state.voters_outgoing, &conf_state.learners];
                self.removed = !members.iter().any(|ids| ids.contains(&self.id));
                self.disk.0.borrow_mut().conf_state = conf_state;
            }
        }
        self.disk.0.borrow_mut().machine = self.machine.clone();
    }

    fn send(&self, messages: Vec<Message>, out: &mut Vec<Packet>) {
        for message in messages {
            out.push(Packet {
                from: self.id,
                to: message.to,
                is_snapshot: message.get_msg_type() == MessageType::MsgSnapshot,
                bytes: message.write_to_bytes().expect("messages encode"),
            });
        }
    }

    fn install(&mut self, snapshot: &Snapshot) {
        let meta = snapshot.get_metadata();
        self.machine.restore(&snapshot.data);
        assert_eq!(self.machine.applied, meta.index, "a snapshot is the state at its index");
        self.snapshots_installed += 1;
        let mut disk = self.disk.0.borrow_mut();
        disk.start = (meta.index, meta.term);
        disk.entries.clear();
        disk.conf_state = meta.get_conf_state().clone();
        disk.hard_state.commit = meta.index;
        disk.machine = self.machine.clone();
    }
}

impl Peer for Theirs {
    fn id(&self) -> u64 {
        self.id
    }

    fn implementation(&self) -> &'static str {
        "raft-rs"
    }

    fn tick(&mut self) {
        if !self.removed {
            self.node.tick();
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        let message = Message::parse_from_bytes(bytes).expect("our bytes parse");
        if !self.removed {
            // An error only says that the message was of no use (from a removed member, say).
            self.node.step(message).ok();
        }
    }

    fn propose(&mut self, data: &[u8]) -> bool {
        self.node.propose(Vec::new(), data.to_vec()).is_ok()
    }

    fn propose_change(&mut self, changes: &[Change]) -> bool {
        // raft-rs turns a second pending change into an empty entry; it is not asked to.
        if self.node.raft.has_pending_conf() {
            return false;
        }
        let mut change = ConfChangeV2::default();
        for single in changes {
            let (kind, node) = match *single {
                Change::AddVoter(id) => (ConfChangeType::AddNode, id),
                Change::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
                Change::Remove(id) => (ConfChangeType::RemoveNode, id),
            };
            let mut one = ConfChangeSingle::default();
            one.set_change_type(kind);
            one.node_id = node;
            change.mut_changes().push(one);
        }
        self.node.propose_conf_change(Vec::new(), change).is_ok()
    }

    fn transfer_leader(&mut self, to: u64) {
        self.node.transfer_leader(to);
    }

    fn report_snapshot(&mut self, to: u64, arrived: bool) {
        let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to, status);
    }

    fn compact(&mut self) {
        self.disk.0.borrow_mut().compact();
    }

    fn drive(&mut self) -> Vec<Packet> {
        let mut out = Vec::new();
        while !self.removed && self.node.has_ready() {
            let mut ready = self.node.ready();
            self.send(ready.take_messages(), &mut out);
            if *ready.snapshot() != Snapshot::default() {
                self.install(&ready.snapshot().clone());
            }
            self.apply(ready.take_committed_entries());
            self.disk.0.borrow_mut().append(ready.take_entries());
            if let Some(hard_state) = ready.hs() {
                self.disk.0.borrow_mut().hard_state = hard_state.clone();
            }
            self.send(ready.take_persisted_messages(), &mut out);
            let mut light = self.node.advance(ready);
            if let Some(commit) = light.commit_index() {
                self.disk.0.borrow_mut().hard_state.commit = commit;
            }
            self.send(light.take_messages(), &mut out);
            self.apply(light.take_committed_entries());
            self.node.advance_apply();
        }
        out
    }

    fn restart(&mut self) {
        self.machine = self.disk.0.borrow().machine.clone();
        self.node = Self::open(self.id, &self.disk);
    }

    fn leads(&self) -> Option<u64> {
        let leads = !self.removed && self.node.raft.state == StateRole::Leader;
        leads.then_some(self.node.raft.term)
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn describe(&self) -> String {
        let progress: Vec<_> = self.node.raft.prs().iter().collect();
        format!("applied {} {:?} {progress:?}", self.machine.applied, self.node.status().hs)
    }

    fn snapshots_installed(&self) -> usize {
        self.snapshots_installed
    }
}

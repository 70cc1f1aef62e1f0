//! One of our nodes, driven with asynchronous persistence: writes reach the disk some time after they were handed over, and a
//! restart loses those that have not.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::{
    ConfChange, ConfChangeKind, ConfChangeV2, ConfState, Config, Entry, EntryKind, HardState,
    LogIndex, MemStorage, Message, MessageBody, NodeId, RawNode, Ready, Role, Snapshot, Term, wire,
};

use crate::machine::Machine;
use crate::{Change, Packet, Peer};

/// A write on its way to the disk.
struct Write {
    number: u64,
    hard_state: Option<HardState>,
    entries: Vec<Entry>,
    snapshot: Option<Snapshot>,
    after: Vec<Message>,
    /// How often the node is driven before the disk has it.
    rounds_left: u32,
}

/// One of our members.
pub struct Ours {
    id: u64,
    node: RawNode<MemStorage>,
    /// What a restart finds: the log as far as it is durable, and the machine as far as it was applied.
    disk: MemStorage,
    machine: Machine,
    writes: VecDeque<Write>,
    /// Rounds a write takes; varied so that several are under way at once.
    latency: u32,
    starts: u64,
    snapshots_installed: usize,
}

impl Ours {
    /// A member of a group created with `voters` at log position `start`; without voters, one that waits to be added.
    #[must_use]
    pub fn new(id: u64, voters: &[u64], start: u64) -> Self {
        let mut disk = MemStorage::default();
        let mut machine = Machine::default();
        if !voters.is_empty() {
            disk = MemStorage::with_voters(voters.iter().copied());
            disk.start = (LogIndex(start), Term(start));
            disk.hard_state = HardState { term: Term(start), vote: None, commit: LogIndex(start) };
            machine = Machine::at(start);
        }
        let node = Self::open(id, 0, &disk, &machine);
        Self {
            id,
            node,
            disk,
            machine,
            writes: VecDeque::new(),
            latency: 0,
            starts: 0,
            snapshots_installed: 0,
        }
    }

    fn open(id: u64, starts: u64, disk: &MemStorage, machine: &Machine) -> RawNode<MemStorage> {
        // Entries are applied before the commit index that allows it is durable: what is applied was committed.
        let mut disk = disk.clone();
        disk.hard_state.commit = disk.hard_state.commit.max(LogIndex(machine.applied));
        let config = Config {
            id: NodeId(id),
            applied: LogIndex(machine.applied),
            message_entries_bytes_max: 4096,
            inflight_messages_max: 16,
            seed: id * 1_000 + starts,
            ..Config::default()
        };
        RawNode::new(&config, disk).expect("the configuration and the disk are valid")
    }

    fn send(&self, messages: Vec<Message>, out: &mut Vec<Packet>) {
        for message in messages {
            out.push(Packet {
                from: self.id,
                to: message.to.get(),
                is_snapshot: matches!(message.body, MessageBody::Snapshot(_)),
                bytes: wire::encode_message(message).to_vec(),
            });
        }
    }

    /// The node reads its own writes at once; `disk` has them later.
    fn hand_over(&mut self, ready: &mut Ready) {
        self.latency = (self.latency + 1) % 4;
        let write = Write {
            number: ready.number,
            hard_state: ready.hard_state,
            entries: std::mem::take(&mut ready.entries),
            snapshot: ready.snapshot.take(),
            after: std::mem::take(&mut ready.persisted_messages),
            rounds_left: self.latency,
        };
        store(self.node.storage_mut(), &write);
        self.writes.push_back(write);
    }

    fn install(&mut self, snapshot: &Snapshot) {
        self.machine.restore(&snapshot.data);
        assert_eq!(self.machine.applied, snapshot.index.get(), "the state at its index");
        self.snapshots_installed += 1;
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.machine.apply(entry.index.get(), entry.term.get(), &entry.data);
            if entry.kind != EntryKind::Normal {
                self.apply_change(&entry);
            }
            self.node.advance_apply_to(entry.index);
        }
    }

    fn apply_change(&mut self, entry: &Entry) {
        let change = wire::decode_conf_change(entry).expect("a membership change");
        if let Ok(conf_state) = self.node.apply_conf_change(&change) {
            self.set_conf_state(conf_state);
        }
    }

    fn set_conf_state(&mut self, conf_state: ConfState) {
        self.disk.conf_state = conf_state.clone();
        self.node.storage_mut().conf_state = conf_state;
    }

    /// The write of a number is durable: the promises it carries may leave.
    fn complete_writes(&mut self, out: &mut Vec<Packet>) {
        while let Some(write) = self.writes.front_mut() {
            if write.rounds_left > 0 {
                write.rounds_left -= 1;
                return;
            }
            let Some(mut write) = self.writes.pop_front() else { return };
            store(&mut self.disk, &write);
            if let Some(snapshot) = &write.snapshot {
                self.install(&snapshot.clone());
                self.node.advance_apply_to(snapshot.index);
            }
            self.node.on_persist(write.number);
            let after = std::mem::take(&mut write.after);
            self.send(after, out);
        }
    }

    fn offer_snapshot(&mut self) {
        let index = LogIndex(self.machine.applied);
        let storage = self.node.storage_mut();
        if let Ok(term) = raft::Storage::term(storage, index) {
            storage.snapshot = Some(Snapshot {
                index,
                term,
                conf_state: storage.conf_state.clone(),
                data: Bytes::from(self.machine.encode()),
            });
        }
    }
}

fn store(log: &mut MemStorage, write: &Write) {
    if let Some(snapshot) = &write.snapshot {
        log.install(snapshot);
    }
    log.append(&write.entries);
    if let Some(hard_state) = write.hard_state {
        log.hard_state = hard_state;
    }
}

impl Peer for Ours {
    fn id(&self) -> u64 {
        self.id
    }

    fn implementation(&self) -> &'static str {
        "flotilla"
    }

    fn tick(&mut self) {
        self.node.tick();
    }

    fn receive(&mut self, bytes: &[u8]) {
        let message =
            wire::decode_message(Bytes::copy_from_slice(bytes)).expect("their bytes parse");
        // An error only says that the message was of no use (from a removed member, say).
        self.node.step(message).ok();
    }

    fn propose(&mut self, data: &[u8]) -> bool {
        self.node.propose(Bytes::new(), Bytes::copy_from_slice(data)).is_ok()
    }

    fn propose_change(&mut self, changes: &[Change]) -> bool {
        let one = |change: &Change| {
            let (kind, node) = match *change {
                Change::AddVoter(id) => (ConfChangeKind::AddVoter, id),
                Change::AddLearner(id) => (ConfChangeKind::AddLearner, id),
                Change::Remove(id) => (ConfChangeKind::Remove, id),
            };
            ConfChange { kind, node: NodeId(node) }
        };
        let change =
            ConfChangeV2 { changes: changes.iter().map(one).collect(), ..ConfChangeV2::default() };
        self.node.propose_conf_change(Bytes::new(), &change).is_ok()
    }

    fn transfer_leader(&mut self, to: u64) {
        self.node.transfer_leader(NodeId(to));
    }

    fn report_snapshot(&mut self, to: u64, arrived: bool) {
        self.node.report_snapshot(NodeId(to), arrived);
    }

    fn compact(&mut self) {
        // Only what the disk has as well may go.
        let index = LogIndex(self.machine.applied).min(raft::Storage::last_index(&self.disk));
        self.node.storage_mut().compact(index);
        self.disk.compact(index);
    }

    fn drive(&mut self) -> Vec<Packet> {
        let mut out = Vec::new();
        self.complete_writes(&mut out);
        self.offer_snapshot();
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            self.send(std::mem::take(&mut ready.messages), &mut out);
            let committed = std::mem::take(&mut ready.committed_entries);
            // Even one without a write is reported in its turn: a number stands for all before it.
            let keep = ready.clone();
            self.hand_over(&mut ready);
            self.node.advance_append_async(&keep);
            self.apply(committed);
        }
        out
    }

    fn restart(&mut self) {
        self.writes.clear();
        self.starts += 1;
        self.node = Self::open(self.id, self.starts, &self.disk, &self.machine);
    }

    fn leads(&self) -> Option<u64> {
        (self.node.role() == Role::Leader).then(|| self.node.term().get())
    }

    fn machine(&self) -> &Machine {
        &self.machine
    }

    fn describe(&self) -> String {
        format!("applied {} {:?}", self.machine.applied, self.node.status())
    }

    fn snapshots_installed(&self) -> usize {
        self.snapshots_installed
    }
}

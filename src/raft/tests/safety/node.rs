//! One node with a disk: a volatile image the node reads, and a durable one that survives a crash.

use std::collections::VecDeque;

use raft::{
    ConfState, Config, HardState, LogIndex, MemStorage, Message, RawNode, Ready, Snapshot, Storage,
    wire,
};

use crate::oracle::Oracle;

/// A write under way.
pub(crate) struct PendingWrite {
    number: u64,
    snapshot: Option<Snapshot>,
    entries: Vec<raft::Entry>,
    hard_state: Option<HardState>,
    must_sync: bool,
    messages: Vec<Message>,
}

impl PendingWrite {
    fn apply_to(&self, disk: &mut MemStorage) {
        if let Some(snapshot) = &self.snapshot {
            disk.install(snapshot);
        }
        disk.append(&self.entries);
        if let Some(hard_state) = self.hard_state {
            disk.hard_state = hard_state;
        }
    }
}

/// What happened to a node.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) snapshots: u64,
    pub(crate) changes: u64,
    pub(crate) crashes: u64,
}

/// One node, up or down.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) raw: Option<RawNode<MemStorage>>,
    durable: MemStorage,
    unsynced: Vec<PendingWrite>,
    writes: VecDeque<PendingWrite>,
    /// Handed out and not applied yet.
    to_apply: VecDeque<raft::Entry>,
    /// Membership as of every applied index since the log's start.
    conf_states: Vec<(LogIndex, ConfState)>,
    config: Config,
    starts: u64,
    pub(crate) counts: Counts,
}

impl Node {
    pub(crate) fn new(config: Config, voters: &[u64]) -> Node {
        let durable = MemStorage::with_voters(voters.iter().copied());
        let conf_states = vec![(LogIndex(0), durable.conf_state.clone())];
        let mut node = Node {
            id: config.id.0,
            raw: None,
            durable,
            unsynced: Vec::new(),
            writes: VecDeque::new(),
            to_apply: VecDeque::new(),
            conf_states,
            config,
            starts: 0,
            counts: Counts::default(),
        };
        node.start(LogIndex(0));
        node
    }

    /// Starts from the durable image, with the state machine at `applied`.
    fn start(&mut self, applied: LogIndex) {
        self.starts += 1;
        self.config.applied = applied;
        self.config.seed = self.config.seed.wrapping_mul(31).wrapping_add(self.starts);
        self.conf_states.retain(|(index, _)| *index <= applied);
        let mut disk = self.durable.clone();
        disk.conf_state = self.conf_states.last().unwrap().1.clone();
        self.raw = Some(RawNode::new(&self.config, disk).expect("a healthy disk"));
        self.refresh_snapshot();
    }

    /// The state machine can always be snapshotted where it stands.
    fn refresh_snapshot(&mut self) {
        let Some(raw) = &mut self.raw else { return };
        let (index, conf_state) = self.conf_states.last().unwrap().clone();
        let Ok(term) = raw.storage().term(index) else { return };
        raw.storage_mut().snapshot =
            Some(Snapshot { index, term, conf_state, ..Snapshot::default() });
    }

    pub(crate) fn crash(&mut self, kept_unsynced: usize) {
        self.raw = None;
        self.counts.crashes += 1;
        for write in self.unsynced.drain(..).take(kept_unsynced) {
            write.apply_to(&mut self.durable);
        }
        self.unsynced.clear();
        self.writes.clear();
        self.to_apply.clear();
    }

    pub(crate) fn restart(&mut self, lag: u64) {
        let start = self.durable.first_index().prev();
        let commit = self.durable.hard_state.commit.max(start);
        let known = self.conf_states.last().unwrap().0.max(start);
        let applied = LogIndex(known.min(commit).0.saturating_sub(lag)).max(start);
        self.start(applied);
    }

    /// Takes a Ready, if there is one. Returns the messages that leave at once.
    pub(crate) fn take_ready(&mut self, oracle: &mut Oracle) -> Vec<Message> {
        let Some(raw) = &mut self.raw else { return Vec::new() };
        if !raw.has_ready() {
            return Vec::new();
        }
        let ready: Ready = raw.ready();
        raw.advance_append_async(&ready);
        oracle.check_reads(self.id, &ready.read_states);
        for context in &ready.dropped_reads {
            oracle.drop_read(context);
        }
        self.to_apply.extend(ready.committed_entries);
        self.writes.push_back(PendingWrite {
            number: ready.number,
            snapshot: ready.snapshot,
            entries: ready.entries,
            hard_state: ready.hard_state,
            must_sync: ready.must_sync,
            messages: ready.persisted_messages,
        });
        ready.messages
    }

    /// Completes the oldest write. Returns the messages that waited for it.
    pub(crate) fn complete_write(&mut self) -> Vec<Message> {
        let Some(raw) = &mut self.raw else { return Vec::new() };
        let Some(mut write) = self.writes.pop_front() else { return Vec::new() };
        let messages = std::mem::take(&mut write.messages);
        write.apply_to(raw.storage_mut());
        if let Some(snapshot) = &write.snapshot {
            self.conf_states = vec![(snapshot.index, snapshot.conf_state.clone())];
            self.to_apply.clear();
            self.counts.snapshots += 1;
            raw.advance_apply_to(snapshot.index);
        }
        raw.on_persist(write.number);
        let must_sync = write.must_sync;
        self.unsynced.push(write);
        if must_sync {
            for write in self.unsynced.drain(..) {
                write.apply_to(&mut self.durable);
            }
        }
        self.refresh_snapshot();
        messages
    }

    pub(crate) fn apply_one(&mut self, oracle: &mut Oracle) {
        let Some(raw) = &mut self.raw else { return };
        let Some(entry) = self.to_apply.pop_front() else { return };
        if entry.index <= raw.applied_index() {
            return;
        }
        oracle.check_applied(self.id, &entry);
        let mut conf_state = self.conf_states.last().unwrap().1.clone();
        if entry.kind.is_conf_change() {
            let change = wire::decode_conf_change(&entry).expect("a change we encoded");
            if let Ok(changed) = raw.apply_conf_change(&change) {
                conf_state = changed;
                self.counts.changes += 1;
            }
        }
        self.conf_states.push((entry.index, conf_state));
        raw.advance_apply_to(entry.index);
        self.refresh_snapshot();
    }

    /// Drops the log up to `lag` entries before the applied one.
    pub(crate) fn compact(&mut self, lag: u64) {
        let Some(raw) = &mut self.raw else { return };
        let to = LogIndex(raw.applied_index().0.saturating_sub(lag));
        // What the durable image lacks must not be dropped from it.
        let to = to.min(self.durable.last_index()).min(self.durable.hard_state.commit);
        raw.storage_mut().compact(to);
        self.durable.compact(to);
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.writes.is_empty()
            || !self.to_apply.is_empty()
            || self.raw.as_ref().is_some_and(RawNode::has_ready)
    }
}

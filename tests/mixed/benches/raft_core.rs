//! CPU of the consensus core alone, beside raft-rs in the same run: three replicas on one thread, logs in memory, no disk and no
//! network. Per entry at several batch sizes, and one tick of an idle follower. `make bench-raft`.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use raft::{Config, LogIndex, MemStorage, NodeId, RawNode};
use raft_rs::storage::MemStorage as TheirStorage;

/// Bytes of a command, as in the cluster benchmark.
const ENTRY_BYTES: usize = 256;
/// Logs are cut when they hold this many entries, on both sides.
const LOG_ENTRIES_MAX: u64 = 8_192;

struct OurGroup {
    nodes: Vec<RawNode<MemStorage>>,
}

impl OurGroup {
    fn new() -> Self {
        let nodes = (1..=3).map(|id| {
            let config = Config {
                id: NodeId(id),
                seed: id,
                bootstrap_index: LogIndex(0),
                vote_cooldown_after_restart: false,
                ..Config::default()
            };
            RawNode::new(&config, MemStorage::with_voters(1..=3)).expect("valid")
        });
        let mut group = Self { nodes: nodes.collect() };
        group.nodes[0].campaign();
        group.settle();
        group
    }

    fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            for node in &mut self.nodes {
                while node.has_ready() {
                    let mut ready = node.ready();
                    sent.append(&mut ready.messages);
                    node.storage_mut().append(&ready.entries);
                    if let Some(hard_state) = ready.hard_state {
                        node.storage_mut().hard_state = hard_state;
                    }
                    sent.append(&mut ready.persisted_messages);
                    node.advance(ready);
                }
            }
            if sent.is_empty() {
                return;
            }
            for message in sent {
                let to = message.to.get() as usize - 1;
                self.nodes[to].step(message).expect("accepted");
            }
        }
    }

    fn replicate(&mut self, batch: u64, data: &Bytes) {
        for _ in 0..batch {
            self.nodes[0].propose(Bytes::new(), data.clone()).expect("leads");
        }
        self.settle();
        let applied = self.nodes[0].applied_index();
        if applied - self.nodes[0].storage().start.0 > LOG_ENTRIES_MAX {
            for node in &mut self.nodes {
                let applied = node.applied_index();
                node.storage_mut().compact(applied);
            }
        }
    }
}

struct TheirGroup {
    nodes: Vec<raft_rs::RawNode<TheirStorage>>,
}

impl TheirGroup {
    fn new() -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let nodes = (1..=3).map(|id| {
            let config = raft_rs::Config {
                id,
                election_tick: 10,
                heartbeat_tick: 2,
                pre_vote: true,
                check_quorum: true,
                max_size_per_msg: 1 << 20,
                max_inflight_msgs: 256,
                ..raft_rs::Config::default()
            };
            let storage = TheirStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
            raft_rs::RawNode::new(&config, storage, &logger).expect("valid")
        });
        let mut group = Self { nodes: nodes.collect() };
        group.nodes[0].campaign().expect("campaigns");
        group.settle();
        group
    }

    fn settle(&mut self) {
        loop {
            let mut sent = Vec::new();
            for node in &mut self.nodes {
                while node.has_ready() {
                    let mut ready = node.ready();
                    sent.extend(ready.take_messages());
                    node.store().wl().append(ready.entries()).expect("appends");
                    if let Some(hard_state) = ready.hs() {
                        node.store().wl().set_hardstate(hard_state.clone());
                    }
                    sent.extend(ready.take_persisted_messages());
                    let mut light = node.advance(ready);
                    if let Some(commit) = light.commit_index() {
                        node.store().wl().mut_hard_state().set_commit(commit);
                    }
                    sent.extend(light.take_messages());
                    node.advance_apply();
                }
            }
            if sent.is_empty() {
                return;
            }
            for message in sent {
                let to = message.to as usize - 1;
                self.nodes[to].step(message).expect("accepted");
            }
        }
    }

    fn replicate(&mut self, batch: u64, data: &[u8]) {
        for _ in 0..batch {
            self.nodes[0].propose(Vec::new(), data.to_vec()).expect("leads");
        }
        self.settle();
        let applied = self.nodes[0].raft.raft_log.applied;
        let first = raft_rs::Storage::first_index(self.nodes[0].store()).expect("a log");
        if applied - first > LOG_ENTRIES_MAX {
            for node in &mut self.nodes {
                let applied = node.raft.raft_log.applied;
                node.store().wl().compact(applied).expect("compacts");
            }
        }
    }
}

fn entries(c: &mut Criterion) {
    for batch in [1_u64, 16, 64, 256] {
        let mut group = c.benchmark_group(format!("entry/batch {batch}"));
        group.throughput(Throughput::Elements(batch));
        let data = Bytes::from(vec![7; ENTRY_BYTES]);
        let mut ours = OurGroup::new();
        group.bench_function("flotilla", |b| b.iter(|| ours.replicate(batch, &data)));
        let mut theirs = TheirGroup::new();
        group.bench_function("raft-rs", |b| b.iter(|| theirs.replicate(batch, &data)));
        group.finish();
    }
}

fn ticks(c: &mut Criterion) {
    let mut group = c.benchmark_group("heartbeat interval of a group");
    let mut ours = OurGroup::new();
    group.bench_function("flotilla", |b| {
        b.iter(|| {
            for _ in 0..2 {
                for node in &mut ours.nodes {
                    node.tick();
                }
            }
            ours.settle();
        });
    });
    let mut theirs = TheirGroup::new();
    group.bench_function("raft-rs", |b| {
        b.iter(|| {
            for _ in 0..2 {
                for node in &mut theirs.nodes {
                    node.tick();
                }
            }
            theirs.settle();
        });
    });
    group.finish();
}

criterion_group!(benches, entries, ticks);
criterion_main!(benches);

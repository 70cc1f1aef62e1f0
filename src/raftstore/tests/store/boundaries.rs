//! Random cuts, merges, crashes and partitions, with writes all the while: in the end the regions tile the keyspace, all
//! stores agree, and the data are what was acknowledged.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proto::ids::PeerId;
use raftstore::command::WriteResult;
use raftstore::{Order, StoreMsg};

use super::cluster::{Cluster, Slot, put};
use super::regions::cut;

#[derive(Clone, Copy, Debug)]
enum Step {
    Put { key: u8 },
    Cut { key: u8 },
    Merge { region: usize, into_left: bool },
    MoveLead { region: usize, to: u64 },
    Crash { store: u64 },
    Restart { store: u64 },
    Isolate { store: u64 },
    StallApply { store: u64 },
    StallLog { store: u64 },
    Heal,
    Pass { ticks: usize },
    Rounds { count: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let store = 1..=3u64;
    prop_oneof![
        8 => any::<u8>().prop_map(|key| Step::Put { key }),
        4 => any::<u8>().prop_map(|key| Step::Cut { key }),
        6 => (0..8usize, any::<bool>())
            .prop_map(|(region, into_left)| Step::Merge { region, into_left }),
        3 => (0..8usize, store.clone()).prop_map(|(region, to)| Step::MoveLead { region, to }),
        1 => store.clone().prop_map(|store| Step::Crash { store }),
        2 => store.clone().prop_map(|store| Step::Restart { store }),
        1 => store.clone().prop_map(|store| Step::Isolate { store }),
        1 => store.clone().prop_map(|store| Step::StallApply { store }),
        1 => store.prop_map(|store| Step::StallLog { store }),
        3 => Just(Step::Heal),
        6 => (1..30usize).prop_map(|ticks| Step::Pass { ticks }),
        4 => (1..8usize).prop_map(|count| Step::Rounds { count }),
    ]
}

/// What a key may hold: the last acknowledged value, or one that was sent after it and not refused.
type Model = BTreeMap<String, Vec<Option<String>>>;

struct Run {
    cluster: Cluster,
    model: Model,
    sent: Vec<(String, String, Slot<WriteResult>)>,
    values: u64,
}

impl Run {
    fn new() -> Run {
        let cluster = Cluster::led_by_with(1, |config| {
            config.merge_timeout_ticks = 40;
            config.log_gc_count_limit = 20;
            config.log_gc_ticks = 4;
        });
        Run { cluster, model: Model::new(), sent: Vec::new(), values: 0 }
    }

    /// Regions somebody leads, in key order.
    fn led(&self) -> Vec<(u64, u64)> {
        let mut led: Vec<_> = (1..=3)
            .filter(|store| !self.cluster.nodes[*store as usize - 1].down)
            .flat_map(|store| self.cluster.regions(store).into_iter().map(move |s| (store, s)))
            .filter(|(store, s)| self.cluster.leader_of(s.region.id) == Some(*store))
            .map(|(store, status)| (status.region.start_key.clone(), status.region.id, store))
            .collect();
        led.sort();
        led.into_iter().map(|(_, id, store)| (id, store)).collect()
    }

    fn pick(&self, number: usize) -> Option<(u64, u64)> {
        let led = self.led();
        (!led.is_empty()).then(|| led[number % led.len()])
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Put { key } => self.put(key),
            Step::Cut { key } => self.cut(key),
            Step::Merge { region, into_left } => self.merge(region, into_left),
            Step::MoveLead { region, to } => self.move_lead(region, to),
            Step::Crash { store } if !self.cluster.node(store).down => self.cluster.crash(store),
            Step::Restart { store } => self.restart(store),
            Step::Isolate { store } => self.cluster.isolate(store),
            Step::StallApply { store } => self.cluster.node(store).stall_apply = true,
            Step::StallLog { store } => self.cluster.node(store).stall_log = true,
            Step::Crash { .. } => {}
            Step::Heal => self.heal(),
            Step::Pass { ticks } => self.cluster.tick(ticks),
            Step::Rounds { count } => (0..count).for_each(|_| {
                self.cluster.round();
            }),
        }
        for store in 1..=3 {
            self.cluster.check_disjoint(store);
        }
    }

    fn put(&mut self, key: u8) {
        let key = format!("{:02x}", key);
        let Some(region) = self.cluster.try_region_with(&key) else { return };
        let Some(leader) = self.cluster.leader_of(region.id) else { return };
        self.values += 1;
        let value = format!("v{}", self.values);
        let header = self.cluster.header_of(region.id);
        let slot = self.cluster.write_with(leader, header, put(&key, &value));
        self.sent.push((key, value, slot));
        self.collect();
    }

    /// What has been answered goes into the model, in the order of sending.
    fn collect(&mut self) {
        for (key, value, slot) in &self.sent {
            let possible = self.model.entry(key.clone()).or_insert_with(|| vec![None]);
            match slot.take() {
                Some(Ok(_)) => {
                    // Whatever was sent before it was ordered before it, or lost.
                    let at = possible.iter().position(|v| v.as_ref() == Some(value));
                    match at {
                        Some(at) => drop(possible.drain(..at)),
                        None => *possible = vec![Some(value.clone())],
                    }
                }
                Some(Err(_)) | None => {
                    if !possible.contains(&Some(value.clone())) {
                        possible.push(Some(value.clone()));
                    }
                }
            }
        }
    }

    fn cut(&mut self, key: u8) {
        let key = format!("{:02x}", key);
        let Some(region) = self.cluster.try_region_with(&key) else { return };
        let Some(leader) = self.cluster.leader_of(region.id) else { return };
        let header = self.cluster.header_of(region.id);
        let order = Order::Split { keys: vec![cut(&key)] };
        drop(self.cluster.order(leader, header, order));
        self.cluster.round();
        for request in std::mem::take(&mut self.cluster.node(leader).seen.split_requests) {
            let ids = Ok(self.cluster.new_ids(&request));
            self.cluster.send(leader, StoreMsg::SplitIds { request, ids });
        }
    }

    fn merge(&mut self, region: usize, into_left: bool) {
        let led = self.led();
        if led.len() < 2 {
            return;
        }
        let at = region % led.len();
        let other = if into_left { at.checked_sub(1) } else { Some(at + 1) };
        let Some((target, holder)) = other.and_then(|other| led.get(other).copied()) else {
            return;
        };
        let (source, leader) = led[at];
        let target = self.cluster.region(holder, target).unwrap().region;
        let order = Order::Merge { target: proto::metapb::Region::clone(&target) };
        let header = self.cluster.header_of(source);
        drop(self.cluster.order(leader, header, order));
    }

    fn move_lead(&mut self, region: usize, to: u64) {
        let Some((id, leader)) = self.pick(region) else { return };
        let header = self.cluster.header_of(id);
        let status = self.cluster.region(leader, id).unwrap();
        let peer = status.region.peers.iter().find(|peer| peer.store_id == to).unwrap().id;
        let (_slot, reply) = Slot::new();
        let to = PeerId::from(peer);
        self.cluster.send(leader, StoreMsg::TransferLeader { header, to, reply });
    }

    fn restart(&mut self, store: u64) {
        if self.cluster.node(store).down {
            let node = self.cluster.node(store);
            (node.stall_apply, node.stall_log) = (false, false);
            self.cluster.restart(store);
        }
    }

    fn heal(&mut self) {
        self.cluster.cut.clear();
        for store in 1..=3 {
            self.restart(store);
            let node = self.cluster.node(store);
            (node.stall_apply, node.stall_log) = (false, false);
        }
        self.cluster.settle();
    }

    fn finish(mut self) -> (u64, u64) {
        self.heal();
        self.cluster.until("rest", |cluster| {
            (1..=3).all(|store| cluster.regions(store).iter().all(|status| !status.merging))
        });
        self.cluster.until_led();
        self.cluster.until_equal();
        // A sleeping region may have lost its leader meanwhile.
        self.cluster.until_led();
        self.cluster.check_tiled();
        self.collect();
        for (key, possible) in &self.model {
            let stored = self.cluster.stored(2, key);
            assert!(possible.contains(&stored), "{key} holds {stored:?}, not one of {possible:?}");
            for store in [1, 3] {
                assert_eq!(self.cluster.stored(store, key), stored, "{key} on store {store}");
            }
        }
        let counters = |store: u64| self.cluster.nodes[store as usize - 1].store.status().counters;
        let most = |of: fn(&raftstore::store::StoreCounters) -> u64| {
            (1..=3).map(|store| of(&counters(store))).max().unwrap_or_default()
        };
        (most(|c| c.splits), most(|c| c.merges))
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn cuts_and_merges_at_random_keep_everything(steps in vec(step(), 20..80)) {
        let mut run = Run::new();
        for step in steps {
            run.take(step);
        }
        run.finish();
    }
}

/// The random steps are worth something only if they cut and merge.
#[test]
fn the_steps_without_faults_cut_and_merge() {
    let mut run = Run::new();
    for key in [0x20, 0x40, 0x60, 0x80, 0xa0] {
        run.take(Step::Cut { key });
        run.take(Step::Pass { ticks: 5 });
        run.take(Step::Put { key });
    }
    for region in [1, 1, 2] {
        run.take(Step::Merge { region, into_left: true });
        run.take(Step::Pass { ticks: 10 });
    }
    let (splits, merges) = run.finish();
    assert_eq!((splits, merges), (5, 3));
}

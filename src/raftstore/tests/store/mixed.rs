//! Everything at once, at random but the same each time: peers come and go, regions are cut and merged, leads move, stores
//! crash, links break, appliers and disks stall, while somebody writes. Afterwards all faults end, and the cluster must come
//! to rest: every region is led, every peer is one that its region lists, every store holds its regions' data, and every
//! acknowledged write is there.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Cf, Engine};
use prost::Message as _;
use proto::flotillapb::{PeerState, RegionLocalState};
use proto::metapb::{self, PeerRole};
use raftstore::command::WriteResult;
use raftstore::keys::Key;
use raftstore::{Order, StoreMsg};

use super::cluster::{Cluster, Slot, put};
use super::members::{gone, learner, voter};
use super::regions::{contains, cut};

const STORES: u64 = 5;
const KEYS: [&str; 8] = ["a", "d", "g", "k", "n", "q", "t", "x"];

/// Small numbers, the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.roll(of.len() as u64) as usize])
    }
}

/// What the writer knows of a key: the last acknowledged value, and later ones whose fate it does not know.
#[derive(Default)]
struct Known {
    acknowledged: Option<String>,
    in_doubt: Vec<String>,
}

struct World {
    cluster: Cluster,
    dice: Dice,
    known: BTreeMap<&'static str, Known>,
    waiting: Vec<(&'static str, String, Slot<WriteResult>)>,
    /// Regions by what leaders report, as a scheduler sees them.
    regions: BTreeMap<u64, metapb::Region>,
    count: u64,
    /// Peers on each store, and those that were there and are gone.
    present: BTreeSet<(u64, u64, u64)>,
    gone: BTreeSet<(u64, u64, u64)>,
    /// Who led a region in a term.
    leads: BTreeMap<(u64, u64), u64>,
    /// The state of a region after an entry.
    states: BTreeMap<(u64, u64), u64>,
    did: Vec<String>,
}

fn age(region: &metapb::Region) -> (u64, u64) {
    let epoch = region.region_epoch.unwrap_or_default();
    (epoch.version, epoch.conf_ver)
}

impl World {
    fn new(seed: u64) -> World {
        let mut cluster = Cluster::of(STORES, &[1, 2, 3], |config| {
            config.stale_check_ticks = 30;
            config.region_heartbeat_ticks = 10;
            config.log_gc_count_limit = 5;
            config.log_gc_lag_factor = 2;
            config.log_gc_ticks = 2;
            config.merge_timeout_ticks = 60;
            config.seed = seed;
        });
        cluster.until_led();
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (known, regions) = Default::default();
        let (waiting, did) = Default::default();
        let (present, gone, leads, states) = Default::default();
        World {
            cluster,
            dice,
            known,
            waiting,
            regions,
            count: 0,
            present,
            gone,
            leads,
            states,
            did,
        }
    }

    fn note(&mut self, what: String) {
        self.did.push(format!("{:?}: {what}", self.cluster.now));
    }

    /// What the scheduler hears and answers.
    fn schedule(&mut self) {
        for store in self.cluster.stores() {
            let seen = std::mem::take(&mut self.cluster.node(store).seen);
            let reported = seen.heartbeats.iter().map(|report| &*report.region);
            for region in reported.chain(seen.split_reports.iter().flatten()) {
                let known = self.regions.entry(region.id).or_insert_with(|| region.clone());
                if age(region) > age(known) {
                    *known = region.clone();
                }
            }
            for request in seen.split_requests {
                let ids = self.cluster.new_ids(&request);
                self.cluster.send(store, StoreMsg::SplitIds { request, ids: Ok(ids) });
            }
            for question in seen.region_questions {
                let start = &question.region.start_key;
                let holds = |region: &&metapb::Region| {
                    region.start_key <= *start
                        && (region.end_key.is_empty() || *start < region.end_key)
                };
                let holder = self.regions.values().filter(holds).max_by_key(|region| age(region));
                if let Some(holder) = holder.cloned() {
                    let asked = question.region.id.into();
                    self.cluster.send(store, StoreMsg::RegionAnswer { asked, holder });
                }
            }
            assert_eq!(seen.poisoned, None, "store {store} has stopped");
        }
        self.check();
    }

    /// What must hold at any time: regions of a store have no keys in common, a region has one leader in a term, its state
    /// after an entry is the same everywhere, and a peer that is gone does not come back.
    fn check(&mut self) {
        for store in self.cluster.stores() {
            if self.cluster.node(store).down {
                continue;
            }
            self.cluster.check_disjoint(store);
            let regions = self.cluster.regions(store);
            for status in &regions {
                let (id, raft) = (status.region.id, &status.raft);
                if raft.role == raft::Role::Leader {
                    let first = *self.leads.entry((id, raft.term.0)).or_insert(store);
                    assert_eq!(first, store, "region {id}, term {}\n{}", raft.term, self.story());
                }
                let at = (id, status.applied_index.0);
                if !status.region.peers.is_empty() && !status.installing {
                    let first = *self.states.entry(at).or_insert(status.state_hash);
                    assert_eq!(first, status.state_hash, "{at:?}\n{}", self.story());
                }
            }
            let of_store = |(at, ..): &&(u64, u64, u64)| *at == store;
            let now: BTreeSet<_> =
                regions.iter().map(|s| (store, s.region.id, s.peer.id)).collect();
            let left: Vec<_> = self.present.iter().filter(of_store).copied().collect();
            for peer in left.into_iter().filter(|peer| !now.contains(peer)) {
                self.present.remove(&peer);
                self.gone.insert(peer);
            }
            let back: Vec<_> = now.intersection(&self.gone).collect();
            assert!(back.is_empty(), "came back: {back:?}\n{}", self.story());
            self.present.extend(now);
        }
    }

    /// What was not durable is as it was before: a peer whose tombstone was not is back, a peer whose record was not is gone.
    fn crash(&mut self, store: u64) {
        self.cluster.crash(store);
        self.note(format!("crash {store}"));
        self.present.retain(|(at, ..)| *at != store);
        let engine = self.cluster.node(store).engine.clone();
        self.gone.retain(|(at, region, peer)| {
            let key = Key::RegionState((*region).into()).encode();
            let stored = engine.get(Cf::Raft, &key).unwrap();
            let record = stored.map(|bytes| RegionLocalState::decode(bytes).unwrap());
            let buried = record.is_some_and(|record| {
                let last = record.peer.is_some_and(|last| last.id >= *peer);
                record.state() == PeerState::Tombstone && last
            });
            *at != store || buried
        });
    }

    fn collect(&mut self) {
        for (key, value, slot) in std::mem::take(&mut self.waiting) {
            match slot.take() {
                None => self.waiting.push((key, value, slot)),
                Some(Ok(_)) => {
                    let known = self.known.entry(key).or_default();
                    known.in_doubt.retain(|doubtful| *doubtful != value);
                    known.acknowledged = Some(value);
                }
                Some(Err(_)) => {}
            }
        }
    }

    fn led(&self) -> Vec<(u64, u64)> {
        let led = |id: &u64| self.cluster.leader_of(*id).map(|leader| (*id, leader));
        let mut ids: Vec<u64> = self.cluster.stores().flat_map(|s| self.ids_on(s)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.iter().filter_map(led).collect()
    }

    fn ids_on(&self, store: u64) -> Vec<u64> {
        let regions = self.cluster.regions(store);
        regions.iter().filter(|s| !s.region.peers.is_empty()).map(|s| s.region.id).collect()
    }

    fn step(&mut self) {
        match self.dice.roll(26) {
            0..=5 => self.write(),
            6..=10 => self.order_change(),
            11 => self.order_split(),
            12 => self.order_merge(),
            13 => self.transfer(),
            14 => {
                let (from, to) = (1 + self.dice.roll(STORES), 1 + self.dice.roll(STORES));
                self.cluster.cut.insert((from, to));
                self.note(format!("cut {from} {to}"));
            }
            15 => {
                let store = 1 + self.dice.roll(STORES);
                self.cluster.isolate(store);
                self.note(format!("isolate {store}"));
            }
            16..=18 => self.cluster.cut.clear(),
            19 => {
                let store = 1 + self.dice.roll(STORES);
                if !self.cluster.node(store).down {
                    self.crash(store);
                }
            }
            20 | 21 => {
                let store = 1 + self.dice.roll(STORES);
                if self.cluster.node(store).down {
                    self.cluster.restart(store);
                    self.note(format!("restart {store}"));
                }
            }
            22 => {
                let store = 1 + self.dice.roll(STORES);
                self.cluster.node(store).stall_apply ^= true;
                self.note(format!("stall applier of {store}"));
            }
            23 => {
                let store = 1 + self.dice.roll(STORES);
                self.cluster.node(store).stall_log ^= true;
                self.note(format!("stall log of {store}"));
            }
            _ => {
                for store in self.cluster.stores() {
                    let node = self.cluster.node(store);
                    (node.stall_apply, node.stall_log) = (false, false);
                }
            }
        }
        match self.dice.roll(3) {
            0 => {
                self.cluster.round();
            }
            _ => {
                let ticks = 1 + self.dice.roll(12) as usize;
                self.cluster.tick(ticks);
            }
        }
        self.collect();
        self.schedule();
    }

    fn write(&mut self) {
        let Some(key) = self.dice.pick(&KEYS) else { return };
        let led = self.led();
        let holds = |(id, leader): &&(u64, u64)| {
            self.cluster.region(*leader, *id).is_some_and(|s| contains(&s.region, key))
        };
        let Some((id, leader)) = led.iter().find(holds).copied() else { return };
        // One writer per key: a write in doubt may take effect later, and is forgotten once a newer one is acknowledged.
        if self.waiting.iter().any(|(waiting, ..)| *waiting == key) {
            return;
        }
        self.count += 1;
        let value = format!("v{}", self.count);
        let header = self.cluster.header_of(id);
        self.known.entry(key).or_default().in_doubt.push(value.clone());
        let slot = self.cluster.write_with(leader, header, put(key, &value));
        self.waiting.push((key, value, slot));
    }

    fn order(&mut self, id: u64, leader: u64, order: Order) {
        let header = self.cluster.header_of(id);
        let text = format!("region {id} on {leader}: {order:?}");
        let outcome = self.cluster.order(leader, header, order).take();
        self.note(format!("{text} -> {outcome:?}"));
    }

    fn order_change(&mut self) {
        let led = self.led();
        let Some((id, leader)) = self.dice.pick(&led) else { return };
        let region = self.cluster.region(leader, id).expect("led").region;
        let of = |role: PeerRole| -> Vec<metapb::Peer> {
            region.peers.iter().filter(|peer| peer.role() == role).copied().collect()
        };
        let (voters, learners) = (of(PeerRole::Voter), of(PeerRole::Learner));
        let free: Vec<u64> = (1..=STORES)
            .filter(|store| region.peers.iter().all(|peer| peer.store_id != *store))
            .collect();
        let (one, another) = (self.dice.pick(&voters), self.dice.pick(&learners));
        let changes = match (self.dice.roll(5), one, another) {
            (0, ..) | (_, None, _) => match self.dice.pick(&free) {
                Some(store) => {
                    self.cluster.last_id += 1;
                    vec![learner(self.cluster.last_id, store)]
                }
                None => return,
            },
            (1, _, Some(l)) => vec![voter(l.id, l.store_id)],
            (2, Some(v), Some(l)) => vec![voter(l.id, l.store_id), learner(v.id, v.store_id)],
            (3, _, Some(l)) if learners.len() > 1 || voters.len() > 2 => {
                vec![gone(l.id, l.store_id)]
            }
            (_, Some(v), _) if voters.len() > 1 => vec![gone(v.id, v.store_id)],
            _ => return,
        };
        self.order(id, leader, Order::ChangePeers(changes));
    }

    fn order_split(&mut self) {
        let led = self.led();
        let (Some((id, leader)), Some(key)) = (self.dice.pick(&led), self.dice.pick(&KEYS)) else {
            return;
        };
        if led.len() < 5 {
            self.order(id, leader, Order::Split { keys: vec![cut(key)] });
        }
    }

    fn order_merge(&mut self) {
        let led = self.led();
        let Some((id, leader)) = self.dice.pick(&led) else { return };
        let region = self.cluster.region(leader, id).expect("led").region;
        let beside = |other: &&metapb::Region| {
            (!other.end_key.is_empty() && other.end_key == region.start_key)
                || (!region.end_key.is_empty() && region.end_key == other.start_key)
        };
        if let Some(target) = self.regions.values().find(beside).cloned() {
            self.order(id, leader, Order::Merge { target });
        }
    }

    fn transfer(&mut self) {
        let led = self.led();
        let Some((id, leader)) = self.dice.pick(&led) else { return };
        let region = self.cluster.region(leader, id).expect("led").region;
        let Some(peer) = self.dice.pick(&region.peers) else { return };
        let header = self.cluster.header_of(id);
        let (_slot, reply) = Slot::new();
        let to = peer.id.into();
        self.cluster.send(leader, StoreMsg::TransferLeader { header, to, reply });
    }

    fn heal(&mut self) {
        self.cluster.cut.clear();
        for store in self.cluster.stores() {
            if self.cluster.node(store).down {
                self.cluster.restart(store);
            }
            let node = self.cluster.node(store);
            (node.stall_apply, node.stall_log) = (false, false);
        }
    }

    /// What is still wrong.
    fn unrest(&self) -> Option<String> {
        let mut living: Vec<_> =
            self.led().iter().filter_map(|(id, at)| self.cluster.region(*at, *id)).collect();
        living.sort_by(|a, b| a.region.start_key.cmp(&b.region.start_key));
        let mut at = bytes::Bytes::new();
        for status in &living {
            if status.region.start_key != at {
                return Some(format!("nobody leads what begins at {at:?}"));
            }
            at = status.region.end_key.clone();
            if status.merging {
                return Some(format!("region {} is merging", status.region.id));
            }
        }
        if living.is_empty() || !at.is_empty() {
            return Some(format!("nobody leads what begins at {at:?}, up to the end"));
        }
        for store in self.cluster.stores() {
            for here in self.cluster.regions(store) {
                let id = here.region.id;
                let Some(led) = living.iter().find(|led| led.region.id == id) else {
                    return Some(format!("store {store} has a peer of region {id}, which is gone"));
                };
                if !led.region.peers.iter().any(|peer| peer.id == here.peer.id) {
                    let peer = here.peer.id;
                    return Some(format!("store {store}: region {id} does not list peer {peer}"));
                }
                if (&here.region, here.applied_index, here.state_hash)
                    != (&led.region, led.applied_index, led.state_hash)
                {
                    return Some(format!("store {store} differs in region {id}"));
                }
            }
        }
        for led in &living {
            for peer in &led.region.peers {
                if self.cluster.region(peer.store_id, led.region.id).is_none() {
                    let (id, store) = (led.region.id, peer.store_id);
                    return Some(format!("region {id} has no peer on store {store}"));
                }
            }
        }
        None
    }

    fn come_to_rest(&mut self) {
        let mut reason = None;
        for _ in 0..400 {
            self.cluster.tick(5);
            self.collect();
            self.schedule();
            reason = self.unrest();
            if reason.is_none() {
                return;
            }
        }
        panic!("no rest: {}\n{}", reason.unwrap_or_default(), self.story());
    }

    fn story(&self) -> String {
        let mut story = self.did.join("\n");
        for store in self.cluster.stores() {
            for s in self.cluster.regions(store) {
                let raft = &s.raft;
                story += &format!(
                    "\nstore {store} region {} peer {} {:?} term {} leader {:?} last {} commit {} applied {} merging {:?} {:?}",
                    s.region.id,
                    s.peer.id,
                    raft.role,
                    raft.term,
                    raft.leader,
                    raft.last_index,
                    raft.commit,
                    s.applied_index,
                    s.merging,
                    s.region
                );
            }
        }
        story
    }

    fn check_data(&self) {
        for (key, known) in &self.known {
            let holder = self.cluster.region_with(key);
            for peer in &holder.peers {
                let found = self.cluster.stored(peer.store_id, key);
                let fits = found == known.acknowledged
                    || found.as_ref().is_some_and(|found| known.in_doubt.contains(found));
                assert!(
                    fits,
                    "{key} is {found:?} on store {}, not {:?}\n{}",
                    peer.store_id,
                    known.acknowledged,
                    self.story()
                );
            }
        }
    }
}

/// What has happened on all stores: splits, merges, changes of peers, peers created, peers destroyed, writes.
type Tally = [u64; 6];

fn run(seed: u64) -> Tally {
    let mut world = World::new(seed);
    for _ in 0..120 {
        world.step();
    }
    world.heal();
    world.come_to_rest();
    world.check_data();
    let mut tally = [0, 0, 0, 0, 0, world.count];
    for store in world.cluster.stores() {
        let counters = world.cluster.node(store).store.status().counters;
        let here = [
            counters.splits,
            counters.merges,
            counters.conf_changes,
            counters.peers_created,
            counters.peers_destroyed,
        ];
        tally.iter_mut().zip(here).for_each(|(sum, count)| *sum += count);
    }
    tally
}

#[test]
fn whatever_happens_the_cluster_comes_to_rest_and_keeps_what_it_acknowledged() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (first, count) = (number("FLOTILLA_SEED"), number("FLOTILLA_SEEDS"));
    let first = first.unwrap_or(1);
    let mut tally = Tally::default();
    for seed in first..first + count.unwrap_or(40) {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(sums) => tally.iter_mut().zip(sums).for_each(|(sum, count)| *sum += count),
            Err(panic) => {
                eprintln!("FLOTILLA_SEED={seed} FLOTILLA_SEEDS=1 repeats this");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("splits, merges, changes, created, destroyed, writes: {tally:?}");
    assert!(count.is_some() || tally.iter().all(|sum| *sum > 0), "nothing happened: {tally:?}");
}

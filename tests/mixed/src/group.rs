//! A group of members, the network between them, and what they must agree on.
//!
//! Everything comes from one seed: who loses which message, when links are cut, who restarts. Checked after every round:
//! *election safety* (one leader per term), *state machine safety* (whoever applied an index applied the same history up to it).

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::ours::Ours;
use crate::theirs::Theirs;
use crate::{Change, Packet, Peer};

/// The log position every founding member starts at.
pub const START: u64 = 5;

/// Which faults a run has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Messages lost, of 1000.
    pub loss: u32,
    /// Messages delivered twice, of 1000.
    pub duplication: u32,
    /// Rounds a message may be late; lateness differs, so messages overtake each other.
    pub delay_rounds: u32,
    /// Restarts of a random member, of 1000 rounds.
    pub restarts: u32,
    /// Changes of the set of cut-off members, of 1000 rounds.
    pub partitions: u32,
}

/// A group under test.
pub struct Group {
    members: BTreeMap<u64, Box<dyn Peer>>,
    rng: ChaCha8Rng,
    faults: Faults,
    flying: Vec<(u64, Packet)>,
    cut_off: BTreeSet<u64>,
    round: u64,
    leaders: BTreeMap<u64, u64>,
    history: BTreeMap<u64, u64>,
    checked: BTreeMap<u64, usize>,
    led: BTreeSet<&'static str>,
}

impl Group {
    /// A group whose members 1, 2, … are ours where `kinds` says `o` and raft-rs's where it says `t`.
    #[must_use]
    pub fn new(kinds: &str, seed: u64) -> Self {
        let voters: Vec<u64> = (1..=kinds.len() as u64).collect();
        let mut group = Self {
            members: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            faults: Faults::default(),
            flying: Vec::new(),
            cut_off: BTreeSet::new(),
            round: 0,
            leaders: BTreeMap::new(),
            history: BTreeMap::new(),
            checked: BTreeMap::new(),
            led: BTreeSet::new(),
        };
        for (id, kind) in (1..).zip(kinds.chars()) {
            group.add(id, kind, &voters);
        }
        group
    }

    /// A new, empty member; it takes part once a membership change adds it.
    pub fn add(&mut self, id: u64, kind: char, voters: &[u64]) {
        let member: Box<dyn Peer> = match kind {
            'o' => Box::new(Ours::new(id, voters, START)),
            _ => Box::new(Theirs::new(id, voters, START)),
        };
        self.members.insert(id, member);
    }

    /// Sets the faults from now on; none heals everything.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.cut_off.clear();
    }

    /// Cuts these members off from the others.
    pub fn cut(&mut self, ids: &[u64]) {
        self.cut_off = ids.iter().copied().collect();
    }

    /// Which implementations have led.
    #[must_use]
    pub fn led(&self) -> &BTreeSet<&'static str> {
        &self.led
    }

    /// The member that leads in the highest term.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        let leading = self.members.values().filter_map(|m| m.leads().map(|term| (term, m.id())));
        leading.max().map(|(_, id)| id)
    }

    /// A member.
    #[must_use]
    pub fn member(&mut self, id: u64) -> &mut Box<dyn Peer> {
        self.members.get_mut(&id).expect("the member exists")
    }

    /// Offers a command to whoever leads; whether it was taken.
    pub fn propose(&mut self, data: &[u8]) -> bool {
        self.leader().is_some_and(|id| self.member(id).propose(data))
    }

    /// Offers a membership change to whoever leads, until one takes it.
    ///
    /// # Panics
    /// When no leader takes it in a long time.
    pub fn change(&mut self, changes: &[Change]) {
        for _ in 0..2_000 {
            if self.leader().is_some_and(|id| self.member(id).propose_change(changes)) {
                return;
            }
            self.step();
        }
        panic!("nobody takes the change {changes:?}");
    }

    /// A number below `bound`.
    pub fn random(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound.max(1)
    }

    fn happens(&mut self, of_1000: u32) -> bool {
        self.random(1_000) < u64::from(of_1000)
    }

    /// One round: faults, a tick for everybody, deliveries, work, checks.
    pub fn step(&mut self) {
        self.round += 1;
        self.inject_faults();
        for member in self.members.values_mut() {
            member.tick();
        }
        self.drive();
        let (due, later) =
            std::mem::take(&mut self.flying).into_iter().partition(|f| f.0 <= self.round);
        self.flying = later;
        let due: Vec<(u64, Packet)> = due;
        for (_, packet) in due {
            self.deliver(&packet);
        }
        self.drive();
        self.check();
    }

    /// Several rounds.
    pub fn run(&mut self, rounds: u64) {
        for _ in 0..rounds {
            self.step();
        }
    }

    fn inject_faults(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        if self.happens(self.faults.restarts) {
            let id = ids[self.random(ids.len() as u64) as usize];
            self.member(id).restart();
            self.checked.insert(id, 0);
        }
        if self.happens(self.faults.partitions) {
            self.cut_off.clear();
            let minority = self.random((ids.len() as u64).div_ceil(2));
            for _ in 0..minority {
                let id = ids[self.random(ids.len() as u64) as usize];
                self.cut_off.insert(id);
            }
        }
    }

    fn drive(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        for id in ids {
            for packet in self.member(id).drive() {
                self.send(packet);
            }
        }
    }

    fn send(&mut self, packet: Packet) {
        let cut = self.cut_off.contains(&packet.from) != self.cut_off.contains(&packet.to);
        if cut || self.happens(self.faults.loss) {
            if packet.is_snapshot {
                self.member(packet.from).report_snapshot(packet.to, false);
            }
            return;
        }
        let delay = self.random(u64::from(self.faults.delay_rounds) + 1);
        if self.happens(self.faults.duplication) {
            let again = delay + self.random(20);
            self.flying.push((self.round + again, packet.clone()));
        }
        self.flying.push((self.round + delay, packet));
    }

    fn deliver(&mut self, packet: &Packet) {
        let Some(member) = self.members.get_mut(&packet.to) else { return };
        member.receive(&packet.bytes);
        if packet.is_snapshot {
            self.member(packet.from).report_snapshot(packet.to, true);
        }
    }

    fn check(&mut self) {
        for member in self.members.values() {
            if let Some(term) = member.leads() {
                self.led.insert(member.implementation());
                let first = *self.leaders.entry(term).or_insert(member.id());
                assert_eq!(first, member.id(), "two leaders in term {term}, round {}", self.round);
            }
            let seen = self.checked.entry(member.id()).or_default();
            let trail = &member.machine().trail;
            for (index, hash) in trail.get((*seen).min(trail.len())..).unwrap_or_default() {
                let known = *self.history.entry(*index).or_insert(*hash);
                let who = member.implementation();
                assert_eq!(known, *hash, "member {} ({who}) differs at index {index}", member.id());
            }
            // A snapshot replaces the trail by a shorter one: start again.
            *seen = if trail.len() < *seen { 0 } else { trail.len() };
        }
    }

    /// Heals everything and demands that the given members end up with one and the same history.
    ///
    /// # Panics
    /// When they do not within many election timeouts.
    pub fn converge(&mut self, ids: &[u64]) {
        self.set_faults(Faults::default());
        for attempt in 0..3_000_u64 {
            self.step();
            if attempt % 50 == 10 {
                self.propose(format!("converge {attempt}").as_bytes());
            }
            let states: BTreeSet<(u64, u64)> = ids
                .iter()
                .map(|id| {
                    let machine = self.members[id].machine();
                    (machine.applied, machine.hash)
                })
                .collect();
            if attempt > 100 && states.len() == 1 && self.leader().is_some() {
                return;
            }
        }
        let leader = self.leader();
        let states: Vec<_> = ids.iter().map(|id| (id, self.members[id].describe())).collect();
        panic!("no convergence after healing; leader {leader:?}; members {states:#?}");
    }
}

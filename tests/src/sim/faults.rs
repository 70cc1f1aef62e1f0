//! The nemesis: draws one fault after another and says when it ends.
//!
//! Faults come as values ([`Fault`]); the cluster applies them. Everything the nemesis breaks it also schedules to be
//! mended, and the end of the phase mends whatever is left.

use super::rng::Rng;
use super::time::Nanos;
use std::collections::BTreeMap;

/// What can go wrong beyond the noise of network and disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// One store, preferably a leader, is cut off in both directions.
    Isolate,
    /// The stores fall into two groups.
    Split,
    /// Messages pass in one direction only.
    OneWay,
    /// Only some random directed links work.
    Swiss,
    /// Links hold everything back for a while.
    Clog,
    /// One store loses power.
    Crash,
    /// A leader loses power shortly after it began to serve.
    CrashLeader,
    /// Most or all stores lose power at once.
    CrashMany,
    /// The process stops, its clock does not.
    Pause,
    /// A leader stops, its clock does not.
    PauseLeader,
    /// The process is killed, the machine stays up: nothing written is lost.
    Kill,
    /// Every sync of a store takes very long.
    SlowDisk,
    /// A sync fails.
    FailSync,
    /// A write fails.
    FailWrite,
    /// An operation on a snapshot file fails.
    FailFile,
    /// A store is told to hand its leads away, and ends.
    Drain,
    /// The lead of a region is handed over on purpose.
    Transfer,
    /// The followers lose the leader one after another, so that the first to miss it campaigns while the last has just heard
    /// it; some of the others are killed and back at once.
    Desert,
    /// The leader is not heard any more, and what it hears is old: answers to its last messages come very late.
    LateEcho,
    /// The leader is cut off just after it was told to hand over.
    TransferIsolate,
    /// The leader is cut off with what it is being asked; when its successor has settled, that one crashes and the old one
    /// comes back.
    Usurp,
    /// The leader's disk is slow and the leader is cut off; it is back, deposed, before what it wrote is durable.
    SlowLeader,
    /// The scheduler's leading node loses power.
    CrashNode,
    /// The scheduler's leading node stops, its clock does not.
    PauseNode,
    /// The scheduler's leading node is cut off, from the other nodes, from the stores, or from both.
    IsolateNode,
    /// The wall clock of the scheduler's leading node jumps.
    ClockJump,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [FaultKind; 26] = [
        FaultKind::Isolate,
        FaultKind::Split,
        FaultKind::OneWay,
        FaultKind::Swiss,
        FaultKind::Clog,
        FaultKind::Crash,
        FaultKind::CrashLeader,
        FaultKind::CrashMany,
        FaultKind::Pause,
        FaultKind::PauseLeader,
        FaultKind::Kill,
        FaultKind::SlowDisk,
        FaultKind::FailSync,
        FaultKind::FailWrite,
        FaultKind::FailFile,
        FaultKind::Drain,
        FaultKind::Transfer,
        FaultKind::Desert,
        FaultKind::LateEcho,
        FaultKind::TransferIsolate,
        FaultKind::Usurp,
        FaultKind::SlowLeader,
        FaultKind::CrashNode,
        FaultKind::PauseNode,
        FaultKind::IsolateNode,
        FaultKind::ClockJump,
    ];
}

/// What a crash leaves of the batches that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None of them.
    None,
    /// A random number of the oldest.
    Prefix,
    /// All: only the process died.
    All,
}

/// One thing to do to the cluster. Stores are numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Cut these directed links.
    Cut(Vec<(usize, usize)>),
    /// Take the cuts back.
    Mend(Vec<(usize, usize)>),
    /// Hold back these directed links for a span.
    Clog(Vec<(usize, usize)>, Nanos),
    /// End the process and lose what `Keep` says.
    Crash(usize, Keep),
    /// Start it again from what is left.
    Restart(usize),
    /// Stop the process.
    Pause(usize),
    /// Let it go on.
    Resume(usize),
    /// Make every sync of the store slow, or normal again.
    SlowDisk(usize, bool),
    /// Let the next sync of the store fail.
    FailSync(usize),
    /// Let the next write of the store fail.
    FailWrite(usize),
    /// Let the next operation on a snapshot file of the store fail.
    FailFile(usize),
    /// Tell the store to hand its leads away.
    Drain(usize),
    /// Ask the leader of the region to hand over to the peer on this store.
    Transfer(u64, usize),
    /// Crash whoever leads the region by then, and start it again after a span.
    CrashLeader(u64, Nanos),
    /// Set the wall clock of a node forward or back, in milliseconds.
    Jump(usize, i64),
}

impl Fault {
    /// Whether it breaks something, instead of mending it.
    pub fn is_harm(&self) -> bool {
        match self {
            Fault::Cut(_)
            | Fault::Clog(..)
            | Fault::Crash(..)
            | Fault::Pause(_)
            | Fault::SlowDisk(_, true)
            | Fault::FailSync(_)
            | Fault::FailWrite(_)
            | Fault::FailFile(_)
            | Fault::Drain(_)
            | Fault::Jump(..)
            | Fault::CrashLeader(..) => true,
            Fault::Mend(_)
            | Fault::Restart(_)
            | Fault::Resume(_)
            | Fault::SlowDisk(_, false)
            | Fault::Transfer(..) => false,
        }
    }
}

/// What the nemesis knows of the cluster.
#[derive(Clone, Debug)]
pub struct View {
    /// Number of stores.
    pub stores: usize,
    /// The living regions, each with the store that leads it, if one says so.
    pub leaders: Vec<(u64, Option<usize>)>,
    /// The election timeout.
    pub election: Nanos,
    /// The scheduler's nodes.
    pub nodes: std::ops::Range<usize>,
    /// Which of them leads.
    pub node_leader: Option<usize>,
}

impl View {
    /// A region that `store` leads, or any.
    fn led_by(&self, store: usize) -> u64 {
        let led = self.leaders.iter().find(|(_, leader)| *leader == Some(store));
        led.or(self.leaders.first()).map_or(0, |(region, _)| *region)
    }
}

/// How often each kind was injected.
pub type FaultCounts = BTreeMap<FaultKind, u64>;

/// Draws faults.
#[derive(Debug)]
pub struct Nemesis {
    kinds: Vec<FaultKind>,
    interval: Nanos,
    rng: Rng,
    /// What was drawn so far.
    pub counts: FaultCounts,
}

impl Nemesis {
    /// A nemesis that knows `kinds` and strikes every `interval` or so.
    pub fn new(kinds: Vec<FaultKind>, interval: Nanos, rng: Rng) -> Nemesis {
        Nemesis { kinds, interval, rng, counts: FaultCounts::new() }
    }

    /// No more strikes.
    pub fn stop(&mut self) {
        self.kinds.clear();
    }

    /// Whether anything may go wrong at present.
    pub fn is_active(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// Whether disks may fail.
    pub fn may_fail_syncs(&self) -> bool {
        self.kinds.contains(&FaultKind::FailSync)
    }

    /// How long until the next strike, or `None` when this nemesis never strikes.
    pub fn pause(&mut self) -> Option<Nanos> {
        (!self.kinds.is_empty()).then(|| self.rng.around(self.interval))
    }

    /// The next fault and its end: its kind, what to do, and how long from now.
    pub fn strike(&mut self, view: &View) -> Option<(FaultKind, Vec<(Nanos, Fault)>)> {
        if self.kinds.is_empty() {
            return None;
        }
        let kind = *self.rng.pick(&self.kinds);
        *self.counts.entry(kind).or_default() += 1;
        Some((kind, self.plan(kind, view)))
    }

    fn plan(&mut self, kind: FaultKind, view: &View) -> Vec<(Nanos, Fault)> {
        let span = self.draw_span(view);
        let store = self.rng.below(view.stores as u64) as usize;
        let leader = self.a_leader(view);
        match kind {
            FaultKind::Isolate => self.isolate(view, leader, span),
            FaultKind::Split => self.split(view, span),
            FaultKind::OneWay => self.one_way(view, leader, span),
            FaultKind::Swiss => self.swiss(view, span),
            FaultKind::Clog => self.clog(view, span),
            FaultKind::Crash => self.crash(store, span),
            FaultKind::CrashLeader => self.crash(leader, span),
            FaultKind::CrashMany => self.crash_many(view, span),
            FaultKind::Pause => pause(store, span),
            FaultKind::PauseLeader => pause(leader, span),
            FaultKind::Kill => vec![
                (Nanos::ZERO, Fault::Crash(store, Keep::All)),
                (Nanos(span.0 / 4), Fault::Restart(store)),
            ],
            FaultKind::SlowDisk => vec![
                (Nanos::ZERO, Fault::SlowDisk(store, true)),
                (span, Fault::SlowDisk(store, false)),
            ],
            FaultKind::FailSync => vec![(Nanos::ZERO, Fault::FailSync(store))],
            FaultKind::FailWrite => vec![(Nanos::ZERO, Fault::FailWrite(store))],
            FaultKind::FailFile => vec![(Nanos::ZERO, Fault::FailFile(store))],
            FaultKind::Drain => vec![
                (Nanos::ZERO, Fault::Drain(leader)),
                (span, Fault::Crash(leader, Keep::All)),
                (span.times(2), Fault::Restart(leader)),
            ],
            FaultKind::Transfer => {
                let region = self.rng.pick(&view.leaders).0;
                vec![(Nanos::ZERO, Fault::Transfer(region, store))]
            }
            FaultKind::Desert => self.desert(view, leader),
            FaultKind::LateEcho => self.late_echo(view, leader),
            FaultKind::TransferIsolate => self.transfer_isolate(view, leader, store),
            FaultKind::Usurp => self.usurp(view, leader),
            FaultKind::SlowLeader => self.slow_leader(view, leader),
            FaultKind::CrashNode => {
                let node = self.a_node(view);
                self.crash(node, span)
            }
            FaultKind::PauseNode => pause(self.a_node(view), span),
            FaultKind::IsolateNode => self.isolate_node(view, span),
            FaultKind::ClockJump => {
                let size = *self.rng.pick(&[50, 5_000, 3_600_000]);
                let jump = if self.rng.chance(500) { size } else { -size };
                vec![(Nanos::ZERO, Fault::Jump(self.a_node(view), jump))]
            }
        }
    }

    /// Around the length of an election, or much shorter, or several: the interesting scales.
    fn draw_span(&mut self, view: &View) -> Nanos {
        let election = view.election;
        match self.rng.below(4) {
            0 => self.rng.span(Nanos::millis(1), Nanos(election.0 / 2)),
            1 | 2 => self.rng.span(Nanos(election.0 / 2), election.times(3)),
            _ => self.rng.span(election, election.times(10)),
        }
    }

    /// Mostly a store that leads a region, otherwise any.
    fn a_leader(&mut self, view: &View) -> usize {
        let leaders: Vec<usize> = view.leaders.iter().filter_map(|(_, store)| *store).collect();
        if leaders.is_empty() || self.rng.chance(150) {
            return self.rng.below(view.stores as u64) as usize;
        }
        *self.rng.pick(&leaders)
    }

    fn isolate(&mut self, view: &View, store: usize, span: Nanos) -> Vec<(Nanos, Fault)> {
        let others = (0..view.stores).filter(|other| *other != store);
        cut(others.flat_map(|other| [(store, other), (other, store)]).collect(), span)
    }

    /// Mostly the scheduler's leading node.
    fn a_node(&mut self, view: &View) -> usize {
        let any = view.nodes.start + self.rng.below(view.nodes.len().max(1) as u64) as usize;
        view.node_leader.filter(|_| !self.rng.chance(150)).unwrap_or(any)
    }

    fn isolate_node(&mut self, view: &View, span: Nanos) -> Vec<(Nanos, Fault)> {
        let node = self.a_node(view);
        let others = match self.rng.below(3) {
            0 => view.nodes.clone(),
            1 => 0..view.nodes.start,
            _ => 0..view.nodes.end,
        };
        let others = others.filter(|other| *other != node);
        cut(others.flat_map(|other| [(node, other), (other, node)]).collect(), span)
    }

    fn split(&mut self, view: &View, span: Nanos) -> Vec<(Nanos, Fault)> {
        let colours: Vec<bool> = (0..view.stores).map(|_| self.rng.chance(500)).collect();
        cut(links(view).filter(|(from, to)| colours[*from] != colours[*to]).collect(), span)
    }

    fn one_way(&mut self, view: &View, store: usize, span: Nanos) -> Vec<(Nanos, Fault)> {
        let outward = self.rng.chance(500);
        let here =
            |(from, to): &(usize, usize)| if outward { *from == store } else { *to == store };
        cut(links(view).filter(here).collect(), span)
    }

    fn swiss(&mut self, view: &View, span: Nanos) -> Vec<(Nanos, Fault)> {
        cut(links(view).filter(|_| self.rng.chance(400)).collect(), span)
    }

    fn clog(&mut self, view: &View, span: Nanos) -> Vec<(Nanos, Fault)> {
        let clogged = links(view).filter(|_| self.rng.chance(400)).collect();
        vec![(Nanos::ZERO, Fault::Clog(clogged, span))]
    }

    fn keep(&mut self) -> Keep {
        if self.rng.chance(500) { Keep::None } else { Keep::Prefix }
    }

    fn crash(&mut self, store: usize, span: Nanos) -> Vec<(Nanos, Fault)> {
        vec![
            (Nanos::ZERO, Fault::Crash(store, self.keep())),
            (Nanos(span.0 / 2), Fault::Restart(store)),
        ]
    }

    fn crash_many(&mut self, view: &View, span: Nanos) -> Vec<(Nanos, Fault)> {
        let mut stores: Vec<usize> = (0..view.stores).collect();
        self.rng.shuffle(&mut stores);
        if self.rng.chance(500) {
            stores.truncate(view.stores / 2 + 1);
        }
        let mut plan = Vec::new();
        for store in stores {
            plan.push((Nanos::ZERO, Fault::Crash(store, self.keep())));
            // One by one, so that any of them may find itself alone.
            plan.push((self.rng.span(Nanos::ZERO, span), Fault::Restart(store)));
        }
        plan
    }
}

impl Nemesis {
    /// A span between two fractions of the election timeout, in tenths.
    fn elections(&mut self, view: &View, from_tenths: u64, to_tenths: u64) -> Nanos {
        let tenth = Nanos(view.election.0 / 10);
        self.rng.span(tenth.times(from_tenths), tenth.times(to_tenths))
    }

    fn desert(&mut self, view: &View, leader: usize) -> Vec<(Nanos, Fault)> {
        let mut others: Vec<usize> = (0..view.stores).filter(|other| *other != leader).collect();
        self.rng.shuffle(&mut others);
        let restart = self.rng.chance(500);
        let alone = self.elections(view, 7, 20);
        let end = alone + self.elections(view, 15, 40);
        let mut plan = Vec::new();
        for (at, other) in others.into_iter().enumerate() {
            let begin = if at == 0 { Nanos::ZERO } else { alone };
            let both = vec![(leader, other), (other, leader)];
            plan.push((begin, Fault::Cut(both.clone())));
            plan.push((end, Fault::Mend(both)));
            if restart && at > 0 {
                let back = alone + self.elections(view, 0, 2);
                plan.push((alone, Fault::Crash(other, Keep::Prefix)));
                plan.push((back, Fault::Restart(other)));
            }
        }
        plan
    }

    fn late_echo(&mut self, view: &View, leader: usize) -> Vec<(Nanos, Fault)> {
        let others: Vec<usize> = (0..view.stores).filter(|other| *other != leader).collect();
        let inward: Vec<_> = others.iter().map(|other| (*other, leader)).collect();
        let outward: Vec<_> = others.iter().map(|other| (leader, *other)).collect();
        let heartbeat = self.elections(view, 1, 5);
        let late = heartbeat + self.elections(view, 5, 15);
        let end = late + self.elections(view, 5, 20);
        vec![
            (Nanos::ZERO, Fault::Clog(inward, late)),
            (heartbeat, Fault::Cut(outward.clone())),
            (end, Fault::Mend(outward)),
        ]
    }

    fn transfer_isolate(&mut self, view: &View, leader: usize, to: usize) -> Vec<(Nanos, Fault)> {
        let region = view.led_by(leader);
        let others = (0..view.stores).filter(|other| *other != leader);
        let links: Vec<_> = others.flat_map(|other| [(leader, other), (other, leader)]).collect();
        let begin = self.rng.span(Nanos::micros(50), Nanos::millis(5));
        let end = begin + self.elections(view, 10, 30);
        vec![
            (Nanos::ZERO, Fault::Transfer(region, to)),
            (begin, Fault::Cut(links.clone())),
            (end, Fault::Mend(links)),
        ]
    }

    fn slow_leader(&mut self, view: &View, leader: usize) -> Vec<(Nanos, Fault)> {
        let others = (0..view.stores).filter(|other| *other != leader);
        let links: Vec<_> = others.flat_map(|other| [(leader, other), (other, leader)]).collect();
        let begin = self.elections(view, 0, 3);
        let back = begin + self.elections(view, 10, 25);
        let end = back + self.elections(view, 10, 30);
        vec![
            (Nanos::ZERO, Fault::SlowDisk(leader, true)),
            (begin, Fault::Cut(links.clone())),
            (back, Fault::Mend(links)),
            (end, Fault::SlowDisk(leader, false)),
        ]
    }

    fn usurp(&mut self, view: &View, leader: usize) -> Vec<(Nanos, Fault)> {
        let region = view.led_by(leader);
        let others = (0..view.stores).filter(|other| *other != leader);
        let links: Vec<_> = others.flat_map(|other| [(leader, other), (other, leader)]).collect();
        let settled = self.elections(view, 15, 35);
        let down = self.elections(view, 10, 40);
        vec![
            (Nanos::ZERO, Fault::Cut(links.clone())),
            (settled, Fault::CrashLeader(region, down)),
            (settled, Fault::Mend(links)),
        ]
    }
}

fn links(view: &View) -> impl Iterator<Item = (usize, usize)> + use<> {
    let stores = view.stores;
    let pairs = (0..stores).flat_map(move |from| (0..stores).map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to)
}

fn cut(links: Vec<(usize, usize)>, span: Nanos) -> Vec<(Nanos, Fault)> {
    vec![(Nanos::ZERO, Fault::Cut(links.clone())), (span, Fault::Mend(links))]
}

fn pause(store: usize, span: Nanos) -> Vec<(Nanos, Fault)> {
    vec![(Nanos::ZERO, Fault::Pause(store)), (span, Fault::Resume(store))]
}

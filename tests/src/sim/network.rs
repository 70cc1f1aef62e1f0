//! The network between stores: one directed link per ordered pair.
//!
//! A message may be lost, duplicated, delayed with a long tail and reordered; a link may be cut in one direction
//! or both, or clogged (everything waits until the clog ends). Cuts are counted, so overlapping partitions heal one by
//! one. What a message contains is none of the network's business.

use super::rng::Rng;
use super::time::Nanos;

/// How the network behaves on every link.
#[derive(Clone, Copy, Debug)]
pub struct NetworkKnobs {
    /// Messages lost, per mille.
    pub loss_per_mille: u64,
    /// Messages delivered twice, per mille.
    pub duplicate_per_mille: u64,
    /// Delay of a usual message, from.
    pub delay_min: Nanos,
    /// Delay of a usual message, to.
    pub delay_max: Nanos,
    /// Messages that take a long time, per mille.
    pub tail_per_mille: u64,
    /// The longest delay of those.
    pub tail_max: Nanos,
    /// Whether a message may overtake another of its link.
    pub reorder: bool,
}

impl NetworkKnobs {
    /// A healthy network: what remains after the faults.
    pub const CALM: NetworkKnobs = NetworkKnobs {
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        delay_min: Nanos::micros(100),
        delay_max: Nanos::millis(1),
        tail_per_mille: 0,
        tail_max: Nanos::ZERO,
        reorder: false,
    };
}

#[derive(Clone, Debug, Default)]
struct Link {
    cuts: u32,
    clogged_until: Nanos,
    last_delivery: Nanos,
}

/// What became of the messages, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Accepted and scheduled for delivery once.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Delivered a second time.
    pub duplicated: u64,
    /// Delayed by the long tail.
    pub delayed: u64,
    /// Held back by a clog.
    pub clogged: u64,
    /// Refused by a cut link.
    pub cut: u64,
}

/// The links among `stores` stores, numbered from 0.
#[derive(Debug)]
pub struct Network {
    stores: usize,
    links: Vec<Link>,
    knobs: NetworkKnobs,
    /// Links from and to these and later ones are always calm.
    calm_from: usize,
    rng: Rng,
    /// What happened so far.
    pub counts: NetworkCounts,
}

impl Network {
    /// Whole links everywhere.
    pub fn new(stores: usize, knobs: NetworkKnobs, rng: Rng) -> Network {
        let links = vec![Link::default(); stores * stores];
        let calm_from = usize::MAX;
        Network { stores, links, knobs, calm_from, rng, counts: NetworkCounts::default() }
    }

    /// Changes the behaviour of every link from now on.
    pub fn set_knobs(&mut self, knobs: NetworkKnobs) {
        self.knobs = knobs;
    }

    /// Lets the links of place `from` and those after it lose and delay nothing.
    pub fn calm_from(&mut self, from: usize) {
        self.calm_from = from;
    }

    fn knobs_of(&self, from: usize, to: usize) -> NetworkKnobs {
        if from.max(to) >= self.calm_from { NetworkKnobs::CALM } else { self.knobs }
    }

    /// The behaviour of every link.
    pub fn knobs(&self) -> NetworkKnobs {
        self.knobs
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.stores + to]
    }

    /// Cuts the link in this direction, once more.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.link(from, to).cuts += 1;
    }

    /// Takes one cut back.
    pub fn mend(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        link.cuts = link.cuts.saturating_sub(1);
    }

    /// Holds every message of the link back until `until`.
    pub fn clog(&mut self, from: usize, to: usize, until: Nanos) {
        let link = self.link(from, to);
        link.clogged_until = link.clogged_until.max(until);
    }

    /// Whole links and a calm network.
    pub fn heal(&mut self) {
        for link in &mut self.links {
            link.cuts = 0;
            link.clogged_until = Nanos::ZERO;
        }
        self.knobs = NetworkKnobs::CALM;
    }

    /// True when messages in this direction are refused.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from * self.stores + to].cuts > 0
    }

    /// When a message sent now arrives: never, once, or twice.
    pub fn deliveries(&mut self, now: Nanos, from: usize, to: usize) -> Vec<Nanos> {
        if self.is_cut(from, to) {
            self.counts.cut += 1;
            return Vec::new();
        }
        let knobs = self.knobs_of(from, to);
        if self.rng.chance(knobs.loss_per_mille) {
            self.counts.lost += 1;
            return Vec::new();
        }
        self.counts.sent += 1;
        let first = self.arrival(now, from, to);
        if self.rng.chance(knobs.duplicate_per_mille) {
            self.counts.duplicated += 1;
            return vec![first, self.arrival(now, from, to)];
        }
        vec![first]
    }

    fn arrival(&mut self, now: Nanos, from: usize, to: usize) -> Nanos {
        let knobs = self.knobs_of(from, to);
        let mut arrival = now + self.rng.span(knobs.delay_min, knobs.delay_max);
        if self.rng.chance(knobs.tail_per_mille) {
            self.counts.delayed += 1;
            arrival += self.rng.span(Nanos::ZERO, knobs.tail_max);
        }
        let link = &mut self.links[from * self.stores + to];
        if link.clogged_until > arrival {
            self.counts.clogged += 1;
            arrival = link.clogged_until;
        }
        if !knobs.reorder {
            arrival = arrival.max(link.last_delivery);
            link.last_delivery = arrival;
        }
        arrival
    }
}

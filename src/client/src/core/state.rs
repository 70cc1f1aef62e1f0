//! What all calls of a client share: regions, lanes, settings, the stores that did not answer lately.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::ids::{RegionId, StoreId};
use proto::metapb::{Peer, PeerRole, Region};

use super::backoff::{Backoff, Jitter};
use super::cache::RegionCache;
use super::lane::LanePool;
use super::time::Instant;

/// Times and limits of calls.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A call gives up after this.
    pub budget: Duration,
    /// An attempt that may be repeated gives up after this.
    pub attempt_timeout: Duration,
    /// The first wait between attempts.
    pub backoff_min: Duration,
    /// The longest wait between attempts.
    pub backoff_max: Duration,
    /// How long a store that did not answer is avoided where another may do.
    pub suspicion: Duration,
    /// Whether a retried write can be applied twice.
    pub write_mode: WriteMode,
}

/// What retries mean for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Writes go in a lane: retried as long as needed, applied once.
    ExactlyOnce,
    /// Writes go without a lane: never repeated once they may have been applied, so a lost answer is `Undetermined`.
    Plain,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            budget: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(4),
            backoff_max: Duration::from_millis(100),
            suspicion: Duration::from_millis(300),
            write_mode: WriteMode::ExactlyOnce,
        }
    }
}

/// What all calls of a client share.
#[derive(Debug)]
pub struct Core {
    /// Known regions.
    pub regions: RegionCache,
    /// The means of exactly-once writes.
    pub lanes: LanePool,
    /// Times and limits.
    pub settings: Settings,
    pub(super) suspects: Suspects,
    jitter: Jitter,
}

impl Core {
    /// An empty core; `seed` decides the jitter of the waits.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Core {
            regions: RegionCache::default(),
            lanes: LanePool::default(),
            settings,
            suspects: Suspects::default(),
            jitter: Jitter::new(seed),
        }
    }
}

impl Core {
    /// Takes over descriptions of regions, with their leaders as far as they are known; how many were news. Whoever takes
    /// keys over from another region knows the lanes that one knew.
    pub fn adopt(&mut self, regions: impl IntoIterator<Item = (Region, Option<Peer>)>) -> usize {
        let regions: Vec<_> = regions.into_iter().collect();
        // All of them before the first: the parts of a divided region come together, and one of them has its id.
        for (region, _) in &regions {
            for other in self.regions.predecessors(region) {
                self.lanes.inherit(other, RegionId::from(region.id));
            }
        }
        let adopted =
            regions.into_iter().filter_map(|(region, leader)| self.regions.adopt(region, leader));
        adopted.count()
    }

    /// The next wait of `backoff`, with the core's jitter.
    pub fn delay(&mut self, backoff: &mut Backoff) -> Duration {
        backoff.delay(&mut self.jitter)
    }
}

/// Stores that did not answer lately, and until when each is avoided.
#[derive(Debug, Default)]
pub(super) struct Suspects(BTreeMap<StoreId, Instant>);

impl Suspects {
    pub(super) fn holds(&self, peer: &Peer, now: Instant) -> bool {
        self.0.get(&StoreId::from(peer.store_id)).is_some_and(|until| now < *until)
    }

    /// Avoids the store until then.
    pub(super) fn add(&mut self, store: StoreId, until: Instant) {
        self.0.insert(store, until);
    }

    /// The store has answered.
    pub(super) fn remove(&mut self, store: StoreId) {
        self.0.remove(&store);
    }

    /// The believed leader, or else the voters in turn, those that answered lately first.
    pub(super) fn choose(
        &self,
        peers: &[Peer],
        leader: Option<Peer>,
        turn: usize,
        now: Instant,
    ) -> Peer {
        if let Some(leader) = leader
            && !self.holds(&leader, now)
        {
            return leader;
        }
        let is_candidate =
            |peer: &&Peer| peer.role != PeerRole::Learner as i32 && !self.holds(peer, now);
        match peers.iter().filter(is_candidate).count() {
            0 => peers[turn % peers.len()],
            n => *peers.iter().filter(is_candidate).nth(turn % n).expect("counted"),
        }
    }
}

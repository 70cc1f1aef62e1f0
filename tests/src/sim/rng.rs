//! The one source of chance. Everything random in a run descends from its seed, through streams that are named, so that a
//! new draw in one part does not shift the draws of another.

use super::time::Nanos;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// A named stream of draws.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

/// Who draws. The number is the stream of the generator, so it must not change or old seeds mean other runs.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// The knobs of the run.
    Knobs = 1,
    /// Loss, delay, duplication.
    Network = 2,
    /// When syncs end and what a crash leaves.
    Disk = 3,
    /// Which fault comes when.
    Faults = 4,
    /// What the clients do.
    Clients = 5,
    /// How long the threads of a store take.
    Process = 6,
    /// Seeds handed to the stores.
    Stores = 7,
    /// What is ordered of the cluster.
    Operations = 8,
}

impl Rng {
    /// The stream of this name under `seed`.
    pub fn new(seed: u64, stream: Stream) -> Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64);
        Rng(rng)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below 0");
        // The bias is bound / 2^64.
        self.0.next_u64() % bound
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A span from `low` to `high`, both included.
    pub fn span(&mut self, low: Nanos, high: Nanos) -> Nanos {
        Nanos(self.between(low.0, high.0))
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of `items`, which are not empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let place = self.below(items.len() as u64) as usize;
        &items[place]
    }

    /// A span around `mean` whose distribution has a long tail: geometric in steps of an eighth of the mean.
    pub fn around(&mut self, mean: Nanos) -> Nanos {
        let step = (mean.0 / 8).max(1);
        let mut span = self.below(step);
        for _ in 0..64 {
            if self.chance(125) {
                break;
            }
            span += step;
        }
        Nanos(span)
    }

    /// The items in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

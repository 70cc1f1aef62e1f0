//! Randomised safety: a group of nodes on a bad network and on disks that forget, checked after
//! every event.
//!
//! One seed draws the settings and then some thousand events: deliver, drop, duplicate and reorder
//! messages, tick, propose, change the membership, transfer, read, complete a write, apply,
//! compact, crash and restart with the loss of everything that was not synced. Checked: election
//! safety, log matching, leader completeness, state machine safety (thesis figure 3.2),
//! linearizable read indexes, no regress of hard state. Then everything is healed and the group
//! must converge.
//!
//! With the feature `planted` the same runs must notice every planted bug they can reach.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests speak up"
)]

mod cluster;
mod node;
mod oracle;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cluster::{Cluster, Coverage};

#[cfg(feature = "planted")]
mod planted;

const EVENTS: usize = 6_000;

fn run(seed: u64) -> Coverage {
    let mut cluster = Cluster::new(seed);
    for _ in 0..EVENTS {
        cluster.random_event();
    }
    cluster.heal();
    cluster.coverage()
}

fn run_all(seeds: std::ops::Range<u64>) -> Coverage {
    let mut all = Coverage::default();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(coverage) => {
                all.terms += coverage.terms;
                all.commits += coverage.commits;
                all.reads += coverage.reads;
                all.snapshots += coverage.snapshots;
                all.changes += coverage.changes;
                all.crashes += coverage.crashes;
            }
            Err(panic) => {
                eprintln!("safety: seed {seed} failed");
                resume_unwind(panic);
            }
        }
    }
    all
}

#[test]
fn random_schedules_are_safe() {
    let all = run_all(0..60);
    // A run that exercises nothing proves nothing.
    println!("{all:?}");
    assert!(all.terms > 300 && all.commits > 5_000 && all.reads > 1_000, "{all:?}");
    assert!(all.snapshots > 80 && all.changes > 300 && all.crashes > 300, "{all:?}");
}

/// Sixty other seeds, or as many as one likes: `SEEDS=from..to cargo test -p flotilla-raft --test safety`.
#[test]
fn more_random_schedules_are_safe() {
    let range = std::env::var("SEEDS").unwrap_or_else(|_| "1000..1060".to_owned());
    let (from, to) = range.split_once("..").expect("SEEDS=from..to");
    println!("{:?}", run_all(from.parse().unwrap()..to.parse().unwrap()));
}

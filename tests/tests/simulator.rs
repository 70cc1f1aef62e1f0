//! The simulator's promises about itself, and seeds that once failed.

use tests::sim::trace::Timeline;
use tests::sim::{run, run_with};

/// The same seed takes the same course, event by event.
#[test]
fn a_seed_runs_the_same_way_twice() {
    for seed in [1, 2, 3] {
        let (first, second) = (run(seed), run_with(seed, Timeline::last(50)));
        assert_eq!(first.hash, second.hash, "seed {seed}");
        assert_eq!(first.events, second.events, "seed {seed}");
    }
}

/// Other seeds take other courses.
#[test]
fn seeds_differ() {
    assert_ne!(run(4).hash, run(5).hash);
}

/// A few seeds in every test run; `make sim SEEDS=n` for more.
#[test]
fn some_seeds_pass() {
    for seed in 100..106 {
        let report = run(seed);
        assert_eq!(report.failure, None, "{report}");
    }
}

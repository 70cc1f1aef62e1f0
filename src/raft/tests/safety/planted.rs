//! The mutation score of these runs: with a defence switched off, some seed must fail.

use std::panic::catch_unwind;

use raft::planted::{Bug, activate};

use crate::run;

const SEEDS_MAX: u64 = 400;

fn seeds_needed(bug: Bug) -> Option<u64> {
    activate(Some(bug));
    let caught = (0..SEEDS_MAX).find(|seed| catch_unwind(|| run(*seed)).is_err());
    activate(None);
    caught.map(|seed| seed + 1)
}

#[test]
fn planted_bugs_are_noticed() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let scores: Vec<_> = Bug::ALL.iter().map(|bug| (*bug, seeds_needed(*bug))).collect();
    std::panic::set_hook(hook);
    for (bug, seeds) in &scores {
        println!("{bug:?}: {seeds:?}");
    }
}

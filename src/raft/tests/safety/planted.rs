//! The mutation score of these runs: with a defence switched off, some seed must fail. The bugs
//! that are not listed need schedules too special for chance; `testscripts/` has them.

use std::panic::catch_unwind;

use raft::planted::{Bug, activate};

use crate::run;

const SEEDS_MAX: u64 = 400;

const NOTICED: [Bug; 12] = [
    Bug::CommitPriorTerm,
    Bug::AppendWithoutPrevCheck,
    Bug::AckBeforePersist,
    Bug::HardStateNotSynced,
    Bug::CommitRegress,
    Bug::ReadIndexBeforeOwnTermCommit,
    Bug::AsyncAppendAba,
    Bug::NextBelowMatch,
    Bug::ApplyBeforePersist,
    Bug::LogCompareWrong,
    Bug::VoteTwice,
    Bug::HeartbeatCommitUnmatched,
];

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
    let scores: Vec<_> = NOTICED.iter().map(|bug| (*bug, seeds_needed(*bug))).collect();
    std::panic::set_hook(hook);
    println!("{scores:?}");
    assert!(scores.iter().all(|(_, seeds)| seeds.is_some()), "{scores:?}");
}

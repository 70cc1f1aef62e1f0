//! Proof that the simulator finds bugs: each planted bug reverses one line of a defence, and must be caught within a number
//! of seeds. A run that panics on an assertion of the stores themselves counts as caught: that is what they are for.

use super::run::run;

/// A bug of either crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// In the consensus core.
    Raft(raft::planted::Bug),
    /// In the store.
    Store(raftstore::planted::Bug),
    /// In the scheduler.
    Scheduler(scheduler::planted::Bug),
}

impl Bug {
    /// Every bug, apart from those that are [masked](Bug::masked).
    pub fn all() -> Vec<Bug> {
        let core = raft::planted::Bug::ALL.iter().copied().map(Bug::Raft);
        let store = raftstore::planted::Bug::ALL.iter().copied().map(Bug::Store);
        let scheduler = scheduler::planted::Bug::ALL.iter().copied().map(Bug::Scheduler);
        let all = core.chain(store).chain(scheduler);
        all.filter(|bug| bug.masked().is_none()).collect()
    }

    /// Why a bug changes nothing that can be seen in a whole cluster: the defence behind the one that is missing. Such
    /// bugs are shown by the tests of their own crates.
    pub fn masked(self) -> Option<&'static str> {
        use raft::planted::Bug as Core;
        use raftstore::planted::Bug as Store;
        match self {
            Bug::Raft(Core::ReadIndexBeforeOwnTermCommit) => Some(
                "reads need a delegate, which exists only once the leader's own entry is applied",
            ),
            Bug::Raft(Core::ManyPendingConfChanges) => Some(
                "every change names the epoch it was decided for, and the first one applied ends that epoch",
            ),
            Bug::Raft(Core::RemovedLeaderStays) => {
                Some("a leader refuses its own removal and hands the lead over first")
            }
            Bug::Raft(Core::TransferDoesNotBlockProposals) => {
                Some("the store itself proposes nothing while it hands the lead over")
            }
            Bug::Store(Store::ReadBeforeApplied) => Some(
                "a permit is given by a delegate, which exists only once everything before is applied",
            ),
            Bug::Raft(_) | Bug::Store(_) | Bug::Scheduler(_) => None,
        }
    }

    /// The bug with this name.
    pub fn named(name: &str) -> Option<Bug> {
        Bug::all().into_iter().find(|bug| bug.name() == name)
    }

    /// Its name in the table.
    pub fn name(self) -> String {
        match self {
            Bug::Raft(bug) => format!("{bug:?}"),
            Bug::Store(bug) => format!("{bug:?}"),
            Bug::Scheduler(bug) => format!("{bug:?}"),
        }
    }

    /// Lets every run of this thread have it.
    pub fn activate(self) {
        match self {
            Bug::Raft(bug) => raft::planted::activate(Some(bug)),
            Bug::Store(bug) => raftstore::planted::activate(Some(bug)),
            Bug::Scheduler(bug) => scheduler::planted::activate(Some(bug)),
        }
    }
}

/// How a bug was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// The seed that caught it.
    pub seed: u64,
    /// How many were tried.
    pub seeds: u64,
    /// What was seen.
    pub failure: String,
}

/// Runs seeds from `first` on with `bug` until one fails, at most `seeds_max`. A seed that fails without the bug too says
/// nothing about it.
pub fn hunt(bug: Bug, first: u64, seeds_max: u64) -> Option<Caught> {
    let caught = (first..first + seeds_max).find_map(|seed| {
        bug.activate();
        let failure = run(seed).failure;
        deactivate();
        let failure = failure.filter(|_| run(seed).failure.is_none())?;
        Some(Caught { seed, seeds: seed - first + 1, failure })
    });
    deactivate();
    caught
}

fn deactivate() {
    raft::planted::activate(None);
    raftstore::planted::activate(None);
    scheduler::planted::activate(None);
}

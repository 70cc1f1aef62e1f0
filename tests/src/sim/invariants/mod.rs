//! The promises of the fault model, one file each, checked while the simulator runs.
//!
//! | file                  | invariant                                                   | source                          |
//! |-----------------------|-------------------------------------------------------------|---------------------------------|
//! | [`one_leader`]        | I1: at most one leader per region and term                  | Raft thesis fig. 3.2, §3.4      |
//! | [`log_matching`]      | I2: same index and term, same entry and same log before it  | fig. 3.2, §3.5                  |
//! | [`leader_complete`]   | I3: committed entries are in the log of every later leader  | fig. 3.2, §3.6                  |
//! | [`commit_rule`]       | I3: a leader counts replicas for entries of its own term    | §3.6.2                          |
//! | [`state_machine`]     | I4: same index, same entry and same state on every peer     | fig. 3.2, §3.6.3                |
//! | [`durable`]           | I5: committed means durable on a majority                   | §3.5, §3.8                      |
//! | [`hard_state`]        | I6: term, vote and commit index never go back               | §3.8                            |
//! | [`promises`]          | I6: term, vote and acknowledged entries survive restarts    | §3.4, §3.8                      |
//! | [`structure`]         | a node's indexes are in order                               | §3.5                            |
//! | [`fresh_reads`]       | I7, I8: reads see what was acknowledged; one lease holder   | §6.4                            |
//! | [`exactly_once`]      | I8, I10, I11: data and range are what the applied entries say | §5.1, §6.3                    |
//! | [`unique`]            | I13: ids and timestamps are given once, timestamps grow     | hazards S1, S2, S3              |
//! | [`disks`]             | I8, I9: no overlap, no resurrection, nothing left behind    | hazards M1, M3, M6, M7          |
//!
//! I5 (acknowledged writes survive) and I7 (linearizable reads) are judged from the clients' history by
//! [`crate::checkers`]; I14 (liveness) by the second phase of a run.
//!
//! Everything here watches from outside: messages that leave a store, entries it hands to its applier, what it reports as
//! applied, what is on its disk.

pub mod commit_rule;
pub mod disks;
pub mod durable;
pub mod exactly_once;
pub mod fresh_reads;
pub mod hard_state;
pub mod leader_complete;
pub mod log_matching;
pub mod one_leader;
pub mod promises;
pub mod state_machine;
pub mod structure;
pub mod unique;

use proto::eraftpb;
use proto::raft_serverpb::RaftMessage;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which: the number of the invariant.
    pub invariant: &'static str,
    /// How.
    pub what: String,
}

impl Broken {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Broken {
        Broken { invariant, what: what.into() }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// A Raft message in the form the watchers need.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// The region.
    pub region: u64,
    /// The sending store.
    pub store: usize,
    /// The Raft message.
    pub message: &'a eraftpb::Message,
}

impl<'a> Sent<'a> {
    /// The watchers' view of `message`, sent by `store`; `None` when it carries no Raft message.
    pub fn of(store: usize, message: &'a RaftMessage) -> Option<Sent<'a>> {
        let inner = message.message.as_ref()?;
        Some(Sent { region: message.region_id, store, message: inner })
    }

    /// Its type.
    pub fn kind(&self) -> eraftpb::MessageType {
        self.message.msg_type()
    }
}

/// All watchers of a run.
#[derive(Debug, Default)]
pub struct Invariants {
    /// I1.
    pub one_leader: one_leader::OneLeader,
    /// I3.
    pub leader_complete: leader_complete::LeaderComplete,
    /// I4.
    pub state_machine: state_machine::StateMachine,
    /// I3, how commit indexes come about.
    pub commit_rule: commit_rule::CommitRule,
    /// I6, on disk.
    pub hard_states: hard_state::HardStates,
    /// I6, in words.
    pub promises: promises::Promises,
    /// I7, I8.
    pub fresh_reads: fresh_reads::FreshReads,
    /// I8, I9.
    pub disks: disks::Disks,
    /// I13.
    pub unique: unique::Unique,
}

impl Invariants {
    /// A message leaves a store.
    pub fn sent(&mut self, store: usize, message: &RaftMessage) -> Result<(), Broken> {
        let Some(sent) = Sent::of(store, message) else { return Ok(()) };
        self.one_leader.sent(sent)?;
        self.leader_complete.sent(sent)
    }
}

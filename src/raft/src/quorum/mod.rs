//! Majorities, as pure arithmetic: what is committed and who has won, given the members' answers.
//!
//! Vocabulary: a *majority* is one set of voters; a *joint* membership needs the agreement of two
//! of them (Raft thesis §4.3). An empty majority agrees with everything, so that a joint membership
//! outside a change is just its incoming half. Tests: `quorum/tests.rs`, against a brute-force
//! definition.

mod joint;
mod majority;
#[cfg(test)]
mod tests;

pub use joint::JointMajority;
pub use majority::Majority;

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// Not enough answers yet.
    Pending,
    /// No set of further answers can win it.
    Lost,
    /// A majority has granted.
    Won,
}

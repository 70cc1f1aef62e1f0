//! The tests that need more than one crate: the deterministic simulator ([`sim`]), the judges of histories ([`checkers`]),
//! and, in `tests/`, the stages of the course and the tests of the real processes.

pub mod checkers;
pub mod sim;

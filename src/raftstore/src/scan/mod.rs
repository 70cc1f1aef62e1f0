//! Reading a whole region off the loop: how large it is, where it can be cut, and whether its peers agree about it.
//!
//! Pure functions over a frozen engine: production calls them on a thread of their own ([`crate::worker`]), the simulator
//! as an event. Nothing here changes anything, and no answer has to be believed by anybody: sizes are estimates by the time
//! they arrive, cuts are checked again when they are proposed and applied.
//!
//! # Vocabulary
//! A *boundary* may be a region's start or end: a valid memcomparable encoding ([`boundary`]). A *cut* is a boundary inside
//! of a region, chosen by [`measure()`]. The *data hash* covers what is stored now ([`data_hash`]), unlike the state hash,
//! which covers how it came to be.
//!
//! Tests: `scan/tests.rs`.

mod boundary;
mod cuts;
mod hash;
mod measure;
#[cfg(test)]
mod tests;

pub use boundary::{boundary_between, is_valid_cut};
pub use cuts::SPLIT_PARTS_MAX;
pub use hash::data_hash;
pub(crate) use measure::cut_of_sample;
pub use measure::measure;

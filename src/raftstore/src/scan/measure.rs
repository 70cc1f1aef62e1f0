//! How large a region is, and where it would be cut.

use bytes::Bytes;
use engine::{Iter, Snapshot};

use super::boundary::is_valid_cut;
use super::cuts::Cuts;
use crate::keys;
use crate::msg::{SplitCheck, SplitChecked};
use crate::planted::{Bug, planted};

/// Reads all of a region in `engine`.
pub fn measure(check: SplitCheck, engine: &dyn Snapshot) -> engine::Result<SplitChecked> {
    let mut cuts = Cuts::default();
    // The families are read side by side, because a cut goes through all of them.
    let ranges = keys::data_ranges(&check.region).into_iter();
    let mut open: Vec<Box<dyn Iter + '_>> = Vec::new();
    for (cf, range) in ranges {
        let mut iter = engine.iter(cf, range);
        if iter.seek_to_first()? {
            open.push(iter);
        }
    }
    while let Some(at) = least(&open) {
        let iter = &mut open[at];
        let key = keys::raw_user_key(iter.key());
        cuts.see(key, (key.len() + iter.value().len()) as u64);
        if !iter.next()? {
            open.swap_remove(at);
        }
    }
    let total = cuts.total();
    let mut split_keys = cuts.choose(check.part_bytes, check.part_keys);
    split_keys.retain(|key| is_valid_cut(&check.region, key));
    if planted(Bug::SplitAtInvalidBoundary) {
        split_keys = split_keys.iter().map(|key| key.slice(..key.len() - 1)).collect();
    }
    Ok(SplitChecked { check, bytes: total.bytes, keys: total.keys, split_keys })
}

/// Which iterator stands on the first key.
fn least(open: &[Box<dyn Iter + '_>]) -> Option<usize> {
    (0..open.len()).min_by_key(|at| keys::raw_user_key(open[*at].key()))
}

/// A cut that about halves requests for the given keys; `None` if there is no boundary in the middle half of them.
pub(crate) fn cut_of_sample(mut sample: Vec<Bytes>) -> Option<Bytes> {
    sample.sort_unstable();
    let count = sample.len();
    let mut places: Vec<usize> = (count / 4..=count - count / 4).collect();
    places.sort_by_key(|at| at.abs_diff(count / 2));
    let boundary = |at: usize| {
        let (previous, next) = (sample.get(at.checked_sub(1)?)?, sample.get(at)?);
        super::boundary_between(previous, next)
    };
    places.into_iter().find_map(boundary)
}

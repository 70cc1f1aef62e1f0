//! I13: ids are given once; a timestamp is larger than every one that was known before it was asked for, and given once.

use super::Broken;
use raftstore::msg::NewRegion;
use std::collections::{BTreeMap, BTreeSet};

/// Ids and timestamps given so far.
#[derive(Debug, Default)]
pub struct Unique {
    ids: BTreeSet<u64>,
    twice: Option<u64>,
    /// The last of each batch, and how many it has.
    batches: BTreeMap<u64, u32>,
    known: u64,
}

impl Unique {
    /// Ids are given for a split.
    pub fn ids(&mut self, regions: &[NewRegion]) {
        for region in regions {
            let peers = region.peers.iter().map(|peer| peer.get());
            for id in std::iter::once(region.region.get()).chain(peers) {
                self.id(id);
            }
        }
    }

    /// An id is given.
    pub fn id(&mut self, id: u64) {
        if !self.ids.insert(id) {
            self.twice.get_or_insert(id);
        }
    }

    /// The largest timestamp that anybody knows: one asked for now must be larger.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// Somebody who asked when `known` was known has got `count` timestamps, the last of which is this one.
    pub fn timestamps(&mut self, known: u64, last: u64, count: u32) -> Result<(), Broken> {
        let first = last.saturating_sub(u64::from(count) - 1);
        let fail = |what: String| Err(Broken::new("I13 timestamps grow", what));
        if first <= known {
            return fail(format!("{first} was given after {known}"));
        }
        let before = self.batches.range(..=last).next_back();
        let after = self.batches.range(last..).next();
        let clash = before.is_some_and(|(other, _)| *other >= first)
            || after.is_some_and(|(other, n)| other - (u64::from(*n) - 1) <= last);
        if clash {
            return fail(format!("some of {first}..={last} were given twice"));
        }
        self.batches.insert(last, count);
        self.known = self.known.max(last);
        Ok(())
    }

    /// Whether every id was given once.
    pub fn check_ids(&self) -> Result<(), Broken> {
        match self.twice {
            None => Ok(()),
            Some(id) => Err(Broken::new("I13 ids are unique", format!("{id} was given twice"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_that_falls_back_or_comes_twice_is_caught() {
        let mut unique = Unique::default();
        assert_eq!(unique.timestamps(0, 10, 5), Ok(()));
        assert_eq!(unique.known(), 10);
        assert!(unique.timestamps(10, 10, 1).is_err(), "fell back");
        assert_eq!(unique.timestamps(0, 5, 2), Ok(()), "asked for before 10 was known");
        assert!(unique.timestamps(0, 6, 1).is_err(), "given before");
        assert!(unique.timestamps(0, 12, 4).is_err(), "overlap");
        assert_eq!(unique.timestamps(10, 20, 3), Ok(()));
    }

    #[test]
    fn an_id_given_twice_is_caught() {
        let mut unique = Unique::default();
        let new = |id: u64| NewRegion { region: id.into(), peers: vec![(id + 1).into()] };
        unique.ids(&[new(10), new(20)]);
        assert_eq!(unique.check_ids(), Ok(()));
        unique.ids(&[new(21)]);
        assert!(unique.check_ids().is_err());
    }
}

//! I7 and I8 by position (Raft thesis §6.4): a read is served by a store that has applied everything acknowledged before the
//! read was asked for; and no store holds a lease while another one leads a later term and serves.
//!
//! The histories of clients say the same, if a client happens to write what another then fails to see. Here the position
//! itself is compared, so that one stale read is one violation.

use super::Broken;
use std::collections::BTreeMap;

/// How far leaders have applied, and thereby perhaps acknowledged, each region.
#[derive(Debug, Default)]
pub struct FreshReads {
    acknowledged: BTreeMap<u64, u64>,
}

impl FreshReads {
    /// A leader has applied, and from now on acknowledges, up to `index`.
    pub fn acknowledged(&mut self, region: u64, index: u64) {
        let last = self.acknowledged.entry(region).or_default();
        *last = index.max(*last);
    }

    /// What a read asked for now must see.
    pub fn position(&self, region: u64) -> u64 {
        self.acknowledged.get(&region).copied().unwrap_or_default()
    }

    /// A store that has applied up to `applied` serves a read that must see `position`.
    pub fn served(
        store: usize,
        region: u64,
        applied: u64,
        position: u64,
        by: &str,
    ) -> Result<(), Broken> {
        if applied >= position {
            return Ok(());
        }
        let what = format!(
            "store {} serves a read of region {region} by {by} at {applied}; {position} was \
             acknowledged before",
            store + 1
        );
        Err(Broken::new("I7 stale read", what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_behind_an_acknowledged_position_is_caught() {
        let mut watcher = FreshReads::default();
        watcher.acknowledged(1, 9);
        watcher.acknowledged(1, 8);
        let position = watcher.position(1);
        assert_eq!(FreshReads::served(0, 1, 9, position, "lease"), Ok(()));
        assert!(FreshReads::served(0, 1, 8, position, "lease").is_err());
    }
}

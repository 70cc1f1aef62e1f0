//! A hash of what a region holds: data and sessions, as stored.
//!
//! Equal on all peers that have applied the same entries. It is compared between peers, never stored: its form may change
//! from version to version as long as a cluster runs one of them.

use crc32fast::Hasher;
use engine::{Cf, KeyRange, Snapshot};
use proto::ids::RegionId;
use proto::metapb;

use crate::keys;

/// The hash of `region`'s data and sessions in `engine`.
pub fn data_hash(region: &metapb::Region, engine: &dyn Snapshot) -> engine::Result<u64> {
    let mut hash = DataHash::default();
    for (cf, range) in keys::data_ranges(region) {
        hash.add_range(engine, cf, range)?;
    }
    hash.add_range(engine, Cf::Raft, keys::session_range(RegionId::from(region.id)))?;
    Ok(hash.finish())
}

/// Two checksums over the same bytes, the second over their lengths too, make up 64 bits.
#[derive(Debug, Default)]
struct DataHash {
    content: Hasher,
    shape: Hasher,
    pairs: u64,
}

impl DataHash {
    fn add_range(&mut self, engine: &dyn Snapshot, cf: Cf, range: KeyRange) -> engine::Result<()> {
        let mut iter = engine.iter(cf, range);
        let mut more = iter.seek_to_first()?;
        while more {
            self.add(iter.key(), iter.value());
            more = iter.next()?;
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.content.update(key);
        self.content.update(value);
        // Where a key ends and its value begins, and in which order pairs stand.
        self.shape.update(&(key.len() as u64).to_be_bytes());
        self.shape.update(&(value.len() as u64).to_be_bytes());
        self.shape.update(&crc32fast::hash(value).to_be_bytes());
        self.pairs += 1;
    }

    fn finish(self) -> u64 {
        let pairs = self.pairs;
        let halves = (self.content.finalize(), self.shape.finalize());
        (u64::from(halves.0) << 32 | u64::from(halves.1)) ^ pairs
    }
}

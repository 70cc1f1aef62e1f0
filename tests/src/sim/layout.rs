//! The regions of a simulated cluster and the keys its clients use. Regions do not move here.

use super::record::KeyKind;
use bytes::Bytes;
use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb;

/// Where one region ends and the next begins; each region's keys start with a letter of its own.
const BORDERS: [&[u8]; 2] = [b"g", b"p"];
const LETTERS: [char; 3] = ['a', 'h', 'q'];

/// Regions and keys.
#[derive(Clone, Debug)]
pub struct Layout {
    /// In key order, covering every key.
    pub regions: Vec<metapb::Region>,
    /// Every key a client may use, ascending.
    pub keys: Vec<Bytes>,
}

/// The store numbered `place`.
pub fn store_id(place: usize) -> StoreId {
    StoreId::from(place as u64 + 1)
}

/// The number of a store.
pub fn store_place(id: u64) -> usize {
    id.saturating_sub(1) as usize
}

impl Layout {
    /// `regions` regions with a peer on each of `stores` stores, and `keys` keys of each kind in each region. Peer ids differ
    /// from store ids, so that mixing them up shows.
    pub fn new(stores: usize, regions: usize, keys: u64) -> Layout {
        let regions = regions.clamp(1, LETTERS.len());
        let border = |at: usize| {
            let inner = at > 0 && at < regions;
            if inner { encoded(BORDERS[at - 1]) } else { Bytes::new() }
        };
        let made = (0..regions).map(|at| {
            let id = 2 * (at as u64 + 1);
            let peer = |store: usize| 100 * id + store as u64 + 11;
            region(id, (border(at), border(at + 1)), stores, peer)
        });
        let mut names: Vec<Bytes> = Vec::new();
        for letter in &LETTERS[..regions] {
            for kind in [KeyKind::Plain, KeyKind::Deletable, KeyKind::Appended] {
                let name = |n| Bytes::from(format!("{letter}{}{n}", kind.letter()));
                names.extend((0..keys).map(name));
            }
        }
        names.sort();
        Layout { regions: made.collect(), keys: names }
    }

    /// One region over everything, whose peer ids are the store ids: the cluster of the course.
    pub fn single(stores: usize) -> Layout {
        let region = region(1, (Bytes::new(), Bytes::new()), stores, |store| store as u64 + 1);
        Layout { regions: vec![region], keys: Vec::new() }
    }

    /// The place of the region that holds `key`.
    pub fn region_of(&self, key: &[u8]) -> usize {
        let after = self.regions.partition_point(|region| &region.start_key[..] <= key);
        after.saturating_sub(1)
    }

    /// The place of the region with this id.
    pub fn place_of(&self, id: RegionId) -> Option<usize> {
        self.regions.iter().position(|region| region.id == id.get())
    }

    /// The peer of a region on a store.
    pub fn peer(&self, region: usize, store: usize) -> PeerId {
        let id = store_id(store).get();
        let peer = self.regions[region].peers.iter().find(|peer| peer.store_id == id);
        PeerId::from(peer.map_or(0, |peer| peer.id))
    }

    /// The keys of one kind in one region.
    pub fn keys_of(&self, region: usize, kind: KeyKind) -> Vec<Bytes> {
        let here = |key: &&Bytes| self.region_of(key) == region && KeyKind::of(key) == kind;
        self.keys.iter().filter(here).cloned().collect()
    }
}

/// A border must be a valid memcomparable encoding.
fn encoded(key: &[u8]) -> Bytes {
    proto::codec::encode(key)
}

fn region(
    id: u64,
    (start_key, end_key): (Bytes, Bytes),
    stores: usize,
    peer: impl Fn(usize) -> u64,
) -> metapb::Region {
    let peers = (0..stores).map(|store| metapb::Peer {
        id: peer(store),
        store_id: store_id(store).get(),
        ..Default::default()
    });
    metapb::Region {
        id,
        start_key,
        end_key,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: peers.collect(),
    }
}

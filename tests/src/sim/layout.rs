//! The first regions of a simulated cluster and the keys its clients use. Regions split, merge and move from there on.

use super::record::KeyKind;
use bytes::Bytes;
use proto::ids::StoreId;
use proto::metapb;

/// Where one region may end and the next begin; the keys of each group start with a letter of its own.
const BORDERS: [&[u8]; 3] = [b"g", b"p", b"t"];
const LETTERS: [char; 4] = ['a', 'h', 'q', 'u'];

/// Groups of keys, at most.
pub const GROUPS_MAX: usize = LETTERS.len();

/// First regions and keys.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The first regions in key order, covering every key.
    pub regions: Vec<metapb::Region>,
    /// Every key a client may use, ascending.
    pub keys: Vec<Bytes>,
    /// Number of groups of keys.
    pub groups: usize,
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
    /// `regions` regions with a peer on each of `replicas` of `stores` stores, and `keys` keys of each kind in each of
    /// `groups` groups. Peer ids differ from store ids, so that mixing them up shows.
    pub fn new(
        (stores, replicas): (usize, usize),
        (regions, groups): (usize, usize),
        keys: u64,
    ) -> Layout {
        let regions = regions.clamp(1, LETTERS.len());
        let groups = groups.clamp(regions, LETTERS.len());
        let border = |at: usize| {
            let inner = at > 0 && at < regions;
            if inner { encoded(BORDERS[at - 1]) } else { Bytes::new() }
        };
        let made = (0..regions).map(|at| {
            let id = 2 * (at as u64 + 1);
            let peer = |store: usize| 100 * id + store as u64 + 11;
            let homes = (0..replicas).map(|n| (at + n) % stores);
            region(id, (border(at), border(at + 1)), homes, peer)
        });
        let mut names: Vec<Bytes> = Vec::new();
        for letter in &LETTERS[..groups] {
            for kind in [KeyKind::Plain, KeyKind::Deletable, KeyKind::Appended] {
                let name = |n| Bytes::from(format!("{letter}{}{n}", kind.letter()));
                names.extend((0..keys).map(name));
            }
        }
        names.sort();
        Layout { regions: made.collect(), keys: names, groups }
    }

    /// One region over everything, whose peer ids are the store ids: the cluster of the course.
    pub fn single(stores: usize) -> Layout {
        let homes = 0..stores;
        let region = region(2, (Bytes::new(), Bytes::new()), homes, |store| store as u64 + 1);
        Layout { regions: vec![region], keys: Vec::new(), groups: 0 }
    }

    /// The keys of one kind in one group.
    pub fn keys_of(&self, group: usize, kind: KeyKind) -> Vec<Bytes> {
        let letter = LETTERS[group] as u8;
        let here = |key: &&Bytes| key.first() == Some(&letter) && KeyKind::of(key) == kind;
        self.keys.iter().filter(here).cloned().collect()
    }

    /// Places between keys, where a region may be cut: valid boundaries, ascending.
    pub fn cuts(&self) -> Vec<Bytes> {
        let between = self.keys.iter().map(|key| encoded(key));
        let mut cuts: Vec<Bytes> = BORDERS.iter().map(|key| encoded(key)).chain(between).collect();
        cuts.sort();
        cuts
    }
}

/// A border must be a valid memcomparable encoding.
fn encoded(key: &[u8]) -> Bytes {
    proto::codec::encode(key)
}

fn region(
    id: u64,
    (start_key, end_key): (Bytes, Bytes),
    homes: impl Iterator<Item = usize>,
    peer: impl Fn(usize) -> u64,
) -> metapb::Region {
    let peers = homes.map(|store| metapb::Peer {
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

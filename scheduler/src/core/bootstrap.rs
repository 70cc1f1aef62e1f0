//! The first regions of a cluster.
//!
//! Two regions tile the key space: `["", S)` and `[S, "")`, where `S` is the memcomparable encoding of
//! sixteen `ff` bytes, above every practical key. So the region that holds the data has an end: a
//! published raw client that scans up to the last region would otherwise wrap around to the first key.
//!
//! The plan is made once, when the configured number of stores has registered, and becomes durable in
//! the same change as the last of those registrations. Every store then creates the same initial state
//! for the regions it is in (epoch (1, 1)); no snapshot is needed.

use std::ops::Range;

use bytes::Bytes;
use proto::flotillapb::InitialPlan;
use proto::ids::StoreId;
use proto::{codec, metapb};

/// Regions of the first plan.
const REGIONS: u64 = 2;

/// The boundary between the two first regions.
pub fn sentinel() -> Bytes {
    codec::encode(&[0xff; 16])
}

/// How many ids a plan with this many replicas takes.
pub(super) fn ids_wanted(replicas: u32) -> u64 {
    REGIONS * (1 + u64::from(replicas))
}

/// Places the first regions. `stores` are at least `replicas` many and in the order of their ids; `ids`
/// are `ids_wanted(replicas)` fresh ones.
pub(super) fn plan(stores: &[StoreId], replicas: u32, ids: Range<u64>) -> InitialPlan {
    assert!(replicas > 0 && stores.len() >= replicas as usize, "enough stores for a plan");
    assert_eq!(ids.end - ids.start, ids_wanted(replicas), "one id per region and peer");
    let mut ids = ids;
    let mut take = || ids.next().expect("counted above");
    let ranges = [(Bytes::new(), sentinel()), (sentinel(), Bytes::new())];
    let regions = ranges.into_iter().enumerate().map(|(at, (start_key, end_key))| {
        let id = take();
        // The second region begins at the second store, so that with more stores than replicas its
        // peers are elsewhere.
        let homes = stores.iter().cycle().skip(at).take(replicas as usize);
        let peers = homes.map(|store| metapb::Peer {
            id: take(),
            store_id: store.get(),
            ..Default::default()
        });
        metapb::Region {
            id,
            start_key,
            end_key,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
            peers: peers.collect(),
        }
    });
    InitialPlan { regions: regions.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stores(count: u64) -> Vec<StoreId> {
        (1..=count).map(StoreId::new).collect()
    }

    #[test]
    fn the_first_regions_tile_the_key_space_at_encoded_boundaries() {
        let plan = plan(&stores(3), 3, 100..108);
        let [low, high] = &plan.regions[..] else { panic!("{plan:?}") };
        assert_eq!((&low.start_key[..], &high.end_key[..]), (&b""[..], &b""[..]));
        assert_eq!(low.end_key, high.start_key);
        assert_eq!(codec::decode(&low.end_key).unwrap(), vec![0xff; 16]);
        for region in &plan.regions {
            assert_eq!(region.region_epoch, Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }));
            let mut homes: Vec<_> = region.peers.iter().map(|peer| peer.store_id).collect();
            homes.sort();
            assert_eq!(homes, [1, 2, 3]);
        }
        let ids = plan.regions.iter().flat_map(|region| {
            std::iter::once(region.id).chain(region.peers.iter().map(|peer| peer.id))
        });
        assert_eq!(ids.collect::<Vec<_>>(), (100..108).collect::<Vec<_>>());
    }

    #[test]
    fn with_more_stores_than_replicas_no_store_holds_two_peers_of_a_region() {
        let plan = plan(&stores(5), 3, 1..9);
        let homes = |at: usize| -> Vec<u64> {
            plan.regions[at].peers.iter().map(|peer| peer.store_id).collect()
        };
        assert_eq!((homes(0), homes(1)), (vec![1, 2, 3], vec![2, 3, 4]));
    }
}

//! The cache against hand-made cases and against random histories of splits, delivered in any order.

use proptest::prelude::*;

use super::*;

fn peer(id: u64) -> Peer {
    Peer { id, store_id: id, ..Peer::default() }
}

fn region(id: u64, start: &str, end: &str, version: u64) -> Region {
    Region {
        id,
        start_key: Bytes::copy_from_slice(start.as_bytes()),
        end_key: Bytes::copy_from_slice(end.as_bytes()),
        region_epoch: Some(RegionEpoch { conf_ver: 1, version }),
        peers: vec![peer(1), peer(2), peer(3)],
    }
}

fn id_of(route: Option<&mut Route>) -> Option<u64> {
    route.map(|route| route.region.id)
}

#[test]
fn keys_find_their_region_in_both_directions() {
    let mut cache = RegionCache::default();
    assert!(cache.insert(region(1, "", "m", 1), None));
    assert!(cache.insert(region(2, "m", "", 1), None));
    assert_eq!(id_of(cache.locate(b"")), Some(1));
    assert_eq!(id_of(cache.locate(b"lzz")), Some(1));
    assert_eq!(id_of(cache.locate(b"m")), Some(2));
    assert_eq!(id_of(cache.locate_before(b"m")), Some(1));
    assert_eq!(id_of(cache.locate_before(b"m\0")), Some(2));
    assert_eq!(id_of(cache.locate_before(b"")), Some(2));
}

#[test]
fn holes_are_not_papered_over() {
    let mut cache = RegionCache::default();
    cache.insert(region(1, "b", "d", 1), None);
    assert_eq!(id_of(cache.locate(b"a")), None);
    assert_eq!(id_of(cache.locate(b"d")), None);
    assert_eq!(id_of(cache.locate_before(b"e")), None);
    assert_eq!(id_of(cache.locate_before(b"d")), Some(1));
    assert_eq!(id_of(cache.locate_before(b"")), None);
}

#[test]
fn a_split_heals_the_cache_and_an_old_description_does_not_undo_it() {
    let mut cache = RegionCache::default();
    cache.insert(region(1, "", "", 1), Some(peer(2)));
    assert!(cache.insert(region(2, "", "m", 2), None));
    assert_eq!(id_of(cache.locate(b"z")), None, "the other half is not known yet");
    assert!(cache.insert(region(1, "m", "", 2), None));
    assert!(!cache.insert(region(1, "", "", 1), None), "older than both halves");
    assert_eq!(id_of(cache.locate(b"a")), Some(2));
    assert_eq!(id_of(cache.locate(b"z")), Some(1));
}

#[test]
fn the_leader_survives_a_description_without_one_and_must_be_a_peer() {
    let mut cache = RegionCache::default();
    cache.insert(region(1, "", "", 1), Some(peer(2)));
    cache.insert(region(1, "", "", 2), None);
    assert_eq!(cache.get_mut(RegionId::from(1)).unwrap().leader, Some(peer(2)));
    assert!(!cache.set_leader(RegionId::from(1), peer(9)), "not a peer");
    assert!(cache.set_leader(RegionId::from(1), peer(3)));
    cache.unset_leader(RegionId::from(1), StoreId::from(2));
    assert_eq!(cache.get_mut(RegionId::from(1)).unwrap().leader, Some(peer(3)));
    cache.unset_leader(RegionId::from(1), StoreId::from(3));
    assert_eq!(cache.get_mut(RegionId::from(1)).unwrap().leader, None);
}

#[test]
fn descriptions_that_make_no_sense_are_refused() {
    let mut cache = RegionCache::default();
    assert!(!cache.insert(Region { region_epoch: None, ..region(1, "", "", 1) }, None));
    assert!(!cache.insert(Region { peers: vec![], ..region(1, "", "", 1) }, None));
    assert!(!cache.insert(region(0, "", "", 1), None));
    assert!(!cache.insert(region(1, "m", "a", 1), None));
    assert_eq!(cache.iter().count(), 0);
}

#[test]
fn doubt_asks_once_per_interval() {
    let mut cache = RegionCache::default();
    cache.insert(region(1, "", "", 1), None);
    let at = |ms: u64| Instant(ms * 1_000_000);
    let ask = |cache: &mut RegionCache, ms| cache.locate(b"k").unwrap().wants_refresh(at(ms));
    assert!(!ask(&mut cache, 0), "nothing is doubtful");
    cache.doubt(RegionId::from(1));
    assert!(ask(&mut cache, 10));
    assert!(!ask(&mut cache, 20), "somebody is asking already");
    assert!(ask(&mut cache, 100));
    cache.insert(region(1, "", "", 1), None);
    assert!(!ask(&mut cache, 1_000), "confirmed");
}

/// Every description a growing key space ever had, in the order in which they became true.
fn history(splits: &[u8]) -> (Vec<Region>, Vec<Region>) {
    let mut current = vec![region(1, "", "", 1)];
    let mut all = current.clone();
    for (n, byte) in splits.iter().enumerate() {
        let key = Bytes::copy_from_slice(&[*byte]);
        let inside = |r: &Region| r.start_key < key && (r.end_key.is_empty() || key < r.end_key);
        let Some(at) = current.iter().position(inside) else { continue };
        let version = current[at].region_epoch.unwrap().version + 1;
        let epoch = Some(RegionEpoch { conf_ver: 1, version });
        let mut left = current[at].clone();
        left.id = n as u64 + 2;
        left.end_key = key.clone();
        left.region_epoch = epoch;
        current[at].start_key = key;
        current[at].region_epoch = epoch;
        all.extend([left.clone(), current[at].clone()]);
        current.insert(at, left);
    }
    (all, current)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_of_delivery_ends_in_the_newest_regions(
        splits in proptest::collection::vec(1u8.., 0..12),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let (all, current) = history(&splits);
        let mut cache = RegionCache::default();
        for pick in picks {
            cache.insert(pick.get(&all).clone(), None);
            let routes: Vec<&Route> = cache.iter().collect();
            for pair in routes.windows(2) {
                let end = &pair[0].region.end_key;
                prop_assert!(!end.is_empty() && *end <= pair[1].region.start_key, "overlap");
            }
            prop_assert_eq!(cache.by_id.len(), cache.by_start.len());
        }
        for region in &current {
            prop_assert!(cache.insert(region.clone(), None), "the newest was refused");
        }
        let known: Vec<Region> = cache.iter().map(|route| route.region.clone()).collect();
        prop_assert_eq!(known, current);
    }
}

//! Random ranges, limits and page sizes over random regions against a sorted map.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::metapb::{Peer, Region, RegionEpoch};

use super::*;

fn cache_of(boundaries: &[u8]) -> RegionCache {
    let mut keys: Vec<Bytes> =
        boundaries.iter().map(|byte| Bytes::copy_from_slice(&[*byte])).collect();
    keys.sort();
    keys.dedup();
    let starts = std::iter::once(Bytes::new()).chain(keys.iter().cloned());
    let ends = keys.iter().cloned().chain(std::iter::once(Bytes::new()));
    let mut cache = RegionCache::default();
    for (id, (start_key, end_key)) in starts.zip(ends).enumerate() {
        let region = Region {
            id: id as u64 + 1,
            start_key,
            end_key,
            region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
            peers: vec![Peer { id: 1, store_id: 1, ..Peer::default() }],
        };
        assert!(cache.insert(region, None));
    }
    cache
}

/// What a store does with an answer that would be too large.
#[derive(Clone, Copy)]
enum Large {
    /// Cuts it, after one pair at least.
    Cut,
    /// Refuses it.
    Refuse,
}

/// A store's answer: at most `limit` pairs and `bytes_max` bytes.
fn answer(
    data: &BTreeMap<Bytes, Bytes>,
    page: &Page,
    bytes_max: usize,
    large: Large,
) -> Option<Vec<Pair>> {
    let inside = |key: &Bytes| *key >= page.start && (page.end.is_empty() || *key < page.end);
    let mut pairs: Vec<Pair> = data
        .iter()
        .filter(|(key, _)| inside(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if page.reverse {
        pairs.reverse();
    }
    pairs.truncate(page.limit as usize);
    let mut bytes = 0;
    let fitting = pairs.iter().take_while(|(key, value)| {
        bytes += key.len() + value.len();
        bytes <= bytes_max
    });
    let fitting = fitting.count();
    match large {
        Large::Refuse if fitting < pairs.len() => return None,
        Large::Refuse => {}
        Large::Cut => pairs.truncate(fitting.max(1)),
    }
    Some(pairs)
}

fn run(
    scan: &mut Scan,
    cache: &mut RegionCache,
    data: &BTreeMap<Bytes, Bytes>,
    (bytes_max, large): (usize, Large),
) -> Vec<Pair> {
    let mut all = Vec::new();
    for _ in 0..10_000 {
        let page = match scan.next(cache) {
            Next::Finished => return all,
            Next::Missing(which) => panic!("every region is known, yet {which:?} is missing"),
            Next::Page(page) => page,
        };
        let Some(pairs) = answer(data, &page, bytes_max, large) else {
            assert!(scan.shrink(&page), "one pair fits");
            continue;
        };
        scan.on_page(&page, &pairs);
        all.extend(pairs);
    }
    panic!("the scan does not end");
}

fn key() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(prop_oneof![0u8..4, 250u8..], 0..3).prop_map(Bytes::from)
}

proptest! {
    #[test]
    fn a_scan_sees_what_the_map_holds(
        boundaries in proptest::collection::vec(prop_oneof![1u8..4, 250u8..], 0..5),
        keys in proptest::collection::btree_set(key(), 0..40),
        start in key(),
        end in key(),
        limit in proptest::option::of(0u64..50),
        page_pairs in 1u32..6,
        reverse: bool,
        bytes_max in 1usize..20,
    ) {
        let data: BTreeMap<Bytes, Bytes> =
            keys.into_iter().filter(|key| !key.is_empty()).map(|key| (key.clone(), key)).collect();
        let mut scan = Scan::new(start.clone(), end.clone(), limit).reverse(reverse);
        scan.page_pairs = page_pairs;
        let limits = (bytes_max, Large::Cut);
        let seen = run(&mut scan, &mut cache_of(&boundaries), &data, limits);
        let whole = Page { start, end, limit: u32::MAX, reverse, keys_only: false };
        let mut expected = answer(&data, &whole, usize::MAX, Large::Refuse).unwrap();
        expected.truncate(limit.unwrap_or(u64::MAX) as usize);
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn pages_that_are_too_large_shrink_and_lose_nothing() {
    let value = Bytes::from(vec![7; 300 << 10]);
    let data: BTreeMap<Bytes, Bytes> =
        (0..40u8).map(|n| (Bytes::copy_from_slice(&[n + 1]), value.clone())).collect();
    for reverse in [false, true] {
        let mut scan = Scan::new(Bytes::new(), Bytes::new(), None).reverse(reverse);
        let limits = (1 << 20, Large::Refuse);
        let seen = run(&mut scan, &mut cache_of(&[20]), &data, limits);
        assert_eq!(seen.len(), data.len());
        assert!(scan.page_pairs <= 3, "pages shrink to what the values allow");
    }
}

#[test]
fn a_prefix_is_a_range() {
    let range = |prefix: &'static [u8]| prefix_range(Bytes::from_static(prefix));
    assert_eq!(range(b"ab"), (Bytes::from("ab"), Bytes::from("ac")));
    assert_eq!(range(b"a\xff\xff").1, Bytes::from("b"));
    assert_eq!(range(b"\xff"), (Bytes::from_static(b"\xff"), Bytes::new()));
    assert_eq!(range(b""), (Bytes::new(), Bytes::new()));
}

//! Scenarios of the region tree: staleness, changes that must be seen, splits and merges in every
//! order, and a key space that is never torn.

use bytes::Bytes;
use proto::codec;

use super::*;

fn key(text: &str) -> Bytes {
    if text.is_empty() { Bytes::new() } else { codec::encode(text.as_bytes()) }
}

fn region(id: u64, start: &str, end: &str, conf_ver: u64, version: u64) -> RegionInfo {
    let peers = (1..=3).map(|store_id| metapb::Peer {
        id: id * 10 + store_id,
        store_id,
        ..Default::default()
    });
    let peers: Vec<_> = peers.collect();
    RegionInfo {
        leader: Some(peers[0]),
        meta: metapb::Region {
            id,
            start_key: key(start),
            end_key: key(end),
            region_epoch: Some(metapb::RegionEpoch { conf_ver, version }),
            peers,
        },
        ..Default::default()
    }
}

/// Three regions of three peers at epoch (2, 2).
fn fixture() -> RegionTree {
    let mut tree = RegionTree::default();
    for region in [region(1, "", "b", 2, 2), region(2, "b", "m", 2, 2), region(3, "m", "", 2, 2)] {
        assert!(tree.report(region, 0).unwrap().meta_changed);
    }
    tree
}

fn ids(found: Vec<&RegionInfo>) -> Vec<u64> {
    found.into_iter().map(|info| info.meta.id).collect()
}

/// Every key has a region, and a scan shows the key space without gap or overlap.
fn assert_tiled(tree: &RegionTree) {
    let mut at = Bytes::new();
    let all = tree.scan(b"", b"", usize::MAX);
    for info in &all {
        assert_eq!(info.meta.start_key, at, "{all:?}");
        at = info.meta.end_key.clone();
    }
    assert!(at.is_empty() && !all.is_empty(), "ends at {at:?}");
}

#[test]
fn region_not_updated_by_an_identical_report() {
    let mut tree = fixture();
    assert_eq!(tree.report(region(2, "b", "m", 2, 2), 0), Ok(Accepted::default()));
    assert_eq!(tree.len(), 3);
}

#[test]
fn region_update_version_and_conf_ver() {
    let mut tree = fixture();
    for (conf_ver, version) in [(2, 3), (3, 3), (4, 5)] {
        let report = region(2, "b", "m", conf_ver, version);
        assert!(tree.report(report.clone(), 0).unwrap().meta_changed);
        assert_eq!(tree.by_id(2.into()), Some(&report));
    }
}

#[test]
fn region_with_stale_version_or_conf_ver_is_refused_and_changes_nothing() {
    let mut tree = fixture();
    for (conf_ver, version) in [(2, 1), (9, 1), (1, 2), (1, 9), (0, 0)] {
        let error = tree.report(region(2, "b", "m", conf_ver, version), 0).unwrap_err();
        assert!(matches!(error, Error::RegionStale { .. }), "{error}");
    }
    let mut without_epoch = region(2, "b", "m", 0, 0);
    without_epoch.meta.region_epoch = None;
    assert!(tree.report(without_epoch, 0).is_err());
    assert_eq!(tree.by_id(2.into()), Some(&region(2, "b", "m", 2, 2)));
}

#[test]
fn an_unknown_region_loses_against_any_it_overlaps() {
    let mut tree = fixture();
    tree.report(region(2, "b", "m", 5, 2), 0).unwrap();
    for (conf_ver, version) in [(2, 1), (9, 1), (4, 2)] {
        let error = tree.report(region(9, "a", "c", conf_ver, version), 0).unwrap_err();
        assert!(error.to_string().contains("overlaps region"), "{error}");
    }
    let accepted = tree.report(region(9, "a", "c", 5, 3), 0).unwrap();
    assert_eq!(accepted.displaced, [RegionId::new(1), RegionId::new(2)]);
    assert_tiled(&tree);
}

/// A region with many changes of peers is taken over by one with few, which is then cut: the new part, not known before, has
/// fewer than what is remembered of its range.
#[test]
fn the_part_of_a_region_that_took_another_over_is_believed() {
    let mut tree = fixture();
    tree.report(region(3, "m", "", 7, 1002), 0).unwrap();
    let accepted = tree.report(region(9, "m", "", 2, 1004), 0).unwrap();
    assert_eq!(accepted.displaced, [RegionId::new(3)]);
    assert_tiled(&tree);
}

#[test]
fn region_pending_and_down_peers_leader_and_size_are_taken_at_the_same_epoch() {
    let mut tree = fixture();
    let mut report = region(2, "b", "m", 2, 2);
    report.pending_peers = vec![report.meta.peers[1]];
    report.down_peers = vec![pdpb::PeerStats { peer: report.leader, down_seconds: 7 }];
    report.leader = Some(report.meta.peers[2]);
    report.approximate_size = 144;
    assert_eq!(tree.report(report.clone(), 0), Ok(Accepted::default()));
    assert_eq!(tree.by_id(2.into()), Some(&report));
    tree.report(region(2, "b", "m", 2, 2), 0).unwrap();
    assert!(tree.by_id(2.into()).unwrap().pending_peers.is_empty());
}

#[test]
fn region_peers_changed_at_the_same_epoch_are_taken() {
    let mut tree = fixture();
    let mut report = region(2, "b", "m", 2, 2);
    report.meta.peers.pop();
    assert!(tree.report(report, 0).unwrap().meta_changed);
    assert_eq!(tree.by_id(2.into()).unwrap().meta.peers.len(), 2);
    assert!(tree.report(region(2, "b", "m", 2, 2), 0).unwrap().meta_changed);
}

#[test]
fn a_late_report_of_a_former_leader_is_refused_by_its_term() {
    let mut tree = fixture();
    let new = RegionInfo { term: 7, ..region(2, "b", "m", 2, 2) };
    tree.report(new.clone(), 0).unwrap();
    assert!(tree.report(RegionInfo { term: 6, ..new.clone() }, 0).is_err());
    assert!(tree.report(RegionInfo { term: 7, ..new }, 0).is_ok());
}

#[test]
fn region_counts_per_store() {
    let mut tree = fixture();
    let mut moved = region(2, "b", "m", 2, 2);
    moved.leader = Some(moved.meta.peers[1]);
    tree.report(moved, 0).unwrap();
    assert_eq!(tree.counts(1.into()), (2, 3));
    assert_eq!(tree.counts(2.into()), (1, 3));
    assert_eq!(tree.counts(4.into()), (0, 0));
}

#[test]
fn heartbeat_split_in_both_orders_leaves_the_unreported_half_with_its_former_region() {
    // The left half keeps the id; it reports first.
    let mut tree = fixture();
    tree.report(region(2, "b", "f", 2, 3), 0).unwrap();
    assert_eq!(tree.reported_by_key(&key("g")), None, "not reported yet");
    let remnant = tree.by_key(&key("g")).expect("never a hole");
    assert_eq!(remnant.meta.id, 2);
    assert_eq!((&remnant.meta.start_key, &remnant.meta.end_key), (&key("f"), &key("m")));
    assert_eq!(remnant.epoch().version, 2, "the store will answer with what is true now");
    assert_tiled(&tree);
    tree.report(region(4, "f", "m", 2, 3), 0).unwrap();
    assert_eq!(tree.by_key(&key("g")).unwrap().meta.id, 4);
    assert!(tree.remnants.is_empty());
    assert_tiled(&tree);

    // The right half, a new id, reports first.
    let mut tree = fixture();
    let accepted = tree.report(region(4, "f", "m", 2, 3), 0).unwrap();
    assert_eq!(accepted.displaced, [RegionId::new(2)]);
    assert_eq!(tree.by_id(2.into()), None);
    assert_eq!(tree.by_key(&key("c")).unwrap().meta.id, 2);
    assert_tiled(&tree);
    tree.report(region(2, "b", "f", 2, 3), 0).unwrap();
    assert!(tree.remnants.is_empty());
    assert_tiled(&tree);
}

#[test]
fn a_stale_report_cannot_take_a_split_half_back() {
    let mut tree = fixture();
    tree.report(region(4, "f", "m", 2, 3), 0).unwrap();
    // The parent as it was, late. Its id is unknown now, but it overlaps its own half.
    assert!(tree.report(region(2, "b", "m", 2, 2), 0).is_err());
}

#[test]
fn previous_and_scan_walk_over_remnants() {
    let mut tree = fixture();
    tree.report(region(4, "d", "f", 2, 3), 0).unwrap();
    assert_eq!(ids(tree.scan(b"", b"", 10)), [1, 2, 4, 2, 3]);
    assert_eq!(ids(tree.scan(&key("e"), &key("m"), 10)), [4, 2]);
    assert_eq!(ids(tree.scan(&key("e"), b"", 1)), [4]);
    assert_eq!(ids(tree.scan(&key("z"), b"", 10)), [3]);
    assert_eq!(tree.previous(&key("z")).unwrap().meta.end_key, key("m"));
    assert_eq!(tree.previous(&key("e")).unwrap().meta.end_key, key("d"));
    assert_eq!(tree.previous(&key("a")), None);
}

#[test]
fn an_empty_tree_has_no_region_for_anything() {
    let tree = RegionTree::default();
    assert_eq!(tree.by_key(b""), None);
    assert_eq!(tree.previous(b""), None);
    assert!(tree.scan(b"", b"", 10).is_empty());
}

#[test]
fn reports_that_make_no_sense_name_the_field() {
    let mut tree = fixture();
    let mut torn = region(9, "a", "b", 9, 9);
    torn.meta.start_key = Bytes::from_static(b"raw");
    let mut lonely = region(9, "a", "b", 9, 9);
    lonely.meta.peers.clear();
    let bad = [(region(0, "a", "b", 9, 9), "region.id"), (torn, "region.start_key")];
    let more = [(region(9, "b", "a", 9, 9), "region.end_key"), (lonely, "region.peers")];
    for (report, field) in bad.into_iter().chain(more) {
        let error = tree.report(report, 0).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    assert_eq!(tree.len(), 3);
}

/// Splits and merges at random, reported in random order and late: the key space is whole after every
/// report, and when everything has been reported the tree is exactly what is true.
#[test]
fn region_split_and_merge_mixed() {
    for seed in 0..200u64 {
        let mut random = Splitmix(seed);
        let mut truth = vec![region(1, "", "", 1, 1)];
        let mut tree = RegionTree::default();
        tree.report(truth[0].clone(), 0).unwrap();
        let mut late = Vec::new();
        let mut next_id = 2;
        for _ in 0..30 {
            let at = random.below(truth.len());
            if random.below(3) > 0 {
                late.extend(split(&mut truth, at, &mut next_id, &mut random));
            } else if at + 1 < truth.len() {
                late.push(merge(&mut truth, at));
            }
            while random.below(3) > 0 && !late.is_empty() {
                let report = late.swap_remove(random.below(late.len()));
                let _ = tree.report(report, 0);
                assert_tiled(&tree);
            }
        }
        for report in late.into_iter().chain(truth.clone()) {
            let _ = tree.report(report, 0);
            assert_tiled(&tree);
        }
        assert!(tree.remnants.is_empty(), "seed {seed}");
        let known: Vec<_> = tree.entries.values().cloned().collect();
        assert_eq!(known, truth, "seed {seed}");
    }
}

struct Splitmix(u64);

impl Splitmix {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

/// Splits `truth[at]` somewhere inside; returns both halves' reports.
fn split(
    truth: &mut Vec<RegionInfo>,
    at: usize,
    next_id: &mut u64,
    random: &mut Splitmix,
) -> Vec<RegionInfo> {
    let old = &truth[at];
    let middle = key(&format!("{:04}", random.below(10_000)));
    if !old.contains(&middle) || old.meta.start_key == middle {
        return Vec::new();
    }
    let version = old.epoch().version + 1;
    let epoch = Some(metapb::RegionEpoch { conf_ver: 1, version });
    let mut left = old.cut(old.meta.start_key.clone(), middle.clone());
    left.meta.region_epoch = epoch;
    let mut right = region(*next_id, "", "", 1, version);
    *next_id += 1;
    right.meta.start_key = middle;
    right.meta.end_key = old.meta.end_key.clone();
    truth.splice(at..=at, [left.clone(), right.clone()]);
    vec![left, right]
}

/// Merges the region after `truth[at]` into it; returns its report.
fn merge(truth: &mut Vec<RegionInfo>, at: usize) -> RegionInfo {
    let source = truth.remove(at + 1);
    let target = &mut truth[at];
    target.meta.end_key = source.meta.end_key.clone();
    let version = target.epoch().version.max(source.epoch().version) + 1;
    target.meta.region_epoch = Some(metapb::RegionEpoch { conf_ver: 1, version });
    target.clone()
}

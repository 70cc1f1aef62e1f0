//! Stage 3c: the scheduler. The 22 scenarios of the course's stage by name, and those of its tests that
//! come with the course and are not graded.
//!
//! What differs: half of a split that has not reported yet is no hole for clients, who get the old region
//! cut to that range; only [`scheduler::core::Scheduler::reported_region_by_key`] shows the hole. A move replaces a peer through a
//! learner and a joint membership.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "project3c/balance.rs"]
mod balance;
#[path = "project3c/fixture.rs"]
mod fixture;
#[path = "project3c/operators.rs"]
mod operators;
#[path = "project3c/served.rs"]
mod served;

use fixture::{Cluster, key, region};
use proto::flotillapb::ListRegionsRequest;
use scheduler::core::{Error, RegionInfo};

/// Three stores, three regions of three peers at epoch (2, 2), each led by its first peer.
fn three_regions() -> (Cluster, Vec<RegionInfo>) {
    let mut cluster = Cluster::new(3);
    let regions: Vec<_> = [("", "b"), ("b", "m"), ("m", "")]
        .into_iter()
        .zip(1..)
        .map(|(range, id)| region(id, range, (2, 2), &[1, 2, 3]))
        .collect();
    for region in &regions {
        cluster.heartbeat(region.clone()).unwrap();
    }
    (cluster, regions)
}

fn with_epoch(info: &RegionInfo, conf_ver: u64, version: u64) -> RegionInfo {
    let mut info = info.clone();
    info.meta.region_epoch = Some(proto::metapb::RegionEpoch { conf_ver, version });
    info
}

/// What is known about a region, without the times.
fn known(cluster: &Cluster, id: u64) -> RegionInfo {
    let known = cluster.core.region_by_id(id.into()).unwrap();
    RegionInfo { heard_ms: 0, range_since_ms: 0, ..known.clone() }
}

#[track_caller]
fn stored(cluster: &mut Cluster, report: RegionInfo) {
    cluster.heartbeat(report.clone()).unwrap();
    assert_eq!(known(cluster, report.meta.id), report);
}

#[track_caller]
fn refused(cluster: &mut Cluster, report: RegionInfo) {
    let before = known(cluster, report.meta.id);
    let error = cluster.heartbeat(report).unwrap_err();
    assert!(matches!(error, Error::RegionStale { .. }), "{error}");
    assert_eq!(known(cluster, before.meta.id), before);
}

#[test]
fn region_not_update_3c() {
    let (mut cluster, regions) = three_regions();
    for region in regions {
        assert!(cluster.core.knows_region(&region.meta));
        stored(&mut cluster, region);
    }
}

#[test]
fn region_update_version_3c() {
    let (mut cluster, regions) = three_regions();
    stored(&mut cluster, with_epoch(&regions[0], 2, 3));
}

#[test]
fn region_with_stale_version_3c() {
    let (mut cluster, regions) = three_regions();
    refused(&mut cluster, with_epoch(&regions[0], 2, 1));
    refused(&mut cluster, with_epoch(&regions[0], 3, 1));
}

#[test]
fn region_update_version_and_conf_ver_3c() {
    let (mut cluster, regions) = three_regions();
    stored(&mut cluster, with_epoch(&regions[0], 3, 3));
}

#[test]
fn region_with_stale_conf_ver_3c() {
    let (mut cluster, regions) = three_regions();
    refused(&mut cluster, with_epoch(&regions[0], 1, 2));
    refused(&mut cluster, with_epoch(&regions[0], 1, 3));
}

#[test]
fn region_add_pending_peer_3c() {
    let (mut cluster, regions) = three_regions();
    let mut report = regions[0].clone();
    report.pending_peers = vec![report.meta.peers[1]];
    stored(&mut cluster, report);
    let pending: Vec<_> = (1..=3).map(|store| cluster.store(store).pending_peer_count).collect();
    assert_eq!(pending, [0, 1, 0]);
}

#[test]
fn region_remove_pending_peer_3c() {
    let (mut cluster, regions) = three_regions();
    let mut report = regions[0].clone();
    report.pending_peers = vec![report.meta.peers[1], report.meta.peers[2]];
    stored(&mut cluster, report.clone());
    report.pending_peers.clear();
    stored(&mut cluster, report);
    assert!((1..=3).all(|store| cluster.store(store).pending_peer_count == 0));
}

#[test]
fn region_remove_peers_3c() {
    let (mut cluster, regions) = three_regions();
    let mut report = regions[0].clone();
    report.meta.peers.truncate(1);
    stored(&mut cluster, report);
    assert_eq!(cluster.store(3).region_count, 2);
}

#[test]
fn region_add_back_peers_3c() {
    let (mut cluster, regions) = three_regions();
    let mut report = regions[0].clone();
    report.meta.peers.truncate(1);
    stored(&mut cluster, report);
    stored(&mut cluster, regions[0].clone());
    assert_eq!(cluster.store(3).region_count, 3);
}

#[test]
fn region_change_leader_3c() {
    let (mut cluster, regions) = three_regions();
    let mut report = regions[0].clone();
    report.leader = Some(report.meta.peers[1]);
    stored(&mut cluster, report);
    assert_eq!((cluster.store(1).leader_count, cluster.store(2).leader_count), (2, 1));
}

#[test]
fn region_change_approximate_size_3c() {
    let (mut cluster, regions) = three_regions();
    stored(&mut cluster, RegionInfo { approximate_size: 144, ..regions[0].clone() });
    assert_eq!((cluster.store(1).region_bytes, cluster.store(1).leader_bytes), (144, 144));
}

#[test]
fn region_counts_3c() {
    let (cluster, _) = three_regions();
    assert_eq!(cluster.core.region_count(), 3);
    for (store, counts) in [(1, (3, 3)), (2, (0, 3)), (3, (0, 3)), (4, (0, 0))] {
        assert_eq!(cluster.core.region_counts(store.into()), counts);
    }
}

#[test]
fn region_get_regions_3c() {
    let (cluster, regions) = three_regions();
    for store_id in 1..=3 {
        let request = ListRegionsRequest { store_id, ..Default::default() };
        let listed = cluster.core.list_regions(&request, cluster.now_ms).unwrap().regions;
        let metas: Vec<_> = listed.into_iter().map(|view| view.region.unwrap()).collect();
        assert_eq!(metas, regions.iter().map(|region| region.meta.clone()).collect::<Vec<_>>());
    }
}

#[test]
fn region_get_stores_3c() {
    let (cluster, _) = three_regions();
    for id in 1..=3 {
        let peers = &cluster.core.region_by_id(id.into()).unwrap().meta.peers;
        for peer in peers {
            assert_eq!(cluster.core.store(peer.store_id.into()).unwrap().meta.id, peer.store_id);
        }
        let followers: Vec<_> = peers[1..].iter().map(|peer| peer.store_id).collect();
        assert_eq!(followers, [2, 3]);
    }
}

#[test]
fn region_get_stores_info_3c() {
    let (mut cluster, regions) = three_regions();
    for (at, mut report) in regions.into_iter().enumerate() {
        report.approximate_size = 10 * (at as u64 + 1);
        report.pending_peers = vec![report.meta.peers[2]];
        cluster.heartbeat(report).unwrap();
    }
    let seen = |store| {
        let view = cluster.store(store);
        (
            view.leader_count,
            view.region_count,
            view.leader_bytes,
            view.region_bytes,
            view.pending_peer_count,
        )
    };
    assert_eq!(seen(1), (3, 3, 60, 60, 0));
    assert_eq!(seen(2), (0, 3, 0, 60, 0));
    assert_eq!(seen(3), (0, 3, 0, 60, 3));
}

#[test]
fn heartbeat_split_3c() {
    for right_first in [false, true] {
        let mut cluster = Cluster::new(3);
        cluster.heartbeat(region(1, ("", ""), (1, 1), &[1, 2, 3])).unwrap();
        // The left half keeps the id.
        let left = region(1, ("", "m"), (1, 2), &[1, 2, 3]);
        let right = region(2, ("m", ""), (1, 2), &[1, 2, 3]);
        let (first, second) = if right_first { (right, left) } else { (left, right) };
        cluster.heartbeat(first.clone()).unwrap();
        let hole = &second.meta.start_key;
        assert!(cluster.core.reported_region_by_key(hole).is_none());
        // A client still finds somebody who knows more: the region as it was, cut to the hole.
        assert_eq!(cluster.core.region_by_key(hole).unwrap().meta.id, 1);
        cluster.heartbeat(second.clone()).unwrap();
        for half in [&first, &second] {
            let found = cluster.core.reported_region_by_key(&half.meta.start_key).unwrap();
            assert_eq!(found.meta, half.meta);
        }
    }
}

#[test]
fn region_split_and_merge_3c() {
    let mut cluster = Cluster::new(1);
    let name = |at: u64| if at == 0 || at == 128 { String::new() } else { format!("{at:03}") };
    let part = |id: u64, from: u64, to: u64, version: u64| {
        region(id, (&name(from), &name(to)), (1, version), &[1])
    };
    let mut parts = vec![(1, 0, 128)];
    cluster.heartbeat(part(1, 0, 128, 1)).unwrap();
    let (mut version, mut next_id) = (1, 2);
    let check = |cluster: &Cluster, parts: &[(u64, u64, u64)]| {
        assert_eq!(cluster.core.region_count(), parts.len());
        for at in 0..128 {
            let owner = parts.iter().find(|(_, from, to)| (*from..*to).contains(&at)).unwrap().0;
            let text = if at == 0 { "000".to_owned() } else { name(at) };
            assert_eq!(cluster.core.reported_region_by_key(&key(&text)).unwrap().meta.id, owner);
        }
    };
    // Seven rounds of splits: every part in halves; the older half reports first, or last.
    for round in 0..7 {
        version += 1;
        let mut halves = Vec::new();
        for (id, from, to) in parts {
            let middle = (from + to) / 2;
            let mut both = vec![(id, from, middle), (next_id, middle, to)];
            next_id += 1;
            if round % 2 == 1 {
                both.reverse();
            }
            for &(id, from, to) in &both {
                cluster.heartbeat(part(id, from, to, version)).unwrap();
            }
            halves.extend(both);
        }
        halves.sort_by_key(|(_, from, _)| *from);
        parts = halves;
        check(&cluster, &parts);
    }
    assert_eq!(parts.len(), 128);
    // Seven rounds of merges: into the left one, or into the right one.
    for round in 0..7 {
        version += 1;
        let merged = |pair: &[(u64, u64, u64)]| (pair[round % 2].0, pair[0].1, pair[1].2);
        parts = parts.chunks(2).map(merged).collect();
        for &(id, from, to) in &parts {
            cluster.heartbeat(part(id, from, to, version)).unwrap();
        }
        check(&cluster, &parts);
    }
    // Both, mixed: two thirds that take turns.
    for round in 0..7 {
        version += 1;
        let cut = 16 + round * 13;
        let (left, right) = (parts[0].0, next_id);
        next_id += 1;
        parts = vec![(left, 0, cut), (right, cut, 128)];
        for &(id, from, to) in parts.iter().rev() {
            cluster.heartbeat(part(id, from, to, version)).unwrap();
        }
        check(&cluster, &parts);
        version += 1;
        parts = vec![(right, 0, 128)];
        cluster.heartbeat(part(right, 0, 128, version)).unwrap();
        check(&cluster, &parts);
    }
}

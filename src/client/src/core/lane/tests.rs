//! The pool: which lane is used where, what is inherited, and that nothing grows without bound.

use super::*;

fn id(region: u64) -> RegionId {
    RegionId::from(region)
}

fn pool() -> LanePool {
    let mut pool = LanePool::default();
    pool.add_client_ids(100..20_000);
    pool
}

/// A lane that the region knows, from wherever there is one.
fn open(pool: &mut LanePool, region: u64) -> Lane {
    let lane = pool.take_for_opening().expect("there are ids");
    pool.opened(lane.client_id, id(region));
    lane
}

/// Both maps name the same pairs, and an idle lane is in exactly one list.
fn check(pool: &LanePool) {
    let by_lane: BTreeSet<(RegionId, u64)> =
        pool.lanes.iter().flat_map(|(l, record)| record.knows.iter().map(|r| (*r, *l))).collect();
    let by_region: BTreeSet<(RegionId, u64)> =
        pool.known_by.iter().flat_map(|(r, lanes)| lanes.iter().map(|l| (*r, *l))).collect();
    assert_eq!(by_lane, by_region);
    let idle = pool.lanes.values().filter(|record| record.idle.is_some()).count();
    assert_eq!(idle, pool.roomy.len() + pool.full.len());
    for (region, stack) in &pool.at_home {
        assert!(!stack.is_empty());
        for lane in stack {
            let idle = pool.lanes[lane].idle.as_ref().expect("only idle lanes are at home");
            assert_eq!(idle.home, Some(*region));
        }
    }
}

#[test]
fn the_lane_used_last_in_a_region_comes_first_there() {
    let mut pool = pool();
    let [first, second] = [open(&mut pool, 1), open(&mut pool, 1)];
    let ids = [first.client_id, second.client_id];
    pool.put_back(first, Some(id(1)));
    pool.put_back(second, Some(id(1)));
    check(&pool);
    let lane = pool.take(id(1)).expect("two are idle");
    assert_eq!(lane.client_id, ids[1]);
    assert_eq!(pool.take(id(2)), None, "nobody has been there");
    pool.put_back(lane, Some(id(1)));
    let stranger = pool.take_for_opening().expect("an idle one");
    assert_eq!(stranger.client_id, ids[0], "the one that is missed least");
    pool.opened(stranger.client_id, id(2));
    pool.put_back(stranger, Some(id(2)));
    check(&pool);
    let known_elsewhere = [pool.take(id(1)), pool.take(id(1))].map(|lane| lane.unwrap().client_id);
    assert_eq!(known_elsewhere, [ids[1], ids[0]], "home first, then any that the region knows");
    check(&pool);
}

#[test]
fn the_parts_of_a_region_know_what_the_whole_knew() {
    let mut pool = pool();
    let (idle, busy) = (open(&mut pool, 1), open(&mut pool, 1));
    let other = open(&mut pool, 9);
    let (idle_id, busy_id) = (idle.client_id, busy.client_id);
    pool.put_back(idle, Some(id(1)));
    pool.inherit(id(1), id(2));
    assert!(pool.is_known(idle_id, id(2)) && pool.is_known(busy_id, id(2)));
    assert!(!pool.is_known(other.client_id, id(2)));
    assert_eq!(pool.take(id(2)).map(|lane| lane.client_id), Some(idle_id));
    check(&pool);
}

#[test]
fn a_region_that_forgot_one_lane_costs_those_that_were_used_there_before() {
    let mut pool = pool();
    let lanes: Vec<Lane> = (0..3).map(|_| open(&mut pool, 1)).collect();
    let elsewhere = open(&mut pool, 2);
    let kept = elsewhere.client_id;
    pool.opened(kept, id(1));
    pool.put_back(elsewhere, Some(id(2)));
    for lane in lanes {
        pool.put_back(lane, Some(id(1)));
    }
    let forgotten = pool.take(id(1)).expect("idle").client_id;
    pool.retire(forgotten);
    pool.retire_all_at(id(1));
    check(&pool);
    assert_eq!(pool.lanes.keys().copied().collect::<Vec<_>>(), [kept]);
    assert_eq!(pool.take(id(1)).map(|lane| lane.client_id), Some(kept));
}

#[test]
fn a_lane_with_many_regions_takes_no_more_and_memory_is_bounded() {
    let mut pool = pool();
    for region in 1..=300_000 {
        // One writer that goes from region to region.
        let lane = open(&mut pool, region);
        pool.put_back(lane, Some(id(region)));
        if region == 3 * REGIONS_MAX as u64 {
            assert_eq!(pool.lanes.len(), 3);
            check(&pool);
        }
    }
    check(&pool);
    assert!(pool.lanes.len() <= LANES_MAX);
    assert!(pool.known_by.len() <= LANES_MAX * REGIONS_MAX);
    let (known, newest) = (id(300_000), id(300_001));
    for heir in 0..1_000 {
        pool.inherit(known, id(2_000_000 + heir));
    }
    pool.inherit(known, newest);
    check(&pool);
    assert!(pool.lanes.values().all(|record| record.knows.len() <= 2 * REGIONS_MAX));
}

#[test]
fn ids_never_repeat() {
    let mut pool = LanePool::default();
    pool.add_client_ids([10, 11]);
    pool.add_client_ids([]);
    pool.add_client_ids([20]);
    let ids: Vec<u64> =
        std::iter::from_fn(|| pool.take_for_opening()).map(|lane| lane.client_id).collect();
    assert_eq!(ids, [10, 11, 20]);
    for client_id in ids {
        pool.retire(client_id);
    }
    assert_eq!(pool.take_for_opening(), None);
    check(&pool);
}

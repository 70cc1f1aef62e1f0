//! How large a region is, as its leader tells, and that one that is too large, or too busy, asks to be cut.

use raftstore::msg::SplitRequest;
use raftstore::scan::is_valid_cut;

use super::cluster::{Cluster, header, put, region};

fn small_regions() -> Cluster {
    Cluster::led_by_with(1, |config| {
        config.region_max_bytes = 8000;
        config.region_part_bytes = 4000;
        config.region_heartbeat_ticks = 40;
    })
}

/// Puts `count` values of 94 bytes under keys of 6.
fn fill(cluster: &mut Cluster, from: u64, count: u64) {
    for i in from..from + count {
        let slot = cluster.write(1, put(&format!("{i:06}"), &"v".repeat(94)));
        cluster.settle();
        assert!(slot.take().is_some());
    }
}

fn requests(cluster: &mut Cluster) -> Vec<SplitRequest> {
    std::mem::take(&mut cluster.node(1).seen.split_requests)
}

#[test]
fn the_leader_reports_size_and_flow() {
    let mut cluster = small_regions();
    cluster.tick(41);
    cluster.node(1).seen.heartbeats.clear();
    fill(&mut cluster, 0, 20);
    cluster.tick(41);
    let heartbeat = cluster.node(1).seen.heartbeats.pop().unwrap();
    assert_eq!((heartbeat.approximate_bytes, heartbeat.approximate_keys), (2000, 20));
    let flow = heartbeat.flow;
    assert_eq!((flow.bytes_written, flow.keys_written, flow.interval_ms), (2000, 20, 2000));
    let status = cluster.status(1);
    assert_eq!((status.approximate_bytes, status.approximate_keys), (2000, 20));
}

#[test]
fn what_is_read_is_reported_too() {
    let mut cluster = small_regions();
    cluster.tick(41);
    cluster.node(1).seen.heartbeats.clear();
    fill(&mut cluster, 0, 1);
    for _ in 0..5 {
        let read = cluster.reader(1).read_metered(
            &header(),
            || cluster.now,
            |_, meter| {
                meter.count(b"000000", 94);
            },
        );
        assert_eq!(read, Ok(()));
    }
    let permit = cluster.ask_read(1);
    cluster.settle();
    let permit = permit.take().unwrap().unwrap();
    assert_eq!(permit.read_metered(|_, meter| meter.count(b"000001", 0)), Ok(()));
    cluster.tick(41);
    let flow = cluster.node(1).seen.heartbeats.pop().unwrap().flow;
    assert_eq!((flow.bytes_read, flow.keys_read), (506, 6));
}

#[test]
fn overwriting_is_noticed_by_a_look() {
    let mut cluster = small_regions();
    for _ in 0..12 {
        fill(&mut cluster, 0, 10);
    }
    assert_eq!(cluster.status(1).approximate_bytes, 12_000, "growth counts upwards");
    cluster.tick(41);
    assert_eq!(cluster.status(1).approximate_bytes, 1000);
    assert_eq!(requests(&mut cluster), []);
}

#[test]
fn a_region_that_is_too_large_asks_to_be_cut_until_it_is() {
    let mut cluster = small_regions();
    fill(&mut cluster, 0, 120);
    cluster.tick(25);
    let asked = requests(&mut cluster);
    let [SplitRequest { region: asked_region, keys }] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(**asked_region, region());
    assert_eq!(keys.len(), 2, "12 000 bytes in parts of 4 000");
    assert!(keys.iter().all(|key| is_valid_cut(asked_region, key)));
    let before = |cut: &[u8]| (0..120).filter(|i| format!("{i:06}").as_bytes() < cut).count();
    assert_eq!(keys.iter().map(|cut| before(cut)).collect::<Vec<_>>(), [40, 80]);
    // Nobody answers, and nobody writes any more.
    cluster.tick(20 * 11);
    assert_eq!(requests(&mut cluster), asked, "asked again");
}

#[test]
fn a_region_that_stays_busy_is_cut_where_its_requests_are_halved() {
    let mut cluster = Cluster::led_by_with(1, |config| {
        config.split_check_ticks = 4;
        config.split_requests_per_second = 200;
    });
    for second in 0..20 {
        for i in 0..50 {
            let key = if i % 2 == 0 { "cold" } else { "warm" };
            let _slot =
                cluster.write(1, put(&format!("{key}{:04}", (second * 50 + i) % 1000), "v"));
        }
        cluster.settle();
        cluster.tick(4);
    }
    let asked = requests(&mut cluster);
    assert!(!asked.is_empty(), "250 requests per second");
    let cut = &asked[0].keys[0];
    assert!(cut[..] > b"cold02"[..] && cut[..] < b"warm08"[..], "{cut:?}");
}

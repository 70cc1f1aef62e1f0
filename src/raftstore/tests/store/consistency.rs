//! All peers of a region compare their data.

use engine::{Cf, Engine, WriteBatch};
use raftstore::keys::{self, RawCf};
use raftstore::msg::ConsistencyHash;
use raftstore::{RegionError, StoreMsg};

use super::cluster::{Cluster, Slot, append, header};

fn check(cluster: &mut Cluster, store: u64) -> Slot<ConsistencyHash> {
    let (slot, reply) = Slot::new();
    cluster.send(store, StoreMsg::CheckConsistency { header: header(), reply });
    cluster.settle();
    slot
}

fn poisoned(cluster: &Cluster) -> Vec<u64> {
    let stopped = cluster.nodes.iter().filter(|node| node.store.status().poisoned.is_some());
    stopped.map(|node| node.id.get()).collect()
}

#[test]
fn equal_peers_agree_and_the_leader_says_at_which_index() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    let _session = cluster.write(1, append("k", "w", 9, 1));
    cluster.settle();
    let before = cluster.status(1).applied_index;
    let answer = check(&mut cluster, 1).take().expect("answered").expect("agreed");
    assert_eq!(answer.index, before.next());
    // Followers learn of the commit with the next heartbeat.
    cluster.tick(4);
    assert_eq!(poisoned(&cluster), [0; 0]);
    assert_eq!(cluster.status(3).applied_index, cluster.status(1).applied_index);
}

#[test]
fn a_flipped_byte_stops_the_store_that_holds_it() {
    for late in [false, true] {
        let mut cluster = Cluster::led_by(1);
        cluster.put(1, "k", "value");
        cluster.tick(4);
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, keys::raw(RawCf::Default, b"k"), "valuf");
        cluster.node(3).engine.write(&batch).unwrap();
        cluster.node(3).stall_apply = late;
        assert!(check(&mut cluster, 1).take().expect("answered").is_ok());
        cluster.tick(4);
        cluster.node(3).stall_apply = false;
        cluster.settle();
        assert_eq!(poisoned(&cluster), [3], "late: {late}");
        let reason = cluster.node(3).store.status().poisoned.unwrap();
        assert!(reason.starts_with("region 2: the data of peer 30 differ"), "{reason}");
        // The others serve on.
        cluster.put(1, "k", "w");
    }
}

#[test]
fn only_the_leader_can_be_asked_and_one_that_loses_the_lead_says_so() {
    let mut cluster = Cluster::led_by(1);
    let refused = check(&mut cluster, 2).take().expect("at once");
    assert!(matches!(refused, Err(RegionError::NotLeader { .. })));
    cluster.isolate(1);
    let slot = check(&mut cluster, 1);
    assert!(slot.take().is_none(), "nothing is committed");
    cluster.tick(40);
    assert!(matches!(slot.take(), Some(Err(RegionError::NotLeader { .. }))));
}

//! A write is acknowledged once it is on the disks of a majority and applied, and every peer ends up with it.

use bytes::Bytes;
use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb;
use raft::Term;
use raftstore::command::{ClientId, Mutation, Request, WriteResult};
use raftstore::keys::RawCf;
use raftstore::{RegionError, RequestHeader};

use super::cluster::{Cluster, append, header, put};

#[test]
fn a_write_reaches_every_peer() {
    let mut cluster = Cluster::led_by(2);
    cluster.put(2, "k", "v");
    cluster.tick(4);
    for store in 1..=3 {
        assert_eq!(cluster.stored(store, "k").as_deref(), Some("v"), "store {store}");
    }
    let hashes: Vec<_> = (1..=3).map(|store| cluster.status(store).state_hash).collect();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}

#[test]
fn the_leader_alone_acknowledges_nothing() {
    let mut cluster = Cluster::led_by(1);
    cluster.node(2).stall_log = true;
    cluster.node(3).stall_log = true;
    let slot = cluster.write(1, put("k", "v"));
    cluster.settle();
    assert_eq!(slot.take(), None, "no follower has it on disk");
    cluster.node(3).stall_log = false;
    cluster.settle();
    assert_eq!(slot.take(), Some(Ok(WriteResult::Applied)));
}

#[test]
fn followers_suffice_while_the_leader_still_writes() {
    let mut cluster = Cluster::led_by(1);
    cluster.node(1).stall_log = true;
    let slot = cluster.write(1, put("k", "v"));
    cluster.settle();
    let status = cluster.status(1);
    assert_eq!(status.raft.commit, status.raft.last_index, "two followers are a majority");
    assert_eq!(slot.take(), None, "but nothing is applied before it is on the own disk");
    cluster.node(1).stall_log = false;
    cluster.settle();
    assert_eq!(slot.take(), Some(Ok(WriteResult::Applied)));
}

#[test]
fn waiting_writes_share_one_entry() {
    let mut cluster = Cluster::led_by(1);
    let before = cluster.status(1).raft.last_index;
    let slots: Vec<_> = (0..100).map(|i| cluster.write(1, put(&format!("k{i}"), "v"))).collect();
    cluster.settle();
    assert_eq!(cluster.status(1).raft.last_index, before.next());
    assert!(slots.iter().all(|slot| slot.take() == Some(Ok(WriteResult::Applied))));
}

#[test]
fn large_writes_do_not_share() {
    let mut cluster = Cluster::led_by(1);
    let before = cluster.status(1).raft.last_index;
    let value = "x".repeat(300 << 10);
    let slots: Vec<_> = (0..3).map(|i| cluster.write(1, put(&format!("k{i}"), &value))).collect();
    cluster.settle();
    assert_eq!(cluster.status(1).raft.last_index, before + 3);
    assert!(slots.iter().all(|slot| slot.take() == Some(Ok(WriteResult::Applied))));
}

#[test]
fn a_repeated_append_is_applied_once() {
    let mut cluster = Cluster::led_by(1);
    let opened = cluster.write(1, Request::OpenSession { client: ClientId(9) });
    let first = cluster.write(1, append("k", "ab", 9, 1));
    cluster.settle();
    assert_eq!(opened.take(), Some(Ok(WriteResult::Applied)));
    assert_eq!(first.take(), Some(Ok(WriteResult::Appended { value_bytes: 2 })));
    cluster.move_lead(3);
    let again = cluster.write(3, append("k", "ab", 9, 1));
    cluster.settle();
    assert_eq!(again.take(), Some(Ok(WriteResult::Appended { value_bytes: 2 })));
    assert_eq!(cluster.stored(3, "k").as_deref(), Some("ab"));
}

/// What a write with this header is told, on store 1 (the leader) unless said otherwise.
fn refusal(cluster: &mut Cluster, store: u64, header: RequestHeader) -> RegionError {
    let slot = cluster.write_with(store, header, put("k", "v"));
    slot.take().expect("answered at once").unwrap_err()
}

#[test]
fn what_cannot_succeed_is_refused_at_once() {
    let mut cluster = Cluster::led_by(1);
    let ours = header();
    let wrong = RequestHeader { store: Some(StoreId::from(2)), ..ours.clone() };
    assert!(matches!(refusal(&mut cluster, 1, wrong), RegionError::StoreNotMatch { .. }));
    let wrong = RequestHeader { region: RegionId::from(9), ..ours.clone() };
    assert!(matches!(refusal(&mut cluster, 1, wrong), RegionError::RegionNotFound { .. }));
    let wrong = RequestHeader { peer: Some(PeerId::from(20)), ..ours.clone() };
    assert!(matches!(refusal(&mut cluster, 1, wrong), RegionError::MismatchPeerId { .. }));
    let wrong = RequestHeader { term: Some(Term(1)), ..ours.clone() };
    assert_eq!(refusal(&mut cluster, 1, wrong), RegionError::StaleCommand);
    let old = metapb::RegionEpoch { conf_ver: 1, version: 0 };
    let RegionError::EpochNotMatch { current } =
        refusal(&mut cluster, 1, RequestHeader { epoch: old, ..ours.clone() })
    else {
        panic!("another error");
    };
    assert_eq!(current, [super::cluster::region()], "never empty");
    let RegionError::NotLeader { leader, .. } = refusal(&mut cluster, 2, ours) else {
        panic!("another error");
    };
    assert_eq!(leader.map(|peer| peer.store_id), Some(1));
}

#[test]
fn what_does_not_fit_is_refused_at_once() {
    let mut cluster = Cluster::led_by(1);
    let value = Bytes::from(vec![0; 5 << 20]);
    let mutation =
        |i: u8| Mutation::Put { cf: RawCf::Default, key: vec![i].into(), value: value.clone() };
    let request = Request::Mutate { mutations: (0..4).map(mutation).collect(), session: None };
    let slot = cluster.write(1, request);
    assert!(matches!(slot.take(), Some(Err(RegionError::RaftEntryTooLarge { .. }))));
}

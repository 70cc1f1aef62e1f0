//! A snapshot that holds the keys of other regions of its store: they were merged away while the store was cut off, and end
//! with the installation (M16); or they live, and the snapshot has to wait.

use std::sync::Arc;

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Cf, Engine, WriteBatch};
use proto::ids::PeerId;
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raft::{LogIndex, Message, MessageBody, NodeId, Snapshot};
use raftstore::StoreMsg;
use raftstore::apply::{SnapshotMeta, SnapshotReady};
use raftstore::keys::{self, RawCf};
use raftstore::membership::conf_state;
use raftstore::snapshot::{
    ReceiveLimits, SnapshotFiles, SnapshotReceiver, SnapshotSource, encode_meta,
};

use super::cluster::Cluster;
use super::members::ID;
use super::regions::cut;

/// Three regions cut at "g" and "t" on three stores, of which the third is cut off. The ids of the right ones.
fn divided() -> (Cluster, u64, u64) {
    let mut cluster = Cluster::with_members(3, &[1, 2, 3]);
    for key in ["a", "m", "z"] {
        cluster.put_anywhere(key, "old");
    }
    cluster.split(ID, &["g", "t"]);
    cluster.until_led();
    cluster.until_equal();
    let (middle, right) = (cluster.region_with("m").id, cluster.region_with("z").id);
    cluster.isolate(3);
    (cluster, middle, right)
}

/// The first region with another end and version, and a snapshot of it for store 3, as its leader would send it.
fn arrives(cluster: &mut Cluster, end: Bytes, version: u64) {
    let here = cluster.region(3, ID).expect("it lives there");
    let mut region = metapb::Region::clone(&here.region);
    region.end_key = end;
    region.region_epoch = Some(metapb::RegionEpoch { conf_ver: 1, version });
    let engine = MemEngine::new();
    let mut batch = WriteBatch::new();
    for key in ["a", "m"] {
        if region.end_key.is_empty() || cut(key) < region.end_key {
            batch.put(Cf::Raw, keys::raw(RawCf::Default, key.as_bytes()), "new");
        }
    }
    engine.write(&batch).unwrap();
    let meta = SnapshotMeta {
        index: LogIndex(here.raft.last_index.0 + 100),
        term: here.raft.term,
        conf_state: conf_state(&region),
        region: region.clone(),
        state_hash: 7,
    };
    let from = *region.peers.iter().find(|peer| peer.id != here.peer.id).unwrap();
    let leader = here.raft.leader.filter(|leader| leader.0 != here.peer.id);
    let from = leader
        .and_then(|id| region.peers.iter().find(|peer| peer.id == id.0).copied())
        .unwrap_or(from);
    let snapshot = Snapshot {
        index: meta.index,
        term: meta.term,
        conf_state: meta.conf_state.clone(),
        data: encode_meta(&meta),
    };
    let body = MessageBody::Snapshot(snapshot);
    let inner =
        Message { from: NodeId(from.id), to: NodeId(here.peer.id), term: here.raft.term, body };
    let message = RaftMessage {
        region_id: ID,
        from_peer: Some(from),
        to_peer: Some(here.peer),
        region_epoch: region.region_epoch,
        message: Some(raft::wire::message_to_proto(inner)),
        ..Default::default()
    };
    let (to, engine) = (PeerId::from(here.peer.id), engine.snapshot());
    let mut source = SnapshotSource::new(SnapshotReady { region: ID.into(), to, meta, engine });
    let files: Arc<dyn SnapshotFiles> = Arc::new(cluster.node(3).files.clone());
    let mut receiver = SnapshotReceiver::begin(files, ReceiveLimits::default(), &message).unwrap();
    let mut file = None;
    while let Some(part) = source.next_part().unwrap() {
        file = receiver.take(part).unwrap();
    }
    let file = file.expect("the footer ends it");
    cluster.send(3, StoreMsg::SnapshotReceived { message, file });
}

#[test]
fn a_region_that_was_merged_away_ends_with_the_snapshot_that_holds_its_keys() {
    let (mut cluster, middle, right) = divided();
    arrives(&mut cluster, cut("t"), 9);
    cluster.settle();
    assert!(cluster.region(3, middle).is_none(), "merged away");
    assert!(cluster.region(3, right).is_some(), "its keys are not in the snapshot");
    assert_eq!(cluster.stored(3, "m").as_deref(), Some("new"));
    assert_eq!(cluster.stored(3, "a").as_deref(), Some("new"));
    assert_eq!(cluster.stored(3, "z").as_deref(), Some("old"));
    cluster.check_disjoint(3);
    cluster.crash(3);
    cluster.restart(3);
    assert!(cluster.region(3, middle).is_none());
    assert_eq!(cluster.stored(3, "m").as_deref(), Some("new"));
}

#[test]
fn keys_of_a_region_that_lives_are_not_overwritten() {
    // The same version, an earlier one: the snapshot may be older than the cut.
    for version in [1, 3] {
        let (mut cluster, middle, _) = divided();
        arrives(&mut cluster, cut("t"), version);
        cluster.settle();
        assert!(cluster.region(3, middle).is_some());
        assert_eq!(cluster.stored(3, "m").as_deref(), Some("old"));
        assert_eq!(cluster.stored(3, "a").as_deref(), Some("old"));
    }
}

#[test]
fn a_crash_at_any_step_leaves_either_all_of_the_old_or_all_of_the_new() {
    for rounds in 0..10 {
        let (mut cluster, middle, right) = divided();
        arrives(&mut cluster, cut("t"), 9);
        for _ in 0..rounds {
            cluster.turn_only(3);
        }
        cluster.crash(3);
        cluster.restart(3);
        cluster.check_disjoint(3);
        let value = cluster.stored(3, "m");
        let lives = cluster.region(3, middle).is_some();
        assert_eq!(value.as_deref(), Some(if lives { "old" } else { "new" }), "{rounds} rounds");
        assert_eq!(cluster.stored(3, "a"), value);
        assert!(cluster.region(3, right).is_some());
        assert_eq!(cluster.stored(3, "z").as_deref(), Some("old"));
        assert!(rounds > 0 || lives, "nothing has happened yet");
        assert!(rounds < 9 || !lives, "it was over by then");
    }
}

#[test]
fn the_merged_region_may_still_be_applying() {
    let (mut cluster, middle, _) = divided();
    cluster.node(3).stall_apply = true;
    arrives(&mut cluster, cut("t"), 9);
    cluster.settle();
    assert_eq!(cluster.stored(3, "a").as_deref(), Some("old"), "not before it is gone");
    cluster.node(3).stall_apply = false;
    cluster.settle();
    assert!(cluster.region(3, middle).is_none());
    assert_eq!(cluster.stored(3, "m").as_deref(), Some("new"));
}

#[cfg(feature = "planted")]
#[test]
fn a_merged_region_that_survives_shares_its_keys() {
    use raftstore::planted::{Bug, activate};
    let (mut cluster, middle, _) = divided();
    activate(Some(Bug::MergedRegionSurvives));
    arrives(&mut cluster, cut("t"), 9);
    cluster.settle();
    activate(None);
    let [left, other] = [ID, middle].map(|id| cluster.region(3, id).unwrap().region);
    assert!(left.end_key > other.start_key, "two regions hold the same keys");
}

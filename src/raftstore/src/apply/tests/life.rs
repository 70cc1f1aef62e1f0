//! Changes of peers, creation and destruction as the applier carries them out.

use proto::eraftpb::ConfChangeType;
use proto::flotillapb::PeerState;
use proto::pdpb;

use super::*;
use crate::membership::{self, ChangePeers};
use crate::peer::records::RegionRecord;
#[cfg(feature = "planted")]
use crate::planted::{Bug, activate};

fn change(kind: ConfChangeType, id: u64) -> pdpb::ChangePeer {
    let peer = Some(metapb::Peer { id, store_id: id, ..Default::default() });
    pdpb::ChangePeer { peer, change_type: kind.into() }
}

/// The entry of a change that was decided for `epoch`.
fn entry(bench: &mut Bench, epoch: Epoch, changes: Vec<pdpb::ChangePeer>) -> Entry {
    let raft = membership::raft_change(&changes).expect("known kinds");
    let data = raft::wire::encode_conf_change(&raft);
    let context = ChangePeers { epoch, changes }.encode();
    Entry { kind: EntryKind::ConfChangeV2, context, ..bench.entry(data) }
}

/// What came of it: the new region, if there is one.
fn apply(bench: &mut Bench, entry: Entry) -> Option<metapb::Region> {
    let turn = bench.handle(vec![entry.clone()], Vec::new());
    let [Effect::ConfChange { entry: reported, region }] = turn.results[0].effects.as_slice()
    else {
        panic!("one effect: {:?}", turn.results[0].effects);
    };
    assert_eq!(*reported, entry);
    assert_eq!(turn.results[0].applied_index, entry.index, "it is over in any case (R24)");
    region.clone()
}

fn record(bench: &Bench, region: u64) -> Option<RegionRecord> {
    RegionRecord::read(bench.engine.snapshot().as_ref(), region.into()).expect("a record")
}

#[test]
fn a_change_is_recorded_with_the_position_after_it() {
    let mut bench = Bench::new();
    let add = entry(&mut bench, EPOCH, vec![change(ConfChangeType::AddLearnerNode, 4)]);
    let index = add.index;
    let region = apply(&mut bench, add).expect("accepted");
    assert_eq!(region.region_epoch.map(|epoch| epoch.conf_ver), Some(2));
    let stored = record(&bench, REGION).expect("recorded");
    assert_eq!((stored.region, stored.state), (region, PeerState::Normal));
    assert_eq!(stored.peer.map(|peer| peer.id), Some(1));
    assert_eq!(bench.state().applied_index, index);
}

#[test]
fn a_change_for_another_epoch_has_no_effect() {
    for stale in [Epoch { conf_ver: 0, version: 1 }, Epoch { conf_ver: 1, version: 2 }] {
        let mut bench = Bench::new();
        let add = entry(&mut bench, stale, vec![change(ConfChangeType::AddLearnerNode, 4)]);
        assert_eq!(apply(&mut bench, add), None);
        assert_eq!(record(&bench, REGION), None, "nothing is recorded");
    }
}

#[test]
fn what_makes_no_sense_has_no_effect() {
    let mut bench = Bench::new();
    let refused = [
        vec![change(ConfChangeType::RemoveNode, 9)],
        vec![change(ConfChangeType::AddNode, 2)],
        vec![change(ConfChangeType::AddNode, 4), change(ConfChangeType::RemoveNode, 2)],
    ];
    for changes in refused {
        let entry = entry(&mut bench, EPOCH, changes);
        assert_eq!(apply(&mut bench, entry), None);
    }
    let leave = Entry { kind: EntryKind::ConfChangeV2, ..bench.entry(Bytes::new()) };
    assert_eq!(apply(&mut bench, leave), None, "there is no joint membership to leave");
    // Raft's half of the entry says something else than ours.
    let honest = entry(&mut bench, EPOCH, vec![change(ConfChangeType::AddLearnerNode, 4)]);
    let other = membership::raft_change(&[change(ConfChangeType::AddNode, 4)]).expect("known");
    let data = raft::wire::encode_conf_change(&other);
    assert_eq!(apply(&mut bench, Entry { data, ..honest }), None);
    let garbage = Entry {
        kind: EntryKind::ConfChangeV2,
        context: Bytes::from_static(b"\xff"),
        ..bench.entry(Bytes::new())
    };
    let task = ApplyTask::Committed {
        region: REGION.into(),
        entries: vec![garbage],
        proposals: Vec::new(),
    };
    let outcome = bench.applier.handle(vec![task]);
    assert!(matches!(outcome, Err(ApplyError::UnknownEntry { .. })), "{outcome:?}");
}

#[test]
fn a_joint_membership_is_entered_and_left_in_two_entries() {
    let mut bench = Bench::new();
    let changes =
        vec![change(ConfChangeType::AddNode, 4), change(ConfChangeType::AddLearnerNode, 2)];
    let enter = entry(&mut bench, EPOCH, changes);
    let joint = apply(&mut bench, enter).expect("accepted");
    assert!(membership::is_joint(&joint));
    let again = entry(
        &mut bench,
        Epoch { conf_ver: 2, version: 1 },
        vec![change(ConfChangeType::RemoveNode, 3)],
    );
    assert_eq!(apply(&mut bench, again), None, "not in between");
    let leave = Entry { kind: EntryKind::ConfChangeV2, ..bench.entry(Bytes::new()) };
    let after = apply(&mut bench, leave).expect("accepted");
    assert!(!membership::is_joint(&after));
    assert_eq!(after.region_epoch.map(|epoch| epoch.conf_ver), Some(3));
}

#[test]
fn a_destroyed_peer_leaves_a_tombstone_that_knows_how_it_was_removed() {
    let mut bench = Bench::new();
    bench.one(open_session(7));
    bench.one(once(7, 1, put("k", "v")));
    let remove = entry(&mut bench, EPOCH, vec![change(ConfChangeType::RemoveNode, 1)]);
    let (index, term) = (remove.index, remove.term);
    assert!(apply(&mut bench, remove).is_some());
    let half = record(&bench, REGION).expect("recorded");
    assert_eq!(half.peer.map(|peer| peer.id), Some(1), "so that opening knows who was here");
    let (known, peer) = (region(REGION, "a", ""), metapb::Peer { id: 1, ..Default::default() });
    bench.put_raw("a", "left neighbour's");
    bench.put_raw("z", "right neighbour's");
    let destroy = || ApplyTask::Destroy { region: known.clone(), peer, removed_at: None };
    let turn = bench.applier.handle(vec![destroy()]).expect("destroyed");
    let effect = Effect::Destroyed { peer, removed_at: Some((index, term)) };
    assert_eq!(turn.results[0].effects, std::slice::from_ref(&effect));
    let tombstone = record(&bench, REGION).expect("a tombstone");
    assert_eq!(
        (tombstone.state, tombstone.removed_at),
        (PeerState::Tombstone, Some((index, term)))
    );
    assert_eq!(bench.get("k"), None);
    assert_eq!(bench.get("a").as_deref(), Some("left neighbour's"));
    assert_eq!(bench.get("z").as_deref(), Some("right neighbour's"));
    let snapshot = bench.engine.snapshot();
    let session = Key::Session(REGION.into(), ClientId(7)).encode();
    assert_eq!(snapshot.get(Cf::Raft, &session), Ok(None));
    let state = Key::ApplyState(REGION.into()).encode();
    assert_eq!(snapshot.get(Cf::Raft, &state), Ok(None));
    let turn = bench.applier.handle(vec![destroy()]).expect("again changes nothing");
    assert_eq!(turn.results[0].effects, [effect]);
}

#[test]
fn what_was_handed_over_before_is_destroyed_too() {
    let mut bench = Bench::new();
    let requests = vec![mutate(vec![put("k", "v")])];
    let write = bench.entry(Command::Write { epoch: EPOCH, requests }.encode());
    let committed =
        ApplyTask::Committed { region: REGION.into(), entries: vec![write], proposals: Vec::new() };
    let peer = metapb::Peer { id: 1, ..Default::default() };
    let destroy = ApplyTask::Destroy { region: region(REGION, "b", "y"), peer, removed_at: None };
    bench.applier.handle(vec![committed, destroy]).expect("apply");
    assert_eq!(bench.get("k"), None);
    assert_eq!(record(&bench, REGION).map(|record| record.state), Some(PeerState::Tombstone));
}

fn create(bench: &mut Bench, peer: u64) -> bool {
    let region = metapb::Region { id: 9, end_key: "a".into(), ..Default::default() };
    let peer = metapb::Peer { id: peer, store_id: 1, ..Default::default() };
    let turn = bench.applier.handle(vec![ApplyTask::Create { region, peer }]).expect("apply");
    let [Effect::Created { created, .. }] = turn.results[0].effects.as_slice() else {
        panic!("one effect: {:?}", turn.results[0].effects);
    };
    *created
}

fn destroy(bench: &mut Bench, peer: u64) {
    let region = metapb::Region { id: 9, end_key: "c".into(), ..Default::default() };
    let peer = metapb::Peer { id: peer, store_id: 1, ..Default::default() };
    bench
        .applier
        .handle(vec![ApplyTask::Destroy { region, peer, removed_at: None }])
        .expect("apply");
}

#[test]
fn a_peer_is_created_once_and_never_again_after_its_tombstone() {
    let mut bench = Bench::new();
    assert!(create(&mut bench, 95));
    assert!(!create(&mut bench, 95), "it is there");
    bench.put_raw("a", "v");
    bench.put_raw("b", "v");
    destroy(&mut bench, 95);
    assert_eq!(bench.get("b").as_deref(), Some("v"), "it had no data, whatever it was told");
    assert!(!create(&mut bench, 94) && !create(&mut bench, 95));
    assert!(create(&mut bench, 96));
    let record = record(&bench, 9).expect("recorded");
    assert!(record.is_uninitialized() && record.peer.is_some_and(|peer| peer.id == 96));
}

/// The planted bugs of this part have an effect.
#[cfg(feature = "planted")]
mod planted {
    use super::*;

    fn with<T>(bug: Bug, check: impl FnOnce() -> T) -> T {
        activate(Some(bug));
        let found = check();
        activate(None);
        found
    }

    #[test]
    fn tombstone_ignored() {
        let mut bench = Bench::new();
        assert!(create(&mut bench, 95));
        destroy(&mut bench, 95);
        assert!(with(Bug::TombstoneIgnored, || create(&mut bench, 95)));
    }

    #[test]
    fn stale_change_peers_applied() {
        let mut bench = Bench::new();
        let stale = Epoch { conf_ver: 0, version: 1 };
        let add = entry(&mut bench, stale, vec![change(ConfChangeType::AddLearnerNode, 4)]);
        assert!(with(Bug::StaleChangePeersApplied, || apply(&mut bench, add)).is_some());
    }

    #[test]
    fn destroy_before_applied() {
        let mut bench = Bench::new();
        let requests = vec![mutate(vec![put("k", "v")])];
        let write = bench.entry(Command::Write { epoch: EPOCH, requests }.encode());
        let (region_id, entries) = (REGION.into(), vec![write]);
        let committed = ApplyTask::Committed { region: region_id, entries, proposals: Vec::new() };
        let peer = metapb::Peer { id: 1, ..Default::default() };
        let destroy =
            ApplyTask::Destroy { region: region(REGION, "b", "y"), peer, removed_at: None };
        with(Bug::DestroyBeforeApplied, || bench.applier.handle(vec![committed, destroy]))
            .expect("apply");
        assert_eq!(bench.get("k").as_deref(), Some("v"), "it came back");
    }

    #[test]
    fn destroy_clears_neighbour() {
        let mut bench = Bench::new();
        bench.put_raw("z", "v");
        let peer = metapb::Peer { id: 1, ..Default::default() };
        let destroy =
            ApplyTask::Destroy { region: region(REGION, "b", "y"), peer, removed_at: None };
        with(Bug::DestroyClearsNeighbour, || bench.applier.handle(vec![destroy])).expect("apply");
        assert_eq!(bench.get("z"), None);
    }
}

//! The model step by step: cuts, merges and members, and what is void in it.

use super::*;
use proto::eraftpb::ConfChangeType;
use proto::flotillapb::admin::{self, Cmd};
use proto::flotillapb::{Admin, ChangePeers, Command, Mutation, Request, Session, mutation};
use proto::metapb::PeerRole;
use proto::pdpb;
use raft::{LogIndex, Term};

fn region(id: u64, start: &'static str, end: &'static str) -> metapb::Region {
    let peer = |n: u64| metapb::Peer { id: 10 * id + n, store_id: n, ..Default::default() };
    metapb::Region {
        id,
        start_key: start.into(),
        end_key: end.into(),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: vec![peer(1), peer(2), peer(3)],
    }
}

fn world() -> World {
    World::new(&[region(2, "", "m"), region(4, "m", "")], &region(9, "", ""))
}

/// Hands the region's next entry to the model.
fn give(
    world: &mut World,
    id: u64,
    kind: EntryKind,
    data: Bytes,
    context: Bytes,
) -> Result<(), Broken> {
    let index = LogIndex(world.region(id).map_or(0, |model| model.applied) + 1);
    world.committed(id, &Entry { index, term: Term(6), kind, data, context })
}

fn epoch_of(world: &World, id: u64) -> (u64, u64) {
    let epoch = world.region(id).unwrap().region.region_epoch.unwrap();
    (epoch.conf_ver, epoch.version)
}

fn command(world: &mut World, id: u64, epoch: (u64, u64), command: Command) -> Result<(), Broken> {
    let command = Command { conf_ver: epoch.0, version: epoch.1, ..command };
    give(world, id, EntryKind::Normal, command.encode_to_vec().into(), Bytes::new())
}

fn administer(world: &mut World, id: u64, cmd: Cmd) -> Result<(), Broken> {
    let epoch = epoch_of(world, id);
    command(
        world,
        id,
        epoch,
        Command { admin: Some(Admin { cmd: Some(cmd) }), ..Default::default() },
    )
}

fn write(world: &mut World, id: u64, epoch: (u64, u64), key: &'static str) -> Result<(), Broken> {
    let put = mutation::Put { cf: 0, key: key.into(), value: "1".into() };
    let mutation = Mutation { op: Some(mutation::Op::Put(put)) };
    let request = Request { mutations: vec![mutation], ..Default::default() };
    command(world, id, epoch, Command { requests: vec![request], ..Default::default() })
}

fn split(world: &mut World, id: u64, key: &'static str, new_id: u64) -> Result<(), Broken> {
    let new = admin::NewRegion {
        region_id: new_id,
        peer_ids: vec![10 * new_id + 1, 10 * new_id + 2, 10 * new_id + 3],
    };
    administer(world, id, Cmd::Split(admin::Split { keys: vec![key.into()], regions: vec![new] }))
}

fn prepare(world: &mut World, source: u64, target: u64) -> Result<(), Broken> {
    let target = Some((*world.region(target).unwrap().region).clone());
    administer(world, source, Cmd::PrepareMerge(admin::PrepareMerge { target }))
}

fn commit(world: &mut World, source: u64, target: u64, index: u64) -> Result<(), Broken> {
    let source = Some((*world.region(source).unwrap().region).clone());
    administer(world, target, Cmd::CommitMerge(admin::CommitMerge { source, index, term: 6 }))
}

#[test]
fn a_split_parts_data_and_a_write_of_the_old_epoch_is_void() {
    let mut world = world();
    write(&mut world, 2, (1, 1), "a").unwrap();
    write(&mut world, 2, (1, 1), "h").unwrap();
    split(&mut world, 2, "f", 20).unwrap();
    assert_eq!(epoch_of(&world, 2), (1, 2));
    assert_eq!(epoch_of(&world, 20), (1, 2));
    assert_eq!(world.region(20).unwrap().region.end_key, "m");
    assert_eq!((world.region(2).unwrap().data.len(), world.region(20).unwrap().data.len()), (1, 1));
    write(&mut world, 2, (1, 1), "h").unwrap();
    assert_eq!(world.region(2).unwrap().data.len(), 1, "of the old epoch");
    assert!(write(&mut world, 2, (1, 2), "h").is_err(), "outside of the region");
    assert_eq!(world.check_tiling(), Ok(()));
    assert_eq!(world.changes.splits, 1);
}

#[test]
fn a_merge_joins_ranges_data_and_sessions() {
    let mut world = world();
    let session = Session { client_id: 7, sequence: 3 };
    for id in [2, 4] {
        let open = Request {
            session: Some(Session { client_id: 7, sequence: 0 }),
            open_session: true,
            mutations: vec![],
        };
        command(&mut world, id, (1, 1), Command { requests: vec![open], ..Default::default() })
            .unwrap();
    }
    let once = Request { session: Some(session), ..Default::default() };
    command(&mut world, 4, (1, 1), Command { requests: vec![once], ..Default::default() }).unwrap();
    write(&mut world, 4, (1, 1), "x").unwrap();
    prepare(&mut world, 4, 2).unwrap();
    let index = world.region(4).unwrap().applied;
    write(&mut world, 4, (1, 1), "y").unwrap();
    assert_eq!(world.region(4).unwrap().data.len(), 1, "frozen");
    commit(&mut world, 4, 2, index).unwrap();
    assert_eq!(world.regions.get(&4).unwrap().life, Life::Ended { into: 2 });
    assert_eq!(world.region(2).unwrap().region.end_key, "");
    assert_eq!(world.region(2).unwrap().sessions[&7], 3);
    assert_eq!(world.data().len(), 1);
    assert_eq!(world.check_tiling(), Ok(()));
    let rollback = Cmd::RollbackMerge(admin::RollbackMerge { index });
    assert!(administer(&mut world, 4, rollback).is_err(), "both committed and undone");
}

#[test]
fn a_merge_that_was_undone_must_not_be_committed() {
    let mut world = world();
    prepare(&mut world, 4, 2).unwrap();
    let index = world.region(4).unwrap().applied;
    administer(&mut world, 4, Cmd::RollbackMerge(admin::RollbackMerge { index })).unwrap();
    let epoch = epoch_of(&world, 4);
    write(&mut world, 4, epoch, "x").unwrap();
    assert_eq!(world.region(4).unwrap().data.len(), 1, "it serves again");
    assert!(commit(&mut world, 4, 2, index).is_err());
}

/// A cut that was asked for before the freeze must not part a region that its neighbour will take whole.
#[test]
fn a_frozen_region_is_not_cut() {
    let mut world = world();
    prepare(&mut world, 4, 2).unwrap();
    let index = world.region(4).unwrap().applied;
    split(&mut world, 4, "t", 40).unwrap();
    assert_eq!(world.living().len(), 2);
    commit(&mut world, 4, 2, index).unwrap();
    assert_eq!(world.living().len(), 1);
}

#[test]
fn a_target_that_has_changed_takes_nothing_over() {
    let mut world = world();
    prepare(&mut world, 4, 2).unwrap();
    let index = world.region(4).unwrap().applied;
    let source = Some((*world.region(4).unwrap().region).clone());
    let late = admin::CommitMerge { source, index, term: 6 };
    let before = epoch_of(&world, 2);
    administer(&mut world, 2, Cmd::AbandonMerge(admin::AbandonMerge { source_region_id: 4 }))
        .unwrap();
    let admin = Some(Admin { cmd: Some(Cmd::CommitMerge(late)) });
    command(&mut world, 2, before, Command { admin, ..Default::default() }).unwrap();
    assert_eq!(world.living().len(), 2);
}

#[test]
fn members_come_as_learners_and_a_joint_change_has_two_steps() {
    let mut world = world();
    let change = |world: &mut World, changes: &[(u64, ConfChangeType)]| {
        let change = |(id, kind): &(u64, ConfChangeType)| {
            let peer = metapb::Peer { id: *id, store_id: *id % 10, ..Default::default() };
            pdpb::ChangePeer { peer: Some(peer), change_type: (*kind).into() }
        };
        let (conf_ver, version) = epoch_of(world, 2);
        let changes = changes.iter().map(change).collect::<Vec<_>>();
        let context = match changes.is_empty() {
            true => Bytes::new(),
            false => ChangePeers { conf_ver, version, changes }.encode_to_vec().into(),
        };
        give(world, 2, EntryKind::ConfChangeV2, Bytes::new(), context).unwrap();
        let roles = world.region(2).unwrap().region.peers.iter().map(metapb::Peer::role);
        roles.collect::<Vec<_>>()
    };
    use PeerRole::{DemotingVoter, IncomingVoter, Learner, Voter};
    let roles = change(&mut world, &[(24, ConfChangeType::AddLearnerNode)]);
    assert_eq!(roles, [Voter, Voter, Voter, Learner]);
    let both = [(24, ConfChangeType::AddNode), (21, ConfChangeType::AddLearnerNode)];
    assert_eq!(change(&mut world, &both), [DemotingVoter, Voter, Voter, IncomingVoter]);
    assert!(is_joint(&world.region(2).unwrap().region));
    assert_eq!(change(&mut world, &[]), [Learner, Voter, Voter, Voter]);
    assert_eq!(change(&mut world, &[(21, ConfChangeType::RemoveNode)]), [Voter, Voter, Voter]);
    assert_eq!(epoch_of(&world, 2), (5, 1));
    let model = world.region(2).unwrap();
    assert_eq!(model.members_before(FIRST_APPLIED + 1).last().unwrap().peers.len(), 3);
    let joint = model.members_before(FIRST_APPLIED + 3);
    assert!(
        is_joint(joint.last().unwrap()),
        "the entry that leaves is committed under the joint one"
    );
}

#[test]
fn entries_come_without_gaps() {
    let mut world = world();
    let entry = |index| Entry {
        index: LogIndex(index),
        term: Term(6),
        kind: EntryKind::Normal,
        data: Bytes::new(),
        context: Bytes::new(),
    };
    assert_eq!(world.committed(2, &entry(6)), Ok(()));
    assert_eq!(world.committed(2, &entry(6)), Ok(()), "the second store");
    assert!(world.committed(2, &entry(8)).is_err());
    assert!(world.committed(3, &entry(6)).is_err(), "no such region");
}

//! Messages that no honest store sends change nothing but a counter.

use proptest::prelude::*;
use proto::eraftpb;
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raftstore::StoreMsg;
use raftstore::store::DropReason;

use super::cluster::{Cluster, REGION};

fn peer(store: u64) -> Option<metapb::Peer> {
    Some(metapb::Peer { id: store * 10, store_id: store, ..Default::default() })
}

/// A heartbeat from store 2 to store 1, as honest as can be.
fn honest() -> RaftMessage {
    let message = eraftpb::Message {
        msg_type: eraftpb::MessageType::MsgHeartbeat.into(),
        to: 10,
        from: 20,
        term: 6,
        ..Default::default()
    };
    RaftMessage {
        region_id: REGION.get(),
        from_peer: peer(2),
        to_peer: peer(1),
        message: Some(message),
        ..Default::default()
    }
}

fn with(change: impl FnOnce(&mut RaftMessage, &mut eraftpb::Message)) -> RaftMessage {
    let mut outer = honest();
    let mut inner = outer.message.take().unwrap();
    change(&mut outer, &mut inner);
    outer.message = Some(inner);
    outer
}

#[test]
fn each_kind_of_nonsense_is_dropped_and_counted() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "v");
    let before = cluster.status(1);
    let kind = |kind: eraftpb::MessageType| with(move |_, inner| inner.msg_type = kind.into());
    let nonsense = [
        (RaftMessage { from_peer: None, ..honest() }, DropReason::Incomplete),
        (RaftMessage { message: None, ..honest() }, DropReason::Incomplete),
        (RaftMessage { to_peer: peer(2), ..honest() }, DropReason::WrongStore),
        (RaftMessage { region_id: 0, ..honest() }, DropReason::UnknownRegion),
        (RaftMessage { region_id: 99, ..honest() }, DropReason::UnknownRegion),
        (with(|_, inner| inner.to = 30), DropReason::WrongPeer),
        (RaftMessage { from_peer: peer(4), ..honest() }, DropReason::UnknownSender),
        (with(|_, inner| inner.from = 30), DropReason::UnknownSender),
        (with(|_, inner| inner.msg_type = 77), DropReason::Malformed),
        (kind(eraftpb::MessageType::MsgPropose), DropReason::WrongKind),
        (kind(eraftpb::MessageType::MsgTransferLeader), DropReason::WrongKind),
        (with(|_, inner| inner.term = u64::MAX), DropReason::RefusedByRaft),
    ];
    for (message, reason) in nonsense {
        let shown = format!("{message:?}");
        let count = |cluster: &mut Cluster| {
            let counters = cluster.node(1).store.status().counters;
            counters.messages_dropped.get(&reason).copied().unwrap_or(0)
        };
        let dropped = count(&mut cluster);
        cluster.send(1, StoreMsg::Raft(message));
        assert_eq!(count(&mut cluster), dropped + 1, "{reason:?}: {shown}");
    }
    cluster.settle();
    assert_eq!(cluster.status(1).raft.term, before.raft.term, "no term was poisoned");
    cluster.put(1, "k", "w");
}

/// A number a liar would choose: around what is true here, or absurd.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..20u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn entry() -> impl Strategy<Value = eraftpb::Entry> {
    (0..4i32, number(), number(), proptest::collection::vec(any::<u8>(), 0..8)).prop_map(
        |(entry_type, term, index, data)| eraftpb::Entry {
            entry_type,
            term,
            index,
            data: data.into(),
            ..Default::default()
        },
    )
}

fn snapshot() -> impl Strategy<Value = eraftpb::Snapshot> {
    (number(), number(), proptest::collection::vec(number(), 0..4)).prop_map(
        |(index, term, voters)| {
            let conf_state = Some(eraftpb::ConfState { voters, ..Default::default() });
            let metadata = Some(eraftpb::SnapshotMetadata { conf_state, index, term });
            eraftpb::Snapshot { metadata, ..Default::default() }
        },
    )
}

prop_compose! {
    fn lie()(
        msg_type in 0..22i32,
        from in prop_oneof![Just(20u64), Just(30), Just(10), number()],
        numbers in proptest::collection::vec(number(), 6),
        entries in proptest::collection::vec(entry(), 0..4),
        snapshot in proptest::option::of(snapshot()),
        reject in any::<bool>(),
        context in proptest::collection::vec(any::<u8>(), 0..40),
    ) -> RaftMessage {
        let &[term, log_term, index, commit, reject_hint, commit_term] = numbers.as_slice() else {
            unreachable!("six were asked for");
        };
        let message = eraftpb::Message {
            msg_type, to: 10, from, term, log_term, index, entries, commit, snapshot, reject,
            reject_hint, context: context.into(), commit_term, ..Default::default()
        };
        RaftMessage { from_peer: peer(from / 10), message: Some(message), ..honest() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A store that hears nothing but lies may lose its lead, and even what it believes; it does not panic (P1).
    #[test]
    fn no_message_makes_a_store_panic(
        leads in any::<bool>(),
        lies in proptest::collection::vec((lie(), any::<bool>()), 1..40),
    ) {
        let mut cluster = Cluster::led_by(if leads { 1 } else { 2 });
        cluster.put(cluster.leader(), "k", "v");
        cluster.isolate(1);
        for (lie, tick) in lies {
            cluster.send(1, StoreMsg::Raft(lie));
            if tick {
                cluster.tick(1);
            } else {
                cluster.settle();
            }
        }
    }
}

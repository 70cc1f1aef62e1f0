//! Each planted bug that can be shown by a staged scene does what it says; the simulator must find all of them by chance.
//! Only with the feature `planted`.

use proto::ids::PeerId;
use raftstore::command::WriteResult;
use raftstore::planted::{Bug, activate};
use raftstore::{ReadMode, StoreMsg};

use super::cluster::{Cluster, Slot, header, put};

/// Reverses a defence until the end of the scene.
pub(crate) struct Planted;

impl Planted {
    pub(crate) fn new(bug: Bug) -> Planted {
        activate(Some(bug));
        Planted
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        activate(None);
    }
}

#[test]
fn ack_before_sync_acknowledges_what_no_majority_has() {
    let mut cluster = Cluster::led_by(1);
    cluster.node(2).stall_log = true;
    cluster.node(3).stall_log = true;
    let _bug = Planted::new(Bug::AckBeforeSync);
    let slot = cluster.write(1, put("k", "v"));
    cluster.settle();
    assert_eq!(slot.take(), Some(Ok(WriteResult::Applied)));
}

#[test]
fn reply_before_commit_acknowledges_what_is_only_proposed() {
    let mut cluster = Cluster::led_by(1);
    cluster.isolate(1);
    let _bug = Planted::new(Bug::ReplyBeforeCommit);
    let slot = cluster.write(1, put("k", "v"));
    cluster.settle();
    assert_eq!(slot.take(), Some(Ok(WriteResult::Applied)));
}

#[test]
fn a_lease_kept_during_transfer_serves_beside_the_next_leader() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "k", "old");
    let _bug = Planted::new(Bug::LeaseKeptDuringTransfer);
    let (_slot, reply) = Slot::new();
    let to = PeerId::from(20);
    cluster.cut.insert((2, 1));
    cluster.cut.insert((3, 1));
    cluster.send(1, StoreMsg::TransferLeader { header: header(), to, reply });
    cluster.settle();
    cluster.put(2, "k", "new");
    assert_eq!(cluster.lease_read(1, "k"), Some(Some("old".to_owned())), "stale");
}

#[test]
fn a_lease_from_the_time_of_receipt_is_too_long() {
    let mut cluster = Cluster::led_by(1);
    let _bug = Planted::new(Bug::LeaseFromReceiveTime);
    cluster.node(2).stall_log = true;
    cluster.node(3).stall_log = true;
    let _write = cluster.write(1, put("k", "v"));
    cluster.settle();
    let sent = cluster.now;
    cluster.tick(2);
    cluster.node(2).stall_log = false;
    cluster.settle();
    cluster.now = sent + cluster.lease();
    assert!(cluster.lease_read(1, "k").is_some());
}

#[test]
fn a_read_before_applied_misses_what_was_committed() {
    let mut cluster = Cluster::led_by_with(1, |config| config.reads = ReadMode::ReadIndex);
    cluster.put(1, "k", "old");
    cluster.node(1).stall_apply = true;
    let _write = cluster.write(1, put("k", "new"));
    cluster.settle();
    let _bug = Planted::new(Bug::ReadBeforeApplied);
    let slot = cluster.ask_read(1);
    cluster.settle();
    let permit = slot.take().expect("let through").unwrap();
    assert_eq!(permit.read(|_| cluster.stored(1, "k")), Ok(Some("old".to_owned())));
}

#[test]
fn a_promise_that_overtakes_its_write_is_worth_nothing() {
    let mut cluster = Cluster::led_by(1);
    cluster.node(2).stall_log = true;
    cluster.node(3).stall_log = true;
    let _bug = Planted::new(Bug::PromiseOvertakesWrite);
    let slot = cluster.write(1, put("k", "v"));
    cluster.settle();
    // Asked again (heartbeats, appends after a rejected one), the followers speak of entries that are still being written.
    cluster.tick(20);
    let acknowledged = slot.take().is_some();
    let persisted = cluster.status(2).raft.persisted;
    assert!(acknowledged || persisted == cluster.status(2).raft.last_index);
}

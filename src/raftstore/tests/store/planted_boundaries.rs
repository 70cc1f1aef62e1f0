//! Each planted bug of cuts and merges does what it says. Only with the feature `planted`.

use proto::eraftpb;
use proto::flotillapb::PeerState;
use raftstore::Order;
use raftstore::command::{ClientId, WriteResult};
use raftstore::planted::Bug;

use super::cluster::{Cluster, append, put};
use super::merges::{LEFT, order_merge, target, two_regions};
use super::parts::{PART, PEER_OF_3, record, with_record_on_3};
use super::planted::Planted;
use super::regions::cut;
use super::splits::{WHOLE, can_be_torn, open_session};

#[test]
fn a_split_that_forgets_the_vote_lets_it_be_given_again() {
    let voted = eraftpb::HardState { term: 9, vote: 103, commit: 0 };
    let mut cluster = with_record_on_3(record(PeerState::Normal, PEER_OF_3), Some(voted));
    cluster.mute = Some((3, PART));
    let _bug = Planted::new(Bug::SplitForgetsVote);
    cluster.split(WHOLE, &["m"]);
    let after = cluster.region(3, PART).expect("real").raft;
    assert!(after.term.0 < 9 && after.vote.is_none());
}

#[test]
fn a_split_that_ignores_the_tombstone_brings_the_peer_back() {
    let mut cluster = with_record_on_3(record(PeerState::Tombstone, PEER_OF_3), None);
    let _bug = Planted::new(Bug::SplitIgnoresTombstone);
    cluster.split(WHOLE, &["m"]);
    cluster.tick(3);
    assert!(cluster.region(3, PART).is_some());
}

#[test]
fn a_split_in_two_batches_can_be_torn() {
    let _bug = Planted::new(Bug::SplitNotAtomic);
    assert!(can_be_torn(3), "some crash leaves the left part alone");
}

#[test]
fn a_version_that_is_not_bumped_stands_for_two_ranges() {
    let mut cluster = Cluster::led_by(1);
    let _bug = Planted::new(Bug::VersionNotBumped);
    let part = cluster.split(WHOLE, &["m"])[0];
    let version = |cluster: &Cluster, id| {
        let region = cluster.region(1, id).expect("there").region;
        region.region_epoch.map(|epoch| epoch.version)
    };
    assert_eq!((version(&cluster, WHOLE), version(&cluster, part)), (Some(2), Some(1)));
}

#[test]
fn a_delegate_that_outlives_the_split_answers_for_the_other_part() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "pear", "old");
    let _bug = Planted::new(Bug::SplitKeepsDelegate);
    cluster.split(WHOLE, &["m"]);
    cluster.put_anywhere("apple", "keeps the lease");
    assert_eq!(cluster.lease_read(1, "pear"), Some(Some("old".to_owned())));
}

#[test]
fn a_lease_renewed_during_the_split_serves_beside_the_new_part() {
    let mut cluster = Cluster::led_by(1);
    cluster.put(1, "pear", "old");
    cluster.node(1).stall_apply = true;
    let _bug = Planted::new(Bug::LeaseDuringSplit);
    let keys = vec![cut("m")];
    assert_eq!(cluster.order_region(WHOLE, Order::Split { keys }), Ok(()));
    let part = cluster.answer_split_requests(1)[0];
    cluster.until("a lead elsewhere", |cluster| {
        assert!(cluster.lease_read(1, "apple").is_some(), "in use, so it is renewed");
        cluster.leader_of(part).is_some()
    });
    cluster.put_anywhere("pear", "new");
    assert_eq!(cluster.lease_read(1, "pear"), Some(Some("old".to_owned())), "stale");
}

#[test]
fn sessions_that_are_not_copied_are_missed_by_a_retry() {
    let mut cluster = Cluster::led_by(1);
    cluster.send_anywhere("pear", open_session(7));
    cluster.send_anywhere("pear", append("pear", "a", 7, 1));
    let _bug = Planted::new(Bug::SessionsNotCopied);
    cluster.split(WHOLE, &["m"]);
    cluster.until_led();
    let retry = cluster.send_anywhere("pear", append("pear", "a", 7, 1));
    assert_eq!(retry, Some(Ok(WriteResult::SessionExpired { client: ClientId(7) })));
}

#[test]
fn a_frozen_region_that_serves_reads_is_stale_once_it_is_taken_over() {
    let (mut cluster, right) = two_regions();
    cluster.put_anywhere("pear", "old");
    cluster.tick(2);
    let header = cluster.header_of(right);
    cluster.node(3).stall_log = true;
    let _bug = Planted::new(Bug::SourceServesWhileMerging);
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.settle();
    let read = cluster.reader(1).read(&header, || cluster.now, |_| cluster.stored(1, "pear"));
    assert!(read.is_ok(), "{read:?}");
}

#[test]
fn a_merge_that_does_not_wait_for_all_leaves_a_store_behind() {
    let (mut cluster, right) = two_regions();
    cluster.crash(3);
    cluster.tick(40);
    let _bug = Planted::new(Bug::MergeNotAllMatched);
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.until("the merge", |cluster| cluster.region(1, right).is_none());
    cluster.until("the merge", |cluster| cluster.region(2, right).is_none());
    cluster.restart(3);
    cluster.tick(100);
    assert!(cluster.region(3, right).is_some(), "nobody has its last entries any more");
}

#[test]
fn a_rash_rollback_leaves_the_decision_to_two_logs() {
    let (mut cluster, right) = two_regions();
    cluster.node(3).stall_log = true;
    let before = cluster.header_of(LEFT).epoch;
    let _bug = Planted::new(Bug::RollbackUncertain);
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.until("the rollback", |cluster| {
        cluster.region(1, right).is_some_and(|status| {
            let version = status.region.region_epoch.map_or(0, |epoch| epoch.version);
            !status.merging && version > 1000
        })
    });
    assert_eq!(cluster.header_of(LEFT).epoch, before, "a CommitMerge would still take effect");
}

#[test]
fn a_target_that_does_not_wait_loses_what_its_source_had_still_to_apply() {
    let (mut cluster, right) = two_regions();
    cluster.mute = Some((3, right));
    let (header, target) = (cluster.header_of(right), target(&cluster, LEFT));
    let _write = cluster.write_with(1, header.clone(), put("plum", "v"));
    cluster.turn_only(1);
    let _bug = Planted::new(Bug::MergeBeforeSource);
    let slot = cluster.order(1, header, Order::Merge { target });
    assert_eq!(slot.take(), Some(Ok(())));
    cluster.until("the merge", |cluster| cluster.region(3, right).is_none());
    assert_eq!(cluster.stored(1, "plum").as_deref(), Some("v"));
    assert_eq!(cluster.stored(3, "plum"), None, "lost on this store");
}

#[test]
fn sessions_that_are_not_merged_are_missed_by_a_retry() {
    let (mut cluster, right) = two_regions();
    cluster.send_anywhere("pear", open_session(7));
    cluster.send_anywhere("pear", append("pear", "a", 7, 1));
    let _bug = Planted::new(Bug::SessionsNotMerged);
    assert_eq!(order_merge(&mut cluster, right, LEFT), Ok(()));
    cluster.until("the merge", |cluster| cluster.region(1, right).is_none());
    cluster.until_led();
    let retry = cluster.send_anywhere("pear", append("pear", "a", 7, 1));
    assert_eq!(retry, Some(Ok(WriteResult::SessionExpired { client: ClientId(7) })));
}

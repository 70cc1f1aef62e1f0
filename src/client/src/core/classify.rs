//! Region error → what to do next, and what is known about the write it answers. The one place where the variants of
//! `errorpb` are told apart; a new variant does not compile until it is classified here.

use std::time::Duration;

use proto::errorpb;
use proto::metapb::{Peer, Region};

/// What the caller of the failed attempt does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The store says who leads: go there at once.
    FollowLeader(Peer),
    /// The peer does not lead and does not know who does: wait, then try another peer.
    TryAnother,
    /// The store sent the regions as they are now: take them over and route again.
    AdoptRegions(Vec<Region>),
    /// What we know about the region is wrong: wait, then ask the scheduler.
    Refresh,
    /// The peer is right but not ready: wait at least so long, then ask it again.
    Wait(Duration),
    /// Asking again does not help.
    Fail,
}

/// What is known about a write whose attempt was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was not applied and never will be.
    NotApplied,
    /// It may have been applied, or still be.
    Ambiguous,
}

/// The classification of one region error.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What to do next.
    pub action: Action,
    /// What is known about a write.
    pub effect: Effect,
    /// The cause in words, for the error the user may see in the end.
    pub reason: String,
}

/// Tells what an `errorpb.Error` means for the one who asked.
///
/// `StaleCommand` is ambiguous for a write: a proposal whose leader has lost the lead may still be committed by the next
/// one. An error without any known variant is ambiguous too. Everything else is decided before the proposal or, the same
/// on every peer, when it is applied.
#[expect(clippy::too_many_lines, reason = "one exhaustive table")]
pub fn classify(error: errorpb::Error) -> Verdict {
    // No `..` here, so that a new field breaks the build.
    let errorpb::Error {
        message,
        not_leader,
        region_not_found,
        key_not_in_region,
        epoch_not_match,
        server_is_busy,
        stale_command,
        store_not_match,
        raft_entry_too_large,
        max_timestamp_not_synced,
        read_index_not_ready,
        proposal_in_merging_mode,
        data_is_not_ready,
        region_not_initialized,
        disk_full,
        recovery_in_progress,
        flashback_in_progress,
        flashback_not_prepared,
        is_witness,
        mismatch_peer_id,
        bucket_version_not_match,
    } = error;
    let verdict = |action, name: &str| {
        let reason = if message.is_empty() { name.to_owned() } else { message.clone() };
        Verdict { action, effect: Effect::NotApplied, reason }
    };
    if let Some(not_leader) = not_leader {
        return match not_leader.leader {
            Some(leader) => verdict(Action::FollowLeader(leader), "not the leader"),
            None => verdict(Action::TryAnother, "no leader known"),
        };
    }
    if let Some(epoch) = epoch_not_match {
        let action = if epoch.current_regions.is_empty() {
            Action::Refresh
        } else {
            Action::AdoptRegions(epoch.current_regions)
        };
        return verdict(action, "the region has changed");
    }
    if let Some(busy) = server_is_busy {
        let wait = Duration::from_millis(busy.backoff_ms.min(BUSY_WAIT_MS_MAX));
        return verdict(Action::Wait(wait), "the store is busy");
    }
    if stale_command.is_some() {
        let action =
            verdict(Action::TryAnother, "the leader changed while the request was in flight");
        return Verdict { effect: Effect::Ambiguous, ..action };
    }
    if let Some(large) = raft_entry_too_large {
        let name =
            format!("the request is too large for one log entry ({} bytes)", large.entry_size);
        return verdict(Action::Fail, &name);
    }
    if proposal_in_merging_mode.is_some() {
        return verdict(Action::Wait(Duration::ZERO), "the region is being merged");
    }
    if disk_full.is_some() {
        return verdict(Action::Wait(Duration::ZERO), "the store's disk is full");
    }
    if recovery_in_progress.is_some()
        || flashback_in_progress.is_some()
        || flashback_not_prepared.is_some()
    {
        return verdict(Action::Wait(Duration::ZERO), "the region is being recovered");
    }
    if max_timestamp_not_synced.is_some()
        || read_index_not_ready.is_some()
        || data_is_not_ready.is_some()
        || region_not_initialized.is_some()
    {
        return verdict(Action::TryAnother, "the peer is not ready");
    }
    if region_not_found.is_some()
        || key_not_in_region.is_some()
        || store_not_match.is_some()
        || is_witness.is_some()
        || mismatch_peer_id.is_some()
        || bucket_version_not_match.is_some()
    {
        return verdict(Action::Refresh, "the region has moved");
    }
    if message.contains(REPLY_TOO_LARGE) {
        return verdict(Action::Fail, "the answer is too large");
    }
    let unknown = verdict(Action::Refresh, "unknown region error");
    Verdict { effect: Effect::Ambiguous, ..unknown }
}

/// How a store says, inside the batched stream, that the answer would exceed its limit: the messages of raw reads have no
/// field for a refusal, so it comes as a region error without a variant.
const REPLY_TOO_LARGE: &str = "REPLY_BYTES_MAX";

/// A store may ask for a pause; it does not get to ask for a longer one than this.
const BUSY_WAIT_MS_MAX: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(id: u64) -> Peer {
        Peer { id, store_id: id, ..Peer::default() }
    }

    #[test]
    fn a_hint_is_followed_and_its_absence_makes_us_look_around() {
        let hinted = errorpb::NotLeader { region_id: 1, leader: Some(peer(3)) };
        let error = errorpb::Error { not_leader: Some(hinted), ..Default::default() };
        assert_eq!(classify(error).action, Action::FollowLeader(peer(3)));
        let blind = errorpb::NotLeader { region_id: 1, leader: None };
        let verdict = classify(errorpb::Error { not_leader: Some(blind), ..Default::default() });
        assert_eq!((verdict.action, verdict.effect), (Action::TryAnother, Effect::NotApplied));
    }

    #[test]
    fn only_lost_proposals_and_unknown_errors_are_ambiguous() {
        let stale =
            errorpb::Error { stale_command: Some(Default::default()), ..Default::default() };
        assert_eq!(classify(stale).effect, Effect::Ambiguous);
        assert_eq!(classify(errorpb::Error::default()).effect, Effect::Ambiguous);
        let busy =
            errorpb::Error { server_is_busy: Some(Default::default()), ..Default::default() };
        assert_eq!(classify(busy).effect, Effect::NotApplied);
    }

    #[test]
    fn an_empty_epoch_answer_does_not_spin() {
        let empty = errorpb::EpochNotMatch::default();
        let verdict =
            classify(errorpb::Error { epoch_not_match: Some(empty), ..Default::default() });
        assert_eq!(verdict.action, Action::Refresh);
    }

    #[test]
    fn an_answer_that_would_be_too_large_is_final() {
        let message = "RawScan: the result exceeds 4 bytes (REPLY_BYTES_MAX)".to_owned();
        let verdict = classify(errorpb::Error { message: message.clone(), ..Default::default() });
        assert_eq!(
            verdict,
            Verdict { action: Action::Fail, effect: Effect::NotApplied, reason: message }
        );
    }

    #[test]
    fn a_busy_store_cannot_ask_for_an_hour() {
        let busy = errorpb::ServerIsBusy { backoff_ms: 3_600_000, ..Default::default() };
        let verdict = classify(errorpb::Error { server_is_busy: Some(busy), ..Default::default() });
        assert_eq!(verdict.action, Action::Wait(Duration::from_millis(BUSY_WAIT_MS_MAX)));
    }
}

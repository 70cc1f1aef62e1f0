//! Merges, as the store that holds both regions sees them.
//!
//! A frozen source is looked at with every tick of the store that leads it:
//!
//! - Every peer has its last entry, and the target is led here, too → the target proposes `CommitMerge`.
//! - The target is led elsewhere → the source's lead goes there. (The source stands still; the target serves.)
//! - It takes too long → the target proposes `AbandonMerge`, which gives it another epoch. If it is led elsewhere its leader
//!   is asked to.
//! - It is certain that the target has another epoch than the source expects, and has not taken it over → the source
//!   proposes `RollbackMerge`. Nothing else ever does (M15). What is certain: see `apply::merge`.
//!
//! On a store whose target is asked to take over a source that is not as far, the source learns what is committed in its
//! log: the target's command says so, and the entry is here, because every peer had it before the command was proposed.

use std::collections::{BTreeMap, BTreeSet};

use proto::flotillapb::PeerState;
use proto::ids::RegionId;
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raft::{LogIndex, Term};

use super::{DropReason, Store};
use crate::apply::{Effect, Merging};
use crate::command::{Command, Epoch};
use crate::error::RegionError;
use crate::peer::records::{RegionRecord, is_past};
use crate::peer::{Peer, refused};
use crate::planted::{Bug, planted};

/// The merges that this store takes part in.
#[derive(Debug, Default)]
pub(super) struct Merges {
    /// Regions frozen here.
    frozen: BTreeSet<RegionId>,
    /// Targets that wait for their source to apply an entry that is committed.
    awaited: BTreeMap<RegionId, Awaited>,
}

#[derive(Clone, Copy, Debug)]
struct Awaited {
    source: RegionId,
    index: LogIndex,
    term: Term,
}

impl Merges {
    /// Those of a store that opens: the regions that were frozen.
    pub(super) fn frozen_at_start(frozen: impl IntoIterator<Item = RegionId>) -> Merges {
        Merges { frozen: frozen.into_iter().collect(), awaited: BTreeMap::new() }
    }
}

impl Store {
    /// An order to have a region, whose header has been checked, taken over by `target`.
    pub(super) fn order_merge(
        &mut self,
        id: RegionId,
        target: &metapb::Region,
    ) -> Result<(), RegionError> {
        let target_id = RegionId::from(target.id);
        let Some(peer) = self.peers.get(&target_id) else {
            return Err(refused(format!("region {target_id} has no peer on this store")));
        };
        peer.check_target(target)?;
        let known = peer.region().clone();
        for frozen in &self.merges.frozen {
            let into = self.peers.get(frozen).and_then(|peer| peer.merging());
            let into = into.map(|merging| RegionId::from(merging.target.id));
            if into == Some(id) || into == Some(target_id) {
                return Err(refused(format!("region {frozen} is just being merged")));
            }
        }
        let proposed =
            self.with_peer(id, |peer, context| peer.propose_prepare_merge(known, context));
        proposed.unwrap_or(Err(RegionError::RegionNotFound { region: id }))
    }

    /// What a command of a merge means for the store.
    pub(super) fn on_merge_effect(&mut self, region: RegionId, effect: Effect) {
        match effect {
            Effect::Frozen { .. } => {
                self.merges.frozen.insert(region);
                self.drive_merge(region);
            }
            Effect::NewVersion { .. } => {
                self.merges.frozen.remove(&region);
                // A source that waits for this region can be rolled back now.
                self.drive_merges();
            }
            Effect::AwaitsSource { source, index, term } => {
                self.merges.awaited.insert(region, Awaited { source, index, term });
                self.help_awaited();
            }
            Effect::Merged { source, region: merged } => {
                self.counters.merges += 1;
                self.merges.awaited.remove(&region);
                self.end_source(&source, merged);
            }
            _ => {}
        }
    }

    /// A tick has passed.
    pub(super) fn drive_merges(&mut self) {
        let peers = &self.peers;
        self.merges.frozen.retain(|id| peers.get(id).is_some_and(Peer::is_merging));
        for source in self.merges.frozen.clone() {
            self.drive_merge(source);
        }
        self.help_awaited();
    }

    /// Tells sources what is committed in their logs. Again and again: one that leads has to lose the lead first.
    fn help_awaited(&mut self) {
        let peers = &self.peers;
        self.merges.awaited.retain(|target, _| peers.contains_key(target));
        for Awaited { source, index, term } in self.merges.awaited.clone().into_values() {
            self.with_peer(source, |peer, _| peer.learn_commit(index, term));
        }
    }

    /// Does what can be done for a frozen region that is led here.
    fn drive_merge(&mut self, id: RegionId) {
        let Some(source) = self.peers.get(&id).filter(|peer| peer.is_leader()) else { return };
        let Some(merging) = source.merging().cloned() else { return };
        let waited = self.clock.count().saturating_sub(source.merging_since());
        let timeout = u64::from(self.config.merge_timeout_ticks);
        let ready = source.all_have(merging.index);
        let epoch = merging.target.region_epoch.unwrap_or_default();
        let rash = planted(Bug::RollbackUncertain) && waited >= timeout;
        if self.is_refused_by_target(source, &merging) || rash {
            self.with_peer(id, |peer, context| peer.propose_rollback(context));
            return;
        }
        let target = self.peers.get(&RegionId::from(merging.target.id));
        let Some(target) = target.filter(|target| target.region().region_epoch == Some(epoch))
        else {
            // What became of the target cannot be told for certain from here.
            return self.pass_lead_on(id, waited);
        };
        let expected = Epoch::from(&epoch);
        // One that is ready is worth some more patience, for the leads to meet.
        let give_up = waited >= if ready { 4 * timeout } else { timeout };
        if !ready && !give_up {
            return;
        }
        if target.is_leader() {
            self.decide_merge(id, merging, expected, give_up);
        } else if give_up {
            // The source's lead may not be able to follow: its peer there may be the one that is missing.
            let notice = target.abandon_notice(id, epoch);
            let due = waited.is_multiple_of(self.config.election_timeout_ticks.into());
            self.messages.extend(notice.filter(|_| due));
        } else if let Some(store) = target.leader_store() {
            self.with_peer(id, |peer, context| peer.hand_lead_to(store, context));
        }
    }

    /// Whether it is certain that the target has not taken `source` over, and never will.
    fn is_refused_by_target(&self, source: &Peer, merging: &Merging) -> bool {
        let expected = merging.target.region_epoch.unwrap_or_default();
        let id = RegionId::from(merging.target.id);
        let past_unmerged = |target: &metapb::Region| {
            let epoch = target.region_epoch.unwrap_or_default();
            !target.peers.is_empty()
                && is_past(epoch, expected)
                && epoch.version <= source.epoch().version
        };
        if let Some(target) = self.peers.get(&id) {
            return target.has_passed(expected) || past_unmerged(target.region());
        }
        // It may have been merged into a third one.
        let record = RegionRecord::read(self.engine.snapshot().as_ref(), id);
        record.ok().flatten().is_some_and(|target| {
            target.state == PeerState::Tombstone
                && (target.has_passed(expected) || past_unmerged(&target.region))
        })
    }

    /// Whether `source` was to be merged, as far as its peer here knows, and nobody here needs its data any more. A region
    /// that took its left neighbour over may be cut again so that another one has the start key it is known by here: that
    /// its start key has another holder proves nothing unless its own log speaks of a merge.
    pub(super) fn may_be_merged_away(&self, source: &Peer) -> bool {
        matches!(source.merge_target(), Ok(Some(_))) && !self.is_needed_by_target(source)
    }

    /// Whether a region of this store may still have to take `source`, which was merged away, over with the data that only
    /// `source` has here: its target has a peer, or may get one by a cut of another region that lags. A cut in the source's
    /// own log counts if it is known to be committed; if it is not, nobody is left to commit it, and the target will come
    /// by a snapshot.
    fn is_needed_by_target(&self, source: &Peer) -> bool {
        if source.has_unapplied() {
            return true;
        }
        let Ok(target) = source.merge_target() else { return true };
        // Every peer of a region has the command that ends it before that is carried out: one without it is not asked.
        let Some(target) = target else { return false };
        let id = RegionId::from(target.id);
        if let Some(here) = self.peers.get(&id) {
            // Past the expected epoch, by a snapshot, it has the data itself, or has passed them on.
            let epoch = here.region().region_epoch.unwrap_or_default();
            let passed = is_past(epoch, target.region_epoch.unwrap_or_default());
            return !(here.is_initialized() && passed);
        }
        // Only a region of an earlier version can be cut so that the target comes of it.
        let version = |region: &metapb::Region| region.region_epoch.unwrap_or_default().version;
        let mut around = self
            .overlapping(&target)
            .filter(|region| region.id != source.region().id && version(region) < version(&target));
        let may_be_born = self.graves.tombstone(id).is_none() && around.next().is_some();
        self.is_occupied(id) || may_be_born
    }

    /// Both leads are here: the target's log decides.
    fn decide_merge(&mut self, id: RegionId, merging: Merging, epoch: Epoch, give_up: bool) {
        let Some(source) = self.peers.get(&id).map(|peer| peer.region().clone()) else { return };
        let Merging { target, index, term } = merging;
        let command = if give_up {
            Command::AbandonMerge { epoch, source: id }
        } else {
            Command::CommitMerge { epoch, source, index, term }
        };
        // If it cannot be proposed now, the next tick tries again.
        self.with_peer(target.id.into(), |peer, context| {
            let _ = peer.propose_merge_decision(command, context);
        });
    }

    /// A source that waits for a region led here has given up.
    pub(super) fn on_abandon(&mut self, message: &RaftMessage) -> Result<(), DropReason> {
        let target = RegionId::from(message.region_id);
        let from = message.from_peer.ok_or(DropReason::Incomplete)?;
        let extra = message.extra_msg.as_ref().ok_or(DropReason::Incomplete)?;
        let peer = self.peers.get(&target).ok_or(DropReason::UnknownRegion)?;
        if peer.find_peer(from.id.into()).is_none_or(|known| known.store_id != from.store_id) {
            return Err(DropReason::UnknownSender);
        }
        if message.region_epoch != peer.region().region_epoch {
            return Err(DropReason::OldNews);
        }
        let (epoch, source) = (peer.epoch(), RegionId::from(extra.region_id));
        let command = Command::AbandonMerge { epoch, source };
        // If it cannot be proposed now, it will be asked for again.
        self.with_peer(target, |peer, context| {
            let _ = peer.propose_merge_decision(command, context);
        });
        Ok(())
    }

    /// Only another store can see what is to be done: each gets its turn.
    fn pass_lead_on(&mut self, id: RegionId, waited: u64) {
        let period = 4 * u64::from(self.config.election_timeout_ticks);
        if waited == 0 || !waited.is_multiple_of(period) {
            return;
        }
        let Some(peer) = self.peers.get(&id) else { return };
        let peers = &peer.region().peers;
        let at = peers.iter().position(|peer| peer.store_id == self.config.store_id.get());
        let next = at.map(|at| &peers[(at + 1) % peers.len()]).map(|peer| peer.store_id.into());
        if let Some(store) = next {
            self.with_peer(id, |peer, context| peer.hand_lead_to(store, context));
        }
    }

    /// A region was taken over. The applier has written its tombstone; what is left is this side's.
    fn end_source(&mut self, source: &metapb::Region, target: metapb::Region) {
        let id = RegionId::from(source.id);
        self.merges.frozen.remove(&id);
        if let Some(peer) = self.peers.get_mut(&id) {
            // Whatever was proposed there came after the freeze, and has no effect.
            peer.fail_all(&RegionError::EpochNotMatch { current: vec![target] });
        }
        let here = source.peers.iter().find(|peer| peer.store_id == self.config.store_id.get());
        self.bury(id, here.map(|peer| peer.id).unwrap_or_default().into(), None);
    }
}

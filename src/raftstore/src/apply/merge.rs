//! Taking a neighbour over, when the commands for it are applied.
//!
//! # Vocabulary
//! The *source* is frozen by its `PrepareMerge` and ends; the *target* takes over its range, its sessions and nothing else,
//! since the data of both lie in the same engine already.
//!
//! # Invariants
//! 1. A target takes a source over only at the epoch that the source expects, and only once the source has applied its
//!    `PrepareMerge` *on this store*: until then the target's entries wait here ([`Blocked`]).
//! 2. The source's end, the target's range, sessions and position are one batch.
//! 3. A merge is rolled back only when it is proved that the target has another epoch than the expected one, so never will
//!    take the source over, *and* has not done so before (M15). Either proof will do:
//!    - This store applied the change of the target's epoch from the log: the source would have gone with it. (The records
//!      tell what came by a snapshot instead.)
//!    - The target's version is not above the source's, which `PrepareMerge` raised [`MERGE_VERSION_GAP`] above both: a target
//!      that took the source over has a later version for ever.
//! 4. While it is frozen, the source's state hash stands still: how far its log goes beyond `PrepareMerge` differs between
//!    its peers when they are taken over, what is merged must not.

use std::collections::VecDeque;

use engine::Cf;
use proto::ids::RegionId;
use proto::metapb;
use raft::{Entry, LogIndex, Term};

use super::applier::{Applier, ApplyError};
use super::region::{Content, Context, RegionApply};
use super::task::{ApplyTurn, Effect, Proposal};
use crate::command::{Command, Epoch};
use crate::keys::{self, Key};
use crate::peer::records::RegionRecord;
use crate::planted::{Bug, planted};

/// How far a frozen region's version is above its own and its target's: more changes than a target can see while a merge
/// with it is being decided.
pub(crate) const MERGE_VERSION_GAP: u64 = 1000;

/// A region that waits to be taken over: what its `PrepareMerge` said, and where that stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Merging {
    /// The neighbour, as it must be found.
    pub target: metapb::Region,
    /// Of the `PrepareMerge`.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// A region whose next entry takes over a source that is not as far yet, on this store.
#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) source: RegionId,
    /// Of the source's `PrepareMerge`.
    pub(super) index: LogIndex,
    /// The `CommitMerge` and what followed it; as much as is committed meanwhile.
    pub(super) entries: VecDeque<Entry>,
    pub(super) proposals: Vec<Proposal>,
}

impl RegionApply {
    /// Freezes the region, if its epoch is still the one of the proposal.
    pub(super) fn prepare_merge(
        &mut self,
        epoch: Epoch,
        merging: Merging,
        context: &mut Context<'_>,
    ) {
        if epoch != self.epoch() || self.merging.is_some() {
            return;
        }
        let target = Epoch::from(&merging.target.region_epoch.unwrap_or_default());
        let mut region = self.region().clone();
        region.region_epoch = Some(metapb::RegionEpoch {
            conf_ver: epoch.conf_ver + 1,
            version: epoch.version.max(target.version) + MERGE_VERSION_GAP,
        });
        self.merging = Some(merging.clone());
        self.set_region(region.clone(), context);
        self.effects.push(Effect::Frozen { region, merging });
    }

    /// The region serves again, if it is the merge prepared at `index` that it waits for.
    pub(super) fn rollback_merge(&mut self, index: LogIndex, context: &mut Context<'_>) {
        if self.merging.as_ref().is_some_and(|merging| merging.index == index) {
            self.merging = None;
            self.bump_version(context);
        }
    }

    /// From now on no merge that expects `epoch` can take effect.
    pub(super) fn abandon_merge(&mut self, epoch: Epoch, context: &mut Context<'_>) {
        if epoch == self.epoch() {
            self.bump_version(context);
        }
    }

    fn bump_version(&mut self, context: &mut Context<'_>) {
        let mut region = self.region().clone();
        let mut epoch = region.region_epoch.unwrap_or_default();
        epoch.version += 1;
        region.region_epoch = Some(epoch);
        self.set_region(region.clone(), context);
        self.effects.push(Effect::NewVersion { region });
    }

    /// Takes `context.source` over. It is absent if the epoch is not the expected one any more.
    pub(super) fn commit_merge(&mut self, index: LogIndex, context: &mut Context<'_>) {
        let Some(source) = context.source.take() else { return };
        let taken = source.region().clone();
        let mut region = self.region().clone();
        if region.end_key == taken.start_key && !taken.start_key.is_empty() {
            region.end_key = taken.end_key.clone();
        } else {
            assert_eq!(taken.end_key, region.start_key, "a region takes over its neighbours only");
            assert!(!taken.end_key.is_empty(), "nothing lies behind the end of the keyspace");
            region.start_key = taken.start_key.clone();
        }
        let mut epoch = region.region_epoch.unwrap_or_default();
        epoch.version = epoch.version.max(source.epoch().version) + 1;
        region.region_epoch = Some(epoch);
        self.siblings.clear();
        self.set_region(region.clone(), context);
        if !planted(Bug::SessionsNotMerged) {
            self.sessions.absorb(&source.sessions, index, context.batch);
        }
        source.end(context);
        self.effects.push(Effect::Merged { region, source: taken });
    }

    /// The records of a region that was taken over: a tombstone, and nothing else.
    fn end(&self, context: &mut Context<'_>) {
        let (id, region) = (self.id(), self.region().clone());
        let peer = region.peers.iter().find(|peer| peer.id == self.peer.get()).copied();
        let mut record = RegionRecord::tombstone(region, peer, None);
        record.snapshot_epoch = self.snapshot_epoch;
        let batch = &mut *context.batch;
        batch.put_local(Key::RegionState(id).encode(), record.encode().to_vec());
        batch.delete_local(Key::ApplyState(id).encode());
        batch.delete_range(Cf::Raft, keys::session_range(id));
    }

    /// Whether this region has applied the `PrepareMerge` at `index`, and nothing since has undone it.
    ///
    /// # Panics
    /// If it has gone on without being frozen: then a merge was both rolled back and carried out (M15).
    pub(super) fn is_frozen_at(&self, index: LogIndex) -> bool {
        if planted(Bug::MergeBeforeSource) {
            return true;
        }
        if self.state.applied_index < index {
            return false;
        }
        let frozen = self.merging.as_ref().is_some_and(|merging| merging.index == index);
        assert!(frozen, "region {} is taken over though it was not left frozen", self.id());
        true
    }
}

/// What an entry needs of another region before it can be executed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Nothing: it takes no region over, or has no effect.
    None,
    /// This region, and it is there.
    Ready(RegionId),
    /// This region, and it has not applied so far, or is not known yet.
    Behind { source: RegionId, index: LogIndex, term: Term },
}

impl Applier {
    /// What the next entry of `region` needs.
    pub(super) fn source_of(&self, region: RegionId, content: &Content) -> Source {
        let Content::Command(Command::CommitMerge { epoch, source, index, term }) = content else {
            return Source::None;
        };
        if self.regions.get(&region).is_none_or(|target| target.epoch() != *epoch) {
            return Source::None;
        }
        let source = RegionId::from(source.id);
        if self.is_source_ready(source, *index) {
            Source::Ready(source)
        } else {
            Source::Behind { source, index: *index, term: *term }
        }
    }

    fn is_source_ready(&self, source: RegionId, index: LogIndex) -> bool {
        self.regions.get(&source).is_some_and(|source| source.is_frozen_at(index))
    }

    /// Takes out a region that is about to end. What it has still to tell, of a region that it took over itself, or of parts
    /// it was cut into, is told before its end is.
    pub(super) fn take_source(
        &mut self,
        source: RegionId,
        turn: &mut ApplyTurn,
    ) -> Option<RegionApply> {
        turn.results.extend(self.result(source));
        self.moved.remove(&source);
        self.taken_over.insert(source);
        self.regions.remove(&source)
    }

    /// Goes on with every region that has waited for another one and need not any more. Returns which.
    pub(super) fn resume(&mut self, turn: &mut ApplyTurn) -> Result<Vec<RegionId>, ApplyError> {
        let mut resumed = Vec::new();
        while let Some((region, blocked)) = self.next_unblocked() {
            self.run(region, blocked.entries, blocked.proposals, turn)?;
            resumed.push(region);
        }
        Ok(resumed)
    }

    fn next_unblocked(&mut self) -> Option<(RegionId, Blocked)> {
        if self.blocked.is_empty() {
            return None;
        }
        let regions = &self.regions;
        self.blocked.retain(|id| regions.get(id).is_some_and(|target| target.blocked.is_some()));
        let is_free = |region: &&RegionId| {
            let blocked = self.regions.get(region).and_then(|target| target.blocked.as_ref());
            blocked.is_some_and(|blocked| self.is_source_ready(blocked.source, blocked.index))
        };
        let region = *self.blocked.iter().find(is_free)?;
        self.blocked.remove(&region);
        let blocked = self.regions.get_mut(&region)?.blocked.take()?;
        Some((region, blocked))
    }
}

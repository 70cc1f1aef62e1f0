//! One of two neighbours takes the other over: what the peers of both do.
//!
//! # The source
//! Ordered to merge, its leader checks what it and the target look like *on this store* and proposes `PrepareMerge`, which
//! freezes it: it serves nobody, makes no snapshots, compacts nothing. Its leader waits until every peer has that entry on
//! its disk, so that no store is ever without the last of its data. What happens then is decided by the store that holds
//! both leads ([`crate::store`], `merge`).
//!
//! # Coming back
//! A merge that does not come to an end is abandoned in the target's log, and only then rolled back in the source's: there is
//! always one log that decides which of the two happened (M15).

use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb::{self, PeerRole};
use proto::raft_serverpb::{ExtraMessage, ExtraMessageType, RaftMessage};
use raft::{EntryKind, LogIndex, ProgressState, StorageError, Term};

use super::order::refused;
use super::records::has_passed;
use super::{Context, Peer};
use crate::apply::{Effect, Merging};
use crate::command::Command;
use crate::error::RegionError;
use crate::planted::{Bug, planted};

/// Bytes of entries read at once when looking for a `PrepareMerge`.
const SCAN_BYTES_MAX: u64 = 1 << 20;

impl Peer {
    /// Whether the region waits to be taken over.
    pub(crate) fn is_merging(&self) -> bool {
        self.merging.is_some()
    }

    /// By whom, and since when.
    pub(crate) fn merging(&self) -> Option<&Merging> {
        self.merging.as_ref()
    }

    /// The tick at which this store learned of it.
    pub(crate) fn merging_since(&self) -> u64 {
        self.merging_since
    }

    /// Whether this store has seen the region pass on from `epoch`, change by change, from its log.
    pub(crate) fn has_passed(&self, epoch: metapb::RegionEpoch) -> bool {
        has_passed(&self.region, self.snapshot_epoch, epoch)
    }

    /// Whether entries are committed and not applied yet.
    pub(crate) fn has_unapplied(&self) -> bool {
        self.raft.commit_index() > self.applied_index
    }

    /// The region that takes this one over, as it was when that was proposed, if it was: the command for it stands in the
    /// log, applied or not.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(crate) fn merge_target(&self) -> Result<Option<metapb::Region>, StorageError> {
        if let Some(merging) = &self.merging {
            return Ok(Some(merging.target.clone()));
        }
        let (mut from, to) = (self.applied_index.next(), self.raft.last_index().next());
        while from < to {
            let entries = self.raft.log().entries(from, to, SCAN_BYTES_MAX)?;
            for entry in &entries {
                if entry.kind == EntryKind::Normal
                    && let Ok(Command::PrepareMerge { target, .. }) =
                        Command::decode(entry.data.clone())
                {
                    return Ok(Some(target));
                }
            }
            from += entries.len().max(1) as u64;
        }
        Ok(None)
    }

    /// An effect of a command of a merge.
    pub(super) fn on_merge_effect(&mut self, effect: &Effect, context: &Context<'_>) {
        match effect {
            Effect::Frozen { region, merging } => {
                self.freeze(region.clone(), merging.clone(), context);
            }
            Effect::NewVersion { region } => {
                self.merging = None;
                self.set_region(region.clone(), context);
            }
            Effect::Merged { region, .. } => {
                self.siblings.clear();
                self.size.forget();
                self.set_region(region.clone(), context);
                // The others learn of the commit with the next message, and their parts of the source wait for it.
                self.raft.ping();
            }
            _ => {}
        }
    }

    fn freeze(&mut self, region: metapb::Region, merging: Merging, context: &Context<'_>) {
        self.merging = Some(merging);
        self.merging_since = context.tick;
        if planted(Bug::SourceServesWhileMerging) {
            self.region = std::sync::Arc::new(region);
            return;
        }
        self.set_region(region, context);
        let error = RegionError::Merging { region: self.id };
        self.writes.take_replies().into_iter().for_each(|reply| reply.fail(error.clone()));
        self.reads.take_replies().into_iter().for_each(|reply| reply.fail(error.clone()));
        self.raft.storage_mut().desk_mut().clear();
        // The others freeze with the next message.
        self.raft.ping();
    }

    /// Whether this region, led here, can be taken over by `target`.
    fn check_source(&self, target: &metapb::Region) -> Result<(), RegionError> {
        self.check_unchanging()?;
        let region = self.region();
        if !is_neighbour(region, target) {
            return Err(refused(format!("region {} is not a neighbour", target.id)));
        }
        check_membership(region)?;
        check_membership(target)?;
        if stores(region) != stores(target) {
            let reason = format!("the peers of region {} live on other stores", target.id);
            return Err(refused(reason));
        }
        for progress in self.raft.status().progress {
            let fed = progress.recent_active && progress.state != ProgressState::Snapshot;
            if progress.id.0 != self.me.id && !fed && !planted(Bug::MergeNotAllMatched) {
                let peer = progress.id;
                return Err(refused(format!("peer {peer} is down, or waits for a snapshot")));
            }
        }
        Ok(())
    }

    /// Whether this region, on this store, is `expected` and could take another over.
    pub(crate) fn check_target(&self, expected: &metapb::Region) -> Result<(), RegionError> {
        let region = self.region();
        if region.region_epoch != expected.region_epoch || region.peers.is_empty() {
            return Err(refused(format!("region {} is in another epoch here", region.id)));
        }
        if self.is_merging() {
            return Err(refused(format!("region {} is being merged itself", region.id)));
        }
        Ok(())
    }

    /// Proposes to freeze this region for `target`, which is as it looks on this store.
    pub(crate) fn propose_prepare_merge(
        &mut self,
        target: metapb::Region,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        self.check_source(&target)?;
        let epoch = self.epoch();
        self.propose_boundaries(Command::PrepareMerge { epoch, target }, context)
    }

    /// In the target's log: takes `source` over, or makes sure that nobody will.
    pub(crate) fn propose_merge_decision(
        &mut self,
        command: Command,
        context: &Context<'_>,
    ) -> Result<(), RegionError> {
        if self.leading.is_none() {
            return Err(self.not_leader());
        }
        self.check_unchanging()?;
        self.propose_boundaries(command, context)
    }

    /// In the source's log: it serves again.
    pub(crate) fn propose_rollback(&mut self, context: &Context<'_>) -> Result<(), RegionError> {
        let Some(index) = self.merging.as_ref().map(|merging| merging.index) else {
            return Ok(());
        };
        self.check_unchanging()?;
        self.propose_boundaries(Command::RollbackMerge { index }, context)
    }

    /// Whether every peer of this region, led here, has the entry at `index` on its disk.
    pub(crate) fn all_have(&self, index: LogIndex) -> bool {
        let progress = self.raft.status().progress;
        planted(Bug::MergeNotAllMatched) || progress.iter().all(|peer| peer.matched >= index)
    }

    /// The store whose peer leads this region, as far as this one knows.
    pub(crate) fn leader_store(&self) -> Option<StoreId> {
        let leader = self.raft.leader_id()?;
        self.find_peer(PeerId::from(leader.0)).map(|peer| peer.store_id.into())
    }

    /// Asks the leader of this region to see to it that `source`, which expects the epoch `epoch`, is not taken over.
    pub(crate) fn abandon_notice(
        &self,
        source: RegionId,
        epoch: metapb::RegionEpoch,
    ) -> Option<RaftMessage> {
        let leader = self.raft.leader_id()?;
        Some(RaftMessage {
            region_id: self.id.get(),
            from_peer: Some(self.me),
            to_peer: Some(*self.find_peer(PeerId::from(leader.0))?),
            region_epoch: Some(epoch),
            extra_msg: Some(ExtraMessage {
                r#type: ExtraMessageType::MsgAbandonMerge.into(),
                region_id: source.get(),
                ..ExtraMessage::default()
            }),
            ..RaftMessage::default()
        })
    }

    /// Hands the lead to the peer on `store`, if there is one and nothing is being handed over.
    pub(crate) fn hand_lead_to(&mut self, store: StoreId, context: &Context<'_>) {
        let there = self.region.peers.iter().find(|peer| peer.store_id == store.get());
        let there = there.map(|peer| PeerId::from(peer.id));
        if let Some(to) = there
            && to != self.peer_id()
            && self.is_leader()
            && !self.is_transferring()
        {
            self.transfer_lead(to, context);
        }
    }

    /// Another log says that the entry at `index`, of `term`, is committed in this one.
    pub(crate) fn learn_commit(&mut self, index: LogIndex, term: Term) {
        self.raft.learn_commit(index, term);
    }
}

fn is_neighbour(region: &metapb::Region, other: &metapb::Region) -> bool {
    let meets = |left: &metapb::Region, right: &metapb::Region| {
        !left.end_key.is_empty() && left.end_key == right.start_key
    };
    region.id != other.id && (meets(region, other) || meets(other, region))
}

fn check_membership(region: &metapb::Region) -> Result<(), RegionError> {
    if region.peers.iter().all(|peer| peer.role() == PeerRole::Voter) {
        Ok(())
    } else {
        Err(refused(format!("region {} has peers that are no voters", region.id)))
    }
}

fn stores(region: &metapb::Region) -> Vec<u64> {
    let mut stores: Vec<_> = region.peers.iter().map(|peer| peer.store_id).collect();
    stores.sort_unstable();
    stores
}

//! The applier: all regions of a store, one engine write per call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use engine::{Cf, Engine};
use proto::ids::{PeerId, RegionId};
use proto::metapb;
use raft::{Entry, LogIndex, Term};

use super::batch::ApplyBatch;
use super::merge::{Blocked, Source};
use super::region::{Content, Context, RegionApply};
use super::session::{SessionDecodeError, Sessions};
use super::state::ApplyState;
use super::task::{
    ApplyResult, ApplyTask, ApplyTurn, Effect, HashTask, Proposal, SnapshotMeta, SnapshotReady,
};
use crate::command::{CommandDecodeError, WriteResult};
use crate::keys::Key;
use crate::membership::conf_state;
use crate::peer::records::{Corruption, ReadError, RegionRecord};
use crate::planted::{Bug, planted};
use crate::reply::Reply;

/// A batch beyond this is written before the call goes on: bounds memory, and the time other writers wait.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Why the applier cannot go on. Always fatal to the store.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The engine failed.
    #[error("apply: {0}")]
    Engine(#[from] engine::Error),
    /// A committed entry is not understood. Another version of this program may understand it.
    #[error("region {region}, log entry {index}: {source}")]
    UnknownEntry {
        /// Whose entry.
        region: RegionId,
        /// Where it stands.
        index: LogIndex,
        /// What is wrong with it.
        source: CommandDecodeError,
    },
    /// The record of a region is not understood.
    #[error(transparent)]
    UnknownRecord(#[from] Corruption),
    /// A stored session is not understood.
    #[error(transparent)]
    UnknownSession(#[from] SessionDecodeError),
    /// The engine's record of the applied position is not what it must be.
    #[error("region {region}: the stored apply state {found:?} is not {expected:?}")]
    WrongState {
        /// Which region.
        region: RegionId,
        /// What is stored, if it can be read at all.
        found: Option<ApplyState>,
        /// What should be.
        expected: ApplyState,
    },
}

impl From<ReadError> for ApplyError {
    fn from(error: ReadError) -> ApplyError {
        match error {
            ReadError::Engine(error) => error.into(),
            ReadError::Corruption(corruption) => corruption.into(),
        }
    }
}

/// Turns committed entries into data, for all regions of a store. One owner, no threads of its own.
#[derive(Debug)]
pub struct Applier {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) regions: BTreeMap<RegionId, RegionApply>,
    batch: ApplyBatch,
    /// Regions whose position has changed since the last engine write.
    pub(super) moved: BTreeSet<RegionId>,
    /// Regions that wait to take another over.
    pub(super) blocked: BTreeSet<RegionId>,
    /// Regions that ended here and of which the loop may not know it.
    pub(super) taken_over: BTreeSet<RegionId>,
}

impl Applier {
    /// An applier that knows no region yet.
    pub fn new(engine: Arc<dyn Engine>) -> Applier {
        Applier {
            engine,
            regions: BTreeMap::new(),
            batch: ApplyBatch::default(),
            moved: BTreeSet::new(),
            blocked: BTreeSet::new(),
            taken_over: BTreeSet::new(),
        }
    }

    /// Executes tasks in order. When this returns, everything it reports is written (not synced).
    ///
    /// # Errors
    /// All fatal: the applier must not be used again, and nothing of the call may be answered.
    pub fn handle(&mut self, tasks: Vec<ApplyTask>) -> Result<ApplyTurn, ApplyError> {
        let mut turn = ApplyTurn::default();
        let (mut advanced, mut lives) = (BTreeSet::new(), Vec::new());
        for task in tasks {
            match task {
                ApplyTask::Register { region, peer, state } => {
                    advanced.insert(region.id.into());
                    self.register(region, peer, state)?;
                }
                ApplyTask::Committed { region, entries, proposals } => {
                    advanced.insert(region);
                    self.committed(region, entries, proposals, &mut turn)?;
                }
                ApplyTask::Snapshot { region, to } => {
                    self.flush()?;
                    turn.snapshots.extend(self.snapshot(region, to)?);
                }
                ApplyTask::Create { region, peer } => lives.push(self.create(region, peer)?),
                ApplyTask::Destroy { region, peer, removed_at } => {
                    // What its last entries mean to other regions must be told all the same.
                    let last_words = self.result(region.id.into());
                    lives.extend(last_words.filter(ApplyResult::concerns_others));
                    lives.push(self.destroy(region, peer, removed_at)?);
                }
            }
            for region in self.resume(&mut turn)? {
                advanced.insert(region);
            }
        }
        if !planted(Bug::ReplyBeforeWritten) {
            self.flush()?;
        }
        turn.results.extend(advanced.into_iter().filter_map(|region| self.result(region)));
        turn.results.append(&mut lives);
        Ok(turn)
    }

    /// Where a region stands, for status and tests.
    pub fn state(&self, region: RegionId) -> Option<&ApplyState> {
        self.regions.get(&region).map(|apply| &apply.state)
    }

    fn register(
        &mut self,
        region: metapb::Region,
        peer: PeerId,
        state: ApplyState,
    ) -> Result<(), ApplyError> {
        self.flush()?;
        let id = RegionId::from(region.id);
        let stored = self.engine.snapshot();
        check_state(id, stored.as_ref(), state)?;
        let sessions = Sessions::load(id, stored.as_ref())??;
        let mut apply = RegionApply::new(region, peer, state, sessions);
        let record = RegionRecord::read(stored.as_ref(), id)?;
        if let Some(record) = record {
            apply.merging = record.merging;
            apply.snapshot_epoch = record.snapshot_epoch;
        }
        // What was held back for what was known before is part of the new state, or will be handed over again.
        self.blocked.remove(&id);
        self.taken_over.remove(&id);
        self.regions.insert(id, apply);
        Ok(())
    }

    fn committed(
        &mut self,
        region: RegionId,
        entries: Vec<Entry>,
        proposals: Vec<Proposal>,
        turn: &mut ApplyTurn,
    ) -> Result<(), ApplyError> {
        assert!(!entries.is_empty(), "region {region}: nothing to apply");
        // The loop may hand over what was committed before it heard that the region was taken over.
        if self.taken_over.contains(&region) {
            return Ok(());
        }
        let mut proposals = proposals;
        if let Some(blocked) = self.apply_mut(region).blocked.as_mut() {
            blocked.entries.extend(entries);
            blocked.proposals.append(&mut proposals);
            return Ok(());
        }
        self.run(region, entries.into(), proposals, turn)
    }

    fn apply_mut(&mut self, region: RegionId) -> &mut RegionApply {
        let apply = self.regions.get_mut(&region);
        apply.unwrap_or_else(|| panic!("region {region} is not registered"))
    }

    /// Executes entries, until one of them has to wait for another region.
    pub(super) fn run(
        &mut self,
        region: RegionId,
        mut entries: VecDeque<Entry>,
        proposals: Vec<Proposal>,
        turn: &mut ApplyTurn,
    ) -> Result<(), ApplyError> {
        let mut proposals = Proposals(proposals);
        proposals.0.reverse();
        while let Some(entry) = entries.pop_front() {
            let content = Content::decode(region, &entry)?;
            // What a change of boundaries looks at must be in the engine.
            if content.concerns_other_regions() {
                self.flush()?;
            }
            let source = match self.source_of(region, &content) {
                Source::None => None,
                Source::Ready(source) => self.take_source(source, turn),
                Source::Behind { source, index, term } => {
                    entries.push_front(entry);
                    proposals.0.reverse();
                    let proposals = proposals.0;
                    let blocked = Blocked { source, index, entries, proposals };
                    let apply = self.apply_mut(region);
                    apply.blocked = Some(blocked);
                    apply.effects.push(Effect::AwaitsSource { source, index, term });
                    self.blocked.insert(region);
                    return Ok(());
                }
            };
            let replies = proposals.take(entry.index, entry.term);
            let apply = self.regions.get_mut(&region);
            let apply = apply.unwrap_or_else(|| panic!("region {region} is not registered"));
            let mut context = Context {
                engine: self.engine.as_ref(),
                batch: &mut self.batch,
                replies: &mut turn.replies,
                source,
            };
            let created = apply.apply(entry, content, replies, &mut context)?;
            self.moved.insert(region);
            if std::mem::take(&mut apply.hash_due) {
                turn.hashes.push(self.freeze(region)?);
            }
            if !created.is_empty() && planted(Bug::SplitNotAtomic) {
                self.flush()?;
            }
            for part in created {
                self.moved.insert(part.id());
                self.regions.insert(part.id(), part);
            }
            if self.batch.size_bytes() > BATCH_BYTES_MAX {
                self.flush()?;
            }
        }
        assert!(proposals.0.is_empty(), "region {region}: a proposal beyond the entries");
        Ok(())
    }

    /// The data of a region after the entry just executed.
    fn freeze(&mut self, region: RegionId) -> Result<HashTask, ApplyError> {
        self.flush()?;
        let apply = &self.regions[&region];
        let (region, index) = (apply.region().clone(), apply.state.applied_index);
        Ok(HashTask { region, index, engine: self.engine.snapshot() })
    }

    /// Writes everything executed so far, the positions with the data.
    pub(super) fn flush(&mut self) -> Result<(), ApplyError> {
        let mut apart = ApplyBatch::default();
        for region in std::mem::take(&mut self.moved) {
            if let Some(apply) = self.regions.get(&region) {
                let batch =
                    if planted(Bug::ApplyStateNotInBatch) { &mut apart } else { &mut self.batch };
                batch.put_local(Key::ApplyState(region).encode(), apply.state.encode());
            }
        }
        apart.write(self.engine.as_ref())?;
        self.batch.write(self.engine.as_ref())?;
        Ok(())
    }

    /// The frozen state of a region; everything executed has been written. Nothing for a region that is gone.
    fn snapshot(&self, region: RegionId, to: PeerId) -> Result<Option<SnapshotReady>, ApplyError> {
        let Some(apply) = self.regions.get(&region) else { return Ok(None) };
        // Whoever installed it would not know that it is frozen.
        if apply.merging.is_some() {
            return Ok(None);
        }
        let engine = self.engine.snapshot();
        if is_overtaken(region, engine.as_ref(), apply.state)? {
            return Ok(None);
        }
        check_state(region, engine.as_ref(), apply.state)?;
        let ApplyState { applied_index, applied_term, state_hash, .. } = apply.state;
        let mut index = applied_index;
        if planted(Bug::SnapshotWrongIndex) {
            index = applied_index.next();
        }
        let meta = SnapshotMeta {
            index,
            term: applied_term,
            conf_state: conf_state(apply.region()),
            region: apply.region().clone(),
            state_hash,
        };
        Ok(Some(SnapshotReady { region, to, meta, engine }))
    }

    pub(super) fn result(&mut self, region: RegionId) -> Option<ApplyResult> {
        let apply = self.regions.get_mut(&region)?;
        Some(ApplyResult {
            region,
            applied_index: apply.state.applied_index,
            applied_term: apply.state.applied_term,
            state_hash: apply.state.state_hash,
            effects: std::mem::take(&mut apply.effects),
            growth: std::mem::take(&mut apply.growth),
        })
    }
}

/// Whether the peer has installed a snapshot while an order of its time as leader was waiting here: what it would get now is
/// not what it ordered, and it has stepped down since. The installed state is registered next.
fn is_overtaken(
    region: RegionId,
    engine: &dyn engine::Snapshot,
    known: ApplyState,
) -> Result<bool, ApplyError> {
    let found = stored_state(region, engine)?;
    Ok(found.is_some_and(|found| found.applied_index > known.applied_index))
}

fn stored_state(
    region: RegionId,
    engine: &dyn engine::Snapshot,
) -> Result<Option<ApplyState>, ApplyError> {
    let stored = engine.get(Cf::Raft, &Key::ApplyState(region).encode())?;
    Ok(stored.as_deref().and_then(ApplyState::decode))
}

/// The stored position is the one somebody believes in (the other half of I10).
fn check_state(
    region: RegionId,
    engine: &dyn engine::Snapshot,
    expected: ApplyState,
) -> Result<(), ApplyError> {
    let found = stored_state(region, engine)?;
    if found == Some(expected) {
        Ok(())
    } else {
        Err(ApplyError::WrongState { region, found, expected })
    }
}

/// Proposals of the entries at hand, the next one last.
struct Proposals(Vec<Proposal>);

impl Proposals {
    /// The replies that wait for exactly this entry. Those that wait for an entry that was overtaken, by index or by term,
    /// are dropped, which answers that they are stale.
    fn take(&mut self, index: LogIndex, term: Term) -> Vec<Reply<WriteResult>> {
        let mut replies = Vec::new();
        while let Some(next) = self.0.pop_if(|proposal| proposal.index <= index) {
            let same_term = next.term == term || planted(Bug::ProposalMatchedByIndexOnly);
            if next.index == index && same_term {
                replies = next.replies;
            }
        }
        replies
    }
}

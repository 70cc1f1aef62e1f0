//! One region's state machine: executes entries into the shared batch.

use bytes::{Bytes, BytesMut};
use engine::{Cf, Engine, Op};
use proto::flotillapb::PeerState;
use proto::ids::{PeerId, RegionId};
use proto::limits::VALUE_BYTES_MAX;
use proto::metapb;
use raft::{Entry, EntryKind, LogIndex, Term};

use super::ApplyError;
use super::batch::ApplyBatch;
use super::hash::StateHash;
use super::merge::{Blocked, Merging};
use super::session::{Sessions, Verdict};
use super::state::ApplyState;
use super::task::{Answered, Effect, Growth};
use crate::command::{Command, Epoch, Mutation, Request, Session, WriteResult};
use crate::error::RegionError;
use crate::keys::{self, Key, RawCf};
use crate::peer::records::RegionRecord;
use crate::planted::{Bug, planted};
use crate::reply::Reply;

/// What execution needs beside the region: the seams of one call.
pub(super) struct Context<'a> {
    /// What is written already.
    pub(super) engine: &'a dyn Engine,
    /// What will be.
    pub(super) batch: &'a mut ApplyBatch,
    /// Replies that fall due once it is.
    pub(super) replies: &'a mut Vec<Answered>,
    /// The region that the entry takes over, if it does.
    pub(super) source: Option<RegionApply>,
}

/// What an entry asks for.
#[derive(Debug)]
pub(super) enum Content {
    /// The first entry of a new leader.
    Nothing,
    /// A command.
    Command(Command),
    /// A change of the membership.
    ConfChange,
}

impl Content {
    /// The content of an entry of `region`.
    pub(super) fn decode(region: RegionId, entry: &Entry) -> Result<Content, ApplyError> {
        match entry.kind {
            EntryKind::Normal if entry.data.is_empty() => Ok(Content::Nothing),
            EntryKind::Normal => {
                let index = entry.index;
                let unknown = |source| ApplyError::UnknownEntry { region, index, source };
                Command::decode(entry.data.clone()).map(Content::Command).map_err(unknown)
            }
            EntryKind::ConfChange | EntryKind::ConfChangeV2 => Ok(Content::ConfChange),
        }
    }

    /// Whether it looks at, or changes, records of other regions: these must be in the engine.
    pub(super) fn concerns_other_regions(&self) -> bool {
        matches!(self, Content::Command(Command::Split { .. } | Command::CommitMerge { .. }))
    }
}

/// One region's state machine.
#[derive(Debug)]
pub(super) struct RegionApply {
    id: RegionId,
    region: metapb::Region,
    /// What it was cut into beside `region`, as of the last cut.
    pub(super) siblings: Vec<metapb::Region>,
    /// This store's peer.
    pub(super) peer: PeerId,
    /// The entry that removed this store's peer, if one has.
    pub(super) removed_at: Option<(LogIndex, Term)>,
    /// As in the region's record.
    pub(super) snapshot_epoch: Option<metapb::RegionEpoch>,
    pub(super) state: ApplyState,
    pub(super) sessions: Sessions,
    /// Present while it waits to be taken over.
    pub(super) merging: Option<Merging>,
    /// Present while it waits to take another over.
    pub(super) blocked: Option<Blocked>,
    /// Consequences not yet reported.
    pub(super) effects: Vec<Effect>,
    /// The last entry wants the data as of now hashed.
    pub(super) hash_due: bool,
    /// The same for the amount of data.
    pub(super) growth: Growth,
}

impl RegionApply {
    pub(super) fn new(
        region: metapb::Region,
        peer: PeerId,
        state: ApplyState,
        sessions: Sessions,
    ) -> RegionApply {
        let id = region.id.into();
        RegionApply {
            id,
            region,
            siblings: Vec::new(),
            peer,
            removed_at: None,
            snapshot_epoch: None,
            state,
            sessions,
            merging: None,
            blocked: None,
            effects: Vec::new(),
            hash_due: false,
            growth: Growth::default(),
        }
    }

    pub(super) fn id(&self) -> RegionId {
        self.id
    }

    /// The entry that removed this store's peer, if one has.
    pub(super) fn removed_at(&self) -> Option<(LogIndex, Term)> {
        self.removed_at
    }

    pub(super) fn region(&self) -> &metapb::Region {
        &self.region
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch::from(&self.region.region_epoch.unwrap_or_default())
    }

    /// The region has become another: its record joins the batch.
    pub(super) fn set_region(&mut self, region: metapb::Region, context: &mut Context<'_>) {
        let me = region.peers.iter().find(|peer| peer.id == self.peer.get()).copied();
        // Once it is removed its id is what counts.
        let me = me.unwrap_or_else(|| metapb::Peer { id: self.peer.get(), ..Default::default() });
        let mut record = RegionRecord::normal(region.clone(), Some(me));
        record.removed_at = self.removed_at;
        record.snapshot_epoch = self.snapshot_epoch;
        if let Some(merging) = &self.merging {
            record.state = PeerState::Merging;
            record.merging = Some(merging.clone());
        }
        context.batch.put_local(Key::RegionState(self.id).encode(), record.encode().to_vec());
        self.region = region;
    }

    /// The digest that a new part of this region starts from.
    pub(super) fn hash_of_part(&self, part: RegionId) -> u64 {
        let mut hash = StateHash(self.state.state_hash);
        hash.number(part.get());
        hash.0
    }

    /// Executes the next entry. `replies` belong to its requests, or are empty. Returns regions that have come to be.
    pub(super) fn apply(
        &mut self,
        entry: Entry,
        content: Content,
        replies: Vec<Reply<WriteResult>>,
        context: &mut Context<'_>,
    ) -> Result<Vec<RegionApply>, ApplyError> {
        let (index, term) = (entry.index, entry.term);
        assert_eq!(index, self.state.applied_index.next(), "entries are applied once, in order");
        assert!(term >= self.state.applied_term, "terms never decrease along the log");
        let mut hash = StateHash(self.state.state_hash);
        hash.entry(index, term);
        let (mut created, frozen) = (Vec::new(), self.merging.is_some());
        match content {
            Content::Nothing => {}
            Content::Command(Command::Write { epoch, requests }) => {
                let at = Position { index, epoch };
                self.write(at, requests, replies, &mut hash, context)?;
            }
            Content::Command(Command::CompactLog { index, term }) => self.compact_log(index, term),
            Content::Command(Command::Split { epoch, keys, regions }) => {
                created = self.split(epoch, &keys, &regions, context)?;
                hash.number(self.epoch().version);
            }
            Content::Command(Command::PrepareMerge { epoch, target }) => {
                let merging = Merging { target, index, term };
                self.prepare_merge(epoch, merging, context);
                hash.number(self.epoch().version);
            }
            Content::Command(Command::CommitMerge { .. }) => {
                let theirs = context.source.as_ref().map(|source| source.state.state_hash);
                self.commit_merge(index, context);
                hash.number(theirs.unwrap_or_default());
                hash.number(self.epoch().version);
            }
            Content::Command(Command::RollbackMerge { index }) => {
                self.rollback_merge(index, context);
                hash.number(self.epoch().version);
            }
            Content::Command(Command::AbandonMerge { epoch, .. }) => {
                self.abandon_merge(epoch, context);
                hash.number(self.epoch().version);
            }
            Content::Command(Command::ComputeHash) => self.hash_due = true,
            Content::Command(Command::VerifyHash { index, hash }) => {
                self.effects.push(Effect::VerifyHash { index, hash });
            }
            Content::ConfChange => {
                self.change_peers(entry, context)?;
                hash.number(self.epoch().conf_ver);
            }
        }
        self.state.applied_index = index;
        self.state.applied_term = term;
        if !(frozen && self.merging.is_some()) {
            self.state.state_hash = hash.0;
        }
        Ok(created)
    }

    fn write(
        &mut self,
        at: Position,
        requests: Vec<Request>,
        replies: Vec<Reply<WriteResult>>,
        hash: &mut StateHash,
        context: &mut Context<'_>,
    ) -> Result<(), ApplyError> {
        let awaited = !replies.is_empty();
        assert!(!awaited || replies.len() == requests.len(), "one reply for each request");
        let mut replies = replies.into_iter();
        let version = self.region.region_epoch.as_ref().map_or(0, |epoch| epoch.version);
        if at.epoch.version != version && !planted(Bug::EpochNotCheckedAtApply) {
            let error = self.epoch_not_match();
            context.replies.extend(replies.map(|reply| (reply, Err(error.clone()))));
            return Ok(());
        }
        for request in requests {
            let result = self.request(at.index, request, hash, context)?;
            hash.verdict(&result);
            if let Some(reply) = replies.next() {
                context.replies.push((reply, Ok(result)));
            }
        }
        Ok(())
    }

    /// With all that the region was cut into, so that the client need not ask the scheduler.
    fn epoch_not_match(&self) -> RegionError {
        let current = std::iter::once(&self.region).chain(&self.siblings).cloned();
        RegionError::EpochNotMatch { current: current.collect() }
    }

    fn request(
        &mut self,
        index: LogIndex,
        request: Request,
        hash: &mut StateHash,
        context: &mut Context<'_>,
    ) -> Result<WriteResult, ApplyError> {
        match request {
            Request::OpenSession { client } => {
                self.sessions.open(client, index, context.batch);
                Ok(WriteResult::Applied)
            }
            Request::Mutate { mutations, session: None } => self.mutate(mutations, hash, context),
            Request::Mutate { mutations, session: Some(session) } => {
                self.mutate_once(index, session, mutations, hash, context)
            }
        }
    }

    fn mutate_once(
        &mut self,
        index: LogIndex,
        session: Session,
        mutations: Vec<Mutation>,
        hash: &mut StateHash,
        context: &mut Context<'_>,
    ) -> Result<WriteResult, ApplyError> {
        match self.sessions.verdict(session) {
            Verdict::Fresh => {
                let result = self.mutate(mutations, hash, context)?;
                self.sessions.record(session, result.clone(), index, context.batch);
                Ok(result)
            }
            Verdict::Repeated(_) if planted(Bug::SessionNotDeduplicated) => {
                self.mutate(mutations, hash, context)
            }
            Verdict::Repeated(result) | Verdict::Refused(result) => {
                self.sessions.touch(session.client, index, context.batch);
                Ok(result)
            }
        }
    }

    /// Executes the mutations of one request: all of them or, if one is refused, none.
    fn mutate(
        &mut self,
        mutations: Vec<Mutation>,
        hash: &mut StateHash,
        context: &mut Context<'_>,
    ) -> Result<WriteResult, ApplyError> {
        let mut result = WriteResult::Applied;
        for mutation in mutations {
            match mutation {
                Mutation::Put { cf, key, value } => {
                    let key = self.engine_key(cf, &key);
                    context.batch.stage(Op::Put { cf: Cf::Raw, key, value });
                }
                Mutation::Delete { cf, key } => {
                    let key = self.engine_key(cf, &key);
                    context.batch.stage(Op::Delete { cf: Cf::Raw, key });
                }
                Mutation::DeleteRange { cf, start, end } => {
                    let (start, end) = self.engine_range(cf, start, end);
                    context.batch.stage(Op::DeleteRange { cf: Cf::Raw, start, end });
                }
                Mutation::Append { cf, key, value } => {
                    let key = self.engine_key(cf, &key);
                    let old = context.batch.read(context.engine, &key)?;
                    match appended(old, &value) {
                        Ok(value) => {
                            let value_bytes = value.len() as u64;
                            result = WriteResult::Appended { value_bytes };
                            context.batch.stage(Op::Put { cf: Cf::Raw, key, value });
                        }
                        Err(reason) => {
                            context.batch.refuse();
                            return Ok(WriteResult::Refused { reason });
                        }
                    }
                }
            }
        }
        context.batch.staged().iter().for_each(|op| self.growth.add(op));
        context.batch.accept(hash);
        Ok(result)
    }

    /// The engine's key of a user key that the proposer has found to belong here.
    fn engine_key(&self, cf: RawCf, key: &[u8]) -> Bytes {
        let metapb::Region { start_key, end_key, .. } = &self.region;
        let inside = key >= &start_key[..] && (end_key.is_empty() || key < &end_key[..]);
        assert!(
            inside || planted(Bug::EpochNotCheckedAtApply),
            "a write to region {} lies outside of it (I8)",
            self.id
        );
        keys::raw(cf, key)
    }

    /// The engine's range of the part of `[start, end)` that belongs here.
    fn engine_range(&self, cf: RawCf, start: Bytes, end: Bytes) -> (Bytes, Bytes) {
        let metapb::Region { start_key, end_key, .. } = &self.region;
        let start = start.max(start_key.clone());
        let end = match (end.is_empty(), end_key.is_empty()) {
            (true, _) => end_key.clone(),
            (false, true) => end,
            (false, false) => end.min(end_key.clone()),
        };
        keys::raw_bounds(cf, &start, &end)
    }

    fn compact_log(&mut self, index: LogIndex, term: Term) {
        // Two leaders may each have asked; the later one may ask for less.
        if index <= self.state.truncated_index {
            return;
        }
        assert!(
            index <= self.state.applied_index,
            "an entry not applied yet must not be compacted"
        );
        self.state.truncated_index = index;
        self.state.truncated_term = term;
        self.effects.push(Effect::CompactLog { index, term });
    }
}

/// Where a write command stands in the log, and what it assumed.
#[derive(Clone, Copy)]
struct Position {
    index: LogIndex,
    epoch: Epoch,
}

/// The value after an append, or why it cannot be.
fn appended(old: Option<Bytes>, added: &Bytes) -> Result<Bytes, String> {
    let old = old.unwrap_or_default();
    let size_bytes = old.len() + added.len();
    if size_bytes > VALUE_BYTES_MAX {
        return Err(format!("value would have {size_bytes} bytes; the limit is {VALUE_BYTES_MAX}"));
    }
    if old.is_empty() {
        return Ok(added.clone());
    }
    let mut value = BytesMut::with_capacity(size_bytes);
    value.extend_from_slice(&old);
    value.extend_from_slice(added);
    Ok(value.freeze())
}

//! The end of a peer.
//!
//! # Steps, and what a crash after each leaves
//! 1. *Doomed*: something has shown that the peer is no longer a member. The peer goes on until the end of the turn, or until
//!    what it has under way (a registration, a snapshot) is over. A crash: it will be found out again.
//! 2. *Dying*: the peer is gone from the loop, whoever waited is answered, the applier has its last task. Its region's range
//!    stays occupied, and whatever comes for the region is dropped.
//! 3. The applier has written the tombstone in one batch with the end of the data. The range is free. The log and the hard
//!    state go with the next log write; a crash before that leaves them beside the tombstone, and opening deletes them.
//! 4. That log write is durable, and with it, because there is one log for all writes, the tombstone. Now a peer with a
//!    higher id may come.
//!
//! # What a tombstone does
//! It keeps its peer and all earlier ones from coming back (M6, I9). And it answers requests for a vote: those who still
//! count on the peer's vote learn the commit index of its removal and so that they need it no longer. Without that a group
//! of two could lose its second half before the first half knew.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Cf, Engine, WriteBatch};
use proto::flotillapb::PeerState;
use proto::ids::{PeerId, RegionId};
use proto::metapb;
use proto::raft_serverpb::RaftMessage;
use raft::{LogIndex, Message, MessageBody, Term, VoteResponse};

use super::{OpenError, Store};
use crate::apply::{self, ApplyTask};
use crate::keys::{self, Key};
use crate::peer::TurnBuilder;
use crate::peer::records::RegionRecord;
use crate::planted::{Bug, planted};

/// What is remembered of a destroyed peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tombstone {
    /// The last peer of the region on this store.
    pub(super) peer: PeerId,
    /// The entry that removed it, if that was applied here.
    pub(super) removed_at: Option<(LogIndex, Term)>,
}

/// How far a dying peer is.
#[derive(Debug)]
enum Step {
    /// With the applier: the region that is still occupied.
    Applier(metapb::Region),
    /// Log and hard state wait for the next log write …
    Deleting,
    /// … or are part of this one.
    DeletingWith(u64),
}

/// The dead, the dying and the doomed.
#[derive(Debug, Default)]
pub(super) struct Graves {
    doomed: BTreeSet<RegionId>,
    /// What those who told so said of the commit of the removal.
    told: BTreeMap<RegionId, (LogIndex, Term)>,
    dying: BTreeMap<RegionId, Step>,
    tombstones: BTreeMap<RegionId, Tombstone>,
    /// Regions that must be gone before another one's installation can begin: which waits for each.
    awaited: BTreeMap<RegionId, RegionId>,
}

impl Graves {
    /// What is left of a region's peer on this store.
    pub(super) fn tombstone(&self, region: RegionId) -> Option<&Tombstone> {
        self.tombstones.get(&region)
    }

    /// A later peer has come: the tombstone is no longer what is stored.
    pub(super) fn forget(&mut self, region: RegionId) {
        self.tombstones.remove(&region);
    }

    /// Whether a peer of the region is on its way out.
    pub(super) fn is_dying(&self, region: RegionId) -> bool {
        self.dying.contains_key(&region)
    }

    /// Whether a peer of the region is being destroyed, and has no tombstone yet.
    fn is_with_applier(&self, region: RegionId) -> bool {
        matches!(self.dying.get(&region), Some(Step::Applier(_)))
    }

    /// The regions whose range is occupied by a dying peer.
    pub(super) fn occupied(&self) -> impl Iterator<Item = &metapb::Region> {
        self.dying.values().filter_map(|step| match step {
            Step::Applier(region) => Some(region),
            Step::Deleting | Step::DeletingWith(_) => None,
        })
    }

    /// The deletions that wait are part of log write `number`.
    pub(super) fn deleting_with(&mut self, number: u64) {
        for step in self.dying.values_mut() {
            if matches!(step, Step::Deleting) {
                *step = Step::DeletingWith(number);
            }
        }
    }

    /// Log writes up to `number` are durable.
    pub(super) fn on_written(&mut self, number: u64) {
        self.dying.retain(|_, step| !matches!(step, Step::DeletingWith(at) if *at <= number));
    }
}

impl Store {
    /// The peer of a region is no longer a member: it is destroyed as soon as it can be.
    pub(super) fn doom(&mut self, region: RegionId) {
        if self.peers.contains_key(&region) {
            self.graves.doomed.insert(region);
        }
    }

    /// The same, and why: the entry at `index` is committed, and is the removal or behind it. Somebody who has only forgotten
    /// may have to be told (see [`Store::answer_for_the_dead`]).
    pub(super) fn doom_by(&mut self, region: RegionId, index: LogIndex, term: Term) {
        if index > LogIndex(0) {
            self.graves.told.insert(region, (index, term));
        }
        self.doom(region);
    }

    /// A region that was merged away into `target`, whose snapshot has arrived, must go first.
    pub(super) fn doom_merged(&mut self, victim: RegionId, target: RegionId) {
        // One that is buried already, because its target took it over after all, will not be reported again.
        if self.peers.contains_key(&victim) || self.graves.is_with_applier(victim) {
            self.graves.awaited.insert(victim, target);
            self.doom(victim);
        } else {
            self.with_peer(target, |peer, _| peer.on_victim_gone(victim));
        }
    }

    /// At the end of a turn, so that what the peers still had to say is said: the doomed go to the applier.
    pub(super) fn destroy_doomed(&mut self, out: &mut TurnBuilder) {
        let ready = |region: &RegionId| self.peers.get(region).is_none_or(|peer| peer.can_end());
        let (ready, waiting) = std::mem::take(&mut self.graves.doomed).into_iter().partition(ready);
        self.graves.doomed = waiting;
        let ready: BTreeSet<RegionId> = ready;
        for region in ready {
            let Some(peer) = self.remove_peer(region) else { continue };
            let (known, peer) = (peer.region().clone(), peer.me());
            let removed_at = self.graves.told.remove(&region);
            out.turn.apply.push(ApplyTask::Destroy { region: known.clone(), peer, removed_at });
            self.graves.dying.insert(region, Step::Applier(known));
        }
    }

    /// Takes a peer out of the loop; whoever waits for it is answered.
    fn remove_peer(&mut self, region: RegionId) -> Option<crate::peer::Peer> {
        let mut peer = self.peers.remove(&region)?;
        self.dirty.remove(&region);
        self.sleepers.forget(region);
        let context = context!(self);
        peer.end(&context);
        self.discarded.extend(peer.take_refused_snapshot());
        Some(peer)
    }

    /// The applier has written the region's tombstone: the rest of the peer goes with the next log write.
    pub(super) fn bury(
        &mut self,
        region: RegionId,
        peer: PeerId,
        removed_at: Option<(LogIndex, Term)>,
    ) {
        self.remove_peer(region);
        self.graves.doomed.remove(&region);
        self.graves.told.remove(&region);
        self.graves.tombstones.insert(region, Tombstone { peer, removed_at });
        delete_log(region, &mut self.records);
        self.counters.peers_destroyed += 1;
        self.graves.dying.insert(region, Step::Deleting);
        if let Some(target) = self.graves.awaited.remove(&region) {
            self.with_peer(target, |peer, _| peer.on_victim_gone(region));
        }
    }

    /// Answers a vote request to a destroyed peer, if its removal is known: the candidate may only have to learn that.
    pub(super) fn answer_for_the_dead(&mut self, message: &RaftMessage) {
        let region = RegionId::from(message.region_id);
        let (Some(from), Some(to), Some(content)) =
            (message.from_peer, message.to_peer, message.message.clone())
        else {
            return;
        };
        let Some(tombstone) = self.graves.tombstone(region) else { return };
        let Some((commit, commit_term)) = tombstone.removed_at else { return };
        let Ok(request) = raft::wire::message_from_proto(content) else { return };
        let other = tombstone.peer != PeerId::from(to.id) || request.from.0 != from.id;
        if other || planted(Bug::TombstoneIsSilent) {
            return;
        }
        let refusal = VoteResponse { reject: true, commit, commit_term };
        let (term, body) = match request.body {
            // Asked for the next term: a refusal must not drive the candidate into it.
            MessageBody::RequestPreVote(_) => {
                (asked_in(request.term), MessageBody::RequestPreVoteResponse(refusal))
            }
            MessageBody::RequestVote(_) => {
                (request.term, MessageBody::RequestVoteResponse(refusal))
            }
            _ => return,
        };
        let answer = Message { to: request.from, from: request.to, term, body };
        self.messages.push(RaftMessage {
            region_id: message.region_id,
            from_peer: Some(to),
            to_peer: Some(from),
            message: Some(raft::wire::message_to_proto(answer)),
            region_epoch: message.region_epoch,
            ..RaftMessage::default()
        });
    }
}

/// The candidate's own term, when it asks for the next one.
fn asked_in(term: Term) -> Term {
    Term(term.0.saturating_sub(1))
}

/// Deletes what the store loop writes for a region: its log and, in the same batch, its hard state.
fn delete_log(region: RegionId, batch: &mut WriteBatch) {
    let log = keys::log_range_all(region);
    batch.delete_range(Cf::Raft, log.lower, log.upper.unwrap_or_default());
    batch.delete(Cf::Raft, Key::HardState(region).encode());
}

/// When the store opens: finishes a destruction that a crash interrupted. Returns the record if the peer lives.
pub(super) fn finish(
    record: RegionRecord,
    engine: &dyn Engine,
    graves: &mut Graves,
) -> Result<Option<RegionRecord>, OpenError> {
    let mut batch = WriteBatch::new();
    let peer = record.peer.unwrap_or_default();
    let listed = record.region.peers.iter().any(|member| member.id == peer.id);
    let tombstone = if record.state == PeerState::Tombstone {
        record
    } else if record.is_uninitialized() || listed {
        return Ok(Some(record));
    } else {
        // Its removal was applied, and no more.
        let RegionRecord { region, removed_at, .. } = record;
        let tombstone = RegionRecord::tombstone(region, Some(peer), removed_at);
        apply::bury(&tombstone, &mut batch);
        tombstone
    };
    let region = RegionId::from(tombstone.region.id);
    if has_log(region, engine)? {
        delete_log(region, &mut batch);
    }
    if !batch.is_empty() {
        engine.write(&batch)?;
    }
    let removed_at = tombstone.removed_at;
    graves.tombstones.insert(region, Tombstone { peer: peer.id.into(), removed_at });
    Ok(None)
}

fn has_log(region: RegionId, engine: &dyn Engine) -> Result<bool, OpenError> {
    if engine.get(Cf::Raft, &Key::HardState(region).encode())?.is_some() {
        return Ok(true);
    }
    let snapshot = engine.snapshot();
    Ok(snapshot.iter(Cf::Raft, keys::log_range_all(region)).seek_to_first()?)
}

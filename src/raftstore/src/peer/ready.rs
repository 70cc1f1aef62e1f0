//! A peer's part of a turn: what Raft wants done becomes log operations, messages and tasks.
//!
//! Several turns may be under way: what a Ready promises is held back under the number of the log write that carries it
//! ([`Held`]). A Ready with nothing to write, while earlier ones are still being written, waits for the newest write under
//! way: promises leave in the order Raft made them.

use engine::WriteBatch;
use proto::ids::{PeerId, RegionId};
use proto::raft_serverpb::RaftMessage;
use raft::{Entry, MessageBody, NodeId, Ready};

use super::change::Settling;
use super::{Context, Peer};
use crate::apply::ApplyTask;
use crate::msg::{SnapshotSend, Turn};
use crate::planted::{Bug, planted};
use crate::reply::Reply;
use crate::store::is_first_message;

/// What waits for a log write.
#[derive(Debug)]
pub(crate) struct Held {
    /// Whose.
    pub(crate) region: RegionId,
    /// The Ready to report to Raft.
    pub(crate) ready: Option<u64>,
    /// Messages that promise what is being written.
    pub(crate) messages: Vec<RaftMessage>,
    /// Tasks for an applier that looks at what is being written.
    pub(crate) tasks: Vec<ApplyTask>,
    /// Somebody who waits for it.
    pub(crate) reply: Option<Reply<()>>,
}

/// A turn in the making.
#[derive(Debug)]
pub(crate) struct TurnBuilder {
    pub(crate) turn: Turn,
    /// The number of this turn's log write, if there will be one.
    pub(crate) number: u64,
    pub(crate) batch: WriteBatch,
    pub(crate) sync: bool,
    /// Waits for this turn's log write.
    pub(crate) held: Vec<Held>,
    /// Waits for the newest log write already under way.
    pub(crate) held_by_earlier: Vec<Held>,
    /// How many more snapshots may be installed at present.
    pub(crate) installs_left: usize,
}

impl Peer {
    /// Whether a turn would do anything for this peer.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.writes.is_empty()
            || self.reads.has_waiting()
            || !self.tasks.is_empty()
            || self.log_gc.has_compacted()
            || self.size_is_due()
            || (self.heartbeat_due && self.is_settled())
            || self.settling == Settling::Due
            || !self.notices.is_empty()
            || !self.questions.is_empty()
            || self.install_is_ready()
            || self.has_victims()
            || self.wants_snapshot()
            || self.raft.has_ready()
    }

    /// Everything this peer wants done.
    pub(crate) fn turn(&mut self, context: &Context<'_>, out: &mut TurnBuilder) {
        if self.is_leader() {
            self.propose_writes(context);
            self.start_read_round(context);
        }
        self.delete_compacted(out);
        self.start_install(out);
        out.turn.apply.append(&mut self.tasks);
        while self.raft.has_ready() {
            let ready = self.raft.ready();
            self.raft.advance_append_async(&ready);
            self.carry_out(ready, context, out);
        }
        self.discard_refused_snapshot(out);
        out.turn.messages.append(&mut self.notices);
        out.turn.region_questions.append(&mut self.questions);
        self.settle(out);
        if self.is_settled() && std::mem::take(&mut self.heartbeat_due) && self.is_leader() {
            let heartbeat = self.heartbeat(context);
            out.turn.heartbeats.push(heartbeat);
        }
        self.turn_size(out);
    }

    fn carry_out(&mut self, mut ready: Ready, context: &Context<'_>, out: &mut TurnBuilder) {
        self.renew_lease_by_commit(context);
        for state in &ready.read_states {
            self.on_read_state(state, context);
        }
        for dropped in &ready.dropped_reads {
            self.on_read_dropped(dropped);
        }
        let messages = std::mem::take(&mut ready.messages);
        self.send(messages, out);
        let wrote = self.write(&mut ready, context, out);
        let promises = std::mem::take(&mut ready.persisted_messages);
        let mut messages: Vec<_> =
            promises.into_iter().filter_map(|message| self.envelope(message)).collect();
        if planted(Bug::AckBeforeSync) {
            out.turn.messages.append(&mut messages);
        }
        let overtakes = planted(Bug::PromiseOvertakesWrite);
        if wrote || (self.writes_in_flight > 0 && !overtakes) {
            self.writes_in_flight += 1;
            let (region, ready) = (self.id, Some(ready.number));
            let held = Held { region, ready, messages, tasks: Vec::new(), reply: None };
            let wrote_before = out.held.last().is_some_and(|last| last.region == region);
            if wrote || wrote_before {
                out.held.push(held);
            } else {
                out.held_by_earlier.push(held);
            }
        } else {
            out.turn.messages.append(&mut messages);
            self.raft.on_persist(ready.number);
            self.observe_lead(context);
        }
        self.hand_over(ready.committed_entries, out);
    }

    /// Adds to the log write; whether there was anything to add.
    fn write(&mut self, ready: &mut Ready, context: &Context<'_>, out: &mut TurnBuilder) -> bool {
        let mut wrote = false;
        if let Some(snapshot) = ready.snapshot.take() {
            self.accept_snapshot(&snapshot, context, out);
            wrote = true;
        }
        if !ready.entries.is_empty() {
            self.log_gc.on_appended(ready.entries.iter().map(Entry::size_bytes).sum());
            self.raft.storage_mut().append(&ready.entries, out.number, &mut out.batch);
            wrote = true;
        }
        if let Some(state) = &ready.hard_state {
            wrote |= self.raft.storage_mut().put_hard_state(state, wrote, &mut out.batch);
        }
        out.sync |= wrote && ready.must_sync;
        wrote
    }

    /// Gives committed entries to the applier, with those who wait for them.
    fn hand_over(&mut self, entries: Vec<Entry>, out: &mut TurnBuilder) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        assert_eq!(first.index, self.handed_index.next(), "committed entries are contiguous");
        self.handed_index = last.index;
        let proposals = self.proposals.take_up_to(last.index);
        match &mut self.install {
            Some(install) => install.hold(entries),
            None => {
                out.turn.apply.push(ApplyTask::Committed { region: self.id, entries, proposals })
            }
        }
    }

    fn send(&mut self, messages: Vec<raft::Message>, out: &mut TurnBuilder) {
        for message in messages {
            if matches!(message.body, MessageBody::Snapshot(_)) {
                self.send_snapshot(message, out);
            } else if let Some(message) = self.envelope(message) {
                out.turn.messages.push(message);
            }
        }
    }

    /// A snapshot's message leaves with its data, or not at all.
    fn send_snapshot(&mut self, message: raft::Message, out: &mut TurnBuilder) {
        let to = PeerId::from(message.to.0);
        let source = self.raft.storage_mut().desk_mut().pick_up(to);
        match (source, self.find_peer(to).copied(), self.envelope(message)) {
            (Some(source), Some(to), Some(message)) => {
                out.turn.snapshots.push(SnapshotSend { region: self.id, to, message, source });
            }
            _ => self.raft.report_snapshot(NodeId(to.get()), false),
        }
    }

    /// A Raft message in its envelope, unless it is for nobody we know.
    fn envelope(&self, message: raft::Message) -> Option<RaftMessage> {
        let to = self.find_partner(PeerId::from(message.to.0))?;
        // The receiver may have to be created: it must know whether it would be in somebody's way.
        let (start_key, end_key) = match is_first_message(&message.body) {
            true => (self.region.start_key.clone(), self.region.end_key.clone()),
            false => Default::default(),
        };
        Some(RaftMessage {
            start_key,
            end_key,
            region_id: self.id.get(),
            from_peer: Some(self.me),
            to_peer: Some(*to),
            message: Some(raft::wire::message_to_proto(message)),
            region_epoch: self.region.region_epoch,
            ..RaftMessage::default()
        })
    }

    /// Whether Raft wants snapshots that are not ordered.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.raft.storage().wants_snapshot() && !self.is_merging()
    }

    /// Orders for the applier, as many as may be placed at present.
    pub(crate) fn order_snapshots(&mut self, count_max: usize) -> Vec<ApplyTask> {
        let region = self.id;
        let placed = self.raft.storage_mut().desk_mut().place(count_max);
        placed.into_iter().map(|to| ApplyTask::Snapshot { region, to }).collect()
    }

    /// The applier has made a snapshot.
    pub(crate) fn on_snapshot_made(&mut self, ready: crate::apply::SnapshotReady) {
        self.raft.storage_mut().desk_mut().made(ready);
    }

    /// The attempt to send a snapshot is over.
    pub(crate) fn on_snapshot_sent(&mut self, to: PeerId, ok: bool) {
        self.raft.report_snapshot(NodeId(to.get()), ok);
    }

    /// How many snapshots were ordered and not yet given to the sender.
    pub(crate) fn snapshots_open(&mut self) -> usize {
        self.raft.storage_mut().desk_mut().open_count()
    }
}

//! One turn of the store: every dirty peer's wishes, in one batch.

use proto::ids::RegionId;

use super::{Drain, Store};
use crate::msg::{LogWrite, Turn};
use crate::peer::{Peer, TurnBuilder};
use crate::time::Instant;

impl Store {
    /// What is to be done now. Empty, and cheap, if nothing is.
    pub fn turn(&mut self, now: Instant) -> Turn {
        self.now = self.now.max(now);
        if self.poisoned.is_some() {
            return Turn { poisoned: self.poisoned.clone(), ..Turn::default() };
        }
        let mut out = self.begin_turn();
        let dirty = std::mem::take(&mut self.dirty);
        let context = context!(self);
        let (mut wanting, mut victims) = (Vec::new(), Vec::new());
        for region in dirty {
            let Some(peer) = self.peers.get_mut(&region) else { continue };
            // Whatever made it dirty, a peer that is new here is ticked from now on.
            if !peer.is_asleep() && peer.mark_ticked() {
                self.sleepers.rouse(region);
            }
            peer.turn(&context, &mut out);
            victims.extend(peer.take_victims().into_iter().map(|victim| (victim, region)));
            if peer.wants_snapshot() {
                wanting.push(region);
            }
            if peer.is_dirty() {
                self.dirty.insert(region);
            }
        }
        for (victim, target) in victims {
            self.doom_merged(victim, target);
        }
        self.order_snapshots(&wanting, &mut out);
        self.destroy_doomed(&mut out);
        self.finish_turn(out)
    }

    fn begin_turn(&mut self) -> TurnBuilder {
        let turn = Turn {
            messages: std::mem::take(&mut self.messages),
            apply: std::mem::take(&mut self.tasks),
            discarded_snapshots: std::mem::take(&mut self.discarded),
            split_requests: std::mem::take(&mut self.split_requests),
            split_reports: std::mem::take(&mut self.split_reports),
            ..Turn::default()
        };
        let (number, batch) = (self.log_writes.next_number(), std::mem::take(&mut self.records));
        self.graves.deleting_with(number);
        let installing = self.installing.len();
        TurnBuilder {
            turn,
            number,
            sync: !batch.is_empty(),
            batch,
            held: std::mem::take(&mut self.records_held),
            held_by_earlier: Vec::new(),
            installs_left: self.config.snapshot_installs_max.saturating_sub(installing),
        }
    }

    /// Has snapshots made, as many as the limit leaves.
    fn order_snapshots(&mut self, wanting: &[RegionId], out: &mut TurnBuilder) {
        if wanting.is_empty() {
            return;
        }
        // Nobody sleeps over an order.
        let awake = self.sleepers.awake().iter();
        let open = |region| self.peers.get_mut(region).map_or(0, |peer| peer.snapshots_open());
        let open: usize = awake.map(open).sum();
        let used = open + self.sending.len() + out.turn.snapshots.len();
        let mut left = self.config.snapshot_sends_max.saturating_sub(used);
        for region in wanting {
            if let Some(peer) = self.peers.get_mut(region) {
                let ordered = peer.order_snapshots(left);
                left -= ordered.len();
                out.turn.apply.extend(ordered);
            }
        }
    }

    fn finish_turn(&mut self, out: TurnBuilder) -> Turn {
        let TurnBuilder { mut turn, number, batch, sync, held, held_by_earlier, .. } = out;
        self.log_writes.hold_by_newest(held_by_earlier);
        if !batch.is_empty() || !held.is_empty() {
            self.counters.log_writes += 1;
            self.counters.log_write_bytes += batch.size_bytes() as u64;
            self.log_writes.begin(number, held);
            turn.log_write = Some(LogWrite { number, batch, sync });
        }
        for send in &turn.snapshots {
            self.sending.insert((send.region, send.to.id.into()));
        }
        self.installing.extend(turn.installs.iter().map(|install| install.region));
        self.counters.snapshots_sent += turn.snapshots.len() as u64;
        self.counters.snapshots_installed += turn.installs.len() as u64;
        self.counters.messages_sent += turn.messages.len() as u64;
        if self.draining == Drain::Running && self.peers.values().all(Peer::is_drained) {
            self.draining = Drain::Told;
            turn.drained = true;
        }
        turn
    }
}

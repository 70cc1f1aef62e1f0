//! Sleeping regions, as the store sees them: who is ticked, who is woken, which stores are told that this one lives.
//!
//! What makes a peer fall asleep and what it does when it wakes is its own business ([`crate::peer`]). Stores that share
//! sleeping regions ping each other every heartbeat interval, one message for all of them; anything else that is heard
//! counts as well ([`super::liveness`]).

use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb;
use proto::raft_serverpb::{ExtraMessage, ExtraMessageType, RaftMessage};
use raft::LogIndex;

use super::{Drain, DropReason, Store};
use crate::peer::Asleep;
use crate::planted::{Bug, planted};

/// Reports that were asked for all at once are spread over so many ticks.
const HASTE_SPREAD_TICKS: u64 = 20;

/// A sleeping follower asks whether it is still a member once in so many of a sleeping leader's reports.
const QUESTION_PERIODS: u64 = 5;

/// The index of a ping …
const PING: u64 = 0;

/// … and of one that answers another, and is not answered.
const PING_ANSWER: u64 = 1;

impl Store {
    /// Whatever concerns a peer's data or log wakes it. `by_leader`: it comes from its leader.
    pub(super) fn wake(&mut self, region: RegionId, by_leader: bool) {
        let context = context!(self);
        let Some(peer) = self.peers.get_mut(&region) else { return };
        if peer.is_asleep() {
            peer.wake(by_leader, &context);
            self.counters.wakes += 1;
            self.dirty.insert(region);
            if planted(Bug::WokenPeerNotTicked) {
                self.sleepers.forget(region);
                peer.mark_ticked();
                return;
            }
        }
        if peer.mark_ticked() {
            self.sleepers.rouse(region);
        }
    }

    fn fall_asleep(&mut self, region: RegionId, asleep: Asleep) {
        let period = self.report_period(asleep.leader.is_none());
        // It has reported lately; and not all that fall asleep together report together.
        let at = self.clock.count() + period / 2 + region.get() % (period / 2 + 1);
        self.sleepers.insert(region, asleep, at);
    }

    /// Ticks between the reports of a leader in its sleep, or between the questions of others.
    fn report_period(&self, leads: bool) -> u64 {
        let period = u64::from(self.config.sleeping_heartbeat_ticks);
        if leads { period } else { period * QUESTION_PERIODS }
    }

    /// A tick has passed for all that are awake, and for the stores.
    pub(super) fn tick_awake(&mut self) {
        let context = context!(self);
        let mut asleep = Vec::new();
        for region in self.sleepers.awake() {
            let Some(peer) = self.peers.get_mut(region) else { continue };
            peer.tick(&context);
            if self.draining != Drain::No {
                // One that was about to sleep would not be ticked, and its transfer never end.
                peer.on_wake_up();
                peer.drain(&context);
            } else if let Some(told) = peer.tick_sleep(&context) {
                asleep.push((*region, told));
            }
            if peer.is_dirty() {
                self.dirty.insert(*region);
            }
        }
        for (region, told) in asleep {
            self.fall_asleep(region, told);
        }
    }

    /// A tick has passed for those who sleep.
    pub(super) fn tick_sleepers(&mut self) {
        let tick = self.clock.count();
        let periods = (self.report_period(true), self.report_period(false));
        for region in self.sleepers.take_due_reports(tick, periods) {
            let context = context!(self);
            if let Some(peer) = self.peers.get_mut(&region) {
                peer.speak_in_sleep(&context);
                self.dirty.insert(region);
            }
        }
        if tick.is_multiple_of(self.config.heartbeat_ticks.into()) {
            let pings: Vec<_> =
                self.sleepers.sharing().map(|store| self.ping(store, PING)).collect();
            self.messages.extend(pings);
        }
        let patience = self.config.election_timeout_ticks;
        for store in self.liveness.tick(tick, patience) {
            if !planted(Bug::SilentStoreIgnored) {
                self.on_silent_store(store);
            }
        }
    }

    fn ping(&self, to: StoreId, index: u64) -> RaftMessage {
        let peer = |store: StoreId| metapb::Peer { store_id: store.get(), ..Default::default() };
        let kind = ExtraMessageType::MsgStorePing;
        RaftMessage {
            from_peer: Some(peer(self.config.store_id)),
            to_peer: Some(peer(to)),
            extra_msg: Some(ExtraMessage { r#type: kind.into(), index, ..ExtraMessage::default() }),
            ..RaftMessage::default()
        }
    }

    /// Nothing has been heard of a store for an election timeout: no peer here waits for a leader there any more.
    fn on_silent_store(&mut self, store: StoreId) {
        let mut led = self.sleepers.led_by(store);
        let awake = self.sleepers.awake().iter().copied();
        led.extend(awake.filter(|region| {
            self.peers.get(region).is_some_and(|peer| peer.leader_store() == Some(store))
        }));
        for region in led {
            self.with_peer(region, |peer, context| peer.give_up_leader(context));
        }
    }

    /// A store was heard of: the regions that fell asleep without it bring its peers up to date.
    pub(super) fn hear(&mut self, store: StoreId) {
        if self.liveness.hear(store, self.clock.count()) {
            for region in self.sleepers.without(store) {
                self.wake(region, false);
            }
            self.ask_after_silence(store);
        }
    }

    /// While a store was out of reach, its peers may have gone on without this store's: those that led, and sleep, would
    /// never notice that they were removed.
    fn ask_after_silence(&mut self, store: StoreId) {
        for region in self.sleepers.led_here_beside(store) {
            let Some(peer) = self.peers.get(&region) else { continue };
            let questions = peer.stale_questions();
            let there = |message: &RaftMessage| {
                message.to_peer.is_some_and(|peer| peer.store_id == store.get())
            };
            self.messages.extend(questions.into_iter().filter(there));
        }
    }

    /// A store tells that it lives.
    pub(super) fn on_ping(&mut self, message: &RaftMessage) -> Result<(), DropReason> {
        let from = message.from_peer.ok_or(DropReason::Incomplete)?;
        if from.store_id == 0 || from.store_id == self.config.store_id.get() {
            return Err(DropReason::UnknownSender);
        }
        let from = StoreId::from(from.store_id);
        self.hear(from);
        // A store that is pinged, and has no sleeping peer to ping back for, would seem dead: perhaps its peer there is one
        // that it is still to get.
        let answer = message.extra_msg.is_some_and(|extra| extra.index != PING);
        if !answer && !self.sleepers.sharing().any(|store| store == from) {
            self.messages.push(self.ping(from, PING_ANSWER));
        }
        Ok(())
    }

    /// About sleeping and waking, between peers of a region.
    pub(super) fn on_sleep_talk(
        &mut self,
        kind: ExtraMessageType,
        message: &RaftMessage,
    ) -> Result<(), DropReason> {
        let (Some(from), Some(to), Some(extra)) =
            (message.from_peer, message.to_peer, message.extra_msg)
        else {
            return Err(DropReason::Incomplete);
        };
        let region = RegionId::from(message.region_id);
        let peer = self.peers.get(&region).ok_or(DropReason::UnknownRegion)?;
        if peer.peer_id() != PeerId::from(to.id) {
            return Err(DropReason::WrongPeer);
        }
        if peer.find_peer(PeerId::from(from.id)).is_none_or(|known| known.store_id != from.store_id)
        {
            self.tell_if_removed(region, &from, &message.region_epoch.unwrap_or_default());
            return Err(DropReason::UnknownSender);
        }
        let index = LogIndex(extra.index);
        self.hear(StoreId::from(from.store_id));
        match kind {
            ExtraMessageType::MsgRegionWakeUp => {
                self.with_peer(region, |peer, _| peer.on_wake_up());
            }
            ExtraMessageType::MsgHibernateRequest => self.on_hibernate_request(region, from, index),
            ExtraMessageType::MsgHibernateResponse => {
                self.on_hibernate_response(region, from, index);
            }
            ExtraMessageType::MsgCheckStalePeer
            | ExtraMessageType::MsgCheckStalePeerResponse
            | ExtraMessageType::MsgAbandonMerge
            | ExtraMessageType::MsgStorePing => return Err(DropReason::WrongKind),
        }
        Ok(())
    }

    fn on_hibernate_request(&mut self, region: RegionId, from: metapb::Peer, index: LogIndex) {
        if self.draining != Drain::No {
            return;
        }
        let context = context!(self);
        let Some(peer) = self.peers.get_mut(&region) else { return };
        if let Some((asleep, answer)) = peer.on_hibernate_request(&from, index, &context) {
            self.messages.push(answer);
            self.fall_asleep(region, asleep);
        }
    }

    fn on_hibernate_response(&mut self, region: RegionId, from: metapb::Peer, index: LogIndex) {
        let context = context!(self);
        let Some(peer) = self.peers.get_mut(&region) else { return };
        match peer.on_hibernate_response(&from, index, &context) {
            Some(asleep) => self.fall_asleep(region, asleep),
            // It may have given up.
            None => drop(self.dirty.insert(region)),
        }
    }

    /// Everything that is led here is to be reported soon: whoever heard it before has forgotten it.
    pub(super) fn report_all(&mut self) {
        self.sleepers.hasten_reports(self.clock.count(), HASTE_SPREAD_TICKS);
        let context = context!(self);
        for region in self.sleepers.awake() {
            if let Some(peer) = self.peers.get_mut(region) {
                peer.report(&context);
                self.dirty.insert(*region);
            }
        }
    }
}

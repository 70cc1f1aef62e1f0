//! Which messages from other stores reach a peer.
//!
//! Whatever the network delivers is checked against what this store knows, and dropped with a count if it does not fit: a
//! hostile or broken message costs its sender nothing but its effect (P1). Raft checks the rest by itself (terms, indexes,
//! entries). The cluster is checked once for each connection, by the transport.
//!
//! What is for a region without a peer goes to [`super::creation`]; what is about membership itself to [`super::stale`].

use proto::ids::{PeerId, RegionId, StoreId};
use proto::metapb;
use proto::raft_serverpb::{ExtraMessageType, RaftMessage};
use raft::{Message, MessageBody, StorageError};

use super::Store;
use crate::snapshot::{self, MergedAway, ReceivedSnapshot};

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// It lacks its sender, its receiver or its content.
    Incomplete,
    /// It is addressed to another store.
    WrongStore,
    /// No peer of the region lives here.
    UnknownRegion,
    /// The region's peer was destroyed here.
    Tombstone,
    /// It is addressed to another peer of the region.
    WrongPeer,
    /// The sender is not a peer of the region.
    UnknownSender,
    /// The content cannot be decoded.
    Malformed,
    /// A kind that stores do not send each other, or not this way.
    WrongKind,
    /// Raft refused it.
    RefusedByRaft,
    /// A snapshot that this peer cannot use, or not now.
    UnusableSnapshot,
    /// A peer would have to be created, or is just being destroyed: the sender has to try again.
    NotYet,
    /// About a generation of the region that is not later than the one known here.
    OldNews,
}

impl Store {
    /// A message from another store.
    pub(super) fn on_raft(&mut self, message: RaftMessage) {
        self.counters.messages_received += 1;
        let early = self.may_be_early(&message).then(|| message.clone());
        if let Err(reason) = self.dispatch(message) {
            if let Some(early) = early
                && reason == DropReason::NotYet
            {
                self.early.keep(early.region_id.into(), early);
            }
            self.count_dropped(reason);
        }
    }

    /// Where a message belongs.
    pub(super) fn dispatch(&mut self, message: RaftMessage) -> Result<(), DropReason> {
        let region = RegionId::from(message.region_id);
        let to = message.to_peer.ok_or(DropReason::Incomplete)?;
        if to.store_id != self.config.store_id.get() {
            return Err(DropReason::WrongStore);
        }
        if message.is_tombstone {
            return self.on_tombstone(&message);
        }
        if let Some(extra) = message.extra_msg {
            return self.on_extra(extra.r#type(), &message);
        }
        if !self.peers.contains_key(&region) {
            return self.consider_creation(message);
        }
        let message = self.admit(message)?;
        // A snapshot comes as a file, through `on_snapshot`.
        if matches!(message.body, MessageBody::Snapshot(_)) {
            return Err(DropReason::WrongKind);
        }
        let from_leader = self.peers.get(&region).is_some_and(|peer| peer.follows(&message));
        self.wake(region, from_leader);
        match self.with_peer(region, |peer, context| peer.step(message, context)) {
            Some(Err(raft::Error::Storage(StorageError::Corrupt(detail)))) => {
                self.poison(format!("region {region}: Raft log: {detail}"));
                Ok(())
            }
            Some(Err(_)) => Err(DropReason::RefusedByRaft),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// What is not Raft's business.
    fn on_extra(
        &mut self,
        kind: ExtraMessageType,
        message: &RaftMessage,
    ) -> Result<(), DropReason> {
        match kind {
            ExtraMessageType::MsgCheckStalePeer => self.on_stale_question(message),
            ExtraMessageType::MsgStorePing => self.on_ping(message),
            ExtraMessageType::MsgRegionWakeUp
            | ExtraMessageType::MsgHibernateRequest
            | ExtraMessageType::MsgHibernateResponse => self.on_sleep_talk(kind, message),
            ExtraMessageType::MsgAbandonMerge => self.on_abandon(message),
            ExtraMessageType::MsgCheckStalePeerResponse => Err(DropReason::WrongKind),
        }
    }

    /// A snapshot from another store.
    pub(super) fn on_snapshot(&mut self, message: RaftMessage, file: ReceivedSnapshot) {
        self.counters.messages_received += 1;
        let region = RegionId::from(message.region_id);
        let admitted = self.admit(message).and_then(|message| {
            let merged = self.merged_into(&message)?;
            Ok((message, merged))
        });
        let (message, merged) = match admitted {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.discarded.push(file);
                return self.count_dropped(reason);
            }
        };
        let received = self.with_peer(region, |peer, context| {
            peer.receive_snapshot(message, file, merged, context)
        });
        if let Some(Err((_, file))) = received {
            self.discarded.push(file);
            self.count_dropped(DropReason::UnusableSnapshot);
        }
    }

    /// The regions here that must end with a snapshot, because it holds their keys and they were merged away; an error if
    /// its keys are those of regions that live on (M1). What the snapshot's region is, is the sender's word.
    ///
    /// A region never loses its start key while it lives. So if the snapshot's region holds another's start key in a later
    /// version, that other one is gone (M16).
    fn merged_into(&self, message: &Message) -> Result<Vec<MergedAway>, DropReason> {
        let unusable = DropReason::UnusableSnapshot;
        let MessageBody::Snapshot(snapshot) = &message.body else { return Err(unusable) };
        let meta = snapshot::decode_meta(snapshot.data.clone()).map_err(|_| unusable)?;
        let arriving = &meta.region;
        let version = |region: &metapb::Region| region.region_epoch.unwrap_or_default().version;
        let mut merged = Vec::new();
        for other in self.overlapping(arriving) {
            let holds_start = arriving.start_key <= other.start_key
                && (arriving.end_key.is_empty() || other.start_key < arriving.end_key);
            let peer = self.peers.get(&other.id.into()).filter(|peer| peer.region() == other);
            match peer {
                Some(peer) if holds_start && version(arriving) > version(other) => {
                    merged.push(MergedAway { region: other.clone(), peer: peer.me() });
                }
                // Alive; or going, and then it is gone soon; or arriving itself.
                _ => return Err(unusable),
            }
        }
        Ok(merged)
    }

    pub(super) fn count_dropped(&mut self, reason: DropReason) {
        *self.counters.messages_dropped.entry(reason).or_default() += 1;
    }

    /// Checks the envelope of a message for a peer that is here, and decodes the content.
    fn admit(&mut self, message: RaftMessage) -> Result<Message, DropReason> {
        let region = RegionId::from(message.region_id);
        let (Some(from), Some(to), Some(content)) =
            (message.from_peer, message.to_peer, message.message)
        else {
            return Err(DropReason::Incomplete);
        };
        if to.store_id != self.config.store_id.get() {
            return Err(DropReason::WrongStore);
        }
        let peer = self.peers.get(&region).ok_or(DropReason::UnknownRegion)?;
        let epoch = message.region_epoch.unwrap_or_default();
        let known = peer.region().region_epoch.unwrap_or_default();
        if peer.peer_id() < PeerId::from(to.id) && known.conf_ver < epoch.conf_ver {
            // A store holds one peer of a region: the one here was removed, and a later one added.
            self.doom(region);
            return Err(DropReason::WrongPeer);
        }
        if peer.peer_id() != PeerId::from(to.id) || content.to != to.id {
            return Err(DropReason::WrongPeer);
        }
        if content.from != from.id || from.id == 0 || from.store_id == 0 {
            return Err(DropReason::UnknownSender);
        }
        self.admit_sender(region, from, epoch)?;
        // A sign of life, whatever it says.
        self.hear(StoreId::from(from.store_id));
        let content = raft::wire::message_from_proto(content).map_err(|_| DropReason::Malformed)?;
        match content.body {
            // Proposals and reads come from clients, by way of our own checks; a transfer voids the lease, so only this
            // store's own administrator may begin one.
            MessageBody::Propose(_)
            | MessageBody::TransferLeader
            | MessageBody::ReadIndex { .. }
            | MessageBody::ReadIndexResponse { .. } => Err(DropReason::WrongKind),
            _ => Ok(content),
        }
    }

    /// A sender is a member, or will be one in a generation that this peer does not know yet. One that is none any more is
    /// told so.
    fn admit_sender(
        &mut self,
        region: RegionId,
        from: metapb::Peer,
        epoch: metapb::RegionEpoch,
    ) -> Result<(), DropReason> {
        let Some(peer) = self.peers.get_mut(&region) else { return Err(DropReason::UnknownRegion) };
        let known = peer.region().region_epoch.unwrap_or_default();
        match peer.find_peer(PeerId::from(from.id)) {
            Some(sender) if sender.store_id == from.store_id => Ok(()),
            Some(_) => Err(DropReason::UnknownSender),
            None if !peer.is_initialized() || epoch.conf_ver > known.conf_ver => {
                if from.store_id == self.config.store_id.get() {
                    return Err(DropReason::UnknownSender);
                }
                peer.meet(from);
                Ok(())
            }
            None => {
                self.tell_if_removed(region, &from, &epoch);
                Err(DropReason::UnknownSender)
            }
        }
    }
}

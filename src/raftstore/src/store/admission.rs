//! Which messages from other stores reach a peer.
//!
//! Whatever the network delivers is checked against what this store knows, and dropped with a count if it does not fit: a
//! hostile or broken message costs its sender nothing but its effect (P1). Raft checks the rest by itself (terms, indexes,
//! entries). The cluster is checked once for each connection, by the transport.

use proto::ids::{PeerId, RegionId};
use proto::raft_serverpb::RaftMessage;
use raft::{Message, MessageBody, StorageError};

use super::Store;
use crate::snapshot::{self, ReceivedSnapshot};

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
}

impl Store {
    /// A message from another store.
    pub(super) fn on_raft(&mut self, message: RaftMessage) {
        self.counters.messages_received += 1;
        let early = self.may_be_early(&message).then(|| message.clone());
        let (region, message) = match self.admit(message) {
            Ok(admitted) => admitted,
            Err(reason) => {
                if let Some(early) = early
                    && reason == DropReason::UnknownRegion
                {
                    self.early.keep(early.region_id.into(), early);
                }
                return self.count_dropped(reason);
            }
        };
        // A snapshot comes as a file, through `on_snapshot`.
        if matches!(message.body, MessageBody::Snapshot(_)) {
            return self.count_dropped(DropReason::WrongKind);
        }
        match self.with_peer(region, |peer, context| peer.step(message, context)) {
            Some(Err(raft::Error::Storage(StorageError::Corrupt(detail)))) => {
                self.poison(format!("region {region}: Raft log: {detail}"));
            }
            Some(Err(_)) => self.count_dropped(DropReason::RefusedByRaft),
            Some(Ok(())) | None => {}
        }
    }

    /// A snapshot from another store.
    pub(super) fn on_snapshot(&mut self, message: RaftMessage, file: ReceivedSnapshot) {
        self.counters.messages_received += 1;
        let (region, message) = match self.admit(message) {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.discarded.push(file);
                return self.count_dropped(reason);
            }
        };
        // The region of a snapshot is the sender's word; its keys must not be another region's here (M1).
        let described = match &message.body {
            MessageBody::Snapshot(snapshot) => snapshot::decode_meta(snapshot.data.clone()).ok(),
            _ => None,
        };
        if described.is_none_or(|meta| self.overlaps(&meta.region)) {
            self.discarded.push(file);
            return self.count_dropped(DropReason::UnusableSnapshot);
        }
        let received =
            self.with_peer(region, |peer, context| peer.receive_snapshot(message, file, context));
        if let Some(Err((_, file))) = received {
            self.discarded.push(file);
            self.count_dropped(DropReason::UnusableSnapshot);
        }
    }

    fn count_dropped(&mut self, reason: DropReason) {
        *self.counters.messages_dropped.entry(reason).or_default() += 1;
    }

    /// Checks the envelope and decodes the content.
    fn admit(&self, message: RaftMessage) -> Result<(RegionId, Message), DropReason> {
        let region = RegionId::from(message.region_id);
        let (Some(from), Some(to), Some(content)) =
            (message.from_peer, message.to_peer, message.message)
        else {
            return Err(DropReason::Incomplete);
        };
        if to.store_id != self.config.store_id.get() {
            return Err(DropReason::WrongStore);
        }
        if self.tombstones.contains(&region) {
            return Err(DropReason::Tombstone);
        }
        let peer = self.peers.get(&region).ok_or(DropReason::UnknownRegion)?;
        if peer.peer_id() != PeerId::from(to.id) || content.to != to.id {
            return Err(DropReason::WrongPeer);
        }
        let sender = peer.find_peer(PeerId::from(from.id)).ok_or(DropReason::UnknownSender)?;
        if sender.store_id != from.store_id || content.from != from.id {
            return Err(DropReason::UnknownSender);
        }
        let content = raft::wire::message_from_proto(content).map_err(|_| DropReason::Malformed)?;
        match content.body {
            // Proposals and reads come from clients, by way of our own checks; a transfer voids the lease, so only this
            // store's own administrator may begin one.
            MessageBody::Propose(_)
            | MessageBody::TransferLeader
            | MessageBody::ReadIndex { .. }
            | MessageBody::ReadIndexResponse { .. } => Err(DropReason::WrongKind),
            _ => Ok((region, content)),
        }
    }
}

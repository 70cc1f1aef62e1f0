//! How the model's regions carry out what they are told, and what they would never do.

use proto::eraftpb::ConfChangeType;
use proto::metapb::{self, PeerRole};
use proto::{codec, pdpb};

use super::{Group, Model};

impl Model {
    /// Carries an instruction out, at once.
    pub(super) fn obey(&mut self, told: pdpb::RegionHeartbeatResponse) {
        let id = told.region_id;
        let Some(group) = self.groups.get(&id) else { return };
        let leads = told.target_peer.is_some_and(|peer| peer.id == group.leader);
        if group.meta.region_epoch != told.region_epoch || !leads {
            return;
        }
        let kinds = [
            told.change_peer_v2.is_some(),
            told.transfer_leader.is_some(),
            told.split_region.is_some(),
            told.merge.is_some(),
        ];
        assert_eq!(kinds.iter().filter(|kind| **kind).count(), 1, "one thing at a time: {told:?}");
        if let Some(change) = told.change_peer_v2 {
            self.change_peers(id, &change.changes);
        } else if let Some(transfer) = told.transfer_leader {
            self.transfer(id, transfer.peer.unwrap());
        } else if let Some(split) = told.split_region {
            self.split(id, &split.keys);
        } else if let Some(merge) = told.merge {
            self.merge(id, merge.target.unwrap());
        }
        self.heartbeat(id);
    }

    fn change_peers(&mut self, id: u64, changes: &[pdpb::ChangePeer]) {
        let lag = self.lag;
        let group = self.groups.get_mut(&id).unwrap();
        let joint = is_joint(&group.meta);
        if changes.is_empty() {
            assert!(joint, "there is no joint membership to leave: {:?}", group.meta);
            leave_joint(&mut group.meta);
        } else {
            assert!(!joint, "one change at a time: {:?}", group.meta);
            for change in changes {
                change_peer(group, change, changes.len() > 1, lag);
            }
        }
        group.meta.region_epoch.as_mut().unwrap().conf_ver += 1;
        let voters = group.meta.peers.iter().filter(|peer| peer.role() != PeerRole::Learner);
        let group_leader = group.leader;
        assert!(voters.clone().any(|peer| peer.id == group_leader), "the leader votes");
        let able = voters
            .clone()
            .filter(|peer| {
                self.alive.contains(&peer.store_id) && !group.pending.contains_key(&peer.id)
            })
            .count();
        assert!(able * 2 > voters.count(), "no quorum is left: {:?}", group.meta);
    }

    fn transfer(&mut self, id: u64, to: metapb::Peer) {
        let group = self.groups.get_mut(&id).unwrap();
        let heir =
            group.meta.peers.iter().find(|peer| peer.id == to.id).expect("the heir is a peer");
        assert!(
            matches!(heir.role(), PeerRole::Voter | PeerRole::IncomingVoter),
            "only voters lead: {:?}",
            group.meta
        );
        if self.alive.contains(&heir.store_id) && !group.pending.contains_key(&heir.id) {
            group.leader = to.id;
            group.term += 1;
        }
    }

    fn split(&mut self, id: u64, keys: &[bytes::Bytes]) {
        let mut group = self.groups[&id].clone();
        let keys = if keys.is_empty() { vec![middle(&group.meta)] } else { keys.to_vec() };
        let (change, ids) = self.core.ask_split(&group.meta, keys.len() as u32).unwrap();
        self.core.apply(change, self.now_ms);
        let parts = keys.len() as u64 + 1;
        group.bytes /= parts;
        group.meta.region_epoch.as_mut().unwrap().version += parts - 1;
        let end = std::mem::replace(&mut group.meta.end_key, keys[0].clone());
        let mut made = vec![group.clone()];
        for (at, new) in ids.iter().enumerate() {
            let mut part = group.clone();
            part.meta.id = new.new_region_id;
            part.meta.start_key = keys[at].clone();
            part.meta.end_key = keys.get(at + 1).unwrap_or(&end).clone();
            let leader = group.meta.peers.iter().position(|peer| peer.id == group.leader).unwrap();
            for (peer, id) in part.meta.peers.iter_mut().zip(&new.new_peer_ids) {
                peer.id = *id;
            }
            part.leader = part.meta.peers[leader].id;
            made.push(part);
        }
        let metas = made.iter().map(|part| part.meta.clone()).collect();
        self.groups.extend(made.into_iter().map(|part| (part.meta.id, part)));
        let change = self.core.report_split(metas).unwrap();
        self.core.apply(change, self.now_ms);
    }

    fn merge(&mut self, id: u64, expected: metapb::Region) {
        if self.refuses_merges {
            let epoch = self.groups.get_mut(&id).unwrap().meta.region_epoch.as_mut().unwrap();
            (epoch.version, epoch.conf_ver) = (epoch.version + 1000, epoch.conf_ver + 1);
            return;
        }
        let source = self.groups[&id].clone();
        let Some(target) = self.groups.get_mut(&expected.id) else { return };
        if target.meta.region_epoch != expected.region_epoch {
            return;
        }
        let stores = |meta: &metapb::Region| super::super::placement::stores_of(meta);
        assert_eq!(stores(&source.meta), stores(&target.meta), "peers on the same stores");
        assert!(source.pending.is_empty() && target.pending.is_empty());
        if source.meta.end_key == target.meta.start_key {
            target.meta.start_key = source.meta.start_key.clone();
        } else {
            assert_eq!(target.meta.end_key, source.meta.start_key, "neighbours");
            target.meta.end_key = source.meta.end_key.clone();
        }
        let version = |meta: &metapb::Region| meta.region_epoch.unwrap().version;
        let version = version(&source.meta).max(version(&target.meta)) + 2;
        target.meta.region_epoch.as_mut().unwrap().version = version;
        target.bytes += source.bytes;
        self.groups.remove(&id);
        self.heartbeat(expected.id);
    }
}

fn change_peer(group: &mut Group, change: &pdpb::ChangePeer, joint: bool, lag: u64) {
    let peer = change.peer.unwrap();
    let at = group.meta.peers.iter().position(|known| known.id == peer.id);
    let home = group.meta.peers.iter().any(|known| known.store_id == peer.store_id);
    match (change.change_type(), at) {
        (ConfChangeType::AddLearnerNode, None) => {
            assert!(!home && !joint, "a store holds one peer of a region");
            let mut learner = peer;
            learner.set_role(PeerRole::Learner);
            group.pending.insert(peer.id, lag);
            group.meta.peers.push(learner);
        }
        (ConfChangeType::AddLearnerNode, Some(at)) => {
            assert!(joint && group.meta.peers[at].role() == PeerRole::Voter);
            assert_ne!(group.leader, peer.id, "a leader does not demote itself");
            group.meta.peers[at].set_role(PeerRole::DemotingVoter);
        }
        (ConfChangeType::AddNode, Some(at)) => {
            assert_eq!(group.meta.peers[at].role(), PeerRole::Learner);
            assert!(!group.pending.contains_key(&peer.id), "promoted before it has caught up");
            let role = if joint { PeerRole::IncomingVoter } else { PeerRole::Voter };
            group.meta.peers[at].set_role(role);
        }
        (ConfChangeType::RemoveNode, Some(at)) => {
            assert!(!joint, "voters leave a joint membership as learners");
            assert_ne!(group.leader, peer.id, "a leader does not remove itself");
            group.meta.peers.remove(at);
            group.pending.remove(&peer.id);
        }
        (kind, None) => panic!("{kind:?} of an unknown peer {peer:?} of {:?}", group.meta),
    }
}

fn is_joint(meta: &metapb::Region) -> bool {
    let joint = |peer: &metapb::Peer| {
        matches!(peer.role(), PeerRole::IncomingVoter | PeerRole::DemotingVoter)
    };
    meta.peers.iter().any(joint)
}

fn leave_joint(meta: &mut metapb::Region) {
    for peer in &mut meta.peers {
        match peer.role() {
            PeerRole::IncomingVoter => peer.set_role(PeerRole::Voter),
            PeerRole::DemotingVoter => peer.set_role(PeerRole::Learner),
            PeerRole::Voter | PeerRole::Learner => {}
        }
    }
}

/// A boundary inside of a region.
fn middle(meta: &metapb::Region) -> bytes::Bytes {
    let mut key = match meta.start_key.is_empty() {
        true => b"000000".to_vec(),
        false => codec::decode(&meta.start_key).unwrap().to_vec(),
    };
    key.push(b'm');
    let key = codec::encode(&key);
    assert!(meta.end_key.is_empty() || key < meta.end_key);
    key
}

//! What a region needs by itself: looked at with each of its heartbeats and by the patrol.
//!
//! In this order: leave a joint membership that was left behind; replace or remove peers on stores that
//! are dead or leave; give learners that were left behind a place or an end; add what is missing; remove
//! what is too much; spread better. What a region needs comes before what would be nice.

use std::collections::BTreeSet;

use proto::ids::{PeerId, StoreId};
use proto::metapb::{self, PeerRole};
use proto::pdpb;

use super::builder::{self, Goal};
use super::operator::{Kind, Plan};
use super::placement::{View, stores_of};
use super::regions::RegionInfo;
use super::step::{Step, is_down, is_joint, is_pending};
use crate::planted::{Bug, planted};

/// A need that cannot be met, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked(pub(super) String);

pub(super) type Fresh<'a> = &'a mut dyn FnMut() -> Option<PeerId>;

impl View<'_> {
    /// The repair a region needs most; nothing if it needs none, or if it cannot be had.
    pub(super) fn check(
        &self,
        info: &RegionInfo,
        fresh: Fresh<'_>,
    ) -> Result<Option<Plan>, Blocked> {
        if info.leader.is_none() {
            return Err(Blocked("the region has no leader".into()));
        }
        if is_joint(info) {
            return Ok(Some(plan(
                info,
                "leave-joint",
                "leave the joint membership",
                vec![Step::Leave],
            )));
        }
        if let Some(plan) = self.check_lost_peers(info, fresh)? {
            return Ok(Some(plan));
        }
        if let Some(plan) = self.check_learners(info, fresh) {
            return Ok(Some(plan));
        }
        if let Some(plan) = self.check_count(info, fresh)? {
            return Ok(Some(plan));
        }
        Ok(self.check_spread(info, fresh))
    }

    fn is_lost(&self, info: &RegionInfo, peer: &metapb::Peer) -> bool {
        if planted(Bug::DownStoreKept) {
            return false;
        }
        self.is_dead(peer.store_id.into())
            || silent_s(info, peer).saturating_mul(1000) >= self.settings.max_store_down_ms
    }

    /// A peer that is silent although its store lives, and goes on so: without another store, it makes room
    /// for a new peer in its own place, if the others can do without it.
    fn is_only_peer_broken(&self, info: &RegionInfo, peer: &metapb::Peer) -> bool {
        let silent_s = silent_s(info, peer);
        self.fit(peer.store_id.into(), true).is_ok()
            && silent_s.saturating_mul(1000) / 3 >= self.settings.max_store_down_ms
            && info.meta.peers.len() >= 3
            && info.down_peers.len() == 1
    }

    fn is_leaving(&self, peer: &metapb::Peer) -> bool {
        self.stores.get(peer.store_id.into()).is_some_and(|store| store.is_leaving())
    }

    /// Peers whose store is dead, or is being emptied.
    fn check_lost_peers(
        &self,
        info: &RegionInfo,
        fresh: Fresh<'_>,
    ) -> Result<Option<Plan>, Blocked> {
        let lost = info.meta.peers.iter().find(|peer| self.is_lost(info, peer));
        let leaving = || info.meta.peers.iter().find(|peer| self.is_leaving(peer));
        let (peer, origin) = match (lost, leaving()) {
            (Some(peer), _) => (peer, "replace-down-peer"),
            (None, Some(peer)) => (peer, "drain-store"),
            (None, None) => return Ok(None),
        };
        let from = StoreId::new(peer.store_id);
        let learners = info.meta.peers.iter().filter(|peer| peer.role() == PeerRole::Learner);
        let useful: Vec<StoreId> = learners
            .filter(|learner| !self.is_lost(info, learner) && !self.is_leaving(learner))
            .map(|learner| learner.store_id.into())
            .collect();
        let voters = info.meta.peers.len() - useful.len();
        if peer.role() == PeerRole::Learner || voters > self.wanted() {
            let description = format!("remove the peer on store {from}");
            let goal = self.goal_without_learners(info, from);
            return Ok(built(info, origin, description, &goal, fresh));
        }
        let mut others = stores_of(&info.meta);
        others.remove(&from);
        let to = match useful.first() {
            Some(&store) => store,
            None => match self.best_target(info, &others) {
                Ok(store) => store,
                Err(_) if self.is_only_peer_broken(info, peer) => {
                    let description = format!("remove the broken peer on store {from}");
                    let goal = Goal::of(info).without(from);
                    return Ok(built(info, origin, description, &goal, fresh));
                }
                Err(reason) => return Err(Blocked(reason)),
            },
        };
        let description = format!("replace the peer on store {from} by one on store {to}");
        let goal = Goal::of(info).without(from).with(to);
        Ok(built(info, origin, description, &goal, fresh))
    }

    /// The stores of the voters, less one: learners are another matter.
    fn goal_without_learners(&self, info: &RegionInfo, from: StoreId) -> Goal {
        let voters = info.meta.peers.iter().filter(|peer| peer.role() != PeerRole::Learner);
        let stores: BTreeSet<StoreId> =
            voters.map(|peer| peer.store_id.into()).filter(|&store| store != from).collect();
        if stores.is_empty() { Goal::of(info).without(from) } else { Goal { stores, leader: None } }
    }

    /// Learners whose operator ended before they became voters.
    fn check_learners(&self, info: &RegionInfo, fresh: Fresh<'_>) -> Option<Plan> {
        let learner = info.meta.peers.iter().find(|peer| peer.role() == PeerRole::Learner)?;
        let store = StoreId::new(learner.store_id);
        let learners =
            info.meta.peers.iter().filter(|peer| peer.role() == PeerRole::Learner).count();
        let voters = info.meta.peers.len() - learners;
        if voters >= self.wanted() {
            let goal = Goal::of(info).without(store);
            let description = format!("remove the learner left behind on store {store}");
            return built(info, "remove-learner", description, &goal, fresh);
        }
        if is_pending(info, learner.id) || is_down(info, learner.id) {
            return None;
        }
        let description = format!("promote the learner left behind on store {store}");
        built(info, "promote-learner", description, &Goal::of(info), fresh)
    }

    fn check_count(&self, info: &RegionInfo, fresh: Fresh<'_>) -> Result<Option<Plan>, Blocked> {
        let (have, wanted) = (info.meta.peers.len(), self.wanted());
        if have < wanted {
            let to = self.best_target(info, &stores_of(&info.meta)).map_err(Blocked)?;
            let description = format!("add a peer on store {to}: {have} of {wanted}");
            let goal = Goal::of(info).with(to);
            return Ok(built(info, "add-replica", description, &goal, fresh));
        }
        if have > wanted {
            let Some(worst) = self.worst(info) else { return Ok(None) };
            let description = format!("remove the peer on store {worst}: {have}, {wanted} wanted");
            let goal = Goal::of(info).without(worst);
            return Ok(built(info, "remove-replica", description, &goal, fresh));
        }
        Ok(None)
    }

    /// Whether any store says where it is.
    fn has_places(&self) -> bool {
        let labels = &self.settings.location_labels;
        self.stores.iter().any(|store| labels.iter().any(|label| !store.label(label).is_empty()))
    }

    /// The peer that is missed least: one that does not work, else one whose going spreads the others best,
    /// else not the leader, else the one on the fullest store.
    fn worst(&self, info: &RegionInfo) -> Option<StoreId> {
        let influence = self.operators.influence(self.tree);
        let held = stores_of(&info.meta);
        let leader = info.leader.map(|leader| leader.id);
        let rank = |peer: &&metapb::Peer| {
            let store = StoreId::new(peer.store_id);
            let mut rest = held.clone();
            rest.remove(&store);
            let broken = is_down(info, peer.id) || is_pending(info, peer.id);
            let weight = self.weight(store, &influence);
            (broken, self.spread(&rest), Some(peer.id) != leader, weight, peer.id)
        };
        info.meta.peers.iter().max_by_key(rank).map(|peer| peer.store_id.into())
    }

    /// A move that spreads the peers better over zones and hosts.
    fn check_spread(&self, info: &RegionInfo, fresh: Fresh<'_>) -> Option<Plan> {
        let healthy = info.down_peers.is_empty() && info.pending_peers.is_empty();
        if !healthy
            || !self.has_places()
            || self.operators.count(Kind::Replica) >= self.settings.replica_schedule_limit
        {
            return None;
        }
        let held = stores_of(&info.meta);
        let now = self.spread(&held);
        let mut best: Option<(u64, StoreId, StoreId)> = None;
        for &from in &held {
            let mut others = held.clone();
            others.remove(&from);
            let Ok(to) = self.best_target(info, &others) else { continue };
            let mut after = others;
            after.insert(to);
            let score = self.spread(&after);
            if score > best.map_or(now, |(score, _, _)| score) {
                best = Some((score, from, to));
            }
        }
        let (_, from, to) = best?;
        let description = format!("move the peer on store {from} to store {to}: better spread");
        let goal = Goal::of(info).without(from).with(to);
        built(info, "spread", description, &goal, fresh)
    }
}

/// How long the leader has not heard of a peer.
fn silent_s(info: &RegionInfo, peer: &metapb::Peer) -> u64 {
    let same =
        |down: &&pdpb::PeerStats| down.peer.as_ref().is_some_and(|known| known.id == peer.id);
    info.down_peers.iter().find(same).map_or(0, |down| down.down_seconds)
}

fn plan(info: &RegionInfo, origin: &'static str, description: &str, steps: Vec<Step>) -> Plan {
    Plan {
        region: info.id(),
        partner: None,
        kind: Kind::Replica,
        origin,
        description: description.to_owned(),
        steps,
    }
}

fn built(
    info: &RegionInfo,
    origin: &'static str,
    description: String,
    goal: &Goal,
    fresh: Fresh<'_>,
) -> Option<Plan> {
    if goal.stores.is_empty() {
        return None;
    }
    let steps = builder::steps(info, goal, fresh).filter(|steps| !steps.is_empty())?;
    Some(plan(info, origin, &description, steps))
}

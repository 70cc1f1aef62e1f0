//! One operator: a change of a region, made of steps.

use std::collections::BTreeSet;

use proto::flotillapb::{self, OperatorState};
use proto::ids::{RegionId, StoreId};
use proto::pdpb;

use super::loads::REGION_WEIGHT;
use super::regions::{RegionInfo, RegionTree};
use super::step::Step;
use crate::planted::{Bug, planted};

/// An instruction that had no effect yet is given again after this.
const REPEAT_MS: u64 = 2000;

/// What limits count by, and who gives way to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Moves a leader to balance.
    Leader,
    /// Moves a peer to balance.
    Region,
    /// Merges.
    Merge,
    /// Splits.
    Split,
    /// Repairs the membership.
    Replica,
    /// Somebody asked for it.
    Admin,
}

/// A plan that is not yet an operator.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) region: RegionId,
    /// A second region that stands still meanwhile: the target of a merge.
    pub(super) partner: Option<RegionId>,
    pub(super) kind: Kind,
    pub(super) origin: &'static str,
    pub(super) description: String,
    pub(super) steps: Vec<Step>,
}

/// A change of one region in small steps.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) id: u64,
    pub(super) plan: Plan,
    pub(super) state: OperatorState,
    pub(super) reason: String,
    /// The region when it began.
    origin: RegionInfo,
    /// The step under way.
    at: usize,
    begun_ms: u64,
    step_since_ms: u64,
    told_ms: Option<u64>,
    /// Of a region that is merged: its version when that was told, and when it froze.
    told_version: Option<u64>,
    frozen_version: Option<u64>,
}

/// What came of looking at an operator.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    /// It goes on; tell this, if anything.
    Running(Option<Box<pdpb::RegionHeartbeatResponse>>),
    /// It ended, and why.
    Ended(OperatorState, String),
}

/// What an operator will still change about a store, beyond what is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Influence {
    pub(super) regions: i64,
    pub(super) weight: i64,
    pub(super) leaders: i64,
    pub(super) flow: i64,
}

impl Operator {
    pub(super) fn new(id: u64, plan: Plan, origin: RegionInfo, now_ms: u64) -> Self {
        assert!(!plan.steps.is_empty(), "an operator does something");
        Self {
            id,
            plan,
            state: OperatorState::Running,
            reason: String::new(),
            origin,
            at: 0,
            begun_ms: now_ms,
            step_since_ms: now_ms,
            told_ms: None,
            told_version: None,
            frozen_version: None,
        }
    }

    pub(super) fn regions(&self) -> impl Iterator<Item = RegionId> {
        std::iter::once(self.plan.region).chain(self.plan.partner)
    }

    fn step(&self) -> Option<&Step> {
        self.plan.steps.get(self.at)
    }

    /// Stores that have to live for what is left.
    pub(super) fn needs(&self) -> BTreeSet<StoreId> {
        self.plan.steps[self.at..].iter().flat_map(Step::needs).collect()
    }

    /// Looks at the region as reported; `tell`s its leader what to do.
    pub(super) fn progress(&mut self, tree: &RegionTree, tell: bool, now_ms: u64) -> Progress {
        let Some(info) = tree.by_id(self.plan.region) else { return self.without_region(tree) };
        while let Some(step) = self.step()
            && step.is_finished(info)
        {
            self.at += 1;
            (self.step_since_ms, self.told_ms) = (now_ms, None);
        }
        let merging = matches!(self.step(), Some(Step::Merge { .. }));
        if merging && self.was_merge_given_up(info.epoch().version) {
            let reason = "the stores gave the merge up".to_owned();
            return Progress::Ended(OperatorState::Cancelled, reason);
        }
        let Some(step) = self.step() else {
            return Progress::Ended(OperatorState::Finished, String::new());
        };
        if let Some(reason) = self.overtaken_by(info, tree)
            && !planted(Bug::OldEpoch)
        {
            return Progress::Ended(OperatorState::Overtaken, reason);
        }
        let waited_ms = now_ms.saturating_sub(self.step_since_ms);
        if waited_ms >= step.patience_ms() {
            let reason = format!("not done after {} s: {step}", waited_ms / 1000);
            return Progress::Ended(OperatorState::TimedOut, reason);
        }
        if !tell || self.told_ms.is_some_and(|told_ms| now_ms.saturating_sub(told_ms) < REPEAT_MS) {
            return Progress::Running(None);
        }
        if self.frozen_version.is_some() {
            // Told again, it would freeze again after its stores gave the merge up.
            return Progress::Running(None);
        }
        let told = step.instruction(info, tree);
        if told.is_some() {
            self.told_ms = Some(now_ms);
            if merging {
                self.told_version.get_or_insert(info.epoch().version);
            }
        }
        Progress::Running(told.map(Box::new))
    }

    /// A region's version grows when it freezes to be merged, and again when that is rolled back.
    fn was_merge_given_up(&mut self, version: u64) -> bool {
        match (self.told_version, self.frozen_version) {
            (Some(told), None) if version > told => {
                self.frozen_version = Some(version);
                false
            }
            (_, Some(frozen)) => version > frozen,
            _ => false,
        }
    }

    fn without_region(&self, tree: &RegionTree) -> Progress {
        let target = match self.step() {
            Some(Step::Merge { target }) => tree.by_id(*target),
            _ => None,
        };
        match target {
            Some(target) if target.contains(&self.origin.meta.start_key) => {
                Progress::Ended(OperatorState::Finished, String::new())
            }
            _ => Progress::Ended(OperatorState::Overtaken, "the region is gone".into()),
        }
    }

    fn overtaken_by(&self, info: &RegionInfo, tree: &RegionTree) -> Option<String> {
        let (before, now) = (self.origin.epoch(), info.epoch());
        let step = self.step()?;
        if let Step::Merge { target } = step {
            // The region's own epoch moves with the merge.
            let neighbours = tree.neighbours(info).into_iter().flatten();
            let near = neighbours.into_iter().any(|other| other.id() == *target);
            return (!near).then(|| format!("region {target} is no neighbour any more"));
        }
        let explained: u64 = self.plan.steps[..=self.at].iter().map(Step::conf_changes).sum();
        if now.conf_ver > before.conf_ver + explained {
            return Some(format!(
                "its peers changed in another way: conf_ver {} after {}, {explained} explained",
                now.conf_ver, before.conf_ver
            ));
        }
        if let Some(peer) = step.missing(info) {
            return Some(format!("peer {peer} is gone"));
        }
        let ranged = matches!(self.plan.kind, Kind::Merge) || matches!(step, Step::Split { .. });
        if ranged && now.version != before.version {
            return Some(format!(
                "its range changed: version {} after {}",
                now.version, before.version
            ));
        }
        None
    }

    /// What is still to come for each store.
    pub(super) fn influence(&self, info: &RegionInfo, mut add: impl FnMut(StoreId, Influence)) {
        let weight = (info.approximate_size + REGION_WEIGHT) as i64;
        let flow = info.flow.bytes() as i64;
        let has = |peer: u64| info.meta.peers.iter().any(|known| known.id == peer);
        let mut leads = info.leader.map(|leader| StoreId::new(leader.store_id));
        for step in &self.plan.steps[self.at..] {
            match step {
                Step::AddLearner(place) if !has(place.peer.get()) => {
                    add(place.store, Influence { regions: 1, weight, ..Influence::default() });
                }
                Step::Remove(place) if has(place.peer.get()) => {
                    let gone = Influence { regions: -1, weight: -weight, ..Influence::default() };
                    add(place.store, gone);
                }
                Step::Transfer { to, leave } if leads != Some(*to) => {
                    if leave.is_some() && leads != *leave {
                        continue;
                    }
                    if let Some(from) = leads {
                        let lost = Influence { leaders: -1, flow: -flow, ..Influence::default() };
                        add(from, lost);
                    }
                    add(*to, Influence { leaders: 1, flow, ..Influence::default() });
                    leads = Some(*to);
                }
                _ => {}
            }
        }
    }

    /// Stores that a peer still comes to or goes from.
    pub(super) fn stores_moved(&self) -> BTreeSet<StoreId> {
        let moved = |step: &Step| match step {
            Step::AddLearner(place) | Step::Remove(place) => Some(place.store),
            _ => None,
        };
        self.plan.steps[self.at..].iter().filter_map(moved).collect()
    }

    /// For people.
    pub(super) fn show(&self, now_ms: u64) -> flotillapb::Operator {
        flotillapb::Operator {
            operator_id: self.id,
            region_id: self.plan.region.get(),
            origin: self.plan.origin.into(),
            description: self.plan.description.clone(),
            steps: self.plan.steps.iter().map(Step::to_string).collect(),
            step: self.at as u32,
            state: self.state as i32,
            reason: self.reason.clone(),
            age_ms: now_ms.saturating_sub(self.begun_ms),
        }
    }
}

//! Operators that somebody asks for, and the reasons for refusing them.

use proto::codec::is_boundary;
use proto::flotillapb::add_operator_request::{
    Merge, MovePeer, Scatter, Split, TransferLeader, Wish,
};
use proto::flotillapb::{
    AddOperatorRequest, AddOperatorResponse, CancelOperatorRequest, CancelOperatorResponse,
    OperatorState,
};
use proto::ids::{RegionId, StoreId};
use proto::metapb::PeerRole;

use super::builder::{self, Goal};
use super::operator::{Kind, Plan};
use super::placement::stores_of;
use super::regions::RegionInfo;
use super::sizes::join;
use super::step::{Step, can_lead, is_joint};
use super::{Change, Error, Scheduler};

/// Cuts of one wish.
const SPLIT_KEYS_MAX: usize = 256;
/// Regions of one wish.
const SCATTER_REGIONS_MAX: usize = 1024;

fn refused<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Refused(reason.into()))
}

fn no_ids() -> Error {
    Error::Refused("no ids are at hand this moment: ask again".into())
}

impl Scheduler {
    /// Begins what somebody wishes. Its instructions go out with the next tick or heartbeat.
    pub fn add_operator(
        &mut self,
        request: AddOperatorRequest,
        now_ms: u64,
    ) -> Result<(Change, AddOperatorResponse), Error> {
        let now_ms = self.time.observe(now_ms);
        let plans = match request.wish {
            Some(Wish::Split(wish)) => vec![self.split(wish)?],
            Some(Wish::Merge(wish)) => vec![self.merge(wish, now_ms)?],
            Some(Wish::MovePeer(wish)) => vec![self.move_peer(wish, now_ms)?],
            Some(Wish::TransferLeader(wish)) => vec![self.transfer_leader(wish)?],
            Some(Wish::Scatter(wish)) => self.scatter(wish, now_ms)?,
            None => return Err(Error::invalid("wish", "must be set")),
        };
        let mut operators = Vec::new();
        for plan in plans {
            let id = self.begin(plan, now_ms).ok_or_else(no_ids)?;
            let begun = self.agenda.operators.running().find(|operator| operator.id == id);
            operators.extend(begun.map(|operator| operator.show(now_ms)));
        }
        Ok((Change::default(), AddOperatorResponse { header: None, operators }))
    }

    /// Gives up a region's operator where it stands; the checkers tidy up.
    pub fn cancel_operator(
        &mut self,
        request: CancelOperatorRequest,
        now_ms: u64,
    ) -> Result<(Change, CancelOperatorResponse), Error> {
        let now_ms = self.time.observe(now_ms);
        let region = RegionId::new(request.region_id);
        self.regions.by_id(region).ok_or(Error::RegionUnknown(region))?;
        let Some(operator) = self.agenda.operators.of_region(region) else {
            return refused(format!("region {region} has no operator"));
        };
        let id = operator.id;
        let reason = "by request".to_owned();
        self.agenda.operators.end(id, OperatorState::Cancelled, reason, now_ms);
        let ended = self.agenda.operators.ended().next();
        let operator = ended.map(|(_, operator)| operator.show(now_ms));
        Ok((Change::default(), CancelOperatorResponse { header: None, operator }))
    }

    /// A region that an operator can work on.
    fn workable(&self, id: u64) -> Result<&RegionInfo, Error> {
        let id = RegionId::new(id);
        let info = self.regions.by_id(id).ok_or(Error::RegionUnknown(id))?;
        if info.leader.is_none() {
            return refused(format!("region {id} has no leader that has reported"));
        }
        match self.agenda.operators.of_region(id) {
            Some(busy) if busy.plan.kind == Kind::Admin => refused(format!(
                "region {id} has operator {} under way ({}): cancel it first",
                busy.id, busy.plan.description
            )),
            _ => Ok(info),
        }
    }

    fn split(&self, wish: Split) -> Result<Plan, Error> {
        let info = self.workable(wish.region_id)?;
        let id = info.id();
        if wish.keys.len() > SPLIT_KEYS_MAX {
            let reason = format!("{} keys, more than {SPLIT_KEYS_MAX}", wish.keys.len());
            return Err(Error::invalid("keys", reason));
        }
        for key in &wish.keys {
            let shown = key.escape_ascii();
            if key.is_empty() || !is_boundary(key) {
                return refused(format!("split key {shown} is not a valid encoding of a key"));
            }
            if !info.contains(key) {
                return refused(format!("split key {shown} lies outside of region {id}"));
            }
            if *key == info.meta.start_key {
                return refused(format!("region {id} begins at the split key {shown} already"));
            }
        }
        if !wish.keys.is_sorted_by(|a, b| a < b) {
            return Err(Error::invalid("keys", "must ascend, each once"));
        }
        let description = match wish.keys.len() {
            0 => format!("split region {id} in halves"),
            count => format!("split region {id} at {count} keys"),
        };
        let step = Step::Split { keys: wish.keys, version: info.epoch().version };
        Ok(admin(id, description, vec![step]))
    }

    fn merge(&mut self, wish: Merge, now_ms: u64) -> Result<Plan, Error> {
        let (source, target) = (wish.source_region_id, wish.target_region_id);
        if source == target {
            return refused(format!("region {source} cannot be merged into itself"));
        }
        let source = self.workable(source)?.clone();
        let target = self.workable(target)?.clone();
        join(&source, &target).map_err(Error::Refused)?;
        let view = self.view(now_ms);
        for info in [&source, &target] {
            if !view.is_healthy(info) {
                let id = info.id();
                return refused(format!(
                    "region {id} has a peer that is down, behind or a learner"
                ));
            }
        }
        let plan = self.plan(now_ms, |view, fresh| {
            view.merge_plan(&source, &target, Kind::Admin, "admin", fresh)
        });
        plan.ok_or_else(no_ids)
    }

    fn move_peer(&mut self, wish: MovePeer, now_ms: u64) -> Result<Plan, Error> {
        let info = self.workable(wish.region_id)?.clone();
        let (id, from, to) =
            (info.id(), StoreId::new(wish.from_store_id), StoreId::new(wish.to_store_id));
        for store in [from, to] {
            self.stores.get(store).ok_or(Error::StoreUnknown(store))?;
        }
        let held = stores_of(&info.meta);
        if !held.contains(&from) {
            return refused(format!("region {id} has no peer on store {from}"));
        }
        if held.contains(&to) {
            return refused(format!("region {id} has a peer on store {to} already"));
        }
        if is_joint(&info) {
            return refused(format!("region {id} is changing its peers: ask again"));
        }
        let view = self.view(now_ms);
        if let Err(unfit) = view.fit(to, false) {
            return refused(format!("store {to} {unfit}"));
        }
        let mut others = held;
        others.remove(&from);
        if let Some(unfit) = self.stores.get(to).and_then(|store| view.shares(store, &others)) {
            return refused(format!("store {to} {unfit} of region {id}"));
        }
        let goal = Goal::of(&info).without(from).with(to);
        let steps = self.plan(now_ms, |_, fresh| builder::steps(&info, &goal, fresh));
        let description = format!("move peer of region {id} from store {from} to store {to}");
        Ok(admin(id, description, steps.ok_or_else(no_ids)?))
    }

    fn transfer_leader(&self, wish: TransferLeader) -> Result<Plan, Error> {
        let info = self.workable(wish.region_id)?;
        let (id, to) = (info.id(), StoreId::new(wish.to_store_id));
        self.stores.get(to).ok_or(Error::StoreUnknown(to))?;
        let Some(peer) = info.meta.peers.iter().find(|peer| peer.store_id == to.get()) else {
            return refused(format!("region {id} has no peer on store {to}"));
        };
        if info.leader.is_some_and(|leader| leader.id == peer.id) {
            return refused(format!("store {to} leads region {id} already"));
        }
        if peer.role() == PeerRole::Learner {
            return refused(format!("the peer of region {id} on store {to} is a learner"));
        }
        if !can_lead(info, peer) {
            return refused(format!("the peer of region {id} on store {to} is down or behind"));
        }
        let description = format!("transfer leader of region {id} to store {to}");
        Ok(admin(id, description, vec![Step::Transfer { to, leave: None }]))
    }

    fn scatter(&mut self, wish: Scatter, now_ms: u64) -> Result<Vec<Plan>, Error> {
        let count = wish.region_ids.len();
        if count == 0 || count > SCATTER_REGIONS_MAX {
            let reason = format!("{count} regions, not between 1 and {SCATTER_REGIONS_MAX}");
            return Err(Error::invalid("region_ids", reason));
        }
        let mut ids = wish.region_ids;
        ids.sort_unstable();
        ids.dedup();
        let set: Result<Vec<RegionInfo>, Error> =
            ids.into_iter().map(|id| self.workable(id).cloned()).collect();
        let set = set?;
        let set: Vec<&RegionInfo> = set.iter().collect();
        Ok(self.plan(now_ms, |view, fresh| view.scatter(&set, fresh)))
    }
}

fn admin(region: RegionId, description: String, steps: Vec<Step>) -> Plan {
    Plan { region, partner: None, kind: Kind::Admin, origin: "admin", description, steps }
}

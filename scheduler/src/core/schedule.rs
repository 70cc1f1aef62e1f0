//! When what is decided: with every heartbeat the region it speaks of, with every tick a slice of all
//! regions and the balancers whose turn it is.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::ids::{PeerId, RegionId, StoreId};
use proto::pdpb;

use super::Scheduler;
use super::balance::Round;
use super::life::{Decision, decided};
use super::operator::{Kind, Plan};
use super::operators::Operators;
use super::placement::{View, life_name};
use super::record::{Change, Record};
use super::regions::RegionInfo;

/// Regions that one tick looks at.
const PATROL: usize = 64;
/// A balancer that found something looks again after this, …
const INTERVAL_MS: u64 = 50;
/// … and one that finds nothing waits a third longer each time, up to this.
const INTERVAL_MS_MAX: u64 = 5000;

/// What evens loads out, and what else can be paused, by the origin of its operators.
pub(super) const BALANCERS: [&str; 6] =
    ["balance-leader", "balance-region", "balance-hot", "merge-small", "split-large", "spread"];

/// One balancer's turns.
#[derive(Debug, Default)]
struct Turns {
    count: u64,
    next_ms: u64,
    interval_ms: u64,
    view: String,
}

impl Turns {
    fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.next_ms
    }

    fn took(&mut self, made: bool, view: String, now_ms: u64) {
        self.count += 1;
        self.view = view;
        self.interval_ms = match made {
            true => INTERVAL_MS,
            false => (self.interval_ms.max(INTERVAL_MS) * 4 / 3).min(INTERVAL_MS_MAX),
        };
        self.next_ms = now_ms + self.interval_ms;
    }
}

/// What the scheduler is about; none of it outlives it.
#[derive(Debug)]
pub(super) struct Agenda {
    pub(super) operators: Operators,
    /// Peers that were to leave each store that is being emptied when that began.
    pub(super) drains: BTreeMap<StoreId, u64>,
    opened_ms: u64,
    /// Enough regions have reported; never taken back.
    prepared: bool,
    /// Where the patrol goes on.
    patrol: Bytes,
    hot: BTreeSet<RegionId>,
    turns: BTreeMap<&'static str, Turns>,
}

impl Agenda {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            operators: Operators::default(),
            drains: BTreeMap::new(),
            opened_ms: now_ms,
            prepared: false,
            patrol: Bytes::new(),
            hot: BTreeSet::new(),
            turns: BTreeMap::new(),
        }
    }

    /// What a balancer saw last.
    pub(super) fn seen_by(&self, balancer: &str) -> &str {
        self.turns.get(balancer).map_or("", |turns| &turns.view)
    }
}

impl Scheduler {
    pub(super) fn view(&self, now_ms: u64) -> View<'_> {
        View {
            settings: &self.settings,
            stores: &self.stores,
            tree: &self.regions,
            operators: &self.agenda.operators,
            first_replicas: self.config.replicas as usize,
            now_ms,
        }
    }

    /// Makes a plan with the help of fresh ids: those of the durable window, so that nothing has to be
    /// written first.
    pub(super) fn plan<R>(
        &mut self,
        now_ms: u64,
        decide: impl FnOnce(View<'_>, &mut dyn FnMut() -> Option<PeerId>) -> R,
    ) -> R {
        let view = View {
            settings: &self.settings,
            stores: &self.stores,
            tree: &self.regions,
            operators: &self.agenda.operators,
            first_replicas: self.config.replicas as usize,
            now_ms,
        };
        let ids = &mut self.ids;
        decide(view, &mut || Some(ids.try_take(1)?.start.into()))
    }

    /// Begins a plan; its operator's id, unless a region of it is busy or there is no id.
    pub(super) fn begin(&mut self, plan: Plan, now_ms: u64) -> Option<u64> {
        let id = self.ids.try_take(1)?.start;
        self.agenda.operators.begin(id, plan, &self.regions, now_ms).then_some(id)
    }

    /// Looks after the cluster: call it every 100 ms to 1 s while leading. Each instruction goes down the
    /// stream of the store of its `target_peer`; one that is lost is given again with the region's next
    /// heartbeat.
    pub fn tick(&mut self, now_ms: u64) -> (Change, Vec<pdpb::RegionHeartbeatResponse>) {
        let unix_ms = now_ms;
        let now_ms = self.time.observe(now_ms);
        let mut change = Change::default();
        if self.is_prepared(now_ms) {
            self.patrol(unix_ms, now_ms);
            self.balance_all(unix_ms, now_ms);
            self.settle_stores(&mut change);
        }
        let view = View {
            settings: &self.settings,
            stores: &self.stores,
            tree: &self.regions,
            operators: &Operators::default(),
            first_replicas: self.config.replicas as usize,
            now_ms,
        };
        let lost = |store: StoreId| {
            view.is_dead(store).then(|| format!("store {store} is {}", life_name(view.life(store))))
        };
        let told = self.agenda.operators.advance_all(&self.regions, lost, now_ms);
        (change, told)
    }

    /// Whether enough is known to decide: four regions of five have reported, or time is up.
    fn is_prepared(&mut self, now_ms: u64) -> bool {
        let (led, all) = (self.regions.led_count(), self.regions.len());
        let heard = all > 0 && led * 5 >= all * 4;
        let waited_ms = now_ms.saturating_sub(self.agenda.opened_ms);
        let agenda = &mut self.agenda;
        agenda.prepared |= heard || self.plan.is_some() && waited_ms >= self.settings.prepare_ms;
        agenda.prepared
    }

    /// After a region's report: what it needs, and what its leader is to do.
    pub(super) fn look_after(
        &mut self,
        region: RegionId,
        unix_ms: u64,
        now_ms: u64,
    ) -> Option<pdpb::RegionHeartbeatResponse> {
        let hot = self
            .regions
            .by_id(region)
            .is_some_and(|info| info.flow.bytes() >= self.settings.hot_region_bytes_per_s);
        match hot {
            true => self.agenda.hot.insert(region),
            false => self.agenda.hot.remove(&region),
        };
        let told = self.agenda.operators.advance(region, &self.regions, now_ms);
        if told.is_none() && self.is_prepared(now_ms) {
            self.check(region, unix_ms, now_ms);
            return self.agenda.operators.advance(region, &self.regions, now_ms);
        }
        told
    }

    /// A region lost its place: whoever works on it learns of that.
    pub(super) fn displaced(&mut self, region: RegionId, now_ms: u64) {
        self.agenda.hot.remove(&region);
        let _ = self.agenda.operators.advance(region, &self.regions, now_ms);
    }

    fn patrol(&mut self, unix_ms: u64, now_ms: u64) {
        let from = self.agenda.patrol.clone();
        let slice: Vec<(RegionId, Bytes)> = self
            .regions
            .entries_from(&from, PATROL)
            .map(|info| (info.id(), info.meta.end_key.clone()))
            .collect();
        self.agenda.patrol = match slice.last() {
            Some((_, end)) if slice.len() == PATROL => end.clone(),
            _ => Bytes::new(),
        };
        for (region, _) in slice {
            self.check(region, unix_ms, now_ms);
        }
    }

    /// Begins what a region needs, if nothing is under way for it.
    fn check(&mut self, region: RegionId, unix_ms: u64, now_ms: u64) {
        if self.agenda.operators.of_region(region).is_some() {
            return;
        }
        let Some(info) = self.regions.by_id(region).cloned() else { return };
        let paused = |name| self.is_paused(name, unix_ms);
        let (spread, merge, split) =
            (!paused("spread"), !paused("merge-small"), !paused("split-large"));
        let plan = self.plan(now_ms, |view, fresh| {
            let limit = view.settings.replica_schedule_limit;
            let needed = match view.operators.count(Kind::Replica) < limit {
                true => view.check(&info, fresh),
                false => Ok(None),
            };
            match needed {
                Ok(Some(plan)) => Some(plan).filter(|plan| spread || plan.origin != "spread"),
                Err(_) => None,
                Ok(None) => {
                    let large = if split { view.check_large(&info) } else { None };
                    large.or_else(|| if merge { view.check_small(&info, fresh) } else { None })
                }
            }
        });
        if let Some(plan) = plan {
            self.begin(plan, now_ms);
        }
    }

    fn balance_all(&mut self, unix_ms: u64, now_ms: u64) {
        for name in ["balance-leader", "balance-region", "balance-hot"] {
            let turns = self.agenda.turns.entry(name).or_default();
            let (due, turn) = (turns.is_due(now_ms), turns.count);
            if !due || self.is_paused(name, unix_ms) {
                continue;
            }
            let hot: Vec<RegionId> = self.agenda.hot.iter().copied().collect();
            let round = self.plan(now_ms, |view, fresh| {
                let room = |kind, limit| view.operators.count(kind) < limit;
                let leaders = room(Kind::Leader, view.settings.leader_schedule_limit);
                let regions = room(Kind::Region, view.settings.region_schedule_limit);
                match name {
                    "balance-leader" if leaders => view.balance_leaders(turn),
                    "balance-region" if regions => view.balance_regions(turn, fresh),
                    "balance-hot" if leaders => view.balance_hot(hot.into_iter(), turn),
                    _ => Round { view: "waiting for limits".into(), ..Round::default() },
                }
            });
            let mut made = false;
            for plan in round.plans {
                made |= self.begin(plan, now_ms).is_some();
            }
            self.agenda.turns.entry(name).or_default().took(made, round.view, now_ms);
        }
    }

    /// Notes how far stores have been emptied; a given-up one without peers becomes a tombstone.
    fn settle_stores(&mut self, change: &mut Change) {
        let leaving: Vec<StoreId> = self
            .stores
            .iter()
            .filter(|store| store.is_leaving() && !store.is_tombstone())
            .map(|store| store.id())
            .collect();
        self.agenda.drains.retain(|store, _| leaving.contains(store));
        for store in leaving {
            let peers = self.regions.counts(store).1 as u64;
            let total = self.agenda.drains.entry(store).or_default();
            *total = (*total).max(peers);
            let lost = self.stores.get(store).filter(|info| info.is_lost());
            if let Some(info) = lost
                && self.has_peers(store).is_none()
            {
                change.put(Record::Store(decided(info.meta.clone(), Decision::Bury)));
            }
        }
    }

    /// Why a store may still have peers; `None` if it certainly has none.
    pub(super) fn has_peers(&self, store: StoreId) -> Option<String> {
        let peers = self.regions.counts(store).1;
        let unheard = self.regions.len() - self.regions.led_count();
        let coming = self.agenda.operators.count_on(store);
        if peers > 0 {
            Some(format!("store {store} still has {peers} peers"))
        } else if coming > 0 {
            Some(format!("{coming} operators still move peers to or from store {store}"))
        } else if unheard > 0 || !self.regions.is_whole() {
            let what = "have not reported since the scheduler started";
            Some(format!("{} regions {what}: they may have peers on store {store}", unheard.max(1)))
        } else {
            None
        }
    }

    /// Whether a balancer rests.
    pub(super) fn is_paused(&self, balancer: &str, unix_ms: u64) -> bool {
        self.pauses.get(balancer).is_some_and(|&until_ms| until_ms == 0 || unix_ms < until_ms)
    }
}

impl RegionInfo {
    /// How long ago its leader reported; `None` if it has not.
    pub(super) fn silent_ms(&self, now_ms: u64) -> Option<u64> {
        self.leader.is_some().then(|| now_ms.saturating_sub(self.heard_ms))
    }
}

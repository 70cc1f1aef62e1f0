//! The scheduler's decisions, without effects: time comes in as `now_ms` (Unix milliseconds), what
//! must be remembered goes out as a [`Change`].
//!
//! **Life of a change.** A method that returns a `Change` has promised nothing yet: the caller commits
//! it to the journal, gives it to [`Scheduler::apply`], and only then answers. Changes are made and
//! applied one after the other, in one order. Methods that return no `Change` touch only what is
//! durable already or what a restart may forget (heartbeats).
//!
//! **Recovery.** [`Scheduler::open`] applies every record of the journal, skips what was left of the
//! id and timestamp windows, and returns the change that opens new ones.

mod balance;
mod bootstrap;
mod builder;
mod checkers;
mod error;
mod ids;
mod life;
mod loads;
#[cfg(test)]
mod model;
mod operations;
mod operator;
mod operators;
mod placement;
mod record;
mod regions;
mod scatter;
mod schedule;
mod settings;
mod sizes;
mod steady;
mod step;
mod store_changes;
mod stores;
mod tso;
mod views;
mod wishes;

use std::collections::BTreeMap;
use std::ops::Range;

use proto::flotillapb::InitialPlan;
use proto::ids::{RegionId, StoreId};
use proto::limits::REGION_PEERS_MAX;
use proto::{metapb, pdpb};

pub use self::bootstrap::sentinel;
pub use self::error::Error;
pub use self::ids::ID_WINDOW;
pub use self::record::{Change, FORMAT, Key, Record, RecordError};
pub use self::regions::{Flow, RegionInfo};
pub use self::stores::StoreInfo;
pub use self::tso::{LOGICAL_BITS, TIMESTAMP_WINDOW_MS, Timestamp, TimestampError};

use self::ids::IdAllocator;
use self::regions::RegionTree;
use self::schedule::Agenda;
use self::settings::Settings;
use self::steady::SteadyTime;
use self::stores::Stores;
use self::tso::TimestampOracle;

/// Regions one split may create.
const SPLIT_COUNT_MAX: u32 = 1024;

/// What the operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Stores that must have registered before the first regions are planned. No effect afterwards.
    pub initial_stores: u32,
    /// Peers of each of the first regions; at most `initial_stores`.
    pub replicas: u32,
    /// A store not heard of for this long counts as dead.
    pub store_down_ms: u64,
    /// A store not heard of for this long has its peers replaced, unless a setting says otherwise.
    pub max_store_down_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { initial_stores: 3, replicas: 3, store_down_ms: 10_000, max_store_down_ms: 600_000 }
    }
}

impl Config {
    fn validate(&self) -> Result<(), Error> {
        let replicas_max = self.initial_stores.min(REGION_PEERS_MAX as u32);
        if self.replicas == 0 || self.replicas > replicas_max {
            let reason = format!("{} is not between 1 and {replicas_max}", self.replicas);
            return Err(Error::invalid("replicas", reason));
        }
        if self.store_down_ms == 0 {
            return Err(Error::invalid("store_down_ms", "must be above 0"));
        }
        Ok(())
    }
}

/// Why a scheduler cannot start from what it found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The configuration is wrong.
    #[error("configuration: {0}")]
    Config(Error),
    /// The records are not a scheduler's, or not of this version.
    #[error("the data directory holds no scheduler state this version can read: {0}")]
    Foreign(String),
    /// The clock is unusable.
    #[error(transparent)]
    Clock(Error),
}

/// All a scheduler knows.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    cluster_id: u64,
    ids: IdAllocator,
    timestamps: TimestampOracle,
    stores: Stores,
    regions: RegionTree,
    /// Regions whose records differ from what is known, `None` for those that are gone. Written
    /// together, and only when every key's region has reported: so what a restart reads has no hole.
    unsaved: BTreeMap<RegionId, Option<metapb::Region>>,
    plan: Option<InitialPlan>,
    safe_point: u64,
    settings: Settings,
    /// Balancers that rest, until when (Unix milliseconds; 0 is for good).
    pauses: BTreeMap<String, u64>,
    time: SteadyTime,
    agenda: Agenda,
}

impl Scheduler {
    /// Starts from the journal's records. `fresh_cluster_id` becomes the cluster's id if there is none
    /// yet; it should be random. The change returned must be committed and applied before anything is
    /// served.
    pub fn open(
        config: Config,
        records: Vec<Record>,
        fresh_cluster_id: u64,
        now_ms: u64,
    ) -> Result<(Self, Change), OpenError> {
        config.validate().map_err(OpenError::Config)?;
        let mut change = Change::default();
        if records.is_empty() {
            if fresh_cluster_id == 0 {
                return Err(OpenError::Config(Error::invalid("cluster_id", "must not be 0")));
            }
            change.put(Record::Format(FORMAT));
            change.put(Record::ClusterId(fresh_cluster_id));
        } else {
            check_foreign(&records)?;
        }
        let settings = Settings::defaults(&config);
        let mut scheduler = Self {
            config,
            cluster_id: 0,
            ids: IdAllocator::new(),
            timestamps: TimestampOracle::default(),
            stores: Stores::default(),
            regions: RegionTree::default(),
            unsaved: BTreeMap::new(),
            plan: None,
            safe_point: 0,
            settings,
            pauses: BTreeMap::new(),
            time: SteadyTime::new(now_ms),
            agenda: Agenda::new(now_ms),
        };
        for record in records {
            scheduler.apply_record(record, now_ms);
        }
        scheduler.ids.skip_window();
        scheduler.timestamps.skip_window();
        scheduler.ids.maintain(&mut change);
        scheduler.timestamps.extend(now_ms, &mut change).map_err(OpenError::Clock)?;
        Ok((scheduler, change))
    }

    /// Takes a change in that the journal has committed.
    pub fn apply(&mut self, change: Change, now_ms: u64) {
        let now_ms = self.time.observe(now_ms);
        for id in change.removals {
            self.regions.forget(id);
        }
        for record in change.puts {
            self.apply_record(record, now_ms);
        }
    }

    fn apply_record(&mut self, record: Record, now_ms: u64) {
        match record {
            Record::Format(_) => {}
            Record::ClusterId(id) => self.cluster_id = id,
            Record::IdWindow(end) => self.ids.apply(end),
            Record::TimestampWindow(end_ms) => self.timestamps.apply(end_ms),
            Record::SafePoint(safe_point) => self.safe_point = self.safe_point.max(safe_point),
            Record::Plan(plan) => self.plan = Some(plan),
            Record::Store(store) => self.stores.apply(store, now_ms),
            Record::Region(region) => self.regions.restore(region, now_ms),
            Record::Settings(set) => self.settings = Settings::restore(&self.config, &set),
            Record::Pauses(pauses) => {
                let pauses = pauses.pauses.into_iter();
                self.pauses = pauses.map(|pause| (pause.balancer, pause.until_ms)).collect();
            }
        }
    }

    /// What should be committed ahead of need: call it several times a second.
    pub fn maintain(&mut self, now_ms: u64) -> Result<Change, Error> {
        let mut change = Change::default();
        self.ids.maintain(&mut change);
        self.timestamps.maintain(now_ms, &mut change)?;
        Ok(change)
    }

    /// The cluster's id; never 0 once the first change is applied.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    // ---- timestamps and ids ---------------------------------------------------------------------

    /// The largest of `count` new timestamps; the others differ in `logical`, downwards without gaps.
    pub fn timestamp(&mut self, count: u32, now_ms: u64) -> Result<Timestamp, TimestampError> {
        self.timestamps.take(count, now_ms)
    }

    /// Opens a new timestamp window.
    pub fn extend_timestamps(&mut self, now_ms: u64) -> Result<Change, Error> {
        let mut change = Change::default();
        self.timestamps.extend(now_ms, &mut change)?;
        Ok(change)
    }

    /// Fresh ids, as long as the durable window lasts.
    pub fn try_alloc_ids(&mut self, count: u64) -> Option<Range<u64>> {
        self.ids.try_take(count)
    }

    /// Fresh ids, to be told after the change.
    pub fn alloc_ids(&mut self, count: u64) -> (Change, Range<u64>) {
        let mut change = Change::default();
        let ids = self.ids.take(count, &mut change);
        (change, ids)
    }

    // ---- stores and bootstrap -------------------------------------------------------------------

    /// Registers a store, and plans the first regions if it is the one everybody waited for.
    pub fn put_store(&mut self, store: metapb::Store, now_ms: u64) -> Result<Change, Error> {
        let now_ms = self.time.observe(now_ms);
        let mut change = Change::default();
        let id = StoreId::new(store.id);
        let disconnect_ms = self.settings.store_disconnect_ms;
        let mut serving: Vec<_> = self.stores.serving().collect();
        for record in self.stores.register(store, now_ms, disconnect_ms)? {
            let (other, up) = (record.id.into(), record.state == metapb::StoreState::Up as i32);
            serving.retain(|&known| known != other);
            if up {
                serving.push(other);
            }
            change.put(Record::Store(record));
        }
        self.stores.hear(id, now_ms);
        serving.sort();
        if self.plan.is_none() && serving.len() >= self.config.initial_stores as usize {
            assert!(serving.contains(&id), "only a registration completes the number");
            let ids = self.ids.take(bootstrap::ids_wanted(self.config.replicas), &mut change);
            let plan = bootstrap::plan(&serving, self.config.replicas, ids);
            for region in &plan.regions {
                change.put(Record::Region(region.clone()));
            }
            change.put(Record::Plan(plan));
        }
        Ok(change)
    }

    /// Takes a store's heartbeat in; answers what the store is to be.
    pub fn store_heartbeat(
        &mut self,
        stats: pdpb::StoreStats,
        now_ms: u64,
    ) -> Result<metapb::NodeState, Error> {
        let now_ms = self.time.observe(now_ms);
        self.stores.heartbeat(stats, now_ms)
    }

    /// A store by its id, whatever its state.
    pub fn store(&self, id: StoreId) -> Option<&StoreInfo> {
        self.stores.get(id)
    }

    /// All stores ever registered, in the order of their ids.
    pub fn stores(&self) -> impl Iterator<Item = &StoreInfo> {
        self.stores.iter()
    }

    /// Whether the first regions are planned.
    pub fn is_bootstrapped(&self) -> bool {
        self.plan.is_some()
    }

    /// How many stores could take part in the plan, and how many it takes.
    pub fn stores_awaited(&self) -> (u32, u32) {
        (self.stores.serving().count() as u32, self.config.initial_stores)
    }

    /// Those of the first regions that have a peer on this store; `None` while there is no plan.
    pub fn initial_regions(&self, store: StoreId) -> Result<Option<Vec<metapb::Region>>, Error> {
        self.stores.get(store).ok_or(Error::StoreUnknown(store))?;
        let here =
            |region: &&metapb::Region| region.peers.iter().any(|peer| peer.store_id == store.get());
        let plan = self.plan.as_ref();
        Ok(plan.map(|plan| plan.regions.iter().filter(here).cloned().collect()))
    }

    // ---- regions --------------------------------------------------------------------------------

    /// Takes a leader's report in. What it says about the region counts at once; the change, often
    /// empty, only lets a restart know it too; it is empty if the region was known as it stands
    /// ([`Self::knows_region`]). The instruction, if there is one, goes back to the sender.
    pub fn region_heartbeat(
        &mut self,
        report: RegionInfo,
        now_ms: u64,
    ) -> Result<(Change, Option<pdpb::RegionHeartbeatResponse>), Error> {
        let unix_ms = now_ms;
        let now_ms = self.time.observe(now_ms);
        self.check_leader(&report)?;
        let mut change = Change::default();
        let id = report.id();
        self.report(RegionInfo { heard_ms: now_ms, ..report }, &mut change, now_ms)?;
        Ok((change, self.look_after(id, unix_ms, now_ms)))
    }

    /// Whether a report about this region, as it stands, would change nothing that is remembered.
    pub fn knows_region(&self, meta: &metapb::Region) -> bool {
        self.regions.by_id(meta.id.into()).is_some_and(|known| known.meta == *meta)
    }

    /// Takes the regions in that a split made, all at once. Who led the whole is believed to lead the parts.
    pub fn report_split(&mut self, regions: Vec<metapb::Region>) -> Result<Change, Error> {
        let now_ms = self.time.now_ms();
        let mut change = Change::default();
        for region in &regions {
            regions::validate(region)?;
        }
        let divided = |part: &metapb::Region| self.regions.by_id(part.id.into())?.leader;
        let led_from = regions.iter().find_map(divided).map(|leader| leader.store_id);
        for meta in regions {
            let mut known = self.regions.by_id(meta.id.into()).cloned().unwrap_or_default();
            // The store that led the whole campaigns for the parts at once; and there are clients that cannot wait for the
            // first report of a region to learn who leads it.
            let there = meta.peers.iter().find(|peer| Some(peer.store_id) == led_from);
            known.leader = known.leader.or(there.copied());
            match self.report(RegionInfo { meta, ..known }, &mut change, now_ms) {
                // A heartbeat was faster; the other halves still count.
                Ok(()) | Err(Error::RegionStale { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(change)
    }

    fn report(
        &mut self,
        report: RegionInfo,
        change: &mut Change,
        now_ms: u64,
    ) -> Result<(), Error> {
        let (id, meta) = (report.id(), report.meta.clone());
        let accepted = self.regions.report(report, now_ms)?;
        for &region in &accepted.displaced {
            self.displaced(region, now_ms);
        }
        if accepted.meta_changed {
            self.unsaved.extend(accepted.displaced.into_iter().map(|id| (id, None)));
            self.unsaved.insert(id, Some(meta));
        }
        if self.regions.is_whole() {
            for (id, meta) in std::mem::take(&mut self.unsaved) {
                match meta {
                    Some(meta) => change.put(Record::Region(meta)),
                    None => change.removals.push(id),
                }
            }
        }
        Ok(())
    }

    fn check_leader(&self, report: &RegionInfo) -> Result<(), Error> {
        let leader = report.leader.as_ref();
        let leader = leader.ok_or_else(|| Error::invalid("leader", "must be set"))?;
        if !report.meta.peers.iter().any(|peer| peer.id == leader.id) {
            let reason = format!("peer {} is not a peer of region {}", leader.id, report.id());
            return Err(Error::invalid("leader", reason));
        }
        let store = StoreId::new(leader.store_id);
        self.stores.get(store).ok_or(Error::StoreUnknown(store))?;
        Ok(())
    }

    /// The region that holds a key.
    pub fn region_by_key(&self, key: &[u8]) -> Option<&RegionInfo> {
        self.regions.by_key(key)
    }

    /// As [`Self::region_by_key`], but only a region that has reported that it holds the key: nothing for the
    /// half of a split that has not reported yet.
    pub fn reported_region_by_key(&self, key: &[u8]) -> Option<&RegionInfo> {
        self.regions.reported_by_key(key)
    }

    /// A region by its id.
    pub fn region_by_id(&self, id: RegionId) -> Option<&RegionInfo> {
        self.regions.by_id(id)
    }

    /// The region before the one that holds a key.
    pub fn previous_region(&self, key: &[u8]) -> Option<&RegionInfo> {
        self.regions.previous(key)
    }

    /// The regions that overlap `[start, end)`, in order; an empty end is +inf.
    pub fn scan_regions(&self, start: &[u8], end: &[u8], limit: usize) -> Vec<&RegionInfo> {
        self.regions.scan(start, end, limit)
    }

    /// How many regions are known.
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// How many regions a store leads, and how many it has a peer of.
    pub fn region_counts(&self, store: StoreId) -> (usize, usize) {
        self.regions.counts(store)
    }

    /// Ids for the regions and peers a split will make.
    pub fn ask_split(
        &mut self,
        region: &metapb::Region,
        count: u32,
    ) -> Result<(Change, Vec<pdpb::SplitId>), Error> {
        regions::validate(region)?;
        if count == 0 || count > SPLIT_COUNT_MAX {
            let reason = format!("{count} is not between 1 and {SPLIT_COUNT_MAX}");
            return Err(Error::invalid("split_count", reason));
        }
        let peers = region.peers.len() as u64;
        let (change, mut ids) = self.alloc_ids(u64::from(count) * (1 + peers));
        let mut take = || ids.next().expect("counted above");
        let split = |_| {
            let new_region_id = take();
            pdpb::SplitId { new_region_id, new_peer_ids: (0..peers).map(|_| take()).collect() }
        };
        let splits = (0..count).map(split).collect();
        Ok((change, splits))
    }

    // ---- garbage collection ---------------------------------------------------------------------

    /// Versions before this timestamp may be collected.
    pub fn safe_point(&self) -> u64 {
        self.safe_point
    }

    /// Moves the safe point forward; never back.
    pub fn update_safe_point(&mut self, safe_point: u64) -> Change {
        let mut change = Change::default();
        if safe_point > self.safe_point {
            change.put(Record::SafePoint(safe_point));
        }
        change
    }
}

fn check_foreign(records: &[Record]) -> Result<(), OpenError> {
    let format = records.iter().find_map(|record| match record {
        Record::Format(format) => Some(*format),
        _ => None,
    });
    let has_cluster = records.iter().any(|record| matches!(record, Record::ClusterId(1..)));
    match format {
        Some(FORMAT) if has_cluster => Ok(()),
        Some(FORMAT) => Err(OpenError::Foreign("it has no cluster id".into())),
        Some(format) => Err(OpenError::Foreign(format!("its format is {format}, not {FORMAT}"))),
        None => Err(OpenError::Foreign("it does not say which format it has".into())),
    }
}

#[cfg(test)]
mod tests;

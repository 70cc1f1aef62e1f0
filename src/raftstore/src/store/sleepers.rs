//! Who is awake, and what is known of those who are not: indexes, so that nobody has to look at every peer.
//!
//! Invariants: 1. a peer is awake or asleep, never both; 2. the indexes by store hold exactly the sleepers.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{RegionId, StoreId};

use crate::peer::Asleep;

/// See the module header.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    /// Peers that are ticked.
    awake: BTreeSet<RegionId>,
    asleep: BTreeMap<RegionId, Entry>,
    /// Sleepers led by another store.
    led_by: BTreeMap<StoreId, BTreeSet<RegionId>>,
    /// Sleepers led here, by a store that was silent when they fell asleep.
    without: BTreeMap<StoreId, BTreeSet<RegionId>>,
    /// Number of sleepers shared with a store.
    shared: BTreeMap<StoreId, usize>,
    /// When sleepers say something.
    reports: BTreeSet<(u64, RegionId)>,
}

#[derive(Debug)]
struct Entry {
    asleep: Asleep,
    report_tick: u64,
}

fn remove(index: &mut BTreeMap<StoreId, BTreeSet<RegionId>>, store: StoreId, region: RegionId) {
    if let Some(regions) = index.get_mut(&store) {
        regions.remove(&region);
        if regions.is_empty() {
            index.remove(&store);
        }
    }
}

impl Sleepers {
    /// Those that are ticked.
    pub(super) fn awake(&self) -> &BTreeSet<RegionId> {
        &self.awake
    }

    pub(super) fn asleep_count(&self) -> usize {
        self.asleep.len()
    }

    /// A peer falls asleep; it says something at `report_tick`.
    pub(super) fn insert(&mut self, region: RegionId, asleep: Asleep, report_tick: u64) {
        self.rouse(region);
        self.awake.remove(&region);
        for store in asleep.others.iter() {
            *self.shared.entry(*store).or_default() += 1;
        }
        for store in asleep.without.iter() {
            self.without.entry(*store).or_default().insert(region);
        }
        if let Some(store) = asleep.leader {
            self.led_by.entry(store).or_default().insert(region);
        }
        self.reports.insert((report_tick, region));
        self.asleep.insert(region, Entry { asleep, report_tick });
    }

    /// A peer is awake from now on.
    pub(super) fn rouse(&mut self, region: RegionId) {
        self.forget(region);
        self.awake.insert(region);
    }

    /// A peer is gone.
    pub(super) fn forget(&mut self, region: RegionId) {
        self.awake.remove(&region);
        let Some(Entry { asleep, report_tick }) = self.asleep.remove(&region) else { return };
        for store in asleep.others.iter() {
            if let Some(count) = self.shared.get_mut(store) {
                *count -= 1;
                if *count == 0 {
                    self.shared.remove(store);
                }
            }
        }
        asleep.without.iter().for_each(|store| remove(&mut self.without, *store, region));
        if let Some(store) = asleep.leader {
            remove(&mut self.led_by, store, region);
        }
        self.reports.remove(&(report_tick, region));
    }

    /// The sleepers that `store` leads.
    pub(super) fn led_by(&self, store: StoreId) -> Vec<RegionId> {
        self.led_by.get(&store).into_iter().flatten().copied().collect()
    }

    /// The sleepers led here whose peer on `store` may lack something.
    pub(super) fn without(&self, store: StoreId) -> Vec<RegionId> {
        self.without.get(&store).into_iter().flatten().copied().collect()
    }

    /// The sleepers led here that have a peer on `store`.
    pub(super) fn led_here_beside(&self, store: StoreId) -> Vec<RegionId> {
        let beside = |(_, entry): &(&RegionId, &Entry)| {
            entry.asleep.leader.is_none() && entry.asleep.others.contains(&store)
        };
        self.asleep.iter().filter(beside).map(|(region, _)| *region).collect()
    }

    /// The stores that share sleepers with this one.
    pub(super) fn sharing(&self) -> impl Iterator<Item = StoreId> + '_ {
        self.shared.keys().copied()
    }

    /// Sleepers that are to say something at `tick`; the next time is a period later, one for those led here and one for
    /// the others.
    pub(super) fn take_due_reports(
        &mut self,
        tick: u64,
        (led_here, others): (u64, u64),
    ) -> Vec<RegionId> {
        let mut due = Vec::new();
        while let Some((at, region)) = self.reports.first().copied().filter(|(at, _)| *at <= tick) {
            self.reports.remove(&(at, region));
            if let Some(entry) = self.asleep.get_mut(&region) {
                let period = if entry.asleep.leader.is_none() { led_here } else { others };
                entry.report_tick = tick + period;
                self.reports.insert((entry.report_tick, region));
            }
            due.push(region);
        }
        due
    }

    /// Every sleeper that is led here reports soon, spread over `spread_ticks`.
    pub(super) fn hasten_reports(&mut self, tick: u64, spread_ticks: u64) {
        let led = self.asleep.iter_mut().filter(|(_, entry)| entry.asleep.leader.is_none());
        for (number, (region, entry)) in led.enumerate() {
            self.reports.remove(&(entry.report_tick, *region));
            entry.report_tick = tick + 1 + number as u64 % spread_ticks.max(1);
            self.reports.insert((entry.report_tick, *region));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asleep(leader: Option<u64>, without: &[u64]) -> Asleep {
        Asleep {
            leader: leader.map(StoreId::from),
            others: [2, 3].map(StoreId::from).into(),
            without: without.iter().copied().map(StoreId::from).collect(),
        }
    }

    #[test]
    fn sleepers_are_found_by_store_and_gone_when_roused() {
        let mut sleepers = Sleepers::default();
        let (one, two) = (RegionId::from(1), RegionId::from(2));
        sleepers.rouse(one);
        sleepers.insert(one, asleep(Some(2), &[]), 60);
        sleepers.insert(two, asleep(None, &[3]), 50);
        assert!(sleepers.awake().is_empty());
        assert_eq!(sleepers.led_by(StoreId::from(2)), [one]);
        assert_eq!(sleepers.without(StoreId::from(3)), [two]);
        assert_eq!(sleepers.sharing().count(), 2);
        let periods = (100, 1000);
        assert_eq!(sleepers.take_due_reports(60, periods), [two, one]);
        assert_eq!(sleepers.take_due_reports(159, periods), []);
        assert_eq!(sleepers.take_due_reports(160, periods), [two]);
        sleepers.hasten_reports(161, 10);
        assert_eq!(sleepers.take_due_reports(162, periods), [two]);
        sleepers.rouse(one);
        sleepers.forget(two);
        assert_eq!(sleepers.led_by(StoreId::from(2)), []);
        assert_eq!(sleepers.without(StoreId::from(3)), []);
        assert_eq!((sleepers.sharing().count(), sleepers.asleep_count()), (0, 0));
        assert_eq!(sleepers.take_due_reports(5000, periods), []);
        assert_eq!(sleepers.awake().len(), 1);
    }
}

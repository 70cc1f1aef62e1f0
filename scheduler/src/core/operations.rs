//! What people look at and set: regions, stores, operators, balancers, settings. Headers are the edge's;
//! operators that are wished for are in `wishes`, decisions about stores in `store_changes`.

use proto::flotillapb::balance_request::Action;
use proto::flotillapb::{
    BalanceRequest, BalanceResponse, Balancer, ConfigRequest, ConfigResponse, ListOperatorsRequest,
    ListOperatorsResponse, ListRegionsRequest, ListRegionsResponse, ListStoresRequest,
    ListStoresResponse, Pauses, pauses::Pause,
};
use proto::ids::{RegionId, StoreId};

use super::record::Record;
use super::regions::RegionInfo;
use super::schedule::BALANCERS;
use super::settings::nearest;
use super::{Change, Error, Scheduler};

fn limit(asked: u32) -> usize {
    if asked == 0 { usize::MAX } else { asked as usize }
}

impl Scheduler {
    /// Regions by id, key, store or range.
    pub fn list_regions(
        &self,
        request: &ListRegionsRequest,
        now_ms: u64,
    ) -> Result<ListRegionsResponse, Error> {
        let now_ms = self.time.at(now_ms);
        let limit = limit(request.limit);
        let found: Vec<&RegionInfo> = if request.region_id != 0 {
            let id = RegionId::new(request.region_id);
            vec![self.regions.by_id(id).ok_or(Error::RegionUnknown(id))?]
        } else if request.by_key {
            let unknown = || Error::KeyUnknown(request.key.escape_ascii().to_string());
            vec![self.regions.by_key(&request.key).ok_or_else(unknown)?]
        } else if request.store_id != 0 {
            let id = StoreId::new(request.store_id);
            self.stores.get(id).ok_or(Error::StoreUnknown(id))?;
            let ids = self.regions.load(id).into_iter().flat_map(|load| &load.regions);
            ids.filter_map(|&id| self.regions.by_id(id)).take(limit).collect()
        } else {
            self.regions.scan(&request.start_key, &request.end_key, limit)
        };
        let regions = found.into_iter().map(|info| self.region_view(info, now_ms)).collect();
        Ok(ListRegionsResponse { header: None, regions })
    }

    /// Stores with what they hold and where they are in their life.
    pub fn list_stores(
        &self,
        request: &ListStoresRequest,
        now_ms: u64,
    ) -> Result<ListStoresResponse, Error> {
        let now_ms = self.time.at(now_ms);
        if request.store_id != 0 {
            let id = StoreId::new(request.store_id);
            let store = self.stores.get(id).ok_or(Error::StoreUnknown(id))?;
            return Ok(ListStoresResponse {
                header: None,
                stores: vec![self.store_view(store, now_ms)],
            });
        }
        let stores = self.stores.iter().map(|store| self.store_view(store, now_ms)).collect();
        Ok(ListStoresResponse { header: None, stores })
    }

    /// Operators that run, or those that ended, newest first; the age of the latter is how long they took.
    pub fn list_operators(
        &self,
        request: &ListOperatorsRequest,
    ) -> Result<ListOperatorsResponse, Error> {
        let (limit, now_ms) = (limit(request.limit), self.time.now_ms());
        let operators = self.agenda.operators.show(request.history, limit, now_ms);
        Ok(ListOperatorsResponse { header: None, operators })
    }

    /// Shows, pauses or resumes balancers.
    pub fn balance(
        &mut self,
        request: &BalanceRequest,
        now_ms: u64,
    ) -> Result<(Change, BalanceResponse), Error> {
        self.time.observe(now_ms);
        let name = &request.balancer;
        if !name.is_empty() && !BALANCERS.contains(&name.as_str()) {
            let near = nearest(name, BALANCERS.into_iter());
            return Err(Error::Refused(format!("there is no balancer {name:?}{near}")));
        }
        let meant = BALANCERS.into_iter().filter(|known| name.is_empty() || name == known);
        let mut pauses = self.pauses.clone();
        pauses.retain(|_, until_ms| *until_ms == 0 || *until_ms > now_ms);
        let mut change = Change::default();
        let action = Action::try_from(request.action)
            .map_err(|_| Error::invalid("action", "is none that this version knows"))?;
        match action {
            Action::Show => {}
            Action::Pause => {
                let until_ms = match request.pause_ms {
                    0 => 0,
                    pause_ms => now_ms.saturating_add(pause_ms),
                };
                pauses.extend(meant.clone().map(|name| (name.to_owned(), until_ms)));
            }
            Action::Resume => pauses.retain(|paused, _| !meant.clone().any(|name| name == paused)),
        }
        if action != Action::Show {
            let pause =
                |(name, &until_ms): (&String, &u64)| Pause { balancer: name.clone(), until_ms };
            change.put(Record::Pauses(Pauses { pauses: pauses.iter().map(pause).collect() }));
        }
        let show = |name: &'static str| Balancer {
            name: name.into(),
            paused: pauses.contains_key(name),
            paused_ms_left: pauses.get(name).map_or(0, |until_ms| until_ms.saturating_sub(now_ms)),
            operators_running: self.agenda.operators.count_by_origin(name),
            operators_made: self.agenda.operators.made(name),
            view: self.agenda.seen_by(name).to_owned(),
        };
        let balancers = meant.clone().map(show).collect();
        Ok((change, BalanceResponse { header: None, balancers }))
    }

    /// Shows and sets settings: all that are asked for, or none.
    pub fn configure(
        &mut self,
        request: &ConfigRequest,
    ) -> Result<(Change, ConfigResponse), Error> {
        let mut settings = self.settings.clone();
        for item in &request.set {
            settings.set(&item.name, &item.value)?;
        }
        let mut change = Change::default();
        if settings != self.settings {
            change.put(Record::Settings(settings.record(&self.config)));
        }
        let items = settings.show(&self.config);
        Ok((change, ConfigResponse { header: None, items }))
    }
}

//! What people ask of the scheduler: one method per RPC of `flotilla.Operations`. Headers are the edge's.

use proto::flotillapb::{
    AddOperatorRequest, AddOperatorResponse, BalanceRequest, BalanceResponse,
    CancelOperatorRequest, CancelOperatorResponse, ChangeStoreRequest, ChangeStoreResponse,
    ConfigRequest, ConfigResponse, ListOperatorsRequest, ListOperatorsResponse, ListRegionsRequest,
    ListRegionsResponse, ListStoresRequest, ListStoresResponse,
};

use super::{Change, Error, Scheduler};

fn not_yet<T>() -> Result<T, Error> {
    Err(Error::Refused("this scheduler cannot do that yet".into()))
}

impl Scheduler {
    /// Regions by id, key, store or range.
    pub fn list_regions(
        &self,
        _request: &ListRegionsRequest,
        _now_ms: u64,
    ) -> Result<ListRegionsResponse, Error> {
        not_yet()
    }

    /// Stores with what they hold and where they are in their life.
    pub fn list_stores(
        &self,
        _request: &ListStoresRequest,
        _now_ms: u64,
    ) -> Result<ListStoresResponse, Error> {
        not_yet()
    }

    /// Operators that run, or those that ended.
    pub fn list_operators(
        &self,
        _request: &ListOperatorsRequest,
    ) -> Result<ListOperatorsResponse, Error> {
        not_yet()
    }

    /// Begins what somebody wishes. Its instructions go out with the next tick or heartbeat.
    pub fn add_operator(
        &mut self,
        _request: AddOperatorRequest,
        _now_ms: u64,
    ) -> Result<(Change, AddOperatorResponse), Error> {
        not_yet()
    }

    /// Gives up a region's operator where it stands; the checkers tidy up.
    pub fn cancel_operator(
        &mut self,
        _request: CancelOperatorRequest,
        _now_ms: u64,
    ) -> Result<(Change, CancelOperatorResponse), Error> {
        not_yet()
    }

    /// Drains, removes, replaces or labels a store.
    pub fn change_store(
        &mut self,
        _request: ChangeStoreRequest,
        _now_ms: u64,
    ) -> Result<(Change, ChangeStoreResponse), Error> {
        not_yet()
    }

    /// Shows, pauses or resumes balancers.
    pub fn balance(
        &mut self,
        _request: &BalanceRequest,
        _now_ms: u64,
    ) -> Result<(Change, BalanceResponse), Error> {
        not_yet()
    }

    /// Shows and sets settings.
    pub fn configure(
        &mut self,
        _request: &ConfigRequest,
    ) -> Result<(Change, ConfigResponse), Error> {
        not_yet()
    }
}

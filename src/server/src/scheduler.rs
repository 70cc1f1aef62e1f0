//! What a store asks of the scheduler: ids, the first regions, other stores' addresses, ids for a split.
//!
//! Calls go to the member that leads ([`endpoints`]). They are bounded in time and not retried here: whoever calls knows
//! how long it wants to try.

mod endpoints;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proto::flotillapb::bootstrap_client::BootstrapClient;
use proto::flotillapb::{InitialRegionsRequest, InitialRegionsResponse};
use proto::ids::StoreId;
use proto::metapb;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{
    AllocIdRequest, AskBatchSplitRequest, ErrorType, GetMembersRequest, GetRegionRequest,
    GetStoreRequest, PutStoreRequest, ReportBatchSplitRequest, RequestHeader, ResponseHeader,
    SplitId, StoreHeartbeatRequest, StoreHeartbeatResponse, StoreStats,
};
use tonic::transport::Channel;
use tonic::{Response, Status};
use transport::{Resolve, ResolveError, Resolving};

pub(crate) use self::endpoints::Chosen;
use self::endpoints::Endpoints;

/// A call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the scheduler could not help.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// No endpoint is configured, or one is not an address.
    #[error("setting `schedulers`: {0}")]
    Endpoint(String),
    /// It cannot be reached, or the call failed on the way.
    #[error("scheduler at {endpoint}: {reason}")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// What failed.
        reason: String,
    },
    /// It answered, and refused.
    #[error("the scheduler refuses: {0}")]
    Refused(String),
    /// Another store has what this one asks for: its address.
    #[error("the scheduler refuses: {0}")]
    Taken(String),
}

impl SchedulerError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, SchedulerError::Unreachable { .. })
    }
}

/// A connection to the scheduler.
pub(crate) struct Scheduler {
    endpoints: Endpoints,
    cluster_id: u64,
    store_id: StoreId,
    /// Calls since the last one that came through.
    unanswered: AtomicU64,
}

impl Scheduler {
    /// Prepares connections to the endpoints; must be called within a runtime. Nobody is asked yet.
    pub(crate) fn new(addresses: &[String]) -> Result<Scheduler, SchedulerError> {
        let (endpoints, store_id) = (Endpoints::new(addresses)?, StoreId::default());
        Ok(Scheduler { endpoints, cluster_id: 0, store_id, unanswered: AtomicU64::new(0) })
    }

    /// The same endpoints, as the given store of the given cluster.
    pub(crate) fn identified(self, cluster_id: u64, store_id: StoreId) -> Scheduler {
        Scheduler { cluster_id, store_id, ..self }
    }

    /// Whether the last call came through: a scheduler without a majority answers nobody.
    pub(crate) fn is_reachable(&self) -> bool {
        self.unanswered() == 0
    }

    /// Calls that failed since the last one that came through.
    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// The cluster's id.
    pub(crate) async fn cluster_id(&self) -> Result<u64, SchedulerError> {
        let ask = |channel| async move {
            PdClient::new(channel).get_members(GetMembersRequest::default()).await
        };
        let members = self.call(ask).await?;
        match accept(members.header)?.cluster_id {
            0 => Err(SchedulerError::Refused("its cluster has no id".to_owned())),
            id => Ok(id),
        }
    }

    /// A fresh id.
    pub(crate) async fn alloc_id(&self) -> Result<u64, SchedulerError> {
        let request = AllocIdRequest { header: self.header() };
        let ask = |channel| async move { PdClient::new(channel).alloc_id(request).await };
        let response = self.call(ask).await?;
        accept(response.header)?;
        match response.id {
            0 => Err(SchedulerError::Refused("it handed out the id 0".to_owned())),
            id => Ok(id),
        }
    }

    /// Registers this store.
    pub(crate) async fn put_store(&self, store: metapb::Store) -> Result<(), SchedulerError> {
        let request = PutStoreRequest { header: self.header(), store: Some(store) };
        let ask = |channel| async move { PdClient::new(channel).put_store(request).await };
        accept(self.call(ask).await?.header).map(drop)
    }

    /// The first regions of the cluster that have a peer here, if they are planned.
    pub(crate) async fn initial_regions(&self) -> Result<InitialRegionsResponse, SchedulerError> {
        let store_id = self.store_id.get();
        let request = InitialRegionsRequest { header: self.header(), store_id };
        let ask =
            |channel| async move { BootstrapClient::new(channel).initial_regions(request).await };
        let mut response = self.call(ask).await?;
        accept(response.header.take())?;
        Ok(response)
    }

    /// A store's record.
    pub(crate) async fn store(&self, id: StoreId) -> Result<metapb::Store, SchedulerError> {
        let request = GetStoreRequest { header: self.header(), store_id: id.get() };
        let ask = |channel| async move { PdClient::new(channel).get_store(request).await };
        let response = self.call(ask).await?;
        accept(response.header)?;
        response.store.ok_or_else(|| SchedulerError::Refused(format!("store {id} is unknown")))
    }

    /// Says that this store lives, and how it is. What the scheduler makes of it.
    pub(crate) async fn heartbeat(
        &self,
        stats: StoreStats,
    ) -> Result<StoreHeartbeatResponse, SchedulerError> {
        let request = StoreHeartbeatRequest { header: self.header(), stats: Some(stats) };
        let ask = |channel| async move { PdClient::new(channel).store_heartbeat(request).await };
        let mut response = self.call(ask).await?;
        accept(response.header.take())?;
        Ok(response)
    }

    /// Ids for `parts` new regions, cut from `region`.
    pub(crate) async fn ask_split(
        &self,
        region: metapb::Region,
        parts: u32,
    ) -> Result<Vec<SplitId>, SchedulerError> {
        let header = self.header();
        let request = AskBatchSplitRequest { header, region: Some(region), split_count: parts };
        let ask = |channel| async move { PdClient::new(channel).ask_batch_split(request).await };
        let response = self.call(ask).await?;
        accept(response.header)?;
        Ok(response.ids)
    }

    /// Tells of a split, all its parts together.
    pub(crate) async fn report_split(
        &self,
        regions: Vec<metapb::Region>,
    ) -> Result<(), SchedulerError> {
        let request = ReportBatchSplitRequest { header: self.header(), regions };
        let ask = |channel| async move { PdClient::new(channel).report_batch_split(request).await };
        accept(self.call(ask).await?.header).map(drop)
    }

    /// The region that holds a key, if any does.
    pub(crate) async fn region_of(
        &self,
        region_key: Bytes,
    ) -> Result<Option<metapb::Region>, SchedulerError> {
        let request = GetRegionRequest { header: self.header(), region_key, need_buckets: false };
        let ask = |channel| async move { PdClient::new(channel).get_region(request).await };
        let response = self.call(ask).await?;
        accept(response.header)?;
        Ok(response.region)
    }

    /// The header of every request.
    pub(crate) fn header(&self) -> Option<RequestHeader> {
        let (cluster_id, sender_id) = (self.cluster_id, self.store_id.get());
        Some(RequestHeader { cluster_id, sender_id })
    }

    /// The endpoint to use, for a call that outlives a moment.
    pub(crate) async fn choose(&self) -> Chosen {
        self.endpoints.choose().await
    }

    /// A long call there has ended with an error.
    pub(crate) fn doubt(&self, chosen: &Chosen) {
        self.endpoints.doubt(chosen);
    }

    async fn call<R, F>(&self, ask: impl FnOnce(Channel) -> F) -> Result<R, SchedulerError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let chosen = self.endpoints.choose().await;
        let answer = tokio::time::timeout(CALL_TIMEOUT, ask(chosen.channel.clone())).await;
        let reason = match answer {
            Ok(Ok(response)) => {
                self.unanswered.store(0, Ordering::Relaxed);
                return Ok(response.into_inner());
            }
            Ok(Err(status)) => format!("{}: {}", status.code(), status.message()),
            Err(_) => "no answer in time".to_owned(),
        };
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        self.endpoints.doubt(&chosen);
        Err(SchedulerError::Unreachable { endpoint: chosen.address, reason })
    }
}

impl Resolve for Scheduler {
    fn resolve(&self, store: StoreId) -> Resolving<'_> {
        Box::pin(async move {
            match self.store(store).await {
                Ok(found) if found.state == metapb::StoreState::Tombstone as i32 => {
                    Err(ResolveError::Unknown(store))
                }
                Ok(found) if found.peer_address.is_empty() => Ok(found.address),
                Ok(found) => Ok(found.peer_address),
                Err(SchedulerError::Refused(_) | SchedulerError::Taken(_)) => {
                    Err(ResolveError::Unknown(store))
                }
                Err(error) => Err(ResolveError::Unavailable { store, reason: error.to_string() }),
            }
        })
    }
}

/// The header of a response that is no error.
pub(crate) fn accept(header: Option<ResponseHeader>) -> Result<ResponseHeader, SchedulerError> {
    let header = header.unwrap_or_default();
    match header.error {
        Some(error) if error.r#type() == ErrorType::DuplicatedEntry => {
            Err(SchedulerError::Taken(error.message))
        }
        Some(error) => Err(SchedulerError::Refused(error.message)),
        None => Ok(header),
    }
}

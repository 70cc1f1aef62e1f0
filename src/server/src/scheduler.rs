//! What a store asks of the scheduler: ids, the first regions, other stores' addresses.
//!
//! One lazily made connection to one of the configured endpoints; a call that fails moves on to the next endpoint. Calls
//! are bounded in time and not retried here: whoever calls knows how long it wants to try.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proto::flotillapb::bootstrap_client::BootstrapClient;
use proto::flotillapb::{InitialRegionsRequest, InitialRegionsResponse};
use proto::ids::StoreId;
use proto::metapb;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{
    AllocIdRequest, GetMembersRequest, GetStoreRequest, PutStoreRequest, RequestHeader,
    ResponseHeader, StoreHeartbeatRequest, StoreStats,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};
use transport::{Resolve, ResolveError, Resolving};

/// A call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that takes longer to make has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is probed after this time …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// … and given up after this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

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
}

impl SchedulerError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, SchedulerError::Unreachable { .. })
    }
}

/// A connection to the scheduler.
pub(crate) struct Scheduler {
    endpoints: Vec<(String, Channel)>,
    current: AtomicUsize,
    cluster_id: u64,
    store_id: StoreId,
}

impl Scheduler {
    /// Prepares connections to the endpoints; must be called within a runtime. Nobody is asked yet.
    pub(crate) fn new(addresses: &[String]) -> Result<Scheduler, SchedulerError> {
        if addresses.is_empty() {
            return Err(SchedulerError::Endpoint("at least one is needed".to_owned()));
        }
        let endpoints = addresses.iter().map(|address| {
            let bare = address.strip_prefix("http://").unwrap_or(address);
            let endpoint = Endpoint::from_shared(format!("http://{bare}"))
                .map_err(|error| SchedulerError::Endpoint(format!("{address:?}: {error}")))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                .keep_alive_while_idle(true);
            Ok((bare.to_owned(), endpoint.connect_lazy()))
        });
        let endpoints = endpoints.collect::<Result<_, SchedulerError>>()?;
        let (current, store_id) = (AtomicUsize::new(0), StoreId::default());
        Ok(Scheduler { endpoints, current, cluster_id: 0, store_id })
    }

    /// The same endpoints, as the given store of the given cluster.
    pub(crate) fn identified(self, cluster_id: u64, store_id: StoreId) -> Scheduler {
        Scheduler { cluster_id, store_id, ..self }
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

    /// Says that this store lives, and how it is.
    pub(crate) async fn heartbeat(&self, stats: StoreStats) -> Result<(), SchedulerError> {
        let request = StoreHeartbeatRequest { header: self.header(), stats: Some(stats) };
        let ask = |channel| async move { PdClient::new(channel).store_heartbeat(request).await };
        accept(self.call(ask).await?.header).map(drop)
    }

    /// The header of every request.
    pub(crate) fn header(&self) -> Option<RequestHeader> {
        let (cluster_id, sender_id) = (self.cluster_id, self.store_id.get());
        Some(RequestHeader { cluster_id, sender_id })
    }

    /// The endpoint in use, for calls that outlive a moment.
    pub(crate) fn channel(&self) -> Channel {
        self.endpoint().1.clone()
    }

    /// The endpoint in use has failed; the next call uses the next one.
    pub(crate) fn move_on(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    fn endpoint(&self) -> &(String, Channel) {
        &self.endpoints[self.current.load(Ordering::Relaxed) % self.endpoints.len()]
    }

    async fn call<R, F>(&self, ask: impl FnOnce(Channel) -> F) -> Result<R, SchedulerError>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let (endpoint, channel) = self.endpoint();
        let reason = match tokio::time::timeout(CALL_TIMEOUT, ask(channel.clone())).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => format!("{}: {}", status.code(), status.message()),
            Err(_) => "no answer in time".to_owned(),
        };
        self.move_on();
        Err(SchedulerError::Unreachable { endpoint: endpoint.clone(), reason })
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
                Err(SchedulerError::Refused(_)) => Err(ResolveError::Unknown(store)),
                Err(error) => Err(ResolveError::Unavailable { store, reason: error.to_string() }),
            }
        })
    }
}

/// The header of a response that is no error.
pub(crate) fn accept(header: Option<ResponseHeader>) -> Result<ResponseHeader, SchedulerError> {
    let header = header.unwrap_or_default();
    match header.error {
        Some(error) => Err(SchedulerError::Refused(error.message)),
        None => Ok(header),
    }
}

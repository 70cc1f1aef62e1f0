//! `pdpb.PD`, request by request. Methods the proto file does not declare are answered "unimplemented"
//! by gRPC; so are declared ones that have no meaning here, by name.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use proto::pdpb::pd_server::Pd;
use proto::pdpb::{self, ErrorType};
use slog::info;
use tonic::{Request, Response, Status, Streaming};

use super::answer::{Failure, Service};
use super::driver::Role;
use super::error_map::wire;
use super::forward::PATIENCE;
use super::streams;
use crate::core::{self, RegionInfo, Scheduler};

/// How long a lookup waits for a region that must come: the first ones at bootstrap, those reported
/// again after a restart. Clients ask ten times without sleeping and then give up.
const REGION_PATIENCE: Duration = Duration::from_secs(1);
/// Between looks at whether this member knows who leads, and whom.
const MEMBERS_PAUSE: Duration = Duration::from_millis(20);
/// Regions in one answer, so that it stays below what clients decode.
const SCAN_REGIONS_MAX: usize = 4096;

fn region_response(found: Option<RegionInfo>) -> pdpb::GetRegionResponse {
    let Some(info) = found else { return Default::default() };
    pdpb::GetRegionResponse {
        header: None,
        region: Some(info.meta),
        leader: info.leader,
        down_peers: info.down_peers,
        pending_peers: info.pending_peers,
    }
}

/// The same regions in the old and in the new form.
fn scan_response(found: Vec<RegionInfo>) -> pdpb::ScanRegionsResponse {
    let mut response = pdpb::ScanRegionsResponse::default();
    for info in found {
        response.region_metas.push(info.meta.clone());
        response.leaders.push(info.leader.unwrap_or_default());
        response.regions.push(pdpb::Region {
            region: Some(info.meta),
            leader: info.leader,
            down_peers: info.down_peers,
            pending_peers: info.pending_peers,
        });
    }
    response
}

impl Service {
    /// The member that leads, as soon as one does, and the header that names the cluster.
    pub(super) async fn leader(&self) -> Result<(pdpb::ResponseHeader, pdpb::Member), Status> {
        let mut role = self.driver.role();
        let known = async {
            loop {
                let now = role.borrow_and_update().clone();
                let id = match now {
                    // A leader that was cut off does not know it yet.
                    Role::Serves(term) => {
                        let leads = self.driver.replica.confirm(term).await.is_ok();
                        leads.then(|| self.driver.members.me())
                    }
                    Role::Follows(leader) => Some(leader),
                    Role::Stopped(reason) => return Err(Status::unavailable(reason)),
                    Role::Begins(_) | Role::Leaderless => None,
                };
                let cluster_id = self.driver.cluster_id();
                let cluster_id = cluster_id.map_err(|error| Status::internal(error.to_string()))?;
                if let (Some(leader), Some(cluster_id)) =
                    (id.and_then(|id| self.driver.members.wire(id)), cluster_id)
                {
                    return Ok((pdpb::ResponseHeader { cluster_id, error: None }, leader));
                }
                // A follower learns the cluster's id from its own data, which tell nobody.
                let _ = tokio::time::timeout(MEMBERS_PAUSE, role.changed()).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.unwrap_or_else(|_| {
            Err(Status::unavailable("no member leads the scheduler: too few of them are up"))
        })
    }

    async fn find_region(
        &self,
        find: impl Fn(&Scheduler) -> Option<RegionInfo>,
    ) -> Result<pdpb::GetRegionResponse, Failure> {
        let found = self.driver.find_region(find, REGION_PATIENCE).await?;
        if found.is_none() {
            self.check_bootstrapped().await?;
        }
        Ok(region_response(found))
    }

    async fn check_bootstrapped(&self) -> Result<(), Failure> {
        let look = |core: &mut Scheduler, _| (core.is_bootstrapped(), core.stores_awaited());
        let (done, (have, want)) = self.driver.step(look).await?;
        if done {
            return Ok(());
        }
        let message = format!("the cluster has no regions yet: {have} of {want} stores registered");
        Err(wire(ErrorType::NotBootstrapped, message).into())
    }

    async fn put_store(
        &self,
        request: pdpb::PutStoreRequest,
    ) -> Result<pdpb::PutStoreResponse, Failure> {
        let missing = || core::Error::Invalid { field: "store", reason: "must be set".into() };
        let store = request.store.ok_or_else(missing)?;
        let (id, address) = (store.id, store.address.clone());
        let put = self.driver.change(move |core, now_ms| {
            let planned_before = core.is_bootstrapped();
            let change = core.put_store(store, now_ms)?;
            Ok((change, planned_before))
        });
        let planned_before = put.await?;
        info!(self.logger, "store registered"; "store_id" => id, "address" => address);
        let planned = self.driver.step(|core, _| core.is_bootstrapped()).await;
        if !planned_before && planned.unwrap_or(false) {
            info!(self.logger, "first regions planned");
        }
        Ok(Default::default())
    }

    async fn scan_regions(
        &self,
        request: pdpb::ScanRegionsRequest,
    ) -> Result<pdpb::ScanRegionsResponse, Failure> {
        let limit = match usize::try_from(request.limit) {
            Ok(limit) if limit > 0 => limit.min(SCAN_REGIONS_MAX),
            _ => SCAN_REGIONS_MAX,
        };
        let find = |core: &Scheduler| {
            let found = core.scan_regions(&request.start_key, &request.end_key, limit);
            (!found.is_empty()).then(|| found.into_iter().cloned().collect())
        };
        let found = self.driver.find_region(find, REGION_PATIENCE).await?;
        if found.is_none() {
            self.check_bootstrapped().await?;
        }
        Ok(scan_response(found.unwrap_or_default()))
    }
}

#[tonic::async_trait]
impl Pd for Service {
    type TsoStream = BoxStream<'static, Result<pdpb::TsoResponse, Status>>;
    type RegionHeartbeatStream = BoxStream<'static, Result<pdpb::RegionHeartbeatResponse, Status>>;

    async fn get_members(
        &self,
        _: Request<pdpb::GetMembersRequest>,
    ) -> Result<Response<pdpb::GetMembersResponse>, Status> {
        let (header, leader) = self.leader().await?;
        let members = &self.driver.members;
        Ok(Response::new(pdpb::GetMembersResponse {
            header: Some(header),
            members: members.iter().filter_map(|(id, _)| members.wire(id)).collect(),
            etcd_leader: Some(leader.clone()),
            leader: Some(leader),
            ..Default::default()
        }))
    }

    async fn get_cluster_info(
        &self,
        _: Request<pdpb::GetClusterInfoRequest>,
    ) -> Result<Response<pdpb::GetClusterInfoResponse>, Status> {
        Ok(Response::new(pdpb::GetClusterInfoResponse {
            header: self.header(None),
            service_modes: vec![pdpb::ServiceMode::PdSvcMode as i32],
            tso_urls: vec![],
        }))
    }

    async fn tso(
        &self,
        request: Request<Streaming<pdpb::TsoRequest>>,
    ) -> Result<Response<Self::TsoStream>, Status> {
        let driver = Arc::clone(&self.driver);
        Ok(Response::new(streams::timestamps(driver, request.into_inner())?))
    }

    async fn region_heartbeat(
        &self,
        request: Request<Streaming<pdpb::RegionHeartbeatRequest>>,
    ) -> Result<Response<Self::RegionHeartbeatStream>, Status> {
        let driver = Arc::clone(&self.driver);
        Ok(Response::new(streams::region_heartbeats(driver, request.into_inner())?))
    }

    async fn alloc_id(
        &self,
        request: Request<pdpb::AllocIdRequest>,
    ) -> Result<Response<pdpb::AllocIdResponse>, Status> {
        let work = async {
            let id = self.driver.alloc_id().await?;
            Ok(pdpb::AllocIdResponse { id, header: None })
        };
        self.answer(request.get_ref().header.as_ref(), work).await
    }

    async fn bootstrap(
        &self,
        request: Request<pdpb::BootstrapRequest>,
    ) -> Result<Response<pdpb::BootstrapResponse>, Status> {
        let work = async {
            self.check_bootstrapped().await?;
            let message = "the cluster is bootstrapped";
            Err(wire(ErrorType::AlreadyBootstrapped, message).into())
        };
        self.answer(request.get_ref().header.as_ref(), work).await
    }

    async fn is_bootstrapped(
        &self,
        request: Request<pdpb::IsBootstrappedRequest>,
    ) -> Result<Response<pdpb::IsBootstrappedResponse>, Status> {
        let work = async {
            let bootstrapped = self.driver.step(|core, _| core.is_bootstrapped()).await?;
            Ok(pdpb::IsBootstrappedResponse { bootstrapped, header: None })
        };
        self.answer(request.get_ref().header.as_ref(), work).await
    }

    async fn put_store(
        &self,
        request: Request<pdpb::PutStoreRequest>,
    ) -> Result<Response<pdpb::PutStoreResponse>, Status> {
        let request = request.into_inner();
        self.answer(request.header.clone().as_ref(), self.put_store(request)).await
    }

    async fn get_store(
        &self,
        request: Request<pdpb::GetStoreRequest>,
    ) -> Result<Response<pdpb::GetStoreResponse>, Status> {
        let request = request.into_inner();
        let id = request.store_id.into();
        let work = async {
            let store = self.driver.step(|core, _| core.store(id).cloned()).await?;
            let mut store = store.ok_or(core::Error::StoreUnknown(id))?;
            store.meta.last_heartbeat = last_heartbeat(&store);
            let (store, stats) = (Some(store.meta), store.stats);
            Ok(pdpb::GetStoreResponse { header: None, store, stats })
        };
        self.answer(request.header.as_ref(), work).await
    }

    async fn get_all_stores(
        &self,
        request: Request<pdpb::GetAllStoresRequest>,
    ) -> Result<Response<pdpb::GetAllStoresResponse>, Status> {
        let request = request.into_inner();
        let tombstone = proto::metapb::StoreState::Tombstone as i32;
        let work = async {
            let stores: Vec<_> =
                self.driver.step(|core, _| core.stores().cloned().collect()).await?;
            let wanted = |store: &core::StoreInfo| {
                !request.exclude_tombstone_stores || store.meta.state != tombstone
            };
            let meta = |store: core::StoreInfo| {
                let last_heartbeat = last_heartbeat(&store);
                proto::metapb::Store { last_heartbeat, ..store.meta }
            };
            let stores = stores.into_iter().filter(wanted).map(meta).collect();
            Ok(pdpb::GetAllStoresResponse { header: None, stores })
        };
        self.answer(request.header.as_ref(), work).await
    }

    async fn store_heartbeat(
        &self,
        request: Request<pdpb::StoreHeartbeatRequest>,
    ) -> Result<Response<pdpb::StoreHeartbeatResponse>, Status> {
        let request = request.into_inner();
        let stats = request.stats.unwrap_or_default();
        let work = async {
            let state =
                self.driver.step(|core, now_ms| core.store_heartbeat(stats, now_ms)).await??;
            let cluster_version = env!("CARGO_PKG_VERSION").into();
            Ok(pdpb::StoreHeartbeatResponse { cluster_version, state: state as i32, header: None })
        };
        self.answer(request.header.as_ref(), work).await
    }

    async fn get_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let pdpb::GetRegionRequest { header, region_key, .. } = request.into_inner();
        let work = self.find_region(move |core| core.region_by_key(&region_key).cloned());
        self.answer(header.as_ref(), work).await
    }

    async fn get_prev_region(
        &self,
        request: Request<pdpb::GetRegionRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let pdpb::GetRegionRequest { header, region_key, .. } = request.into_inner();
        let work = async {
            let found =
                self.driver.step(|core, _| core.previous_region(&region_key).cloned()).await?;
            self.check_bootstrapped().await?;
            Ok(region_response(found))
        };
        self.answer(header.as_ref(), work).await
    }

    async fn get_region_by_id(
        &self,
        request: Request<pdpb::GetRegionByIdRequest>,
    ) -> Result<Response<pdpb::GetRegionResponse>, Status> {
        let request = request.into_inner();
        let id = request.region_id.into();
        let work = async {
            let found = self.driver.step(|core, _| core.region_by_id(id).cloned()).await?;
            self.check_bootstrapped().await?;
            Ok(region_response(found))
        };
        self.answer(request.header.as_ref(), work).await
    }

    async fn scan_regions(
        &self,
        request: Request<pdpb::ScanRegionsRequest>,
    ) -> Result<Response<pdpb::ScanRegionsResponse>, Status> {
        let request = request.into_inner();
        self.answer(request.header.clone().as_ref(), self.scan_regions(request)).await
    }

    async fn ask_batch_split(
        &self,
        request: Request<pdpb::AskBatchSplitRequest>,
    ) -> Result<Response<pdpb::AskBatchSplitResponse>, Status> {
        let pdpb::AskBatchSplitRequest { header, region, split_count } = request.into_inner();
        let region = region.unwrap_or_default();
        let ask = move |core: &mut Scheduler, _| core.ask_split(&region, split_count);
        let work = async {
            let ids = self.driver.change(ask).await?;
            Ok(pdpb::AskBatchSplitResponse { ids, header: None })
        };
        self.answer(header.as_ref(), work).await
    }

    async fn report_batch_split(
        &self,
        request: Request<pdpb::ReportBatchSplitRequest>,
    ) -> Result<Response<pdpb::ReportBatchSplitResponse>, Status> {
        let pdpb::ReportBatchSplitRequest { header, regions } = request.into_inner();
        let work = async {
            self.driver.change(|core, _| Ok((core.report_split(regions)?, ()))).await?;
            Ok(Default::default())
        };
        self.answer(header.as_ref(), work).await
    }

    async fn get_gc_safe_point(
        &self,
        request: Request<pdpb::GetGcSafePointRequest>,
    ) -> Result<Response<pdpb::GetGcSafePointResponse>, Status> {
        let work = async {
            let safe_point = self.driver.step(|core, _| core.safe_point()).await?;
            Ok(pdpb::GetGcSafePointResponse { safe_point, header: None })
        };
        self.answer(request.get_ref().header.as_ref(), work).await
    }

    async fn update_gc_safe_point(
        &self,
        request: Request<pdpb::UpdateGcSafePointRequest>,
    ) -> Result<Response<pdpb::UpdateGcSafePointResponse>, Status> {
        let pdpb::UpdateGcSafePointRequest { header, safe_point } = request.into_inner();
        let work = async {
            let update = move |core: &mut Scheduler, _| {
                let newest = core.safe_point().max(safe_point);
                Ok((core.update_safe_point(safe_point), newest))
            };
            let new_safe_point = self.driver.change(update).await?;
            Ok(pdpb::UpdateGcSafePointResponse { new_safe_point, header: None })
        };
        self.answer(header.as_ref(), work).await
    }
}

/// When a store was last heard of, in the wire's nanoseconds.
fn last_heartbeat(store: &core::StoreInfo) -> i64 {
    i64::try_from(store.heard_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}

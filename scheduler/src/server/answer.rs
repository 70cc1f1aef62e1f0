//! The frame of every answer: the request's header is checked, the response's is set.

use std::future::Future;
use std::sync::Arc;

use proto::pdpb::{self, ErrorType};
use slog::{Logger, debug};
use tonic::{Response, Status};

use super::driver::{Driver, Refusal};
use super::error_map::{header_error, wire};
use crate::core;

/// The scheduler's services over one driver.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) driver: Arc<Driver>,
    pub(super) logger: Logger,
}

/// A response with a header.
pub(super) trait Headed: Default {
    fn header_mut(&mut self) -> &mut Option<pdpb::ResponseHeader>;
}

macro_rules! headed {
    ($($response:path),+ $(,)?) => {
        $(impl Headed for $response {
            fn header_mut(&mut self) -> &mut Option<pdpb::ResponseHeader> {
                &mut self.header
            }
        })+
    };
}

headed!(
    pdpb::AllocIdResponse,
    pdpb::AskBatchSplitResponse,
    pdpb::BootstrapResponse,
    pdpb::GetAllStoresResponse,
    pdpb::GetGcSafePointResponse,
    pdpb::GetRegionResponse,
    pdpb::GetStoreResponse,
    pdpb::IsBootstrappedResponse,
    pdpb::PutStoreResponse,
    pdpb::ReportBatchSplitResponse,
    pdpb::ScanRegionsResponse,
    pdpb::StoreHeartbeatResponse,
    pdpb::UpdateGcSafePointResponse,
    proto::flotillapb::AddOperatorResponse,
    proto::flotillapb::BalanceResponse,
    proto::flotillapb::CancelOperatorResponse,
    proto::flotillapb::ChangeStoreResponse,
    proto::flotillapb::ConfigResponse,
    proto::flotillapb::InitialRegionsResponse,
    proto::flotillapb::ListOperatorsResponse,
    proto::flotillapb::ListRegionsResponse,
    proto::flotillapb::ListStoresResponse,
    proto::keyspacepb::LoadKeyspaceResponse,
);

/// The cluster's id; 0 while this member does not know it.
pub(super) fn known_cluster(driver: &Driver) -> u64 {
    driver.cluster_id().ok().flatten().unwrap_or_default()
}

/// Whether a request is meant for this cluster; its id.
pub(super) fn check_cluster(
    driver: &Driver,
    header: Option<&pdpb::RequestHeader>,
) -> Result<u64, pdpb::Error> {
    let ours = known_cluster(driver);
    let asked = header.map_or(0, |header| header.cluster_id);
    if asked == ours {
        return Ok(ours);
    }
    let message = format!("the request is for cluster {asked}, this is cluster {ours}");
    Err(wire(ErrorType::Unknown, message))
}

/// What either a header or the transport says.
pub(super) enum Failure {
    Header(pdpb::Error),
    Transport(Status),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        header_error(refusal).map_or_else(Self::Transport, Self::Header)
    }
}

impl From<core::Error> for Failure {
    fn from(error: core::Error) -> Self {
        Refusal::from(error).into()
    }
}

impl From<pdpb::Error> for Failure {
    fn from(error: pdpb::Error) -> Self {
        Self::Header(error)
    }
}

impl Service {
    pub(super) fn new(driver: Arc<Driver>, logger: Logger) -> Self {
        Self { driver, logger }
    }

    pub(super) fn header(&self, error: Option<pdpb::Error>) -> Option<pdpb::ResponseHeader> {
        let cluster_id = known_cluster(&self.driver);
        Some(pdpb::ResponseHeader { cluster_id, error })
    }

    /// Checks the request's header, runs the work, puts a header on its response.
    pub(super) async fn answer<R: Headed>(
        &self,
        header: Option<&pdpb::RequestHeader>,
        work: impl Future<Output = Result<R, Failure>>,
    ) -> Result<Response<R>, Status> {
        let worked = match check_cluster(&self.driver, header) {
            Ok(_) => work.await,
            Err(error) => Err(error.into()),
        };
        let (mut response, error) = match worked {
            Ok(response) => (response, None),
            Err(Failure::Header(error)) => {
                debug!(self.logger, "request refused"; "reason" => &error.message);
                (R::default(), Some(error))
            }
            Err(Failure::Transport(status)) => return Err(status),
        };
        *response.header_mut() = self.header(error);
        Ok(Response::new(response))
    }
}

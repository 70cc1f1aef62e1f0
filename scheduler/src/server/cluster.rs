//! The two small services beside PD: key spaces, of which there is one, and the first regions.

use proto::flotillapb::bootstrap_server::Bootstrap;
use proto::flotillapb::{InitialRegionsRequest, InitialRegionsResponse};
use proto::keyspacepb::keyspace_server::Keyspace;
use proto::keyspacepb::{KeyspaceMeta, LoadKeyspaceRequest, LoadKeyspaceResponse};
use proto::pdpb::ErrorType;
use tonic::{Request, Response, Status};

use super::answer::Service;
use super::error_map::wire;

/// The key space every cluster has.
const DEFAULT_KEYSPACE: &str = "DEFAULT";

#[tonic::async_trait]
impl Keyspace for Service {
    async fn load_keyspace(
        &self,
        request: Request<LoadKeyspaceRequest>,
    ) -> Result<Response<LoadKeyspaceResponse>, Status> {
        let LoadKeyspaceRequest { header, name } = request.into_inner();
        let work = async {
            if name != DEFAULT_KEYSPACE {
                let message = format!("there is no key space {name:?}, only {DEFAULT_KEYSPACE:?}");
                return Err(wire(ErrorType::EntryNotFound, message).into());
            }
            let keyspace = Some(KeyspaceMeta { id: 0, name, ..Default::default() });
            Ok(LoadKeyspaceResponse { keyspace, header: None })
        };
        self.answer(header.as_ref(), work).await
    }
}

#[tonic::async_trait]
impl Bootstrap for Service {
    async fn initial_regions(
        &self,
        request: Request<InitialRegionsRequest>,
    ) -> Result<Response<InitialRegionsResponse>, Status> {
        let InitialRegionsRequest { header, store_id } = request.into_inner();
        let work = async {
            let (regions, (stores_registered, stores_wanted)) = self
                .driver
                .step(|core, _| (core.initial_regions(store_id.into()), core.stores_awaited()))
                .await?;
            let regions = regions?;
            Ok(InitialRegionsResponse {
                header: None,
                planned: regions.is_some(),
                stores_registered,
                stores_wanted,
                regions: regions.unwrap_or_default(),
            })
        };
        self.answer(header.as_ref(), work).await
    }
}

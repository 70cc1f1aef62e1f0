//! `flotilla.Operations`: what operators ask of the core, each call inside the frame of `answer`.

use proto::flotillapb::operations_server::Operations;
use proto::flotillapb::{
    AddOperatorRequest, AddOperatorResponse, BalanceRequest, BalanceResponse,
    CancelOperatorRequest, CancelOperatorResponse, ChangeStoreRequest, ChangeStoreResponse,
    ConfigRequest, ConfigResponse, ListOperatorsRequest, ListOperatorsResponse, ListRegionsRequest,
    ListRegionsResponse, ListStoresRequest, ListStoresResponse,
};
use tonic::{Request, Response, Status};

use super::answer::Service;
use crate::core::Scheduler;

#[tonic::async_trait]
impl Operations for Service {
    async fn list_regions(
        &self,
        request: Request<ListRegionsRequest>,
    ) -> Result<Response<ListRegionsResponse>, Status> {
        let request = request.into_inner();
        let header = request.header;
        let look = move |core: &mut Scheduler, now_ms| core.list_regions(&request, now_ms);
        self.answer(header.as_ref(), async { Ok(self.driver.step(look).await??) }).await
    }

    async fn list_stores(
        &self,
        request: Request<ListStoresRequest>,
    ) -> Result<Response<ListStoresResponse>, Status> {
        let request = request.into_inner();
        let header = request.header;
        let look = move |core: &mut Scheduler, now_ms| core.list_stores(&request, now_ms);
        self.answer(header.as_ref(), async { Ok(self.driver.step(look).await??) }).await
    }

    async fn list_operators(
        &self,
        request: Request<ListOperatorsRequest>,
    ) -> Result<Response<ListOperatorsResponse>, Status> {
        let request = request.into_inner();
        let header = request.header;
        let look = move |core: &mut Scheduler, _| core.list_operators(&request);
        self.answer(header.as_ref(), async { Ok(self.driver.step(look).await??) }).await
    }

    async fn add_operator(
        &self,
        request: Request<AddOperatorRequest>,
    ) -> Result<Response<AddOperatorResponse>, Status> {
        let request = request.into_inner();
        let header = request.header;
        let work = async {
            let wish = move |core: &mut Scheduler, now_ms| core.add_operator(request, now_ms);
            Ok(self.driver.change(wish).await?)
        };
        self.answer(header.as_ref(), work).await
    }

    async fn cancel_operator(
        &self,
        request: Request<CancelOperatorRequest>,
    ) -> Result<Response<CancelOperatorResponse>, Status> {
        let request = request.into_inner();
        let header = request.header;
        let work = async {
            let wish = move |core: &mut Scheduler, now_ms| core.cancel_operator(request, now_ms);
            Ok(self.driver.change(wish).await?)
        };
        self.answer(header.as_ref(), work).await
    }

    async fn change_store(
        &self,
        request: Request<ChangeStoreRequest>,
    ) -> Result<Response<ChangeStoreResponse>, Status> {
        let request = request.into_inner();
        let header = request.header;
        let work = async {
            let wish = move |core: &mut Scheduler, now_ms| core.change_store(request, now_ms);
            Ok(self.driver.change(wish).await?)
        };
        self.answer(header.as_ref(), work).await
    }

    async fn balance(
        &self,
        request: Request<BalanceRequest>,
    ) -> Result<Response<BalanceResponse>, Status> {
        let request = request.into_inner();
        let header = request.header;
        let work = async {
            let wish = move |core: &mut Scheduler, now_ms| core.balance(&request, now_ms);
            Ok(self.driver.change(wish).await?)
        };
        self.answer(header.as_ref(), work).await
    }

    async fn config(
        &self,
        request: Request<ConfigRequest>,
    ) -> Result<Response<ConfigResponse>, Status> {
        let request = request.into_inner();
        let header = request.header;
        let work = async {
            let wish = move |core: &mut Scheduler, _| core.configure(&request);
            Ok(self.driver.change(wish).await?)
        };
        self.answer(header.as_ref(), work).await
    }
}

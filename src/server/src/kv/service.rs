//! The gRPC services of a store's data: `tikvpb.Tikv`, which published clients speak, and our own `flotilla.Kv`.
//!
//! Nothing is decided here: every method hands its request to a verb and waits for the answer. What is not served is
//! answered `Unimplemented` with its name.

use std::pin::Pin;

use futures::Stream;
use proto::flotillapb::kv_server::Kv;
use proto::flotillapb::{
    AppendRequest, AppendResponse, OpenSessionRequest, OpenSessionResponse, WriteRequest,
    WriteResponse,
};
use proto::kvrpcpb::*;
use proto::tikvpb::tikv_server::Tikv;
use proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tonic::{Request, Response, Status, Streaming};

use super::batch::BatchStream;
use super::dispatch::coprocessor;
use super::lists::{BatchDelete, BatchGet, BatchPut, DeleteRange};
use super::point::{Delete, Get, GetKeyTtl, Put};
use super::scan::{BatchScan, Scan};
use super::session::{Append, OpenSession, Write};
use super::sink::unary;
use super::{Verbs, unsupported};

/// Responses of one method.
type Answered<R> = Result<Response<R>, Status>;

/// Both services; clones share the store.
#[derive(Clone)]
pub struct Service {
    verbs: Verbs,
}

impl Service {
    /// The services over `verbs`.
    pub fn new(verbs: Verbs) -> Service {
        Service { verbs }
    }
}

#[tonic::async_trait]
impl Tikv for Service {
    async fn raw_get(&self, request: Request<RawGetRequest>) -> Answered<RawGetResponse> {
        unary(|sink| self.verbs.read::<Get>(request.into_inner(), sink)).await
    }

    async fn raw_batch_get(
        &self,
        request: Request<RawBatchGetRequest>,
    ) -> Answered<RawBatchGetResponse> {
        unary(|sink| self.verbs.read::<BatchGet>(request.into_inner(), sink)).await
    }

    async fn raw_put(&self, request: Request<RawPutRequest>) -> Answered<RawPutResponse> {
        unary(|sink| self.verbs.write::<Put>(request.into_inner(), sink)).await
    }

    async fn raw_batch_put(
        &self,
        request: Request<RawBatchPutRequest>,
    ) -> Answered<RawBatchPutResponse> {
        unary(|sink| self.verbs.write::<BatchPut>(request.into_inner(), sink)).await
    }

    async fn raw_delete(&self, request: Request<RawDeleteRequest>) -> Answered<RawDeleteResponse> {
        unary(|sink| self.verbs.write::<Delete>(request.into_inner(), sink)).await
    }

    async fn raw_batch_delete(
        &self,
        request: Request<RawBatchDeleteRequest>,
    ) -> Answered<RawBatchDeleteResponse> {
        unary(|sink| self.verbs.write::<BatchDelete>(request.into_inner(), sink)).await
    }

    async fn raw_scan(&self, request: Request<RawScanRequest>) -> Answered<RawScanResponse> {
        unary(|sink| self.verbs.read::<Scan>(request.into_inner(), sink)).await
    }

    async fn raw_delete_range(
        &self,
        request: Request<RawDeleteRangeRequest>,
    ) -> Answered<RawDeleteRangeResponse> {
        unary(|sink| self.verbs.write::<DeleteRange>(request.into_inner(), sink)).await
    }

    async fn raw_batch_scan(
        &self,
        request: Request<RawBatchScanRequest>,
    ) -> Answered<RawBatchScanResponse> {
        unary(|sink| self.verbs.read::<BatchScan>(request.into_inner(), sink)).await
    }

    async fn raw_get_key_ttl(
        &self,
        request: Request<RawGetKeyTtlRequest>,
    ) -> Answered<RawGetKeyTtlResponse> {
        unary(|sink| self.verbs.read::<GetKeyTtl>(request.into_inner(), sink)).await
    }

    async fn raw_coprocessor(
        &self,
        request: Request<RawCoprocessorRequest>,
    ) -> Answered<RawCoprocessorResponse> {
        Ok(Response::new(coprocessor(request.get_ref())))
    }

    type BatchCommandsStream =
        Pin<Box<dyn Stream<Item = Result<BatchCommandsResponse, Status>> + Send>>;

    async fn batch_commands(
        &self,
        request: Request<Streaming<BatchCommandsRequest>>,
    ) -> Answered<Self::BatchCommandsStream> {
        Ok(Response::new(Box::pin(BatchStream::new(self.verbs.clone(), request.into_inner()))))
    }

    async fn raw_compare_and_swap(&self, _: Request<RawCasRequest>) -> Answered<RawCasResponse> {
        Err(unsupported("RawCompareAndSwap"))
    }

    async fn kv_get(&self, _: Request<GetRequest>) -> Answered<GetResponse> {
        Err(unsupported("KvGet"))
    }

    async fn kv_scan(&self, _: Request<ScanRequest>) -> Answered<ScanResponse> {
        Err(unsupported("KvScan"))
    }

    async fn kv_prewrite(&self, _: Request<PrewriteRequest>) -> Answered<PrewriteResponse> {
        Err(unsupported("KvPrewrite"))
    }

    async fn kv_pessimistic_lock(
        &self,
        _: Request<PessimisticLockRequest>,
    ) -> Answered<PessimisticLockResponse> {
        Err(unsupported("KvPessimisticLock"))
    }

    async fn kv_pessimistic_rollback(
        &self,
        _: Request<PessimisticRollbackRequest>,
    ) -> Answered<PessimisticRollbackResponse> {
        Err(unsupported("KVPessimisticRollback"))
    }

    async fn kv_txn_heart_beat(
        &self,
        _: Request<TxnHeartBeatRequest>,
    ) -> Answered<TxnHeartBeatResponse> {
        Err(unsupported("KvTxnHeartBeat"))
    }

    async fn kv_check_txn_status(
        &self,
        _: Request<CheckTxnStatusRequest>,
    ) -> Answered<CheckTxnStatusResponse> {
        Err(unsupported("KvCheckTxnStatus"))
    }

    async fn kv_check_secondary_locks(
        &self,
        _: Request<CheckSecondaryLocksRequest>,
    ) -> Answered<CheckSecondaryLocksResponse> {
        Err(unsupported("KvCheckSecondaryLocks"))
    }

    async fn kv_commit(&self, _: Request<CommitRequest>) -> Answered<CommitResponse> {
        Err(unsupported("KvCommit"))
    }

    async fn kv_batch_get(&self, _: Request<BatchGetRequest>) -> Answered<BatchGetResponse> {
        Err(unsupported("KvBatchGet"))
    }

    async fn kv_batch_rollback(
        &self,
        _: Request<BatchRollbackRequest>,
    ) -> Answered<BatchRollbackResponse> {
        Err(unsupported("KvBatchRollback"))
    }

    async fn kv_scan_lock(&self, _: Request<ScanLockRequest>) -> Answered<ScanLockResponse> {
        Err(unsupported("KvScanLock"))
    }

    async fn kv_resolve_lock(
        &self,
        _: Request<ResolveLockRequest>,
    ) -> Answered<ResolveLockResponse> {
        Err(unsupported("KvResolveLock"))
    }

    async fn unsafe_destroy_range(
        &self,
        _: Request<UnsafeDestroyRangeRequest>,
    ) -> Answered<UnsafeDestroyRangeResponse> {
        Err(unsupported("UnsafeDestroyRange"))
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn write(&self, request: Request<WriteRequest>) -> Answered<WriteResponse> {
        unary(|sink| self.verbs.write::<Write>(request.into_inner(), sink)).await
    }

    async fn open_session(
        &self,
        request: Request<OpenSessionRequest>,
    ) -> Answered<OpenSessionResponse> {
        unary(|sink| self.verbs.write::<OpenSession>(request.into_inner(), sink)).await
    }

    async fn append(&self, request: Request<AppendRequest>) -> Answered<AppendResponse> {
        unary(|sink| self.verbs.write::<Append>(request.into_inner(), sink)).await
    }
}

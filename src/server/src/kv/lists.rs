//! Many keys of one region: `RawBatchGet`, `RawBatchPut`, `RawBatchDelete`, `RawDeleteRange`.
//!
//! A batch of writes is one request of the log: all of it takes effect or none. A batch of reads sees one state.

use bytes::Bytes;
use proto::kvrpcpb::{
    KvPair, RawBatchDeleteRequest, RawBatchDeleteResponse, RawBatchGetRequest, RawBatchGetResponse,
    RawBatchPutRequest, RawBatchPutResponse, RawDeleteRangeRequest, RawDeleteRangeResponse,
};
use raftstore::RequestHeader;
use raftstore::command::{Mutation, Request, WriteResult};
use raftstore::keys::RawCf;

use super::keyspace::KeyForm;
use super::point::{check_no_ttl, refused};
use super::sink::Overflow;
use super::{Failure, ReadVerb, WriteVerb, address};
use crate::backend::View;
use crate::limits::{
    REPLY_BYTES_MAX, Refusal, check_cf, check_get_count, check_value, check_write_bytes,
    check_write_count,
};

/// `RawBatchGet`: the pairs found, in the order of the request.
pub(crate) struct BatchGet {
    cf: RawCf,
    /// As the client wrote them, and as they are stored.
    keys: Vec<(Bytes, Bytes)>,
}

impl ReadVerb for BatchGet {
    type Request = RawBatchGetRequest;
    type Response = RawBatchGetResponse;

    fn admit(request: RawBatchGetRequest) -> Result<(RequestHeader, BatchGet), Refusal> {
        let RawBatchGetRequest { context, keys, cf } = request;
        let (header, form) = address(context)?;
        check_get_count("keys", keys.len())?;
        let both = |key: Bytes| Ok((key.clone(), form.key("keys[]", key)?));
        let keys = keys.into_iter().map(both).collect::<Result<_, Refusal>>()?;
        Ok((header, BatchGet { cf: check_cf(&cf)?, keys }))
    }

    fn run(&self, view: &View<'_>, _: Overflow) -> Result<RawBatchGetResponse, Failure> {
        let frozen = view.freeze();
        let mut pairs = Vec::new();
        let mut bytes = 0;
        for (key, stored) in &self.keys {
            view.check(stored)?;
            let Some(value) = frozen.get(self.cf, stored)? else { continue };
            bytes += key.len() + value.len();
            if bytes > REPLY_BYTES_MAX {
                return Err(Refusal::reply_too_large("RawBatchGet").into());
            }
            pairs.push(KvPair { error: None, key: key.clone(), value });
        }
        Ok(RawBatchGetResponse { region_error: None, pairs })
    }
}

/// `RawBatchPut`.
pub(crate) struct BatchPut;

impl WriteVerb for BatchPut {
    type Request = RawBatchPutRequest;
    type Response = RawBatchPutResponse;

    #[expect(deprecated, reason = "field 4, the ttl of all pairs, is deprecated but still sent")]
    fn admit(request: RawBatchPutRequest) -> Result<(RequestHeader, Request), Refusal> {
        let RawBatchPutRequest { context, pairs, cf, ttl, for_cas: _, ttls } = request;
        let (header, form) = address(context)?;
        check_write_count("pairs", pairs.len())?;
        check_write_bytes("pairs", pairs.iter().map(|p| p.key.len() + p.value.len()).sum())?;
        // One entry speaks for all pairs, none means no time to live.
        if ttls.len() > 1 && ttls.len() != pairs.len() {
            let (field, got, expected) = ("ttls", ttls.len(), pairs.len());
            return Err(Refusal::LengthMismatch { field, got, expected });
        }
        ttls.iter().chain([&ttl]).try_for_each(|ttl| check_no_ttl(*ttl))?;
        let cf = check_cf(&cf)?;
        let mut mutations = Vec::with_capacity(pairs.len());
        for KvPair { error: _, key, value } in pairs {
            check_value("pairs[].value", &value)?;
            mutations.push(Mutation::Put { cf, key: form.key("pairs[].key", key)?, value });
        }
        Ok((header, Request::Mutate { mutations, session: None }))
    }

    fn respond(result: WriteResult) -> RawBatchPutResponse {
        RawBatchPutResponse { error: refused(result), ..RawBatchPutResponse::default() }
    }
}

/// `RawBatchDelete`.
pub(crate) struct BatchDelete;

impl WriteVerb for BatchDelete {
    type Request = RawBatchDeleteRequest;
    type Response = RawBatchDeleteResponse;

    fn admit(request: RawBatchDeleteRequest) -> Result<(RequestHeader, Request), Refusal> {
        let RawBatchDeleteRequest { context, keys, cf, for_cas: _ } = request;
        let (header, form) = address(context)?;
        check_write_count("keys", keys.len())?;
        check_write_bytes("keys", keys.iter().map(Bytes::len).sum())?;
        let cf = check_cf(&cf)?;
        let mut mutations = Vec::with_capacity(keys.len());
        for key in keys {
            mutations.push(Mutation::Delete { cf, key: form.key("keys[]", key)? });
        }
        Ok((header, Request::Mutate { mutations, session: None }))
    }

    fn respond(result: WriteResult) -> RawBatchDeleteResponse {
        RawBatchDeleteResponse { error: refused(result), ..RawBatchDeleteResponse::default() }
    }
}

/// `RawDeleteRange`: `[start, end)`, cut to the region; an empty `end` is the region's.
pub(crate) struct DeleteRange;

impl WriteVerb for DeleteRange {
    type Request = RawDeleteRangeRequest;
    type Response = RawDeleteRangeResponse;

    fn admit(request: RawDeleteRangeRequest) -> Result<(RequestHeader, Request), Refusal> {
        let RawDeleteRangeRequest { context, start_key, end_key, cf } = request;
        let (header, form) = address(context)?;
        let (start, end) = check_range(form, start_key, end_key)?;
        let range = Mutation::DeleteRange { cf: check_cf(&cf)?, start, end };
        Ok((header, Request::Mutate { mutations: vec![range], session: None }))
    }

    fn respond(result: WriteResult) -> RawDeleteRangeResponse {
        RawDeleteRangeResponse { error: refused(result), ..RawDeleteRangeResponse::default() }
    }
}

/// The stored bounds of a range that must not end before it starts.
pub(crate) fn check_range(
    form: KeyForm,
    start_key: Bytes,
    end_key: Bytes,
) -> Result<(Bytes, Bytes), Refusal> {
    if !end_key.is_empty() && start_key > end_key {
        return Err(Refusal::InvertedRange { field: "end_key" });
    }
    Ok((form.bound("start_key", start_key)?, form.bound("end_key", end_key)?))
}

//! One key: `RawGet`, `RawPut`, `RawDelete`, `RawGetKeyTTL`.
//!
//! An empty value is a value; an absent key is `not_found`, not an error. `for_cas` asks that the write be ordered with
//! compare-and-swaps of the same key: every write goes through the region's log, so it is.

use bytes::Bytes;
use proto::kvrpcpb::{
    RawDeleteRequest, RawDeleteResponse, RawGetKeyTtlRequest, RawGetKeyTtlResponse, RawGetRequest,
    RawGetResponse, RawPutRequest, RawPutResponse,
};
use raftstore::RequestHeader;
use raftstore::command::{Mutation, Request, WriteResult};
use raftstore::keys::RawCf;

use super::sink::Overflow;
use super::{Failure, ReadVerb, WriteVerb, address};
use crate::backend::View;
use crate::limits::{Refusal, check_cf, check_value};

/// `RawGet`.
pub(crate) struct Get {
    cf: RawCf,
    key: Bytes,
}

impl ReadVerb for Get {
    type Request = RawGetRequest;
    type Response = RawGetResponse;

    fn admit(request: RawGetRequest) -> Result<(RequestHeader, Get), Refusal> {
        let RawGetRequest { context, key, cf } = request;
        let (header, form) = address(context)?;
        Ok((header, Get { cf: check_cf(&cf)?, key: form.key("key", key)? }))
    }

    fn run(&self, view: &View<'_>, _: Overflow) -> Result<RawGetResponse, Failure> {
        view.check(&self.key)?;
        Ok(match view.get(self.cf, &self.key)? {
            Some(value) => RawGetResponse { value, ..RawGetResponse::default() },
            None => RawGetResponse { not_found: true, ..RawGetResponse::default() },
        })
    }
}

/// `RawGetKeyTTL`. No key expires yet: what is there has a TTL of 0, which means none.
pub(crate) struct GetKeyTtl(Get);

impl ReadVerb for GetKeyTtl {
    type Request = RawGetKeyTtlRequest;
    type Response = RawGetKeyTtlResponse;

    fn admit(request: RawGetKeyTtlRequest) -> Result<(RequestHeader, GetKeyTtl), Refusal> {
        let RawGetKeyTtlRequest { context, key, cf } = request;
        let (header, get) = Get::admit(RawGetRequest { context, key, cf })?;
        Ok((header, GetKeyTtl(get)))
    }

    fn run(&self, view: &View<'_>, overflow: Overflow) -> Result<RawGetKeyTtlResponse, Failure> {
        let not_found = self.0.run(view, overflow)?.not_found;
        Ok(RawGetKeyTtlResponse { not_found, ..RawGetKeyTtlResponse::default() })
    }
}

/// `RawPut`.
pub(crate) struct Put;

impl WriteVerb for Put {
    type Request = RawPutRequest;
    type Response = RawPutResponse;

    fn admit(request: RawPutRequest) -> Result<(RequestHeader, Request), Refusal> {
        let RawPutRequest { context, key, value, cf, ttl, for_cas: _ } = request;
        let (header, form) = address(context)?;
        check_value("value", &value)?;
        check_no_ttl(ttl)?;
        let put = Mutation::Put { cf: check_cf(&cf)?, key: form.key("key", key)?, value };
        Ok((header, Request::Mutate { mutations: vec![put], session: None }))
    }

    fn respond(result: WriteResult) -> RawPutResponse {
        RawPutResponse { error: refused(result), ..RawPutResponse::default() }
    }
}

/// `RawDelete`.
pub(crate) struct Delete;

impl WriteVerb for Delete {
    type Request = RawDeleteRequest;
    type Response = RawDeleteResponse;

    fn admit(request: RawDeleteRequest) -> Result<(RequestHeader, Request), Refusal> {
        let RawDeleteRequest { context, key, cf, for_cas: _ } = request;
        let (header, form) = address(context)?;
        let delete = Mutation::Delete { cf: check_cf(&cf)?, key: form.key("key", key)? };
        Ok((header, Request::Mutate { mutations: vec![delete], session: None }))
    }

    fn respond(result: WriteResult) -> RawDeleteResponse {
        RawDeleteResponse { error: refused(result), ..RawDeleteResponse::default() }
    }
}

/// Refuses a time to live.
pub(crate) fn check_no_ttl(ttl_seconds: u64) -> Result<(), Refusal> {
    match ttl_seconds {
        0 => Ok(()),
        _ => Err(Refusal::Unsupported { what: "ttl" }),
    }
}

/// The `error` of a response: empty, or why the state machine changed nothing.
pub(crate) fn refused(result: WriteResult) -> String {
    match result {
        WriteResult::Applied | WriteResult::Appended { .. } => String::new(),
        WriteResult::Refused { reason } => reason,
        // Answers to requests with a session, which the raw verbs do not send.
        WriteResult::SessionExpired { .. } | WriteResult::StaleSequence { .. } => {
            "answer to another request".to_owned()
        }
    }
}

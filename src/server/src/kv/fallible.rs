//! How each response message says that something went wrong.
//!
//! A refusal must be final. Most messages have an `error` for it; clients report that and do not try again. Reads of many
//! keys have none: there it travels as the one region error that every client takes as final, with the reason as its text.

use proto::errorpb;
use proto::flotillapb::{
    AppendResponse, OpenSessionResponse, WriteResponse, WriteResult, write_result,
};
use proto::kvrpcpb::{
    RawBatchDeleteResponse, RawBatchGetResponse, RawBatchPutResponse, RawBatchScanResponse,
    RawCoprocessorResponse, RawDeleteRangeResponse, RawDeleteResponse, RawGetKeyTtlResponse,
    RawGetResponse, RawPutResponse, RawScanResponse,
};

use super::sink::Fallible;
use crate::limits::Refusal;

/// Messages with a field `error` for refusals.
macro_rules! speaks {
    ($($response:ty),* $(,)?) => {$(
        impl Fallible for $response {
            fn from_region_error(error: errorpb::Error) -> Self {
                Self { region_error: Some(error), ..Self::default() }
            }

            fn from_refusal(refusal: Refusal) -> Self {
                Self { error: refusal.to_string(), ..Self::default() }
            }
        }
    )*};
}

/// Messages that have none.
macro_rules! mute {
    ($($response:ty),* $(,)?) => {$(
        impl Fallible for $response {
            fn from_region_error(error: errorpb::Error) -> Self {
                Self { region_error: Some(error), ..Self::default() }
            }

            fn from_refusal(refusal: Refusal) -> Self {
                Self::from_region_error(last_word(&refusal))
            }
        }
    )*};
}

/// Our own messages: a refusal is a result.
macro_rules! results {
    ($($response:ty),* $(,)?) => {$(
        impl Fallible for $response {
            fn from_region_error(error: errorpb::Error) -> Self {
                Self { region_error: Some(error), ..Self::default() }
            }

            fn from_refusal(refusal: Refusal) -> Self {
                let result = Some(write_result::Result::Error(refusal.to_string()));
                Self { region_error: None, result: Some(WriteResult { result }) }
            }
        }
    )*};
}

/// A region error that no client retries.
fn last_word(refusal: &Refusal) -> errorpb::Error {
    errorpb::Error {
        message: refusal.to_string(),
        raft_entry_too_large: Some(errorpb::RaftEntryTooLarge::default()),
        ..errorpb::Error::default()
    }
}

speaks! {
    RawBatchDeleteResponse, RawBatchPutResponse, RawCoprocessorResponse, RawDeleteRangeResponse,
    RawDeleteResponse, RawGetKeyTtlResponse, RawGetResponse, RawPutResponse,
}
mute! { RawBatchGetResponse, RawBatchScanResponse, RawScanResponse }
results! { AppendResponse, OpenSessionResponse, WriteResponse }

//! The one place where refusals become wire errors.

use proto::pdpb;
use tonic::Status;

use super::driver::Refusal;
use crate::core::Error;

/// A refusal for a response's header; what belongs into the transport comes back as `Err`.
pub(super) fn header_error(refusal: Refusal) -> Result<pdpb::Error, Status> {
    let error = match refusal {
        Refusal::Stopped(reason) => return Err(Status::unavailable(reason)),
        Refusal::Core(error) => error,
    };
    let kind = match &error {
        Error::Invalid { .. } => pdpb::ErrorType::InvalidValue,
        Error::RegionUnknown(_) | Error::KeyUnknown(_) => pdpb::ErrorType::RegionNotFound,
        Error::StoreUnknown(_) => pdpb::ErrorType::EntryNotFound,
        Error::StoreTombstone(_) => pdpb::ErrorType::StoreTombstone,
        Error::AddressTaken { .. } => pdpb::ErrorType::DuplicatedEntry,
        Error::RegionStale { .. } | Error::Refused(_) => pdpb::ErrorType::Unknown,
    };
    Ok(wire(kind, error))
}

/// A refusal for a stream whose responses are read without their header.
pub(super) fn status(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Stopped(reason) => Status::unavailable(reason),
        Refusal::Core(error) => Status::invalid_argument(error.to_string()),
    }
}

/// An error for a header.
pub(super) fn wire(kind: pdpb::ErrorType, message: impl ToString) -> pdpb::Error {
    pdpb::Error { r#type: kind as i32, message: message.to_string() }
}

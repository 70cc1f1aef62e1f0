//! The one place where refusals become wire errors.

use proto::pdpb;
use tonic::Status;

use super::driver::Refusal;
use crate::core::Error;

/// Set in the metadata of an answer by a member that does not lead: another member can answer.
pub(super) const NOT_LEADING: &str = "flotilla-not-leading";

/// A refusal for a response's header; what belongs into the transport comes back as `Err`.
pub(super) fn header_error(refusal: Refusal) -> Result<pdpb::Error, Status> {
    let error = match refusal {
        Refusal::Stopped(reason) => return Err(Status::unavailable(reason)),
        Refusal::NotLeading => return Err(not_leading()),
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
        Refusal::NotLeading => not_leading(),
        Refusal::Core(error) => Status::invalid_argument(error.to_string()),
    }
}

/// What a member says that does not lead, or ceased to.
pub(super) fn not_leading() -> Status {
    let mut status =
        Status::unavailable("this member does not lead the scheduler; ask GetMembers who does");
    status.metadata_mut().insert(NOT_LEADING, tonic::metadata::MetadataValue::from_static("1"));
    status
}

/// An error for a header.
pub(super) fn wire(kind: pdpb::ErrorType, message: impl ToString) -> pdpb::Error {
    pdpb::Error { r#type: kind as i32, message: message.to_string() }
}

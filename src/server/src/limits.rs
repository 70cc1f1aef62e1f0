//! What a request may ask for, checked before anything is read or proposed.
//!
//! The numbers live in `proto::limits`, so that clients can check before they send; here they are enforced. Every
//! refusal names the field, what came, and the limit by its name and value. Nothing the network sends is asserted on.
//!
//! A [`Refusal`] is final: the same request will be refused again. It is not a region error, so that no client looks for
//! another leader because of it.
//!
//! Tests: the table in `kv/tests/refusals.rs`, through the services.

use proto::limits;
use raftstore::keys::RawCf;

/// Keys and values in one reply, in bytes. Clients decode 4 MiB by default; the rest is for the framing of rows.
pub const REPLY_BYTES_MAX: usize = (4 << 20) - (128 << 10);

/// How much of an unknown column family's name is repeated to the client.
const CF_SHOWN_CHARS: usize = 32;

/// Why a request is not served, whoever the leader is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field that must not be empty.
    #[error("{field} is empty")]
    Empty {
        /// Which field.
        field: &'static str,
    },
    /// More of something than allowed.
    #[error("{field} is {got} {unit}, the limit is {max} ({limit})")]
    Over {
        /// Which field.
        field: &'static str,
        /// How much came.
        got: u64,
        /// Of what.
        unit: &'static str,
        /// The limit's name.
        limit: &'static str,
        /// The limit.
        max: u64,
    },
    /// The result is larger than one reply may be; a part of it would be taken for the whole.
    #[error("{verb}: the result exceeds {max} bytes ({limit}), ask for fewer rows or keys")]
    ReplyTooLarge {
        /// Which verb.
        verb: &'static str,
        /// The limit's name.
        limit: &'static str,
        /// The limit.
        max: u64,
    },
    /// A column family nobody has.
    #[error("cf {name:?} is unknown: it is one of \"\", \"default\", \"lock\", \"write\"")]
    UnknownCf {
        /// What came, cut to a few characters.
        name: String,
    },
    /// `context.api_version` is none of V1, V1TTL, V2.
    #[error("context.api_version {got} is unknown: it is one of 0 (V1), 1 (V1TTL), 2 (V2)")]
    UnknownApiVersion {
        /// What came.
        got: i32,
    },
    /// A range that ends before it starts.
    #[error("{field}: the range ends before it starts")]
    InvertedRange {
        /// Which field.
        field: &'static str,
    },
    /// Something of the protocol that this store does not do.
    #[error("{what} is not supported")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// Two lists that belong together have different lengths.
    #[error("{field} has {got} entries for {expected} keys")]
    LengthMismatch {
        /// Which field.
        field: &'static str,
        /// Its length.
        got: usize,
        /// The length it should have.
        expected: usize,
    },
    /// A required field is absent or of an unknown kind.
    #[error("{field} is missing or of an unknown kind")]
    Missing {
        /// Which field.
        field: &'static str,
    },
}

impl Refusal {
    /// The reply of `verb` would be larger than one message may be.
    pub(crate) fn reply_too_large(verb: &'static str) -> Refusal {
        let (limit, max) = ("REPLY_BYTES_MAX", REPLY_BYTES_MAX as u64);
        Refusal::ReplyTooLarge { verb, limit, max }
    }
}

/// Refuses an empty or oversized key. `field` is its name in the request.
pub fn check_key(field: &'static str, key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::Empty { field });
    }
    check_max(field, key.len(), "bytes", "KEY_BYTES_MAX", limits::KEY_BYTES_MAX)
}

/// Refuses an oversized value. An empty value is a value.
pub fn check_value(field: &'static str, value: &[u8]) -> Result<(), Refusal> {
    check_max(field, value.len(), "bytes", "VALUE_BYTES_MAX", limits::VALUE_BYTES_MAX)
}

/// Refuses a list of writes that is empty or too long.
pub fn check_write_count(field: &'static str, count: usize) -> Result<(), Refusal> {
    check_some(field, count)?;
    check_max(field, count, "operations", "BATCH_OPS_MAX", limits::BATCH_OPS_MAX)
}

/// Refuses a list of writes whose keys and values are too much for one entry of the log.
pub fn check_write_bytes(field: &'static str, bytes: usize) -> Result<(), Refusal> {
    check_max(field, bytes, "bytes", "WRITE_BYTES_MAX", limits::WRITE_BYTES_MAX)
}

/// Refuses a list of keys to read that is empty or too long.
pub fn check_get_count(field: &'static str, count: usize) -> Result<(), Refusal> {
    check_some(field, count)?;
    check_max(field, count, "keys", "BATCH_GET_KEYS_MAX", limits::BATCH_GET_KEYS_MAX)
}

/// Refuses a list of ranges to scan that is empty or too long.
pub fn check_range_count(field: &'static str, count: usize) -> Result<(), Refusal> {
    check_some(field, count)?;
    check_max(field, count, "ranges", "BATCH_SCAN_RANGES_MAX", limits::BATCH_SCAN_RANGES_MAX)
}

/// The column family a request names.
pub fn check_cf(name: &str) -> Result<RawCf, Refusal> {
    RawCf::from_name(name)
        .ok_or_else(|| Refusal::UnknownCf { name: name.chars().take(CF_SHOWN_CHARS).collect() })
}

/// Refuses a scan that asks for too many rows.
pub fn check_scan_limit(field: &'static str, limit: u32) -> Result<(), Refusal> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    check_max(field, limit, "rows", "SCAN_LIMIT_MAX", limits::SCAN_LIMIT_MAX as usize)
}

fn check_some(field: &'static str, count: usize) -> Result<(), Refusal> {
    if count == 0 { Err(Refusal::Empty { field }) } else { Ok(()) }
}

fn check_max(
    field: &'static str,
    got: usize,
    unit: &'static str,
    limit: &'static str,
    max: usize,
) -> Result<(), Refusal> {
    if got > max {
        return Err(Refusal::Over { field, got: got as u64, unit, limit, max: max as u64 });
    }
    Ok(())
}

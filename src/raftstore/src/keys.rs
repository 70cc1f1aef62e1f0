//! Every key of the shared keyspace, in one place.
//!
//! One engine serves all regions of a store, so two records that disagree about a byte layout destroy each other. Nothing
//! outside this file builds or reads a key by hand.
//!
//! # Layout
//! ```text
//! Cf::Raft  0x01                              StoreIdent       who this store is
//!           0x02 region                       RegionState      range, epoch, peers, life state
//!           0x03 region                       PendingSnapshot  a snapshot whose installation has begun
//!           0x04 region                       ApplyState       applied position, truncated position, state hash
//!           0x05 region                       HardState        term, vote, commit
//!           0x06 region index                 LogEntry         one entry of the Raft log
//!           0x07 region client                Session          an exactly-once session, part of the replicated state
//! Cf::Raw   tag user-key                      Raw              data; tag: 0 default, 1 lock, 2 write
//! ```
//! `region`, `index` and `client` are eight bytes, big-endian: byte order is number order. A kind comes before the region,
//! so opening a store scans one dense range per kind, and the log of a region is one contiguous range in index order.
//!
//! # Invariants
//! 1. Encoding is injective and order-preserving within a kind; `decode` accepts exactly what `encode` yields.
//! 2. A range returned here for a region holds no key of another region (hazard M7).
//!
//! Tests: below.

use bytes::{BufMut, Bytes, BytesMut};
use engine::{Cf, KeyRange};
use proto::ids::RegionId;
use proto::metapb;
use raft::LogIndex;

use crate::command::ClientId;

const KIND_STORE_IDENT: u8 = 0x01;
const KIND_REGION_STATE: u8 = 0x02;
const KIND_PENDING_SNAPSHOT: u8 = 0x03;
const KIND_APPLY_STATE: u8 = 0x04;
const KIND_HARD_STATE: u8 = 0x05;
const KIND_LOG_ENTRY: u8 = 0x06;
const KIND_SESSION: u8 = 0x07;

/// The column families a client of the raw protocol can name, kept apart inside [`Cf::Raw`] by one leading byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RawCf {
    /// `default`, also meant by an empty name.
    #[default]
    Default = 0,
    /// `lock`.
    Lock = 1,
    /// `write`.
    Write = 2,
}

impl RawCf {
    /// All of them, in key order.
    pub const ALL: [RawCf; 3] = [RawCf::Default, RawCf::Lock, RawCf::Write];

    /// The leading byte of its keys; also its number in a replicated command.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The family with this leading byte, if there is one.
    pub const fn from_tag(tag: u8) -> Option<RawCf> {
        match tag {
            0 => Some(RawCf::Default),
            1 => Some(RawCf::Lock),
            2 => Some(RawCf::Write),
            _ => None,
        }
    }

    /// The family a client calls by `name`, if there is one.
    pub fn from_name(name: &str) -> Option<RawCf> {
        match name {
            "" | "default" => Some(RawCf::Default),
            "lock" => Some(RawCf::Lock),
            "write" => Some(RawCf::Write),
            _ => None,
        }
    }
}

/// A key of the shared keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Cluster id and store id of the data directory.
    StoreIdent,
    /// Range, epoch, peers and life state of a region on this store.
    RegionState(RegionId),
    /// The marker of an installation that must be finished before the region may act.
    PendingSnapshot(RegionId),
    /// How far the state machine has got.
    ApplyState(RegionId),
    /// Term, vote and commit index.
    HardState(RegionId),
    /// One entry of the Raft log.
    LogEntry(RegionId, LogIndex),
    /// One client session.
    Session(RegionId, ClientId),
    /// A user's key.
    Raw(RawCf, Bytes),
}

/// Bytes that are no key of ours: the engine holds something this version did not write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed key in column family {cf:?}: {key:?}")]
pub struct KeyDecodeError {
    /// Where it was found.
    pub cf: Cf,
    /// What was found.
    pub key: Bytes,
}

impl Key {
    /// The column family the key lives in.
    pub fn cf(&self) -> Cf {
        match self {
            Key::Raw(..) => Cf::Raw,
            _ => Cf::Raft,
        }
    }

    /// The key's bytes.
    pub fn encode(&self) -> Bytes {
        match self {
            Key::StoreIdent => Bytes::from_static(&[KIND_STORE_IDENT]),
            Key::RegionState(region) => local(KIND_REGION_STATE, *region),
            Key::PendingSnapshot(region) => local(KIND_PENDING_SNAPSHOT, *region),
            Key::ApplyState(region) => local(KIND_APPLY_STATE, *region),
            Key::HardState(region) => local(KIND_HARD_STATE, *region),
            Key::LogEntry(region, index) => local_numbered(KIND_LOG_ENTRY, *region, index.0),
            Key::Session(region, client) => local_numbered(KIND_SESSION, *region, client.0),
            Key::Raw(cf, key) => raw(*cf, key),
        }
    }

    /// The key that `bytes`, found in `cf`, stand for.
    pub fn decode(cf: Cf, bytes: &[u8]) -> Result<Key, KeyDecodeError> {
        let malformed = || KeyDecodeError { cf, key: Bytes::copy_from_slice(bytes) };
        let (kind, rest) = bytes.split_first().ok_or_else(malformed)?;
        if cf == Cf::Raw {
            let raw_cf = RawCf::from_tag(*kind).ok_or_else(malformed)?;
            return Ok(Key::Raw(raw_cf, Bytes::copy_from_slice(rest)));
        }
        if cf != Cf::Raft {
            return Err(malformed());
        }
        let numbers = decode_numbers(rest).ok_or_else(malformed)?;
        match (*kind, numbers) {
            (KIND_STORE_IDENT, (None, None)) => Ok(Key::StoreIdent),
            (KIND_REGION_STATE, (Some(region), None)) => Ok(Key::RegionState(region.into())),
            (KIND_PENDING_SNAPSHOT, (Some(region), None)) => {
                Ok(Key::PendingSnapshot(region.into()))
            }
            (KIND_APPLY_STATE, (Some(region), None)) => Ok(Key::ApplyState(region.into())),
            (KIND_HARD_STATE, (Some(region), None)) => Ok(Key::HardState(region.into())),
            (KIND_LOG_ENTRY, (Some(region), Some(index))) => {
                Ok(Key::LogEntry(region.into(), LogIndex(index)))
            }
            (KIND_SESSION, (Some(region), Some(client))) => {
                Ok(Key::Session(region.into(), ClientId(client)))
            }
            _ => Err(malformed()),
        }
    }
}

/// The engine key of a user's key.
pub fn raw(cf: RawCf, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + key.len());
    bytes.put_u8(cf.tag());
    bytes.put_slice(key);
    bytes.freeze()
}

/// The user's key inside an engine key of [`Cf::Raw`].
///
/// # Panics
/// If `key` is empty: no such key is ever written.
pub fn raw_user_key(key: &[u8]) -> &[u8] {
    &key[1..]
}

/// All user keys of `cf` in `[start, end)`; an empty `end` is the end of the keyspace.
pub fn raw_range(cf: RawCf, start: &[u8], end: &[u8]) -> KeyRange {
    let (lower, upper) = raw_bounds(cf, start, end);
    KeyRange { lower, upper: Some(upper) }
}

/// The bounds of [`raw_range`].
pub fn raw_bounds(cf: RawCf, start: &[u8], end: &[u8]) -> (Bytes, Bytes) {
    let upper = if end.is_empty() { Bytes::copy_from_slice(&[cf.tag() + 1]) } else { raw(cf, end) };
    (raw(cf, start), upper)
}

/// Every range that holds data of `region`, per column family and in key order: what a snapshot carries, and what an
/// installation clears.
pub fn data_ranges(region: &metapb::Region) -> Vec<(Cf, KeyRange)> {
    let range = |cf| (Cf::Raw, raw_range(cf, &region.start_key, &region.end_key));
    RawCf::ALL.into_iter().map(range).collect()
}

/// The log entries `[from, to)` of a region.
pub fn log_range(region: RegionId, from: LogIndex, to: LogIndex) -> KeyRange {
    numbered_range(KIND_LOG_ENTRY, region, from.0, to.0)
}

/// Every log entry of a region.
pub fn log_range_all(region: RegionId) -> KeyRange {
    KeyRange { lower: local(KIND_LOG_ENTRY, region), upper: Some(after(KIND_LOG_ENTRY, region)) }
}

/// Every session of a region.
pub fn session_range(region: RegionId) -> KeyRange {
    KeyRange { lower: local(KIND_SESSION, region), upper: Some(after(KIND_SESSION, region)) }
}

/// The states of all regions on the store, in order of their ids.
pub fn region_state_range() -> KeyRange {
    kind_range(KIND_REGION_STATE)
}

/// The markers of all unfinished installations, in order of their regions.
pub fn pending_snapshot_range() -> KeyRange {
    kind_range(KIND_PENDING_SNAPSHOT)
}

fn local(kind: u8, region: RegionId) -> Bytes {
    let mut bytes = BytesMut::with_capacity(9);
    bytes.put_u8(kind);
    bytes.put_u64(region.get());
    bytes.freeze()
}

fn local_numbered(kind: u8, region: RegionId, number: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(17);
    bytes.put_u8(kind);
    bytes.put_u64(region.get());
    bytes.put_u64(number);
    bytes.freeze()
}

fn numbered_range(kind: u8, region: RegionId, from: u64, to: u64) -> KeyRange {
    KeyRange {
        lower: local_numbered(kind, region, from),
        upper: Some(local_numbered(kind, region, to)),
    }
}

fn kind_range(kind: u8) -> KeyRange {
    KeyRange {
        lower: Bytes::copy_from_slice(&[kind]),
        upper: Some(Bytes::copy_from_slice(&[kind + 1])),
    }
}

/// The first key after all keys of `kind` for `region`.
fn after(kind: u8, region: RegionId) -> Bytes {
    match region.get().checked_add(1) {
        Some(next) => local(kind, next.into()),
        None => Bytes::copy_from_slice(&[kind + 1]),
    }
}

/// Zero, one or two big-endian numbers; anything else is no key.
fn decode_numbers(rest: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
    match rest.len() {
        0 => Some((None, None)),
        8 => Some((number(rest), None)),
        16 => Some((number(&rest[..8]), number(&rest[8..]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Key> {
        let number = prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
        let id = number.clone().prop_map(RegionId::from);
        prop_oneof![
            Just(Key::StoreIdent),
            id.clone().prop_map(Key::RegionState),
            id.clone().prop_map(Key::PendingSnapshot),
            id.clone().prop_map(Key::ApplyState),
            id.clone().prop_map(Key::HardState),
            (id.clone(), number.clone()).prop_map(|(r, i)| Key::LogEntry(r, LogIndex(i))),
            (id, number).prop_map(|(r, c)| Key::Session(r, ClientId(c))),
            (0..3u8, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(tag, key)| {
                Key::Raw(RawCf::from_tag(tag).expect("three tags"), Bytes::from(key))
            }),
        ]
    }

    fn contains(range: &KeyRange, key: &[u8]) -> bool {
        range.lower.as_ref() <= key && range.upper.as_ref().is_none_or(|upper| key < upper)
    }

    proptest! {
        #[test]
        fn every_key_survives_a_round_trip(key in any_key()) {
            prop_assert_eq!(Key::decode(key.cf(), &key.encode()), Ok(key));
        }

        #[test]
        fn two_keys_never_share_bytes(a in any_key(), b in any_key()) {
            let same_place = a.cf() == b.cf() && a.encode() == b.encode();
            prop_assert_eq!(same_place, a == b);
        }

        #[test]
        fn decode_accepts_only_what_encode_yields(
            raft_cf in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let cf = if raft_cf { Cf::Raft } else { Cf::Raw };
            if let Ok(key) = Key::decode(cf, &bytes) {
                prop_assert_eq!(key.encode().to_vec(), bytes);
            }
        }

        #[test]
        fn log_order_is_index_order(region in any::<u64>(), a in any::<u64>(), b in any::<u64>()) {
            let key = |index| Key::LogEntry(region.into(), LogIndex(index)).encode();
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn a_regions_ranges_hold_its_own_records_only(
            region in any::<u64>(), other in any::<u64>(), number in any::<u64>(),
        ) {
            let (region, other) = (RegionId::from(region), RegionId::from(other));
            let entry = Key::LogEntry(other, LogIndex(number)).encode();
            prop_assert_eq!(contains(&log_range_all(region), &entry), region == other);
            let session = Key::Session(other, ClientId(number)).encode();
            prop_assert_eq!(contains(&session_range(region), &session), region == other);
        }

        #[test]
        fn a_raw_range_is_the_users_range(
            bounds in any::<[Vec<u8>; 2]>(), key in any::<Vec<u8>>(), tags in (0..3u8, 0..3u8),
        ) {
            let cf = |tag| RawCf::from_tag(tag).expect("three tags");
            let [start, end] = bounds;
            let inside = key >= start && (end.is_empty() || key < end) && tags.0 == tags.1;
            let range = raw_range(cf(tags.0), &start, &end);
            prop_assert_eq!(contains(&range, &raw(cf(tags.1), &key)), inside);
        }
    }

    #[test]
    fn the_layout_on_disk_is_pinned() {
        let region = RegionId::from(0x0102);
        let hex = |key: Key| key.encode().iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(Key::StoreIdent), "01");
        assert_eq!(hex(Key::RegionState(region)), "020000000000000102");
        assert_eq!(hex(Key::LogEntry(region, LogIndex(5))), "0600000000000001020000000000000005");
        assert_eq!(hex(Key::Session(region, ClientId(9))), "0700000000000001020000000000000009");
        assert_eq!(hex(Key::Raw(RawCf::Write, Bytes::from_static(b"k"))), "026b");
    }
}

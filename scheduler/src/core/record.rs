//! Everything the scheduler remembers, key by key.
//!
//! A key is a tag byte, followed by a big-endian id where there are many of a kind. Values are
//! big-endian `u64`s or protobuf messages. State in memory is a function of the records: a running
//! scheduler and a recovering one apply them with the same code.

use bytes::{BufMut, Bytes, BytesMut};
use engine::{Cf, WriteBatch};
use prost::Message;
use proto::ids::{RegionId, StoreId};
use proto::{flotillapb, metapb};

/// The layout written by this code; a directory of another one is refused.
pub const FORMAT: u64 = 1;

/// Where a record lives. Tags are never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `00` → u64: the layout's version.
    Format,
    /// `01` → u64: the cluster's id, drawn once.
    ClusterId,
    /// `02` → u64: the first id that may not be handed out yet.
    IdWindow,
    /// `03` → u64: Unix milliseconds; every timestamp handed out has a smaller physical part.
    TimestampWindow,
    /// `04` → u64: versions before this timestamp may be collected.
    SafePoint,
    /// `05` → `flotilla.InitialPlan`: the first regions.
    Plan,
    /// `06` → `flotilla.Settings`: those that differ from their defaults.
    Settings,
    /// `07` → `flotilla.Pauses`: balancers that rest.
    Pauses,
    /// `10 id` → `metapb.Store`.
    Store(StoreId),
    /// `11 id` → `metapb.Region`: the last one reported. A cache of what the stores know, so that
    /// clients find their way at once after a restart.
    Region(RegionId),
}

impl Key {
    /// The key's bytes.
    pub fn encode(self) -> Bytes {
        let (tag, id) = match self {
            Self::Format => (0x00, None),
            Self::ClusterId => (0x01, None),
            Self::IdWindow => (0x02, None),
            Self::TimestampWindow => (0x03, None),
            Self::SafePoint => (0x04, None),
            Self::Plan => (0x05, None),
            Self::Settings => (0x06, None),
            Self::Pauses => (0x07, None),
            Self::Store(id) => (0x10, Some(id.get())),
            Self::Region(id) => (0x11, Some(id.get())),
        };
        let mut key = BytesMut::with_capacity(9);
        key.put_u8(tag);
        if let Some(id) = id {
            key.put_u64(id);
        }
        key.freeze()
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// See [`Key::Format`].
    Format(u64),
    /// See [`Key::ClusterId`].
    ClusterId(u64),
    /// See [`Key::IdWindow`].
    IdWindow(u64),
    /// See [`Key::TimestampWindow`].
    TimestampWindow(u64),
    /// See [`Key::SafePoint`].
    SafePoint(u64),
    /// See [`Key::Plan`].
    Plan(flotillapb::InitialPlan),
    /// See [`Key::Settings`].
    Settings(flotillapb::Settings),
    /// See [`Key::Pauses`].
    Pauses(flotillapb::Pauses),
    /// See [`Key::Store`].
    Store(metapb::Store),
    /// See [`Key::Region`].
    Region(metapb::Region),
}

/// Bytes that are no record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {key}: {reason}")]
pub struct RecordError {
    /// The key in hexadecimal.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Record {
    /// Where it lives.
    pub fn key(&self) -> Key {
        match self {
            Self::Format(_) => Key::Format,
            Self::ClusterId(_) => Key::ClusterId,
            Self::IdWindow(_) => Key::IdWindow,
            Self::TimestampWindow(_) => Key::TimestampWindow,
            Self::SafePoint(_) => Key::SafePoint,
            Self::Plan(_) => Key::Plan,
            Self::Settings(_) => Key::Settings,
            Self::Pauses(_) => Key::Pauses,
            Self::Store(store) => Key::Store(store.id.into()),
            Self::Region(region) => Key::Region(region.id.into()),
        }
    }

    fn value(&self) -> Bytes {
        match self {
            Self::Format(value)
            | Self::ClusterId(value)
            | Self::IdWindow(value)
            | Self::TimestampWindow(value)
            | Self::SafePoint(value) => Bytes::copy_from_slice(&value.to_be_bytes()),
            Self::Plan(plan) => plan.encode_to_vec().into(),
            Self::Settings(settings) => settings.encode_to_vec().into(),
            Self::Pauses(pauses) => pauses.encode_to_vec().into(),
            Self::Store(store) => store.encode_to_vec().into(),
            Self::Region(region) => region.encode_to_vec().into(),
        }
    }

    /// Reads a row back.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, RecordError> {
        let record = match key.first() {
            Some(0x00) => Self::Format(number(key, value)?),
            Some(0x01) => Self::ClusterId(number(key, value)?),
            Some(0x02) => Self::IdWindow(number(key, value)?),
            Some(0x03) => Self::TimestampWindow(number(key, value)?),
            Some(0x04) => Self::SafePoint(number(key, value)?),
            Some(0x05) => Self::Plan(message(key, value)?),
            Some(0x06) => Self::Settings(message(key, value)?),
            Some(0x07) => Self::Pauses(message(key, value)?),
            Some(0x10) => Self::Store(message(key, value)?),
            Some(0x11) => Self::Region(message(key, value)?),
            _ => return Err(error(key, "unknown kind of record")),
        };
        if record.key().encode() != key {
            return Err(error(key, "the key does not belong to its value"));
        }
        Ok(record)
    }
}

fn error(key: &[u8], reason: impl ToString) -> RecordError {
    let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
    RecordError { key, reason: reason.to_string() }
}

fn number(key: &[u8], value: &[u8]) -> Result<u64, RecordError> {
    let value = value.try_into().map_err(|_| error(key, "the value is not 8 bytes long"))?;
    Ok(u64::from_be_bytes(value))
}

fn message<M: Message + Default>(key: &[u8], value: &[u8]) -> Result<M, RecordError> {
    M::decode(value).map_err(|reason| error(key, reason))
}

/// What one decision wants remembered: all of it, or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a change that is not committed and applied never happened"]
pub struct Change {
    pub(super) puts: Vec<Record>,
    pub(super) removals: Vec<RegionId>,
}

impl Change {
    pub(super) fn put(&mut self, record: Record) {
        self.puts.push(record);
    }

    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removals.is_empty()
    }

    /// As one atomic write.
    pub fn batch(&self, cf: Cf) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for id in &self.removals {
            batch.delete(cf, Key::Region(*id).encode());
        }
        for record in &self.puts {
            batch.put(cf, record.key().encode(), record.value());
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_record_comes_back_from_its_own_bytes() {
        let region = metapb::Region { id: 258, ..Default::default() };
        let records = [
            Record::Format(1),
            Record::ClusterId(u64::MAX),
            Record::IdWindow(2),
            Record::TimestampWindow(3),
            Record::SafePoint(4),
            Record::Plan(flotillapb::InitialPlan { regions: vec![region.clone()] }),
            Record::Settings(flotillapb::Settings { items: vec![Default::default()] }),
            Record::Pauses(flotillapb::Pauses { pauses: vec![Default::default()] }),
            Record::Store(metapb::Store { id: 7, address: "a:1".into(), ..Default::default() }),
            Record::Region(region),
        ];
        for record in &records {
            let key = record.key().encode();
            assert_eq!(Record::decode(&key, &record.value()).as_ref(), Ok(record));
        }
        assert_eq!(records[9].key().encode(), &[0x11, 0, 0, 0, 0, 0, 0, 1, 2][..]);
    }

    #[test]
    fn bytes_of_another_kind_are_refused_by_name() {
        assert_eq!(Record::decode(b"\x01", b"123").unwrap_err().key, "01");
        assert!(Record::decode(b"", b"").is_err());
        assert!(Record::decode(b"\x7f", b"").is_err());
        let store = metapb::Store { id: 7, ..Default::default() }.encode_to_vec();
        let other_key = Key::Store(8.into()).encode();
        let error = Record::decode(&other_key, &store).unwrap_err();
        assert_eq!(error.reason, "the key does not belong to its value");
    }
}

//! How the keys of a request become the keys of the store.
//!
//! Without a keyspace (`api_version` V1) a key is stored as it is. A client with a keyspace (V2) prefixes its keys
//! itself and routes by their memcomparable form, in which region boundaries are; so the store keeps the encoded key,
//! and range checks are plain byte comparisons for both. Responses carry keys as the client wrote them.
//!
//! Both forms share one ordered space: clients of both kinds can use one cluster, but a V1 scan over V2 keys shows their
//! encoded form.
//!
//! Tests: below.

use bytes::Bytes;
use proto::codec;
use proto::kvrpcpb::ApiVersion;

use crate::limits::{Refusal, check_key};

/// The form in which the keys of one request are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// As the client wrote them.
    Plain,
    /// Memcomparable.
    Encoded,
}

impl KeyForm {
    /// The form a request's `api_version` asks for.
    pub(crate) fn of(api_version: i32) -> Result<KeyForm, Refusal> {
        match ApiVersion::try_from(api_version) {
            Ok(ApiVersion::V1 | ApiVersion::V1ttl) => Ok(KeyForm::Plain),
            Ok(ApiVersion::V2) => Ok(KeyForm::Encoded),
            Err(_) => Err(Refusal::UnknownApiVersion { got: api_version }),
        }
    }

    /// The stored form of a key, which must not be empty. The limit holds for both forms.
    pub(crate) fn key(self, field: &'static str, key: Bytes) -> Result<Bytes, Refusal> {
        check_key(field, &key)?;
        self.store(field, key)
    }

    /// The stored form of one end of a range, where an empty key means that the range is open there.
    pub(crate) fn bound(self, field: &'static str, key: Bytes) -> Result<Bytes, Refusal> {
        if key.is_empty() { Ok(key) } else { self.key(field, key) }
    }

    fn store(self, field: &'static str, key: Bytes) -> Result<Bytes, Refusal> {
        match self {
            KeyForm::Plain => Ok(key),
            KeyForm::Encoded => {
                let stored = codec::encode(&key);
                check_key(field, &stored)?;
                Ok(stored)
            }
        }
    }

    /// The key of a response. `None`: a key of the other form, which this request cannot see.
    pub(crate) fn load(self, stored: &[u8]) -> Option<Bytes> {
        match self {
            KeyForm::Plain => Some(Bytes::copy_from_slice(stored)),
            KeyForm::Encoded => codec::decode(stored).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_keys_keep_their_order_and_come_back() {
        let form = KeyForm::of(2).unwrap();
        let keys = [&b"r\0\0\0a"[..], b"r\0\0\0a\0", b"r\0\0\0ab", b"r\0\0\x01"];
        let stored: Vec<Bytes> =
            keys.iter().map(|key| form.key("key", Bytes::copy_from_slice(key)).unwrap()).collect();
        assert!(stored.is_sorted(), "{stored:?}");
        for (key, stored) in keys.iter().zip(&stored) {
            assert_eq!(form.load(stored).as_deref(), Some(*key));
        }
        assert_eq!(form.bound("end_key", Bytes::new()), Ok(Bytes::new()), "an open end stays open");
        assert_eq!(form.load(b"plain"), None);
    }

    #[test]
    fn an_unknown_version_is_refused_by_its_number() {
        assert_eq!(KeyForm::of(0), Ok(KeyForm::Plain));
        assert_eq!(KeyForm::of(9), Err(Refusal::UnknownApiVersion { got: 9 }));
    }
}

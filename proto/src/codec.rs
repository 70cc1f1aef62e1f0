//! Memcomparable keys: an encoding whose byte order is the order of the originals and in which no
//! encoded key is a prefix of another, so that a suffix (a timestamp) can follow.
//!
//! A key is cut into groups of 8 bytes; each is padded with zeros and followed by a marker,
//! `0xff - padding`. The last group is the one with padding; a key whose length is a multiple of 8
//! ends with a group of padding alone. `""` is `00×8 f7`. TiKV's clients and PD use the same.
//!
//! Invariant: `decode(encode(k)) == k`, and `a < b ⇔ encode(a) < encode(b)` (property tests below).

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a key in one group.
const GROUP: usize = 8;
/// Bytes of one encoded group.
const ENCODED_GROUP: usize = GROUP + 1;
/// The marker of a group without padding.
const FULL: u8 = 0xff;

/// Why bytes are not a memcomparable encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the last group does.
    #[error("memcomparable key ends inside of a group, after {at} bytes")]
    Truncated {
        /// Offset of the incomplete group.
        at: usize,
    },
    /// A marker is not one of `f7..=ff`.
    #[error("memcomparable key has an invalid marker {marker:#04x} at byte {at}")]
    Marker {
        /// The byte found.
        marker: u8,
        /// Its offset.
        at: usize,
    },
    /// Padding is not zero.
    #[error("memcomparable key has padding other than zero in the group at byte {at}")]
    Padding {
        /// Offset of the group.
        at: usize,
    },
    /// Bytes follow where none are allowed.
    #[error("memcomparable key is followed by {extra} more bytes")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

/// Bytes of the encoding of a key of `key_bytes`.
pub const fn encoded_len(key_bytes: usize) -> usize {
    (key_bytes / GROUP + 1) * ENCODED_GROUP
}

/// Encodes a key.
pub fn encode(key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(encoded_len(key.len()));
    encode_into(key, &mut out);
    out.freeze()
}

/// Encodes a key behind what `out` holds.
pub fn encode_into(key: &[u8], out: &mut impl BufMut) {
    let mut groups = key.chunks_exact(GROUP);
    for group in &mut groups {
        out.put_slice(group);
        out.put_u8(FULL);
    }
    let rest = groups.remainder();
    let padding = GROUP - rest.len();
    out.put_slice(rest);
    out.put_bytes(0, padding);
    out.put_u8(FULL - padding as u8);
}

/// Decodes bytes that are one encoded key and nothing else.
pub fn decode(encoded: &[u8]) -> Result<Bytes, DecodeError> {
    let (key, rest) = decode_prefix(encoded)?;
    if rest.is_empty() { Ok(key) } else { Err(DecodeError::Trailing { extra: rest.len() }) }
}

/// Decodes the key that `encoded` begins with; also returns what follows it.
pub fn decode_prefix(encoded: &[u8]) -> Result<(Bytes, &[u8]), DecodeError> {
    let mut key = BytesMut::with_capacity(encoded.len() / ENCODED_GROUP * GROUP);
    let mut at = 0;
    loop {
        let rest = &encoded[at..];
        let Some((group, tail)) = rest.split_at_checked(ENCODED_GROUP) else {
            return Err(DecodeError::Truncated { at });
        };
        let marker = group[GROUP];
        let padding = usize::from(FULL - marker);
        if padding > GROUP {
            return Err(DecodeError::Marker { marker, at: at + GROUP });
        }
        let (data, zeros) = group[..GROUP].split_at(GROUP - padding);
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(DecodeError::Padding { at });
        }
        key.extend_from_slice(data);
        if padding > 0 {
            return Ok((key.freeze(), tail));
        }
        at += ENCODED_GROUP;
    }
}

/// Whether `boundary` may be a region's start or end: empty, or exactly one encoded key.
pub fn is_boundary(boundary: &[u8]) -> bool {
    boundary.is_empty() || decode(boundary).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_encodings() {
        let known: [(&[u8], &[u8]); 5] = [
            (b"", b"\0\0\0\0\0\0\0\0\xf7"),
            (b"a", b"a\0\0\0\0\0\0\0\xf8"),
            (b"1234567", b"1234567\0\xfe"),
            (b"12345678", b"12345678\xff\0\0\0\0\0\0\0\0\xf7"),
            (b"123456789", b"12345678\xff9\0\0\0\0\0\0\0\xf8"),
        ];
        for (key, encoded) in known {
            assert_eq!(encode(key), encoded);
            assert_eq!(encode(key).len(), encoded_len(key.len()));
            assert_eq!(decode(encoded).unwrap(), key);
        }
    }

    #[test]
    fn what_is_not_an_encoding_is_refused() {
        assert_eq!(decode(b""), Err(DecodeError::Truncated { at: 0 }));
        assert_eq!(decode(b"12345678"), Err(DecodeError::Truncated { at: 0 }));
        assert_eq!(decode(b"12345678\xff"), Err(DecodeError::Truncated { at: 9 }));
        let marker = DecodeError::Marker { marker: 0xf6, at: 8 };
        assert_eq!(decode(b"\0\0\0\0\0\0\0\0\xf6"), Err(marker));
        assert_eq!(decode(b"a\0\0\0\0\0\0\x01\xf8"), Err(DecodeError::Padding { at: 0 }));
        assert_eq!(decode(b"\0\0\0\0\0\0\0\0\xf7x"), Err(DecodeError::Trailing { extra: 1 }));
        assert!(is_boundary(b"") && is_boundary(&encode(b"k")) && !is_boundary(b"k"));
    }

    proptest! {
        #[test]
        fn round_trip_also_with_a_suffix(key: Vec<u8>, suffix: Vec<u8>) {
            let mut encoded = encode(&key).to_vec();
            prop_assert_eq!(&decode(&encoded).unwrap()[..], &key[..]);
            encoded.extend_from_slice(&suffix);
            let (decoded, rest) = decode_prefix(&encoded).unwrap();
            prop_assert_eq!((&decoded[..], rest), (&key[..], &suffix[..]));
        }

        #[test]
        fn order_is_kept(
            a in proptest::collection::vec(0u8..3, 0..20),
            b in proptest::collection::vec(0u8..3, 0..20),
        ) {
            prop_assert_eq!(a.cmp(&b), encode(&a).cmp(&encode(&b)));
        }

        #[test]
        fn any_bytes_decode_to_their_own_encoding_or_to_an_error(bytes: Vec<u8>) {
            if let Ok(key) = decode(&bytes) {
                prop_assert_eq!(&encode(&key)[..], &bytes[..]);
            }
        }
    }
}

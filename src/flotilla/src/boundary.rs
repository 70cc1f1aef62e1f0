//! Where a region can be cut so that a given key begins the right-hand part.
//!
//! Region boundaries are memcomparable encodings, of groups of eight bytes; keys are stored as they are. So not every key
//! can be a boundary: keys that share their first eight bytes cannot be told apart by one, and stay together. The boundary
//! taken for a key is the encoding of the eight bytes just below its own first eight: it sorts behind every key that begins
//! with those (unless the ninth byte is 0xff) and before every key that begins with the key's own.

use bytes::Bytes;
use proto::codec::{encode, is_boundary};

/// Bytes of a group.
const GROUP: usize = 8;

/// The nearest boundary at or below `key`: the key, and all that share its first eight bytes, lie to the right of it. `None`
/// for a key that begins with eight zeros: nothing is to the left of it.
pub(crate) fn below(key: &[u8]) -> Option<Bytes> {
    let mut group = [0; GROUP];
    let known = key.len().min(GROUP);
    group[..known].copy_from_slice(&key[..known]);
    let before = u64::from_be_bytes(group).checked_sub(1)?;
    Some(encode(&before.to_be_bytes()))
}

/// Whether these bytes can be a boundary as they are.
pub(crate) fn is_exact(boundary: &[u8]) -> bool {
    !boundary.is_empty() && is_boundary(boundary)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_boundary_of_a_key_is_told_exactly() {
        let boundary = below(b"user0001:x").expect("there is one");
        assert_eq!(&boundary[..], b"user0000\xff\0\0\0\0\0\0\0\0\xf7");
        assert_eq!(below(b"user0001"), below(b"user0001:zzz"), "they stay together");
        let short = below(b"m").expect("there is one");
        assert_eq!(&short[..9], b"l\xff\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(below(b""), None);
        assert_eq!(below(b"\0\0\0\0\0\0\0\0tail"), None);
        assert!(is_exact(&boundary) && !is_exact(b"user0001") && !is_exact(b""));
    }

    proptest! {
        #[test]
        fn the_key_is_right_of_it_and_what_begins_lower_is_left(
            key in proptest::collection::vec(any::<u8>(), 1..20),
            other in proptest::collection::vec(any::<u8>(), 1..20),
        ) {
            let Some(boundary) = below(&key) else { return Ok(()) };
            prop_assert!(is_exact(&boundary));
            prop_assert!(boundary[..] <= key[..]);
            let padded = |bytes: &[u8]| {
                let mut group = [0; GROUP];
                let known = bytes.len().min(GROUP);
                group[..known].copy_from_slice(&bytes[..known]);
                group
            };
            if padded(&other) >= padded(&key) {
                prop_assert!(other[..] >= boundary[..]);
            } else if other.get(GROUP) != Some(&0xff) {
                prop_assert!(other[..] < boundary[..]);
            }
        }
    }
}

//! Where a region may be cut: at valid memcomparable encodings only, because others decode them.
//!
//! Keys of transactions are encodings (with a timestamp behind), so there is a boundary before each user key. Raw keys may
//! be any bytes, and an encoding has a marker after eight: between two raw keys there is a boundary only if they differ
//! within their first eight bytes. Raw keys that share them stay in one region.

use bytes::Bytes;
use proto::codec;
use proto::metapb;

/// Bytes of a key in the first group of its encoding.
const GROUP: usize = 8;

/// A boundary `b` with `previous < b <= next`, if one is found. Short ones are preferred.
pub fn boundary_between(previous: &[u8], next: &[u8]) -> Option<Bytes> {
    let common = previous.iter().zip(next).take_while(|(a, b)| a == b).count();
    // The first byte in which they differ ends the shortest key between them.
    let shortest = next.get(..=common).filter(|key| key.len() < GROUP).map(codec::encode);
    // Everything that begins with the eight bytes of `previous` stays below, unless 0xff follows them.
    let behind_group = codec::encode(&previous[..previous.len().min(GROUP)]);
    let mut candidates = shortest.into_iter().chain([behind_group]);
    let fits = |boundary: &Bytes| previous < &boundary[..] && &boundary[..] <= next;
    candidates.find(fits).or_else(|| own_encoding(next).filter(fits))
}

/// The encoding that a transaction's key begins with.
fn own_encoding(key: &[u8]) -> Option<Bytes> {
    let (_, suffix) = codec::decode_prefix(key).ok()?;
    Some(Bytes::copy_from_slice(&key[..key.len() - suffix.len()]))
}

/// Whether `region` may be cut at `key`.
pub fn is_valid_cut(region: &metapb::Region, key: &[u8]) -> bool {
    let inside =
        key > &region.start_key[..] && (region.end_key.is_empty() || key < &region.end_key[..]);
    inside && !key.is_empty() && codec::is_boundary(key)
}

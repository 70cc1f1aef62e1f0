//! Records made up by number: the same number gives the same record. Keys differ in their first eight bytes, as far as that
//! is possible, since a region is never cut between keys that do not.

use bytes::Bytes;
use client::Pair;

use super::records::RecordError;

/// What values are made of: text, so that they can be looked at.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `count` records.
pub(super) fn records(
    count: u64,
    value_bytes: u32,
) -> impl Iterator<Item = Result<Pair, RecordError>> + Send {
    (0..count).map(move |number| Ok((key(mix(number)), value(number, value_bytes))))
}

/// The key of a place in the key space: its 16 hex digits.
pub(crate) fn key(place: u64) -> Bytes {
    Bytes::from(format!("{place:016x}"))
}

fn value(number: u64, bytes: u32) -> Bytes {
    let mut state = mix(number ^ 0x5bd1_e995);
    let mut value = Vec::with_capacity(bytes as usize);
    while value.len() < bytes as usize {
        state = mix(state);
        value.extend(state.to_le_bytes().map(|byte| LETTERS[usize::from(byte & 63)]));
    }
    value.truncate(bytes as usize);
    Bytes::from(value)
}

/// A one-to-one map that spreads neighbours (the finaliser of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_differ_early_and_are_spread_evenly() {
        let made: Vec<Pair> = records(4096, 100).map(|record| record.expect("made up")).collect();
        let prefixes: BTreeSet<&[u8]> = made.iter().map(|(key, _)| &key[..8]).collect();
        assert_eq!(prefixes.len(), 4096);
        for digit in b"0123456789abcdef" {
            let share = made.iter().filter(|(key, _)| key[0] == *digit).count();
            assert!((192..320).contains(&share), "{share} of 4096 begin with {digit}");
        }
        assert!(made.iter().all(|(_, value)| value.len() == 100));
        let again: Vec<Pair> = records(4096, 100).map(|record| record.expect("made up")).collect();
        assert_eq!(made, again);
    }
}

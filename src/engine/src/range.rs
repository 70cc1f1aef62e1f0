//! Half-open key ranges.

use bytes::Bytes;

/// The keys `k` with `lower <= k`, and `k < upper` if there is an upper bound. A range whose upper bound is not above
/// its lower one holds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key that may be inside. Empty: from the beginning.
    pub lower: Bytes,
    /// First key behind the range. `None`: to the end.
    pub upper: Option<Bytes>,
}

impl KeyRange {
    /// `[lower, upper)`.
    pub fn new(lower: impl Into<Bytes>, upper: impl Into<Bytes>) -> Self {
        Self { lower: lower.into(), upper: Some(upper.into()) }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { lower: Bytes::new(), upper: None }
    }

    /// Every key from `lower` on.
    pub fn starting_at(lower: impl Into<Bytes>) -> Self {
        Self { lower: lower.into(), upper: None }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let lower = prefix.into();
        let upper = prefix_successor(&lower);
        Self { lower, upper }
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.lower[..] && self.upper.as_ref().is_none_or(|upper| key < &upper[..])
    }

    /// Whether no key can lie inside.
    pub fn is_empty(&self) -> bool {
        self.upper.as_ref().is_some_and(|upper| upper <= &self.lower)
    }
}

/// The first key behind all keys with this prefix; `None` when nothing is behind (empty, or only 0xff).
fn prefix_successor(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ranges_hold_exactly_their_prefix() {
        let range = KeyRange::prefix(&b"a\xff"[..]);
        assert!(range.contains(b"a\xff") && range.contains(b"a\xff\xff\xff"));
        assert!(!range.contains(b"a\xfe") && !range.contains(b"b"));
        assert_eq!(KeyRange::prefix(&b"\xff\xff"[..]).upper, None);
        assert_eq!(KeyRange::prefix(&b""[..]), KeyRange::all());
    }

    #[test]
    fn a_reversed_range_is_empty() {
        assert!(KeyRange::new(&b"b"[..], &b"a"[..]).is_empty());
        assert!(KeyRange::new(&b"a"[..], &b"a"[..]).is_empty());
        assert!(!KeyRange::new(&b"a"[..], &b"a\0"[..]).is_empty());
        assert!(!KeyRange::all().is_empty());
    }
}

//! Keys, values and the seeded stream of choices: the same for every system.

use std::cell::Cell;

use bytes::Bytes;

/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 256;
/// Pairs that a scan asks for.
pub(super) const SCAN_ROWS: u64 = 100;
/// How many different values there are; they compress about two to one.
const VALUES: usize = 64;

/// The key with a number: 16 bytes, in the order of the numbers.
pub(super) fn key(number: u64) -> Bytes {
    Bytes::from(format!("bench-{number:010}"))
}

/// Draws keys and values.
#[derive(Debug)]
pub(super) struct Dice {
    state: Cell<u64>,
    keys: u64,
    values: Vec<Bytes>,
}

impl Dice {
    /// Over `keys` keys; equal seeds draw equal sequences.
    pub(super) fn new(seed: u64, keys: u64) -> Self {
        assert!(keys > SCAN_ROWS, "a scan must find its rows");
        let mut dice = Self { state: Cell::new(seed), keys, values: Vec::new() };
        dice.values = (0..VALUES).map(|_| dice.fresh_value()).collect();
        dice
    }

    /// How many keys there are.
    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    /// Any number of a key.
    pub(super) fn number(&self) -> u64 {
        self.draw() % self.keys
    }

    /// Any key.
    pub(super) fn key(&self) -> Bytes {
        key(self.number())
    }

    /// The bounds of a scan of exactly [`SCAN_ROWS`] keys, the upper one excluded.
    pub(super) fn scan(&self) -> (Bytes, Bytes) {
        let first = self.draw() % (self.keys - SCAN_ROWS);
        (key(first), key(first + SCAN_ROWS))
    }

    /// Any value; sharing it copies nothing.
    pub(super) fn value(&self) -> Bytes {
        self.values[self.draw() as usize % VALUES].clone()
    }

    fn fresh_value(&self) -> Bytes {
        let random = (0..VALUE_BYTES / 16).flat_map(|_| self.draw().to_le_bytes());
        random.chain(std::iter::repeat_n(b'.', VALUE_BYTES / 2)).collect()
    }

    /// SplitMix64.
    fn draw(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_and_values_have_their_size() {
        assert!(key(9) < key(10) && key(99_999) < key(100_000));
        let dice = Dice::new(1, 1_000);
        assert_eq!(dice.value().len(), VALUE_BYTES);
        let (start, end) = dice.scan();
        assert!(start < end && end <= key(1_000));
    }

    #[test]
    fn equal_seeds_draw_equal_keys() {
        let draw = |seed| {
            let dice = Dice::new(seed, 1_000);
            (0..5).map(|_| dice.key()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}

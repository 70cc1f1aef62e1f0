//! The state machine both sides apply to: a chained hash of everything applied, so that equal hashes mean equal histories.

/// What a member has applied.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The last index.
    pub applied: u64,
    /// Hash of every entry up to there, in order.
    pub hash: u64,
    /// `(index, hash)` after each entry since the last restart or snapshot, for whoever checks agreement.
    pub trail: Vec<(u64, u64)>,
}

impl Machine {
    /// Applies one entry.
    ///
    /// # Panics
    /// When the entry is not the next one: no implementation may skip or repeat one.
    pub fn apply(&mut self, index: u64, term: u64, data: &[u8]) {
        assert_eq!(index, self.applied + 1, "entries are applied one after the other");
        self.applied = index;
        for number in [index, term] {
            self.mix(&number.to_be_bytes());
        }
        self.mix(data);
        self.trail.push((index, self.hash));
    }

    /// Starts from what the group was created with.
    #[must_use]
    pub fn at(index: u64) -> Self {
        Self { applied: index, ..Self::default() }
    }

    /// The machine as bytes, for a snapshot.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [self.applied.to_be_bytes(), self.hash.to_be_bytes()].concat()
    }

    /// Replaces the machine by a snapshot's.
    ///
    /// # Panics
    /// When the bytes are not [`Machine::encode`]'s.
    pub fn restore(&mut self, bytes: &[u8]) {
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        *self = Self { applied: number(0), hash: number(8), trail: vec![(number(0), number(8))] };
    }

    // FNV-1a: any mixing that depends on order will do.
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

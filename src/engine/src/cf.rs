//! Column families: the ordered key spaces of one store.

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cf {
    /// Long values of transactions, by key and start timestamp.
    Default,
    /// Locks of transactions in flight.
    Lock,
    /// Commit records of transactions, by key and commit timestamp.
    Write,
    /// Data of the raw API. Apart from the transactional families, so that one cluster safely serves both.
    Raw,
    /// Everything local to the store: its identity, region states, Raft logs.
    Raft,
}

impl Cf {
    /// How many families there are.
    pub const COUNT: usize = 5;

    /// Every family, in the order of [`Cf::index`].
    pub const ALL: [Self; Self::COUNT] =
        [Self::Default, Self::Lock, Self::Write, Self::Raw, Self::Raft];

    /// Position in [`Cf::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name on disk. Part of the storage format: never change one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Lock => "lock",
            Self::Write => "write",
            Self::Raw => "raw",
            Self::Raft => "raft",
        }
    }
}

impl std::fmt::Display for Cf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position_in_all() {
        for (position, cf) in Cf::ALL.into_iter().enumerate() {
            assert_eq!(cf.index(), position);
        }
    }
}

//! Typed ids: a region's id cannot be passed where a store's is meant.
//!
//! All of them come from the scheduler's one sequence, are unique in the cluster and are never used
//! again. Zero means "none" on the wire and is never handed out.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a number from the wire or the disk.
            pub const fn new(id: u64) -> Self {
                Self(id)
            }

            /// The number, for the wire or the disk.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Whether this is the wire's "none".
            pub const fn is_none(self) -> bool {
                self.0 == 0
            }
        }

        impl From<u64> for $name {
            fn from(id: u64) -> Self {
                Self(id)
            }
        }

        impl From<$name> for u64 {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id! {
    /// A region: a key range replicated as one Raft group.
    RegionId
}
id! {
    /// A peer: one replica of one region on one store.
    PeerId
}
id! {
    /// A store: one process and its data directory.
    StoreId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_show_their_kind_in_debug_and_only_the_number_to_people() {
        assert_eq!(RegionId::new(7).to_string(), "7");
        assert_eq!(format!("{:?}", StoreId::from(3)), "StoreId(3)");
        assert_eq!(u64::from(PeerId::new(9)), 9);
        assert!(StoreId::default().is_none() && !StoreId::new(1).is_none());
    }
}

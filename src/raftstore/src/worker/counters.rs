//! What the threads have done since they started, for metrics, the status page and the bench.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts that only grow; shared by the threads.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(super) $name: AtomicU64,)*
        }

        /// A reading of [`Counters`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CountersView {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// All of them now (each by itself; they need not fit together).
            pub fn view(&self) -> CountersView {
                CountersView { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl CountersView {
            /// Names and values.
            pub fn pairs(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Inputs handled by the store loop.
    inputs,
    /// Turns taken that asked for something.
    turns,
    /// Raft messages dropped because too many waited.
    raft_messages_dropped,
    /// Log writes asked for by turns.
    log_writes,
    /// Engine writes they became: several that waited are merged into one.
    log_batches,
    /// Syncs of the log.
    log_syncs,
    /// Bytes written to the log.
    log_bytes,
    /// Calls of the applier, each at most one engine write.
    apply_batches,
    /// Entries handed to the applier.
    applied_entries,
    /// Client requests answered by the applier.
    replies,
    /// Snapshots installed.
    snapshots_installed,
    /// Regions read through by the scanner.
    scans,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

//! What an engine can fail with, by what the caller must do.
//!
//! All but [`Error::Unsorted`] and the errors of opening are fatal to the store: it stops serving and says why. None of
//! them is ever answered to a client as if it were the client's.

use std::path::PathBuf;

/// An engine's error. `Clone`, because one failure may have to be told in several places.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk or the file system refused. Fatal: the engine is poisoned from here on.
    #[error("{action}: {detail}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the engine or the operating system said.
        detail: String,
    },
    /// Stored bytes are not what was written. Fatal: such bytes are never served.
    #[error("data is corrupt: {action}: {detail}")]
    Corruption {
        /// What was being done.
        action: &'static str,
        /// What the engine said.
        detail: String,
    },
    /// Another process has the data directory open.
    #[error("data directory {} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds data of a layout that this engine does not know.
    #[error("data directory {} has an unknown layout: {detail}", path.display())]
    Incompatible {
        /// The directory.
        path: PathBuf,
        /// What is unexpected.
        detail: String,
    },
    /// An earlier write or sync failed; nothing more is accepted. Holds the first failure.
    #[error("engine is poisoned by an earlier failure: {0}")]
    Poisoned(String),
    /// Keys given to `ingest` were not strictly ascending; nothing was ingested. The engine is unharmed.
    #[error("keys to ingest must be strictly ascending: number {position} is not")]
    Unsorted {
        /// Number of the first offending pair, from 0.
        position: u64,
    },
}

/// An engine's result.
pub type Result<T> = std::result::Result<T, Error>;

//! What a call can end with, classified by what the caller must do next.

use std::time::Duration;

/// The result of every public call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An argument breaks a limit; nothing was sent.
    #[error("invalid {field}: {reason}")]
    InvalidArgument {
        /// Which argument.
        field: &'static str,
        /// What is wrong and what the limit is.
        reason: String,
    },
    /// A server understood the request and will not do it. Nothing was applied; asking again does not help.
    #[error("refused: {0}")]
    Refused(String),
    /// No scheduler of the list answered in time. Nothing was applied.
    #[error("cannot reach the cluster: {0}")]
    Unreachable(String),
    /// The time budget ran out. Nothing was applied; asking again may help.
    #[error("no answer within {budget:?}: {last}")]
    Timeout {
        /// The budget of the call.
        budget: Duration,
        /// What went wrong on the last attempt.
        last: String,
    },
    /// A write that may or may not have been applied, now or later. Only reading can tell.
    #[error("undetermined, the write may or may not have been applied: {0}")]
    Undetermined(String),
    /// A peer broke the protocol (an answer without the field that must be there).
    #[error("malformed answer: {0}")]
    Malformed(String),
}

/// What the caller of a failed call can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Change the request.
    Refused,
    /// Check the addresses and that the cluster runs.
    Unreachable,
    /// Ask again.
    Unavailable,
    /// Read before writing again.
    Undetermined,
}

impl Error {
    /// The class of the error; the command line's exit codes are made of it.
    pub fn class(&self) -> Class {
        match self {
            Error::InvalidArgument { .. } | Error::Refused(_) | Error::Malformed(_) => {
                Class::Refused
            }
            Error::Unreachable(_) => Class::Unreachable,
            Error::Timeout { .. } => Class::Unavailable,
            Error::Undetermined(_) => Class::Undetermined,
        }
    }

    /// Whether the same call may succeed if it is simply made again. An undetermined write is not retryable: the caller
    /// has to find out first.
    pub fn is_retryable(&self) -> bool {
        matches!(self.class(), Class::Unreachable | Class::Unavailable)
    }
}

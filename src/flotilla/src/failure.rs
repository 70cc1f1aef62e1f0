//! How a command fails, and the exit code that says so.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed for a reason of its own |
//! | 2 | usage |
//! | 3 | a key was not found |
//! | 4 | the cluster cannot be reached |
//! | 5 | no answer in time, nothing was written; asking again may help |
//! | 7 | the cluster is not healthy |
//! | 9 | undetermined: the write may or may not have been applied |
//! | 130 | interrupted |

use std::io;
use std::process::ExitCode;

use client::Class;

use crate::text::TextError;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The key is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// The cluster does not do it.
    #[error("{0}")]
    Client(#[from] client::Error),
    /// The cluster serves, but not as it should.
    #[error("{0}")]
    Unhealthy(String),
    /// A file or a stream.
    #[error("{context}: {error}")]
    Io {
        /// Which one.
        context: String,
        /// What happened.
        error: io::Error,
    },
    /// Input that cannot be read as what it should be.
    #[error("{0}")]
    Input(String),
    /// A server process that cannot run.
    #[error("{0}")]
    Server(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// A command that was run for the user ended with this code, which becomes ours.
    #[error("the command ended with {0}")]
    Child(u8),
}

impl Failure {
    /// An input or output error in its context.
    pub(crate) fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
        let context = context.into();
        move |error| Failure::Io { context, error }
    }

    /// Whether the reader of our output has gone away, which is no failure (`scan | head`).
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Io { error, .. } if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether there is anything to say about it.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_broken_pipe() || matches!(self, Failure::Child(_))
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::NotFound(_) => 3,
            Failure::Client(error) => match error.class() {
                Class::Refused => 1,
                Class::Unreachable => 4,
                Class::Unavailable => 5,
                Class::Undetermined => 9,
            },
            Failure::Unhealthy(_) => 7,
            Failure::Interrupted => 130,
            Failure::Child(code) => *code,
            Failure::Io { .. } if self.is_broken_pipe() => 0,
            Failure::Io { .. } | Failure::Input(_) | Failure::Server(_) => 1,
        }
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> ExitCode {
        ExitCode::from(failure.code())
    }
}

impl From<TextError> for Failure {
    fn from(error: TextError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_code() {
        let client = |error| Failure::Client(error).code();
        assert_eq!(client(client::Error::Refused(String::new())), 1);
        assert_eq!(client(client::Error::Unreachable(String::new())), 4);
        let budget = std::time::Duration::from_secs(1);
        assert_eq!(client(client::Error::Timeout { budget, last: String::new() }), 5);
        assert_eq!(client(client::Error::Undetermined(String::new())), 9);
        assert_eq!(Failure::NotFound(String::new()).code(), 3);
        assert_eq!(Failure::Unhealthy(String::new()).code(), 7);
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::io("stdout")(gone).code(), 0);
    }
}

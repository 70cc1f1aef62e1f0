//! What clients ask of the cluster, and what they learn.

use bytes::Bytes;
use proto::metapb;
use raftstore::command::{Session, WriteResult};

/// One question of a client. Keys of a scan may lie in several regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Set a key; with a session, exactly once.
    Put {
        /// Key.
        key: Bytes,
        /// Value.
        value: Bytes,
        /// Present for an exactly-once put.
        session: Option<Session>,
    },
    /// Set several keys of one region, all or none.
    PutMany {
        /// Keys and values; not empty.
        pairs: Vec<(Bytes, Bytes)>,
    },
    /// Remove a key.
    Delete {
        /// Key.
        key: Bytes,
    },
    /// Remove the keys of `[start, end)`, region by region.
    DeleteRange {
        /// First key that goes.
        start: Bytes,
        /// First key that stays.
        end: Bytes,
    },
    /// Add to the end of a value, exactly once.
    Append {
        /// Key.
        key: Bytes,
        /// What is added.
        value: Bytes,
        /// Names the request.
        session: Session,
    },
    /// Read a key.
    Get {
        /// Key.
        key: Bytes,
    },
    /// Read the pairs of `[start, end)`.
    Scan {
        /// First key.
        start: Bytes,
        /// First key that is not wanted.
        end: Bytes,
    },
}

impl Call {
    /// True for what only reads.
    pub fn is_read(&self) -> bool {
        matches!(self, Call::Get { .. } | Call::Scan { .. })
    }

    /// The key that decides which region is asked (first).
    pub fn key(&self) -> &Bytes {
        match self {
            Call::Put { key, .. }
            | Call::Delete { key }
            | Call::Append { key, .. }
            | Call::Get { key } => key,
            Call::PutMany { pairs } => &pairs[0].0,
            Call::Scan { start, .. } | Call::DeleteRange { start, .. } => start,
        }
    }

    /// True when asking again after an unanswered attempt cannot do harm.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Call::Put { session, .. } => session.is_some(),
            Call::PutMany { .. } | Call::Delete { .. } | Call::DeleteRange { .. } => false,
            Call::Append { .. } | Call::Get { .. } | Call::Scan { .. } => true,
        }
    }

    /// The session it names.
    pub fn session(&self) -> Option<Session> {
        match self {
            Call::Put { session, .. } => *session,
            Call::Append { session, .. } => Some(*session),
            _ => None,
        }
    }

    /// Whether it can be asked of this region, which holds its (next) key.
    pub fn fits(&self, region: &metapb::Region) -> bool {
        let Call::PutMany { pairs } = self else { return true };
        let end = &region.end_key;
        pairs.iter().all(|(key, _)| *key >= region.start_key && (end.is_empty() || key < end))
    }

    /// One word for the timeline.
    pub fn name(&self) -> &'static str {
        match self {
            Call::Put { session: None, .. } => "put",
            Call::Put { .. } => "session-put",
            Call::PutMany { .. } => "put-many",
            Call::Delete { .. } => "delete",
            Call::DeleteRange { .. } => "delete-range",
            Call::Append { .. } => "append",
            Call::Get { .. } => "get",
            Call::Scan { .. } => "scan",
        }
    }
}

/// What a client learned in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write took effect.
    Written,
    /// What the key held.
    Value(Option<Bytes>),
    /// What the range held.
    Pairs(Vec<(Bytes, Bytes)>),
    /// The write may have taken effect, may still, or may never.
    Unknown,
    /// The write has not and will not take effect.
    Refused(WriteResult),
    /// Every attempt failed before it could have an effect.
    Failed,
}

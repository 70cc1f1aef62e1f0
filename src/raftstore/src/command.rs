//! What a region replicates: the commands in its log, as domain types, and their one mapping to `flotillapb`.
//!
//! # Vocabulary
//! A *command* is the content of one log entry. A *write* command carries the requests of many clients that arrived in one
//! turn; a *request* is the unit of atomicity and of the reply; a *mutation* is one change of one key or range inside it.
//! A *session* names a client and its request, so that a request that is proposed twice is applied once.
//!
//! # Invariants
//! 1. `decode(encode(c)) == c` (property test).
//! 2. An entry that this version does not understand *completely* is refused: an unknown kind, an unknown column family and
//!    also an unknown field, which a protobuf decoder would drop without a word. A peer that skipped it would diverge from
//!    those that did not (hazard P5), so the store stops instead.
//!
//! Tests: `command/tests.rs`.

use bytes::Bytes;
use prost::Message;
use proto::flotillapb;
use proto::ids::RegionId;
use proto::limits::{BATCH_OPS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX};
use proto::metapb::{self, RegionEpoch};
use raft::{LogIndex, Term};

use crate::keys::RawCf;
use crate::msg::NewRegion;

mod admin;
#[cfg(test)]
mod tests;

/// A client of the exactly-once protocol. Unique in the cluster: the scheduler hands the number out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

impl std::fmt::Display for ClientId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one request of one client (Raft thesis §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who asks.
    pub client: ClientId,
    /// Its number for this request; from 1, growing. A retry repeats it.
    pub sequence: u64,
}

/// One change to a region's data. Keys are user keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Sets a key.
    Put {
        /// Column family.
        cf: RawCf,
        /// Key.
        key: Bytes,
        /// Value.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// Column family.
        cf: RawCf,
        /// Key.
        key: Bytes,
    },
    /// Removes the keys of `[start, end)` that belong to the region; an empty `end` is the end of the region.
    DeleteRange {
        /// Column family.
        cf: RawCf,
        /// First key that goes.
        start: Bytes,
        /// First key that stays.
        end: Bytes,
    },
    /// Adds bytes to the end of a value; a missing key counts as an empty value.
    Append {
        /// Column family.
        cf: RawCf,
        /// Key.
        key: Bytes,
        /// What is added.
        value: Bytes,
    },
}

/// One request inside a write command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Mutations that take effect together or, if refused, not at all.
    Mutate {
        /// In order; later ones see earlier ones.
        mutations: Vec<Mutation>,
        /// Present for an exactly-once request.
        session: Option<Session>,
    },
    /// Opens a session for a client; opening an open session changes nothing.
    OpenSession {
        /// For whom.
        client: ClientId,
    },
}

/// The content of a log entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Requests of clients.
    Write {
        /// The region's epoch when it was proposed; if its version differs at apply, nothing is applied (hazard M17).
        epoch: Epoch,
        /// In the order of their replies.
        requests: Vec<Request>,
    },
    /// The log up to and including `index` may go.
    CompactLog {
        /// The last entry that may go.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// Cuts the region; the left-most part keeps its id. Refused unless both numbers of the epoch still hold.
    Split {
        /// The region's epoch when it was proposed.
        epoch: Epoch,
        /// Ascending; each begins one new region. As many as `regions`, at least one.
        keys: Vec<Bytes>,
        /// Ids of the new regions.
        regions: Vec<NewRegion>,
    },
    /// Freezes the region, to be taken over by its neighbour. Refused unless both numbers of the epoch still hold.
    PrepareMerge {
        /// The region's epoch when it was proposed.
        epoch: Epoch,
        /// The neighbour, as the merge expects to find it.
        target: metapb::Region,
    },
    /// In the target's log: takes over the frozen `source`. Refused unless both numbers of the target's epoch still hold.
    CommitMerge {
        /// The target's epoch as its source expects it.
        epoch: Epoch,
        /// The source as of its `PrepareMerge`.
        source: metapb::Region,
        /// Of the `PrepareMerge`, the last entry of the source that counts.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// In the source's log: it serves again.
    RollbackMerge {
        /// Of the `PrepareMerge`.
        index: LogIndex,
    },
    /// In the target's log: changes its version and nothing else, so that no `CommitMerge` for its old epoch can take effect
    /// any more. Nothing happens unless both numbers of the epoch still hold.
    AbandonMerge {
        /// The target's epoch as its source expects it.
        epoch: Epoch,
        /// Who waits for the target.
        source: RegionId,
    },
    /// Every peer computes the hash of the region's data as of this entry …
    ComputeHash,
    /// … and compares it with the leader's.
    VerifyHash {
        /// Of the `ComputeHash`.
        index: LogIndex,
        /// The leader's.
        hash: u64,
    },
}

/// A generation of a region: both numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch {
    /// Counts changes of the membership.
    pub conf_ver: u64,
    /// Counts changes of the range.
    pub version: u64,
}

impl From<&RegionEpoch> for Epoch {
    fn from(epoch: &RegionEpoch) -> Epoch {
        Epoch { conf_ver: epoch.conf_ver, version: epoch.version }
    }
}

/// What became of a request. Decided by the replicated state alone, therefore the same on every peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// Applied, or the session is open. A repeated request gets the answer it got the first time.
    Applied,
    /// Applied; there was an append.
    Appended {
        /// The length of the (last) appended value afterwards, in bytes.
        value_bytes: u64,
    },
    /// Not applied: the client never opened a session here, or it was evicted. Whether an *earlier* try of the same request
    /// was applied is unknown.
    SessionExpired {
        /// Whose.
        client: ClientId,
    },
    /// Not applied: the client has moved on to a later request, and the reply to this one is no longer kept.
    StaleSequence {
        /// Where the session is.
        last: u64,
    },
    /// Not applied, and never will be.
    Refused {
        /// For people; short.
        reason: String,
    },
}

/// An entry of the log that this version does not understand. The store must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandDecodeError {
    /// Not our protobuf.
    #[error("command is malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// Something in it was written by a version that knows more.
    #[error(
        "command holds fields unknown to this version ({encoded} bytes, {understood} understood)"
    )]
    UnknownFields {
        /// Its length.
        encoded: usize,
        /// How much of it is known.
        understood: usize,
    },
    /// A part is of a kind this version does not know, or lacks what its kind needs.
    #[error("command has {0}")]
    Unknown(#[from] UnknownPart),
}

/// What is unknown or missing in a command or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownPart {
    /// A mutation without an operation that we know.
    #[error("a mutation of unknown kind")]
    Mutation,
    /// A column family that we do not know.
    #[error("an unknown column family, number {0}")]
    ColumnFamily(i32),
    /// A session is to be opened, and nobody is named or mutations come along.
    #[error("a malformed request to open a session")]
    OpenSession,
    /// Neither requests nor an administrative command that we know; or both.
    #[error("neither requests nor a known administrative command")]
    Kind,
    /// An administrative command lacks what its kind needs.
    #[error("an administrative command without a usable `{0}`")]
    Admin(&'static str),
    /// A result without a variant that we know.
    #[error("a result of unknown kind")]
    Result,
}

/// A request beyond a limit of [`proto::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {actual}; the limit is {max}")]
pub struct LimitExceeded {
    /// What is too large, with its unit.
    pub field: &'static str,
    /// How large it is.
    pub actual: usize,
    /// How large it may be.
    pub max: usize,
}

impl Command {
    /// The bytes of a log entry.
    pub fn encode(self) -> Bytes {
        Bytes::from(flotillapb::Command::from(self).encode_to_vec())
    }

    /// The command of a log entry. Keys and values share the entry's memory.
    pub fn decode(data: Bytes) -> Result<Command, CommandDecodeError> {
        let encoded = data.len();
        let command = flotillapb::Command::decode(data)?;
        // Commands are only ever written by `encode`, so what is understood re-encodes to the same length.
        let understood = command.encoded_len();
        if understood != encoded {
            return Err(CommandDecodeError::UnknownFields { encoded, understood });
        }
        Ok(Command::try_from(command)?)
    }
}

impl Mutation {
    /// The column family it changes.
    pub fn cf(&self) -> RawCf {
        match self {
            Mutation::Put { cf, .. }
            | Mutation::Delete { cf, .. }
            | Mutation::DeleteRange { cf, .. }
            | Mutation::Append { cf, .. } => *cf,
        }
    }

    /// Bytes of its keys and values.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Mutation::Put { key, value, .. } | Mutation::Append { key, value, .. } => {
                key.len() + value.len()
            }
            Mutation::Delete { key, .. } => key.len(),
            Mutation::DeleteRange { start, end, .. } => start.len() + end.len(),
        }
    }

    fn validate(&self) -> Result<(), LimitExceeded> {
        let (keys, value): ([&[u8]; 2], &[u8]) = match self {
            Mutation::Put { key, value, .. } | Mutation::Append { key, value, .. } => {
                ([key, &[]], value)
            }
            Mutation::Delete { key, .. } => ([key, &[]], &[]),
            Mutation::DeleteRange { start, end, .. } => ([start, end], &[]),
        };
        for key in keys {
            check("key size in bytes", key.len(), KEY_BYTES_MAX)?;
        }
        check("value size in bytes", value.len(), VALUE_BYTES_MAX)
    }
}

/// Checks the mutations of one request against the limits of the wire.
pub fn validate(mutations: &[Mutation]) -> Result<(), LimitExceeded> {
    check("number of mutations in a request", mutations.len(), BATCH_OPS_MAX)?;
    mutations.iter().try_for_each(Mutation::validate)?;
    let total = mutations.iter().map(Mutation::payload_bytes).sum();
    check("size of a request in bytes", total, WRITE_BYTES_MAX)
}

fn check(field: &'static str, actual: usize, max: usize) -> Result<(), LimitExceeded> {
    if actual > max { Err(LimitExceeded { field, actual, max }) } else { Ok(()) }
}

// ---- the mapping --------------------------------------------------------------------------------

impl From<Command> for flotillapb::Command {
    fn from(command: Command) -> flotillapb::Command {
        match command {
            Command::Write { epoch, requests } => flotillapb::Command {
                conf_ver: epoch.conf_ver,
                version: epoch.version,
                requests: requests.into_iter().map(Into::into).collect(),
                admin: None,
            },
            other => admin::to_wire(other),
        }
    }
}

impl TryFrom<flotillapb::Command> for Command {
    type Error = UnknownPart;

    fn try_from(command: flotillapb::Command) -> Result<Command, UnknownPart> {
        let flotillapb::Command { conf_ver, version, requests, admin } = command;
        let epoch = Epoch { conf_ver, version };
        match admin {
            None if !requests.is_empty() => Ok(Command::Write {
                epoch,
                requests: requests.into_iter().map(Request::try_from).collect::<Result<_, _>>()?,
            }),
            Some(flotillapb::Admin { cmd: Some(cmd) }) if requests.is_empty() => {
                admin::from_wire(epoch, cmd)
            }
            _ => Err(UnknownPart::Kind),
        }
    }
}

impl From<Request> for flotillapb::Request {
    fn from(request: Request) -> flotillapb::Request {
        match request {
            Request::Mutate { mutations, session } => flotillapb::Request {
                session: session.map(Into::into),
                mutations: mutations.into_iter().map(Into::into).collect(),
                open_session: false,
            },
            Request::OpenSession { client } => flotillapb::Request {
                session: Some(Session { client, sequence: 0 }.into()),
                mutations: Vec::new(),
                open_session: true,
            },
        }
    }
}

impl TryFrom<flotillapb::Request> for Request {
    type Error = UnknownPart;

    fn try_from(request: flotillapb::Request) -> Result<Request, UnknownPart> {
        let flotillapb::Request { session, mutations, open_session } = request;
        let session = session.map(Session::from);
        match session {
            Some(Session { client, sequence: 0 }) if open_session && mutations.is_empty() => {
                Ok(Request::OpenSession { client })
            }
            _ if open_session => Err(UnknownPart::OpenSession),
            _ => {
                let mutations =
                    mutations.into_iter().map(Mutation::try_from).collect::<Result<_, _>>()?;
                Ok(Request::Mutate { mutations, session })
            }
        }
    }
}

impl From<Session> for flotillapb::Session {
    fn from(session: Session) -> flotillapb::Session {
        flotillapb::Session { client_id: session.client.0, sequence: session.sequence }
    }
}

impl From<flotillapb::Session> for Session {
    fn from(session: flotillapb::Session) -> Session {
        Session { client: ClientId(session.client_id), sequence: session.sequence }
    }
}

impl From<Mutation> for flotillapb::Mutation {
    fn from(mutation: Mutation) -> flotillapb::Mutation {
        use flotillapb::mutation as pb;
        let number = |cf: RawCf| i32::from(cf.tag());
        let op = match mutation {
            Mutation::Put { cf, key, value } => pb::Op::Put(pb::Put { cf: number(cf), key, value }),
            Mutation::Delete { cf, key } => pb::Op::Delete(pb::Delete { cf: number(cf), key }),
            Mutation::DeleteRange { cf, start, end } => pb::Op::DeleteRange(pb::DeleteRange {
                cf: number(cf),
                start_key: start,
                end_key: end,
            }),
            Mutation::Append { cf, key, value } => {
                pb::Op::Append(pb::Append { cf: number(cf), key, value })
            }
        };
        flotillapb::Mutation { op: Some(op) }
    }
}

impl TryFrom<flotillapb::Mutation> for Mutation {
    type Error = UnknownPart;

    fn try_from(mutation: flotillapb::Mutation) -> Result<Mutation, UnknownPart> {
        use flotillapb::mutation::Op;
        Ok(match mutation.op.ok_or(UnknownPart::Mutation)? {
            Op::Put(put) => {
                Mutation::Put { cf: RawCf::try_from(put.cf)?, key: put.key, value: put.value }
            }
            Op::Delete(delete) => {
                Mutation::Delete { cf: RawCf::try_from(delete.cf)?, key: delete.key }
            }
            Op::DeleteRange(range) => Mutation::DeleteRange {
                cf: RawCf::try_from(range.cf)?,
                start: range.start_key,
                end: range.end_key,
            },
            Op::Append(append) => Mutation::Append {
                cf: RawCf::try_from(append.cf)?,
                key: append.key,
                value: append.value,
            },
        })
    }
}

impl TryFrom<i32> for RawCf {
    type Error = UnknownPart;

    fn try_from(number: i32) -> Result<RawCf, UnknownPart> {
        let known = u8::try_from(number).ok().and_then(RawCf::from_tag);
        known.ok_or(UnknownPart::ColumnFamily(number))
    }
}

impl From<WriteResult> for flotillapb::WriteResult {
    fn from(result: WriteResult) -> flotillapb::WriteResult {
        use flotillapb::write_result::{Ok, Result, SessionExpired, StaleSequence};
        let result = match result {
            WriteResult::Applied => Result::Ok(Ok {}),
            WriteResult::Appended { value_bytes } => Result::AppendLength(value_bytes),
            WriteResult::SessionExpired { client } => {
                Result::SessionExpired(SessionExpired { client_id: client.0 })
            }
            WriteResult::StaleSequence { last } => {
                Result::StaleSequence(StaleSequence { last_sequence: last })
            }
            WriteResult::Refused { reason } => Result::Error(reason),
        };
        flotillapb::WriteResult { result: Some(result) }
    }
}

impl TryFrom<flotillapb::WriteResult> for WriteResult {
    type Error = UnknownPart;

    fn try_from(result: flotillapb::WriteResult) -> Result<WriteResult, UnknownPart> {
        use flotillapb::write_result::Result as Wire;
        Ok(match result.result.ok_or(UnknownPart::Result)? {
            Wire::Ok(_) => WriteResult::Applied,
            Wire::AppendLength(value_bytes) => WriteResult::Appended { value_bytes },
            Wire::SessionExpired(expired) => {
                WriteResult::SessionExpired { client: ClientId(expired.client_id) }
            }
            Wire::StaleSequence(stale) => WriteResult::StaleSequence { last: stale.last_sequence },
            Wire::Error(reason) => WriteResult::Refused { reason },
        })
    }
}

//! What can be asked of one region, and what comes back: plain values, free of the wire.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use proto::errorpb;
use proto::ids::RegionId;
use proto::metapb::{Peer, RegionEpoch};

use super::cache::{RegionCache, Route};

/// A key with its value.
pub type Pair = (Bytes, Bytes);

/// One change of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Sets the value of a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key; it need not exist.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Adds bytes to the end of a value; a missing key counts as empty.
    Append {
        /// The key.
        key: Bytes,
        /// What is added.
        suffix: Bytes,
    },
    /// Removes every key of [start, end).
    DeleteRange {
        /// The first key to go.
        start: Bytes,
        /// The first key to stay; empty is +inf.
        end: Bytes,
    },
}

impl Mutation {
    /// The key that decides which region the mutation goes to first.
    pub fn key(&self) -> &Bytes {
        match self {
            Mutation::Put { key, .. } | Mutation::Delete { key } | Mutation::Append { key, .. } => {
                key
            }
            Mutation::DeleteRange { start, .. } => start,
        }
    }

    /// The bytes it adds to a batch.
    pub fn size_bytes(&self) -> usize {
        match self {
            Mutation::Put { key, value: other }
            | Mutation::Append { key, suffix: other }
            | Mutation::DeleteRange { start: key, end: other } => key.len() + other.len(),
            Mutation::Delete { key } => key.len(),
        }
    }

    fn fits(&self, route: &Route) -> bool {
        match self {
            Mutation::DeleteRange { start, end } => range_fits(route, start, end),
            _ => route.contains(self.key()),
        }
    }
}

/// One page of a scan, within one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The lowest key wanted.
    pub start: Bytes,
    /// The first key not wanted; empty is +inf.
    pub end: Bytes,
    /// At most so many pairs.
    pub limit: u32,
    /// From the highest key downwards.
    pub reverse: bool,
    /// Leave the values out.
    pub keys_only: bool,
}

/// A request to one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The value of a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// The values of keys; absent ones are left out of the answer.
    BatchGet {
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// One page of a scan.
    Scan(Page),
    /// Changes, applied together or not at all.
    Write(Vec<Mutation>),
}

/// Where a request looks for its region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// In the region that holds this key.
    At(Bytes),
    /// In the region that holds the keys just below this one; empty is +inf.
    Before(Bytes),
}

/// Regions that have to be learned: those that share a key with [from, to), at least the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its region is wanted in any case.
    pub from: Bytes,
    /// Empty is +inf.
    pub to: Bytes,
}

/// The smallest key above `key`.
pub fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

impl Anchor {
    /// The route for the anchor, if it is known.
    pub fn locate<'a>(&self, regions: &'a mut RegionCache) -> Option<&'a mut Route> {
        match self {
            Anchor::At(key) => regions.locate(key),
            Anchor::Before(end) => regions.locate_before(end),
        }
    }
}

impl Request {
    /// Where the request looks for its region.
    pub fn anchor(&self) -> Anchor {
        match self {
            Request::Get { key } => Anchor::At(key.clone()),
            Request::BatchGet { keys } => Anchor::At(first(keys).clone()),
            Request::Scan(page) if page.reverse => Anchor::Before(page.end.clone()),
            Request::Scan(page) => Anchor::At(page.start.clone()),
            Request::Write(mutations) => Anchor::At(first(mutations).key().clone()),
        }
    }

    /// Whether all of the request lies within the region.
    pub fn fits(&self, route: &Route) -> bool {
        match self {
            Request::Get { key } => route.contains(key),
            Request::BatchGet { keys } => keys.iter().all(|key| route.contains(key)),
            Request::Scan(page) => range_fits(route, &page.start, &page.end),
            Request::Write(mutations) => mutations.iter().all(|mutation| mutation.fits(route)),
        }
    }

    /// Whether the request appends to a value.
    pub fn appends(&self) -> bool {
        let Request::Write(mutations) = self else { return false };
        mutations.iter().any(|mutation| matches!(mutation, Mutation::Append { .. }))
    }

    /// Whether the request changes anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Request::Write(_))
    }
}

fn first<T>(list: &[T]) -> &T {
    list.first().expect("a batch is never empty: the public calls return early")
}

fn range_fits(route: &Route, start: &[u8], end: &[u8]) -> bool {
    let region_end = &route.region.end_key;
    let end_fits = region_end.is_empty() || (!end.is_empty() && end <= &region_end[..]);
    start >= &route.region.start_key[..] && end_fits
}

/// What a region answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Get`.
    Value(Option<Bytes>),
    /// To `BatchGet` and `Scan`.
    Pairs(Vec<Pair>),
    /// To `Write` of one `Append`: applied; the value is now so long.
    Appended {
        /// Bytes.
        length_bytes: u64,
    },
    /// To any other `Write`: applied.
    Written,
}

impl Body {
    /// Roughly the bytes it puts on the wire.
    pub fn size_bytes(&self) -> usize {
        const FRAME_BYTES: usize = 64;
        let Body::Request { request, .. } = self else { return FRAME_BYTES };
        let payload: usize = match &**request {
            Request::Get { key } => key.len(),
            Request::BatchGet { keys } => keys.iter().map(|key| key.len() + 4).sum(),
            Request::Scan(page) => page.start.len() + page.end.len(),
            Request::Write(mutations) => mutations.iter().map(|m| m.size_bytes() + 8).sum(),
        };
        FRAME_BYTES + payload
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Attempt {
    /// Answered.
    Ok(Reply),
    /// The region does not answer here and now.
    RegionError(Box<errorpb::Error>),
    /// The region does not know the session (any more).
    SessionExpired,
    /// The region has seen a later sequence of the session.
    StaleSequence,
    /// The store will not do it, and says why.
    Refused(String),
    /// No answer came.
    Lost {
        /// Whether the request may have reached the store.
        sent: bool,
        /// What happened.
        reason: String,
    },
}

/// What to send, and where to.
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    /// The region as the sender knows it.
    pub region: RegionId,
    /// Its epoch.
    pub epoch: RegionEpoch,
    /// The peer, and with it the store.
    pub peer: Peer,
    /// The payload.
    pub body: Body,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// The payload of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A request, exactly-once under a session if there is one.
    Request {
        /// What is asked.
        request: std::sync::Arc<Request>,
        /// Client id and sequence.
        session: Option<(u64, u64)>,
    },
    /// Make this client id known to the region.
    OpenSession {
        /// The id.
        client_id: u64,
    },
}

//! A request that names many keys, in parts of one region each and within the limits of one message.
//!
//! A [`Batch`] is a step machine: `next` says which part to run, the driver runs as many side by side as it likes and hands
//! each outcome to `on_part`. A part that the world has moved under is split again.
//!
//! A batch is atomic per part, not as a whole. The order of mutations of one key is kept within a part; two mutations of
//! one key end up in different parts only if a limit cuts between them, so callers that need an order across them send
//! two batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::RegionId;
use proto::limits::{BATCH_GET_KEYS_MAX, BATCH_OPS_MAX, WRITE_BYTES_MAX};

use super::cache::RegionCache;
use super::request::{Mutation, Reply, Request, Wanted, successor};
use crate::error::{Class, Error, Result};

/// What the driver does next for a batch.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Learn regions from the scheduler, then ask again.
    Missing(Wanted),
    /// Run this part, then `on_part`.
    Part(Arc<Request>),
    /// Nothing until a part that is under way has ended.
    Running,
    /// All parts have ended: `finish`.
    Finished,
}

/// How a part ended.
#[derive(Debug)]
pub enum End {
    /// Answered.
    Reply(Reply),
    /// It spans several regions by now, and nothing of it was applied.
    Regroup,
}

/// A batch under way.
#[derive(Debug)]
pub struct Batch {
    is_write: bool,
    whole: Vec<Arc<Request>>,
    parts: Vec<Arc<Request>>,
    running: usize,
    replies: Vec<Reply>,
    error: Option<Error>,
}

impl Batch {
    /// Nothing of it has been sent.
    pub fn new(request: Request) -> Batch {
        Batch {
            is_write: request.is_write(),
            whole: vec![Arc::new(request)],
            parts: Vec::new(),
            running: 0,
            replies: Vec::new(),
            error: None,
        }
    }

    /// What comes next. After an error no new part begins.
    pub fn next(&mut self, regions: &mut RegionCache) -> Next {
        while self.error.is_none() {
            if let Some(part) = self.parts.pop() {
                self.running += 1;
                return Next::Part(part);
            }
            let Some(whole) = self.whole.last() else { break };
            match split(whole, regions) {
                Ok(parts) => self.parts.extend(parts.into_iter().map(Arc::new)),
                Err(wanted) => return Next::Missing(wanted),
            }
            self.whole.pop();
        }
        if self.running > 0 { Next::Running } else { Next::Finished }
    }

    /// A part has ended.
    pub fn on_part(&mut self, part: Arc<Request>, end: Result<End>) {
        self.running = self.running.checked_sub(1).expect("the part was running");
        match end {
            Ok(End::Reply(reply)) => self.replies.push(reply),
            Ok(End::Regroup) => self.whole.push(part),
            Err(error) => match halves(&part, &error) {
                Some(halves) => self.parts.extend(halves.map(Arc::new)),
                None => self.fail(error),
            },
        }
    }

    /// Keeps the first error, but lets no definite one hide that something is in doubt.
    pub fn fail(&mut self, error: Error) {
        let worse = error.class() == Class::Undetermined;
        if self.error.is_none() || worse {
            self.error = Some(error);
        }
    }

    /// The replies of all parts, in no order.
    pub fn finish(self) -> Result<Vec<Reply>> {
        assert_eq!(self.running, 0, "a part is still under way");
        match self.error {
            None => Ok(self.replies),
            Some(error) if self.is_write && !self.replies.is_empty() => {
                let applied = self.replies.len();
                Err(Error::Undetermined(format!("{applied} parts were applied, then: {error}")))
            }
            Some(error) => Err(error),
        }
    }
}

/// A batched read whose answer would be too large, as two.
fn halves(part: &Request, error: &Error) -> Option<[Request; 2]> {
    match (part, error) {
        (Request::BatchGet { keys }, Error::Refused(_)) if keys.len() > 1 => {
            let (left, right) = keys.split_at(keys.len() / 2);
            Some([left, right].map(|keys| Request::BatchGet { keys: keys.to_vec() }))
        }
        _ => None,
    }
}

/// One request per region and limit, by what `regions` knows.
fn split(
    request: &Request,
    regions: &mut RegionCache,
) -> std::result::Result<Vec<Request>, Wanted> {
    match request {
        Request::Get { .. } | Request::Scan(_) => Ok(vec![request.clone()]),
        Request::BatchGet { keys } => split_keys(keys, regions),
        Request::Write(mutations) => split_mutations(mutations, regions),
    }
}

fn split_keys(
    keys: &[Bytes],
    regions: &mut RegionCache,
) -> std::result::Result<Vec<Request>, Wanted> {
    let mut missing = Missing::default();
    let mut parts: Vec<Vec<Bytes>> = Vec::new();
    let mut newest: BTreeMap<RegionId, usize> = BTreeMap::new();
    for key in keys {
        let Some(region) = regions.locate(key).map(|route| route.id()) else {
            missing.add(key, successor(key));
            continue;
        };
        match newest.get(&region) {
            Some(part) if parts[*part].len() < KEYS_MAX => parts[*part].push(key.clone()),
            _ => {
                newest.insert(region, parts.len());
                parts.push(vec![key.clone()]);
            }
        }
    }
    missing.none()?;
    Ok(parts.into_iter().map(|keys| Request::BatchGet { keys }).collect())
}

/// The span of what the cache does not know.
#[derive(Default)]
struct Missing(Option<Wanted>);

impl Missing {
    fn add(&mut self, from: &Bytes, to: Bytes) {
        let wanted = self.0.get_or_insert_with(|| Wanted { from: from.clone(), to: to.clone() });
        if *from < wanted.from {
            wanted.from = from.clone();
        }
        if to.is_empty() || (!wanted.to.is_empty() && to > wanted.to) {
            wanted.to = to;
        }
    }

    fn none(self) -> std::result::Result<(), Wanted> {
        self.0.map_or(Ok(()), Err)
    }
}

#[derive(Default)]
struct Parts {
    parts: Vec<Part>,
    newest: BTreeMap<RegionId, usize>,
}

struct Part {
    bytes: usize,
    mutations: Vec<Mutation>,
}

impl Parts {
    fn add(&mut self, region: RegionId, mutation: Mutation) {
        let size = mutation.size_bytes();
        // Only the newest part of a region may grow: an older one was full, and order matters.
        let open = self.newest.get(&region).map(|at| &mut self.parts[*at]);
        match open {
            Some(part)
                if part.mutations.len() < BATCH_OPS_MAX && part.bytes + size <= WRITE_BYTES_MAX =>
            {
                part.bytes += size;
                part.mutations.push(mutation);
            }
            _ => {
                self.newest.insert(region, self.parts.len());
                self.parts.push(Part { bytes: size, mutations: vec![mutation] });
            }
        }
    }

    /// A range goes to every region it touches, cut at the boundaries.
    fn add_range(&mut self, range: (&Bytes, &Bytes), regions: &mut RegionCache) -> Option<Wanted> {
        let (start, end) = range;
        let mut from = start.clone();
        loop {
            let Some(route) = regions.locate(&from) else {
                return Some(Wanted { from, to: end.clone() });
            };
            let region_end = route.region.end_key.clone();
            let last = region_end.is_empty() || (!end.is_empty() && *end <= region_end);
            let to = if last { end.clone() } else { region_end.clone() };
            let region = route.id();
            self.add(region, Mutation::DeleteRange { start: from, end: to });
            if last {
                return None;
            }
            from = region_end;
        }
    }
}

fn split_mutations(
    mutations: &[Mutation],
    regions: &mut RegionCache,
) -> std::result::Result<Vec<Request>, Wanted> {
    let (mut missing, mut parts) = (Missing::default(), Parts::default());
    for mutation in mutations {
        if let Mutation::DeleteRange { start, end } = mutation {
            if let Some(wanted) = parts.add_range((start, end), regions) {
                missing.add(&wanted.from, wanted.to);
            }
            continue;
        }
        let key = mutation.key();
        match regions.locate(key).map(|route| route.id()) {
            Some(region) => parts.add(region, mutation.clone()),
            None => missing.add(key, successor(key)),
        }
    }
    missing.none()?;
    Ok(parts.parts.into_iter().map(|part| Request::Write(part.mutations)).collect())
}

/// Keys of one batched read: fewer than the server takes, because the values of all of them come back in one message.
const KEYS_MAX: usize = 1_024;
const _: () = assert!(KEYS_MAX <= BATCH_GET_KEYS_MAX, "the server takes what we send");

#[cfg(test)]
mod tests {
    use proto::metapb::{Peer, Region, RegionEpoch};

    use super::*;

    fn regions() -> RegionCache {
        let mut cache = RegionCache::default();
        for (id, start, end) in [(1, "", "g"), (2, "g", "p"), (3, "p", "")] {
            let region = Region {
                id,
                start_key: Bytes::from(start),
                end_key: Bytes::from(end),
                region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
                peers: vec![Peer { id: 1, store_id: 1, ..Peer::default() }],
            };
            cache.insert(region, None);
        }
        cache
    }

    fn put(key: &str, bytes: usize) -> Mutation {
        Mutation::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: vec![0; bytes].into() }
    }

    fn parts(request: &Request) -> Vec<Request> {
        split(request, &mut regions()).expect("all regions are known")
    }

    #[test]
    fn keys_go_to_their_regions() {
        let keys: Vec<Bytes> = ["a", "q", "h", "b"].into_iter().map(Bytes::from).collect();
        let parts = parts(&Request::BatchGet { keys });
        let keys = |list: &[&'static str]| Request::BatchGet {
            keys: list.iter().map(|key| Bytes::from(*key)).collect(),
        };
        assert_eq!(parts, [keys(&["a", "b"]), keys(&["q"]), keys(&["h"])]);
    }

    #[test]
    fn a_range_is_cut_at_the_boundaries() {
        let range = |start: &'static str, end: &'static str| Mutation::DeleteRange {
            start: Bytes::from(start),
            end: Bytes::from(end),
        };
        let write = |start, end| Request::Write(vec![range(start, end)]);
        assert_eq!(parts(&write("b", "h")), [write("b", "g"), write("g", "h")]);
        assert_eq!(parts(&write("h", "p")), [write("h", "p")]);
        assert_eq!(parts(&write("h", "")), [write("h", "p"), write("p", "")]);
    }

    #[test]
    fn limits_cut_and_order_is_kept() {
        let big = WRITE_BYTES_MAX / 2;
        let mutations = vec![put("a", big), put("b", big), put("c", 1)];
        let parts = parts(&Request::Write(mutations.clone()));
        assert!(parts.len() > 1);
        let flat: Vec<Mutation> = parts
            .into_iter()
            .flat_map(|part| match part {
                Request::Write(mutations) => mutations,
                other => panic!("{other:?} is no write"),
            })
            .collect();
        assert_eq!(flat, mutations);
    }

    #[test]
    fn what_is_not_known_is_asked_for_as_one_span() {
        let mut cache = RegionCache::default();
        let keys = ["k", "b", "x"].map(Bytes::from);
        let request = Request::BatchGet { keys: keys.to_vec() };
        let wanted =
            |from: &'static str, to: &'static str| Wanted { from: from.into(), to: to.into() };
        assert_eq!(split(&request, &mut cache), Err(wanted("b", "x\0")));
        let end = Bytes::new();
        let range = Mutation::DeleteRange { start: "q".into(), end };
        let request = Request::Write(vec![put("z", 1), put("c", 1), range]);
        assert_eq!(split(&request, &mut cache), Err(wanted("c", "")));
        let known = regions();
        for route in known.iter().filter(|route| route.id() != RegionId::from(2)) {
            cache.insert(route.region.clone(), None);
        }
        let range = Mutation::DeleteRange { start: "a".into(), end: "r".into() };
        let missing = split(&Request::Write(vec![range]), &mut cache);
        assert_eq!(missing, Err(wanted("g", "r")), "from the first hole on");
    }

    #[test]
    fn a_part_the_world_has_moved_under_is_split_again() {
        let mut cache = RegionCache::default();
        let region = |id, start: &'static str, end: &'static str, version| Region {
            id,
            start_key: Bytes::from(start),
            end_key: Bytes::from(end),
            region_epoch: Some(RegionEpoch { conf_ver: 1, version }),
            peers: vec![Peer { id: 1, store_id: 1, ..Peer::default() }],
        };
        cache.insert(region(1, "", "", 1), None);
        let mut batch = Batch::new(Request::Write(vec![put("a", 1), put("x", 1)]));
        let Next::Part(both) = batch.next(&mut cache) else { panic!("one region, one part") };
        assert_eq!(batch.next(&mut cache), Next::Running);
        cache.insert(region(2, "m", "", 2), None);
        cache.insert(region(1, "", "m", 2), None);
        batch.on_part(both, Ok(End::Regroup));
        let mut seen = Vec::new();
        while let Next::Part(part) = batch.next(&mut cache) {
            batch.on_part(Arc::clone(&part), Ok(End::Reply(Reply::Written)));
            seen.push(part);
        }
        assert_eq!(seen.len(), 2);
        assert_eq!(batch.next(&mut cache), Next::Finished);
        assert_eq!(batch.finish().map(|replies| replies.len()), Ok(2));
    }

    #[test]
    fn an_error_after_a_success_is_a_doubt() {
        let mut cache = regions();
        let mut batch = Batch::new(Request::Write(vec![put("a", 1), put("x", 1)]));
        let Next::Part(first) = batch.next(&mut cache) else { panic!("two parts") };
        let Next::Part(second) = batch.next(&mut cache) else { panic!("two parts") };
        batch.on_part(first, Ok(End::Reply(Reply::Written)));
        batch.on_part(second, Err(Error::Refused("no".to_owned())));
        assert_eq!(batch.next(&mut cache), Next::Finished);
        assert!(matches!(batch.finish(), Err(Error::Undetermined(_))));
    }
}

//! Splits a request that names many keys into requests of one region each, within the limits of one message.
//!
//! A batch is atomic per part, not as a whole. The order of mutations of one key is kept within a part; two mutations of
//! one key end up in different parts only if a limit cuts between them, so callers that need an order across them send
//! two batches.

use bytes::Bytes;
use proto::ids::RegionId;
use proto::limits::{BATCH_GET_KEYS_MAX, BATCH_OPS_MAX, WRITE_BYTES_MAX};

use super::cache::RegionCache;
use super::request::{Anchor, Mutation, Request};

/// The parts of a request, or what has to be known first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split {
    /// One request per region and limit.
    Parts(Vec<Request>),
    /// The region of this key is not known.
    Missing(Anchor),
}

/// Splits `request` by what `regions` knows.
pub fn split(request: &Request, regions: &mut RegionCache) -> Split {
    let parts = match request {
        Request::Get { .. } | Request::Scan(_) => Ok(vec![request.clone()]),
        Request::BatchGet { keys } => split_keys(keys, regions),
        Request::Write(mutations) => split_mutations(mutations, regions),
    };
    match parts {
        Ok(parts) => Split::Parts(parts),
        Err(anchor) => Split::Missing(anchor),
    }
}

fn split_keys(keys: &[Bytes], regions: &mut RegionCache) -> Result<Vec<Request>, Anchor> {
    let mut parts: Vec<(RegionId, Vec<Bytes>)> = Vec::new();
    for key in keys {
        let region = region_of(key, regions)?;
        match parts.iter_mut().rev().find(|(id, part)| *id == region && part.len() < KEYS_MAX) {
            Some((_, part)) => part.push(key.clone()),
            None => parts.push((region, vec![key.clone()])),
        }
    }
    Ok(parts.into_iter().map(|(_, keys)| Request::BatchGet { keys }).collect())
}

struct Part {
    region: RegionId,
    bytes: usize,
    mutations: Vec<Mutation>,
}

fn split_mutations(
    mutations: &[Mutation],
    regions: &mut RegionCache,
) -> Result<Vec<Request>, Anchor> {
    let mut parts: Vec<Part> = Vec::new();
    for mutation in mutations {
        if let Mutation::DeleteRange { start, end } = mutation {
            split_range(start, end, regions, &mut parts)?;
            continue;
        }
        let region = region_of(mutation.key(), regions)?;
        add(&mut parts, region, mutation.clone());
    }
    Ok(parts.into_iter().map(|part| Request::Write(part.mutations)).collect())
}

/// A range goes to every region it touches, cut at the boundaries.
fn split_range(
    start: &Bytes,
    end: &Bytes,
    regions: &mut RegionCache,
    parts: &mut Vec<Part>,
) -> Result<(), Anchor> {
    let mut from = start.clone();
    loop {
        let Some(route) = regions.locate(&from) else { return Err(Anchor::At(from)) };
        let region_end = route.region.end_key.clone();
        let last = region_end.is_empty() || (!end.is_empty() && *end <= region_end);
        let to = if last { end.clone() } else { region_end.clone() };
        let region = route.id();
        add(parts, region, Mutation::DeleteRange { start: from, end: to });
        if last {
            return Ok(());
        }
        from = region_end;
    }
}

fn add(parts: &mut Vec<Part>, region: RegionId, mutation: Mutation) {
    let size = mutation.size_bytes();
    // Only the newest part of a region may grow: an older one was full, and order matters.
    let open = parts.iter_mut().rev().find(|part| part.region == region);
    match open {
        Some(part)
            if part.mutations.len() < BATCH_OPS_MAX && part.bytes + size <= WRITE_BYTES_MAX =>
        {
            part.bytes += size;
            part.mutations.push(mutation);
        }
        _ => parts.push(Part { region, bytes: size, mutations: vec![mutation] }),
    }
}

fn region_of(key: &Bytes, regions: &mut RegionCache) -> Result<RegionId, Anchor> {
    regions.locate(key).map(|route| route.id()).ok_or_else(|| Anchor::At(key.clone()))
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

    #[test]
    fn keys_go_to_their_regions() {
        let keys: Vec<Bytes> = ["a", "q", "h", "b"].into_iter().map(Bytes::from).collect();
        let Split::Parts(parts) = split(&Request::BatchGet { keys }, &mut regions()) else {
            panic!("all regions are known");
        };
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
        let parts = |start, end| split(&Request::Write(vec![range(start, end)]), &mut regions());
        let write = |start, end| Request::Write(vec![range(start, end)]);
        assert_eq!(parts("b", "h"), Split::Parts(vec![write("b", "g"), write("g", "h")]));
        assert_eq!(parts("h", "p"), Split::Parts(vec![write("h", "p")]));
        assert_eq!(parts("h", ""), Split::Parts(vec![write("h", "p"), write("p", "")]));
    }

    #[test]
    fn limits_cut_and_order_is_kept() {
        let big = WRITE_BYTES_MAX / 2;
        let mutations = vec![put("a", big), put("b", big), put("c", 1)];
        let Split::Parts(parts) = split(&Request::Write(mutations.clone()), &mut regions()) else {
            panic!("all regions are known");
        };
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
    fn an_unknown_region_is_asked_for() {
        let key = Bytes::from("k");
        let request = Request::BatchGet { keys: vec![key.clone()] };
        let missing = split(&request, &mut RegionCache::default());
        assert_eq!(missing, Split::Missing(Anchor::At(key)));
    }
}

//! A world of regions that split, merge, move and change leaders between any two messages, and a scheduler that hears of it
//! late. Answers get lost, requests arrive late, stores tell old news. What is applied is applied by the rules of the real
//! stores: epoch, range, session.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::core::backoff::Jitter;
use client::core::{Anchor, Attempt, Body, Mutation, Pair, Reply, Request, Send, Wanted};
use proto::errorpb;
use proto::metapb::{Peer, Region, RegionEpoch};

/// Stores of the world.
const STORES: u64 = 5;

/// What may go wrong, each in so many of a thousand messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    /// Regions change shape.
    pub(crate) reshape: u64,
    /// An answer or a request gets lost, or arrives late.
    pub(crate) loss: u64,
    /// A store says that it is busy, has no leader, is merging.
    pub(crate) refusal: u64,
    /// Lanes that a region remembers: the one used longest ago goes first.
    pub(crate) remembered: usize,
}

#[derive(Clone, Debug)]
struct Held {
    region: Region,
    leader: u64,
    sessions: BTreeMap<u64, Session>,
}

/// What a region knows of a lane.
#[derive(Clone, Debug)]
struct Session {
    sequence: u64,
    reply: Reply,
    used: u64,
}

/// The world, and what the scheduler believes about it.
#[derive(Debug)]
pub(crate) struct World {
    /// Everything applied, over all regions.
    pub(crate) data: BTreeMap<Bytes, Bytes>,
    pub(crate) dice: Jitter,
    /// How often each kind of change has happened: splits, merges, moves.
    pub(crate) changes: [u32; 3],
    regions: Vec<Held>,
    believed: Vec<(Region, Peer)>,
    history: Vec<Region>,
    late: Vec<Send>,
    trouble: Trouble,
    next_id: u64,
    boundaries: Vec<Bytes>,
}

impl World {
    /// One region, to be cut at any of `boundaries`.
    pub(crate) fn new(seed: u64, trouble: Trouble, boundaries: Vec<Bytes>) -> World {
        let peers =
            (1..=3).map(|store| Peer { id: store + 10, store_id: store, ..Peer::default() });
        let region = Region {
            id: 2,
            region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
            peers: peers.collect(),
            ..Region::default()
        };
        let first = Held { region, leader: 11, sessions: BTreeMap::new() };
        let mut world = World {
            data: BTreeMap::new(),
            dice: Jitter::new(seed),
            changes: [0; 3],
            regions: vec![first],
            believed: Vec::new(),
            history: Vec::new(),
            late: Vec::new(),
            trouble,
            next_id: 100,
            boundaries,
        };
        world.report();
        world
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.dice.next_u64() % n.max(1)
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The scheduler hears how things are: all at once, so that it never shows a hole.
    fn report(&mut self) {
        let leader = |held: &Held| *peer(&held.region, held.leader).expect("a leader is a peer");
        self.believed =
            self.regions.iter().map(|held| (held.region.clone(), leader(held))).collect();
    }

    /// The scheduler's answer about one key.
    pub(crate) fn ask(&mut self, anchor: &Anchor) -> Option<(Region, Option<Peer>)> {
        self.rumour();
        let holds = |region: &Region| match anchor {
            Anchor::At(key) => contains(region, key),
            Anchor::Before(end) => {
                let reaches =
                    region.end_key.is_empty() || (!end.is_empty() && *end <= region.end_key);
                (end.is_empty() || region.start_key < *end) && reaches
            }
        };
        let (region, leader) = self.believed.iter().find(|(region, _)| holds(region))?.clone();
        let leader = (!self.chance(200)).then_some(leader);
        Some((region, leader))
    }

    /// The scheduler's answer about many.
    pub(crate) fn scan_regions(
        &mut self,
        wanted: &Wanted,
        limit: usize,
    ) -> Vec<(Region, Option<Peer>)> {
        self.rumour();
        let all = self.believed.iter().filter(|(region, _)| {
            (region.end_key.is_empty() || region.end_key > wanted.from)
                && (wanted.to.is_empty() || region.start_key < wanted.to)
        });
        all.take(limit).map(|(region, leader)| (region.clone(), Some(*leader))).collect()
    }

    fn rumour(&mut self) {
        if self.chance(500) {
            self.report();
        }
    }

    /// Anything that may happen between two messages.
    pub(crate) fn turn(&mut self) {
        if self.chance(self.trouble.reshape) {
            match self.below(8) {
                0..=2 => self.split(),
                3 | 4 => self.merge(),
                5 => self.move_peer(),
                _ => self.transfer(),
            }
        }
        if !self.late.is_empty() && self.chance(300) {
            let at = self.below(self.late.len() as u64) as usize;
            let send = self.late.swap_remove(at);
            self.execute(&send);
        }
    }

    fn remember(&mut self, at: usize) {
        self.history.push(self.regions[at].region.clone());
    }

    fn split(&mut self) {
        let at = self.below(self.regions.len() as u64) as usize;
        let cut = self.below(self.boundaries.len() as u64) as usize;
        let cut = self.boundaries[cut].clone();
        if cut == self.regions[at].region.start_key || !contains(&self.regions[at].region, &cut) {
            return;
        }
        self.remember(at);
        let region_id = self.id();
        let peer_ids: Vec<u64> = (0..3).map(|_| self.id()).collect();
        let held = &mut self.regions[at];
        held.region.region_epoch.as_mut().expect("always there").version += 1;
        let mut part = held.clone();
        held.region.end_key = cut.clone();
        part.region.start_key = cut;
        part.region.id = region_id;
        for (peer, id) in part.region.peers.iter_mut().zip(peer_ids) {
            peer.id = id;
        }
        part.leader = part.region.peers[0].id;
        self.regions.insert(at + 1, part);
        self.changes[0] += 1;
    }

    fn merge(&mut self) {
        if self.regions.len() < 2 {
            return;
        }
        let left = self.below(self.regions.len() as u64 - 1) as usize;
        let target_is_left = self.chance(500);
        let (target, source) = if target_is_left { (left, left + 1) } else { (left + 1, left) };
        self.remember(target);
        self.remember(source);
        let gone = self.regions[source].clone();
        let held = &mut self.regions[target];
        let version = |region: &Region| region.region_epoch.expect("always there").version;
        // The source's own freezing counts too.
        let newer = version(&held.region).max(version(&gone.region) + 1) + 1;
        held.region.region_epoch.as_mut().expect("always there").version = newer;
        if target_is_left {
            held.region.end_key = gone.region.end_key;
        } else {
            held.region.start_key = gone.region.start_key;
        }
        for (client, session) in gone.sessions {
            let known = held.sessions.entry(client).or_insert(session.clone());
            if session.sequence > known.sequence {
                *known = session;
            }
        }
        let merged = held.region.id;
        self.regions.remove(source);
        let at = self.regions.iter().position(|held| held.region.id == merged);
        self.forget(at.expect("it has just grown"));
        self.changes[1] += 1;
    }

    fn move_peer(&mut self) {
        let at = self.below(self.regions.len() as u64) as usize;
        self.remember(at);
        let (store, id) = (self.below(STORES) + 1, self.id());
        let held = &mut self.regions[at];
        if held.region.peers.iter().any(|peer| peer.store_id == store) {
            return;
        }
        let leader = held.leader;
        let old = held.region.peers.iter_mut().find(|peer| peer.id != leader).expect("three");
        *old = Peer { id, store_id: store, ..Peer::default() };
        held.region.region_epoch.as_mut().expect("always there").conf_ver += 2;
        self.changes[2] += 1;
    }

    fn transfer(&mut self) {
        let at = self.below(self.regions.len() as u64) as usize;
        let to = self.below(3) as usize;
        self.regions[at].leader = self.regions[at].region.peers[to].id;
    }

    /// What becomes of a message.
    pub(crate) fn deliver(&mut self, send: &Send) -> Attempt {
        self.turn();
        let lost = |sent| Attempt::Lost { sent, reason: "connection reset".to_owned() };
        if self.chance(self.trouble.loss) {
            return match self.below(5) {
                0 => lost(false),
                1 => lost(true),
                2 => {
                    self.execute(send);
                    lost(true)
                }
                3 => {
                    self.late.push(send.clone());
                    lost(true)
                }
                _ => {
                    self.late.push(send.clone());
                    let stale_command = Some(errorpb::StaleCommand::default());
                    region_error(errorpb::Error { stale_command, ..Default::default() })
                }
            };
        }
        if self.chance(self.trouble.refusal) {
            let mut error = errorpb::Error::default();
            match self.below(3) {
                0 => error.server_is_busy = Some(errorpb::ServerIsBusy::default()),
                1 => error.not_leader = Some(errorpb::NotLeader::default()),
                _ => {
                    error.proposal_in_merging_mode = Some(errorpb::ProposalInMergingMode::default())
                }
            }
            return region_error(error);
        }
        self.execute(send)
    }

    /// What a store does with a message that has reached it.
    fn execute(&mut self, send: &Send) -> Attempt {
        let at = self.regions.iter().position(|held| held.region.id == send.region.get());
        let on_store =
            |region: &Region| region.peers.iter().any(|p| p.store_id == send.peer.store_id);
        let Some(at) = at.filter(|at| on_store(&self.regions[*at].region)) else {
            let region_not_found = Some(errorpb::RegionNotFound { region_id: send.region.get() });
            return region_error(errorpb::Error { region_not_found, ..Default::default() });
        };
        let held = &self.regions[at];
        if held.leader != send.peer.id {
            let leader = peer(&held.region, held.leader).copied();
            let not_leader = errorpb::NotLeader { region_id: send.region.get(), leader };
            let not_leader = Some(not_leader);
            return region_error(errorpb::Error { not_leader, ..Default::default() });
        }
        if held.region.region_epoch != Some(send.epoch) {
            return self.epoch_not_match(at);
        }
        if !self.in_range(at, &send.body) {
            let key_not_in_region = Some(errorpb::KeyNotInRegion::default());
            return region_error(errorpb::Error { key_not_in_region, ..Default::default() });
        }
        match &send.body {
            Body::OpenSession { client_id } => {
                let sequence =
                    self.regions[at].sessions.get(client_id).map_or(0, |known| known.sequence);
                self.remember_lane(at, *client_id, (sequence, Reply::Written));
                Attempt::Ok(Reply::Written)
            }
            Body::Request { request, session } => self.request(at, request, *session),
        }
    }

    /// The truth about the neighbourhood, about the region alone, or old news.
    fn epoch_not_match(&mut self, at: usize) -> Attempt {
        let around = at.saturating_sub(1)..(at + 2).min(self.regions.len());
        let neighbours = self.regions[around].iter().map(|held| held.region.clone()).collect();
        let current_regions = match self.below(10) {
            0..=4 => neighbours,
            5 | 6 => vec![self.regions[at].region.clone()],
            7 => Vec::new(),
            _ if self.history.is_empty() => Vec::new(),
            _ => {
                let old = self.below(self.history.len() as u64) as usize;
                vec![self.history[old].clone()]
            }
        };
        let epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
        region_error(errorpb::Error { epoch_not_match, ..Default::default() })
    }

    fn in_range(&self, at: usize, body: &Body) -> bool {
        let region = &self.regions[at].region;
        let Body::Request { request, .. } = body else { return true };
        let range_fits = |start: &Bytes, end: &Bytes| {
            let end_fits = region.end_key.is_empty() || (!end.is_empty() && *end <= region.end_key);
            *start >= region.start_key && end_fits
        };
        match &**request {
            Request::Get { key } => contains(region, key),
            Request::BatchGet { keys } => keys.iter().all(|key| contains(region, key)),
            Request::Scan(page) => range_fits(&page.start, &page.end),
            Request::Write(mutations) => mutations.iter().all(|mutation| match mutation {
                Mutation::DeleteRange { start, end } => range_fits(start, end),
                other => contains(region, other.key()),
            }),
        }
    }

    fn request(&mut self, at: usize, request: &Request, session: Option<(u64, u64)>) -> Attempt {
        let Request::Write(mutations) = request else {
            return Attempt::Ok(self.read(request));
        };
        let Some((client, sequence)) = session else {
            return Attempt::Ok(write(&mut self.data, mutations));
        };
        let Some(known) = self.regions[at].sessions.get(&client).cloned() else {
            return Attempt::SessionExpired;
        };
        if sequence < known.sequence {
            return Attempt::StaleSequence;
        }
        if sequence == known.sequence {
            return Attempt::Ok(known.reply);
        }
        let reply = write(&mut self.data, mutations);
        self.remember_lane(at, client, (sequence, reply.clone()));
        Attempt::Ok(reply)
    }

    fn remember_lane(&mut self, at: usize, client: u64, (sequence, reply): (u64, Reply)) {
        let used = self.id();
        let opened = self.regions[at].sessions.get(&client).is_some_and(|s| s.sequence == sequence);
        let session = self.regions[at].sessions.entry(client).or_insert(Session {
            sequence,
            reply: reply.clone(),
            used,
        });
        if !opened {
            (session.sequence, session.reply) = (sequence, reply);
        }
        session.used = used;
        self.forget(at);
    }

    fn forget(&mut self, at: usize) {
        let sessions = &mut self.regions[at].sessions;
        while sessions.len() > self.trouble.remembered {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.used);
            let oldest = *oldest.expect("it is not empty").0;
            sessions.remove(&oldest);
        }
    }

    fn read(&self, request: &Request) -> Reply {
        match request {
            Request::Get { key } => Reply::Value(self.data.get(key).cloned()),
            Request::BatchGet { keys } => {
                let found =
                    keys.iter().filter_map(|key| Some((key.clone(), self.data.get(key)?.clone())));
                Reply::Pairs(found.collect())
            }
            Request::Scan(page) => {
                let limit = (page.limit as usize).min(3);
                Reply::Pairs(range(&self.data, &page.start, &page.end, page.reverse, limit))
            }
            Request::Write(_) => unreachable!("a write is no read"),
        }
    }
}

/// The pairs of [start, end), in the order of a scan.
pub(crate) fn range(
    data: &BTreeMap<Bytes, Bytes>,
    start: &Bytes,
    end: &Bytes,
    reverse: bool,
    limit: usize,
) -> Vec<Pair> {
    let inside = |key: &Bytes| *key >= *start && (end.is_empty() || *key < *end);
    let pairs = data.iter().filter(|(key, _)| inside(key));
    let mut pairs: Vec<Pair> = pairs.map(|(key, value)| (key.clone(), value.clone())).collect();
    if reverse {
        pairs.reverse();
    }
    pairs.truncate(limit);
    pairs
}

/// Applies mutations in order.
pub(crate) fn write(data: &mut BTreeMap<Bytes, Bytes>, mutations: &[Mutation]) -> Reply {
    let mut reply = Reply::Written;
    for mutation in mutations {
        match mutation {
            Mutation::Put { key, value } => {
                data.insert(key.clone(), value.clone());
            }
            Mutation::Delete { key } => {
                data.remove(key);
            }
            Mutation::Append { key, suffix } => {
                let old = data.get(key).cloned().unwrap_or_default();
                let value = Bytes::from([&old[..], &suffix[..]].concat());
                reply = Reply::Appended { length_bytes: value.len() as u64 };
                data.insert(key.clone(), value);
            }
            Mutation::DeleteRange { start, end } => {
                data.retain(|key, _| key < start || (!end.is_empty() && key >= end));
            }
        }
    }
    reply
}

fn region_error(error: errorpb::Error) -> Attempt {
    Attempt::RegionError(Box::new(error))
}

fn contains(region: &Region, key: &[u8]) -> bool {
    key >= &region.start_key[..] && (region.end_key.is_empty() || key < &region.end_key[..])
}

fn peer(region: &Region, id: u64) -> Option<&Peer> {
    region.peers.iter().find(|peer| peer.id == id)
}

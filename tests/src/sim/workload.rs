//! What the clients of a run do: one call after another, each with a pause before it.
//!
//! Plain puts and deletes are asked once; what becomes of an unanswered one stays unknown. Appends and some puts name a
//! session and are asked until answered: exactly-once is theirs to prove.

use super::call::Call;
use super::knobs::Knobs;
use super::layout::Layout;
use super::record::{KeyKind, append_value, put_value};
use super::rng::{Rng, Stream};
use super::time::Nanos;
use bytes::Bytes;
use raftstore::command::{ClientId, Session};

/// Session ids begin here, to differ from every other id.
const SESSION_IDS: u64 = 7000;

#[derive(Debug, Default)]
struct Client {
    sequence: u64,
}

/// The clients.
#[derive(Debug)]
pub struct Workload {
    clients: Vec<Client>,
    layout: Layout,
    think: Nanos,
    reads_per_mille: u64,
    token: u64,
    rng: Rng,
}

impl Workload {
    /// Clients that have done nothing yet.
    pub fn new(seed: u64, knobs: &Knobs, layout: Layout) -> Workload {
        let Knobs { think, reads_per_mille, .. } = *knobs;
        let clients = (0..knobs.clients).map(|_| Client::default()).collect();
        // A stream of the clients' own, apart from the one that delays their messages.
        let rng = Rng::new(seed.rotate_left(32), Stream::Clients);
        Workload { clients, layout, think, reads_per_mille, token: 0, rng }
    }

    /// Number of clients.
    pub fn clients(&self) -> u64 {
        self.clients.len() as u64
    }

    /// How long a client waits before its next call.
    pub fn pause(&mut self) -> Nanos {
        self.rng.around(self.think)
    }

    /// The next call of a client.
    pub fn next(&mut self, client: u64) -> Call {
        let group = self.rng.below(self.layout.groups as u64) as usize;
        if self.rng.chance(self.reads_per_mille) {
            return Call::Get { key: self.rng.pick(&self.layout.keys).clone() };
        }
        match self.rng.below(100) {
            0..22 => {
                let key = self.rng.pick(&self.layout.keys).clone();
                Call::Get { key }
            }
            22..32 => self.scan(),
            32..50 => self.put(group, KeyKind::Plain, None),
            50..55 => self.put_many(group),
            55..65 => {
                let session = self.next_session(client);
                self.put(group, KeyKind::Plain, Some(session))
            }
            65..78 => self.put(group, KeyKind::Deletable, None),
            78..84 => Call::Delete { key: self.key(group, KeyKind::Deletable) },
            84..86 => {
                // The deletable keys of a group are neighbours, though perhaps of several regions.
                let keys = self.layout.keys_of(group, KeyKind::Deletable);
                let start = self.rng.pick(&keys).clone();
                let end =
                    keys.last().map_or(Bytes::new(), |last| [last, &b"~"[..]].concat().into());
                Call::DeleteRange { start, end }
            }
            _ => {
                let session = self.next_session(client);
                let key = self.key(group, KeyKind::Appended);
                Call::Append { key, value: append_value(self.next_token()), session }
            }
        }
    }

    /// Reads of every key, for the end of a run.
    pub fn final_reads(&self) -> Vec<Call> {
        self.layout.keys.iter().map(|key| Call::Get { key: key.clone() }).collect()
    }

    fn scan(&mut self) -> Call {
        if self.rng.chance(500) {
            return Call::Scan { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"z") };
        }
        let mut ends =
            [self.rng.pick(&self.layout.keys).clone(), self.rng.pick(&self.layout.keys).clone()];
        ends.sort();
        let [start, mut end] = ends;
        if start == end {
            end = Bytes::from_static(b"z");
        }
        Call::Scan { start, end }
    }

    fn put(&mut self, group: usize, kind: KeyKind, session: Option<Session>) -> Call {
        let key = self.key(group, kind);
        let padding = if self.rng.chance(50) { 2000 } else { self.rng.below(20) };
        Call::Put { key, value: put_value(self.next_token(), padding as usize), session }
    }

    fn put_many(&mut self, group: usize) -> Call {
        let keys = [KeyKind::Plain, KeyKind::Deletable].map(|kind| self.key(group, kind));
        let pairs = keys.map(|key| (key, put_value(self.next_token(), 0)));
        Call::PutMany { pairs: pairs.to_vec() }
    }

    fn key(&mut self, group: usize, kind: KeyKind) -> Bytes {
        let keys = self.layout.keys_of(group, kind);
        self.rng.pick(&keys).clone()
    }

    fn next_token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    fn next_session(&mut self, client: u64) -> Session {
        let state = &mut self.clients[client as usize];
        state.sequence += 1;
        Session { client: ClientId(SESSION_IDS + client), sequence: state.sequence }
    }
}

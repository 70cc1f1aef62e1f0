//! Which of the schedulers to talk to: the one that leads.
//!
//! Everybody's calls go to one endpoint. When one fails there, the next call first asks around who leads (`GetMembers`,
//! which every member answers) and goes there; members that were not configured are learnt on the way. While nobody knows a
//! leader, the endpoints take turns: one that follows may forward.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{GetMembersRequest, GetMembersResponse};
use tonic::transport::{Channel, Endpoint};

use super::SchedulerError;

/// A member that takes longer to say who leads is left out.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that takes longer to make has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is probed after this time …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// … and given up after this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Endpoints remembered at most: a cluster has a few.
const KNOWN_MAX: usize = 32;

/// See the module header.
pub(super) struct Endpoints {
    state: Mutex<State>,
    /// One at a time asks around.
    asking: tokio::sync::Mutex<()>,
    /// Grows with every failure that was reported and every endpoint that was chosen.
    moves: AtomicU64,
}

struct State {
    /// host:port; configured ones first, then those learnt.
    known: Vec<String>,
    channels: BTreeMap<String, Channel>,
    current: usize,
    /// The current one has failed since it was chosen.
    doubted: bool,
}

/// An endpoint that was handed out.
#[derive(Clone)]
pub(crate) struct Chosen {
    /// host:port.
    pub(crate) address: String,
    /// The connection to it.
    pub(crate) channel: Channel,
    generation: u64,
}

impl Endpoints {
    /// Prepares connections; must be called within a runtime. Nobody is asked yet.
    pub(super) fn new(addresses: &[String]) -> Result<Endpoints, SchedulerError> {
        if addresses.is_empty() {
            return Err(SchedulerError::Endpoint("at least one is needed".to_owned()));
        }
        let mut state =
            State { known: Vec::new(), channels: BTreeMap::new(), current: 0, doubted: false };
        for address in addresses {
            let added = state.add(address);
            added.map_err(|e| SchedulerError::Endpoint(format!("{address:?}: {e}")))?;
        }
        // With a choice, the first thing to find out is who leads.
        state.doubted = state.known.len() > 1;
        let (state, asking) = (Mutex::new(state), tokio::sync::Mutex::default());
        Ok(Endpoints { state, asking, moves: AtomicU64::new(0) })
    }

    /// The endpoint to use: the leader, as far as anybody knows.
    pub(super) async fn choose(&self) -> Chosen {
        if self.state.lock().doubted {
            self.ask_around().await;
        }
        self.current()
    }

    /// The chosen endpoint has failed, or does not lead.
    pub(super) fn doubt(&self, chosen: &Chosen) {
        // Whoever is late with the news of an endpoint that was left already changes nothing.
        if self.moves.load(Ordering::Relaxed) == chosen.generation {
            self.state.lock().doubted = true;
        }
    }

    fn current(&self) -> Chosen {
        let state = self.state.lock();
        let address = state.known[state.current].clone();
        let channel = state.channels[&address].clone();
        Chosen { address, channel, generation: self.moves.load(Ordering::Relaxed) }
    }

    async fn ask_around(&self) {
        let _one = self.asking.lock().await;
        let (candidates, current) = {
            let state = self.state.lock();
            if !state.doubted {
                // Somebody else has just done it.
                return;
            }
            let channel = |address: &String| (address.clone(), state.channels[address].clone());
            (state.known.iter().map(channel).collect::<Vec<_>>(), state.current)
        };
        // From the one behind the doubted one on, so that a member that is wrong about the leader is not asked for ever.
        let count = candidates.len();
        for turn in 1..=count {
            let (address, channel) = &candidates[(current + turn) % count];
            if let Some(members) = members(channel.clone()).await {
                return self.adopt(address, &members);
            }
        }
        let mut state = self.state.lock();
        state.current = (current + 1) % count;
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Goes to the leader that `address` names, or to `address` itself.
    fn adopt(&self, address: &str, members: &GetMembersResponse) {
        let mut state = self.state.lock();
        let urls = members.members.iter().flat_map(|member| &member.client_urls);
        for url in urls {
            // One that is no address cannot be the leader's either.
            let _ = state.add(url);
        }
        let leader = members.leader.iter().flat_map(|leader| &leader.client_urls);
        let named = leader.map(|url| host_port(url));
        let at = |wanted: &str| state.known.iter().position(|known| known == wanted);
        let found = named.filter_map(|named| at(&named)).next().or_else(|| at(address));
        state.current = found.unwrap_or(state.current);
        state.doubted = false;
        self.moves.fetch_add(1, Ordering::Relaxed);
    }
}

impl State {
    fn add(&mut self, address: &str) -> Result<(), String> {
        let bare = host_port(address);
        if self.channels.contains_key(&bare) || self.known.len() >= KNOWN_MAX {
            return Ok(());
        }
        let endpoint = Endpoint::from_shared(format!("http://{bare}"))
            .map_err(|error| error.to_string())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        self.channels.insert(bare.clone(), endpoint.connect_lazy());
        self.known.push(bare);
        Ok(())
    }
}

async fn members(channel: Channel) -> Option<GetMembersResponse> {
    let mut client = PdClient::new(channel);
    let question = client.get_members(GetMembersRequest::default());
    let answer = tokio::time::timeout(ASK_TIMEOUT, question).await.ok()?.ok()?.into_inner();
    let refused = answer.header.as_ref().is_some_and(|header| header.error.is_some());
    (!refused).then_some(answer)
}

/// `http://host:port/` as host:port.
fn host_port(url: &str) -> String {
    let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
    bare.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use proto::pdpb::Member;

    use super::*;

    fn endpoints(addresses: &[&str]) -> Endpoints {
        let addresses: Vec<String> = addresses.iter().map(|a| (*a).to_owned()).collect();
        Endpoints::new(&addresses).map_err(|e| e.to_string()).expect("they are addresses")
    }

    fn member(url: &str) -> Member {
        Member { client_urls: vec![url.to_owned()], ..Member::default() }
    }

    #[tokio::test]
    async fn the_leader_is_followed_also_where_nobody_was_configured() {
        let endpoints = endpoints(&["127.0.0.1:1", "127.0.0.1:2"]);
        let leader = member("http://127.0.0.1:3/");
        let members = vec![member("http://127.0.0.1:1"), leader.clone()];
        let members =
            GetMembersResponse { members, leader: Some(leader), ..GetMembersResponse::default() };
        endpoints.adopt("127.0.0.1:2", &members);
        assert_eq!(endpoints.choose().await.address, "127.0.0.1:3");
    }

    #[tokio::test]
    async fn endpoints_take_turns_while_nobody_answers() {
        let endpoints = endpoints(&["127.0.0.1:1", "127.0.0.1:2", "http://127.0.0.1:1"]);
        let mut used = std::collections::BTreeSet::new();
        for _ in 0..2 {
            let chosen = endpoints.choose().await;
            endpoints.doubt(&chosen);
            used.insert(chosen.address);
        }
        assert_eq!(used.len(), 2);
    }

    #[tokio::test]
    async fn late_news_of_an_endpoint_left_behind_change_nothing() {
        let endpoints = endpoints(&["127.0.0.1:1"]);
        let old = endpoints.choose().await;
        endpoints.adopt("127.0.0.1:1", &GetMembersResponse::default());
        endpoints.doubt(&old);
        assert!(!endpoints.state.lock().doubted);
        endpoints.doubt(&endpoints.choose().await);
        assert!(endpoints.state.lock().doubted);
    }

    #[test]
    fn nothing_is_no_endpoint() {
        assert!(Endpoints::new(&[]).is_err());
    }
}

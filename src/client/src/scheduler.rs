//! The scheduler's endpoints: asked in turn until one answers, starting with the one that answered last.
//!
//! A member that does not lead either passes the question on or says so; then the next one is asked. When none has answered,
//! the members are asked once more who they are and who leads: they may have come back elsewhere, or have elected somebody in
//! the meantime. Whoever asks tries again within its own budget.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::join_all;
use parking_lot::Mutex;
use proto::ids::{RegionId, StoreId};
use proto::limits::KEY_BYTES_MAX;
use proto::metapb::{Peer, Region, Store};
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{
    AllocIdRequest, GetAllStoresRequest, GetMembersRequest, GetMembersResponse,
    GetRegionByIdRequest, GetRegionRequest, GetStoreRequest, Member, RequestHeader, ResponseHeader,
    ScanRegionsRequest, ScanRegionsResponse, TsoRequest, TsoResponse,
};
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::core::{Anchor, Wanted};
use crate::error::{Error, Result};
use crate::link::{ANSWER_BYTES_MAX, connect, describe};

/// One question to one endpoint.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Regions asked for at once when all of them are wanted.
const PAGE_REGIONS: u32 = 1_024;

/// A region as the scheduler knows it.
pub(crate) type Located = Option<(Region, Option<Peer>)>;

/// Where requests for timestamps go, and where they come back.
pub(crate) type TimestampStream = (mpsc::UnboundedSender<TsoRequest>, Streaming<TsoResponse>);

/// The scheduler, through any of its members.
#[derive(Debug)]
pub(crate) struct Scheduler {
    cluster_id: u64,
    state: Mutex<Endpoints>,
}

#[derive(Debug)]
struct Endpoints {
    /// host:port, the one to ask first at the front.
    order: Vec<String>,
    channels: BTreeMap<String, Channel>,
}

impl Endpoints {
    /// Puts addresses to the front, in their order.
    fn add(&mut self, mut addresses: Vec<String>) {
        addresses.append(&mut self.order);
        for address in addresses {
            if !self.order.contains(&address) {
                self.order.push(address);
            }
        }
    }
}

/// Why there is no answer, as far as the next step depends on it.
enum Failure {
    /// This endpoint does not answer; another may.
    Away(String),
    /// The scheduler answered with an error.
    Answered(String),
}

impl Scheduler {
    /// Finds a scheduler behind `endpoints` and learns who else is one.
    pub(crate) async fn connect(endpoints: &[String]) -> Result<Scheduler> {
        let mut failures = Vec::new();
        for endpoint in endpoints {
            match members_of(endpoint).await {
                Ok((members, channel)) => {
                    return Scheduler::adopt(endpoint, endpoints, &members, channel);
                }
                Err(reason) => failures.push(reason),
            }
        }
        if failures.is_empty() {
            failures.push("no endpoint given".to_owned());
        }
        Err(Error::Unreachable(failures.join("; ")))
    }

    fn adopt(
        endpoint: &str,
        endpoints: &[String],
        members: &GetMembersResponse,
        channel: Channel,
    ) -> Result<Scheduler> {
        let header = members.header.as_ref();
        let header =
            header.ok_or_else(|| Error::Malformed("GetMembers without a header".to_owned()))?;
        if let Some(error) = &header.error {
            return Err(Error::Refused(error.message.clone()));
        }
        let mut order = vec![endpoint.to_owned()];
        order.extend(addresses(members));
        order.extend(endpoints.iter().cloned());
        let channels = BTreeMap::from([(endpoint.to_owned(), channel)]);
        let mut state = Endpoints { order: Vec::new(), channels };
        state.add(order);
        Ok(Scheduler { cluster_id: header.cluster_id, state: Mutex::new(state) })
    }

    /// The cluster's id.
    pub(crate) fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// What every question begins with.
    pub(crate) fn header(&self) -> Option<RequestHeader> {
        Some(RequestHeader { cluster_id: self.cluster_id, sender_id: 0 })
    }

    /// The region an anchor points to, and its leader.
    pub(crate) async fn region(&self, anchor: &Anchor) -> std::result::Result<Located, String> {
        match anchor {
            Anchor::At(key) => self.region_at(key.clone(), false).await,
            Anchor::Before(end) if end.is_empty() => {
                // No key can be above this one.
                self.region_at(Bytes::from(vec![0xff; KEY_BYTES_MAX]), false).await
            }
            Anchor::Before(end) => match self.region_at(end.clone(), false).await? {
                Some((region, _)) if region.start_key == *end => {
                    self.region_at(end.clone(), true).await
                }
                other => Ok(other),
            },
        }
    }

    async fn region_at(&self, key: Bytes, previous: bool) -> std::result::Result<Located, String> {
        let request =
            GetRegionRequest { header: self.header(), region_key: key, need_buckets: false };
        let question = |mut client: PdClient<Channel>| {
            let request = request.clone();
            async move {
                match previous {
                    false => headed(client.get_region(request).await),
                    true => headed(client.get_prev_region(request).await),
                }
            }
        };
        let answer = self.ask(question).await?;
        Ok(answer.region.map(|region| (region, answer.leader)))
    }

    /// A region by its id.
    pub(crate) async fn region_by_id(&self, id: RegionId) -> std::result::Result<Located, String> {
        let request = GetRegionByIdRequest {
            header: self.header(),
            region_id: id.get(),
            need_buckets: false,
        };
        let question = |mut client: PdClient<Channel>| async move {
            headed(client.get_region_by_id(request).await)
        };
        let answer = self.ask(question).await?;
        Ok(answer.region.map(|region| (region, answer.leader)))
    }

    /// An id nobody else has or will have.
    pub(crate) async fn alloc_id(&self) -> std::result::Result<u64, String> {
        let request = AllocIdRequest { header: self.header() };
        let question =
            |mut client: PdClient<Channel>| async move { headed(client.alloc_id(request).await) };
        let answer = self.ask(question).await?;
        match answer.id {
            0 => Err("the scheduler gave out id 0".to_owned()),
            id => Ok(id),
        }
    }

    /// A stream of timestamps.
    pub(crate) async fn timestamps(&self) -> std::result::Result<TimestampStream, String> {
        let question = |mut client: PdClient<Channel>| async move {
            let (requests, sent) = mpsc::unbounded();
            let answers = client.tso(sent).await;
            let answers = answers.map_err(|status| Failure::Away(describe(&status)))?;
            Ok((requests, answers.into_inner()))
        };
        self.ask(question).await
    }

    /// What is known about a store.
    pub(crate) async fn store(&self, id: StoreId) -> std::result::Result<Option<Store>, String> {
        let request = GetStoreRequest { header: self.header(), store_id: id.get() };
        let question =
            |mut client: PdClient<Channel>| async move { headed(client.get_store(request).await) };
        let answer = self.ask(question).await?;
        Ok(answer.store)
    }

    /// Every store that has not been removed.
    pub(crate) async fn stores(&self) -> std::result::Result<Vec<Store>, String> {
        let request = GetAllStoresRequest { header: self.header(), exclude_tombstone_stores: true };
        let question = |mut client: PdClient<Channel>| async move {
            headed(client.get_all_stores(request).await)
        };
        let answer = self.ask(question).await?;
        Ok(answer.stores)
    }

    /// Regions with their leaders, in key order: at most `limit` of those wanted, from the first one on.
    pub(crate) async fn regions(
        &self,
        wanted: &Wanted,
        limit: u32,
    ) -> std::result::Result<Vec<(Region, Option<Peer>)>, String> {
        let request = ScanRegionsRequest {
            header: self.header(),
            start_key: wanted.from.clone(),
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
            end_key: wanted.to.clone(),
        };
        let question = |client: PdClient<Channel>| {
            let request = request.clone();
            let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
            async move { headed(client.scan_regions(request).await) }
        };
        Ok(scanned(self.ask(question).await?))
    }

    /// Every region with its leader, in key order.
    pub(crate) async fn all_regions(
        &self,
    ) -> std::result::Result<Vec<(Region, Option<Peer>)>, String> {
        let mut all: Vec<(Region, Option<Peer>)> = Vec::new();
        let mut wanted = Wanted { from: Bytes::new(), to: Bytes::new() };
        loop {
            let page = self.regions(&wanted, PAGE_REGIONS).await?;
            let end = page.last().map_or_else(Bytes::new, |(region, _)| region.end_key.clone());
            all.extend(page);
            // An end that does not move on would be asked for for ever.
            if end.is_empty() || end <= wanted.from {
                return Ok(all);
            }
            wanted.from = end;
        }
    }

    /// The members, and which of them leads.
    pub(crate) async fn members(
        &self,
    ) -> std::result::Result<(Vec<Member>, Option<Member>), String> {
        let request = GetMembersRequest { header: self.header() };
        let question = |mut client: PdClient<Channel>| async move {
            headed(client.get_members(request).await)
        };
        let answer = self.ask(question).await?;
        Ok((answer.members, answer.leader))
    }

    /// Asks one endpoint after the other, and once more after a look at who leads. The one that answers moves to the front.
    async fn ask<R, F>(
        &self,
        question: impl Fn(PdClient<Channel>) -> F,
    ) -> std::result::Result<R, String>
    where
        F: Future<Output = std::result::Result<R, Failure>>,
    {
        let first = match self.ask_each(&question).await {
            Ok(answer) => return answer,
            Err(failures) => failures,
        };
        if !self.look_around().await {
            return Err(format!("scheduler: {first}"));
        }
        match self.ask_each(&question).await {
            Ok(answer) => answer,
            Err(failures) => Err(format!("scheduler: {failures}")),
        }
    }

    /// The first answer, be it an error, or else why nobody answers.
    async fn ask_each<R, F>(
        &self,
        question: &impl Fn(PdClient<Channel>) -> F,
    ) -> std::result::Result<std::result::Result<R, String>, String>
    where
        F: Future<Output = std::result::Result<R, Failure>>,
    {
        let order = self.state.lock().order.clone();
        let mut failures = Vec::new();
        for (turn, endpoint) in order.iter().enumerate() {
            let answer = match self.channel(endpoint).await {
                Ok(channel) => self.answer(endpoint, question(PdClient::new(channel))).await,
                Err(reason) => Err(Failure::Away(reason)),
            };
            let answer = match answer {
                Ok(answer) => Ok(answer),
                Err(Failure::Answered(reason)) => Err(reason),
                Err(Failure::Away(reason)) => {
                    failures.push(reason);
                    continue;
                }
            };
            if turn > 0 {
                self.prefer(endpoint);
            }
            return Ok(answer);
        }
        Err(failures.join("; "))
    }

    /// Asks the members who they are; whether one of them knows a leader. The leader is asked first from now on.
    pub(crate) async fn look_around(&self) -> bool {
        let order = self.state.lock().order.clone();
        let answers = join_all(order.iter().map(|endpoint| members_of(endpoint))).await;
        for (members, _) in answers.into_iter().flatten() {
            let ours = members.header.as_ref().is_some_and(|h| h.cluster_id == self.cluster_id);
            if ours && members.leader.is_some() {
                self.state.lock().add(addresses(&members));
                return true;
            }
        }
        false
    }

    async fn channel(&self, endpoint: &str) -> std::result::Result<Channel, String> {
        let known = self.state.lock().channels.get(endpoint).cloned();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let channel = connect(endpoint).await?;
        self.state.lock().channels.insert(endpoint.to_owned(), channel.clone());
        Ok(channel)
    }

    async fn answer<R>(
        &self,
        endpoint: &str,
        question: impl Future<Output = std::result::Result<R, Failure>>,
    ) -> std::result::Result<R, Failure> {
        let reason = match tokio::time::timeout(ASK_TIMEOUT, question).await {
            Ok(Err(Failure::Away(reason))) => reason,
            Ok(answered) => return answered,
            Err(_) => format!("no answer within {ASK_TIMEOUT:?}"),
        };
        self.state.lock().channels.remove(endpoint);
        Err(Failure::Away(format!("{endpoint}: {reason}")))
    }

    fn prefer(&self, endpoint: &str) {
        let mut state = self.state.lock();
        if let Some(at) = state.order.iter().position(|other| other == endpoint) {
            let endpoint = state.order.remove(at);
            state.order.insert(0, endpoint);
        }
    }
}

async fn members_of(endpoint: &str) -> std::result::Result<(GetMembersResponse, Channel), String> {
    let channel = connect(endpoint).await?;
    let mut client = PdClient::new(channel.clone());
    let question = client.get_members(GetMembersRequest::default());
    match tokio::time::timeout(ASK_TIMEOUT, question).await {
        Ok(Ok(answer)) => Ok((answer.into_inner(), channel)),
        Ok(Err(status)) => Err(format!("{endpoint}: {}", describe(&status))),
        Err(_) => Err(format!("{endpoint}: no answer within {ASK_TIMEOUT:?}")),
    }
}

/// An answer with a header, which may say that it is none.
trait Headed {
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! headed {
    ($($response:path),+ $(,)?) => {
        $(impl Headed for $response {
            fn header(&self) -> Option<&ResponseHeader> {
                self.header.as_ref()
            }
        })+
    };
}

headed!(
    proto::pdpb::AllocIdResponse,
    proto::pdpb::GetAllStoresResponse,
    GetMembersResponse,
    proto::pdpb::GetRegionResponse,
    proto::pdpb::GetStoreResponse,
    ScanRegionsResponse,
);

fn headed<R: Headed>(
    answer: std::result::Result<Response<R>, Status>,
) -> std::result::Result<R, Failure> {
    let answer = answer.map_err(|status| match status.code() {
        Code::InvalidArgument | Code::Unimplemented | Code::NotFound => {
            Failure::Answered(describe(&status))
        }
        _ => Failure::Away(describe(&status)),
    })?;
    let answer = answer.into_inner();
    let Some(error) = answer.header().and_then(|header| header.error.as_ref()) else {
        return Ok(answer);
    };
    Err(match &error.message[..] {
        "" => Failure::Answered(format!("{:?}", error.r#type())),
        message if message.contains(NOT_LEADER) => Failure::Away(message.to_owned()),
        message => Failure::Answered(message.to_owned()),
    })
}

/// How a member that does not lead says so, where it answers at all.
const NOT_LEADER: &str = "not the leader";

/// The newer field, or else the two older ones.
fn scanned(answer: ScanRegionsResponse) -> Vec<(Region, Option<Peer>)> {
    let ScanRegionsResponse { header: _, region_metas, leaders, regions } = answer;
    if regions.is_empty() {
        let known = leaders.into_iter().map(|leader| (leader.id != 0).then_some(leader));
        return region_metas.into_iter().zip(known.chain(std::iter::repeat(None))).collect();
    }
    regions.into_iter().filter_map(|r| r.region.map(|region| (region, r.leader))).collect()
}

/// Where the members listen, the leader first.
fn addresses(members: &GetMembersResponse) -> Vec<String> {
    let leader_first = members.leader.iter().chain(&members.members);
    leader_first.flat_map(|member| &member.client_urls).map(|url| host_port(url)).collect()
}

/// `http://host:port/` as host:port.
fn host_port(url: &str) -> String {
    let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
    bare.trim_end_matches('/').to_owned()
}

#[cfg(test)]
#[path = "scheduler/tests.rs"]
mod tests;

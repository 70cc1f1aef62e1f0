//! The scheduler's endpoints: asked in turn until one answers, starting with the one that answered last.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::ids::StoreId;
use proto::limits::KEY_BYTES_MAX;
use proto::metapb::{Peer, Region, Store};
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{
    AllocIdRequest, GetAllStoresRequest, GetMembersRequest, GetMembersResponse, GetRegionRequest,
    GetStoreRequest, Member, RequestHeader, ResponseHeader, ScanRegionsRequest,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::core::Anchor;
use crate::error::{Error, Result};
use crate::link::{connect, describe};

/// One question to one endpoint.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// A region as the scheduler knows it.
pub(crate) type Located = Option<(Region, Option<Peer>)>;

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
        let leader_first = members.leader.iter().chain(&members.members);
        let announced =
            leader_first.flat_map(|member| &member.client_urls).map(|url| host_port(url));
        for other in announced.chain(endpoints.iter().cloned()) {
            if !order.contains(&other) {
                order.push(other);
            }
        }
        let channels = BTreeMap::from([(endpoint.to_owned(), channel)]);
        let state = Mutex::new(Endpoints { order, channels });
        Ok(Scheduler { cluster_id: header.cluster_id, state })
    }

    /// The cluster's id.
    pub(crate) fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    fn header(&self) -> Option<RequestHeader> {
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
                    false => client.get_region(request).await,
                    true => client.get_prev_region(request).await,
                }
            }
        };
        let answer = self.ask(question).await?;
        check(answer.header)?;
        Ok(answer.region.map(|region| (region, answer.leader)))
    }

    /// An id nobody else has or will have.
    pub(crate) async fn alloc_id(&self) -> std::result::Result<u64, String> {
        let request = AllocIdRequest { header: self.header() };
        let question =
            |mut client: PdClient<Channel>| async move { client.alloc_id(request).await };
        let answer = self.ask(question).await?;
        check(answer.header)?;
        match answer.id {
            0 => Err("the scheduler gave out id 0".to_owned()),
            id => Ok(id),
        }
    }

    /// What is known about a store.
    pub(crate) async fn store(&self, id: StoreId) -> std::result::Result<Option<Store>, String> {
        let request = GetStoreRequest { header: self.header(), store_id: id.get() };
        let question =
            |mut client: PdClient<Channel>| async move { client.get_store(request).await };
        let answer = self.ask(question).await?;
        check(answer.header)?;
        Ok(answer.store)
    }

    /// Every store that has not been removed.
    pub(crate) async fn stores(&self) -> std::result::Result<Vec<Store>, String> {
        let request = GetAllStoresRequest { header: self.header(), exclude_tombstone_stores: true };
        let question =
            |mut client: PdClient<Channel>| async move { client.get_all_stores(request).await };
        let answer = self.ask(question).await?;
        check(answer.header)?;
        Ok(answer.stores)
    }

    /// Every region with its leader, in key order.
    pub(crate) async fn regions(&self) -> std::result::Result<Vec<(Region, Option<Peer>)>, String> {
        let request = ScanRegionsRequest { header: self.header(), ..Default::default() };
        let question = |mut client: PdClient<Channel>| {
            let request = request.clone();
            async move { client.scan_regions(request).await }
        };
        let answer = self.ask(question).await?;
        check(answer.header)?;
        let regions = answer.regions.into_iter();
        Ok(regions.filter_map(|r| r.region.map(|region| (region, r.leader))).collect())
    }

    /// The members, and which of them leads.
    pub(crate) async fn members(
        &self,
    ) -> std::result::Result<(Vec<Member>, Option<Member>), String> {
        let request = GetMembersRequest { header: self.header() };
        let question =
            |mut client: PdClient<Channel>| async move { client.get_members(request).await };
        let answer = self.ask(question).await?;
        check(answer.header)?;
        Ok((answer.members, answer.leader))
    }

    /// Asks one endpoint after the other. The one that answers moves to the front.
    async fn ask<R, F>(
        &self,
        question: impl Fn(PdClient<Channel>) -> F,
    ) -> std::result::Result<R, String>
    where
        F: Future<Output = std::result::Result<Response<R>, Status>>,
    {
        let order = self.state.lock().order.clone();
        let mut failures = Vec::new();
        for (turn, endpoint) in order.iter().enumerate() {
            let answer = match self.channel(endpoint).await {
                Ok(channel) => self.answer(endpoint, question(PdClient::new(channel))).await,
                Err(reason) => Err(Failure::Away(reason)),
            };
            match answer {
                Ok(answer) => {
                    if turn > 0 {
                        self.prefer(endpoint);
                    }
                    return Ok(answer);
                }
                Err(Failure::Answered(reason)) => return Err(reason),
                Err(Failure::Away(reason)) => failures.push(reason),
            }
        }
        Err(format!("scheduler: {}", failures.join("; ")))
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
        question: impl Future<Output = std::result::Result<Response<R>, Status>>,
    ) -> std::result::Result<R, Failure> {
        let away = |reason| {
            self.state.lock().channels.remove(endpoint);
            Failure::Away(format!("{endpoint}: {reason}"))
        };
        match tokio::time::timeout(ASK_TIMEOUT, question).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => match status.code() {
                tonic::Code::InvalidArgument | tonic::Code::Unimplemented => {
                    Err(Failure::Answered(describe(&status)))
                }
                _ => Err(away(describe(&status))),
            },
            Err(_) => Err(away(format!("no answer within {ASK_TIMEOUT:?}"))),
        }
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

fn check(header: Option<ResponseHeader>) -> std::result::Result<(), String> {
    match header.and_then(|header| header.error) {
        Some(error) if error.message.is_empty() => Err(format!("{:?}", error.r#type())),
        Some(error) => Err(error.message),
        None => Ok(()),
    }
}

/// `http://host:port/` as host:port.
fn host_port(url: &str) -> String {
    let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
    bare.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_addresses_name_the_same_endpoint() {
        assert_eq!(host_port("http://127.0.0.1:2379/"), "127.0.0.1:2379");
        assert_eq!(host_port("127.0.0.1:2379"), "127.0.0.1:2379");
    }
}

//! Load on our own cluster, straight at the region's leader: unary calls, and the batched stream.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use proto::flotillapb::add_operator_request::Wish;
use proto::flotillapb::operations_client::OperationsClient;
use proto::kvrpcpb::{self, KvPair};
use proto::pdpb::{self, pd_client::PdClient};
use proto::tikvpb::batch_commands_request::{Request, request::Cmd};
use proto::tikvpb::batch_commands_response::{Response, response::Cmd as Answer};
use proto::tikvpb::tikv_client::TikvClient;
use proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use proto::{errorpb, flotillapb, metapb};
use tonic::transport::Channel;

use super::data::{Dice, SCAN_ROWS, VALUE_BYTES, key};
use super::load::{Driver, Failure, Op};
use super::many::Route;
use super::mux::{Incoming, Mux, Outgoing};
use super::{BenchError, CONNECTIONS, connect};

impl Outgoing for BatchCommandsRequest {
    type Item = Request;

    fn pack(requests: Vec<Request>, request_ids: Vec<u64>) -> Self {
        Self { requests, request_ids }
    }
}

impl Incoming for BatchCommandsResponse {
    type Item = Response;

    fn unpack(self) -> (Vec<Response>, Vec<u64>) {
        (self.responses, self.request_ids)
    }
}

pub(super) type CommandMux = Mux<BatchCommandsRequest, BatchCommandsResponse>;

/// Which calls are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// One gRPC call per request, over several connections.
    Unary,
    /// All requests on one `BatchCommands` stream.
    Stream,
}

/// What is known about the cluster.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// Of the scheduler, `host:port`.
    scheduler: String,
    cluster_id: u64,
}

/// Where the region of our keys is led.
struct Link {
    context: kvrpcpb::Context,
    clients: Vec<TikvClient<Channel>>,
    stream: Option<CommandMux>,
}

/// Drives the load.
pub(super) struct Ours {
    cluster: Cluster,
    protocol: Protocol,
    route: RefCell<Rc<Link>>,
    /// One client at a time looks for a new leader.
    rerouting: Cell<bool>,
    answered: Cell<u64>,
}

impl Cluster {
    /// Asks the scheduler at `host:port` which cluster it serves.
    pub(super) async fn join(scheduler: &str) -> Result<Self, BenchError> {
        let mut pd = PdClient::new(connect(scheduler).await?);
        let members = pd.get_members(pdpb::GetMembersRequest::default()).await?.into_inner();
        let cluster_id = members.header.map_or(0, |header| header.cluster_id);
        Ok(Self { scheduler: scheduler.to_owned(), cluster_id })
    }

    /// The header of every request to the scheduler.
    pub(super) fn header(&self) -> Option<pdpb::RequestHeader> {
        Some(pdpb::RequestHeader { cluster_id: self.cluster_id, ..Default::default() })
    }

    /// Addresses of all stores by id.
    pub(super) async fn stores(&self) -> Result<BTreeMap<u64, String>, BenchError> {
        let mut pd = PdClient::new(connect(&self.scheduler).await?);
        let request =
            pdpb::GetAllStoresRequest { header: self.header(), exclude_tombstone_stores: true };
        let stores = pd.get_all_stores(request).await?.into_inner().stores;
        Ok(stores.into_iter().map(|store| (store.id, store.address)).collect())
    }

    /// The scheduler's service for operators.
    pub(super) async fn operations(&self) -> Result<OperationsClient<Channel>, BenchError> {
        Ok(OperationsClient::new(connect(&self.scheduler).await?))
    }

    /// The request for an operator.
    pub(super) fn order(&self, wish: Wish) -> flotillapb::AddOperatorRequest {
        flotillapb::AddOperatorRequest { header: self.header(), wish: Some(wish) }
    }

    /// All regions in key order, with their leaders.
    pub(super) async fn routes(&self) -> Result<Vec<Route>, BenchError> {
        const PAGE: i32 = 1024;
        let mut pd = PdClient::new(connect(&self.scheduler).await?);
        let mut routes: Vec<Route> = Vec::new();
        loop {
            let start_key = routes.last().map_or(Bytes::new(), |r| r.region.end_key.clone());
            if !routes.is_empty() && start_key.is_empty() {
                return Ok(routes);
            }
            let (header, limit) = (self.header(), PAGE);
            let request =
                pdpb::ScanRegionsRequest { header, start_key, limit, end_key: Bytes::new() };
            let page = pd.scan_regions(request).await?.into_inner().regions;
            if page.is_empty() {
                return Err(BenchError::NotReady("some keys have no region".to_owned()));
            }
            routes.extend(page.into_iter().map(|found| Route {
                region: found.region.unwrap_or_default(),
                leader: found.leader.unwrap_or_default(),
            }));
        }
    }

    /// The region of the benchmark's keys, and its leader.
    async fn locate(&self) -> Result<(metapb::Region, metapb::Peer), BenchError> {
        let mut pd = PdClient::new(connect(&self.scheduler).await?);
        let request = pdpb::GetRegionRequest {
            header: self.header(),
            region_key: key(0),
            need_buckets: false,
        };
        let found = pd.get_region(request).await?.into_inner();
        match (found.region, found.leader) {
            (Some(region), Some(leader)) if leader.store_id != 0 => Ok((region, leader)),
            _ => Err(BenchError::NotReady("the region of the keys has no leader".to_owned())),
        }
    }

    /// The context of a request to the leader, and the leader's address.
    pub(super) async fn leader(&self) -> Result<(kvrpcpb::Context, String), BenchError> {
        let (region, leader) = self.locate().await?;
        let mut stores = self.stores().await?;
        let address = stores
            .remove(&leader.store_id)
            .ok_or_else(|| BenchError::NotReady("the leader's store is unknown".to_owned()))?;
        let context = kvrpcpb::Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: Some(leader),
            ..Default::default()
        };
        Ok((context, address))
    }

    /// Per store, a counter of its status.
    pub(super) async fn counters(&self, name: &str) -> Result<Vec<u64>, BenchError> {
        let mut counts = Vec::new();
        for address in self.stores().await?.into_values() {
            let channel = connect(&address).await?;
            let mut client = flotillapb::diagnostics_client::DiagnosticsClient::new(channel);
            let status = client.store_status(flotillapb::StoreStatusRequest {}).await?.into_inner();
            let counter = status.counters.into_iter().find(|counter| counter.name == name);
            let counter = counter.ok_or_else(|| {
                BenchError::NotReady(format!("store {address} has no counter {name}"))
            })?;
            counts.push(counter.value);
        }
        Ok(counts)
    }

    /// Puts one key: whether the cluster takes writes.
    pub(super) async fn probe(&self) -> Result<(), BenchError> {
        let (context, address) = self.leader().await?;
        let mut client = TikvClient::new(connect(&address).await?);
        let dice = Dice::new(0, 1_000);
        match try_put(&mut client, &context, &dice, Duration::from_secs(1)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(BenchError::NotReady("a put was not taken".to_owned())),
        }
    }

    /// Writes every key once.
    pub(super) async fn preload(&self, dice: &Dice) -> Result<(), BenchError> {
        const PAIRS: u64 = 256;
        let (context, address) = self.leader().await?;
        let mut client = TikvClient::new(connect(&address).await?);
        for first in (0..dice.keys()).step_by(PAIRS as usize) {
            let numbers = first..(first + PAIRS).min(dice.keys());
            let pair = |number| KvPair { key: key(number), value: dice.value(), error: None };
            let request = kvrpcpb::RawBatchPutRequest {
                context: Some(context.clone()),
                pairs: numbers.map(pair).collect(),
                ..Default::default()
            };
            let answer = client.raw_batch_put(request).await?.into_inner();
            if answer.region_error.is_some() || !answer.error.is_empty() {
                let reason = format!("preload refused: {:?} {}", answer.region_error, answer.error);
                return Err(BenchError::NotReady(reason));
            }
        }
        Ok(())
    }
}

impl Ours {
    /// Connects to the leader.
    pub(super) async fn connect(
        cluster: &Cluster,
        protocol: Protocol,
    ) -> Result<Rc<Self>, BenchError> {
        let route = Link::open(cluster, protocol).await?;
        Ok(Rc::new(Self {
            cluster: cluster.clone(),
            protocol,
            route: RefCell::new(Rc::new(route)),
            rerouting: Cell::new(false),
            answered: Cell::new(0),
        }))
    }

    /// How many requests were answered so far, warm-up included.
    pub(super) fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// Another leader: look it up again.
    async fn reroute(&self) {
        if self.rerouting.replace(true) {
            return;
        }
        if let Ok(route) = Link::open(&self.cluster, self.protocol).await {
            self.route.replace(Rc::new(route));
        }
        self.rerouting.set(false);
    }
}

impl Link {
    async fn open(cluster: &Cluster, protocol: Protocol) -> Result<Self, BenchError> {
        let (context, address) = cluster.leader().await?;
        let mut clients = Vec::new();
        let connections = if protocol == Protocol::Unary { CONNECTIONS } else { 1 };
        for _ in 0..connections {
            clients.push(TikvClient::new(connect(&address).await?));
        }
        let stream = match protocol {
            Protocol::Unary => None,
            Protocol::Stream => Some(open_stream(clients[0].clone()).await?),
        };
        Ok(Self { context, clients, stream })
    }
}

/// A stream of batched commands to one store.
pub(super) async fn open_stream(mut client: TikvClient<Channel>) -> Result<CommandMux, BenchError> {
    let (mux, requests) = CommandMux::new();
    let handle = mux.handle();
    // Servers may answer the call only when the first request is in, so it is not waited for here.
    tokio::spawn(async move {
        match client.batch_commands(requests).await {
            Ok(responses) => CommandMux::pump(handle, responses.into_inner()).await,
            Err(_) => handle.fail(),
        }
    });
    Ok(mux)
}

impl Driver for Ours {
    async fn call(&self, client: usize, op: Op, dice: &Dice) -> Result<(), Failure> {
        let route = Rc::clone(&self.route.borrow());
        let request = request(op, dice, &route.context);
        let outcome = match &route.stream {
            Some(stream) => match stream.call(Request { cmd: Some(request) }).await {
                Ok(Response { cmd: Some(answer) }) => check(answer),
                Ok(Response { cmd: None }) => Err(Failure("an empty response".to_owned())),
                Err(_) => Err(Failure("the stream ended".to_owned())),
            },
            None => {
                let mut connection = route.clients[client % route.clients.len()].clone();
                unary(&mut connection, request).await.and_then(check)
            }
        };
        match &outcome {
            Ok(()) => self.answered.set(self.answered.get() + 1),
            Err(_) => self.reroute().await,
        }
        outcome
    }
}

fn request(op: Op, dice: &Dice, context: &kvrpcpb::Context) -> Cmd {
    let context = Some(context.clone());
    match op {
        Op::Put => Cmd::RawPut(kvrpcpb::RawPutRequest {
            context,
            key: dice.key(),
            value: dice.value(),
            ..Default::default()
        }),
        Op::Get => {
            Cmd::RawGet(kvrpcpb::RawGetRequest { context, key: dice.key(), ..Default::default() })
        }
        Op::Scan => {
            let (start_key, end_key) = dice.scan();
            Cmd::RawScan(kvrpcpb::RawScanRequest {
                context,
                start_key,
                end_key,
                limit: SCAN_ROWS as u32,
                ..Default::default()
            })
        }
    }
}

async fn unary(client: &mut TikvClient<Channel>, request: Cmd) -> Result<Answer, Failure> {
    let answer = match request {
        Cmd::RawPut(put) => client.raw_put(put).await.map(|a| Answer::RawPut(a.into_inner())),
        Cmd::RawGet(get) => client.raw_get(get).await.map(|a| Answer::RawGet(a.into_inner())),
        Cmd::RawScan(scan) => client.raw_scan(scan).await.map(|a| Answer::RawScan(a.into_inner())),
        _ => unreachable!("the benchmark sends no other command"),
    };
    answer.map_err(|status| Failure(status.to_string()))
}

/// Only the right answer counts.
pub(super) fn check(answer: Answer) -> Result<(), Failure> {
    let refused = |region: Option<errorpb::Error>, error: String| match region {
        Some(region) => Err(Failure(format!("region error: {}", region.message))),
        None if !error.is_empty() => Err(Failure(error)),
        None => Ok(()),
    };
    match answer {
        Answer::RawPut(put) => refused(put.region_error, put.error),
        Answer::RawGet(get) => {
            refused(get.region_error, get.error)?;
            check_value(&get.value)
        }
        Answer::RawScan(scan) => {
            refused(scan.region_error, String::new())?;
            check_rows(scan.kvs.len())
        }
        other => Err(Failure(format!("the answer of another command: {other:?}"))),
    }
}

/// A value that was read must be one that was written.
pub(super) fn check_value(value: &Bytes) -> Result<(), Failure> {
    if value.len() == VALUE_BYTES {
        return Ok(());
    }
    Err(Failure(format!("a value of {} bytes", value.len())))
}

/// A scan must find all its rows.
pub(super) fn check_rows(rows: usize) -> Result<(), Failure> {
    if rows as u64 == SCAN_ROWS {
        return Ok(());
    }
    Err(Failure(format!("a scan of {rows} rows")))
}

/// One put to one store, wherever the leader is: for measuring how long writes are refused. Answers which store leads,
/// when the refusal tells.
pub(super) async fn try_put(
    client: &mut TikvClient<Channel>,
    context: &kvrpcpb::Context,
    dice: &Dice,
    timeout: Duration,
) -> Result<(), Option<metapb::Peer>> {
    let put = kvrpcpb::RawPutRequest {
        context: Some(context.clone()),
        key: dice.key(),
        value: dice.value(),
        ..Default::default()
    };
    match tokio::time::timeout(timeout, client.raw_put(put)).await {
        Ok(Ok(answer)) => match answer.into_inner().region_error {
            None => Ok(()),
            Some(error) => Err(error.not_leader.and_then(|not_leader| not_leader.leader)),
        },
        Ok(Err(_)) | Err(_) => Err(None),
    }
}

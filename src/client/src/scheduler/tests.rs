//! The endpoints against members in this process, of which one leads: it changes, dies, comes back elsewhere.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::result::Result;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use proto::pdpb::{AllocIdResponse, GetMembersResponse, Timestamp};
use tokio::net::TcpListener;
use tonic::Request as GrpcRequest;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic_prost::ProstCodec;

use super::*;
use crate::tso::Tso;

const CLUSTER: u64 = 7;
const PATIENCE: Duration = Duration::from_secs(20);

/// What all members share.
#[derive(Debug, Default)]
struct World {
    addresses: Vec<String>,
    leader: usize,
    last_id: u64,
    clock: u64,
    timestamp_messages: u32,
}

#[derive(Clone)]
struct Member {
    number: usize,
    world: Arc<Mutex<World>>,
}

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Timestamps = Pin<Box<dyn Stream<Item = Result<TsoResponse, Status>> + Send>>;

fn ready<T: Send + 'static>(answer: T) -> Later<T> {
    Box::pin(std::future::ready(answer))
}

fn header() -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: CLUSTER, error: None })
}

impl Member {
    fn check(&self) -> Result<(), Status> {
        match self.world.lock().leader == self.number {
            true => Ok(()),
            false => Err(Status::unavailable("another member leads")),
        }
    }
}

impl UnaryService<GetMembersRequest> for Member {
    type Response = GetMembersResponse;
    type Future = Later<Result<Response<GetMembersResponse>, Status>>;

    fn call(&mut self, _: GrpcRequest<GetMembersRequest>) -> Self::Future {
        let world = self.world.lock();
        let member = |(id, address): (u64, &String)| proto::pdpb::Member {
            member_id: id,
            client_urls: vec![format!("http://{address}")],
            ..Default::default()
        };
        let members: Vec<_> = (0..).zip(&world.addresses).map(member).collect();
        let leader = members.get(world.leader).cloned();
        let answer = GetMembersResponse { header: header(), members, leader, ..Default::default() };
        ready(Ok(Response::new(answer)))
    }
}

impl UnaryService<AllocIdRequest> for Member {
    type Response = AllocIdResponse;
    type Future = Later<Result<Response<AllocIdResponse>, Status>>;

    fn call(&mut self, _: GrpcRequest<AllocIdRequest>) -> Self::Future {
        if let Err(status) = self.check() {
            return ready(Err(status));
        }
        let mut world = self.world.lock();
        world.last_id += 1;
        ready(Ok(Response::new(AllocIdResponse { header: header(), id: world.last_id })))
    }
}

impl StreamingService<TsoRequest> for Member {
    type Response = TsoResponse;
    type ResponseStream = Timestamps;
    type Future = Later<Result<Response<Timestamps>, Status>>;

    fn call(&mut self, request: GrpcRequest<Streaming<TsoRequest>>) -> Self::Future {
        let member = self.clone();
        let answers = request.into_inner().map(move |request| {
            let count = request?.count;
            member.check()?;
            let mut world = member.world.lock();
            world.clock += u64::from(count);
            world.timestamp_messages += 1;
            let (physical, logical) = (world.clock >> 18, world.clock & ((1 << 18) - 1));
            let timestamp = Some(Timestamp {
                physical: physical as i64,
                logical: logical as i64,
                ..Default::default()
            });
            Ok(TsoResponse { header: header(), count, timestamp })
        });
        ready(Ok(Response::new(Box::pin(answers))))
    }
}

impl NamedService for Member {
    const NAME: &'static str = "pdpb.PD";
}

impl Service<http::Request<Body>> for Member {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let member = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/pdpb.PD/GetMembers" => {
                    let codec = ProstCodec::<GetMembersResponse, GetMembersRequest>::default();
                    Grpc::new(codec).unary(member, request).await
                }
                "/pdpb.PD/AllocID" => {
                    let codec = ProstCodec::<AllocIdResponse, AllocIdRequest>::default();
                    Grpc::new(codec).unary(member, request).await
                }
                "/pdpb.PD/Tso" => {
                    let codec = ProstCodec::<TsoResponse, TsoRequest>::default();
                    Grpc::new(codec).streaming(member, request).await
                }
                path => Status::unimplemented(path.to_owned()).into_http(),
            })
        })
    }
}

/// Members in this process.
struct Members {
    world: Arc<Mutex<World>>,
    running: Vec<tokio::task::JoinHandle<()>>,
}

impl Members {
    async fn start(count: usize) -> Members {
        let world = Arc::new(Mutex::new(World { clock: 1 << 40, ..World::default() }));
        let mut members = Members { world, running: Vec::new() };
        for _ in 0..count {
            members.add().await;
        }
        members
    }

    async fn add(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        self.world.lock().addresses.push(address);
        let member = Member { number: self.running.len(), world: Arc::clone(&self.world) };
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(member);
        self.running.push(tokio::spawn(async move {
            // It ends with the runtime, or when it is killed.
            let _ = server.serve_with_incoming(incoming).await;
        }));
    }

    fn lead(&self, member: usize) {
        self.world.lock().leader = member;
    }

    fn kill(&self, member: usize) {
        self.running[member].abort();
    }

    fn address(&self, member: usize) -> String {
        self.world.lock().addresses[member].clone()
    }

    async fn connect(&self, through: usize) -> Arc<Scheduler> {
        let endpoints = [self.address(through)];
        Arc::new(Scheduler::connect(&endpoints).await.expect("it answers"))
    }
}

#[test]
fn urls_and_addresses_name_the_same_endpoint() {
    assert_eq!(host_port("http://127.0.0.1:2379/"), "127.0.0.1:2379");
    assert_eq!(host_port("127.0.0.1:2379"), "127.0.0.1:2379");
}

#[test]
fn both_generations_of_fields_are_read() {
    let region = |id| Region { id, ..Region::default() };
    let peer = |id| Peer { id, ..Peer::default() };
    let old = ScanRegionsResponse {
        region_metas: vec![region(1), region(2), region(3)],
        leaders: vec![peer(5), peer(0)],
        ..Default::default()
    };
    let expected = vec![(region(1), Some(peer(5))), (region(2), None), (region(3), None)];
    assert_eq!(scanned(old.clone()), expected);
    let new = proto::pdpb::Region { region: Some(region(9)), ..Default::default() };
    let both = ScanRegionsResponse { regions: vec![new], ..old };
    assert_eq!(scanned(both), vec![(region(9), None)]);
}

#[tokio::test]
async fn the_member_that_leads_is_found_and_followed() {
    let mut members = Members::start(3).await;
    members.lead(1);
    let scheduler = members.connect(0).await;
    assert_eq!(scheduler.alloc_id().await, Ok(1));
    assert_eq!(scheduler.state.lock().order[0], members.address(1), "asked first from now on");
    members.lead(2);
    assert_eq!(scheduler.alloc_id().await, Ok(2));
    // One that nobody has named to us.
    members.add().await;
    members.lead(3);
    assert_eq!(scheduler.alloc_id().await, Ok(3));
    assert_eq!(scheduler.state.lock().order[0], members.address(3));
}

#[tokio::test]
async fn a_dead_leader_costs_the_time_of_an_election() {
    let members = Members::start(3).await;
    let scheduler = members.connect(0).await;
    assert_eq!(scheduler.alloc_id().await, Ok(1));
    members.kill(0);
    members.world.lock().leader = usize::MAX;
    let nobody = scheduler.alloc_id().await.expect_err("nobody leads");
    assert!(nobody.contains("another member leads"), "{nobody}");
    members.lead(2);
    assert_eq!(scheduler.alloc_id().await, Ok(2));
}

#[tokio::test]
async fn timestamps_grow_over_streams_and_leaders() {
    let members = Members::start(3).await;
    let tso = Tso::start(members.connect(1).await);
    let mut seen = BTreeSet::new();
    for leader in [0, 2, 1] {
        members.lead(leader);
        let before = seen.last().copied().unwrap_or(0);
        let asked = join_all((0..500).map(|_| tso.next(PATIENCE))).await;
        for timestamp in asked {
            let timestamp = timestamp.expect("somebody leads");
            assert!(timestamp > before, "{timestamp} after {before}");
            assert!(seen.insert(timestamp), "{timestamp} came twice");
        }
    }
    let messages = members.world.lock().timestamp_messages;
    assert!(messages < 100, "{messages} messages for 1500 timestamps");
}

#[tokio::test]
async fn a_scheduler_whose_time_goes_back_is_refused() {
    let members = Members::start(1).await;
    let tso = Tso::start(members.connect(0).await);
    let first = tso.next(PATIENCE).await.expect("it leads");
    members.world.lock().clock -= 1;
    let error = tso.next(PATIENCE).await.expect_err("the same one again");
    assert!(matches!(&error, Error::Malformed(why) if why.contains(&first.to_string())), "{error}");
}

#[tokio::test]
async fn without_a_leader_a_timestamp_is_not_to_be_had() {
    let members = Members::start(1).await;
    let tso = Tso::start(members.connect(0).await);
    members.lead(9);
    let error = tso.next(Duration::from_millis(300)).await.expect_err("nobody leads");
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

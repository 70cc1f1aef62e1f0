//! The link against a server in this process that behaves well, badly, or like one that knows no batched stream.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use proto::kvrpcpb::{RawGetRequest, RawGetResponse};
use proto::tikvpb::batch_commands_response::Response as BatchedResponse;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Request as GrpcRequest, Response, Status};
use tonic_prost::ProstCodec;

use super::*;

/// What the server does with the stream.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Answers every request with its own key as the value, in reverse order.
    Echo,
    /// Ends the stream when the first requests have come.
    HangUp,
    /// Reads and never answers.
    Mute,
    /// Knows unary calls only.
    NoStream,
}

#[derive(Clone)]
struct Fake {
    manner: Manner,
    messages: Arc<AtomicUsize>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<BatchCommandsResponse, Status>> + Send>>;
type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

fn echo(cmd: RequestCmd) -> RawGetResponse {
    let RequestCmd::RawGet(get) = cmd else { panic!("only gets are sent here") };
    RawGetResponse { value: get.key, ..RawGetResponse::default() }
}

impl StreamingService<BatchCommandsRequest> for Fake {
    type Response = BatchCommandsResponse;
    type ResponseStream = Answers;
    type Future = Later<Result<Response<Answers>, Status>>;

    fn call(&mut self, request: GrpcRequest<Streaming<BatchCommandsRequest>>) -> Self::Future {
        let Fake { manner, messages } = self.clone();
        let requests = request.into_inner();
        let answers = requests.filter_map(move |batch| {
            messages.fetch_add(1, Ordering::SeqCst);
            let answer = batch.map(|BatchCommandsRequest { requests, request_ids }| {
                let answered = requests.into_iter().map(|request| BatchedResponse {
                    cmd: Some(ResponseCmd::RawGet(echo(request.cmd.expect("a command")))),
                });
                BatchCommandsResponse {
                    responses: answered.rev().collect(),
                    request_ids: request_ids.into_iter().rev().collect(),
                    transport_layer_load: 0,
                }
            });
            let answer = match manner {
                Manner::Echo | Manner::NoStream => Some(answer),
                Manner::HangUp => Some(Err(Status::unavailable("enough"))),
                Manner::Mute => None,
            };
            std::future::ready(answer)
        });
        Box::pin(std::future::ready(Ok(Response::new(Box::pin(answers) as Answers))))
    }
}

impl UnaryService<RawGetRequest> for Fake {
    type Response = RawGetResponse;
    type Future = Later<Result<Response<RawGetResponse>, Status>>;

    fn call(&mut self, request: GrpcRequest<RawGetRequest>) -> Self::Future {
        let answer = echo(RequestCmd::RawGet(request.into_inner()));
        Box::pin(std::future::ready(Ok(Response::new(answer))))
    }
}

impl NamedService for Fake {
    const NAME: &'static str = "tikvpb.Tikv";
}

impl Service<http::Request<Body>> for Fake {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let fake = self.clone();
        Box::pin(async move {
            let answer = match request.uri().path() {
                "/tikvpb.Tikv/BatchCommands" if fake.manner != Manner::NoStream => {
                    let codec =
                        ProstCodec::<BatchCommandsResponse, BatchCommandsRequest>::default();
                    Grpc::new(codec).streaming(fake, request).await
                }
                "/tikvpb.Tikv/RawGet" => {
                    let codec = ProstCodec::<RawGetResponse, RawGetRequest>::default();
                    Grpc::new(codec).unary(fake, request).await
                }
                path => Status::unimplemented(path.to_owned()).into_http(),
            };
            Ok(answer)
        })
    }
}

/// A server that lives as long as the runtime; its address, and how many messages of streams it has read.
async fn serve(manner: Manner) -> (String, Arc<AtomicUsize>) {
    let messages = Arc::new(AtomicUsize::new(0));
    let fake = Fake { manner, messages: Arc::clone(&messages) };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(fake);
    tokio::spawn(server.serve_with_incoming(incoming));
    (address, messages)
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn get(link: &Link, key: String, timeout: Duration) -> Result<String, Broken> {
    let request = RawGetRequest { key: key.into(), ..RawGetRequest::default() };
    match link.ask(RequestCmd::RawGet(request), 64, timeout).await? {
        ResponseCmd::RawGet(r) => Ok(String::from_utf8(r.value.to_vec()).expect("ours")),
        other => panic!("{other:?} answers something else"),
    }
}

#[tokio::test]
async fn many_requests_share_few_messages_and_each_gets_its_own_answer() {
    let (address, messages) = serve(Manner::Echo).await;
    let link = Link::open(&address);
    let gets = (0..1_000).map(|n| get(&link, format!("key{n}"), PATIENCE));
    let answers = futures::future::join_all(gets).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, Ok(format!("key{n}")));
    }
    let messages = messages.load(Ordering::SeqCst);
    assert!(messages < 100, "{messages} messages for a thousand requests");
    assert!(!link.is_broken());
}

#[tokio::test]
async fn a_store_without_the_stream_is_served_by_unary_calls() {
    let (address, messages) = serve(Manner::NoStream).await;
    let link = Link::open(&address);
    // The refused stream may have taken the first request with it, and says so.
    if let Err(refused) = get(&link, "first".to_owned(), PATIENCE).await {
        assert!(!refused.sent, "{refused:?}");
    }
    for n in 0..3 {
        assert_eq!(get(&link, format!("key{n}"), PATIENCE).await, Ok(format!("key{n}")));
    }
    assert!(!link.is_broken());
    assert_eq!(messages.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_broken_link_tells_what_may_have_been_sent_and_stays_broken() {
    let (address, _) = serve(Manner::HangUp).await;
    let link = Link::open(&address);
    let lost = get(&link, "key".to_owned(), PATIENCE).await.unwrap_err();
    assert!(lost.sent && lost.reason.contains("enough"), "{lost:?}");
    let late = get(&link, "key".to_owned(), PATIENCE).await.unwrap_err();
    assert!(!late.sent && link.is_broken(), "{late:?}");
}

#[tokio::test]
async fn nobody_there_means_nothing_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let broken = get(&Link::open(&address), "key".to_owned(), PATIENCE).await.unwrap_err();
    assert!(!broken.sent && broken.reason.contains("refused"), "{broken:?}");
}

#[tokio::test]
async fn silence_ends_at_the_timeout_and_leaves_nothing_behind() {
    let (address, messages) = serve(Manner::Mute).await;
    let link = Link::open(&address);
    let silent = get(&link, "key".to_owned(), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(silent.sent, messages.load(Ordering::SeqCst) > 0);
    let outbox = link.0.0.0.lock();
    assert!(outbox.out.is_empty() && outbox.waiting.is_empty());
}

//! The bare echo: what gRPC alone costs on this machine. The server runs as a child process, so that it has its own runtime,
//! as a store has.

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Stdio;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

use super::data::{Dice, SCAN_ROWS, VALUE_BYTES};
use super::load::{Driver, Failure, Op};
use super::mux::{Incoming, Mux, Outgoing};
use super::ours::{Protocol, check_rows, check_value};
use super::process::Pid;
use super::wire::echo::echo_client::EchoClient;
use super::wire::echo::echo_server::{Echo, EchoServer};
use super::wire::echo::{EchoBatchRequest, EchoBatchResponse, EchoRequest, EchoResponse, Row};
use super::{BenchError, CONNECTIONS, connect, free_ports};

impl Outgoing for EchoBatchRequest {
    type Item = EchoRequest;

    fn pack(requests: Vec<EchoRequest>, request_ids: Vec<u64>) -> Self {
        Self { requests, request_ids }
    }
}

impl Incoming for EchoBatchResponse {
    type Item = EchoResponse;

    fn unpack(self) -> (Vec<EchoResponse>, Vec<u64>) {
        (self.responses, self.request_ids)
    }
}

struct EchoService;

fn answer(request: EchoRequest) -> EchoResponse {
    static VALUE: [u8; VALUE_BYTES] = [b'e'; VALUE_BYTES];
    let row = Row { key: request.key, value: Bytes::from_static(&VALUE) };
    EchoResponse { rows: vec![row; request.rows as usize] }
}

#[tonic::async_trait]
impl Echo for EchoService {
    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        Ok(Response::new(answer(request.into_inner())))
    }

    type BatchStream = Answers;

    async fn batch(
        &self,
        requests: Request<Streaming<EchoBatchRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(Answers(requests.into_inner())))
    }
}

/// Answers each message of requests by one message of responses, on the task that sends them.
struct Answers(Streaming<EchoBatchRequest>);

impl Stream for Answers {
    type Item = Result<EchoBatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|batch| {
            batch.map(|batch| {
                batch.map(|batch| EchoBatchResponse {
                    responses: batch.requests.into_iter().map(answer).collect(),
                    request_ids: batch.request_ids,
                })
            })
        })
    }
}

/// Serves the echo until the process is killed.
pub(super) async fn serve(address: SocketAddr) -> Result<(), BenchError> {
    Server::builder()
        .tcp_nodelay(true)
        .add_service(EchoServer::new(EchoService))
        .serve(address)
        .await?;
    Ok(())
}

/// The server as a child process.
pub(super) struct EchoProcess {
    process: Child,
    address: String,
}

impl EchoProcess {
    /// Starts it.
    pub(super) async fn start() -> Result<Self, BenchError> {
        let address = format!("127.0.0.1:{}", free_ports(1)?[0]);
        let process = Command::new(std::env::current_exe()?)
            .args(["bench", "--serve-echo", &address])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        for _ in 0..100 {
            if connect(&address).await.is_ok() {
                return Ok(Self { process, address });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(BenchError::NotReady("the echo server does not answer".to_owned()))
    }

    /// Ends it.
    pub(super) async fn stop(mut self) {
        // It may have ended already.
        let _ = self.process.kill().await;
    }

    /// Its process id.
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.process.id().into_iter().collect()
    }
}

/// Drives the load.
pub(super) struct EchoDriver {
    clients: Vec<EchoClient<Channel>>,
    stream: Option<Mux<EchoBatchRequest, EchoBatchResponse>>,
}

impl EchoDriver {
    /// Connects.
    pub(super) async fn connect(
        server: &EchoProcess,
        protocol: Protocol,
    ) -> Result<Rc<Self>, BenchError> {
        let connections = if protocol == Protocol::Unary { CONNECTIONS } else { 1 };
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(EchoClient::new(connect(&server.address).await?));
        }
        let stream = (protocol == Protocol::Stream).then(|| {
            let (mux, requests) = Mux::new();
            let (handle, mut client) = (mux.handle(), clients[0].clone());
            tokio::spawn(async move {
                match client.batch(requests).await {
                    Ok(responses) => Mux::pump(handle, responses.into_inner()).await,
                    Err(_) => handle.fail(),
                }
            });
            mux
        });
        Ok(Rc::new(Self { clients, stream }))
    }
}

impl Driver for EchoDriver {
    async fn call(&self, client: usize, op: Op, dice: &Dice) -> Result<(), Failure> {
        let rows = if op == Op::Scan { SCAN_ROWS as u32 } else { 1 };
        let request = EchoRequest { key: dice.key(), rows };
        let response = match &self.stream {
            Some(stream) => {
                stream.call(request).await.map_err(|_| Failure("the stream ended".to_owned()))?
            }
            None => {
                let mut client = self.clients[client % self.clients.len()].clone();
                let answer = client.unary(request).await;
                answer.map_err(|status| Failure(status.to_string()))?.into_inner()
            }
        };
        match (op, response.rows.as_slice()) {
            (Op::Scan, rows) => check_rows(rows.len()),
            (_, [row]) => check_value(&row.value),
            (_, rows) => check_rows(rows.len()),
        }
    }
}

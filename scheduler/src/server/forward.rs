//! What a member does with a request that only the leader can answer: it passes the request on, or waits until there is a
//! leader, but never says "not me" at once. Clients try again without a pause and give up after ten times.
//!
//! Requests are passed on as they came, below gRPC: any method, HTTP/1.1 pages too. A single call is repeated until the
//! leader's answer is there or patience ends; everything the scheduler is asked is safe to ask twice (ids may be wasted).
//! A long stream is passed on once, and ended with an error as soon as another member leads.
//!
//! A request that was passed on says so, and is not passed on again: a member that does not lead says that at once to a
//! colleague, which then looks again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Version, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Frame;
use parking_lot::Mutex;
use proto::ids::StoreId;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::codegen::Service as _;
use tonic::transport::{Channel, Endpoint};

use super::driver::{Driver, Role};
use super::error_map::{NOT_LEADING, not_leading};
use super::metrics::add;

/// How long a request waits for a leader that answers.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Before a leader that failed is tried again, if no other one is known by then.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a single call's request.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// A connection that takes longer to make has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A silent connection is probed after this time …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// … and given up after this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Marks what another member passed on.
const FORWARDED: HeaderName = HeaderName::from_static("flotilla-forwarded");

/// Headers that concern one connection only.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Who may answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Any member.
    Local,
    /// The leader if there is one, else any member.
    View,
    /// The leader, one answer to one question.
    Call,
    /// The leader, for as long as both sides like.
    Stream,
}

fn kind(path: &str) -> Kind {
    const SERVICES: [&str; 5] = [
        "/pdpb.PD/",
        "/keyspacepb.Keyspace/",
        "/flotilla.Bootstrap/",
        "/flotilla.Operations/",
        "/pd/api/v1/",
    ];
    const LOCAL: [&str; 3] =
        ["/pdpb.PD/GetMembers", "/pdpb.PD/GetClusterInfo", "/pd/api/v1/members"];
    match path {
        "/pdpb.PD/Tso" | "/pdpb.PD/RegionHeartbeat" => Kind::Stream,
        "/pd/api/v1/health" => Kind::View,
        path if LOCAL.contains(&path) => Kind::Local,
        path if SERVICES.iter().any(|service| path.starts_with(service)) => Kind::Call,
        _ => Kind::Local,
    }
}

/// The way to the other members.
pub(super) struct Gate {
    driver: Arc<Driver>,
    /// To the member that led last.
    channel: Mutex<Option<(StoreId, Channel)>>,
}

impl Gate {
    pub(super) fn new(driver: Arc<Driver>) -> Gate {
        Gate { driver, channel: Mutex::new(None) }
    }

    fn channel(&self, leader: StoreId) -> Option<Channel> {
        let mut known = self.channel.lock();
        if let Some((to, channel)) = &*known
            && *to == leader
        {
            return Some(channel.clone());
        }
        let url = format!("http://{}", self.driver.members.get(leader)?.peer_address);
        let endpoint = Endpoint::from_shared(url).ok()?;
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_lazy();
        *known = Some((leader, channel.clone()));
        Some(channel)
    }

    /// The leader's answer; `None` if it has none, or does not lead.
    async fn ask(&self, leader: StoreId, request: Request) -> Option<Response> {
        add(&self.driver.metrics.forwarded, 1);
        let mut channel = self.channel(leader)?;
        std::future::poll_fn(|context| channel.poll_ready(context)).await.ok()?;
        let response = channel.call(request.map(tonic::body::Body::new)).await.ok()?;
        let response = response.map(Body::new);
        (!says_not_leading(&response)).then_some(response)
    }

    async fn call(&self, request: Request, next: Next) -> Response {
        let (parts, body) = request.into_parts();
        let Ok(body) = axum::body::to_bytes(body, REQUEST_BYTES_MAX).await else {
            let reason =
                format!("a request is larger than {REQUEST_BYTES_MAX} bytes, or broke off");
            return refuse(&parts, Status::resource_exhausted(reason));
        };
        let forwarded = parts.headers.contains_key(FORWARDED);
        let mut role = self.driver.role();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = role.borrow_and_update().clone();
            match now {
                Role::Serves(_) => {
                    let request = Request::from_parts(parts.clone(), Body::from(body.clone()));
                    let response = next.clone().run(request).await;
                    if forwarded || !says_not_leading(&response) {
                        return response;
                    }
                }
                Role::Follows(_) if forwarded => return refuse(&parts, not_leading()),
                Role::Follows(leader) => {
                    let asking = self.ask(leader, pass_on(&parts, Body::from(body.clone())));
                    tokio::select! {
                        response = asking => if let Some(response) = response {
                            return response;
                        },
                        // Whatever the old leader still says, the new one is asked.
                        _ = role.changed() => continue,
                        () = tokio::time::sleep_until(deadline) => {}
                    }
                }
                Role::Stopped(reason) => return refuse(&parts, Status::unavailable(reason)),
                Role::Begins(_) | Role::Leaderless => {
                    // Nothing to try before the role changes.
                    if tokio::time::timeout_at(deadline, role.changed()).await.is_ok() {
                        continue;
                    }
                }
            }
            if Instant::now() >= deadline {
                return refuse(&parts, self.leaderless());
            }
            let _ = tokio::time::timeout(RETRY_PAUSE, role.changed()).await;
        }
    }

    async fn view(&self, request: Request, next: Next) -> Response {
        let role = self.driver.role().borrow().clone();
        let (parts, body) = request.into_parts();
        if let Role::Follows(leader) = role
            && !parts.headers.contains_key(FORWARDED)
        {
            let asking = self.ask(leader, pass_on(&parts, Body::empty()));
            if let Ok(Some(response)) = tokio::time::timeout(PATIENCE / 3, asking).await {
                return response;
            }
        }
        next.run(Request::from_parts(parts, body)).await
    }

    async fn stream(&self, request: Request, next: Next) -> Response {
        let (parts, body) = request.into_parts();
        let forwarded = parts.headers.contains_key(FORWARDED);
        let mut role = self.driver.role();
        let settled = |role: &Role| !matches!(role, Role::Begins(_) | Role::Leaderless);
        let now = tokio::time::timeout(PATIENCE, role.wait_for(settled)).await;
        let now = match now.map(|now| now.map(|now| now.clone())) {
            Ok(Ok(now)) => now,
            _ => return refuse(&parts, self.leaderless()),
        };
        let leader = match now {
            Role::Serves(_) => return next.run(Request::from_parts(parts, body)).await,
            Role::Follows(leader) if !forwarded => leader,
            Role::Stopped(reason) => return refuse(&parts, Status::unavailable(reason)),
            _ => return refuse(&parts, not_leading()),
        };
        let opened = Role::Follows(leader);
        let asking = self.ask(leader, pass_on(&parts, body));
        tokio::select! {
            response = asking => if let Some(response) = response {
                return response.map(|body| Body::new(Ending::new(body, role, opened)));
            },
            _ = role.changed() => {}
        }
        // Not at once: whoever asked comes again without a pause.
        let mut role = self.driver.role();
        let _ = tokio::time::timeout(PATIENCE / 3, role.wait_for(|now| *now != opened)).await;
        refuse(&parts, not_leading())
    }

    fn leaderless(&self) -> Status {
        let (active, all) = (self.driver.active().len(), self.driver.members.len());
        Status::unavailable(format!(
            "no member leads the scheduler: this one hears {active} of {all} members"
        ))
    }
}

/// The layer around everything that is served.
pub(super) async fn layer(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match kind(request.uri().path()) {
        Kind::Local => next.run(request).await,
        Kind::View => gate.view(request, next).await,
        Kind::Call => gate.call(request, next).await,
        Kind::Stream => gate.stream(request, next).await,
    }
}

fn says_not_leading(response: &Response) -> bool {
    response.headers().contains_key(NOT_LEADING)
}

/// The same request for another member.
fn pass_on(parts: &request::Parts, body: Body) -> Request {
    let mut headers: HeaderMap = parts.headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.insert(FORWARDED, HeaderValue::from_static("1"));
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    request
}

/// A refusal in the language of the request.
fn refuse(parts: &request::Parts, status: Status) -> Response {
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let grpc = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        return status.into_http();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", status.message())).into_response()
}

/// The body of a stream that was passed on: ends with an error when the role is not what it was.
struct Ending {
    body: Body,
    over: BoxFuture<'static, ()>,
    ended: bool,
}

impl Ending {
    fn new(body: Body, mut role: watch::Receiver<Role>, opened: Role) -> Ending {
        let over = Box::pin(async move {
            // An end of the driver is an end of the role.
            let _ = role.wait_for(|now| *now != opened).await;
        });
        Ending { body, over, ended: false }
    }
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.over.as_mut().poll(context).is_ready() {
            self.ended = true;
            let response: axum::http::Response<Body> = not_leading().into_http();
            return Poll::Ready(Some(Ok(Frame::trailers(response.headers().clone()))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.ended = frame.is_none();
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_leader_knows_is_passed_on() {
        for path in ["/pdpb.PD/GetMembers", "/metrics", "/flotilla.Transport/raft", "/livez"] {
            assert_eq!(kind(path), Kind::Local, "{path}");
        }
        for path in ["/pdpb.PD/GetRegion", "/flotilla.Operations/Balance", "/pd/api/v1/regions"] {
            assert_eq!(kind(path), Kind::Call, "{path}");
        }
        assert_eq!(kind("/pdpb.PD/Tso"), Kind::Stream);
    }

    #[test]
    fn what_concerns_one_connection_stays_there() {
        let request = Request::builder()
            .uri("/pd/api/v1/regions?limit=2")
            .header("host", "a:1")
            .header("connection", "close")
            .header("te", "trailers")
            .body(Body::empty())
            .unwrap();
        let (parts, _) = request.into_parts();
        let passed = pass_on(&parts, Body::empty());
        assert_eq!(passed.uri(), "/pd/api/v1/regions?limit=2");
        let names: Vec<_> = passed.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["te", "flotilla-forwarded"]);
    }
}

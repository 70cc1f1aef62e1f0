//! The members under test, what lies between them, and a client.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::mem::MemEngine;
use engine::{Cf, Engine};
use proto::metapb;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{self, GetMembersResponse, RequestHeader};
use raftstore::keys;
use raftstore::snapshot::MemFiles;
use scheduler::journal::REGION;
use scheduler::server::{Config, Surroundings, serve};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// What takes longer has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A running member. Dropped, it is killed: its tasks end where they are and its connections break.
struct Running {
    runtime: Option<tokio::runtime::Runtime>,
    stop: Option<oneshot::Sender<()>>,
    served: Option<oneshot::Receiver<Result<(), scheduler::server::Error>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One member, running or not, and its disk.
struct Member {
    name: String,
    port: u16,
    engine: Arc<MemEngine>,
    files: MemFiles,
    /// Milliseconds its clock is off.
    clock_off_ms: Arc<AtomicI64>,
    running: Option<Running>,
}

/// A way from one member to another that can be cut.
struct Way {
    from: usize,
    to: usize,
    port: u16,
    open: watch::Sender<bool>,
}

/// All members. Numbers count from 0.
pub(crate) struct Group {
    members: Vec<Member>,
    ways: Vec<Way>,
}

/// A port nobody else will be given while the test runs: bound once, so that it is not handed out again at once.
fn port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Group {
    /// Starts so many members, and waits until one serves.
    pub(crate) async fn start(count: usize) -> Group {
        Group::start_some(count, count).await
    }

    /// The same, with the last of them not started.
    pub(crate) async fn start_some(count: usize, started: usize) -> Group {
        let mut group = Group::prepare(count).await;
        for member in 0..started {
            group.run(member).await;
        }
        group.leader().await;
        group
    }

    /// The members and the ways between them; nobody runs.
    async fn prepare(count: usize) -> Group {
        let member = |at| Member {
            name: format!("member-{at}"),
            port: port(),
            engine: Arc::new(MemEngine::new()),
            files: MemFiles::new(),
            clock_off_ms: Arc::default(),
            running: None,
        };
        let members: Vec<_> = (0..count).map(member).collect();
        let mut ways = Vec::new();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                ways.push(way(from, to, members[to].port).await);
            }
        }
        Group { members, ways }
    }

    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    /// Starts a member on what its disk holds.
    pub(crate) async fn run(&mut self, at: usize) {
        let peers = self.members.iter().enumerate().map(|(other, member)| {
            let way = self.ways.iter().find(|way| (way.from, way.to) == (at, other));
            let peer = way.map_or(member.port, |way| way.port);
            format!("{}=127.0.0.1:{peer}@127.0.0.1:{}", member.name, member.port)
        });
        let config = Config {
            name: self.members[at].name.clone(),
            peers: peers.collect(),
            cluster_id_seed: Some(at as u64),
            ..Config::default()
        };
        let member = &mut self.members[at];
        let listener = bind(member.port).await;
        let (engine, files) = (member.engine.clone(), member.files.clone());
        let off = member.clock_off_ms.clone();
        let clock = Arc::new(move || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            (since.as_millis() as u64).saturating_add_signed(off.load(Ordering::Relaxed))
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ended, served) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let logger = slog::Logger::root(slog::Discard, slog::o!());
            let files = Arc::new(files);
            let surroundings = Surroundings { engine, files, listener, clock, logger };
            let shutdown = async {
                if stopped.await.is_err() {
                    std::future::pending().await
                }
            };
            let _ = ended.send(serve(config, surroundings, shutdown).await);
        });
        let (runtime, stop, served) = (Some(runtime), Some(stop), Some(served));
        member.running = Some(Running { runtime, stop, served });
    }

    /// Ends a member as a crash of its process would: what it has written is all that is left.
    pub(crate) fn kill(&mut self, at: usize) {
        let running = self.members[at].running.take();
        assert!(running.is_some(), "member {at} runs");
    }

    /// Gives a member that does not run an empty disk.
    pub(crate) fn empty(&mut self, at: usize) {
        let member = &mut self.members[at];
        assert!(member.running.is_none(), "member {at} runs");
        (member.engine, member.files) = (Arc::new(MemEngine::new()), MemFiles::new());
    }

    /// How a member that ends by itself ended.
    pub(crate) async fn ended(&mut self, at: usize) -> Result<(), scheduler::server::Error> {
        let mut running = self.members[at].running.take().unwrap();
        let served = tokio::time::timeout(DEADLINE, running.served.take().unwrap()).await;
        served.unwrap().unwrap()
    }

    /// Stops a member in good order.
    pub(crate) async fn stop(&mut self, at: usize) {
        let mut running = self.members[at].running.take().unwrap();
        running.stop.take().unwrap().send(()).unwrap();
        let served = tokio::time::timeout(DEADLINE, running.served.take().unwrap()).await;
        served.unwrap().unwrap().unwrap();
    }

    /// Lets a member's clock jump.
    pub(crate) fn jump(&self, at: usize, off: Duration, back: bool) {
        let off = i64::try_from(off.as_millis()).unwrap();
        self.members[at].clock_off_ms.store(if back { -off } else { off }, Ordering::Relaxed);
    }

    /// Cuts a member off from the other members, or reconnects it. Clients still reach it.
    pub(crate) fn isolate(&self, at: usize, isolated: bool) {
        for way in self.ways.iter().filter(|way| way.from == at || way.to == at) {
            way.open.send_replace(!isolated);
        }
    }

    /// Where a member is.
    pub(crate) fn address(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.members[at].port)
    }

    /// A connection to a member.
    pub(crate) fn channel(&self, at: usize) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address(at))).unwrap();
        endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy()
    }

    /// A client of one member.
    pub(crate) fn pd(&self, at: usize) -> PdClient<Channel> {
        PdClient::new(self.channel(at))
    }

    /// What a member says about all.
    pub(crate) async fn members(&self, at: usize) -> Result<GetMembersResponse, Status> {
        let answer = self.pd(at).get_members(pdpb::GetMembersRequest::default()).await;
        answer.map(tonic::Response::into_inner)
    }

    /// The member that serves, by what it says itself.
    pub(crate) async fn leader(&self) -> usize {
        let start = Instant::now();
        loop {
            for at in (0..self.count()).filter(|at| self.members[*at].running.is_some()) {
                let asked = tokio::time::timeout(Duration::from_secs(1), self.members(at)).await;
                if let Ok(Ok(GetMembersResponse { leader: Some(leader), .. })) = asked
                    && leader.name == self.members[at].name
                {
                    return at;
                }
            }
            assert!(start.elapsed() < DEADLINE, "nobody serves");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until every member's page says that every member has taken part.
    pub(crate) async fn everybody_took_part(&self) {
        let start = Instant::now();
        for at in 0..self.count() {
            for member in 1..=self.count() {
                let path = format!("/flotilla/roll/{member}");
                while crate::pages::get(&self.address(at), &path).await.0 != 200 {
                    assert!(start.elapsed() < DEADLINE, "{path} at {at}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Where the log on a member's disk begins.
    pub(crate) fn first_in_log(&self, at: usize) -> u64 {
        let snapshot = self.members[at].engine.snapshot();
        let mut rows = snapshot.iter(Cf::Raft, keys::log_range_all(REGION));
        assert!(rows.seek_to_first().unwrap(), "the log is never empty");
        match keys::Key::decode(Cf::Raft, rows.key()) {
            Ok(keys::Key::LogEntry(_, index)) => index.0,
            other => panic!("{other:?}"),
        }
    }

    /// The running members that do not lead.
    pub(crate) async fn followers(&self) -> Vec<usize> {
        let leader = self.leader().await;
        let running = |at: &usize| *at != leader && self.members[*at].running.is_some();
        (0..self.count()).filter(running).collect()
    }

    /// The header of a request to this cluster.
    pub(crate) async fn header(&self) -> Option<RequestHeader> {
        let cluster_id =
            self.members(self.leader().await).await.unwrap().header.unwrap().cluster_id;
        Some(RequestHeader { cluster_id, sender_id: 0 })
    }

    /// One timestamp from a member, as one number.
    pub(crate) async fn timestamp(
        &self,
        at: usize,
        header: Option<RequestHeader>,
    ) -> Result<u64, Status> {
        let request = pdpb::TsoRequest { header, count: 1, ..Default::default() };
        let mut stream = self.pd(at).tso(tokio_stream::iter([request])).await?.into_inner();
        let answer = stream.message().await?;
        answer.map(|answer| number(&answer)).ok_or_else(|| Status::unavailable("no answer"))
    }

    /// One timestamp, from whoever serves.
    pub(crate) async fn any_timestamp(&self, header: Option<RequestHeader>) -> u64 {
        let start = Instant::now();
        loop {
            let asked = self.timestamp(self.leader().await, header).await;
            if let Ok(timestamp) = asked {
                return timestamp;
            }
            assert!(start.elapsed() < DEADLINE, "no timestamp: {asked:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A store that can be registered.
pub(crate) fn store(id: u64) -> Option<metapb::Store> {
    let address = format!("127.0.0.1:{}", 20_160 + id);
    Some(metapb::Store { id, address, ..Default::default() })
}

/// A timestamp as one number.
pub(crate) fn number(response: &pdpb::TsoResponse) -> u64 {
    let timestamp = response.timestamp.as_ref().unwrap();
    (timestamp.physical as u64) << 18 | timestamp.logical as u64
}

/// The port of a member that was just killed is free as soon as its tasks are gone.
async fn bind(port: u16) -> StdListener {
    let start = Instant::now();
    loop {
        let bound = TcpListener::bind(("127.0.0.1", port)).await;
        if let Ok(listener) = bound {
            return listener.into_std().unwrap();
        }
        assert!(start.elapsed() < DEADLINE, "port {port}: {bound:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Carries bytes from its port to a member as long as it is open; closing it breaks what it carries.
async fn way(from: usize, to: usize, target: u16) -> Way {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, watch) = watch::channel(true);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(carry(stream, target, watch.clone()));
        }
    });
    Way { from, to, port, open }
}

async fn carry(mut near: TcpStream, target: u16, mut open: watch::Receiver<bool>) {
    if !*open.borrow() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}

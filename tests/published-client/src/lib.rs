//! A playground for the published client's tests: a real cluster of child processes on free ports, gone when dropped.
//!
//! The binary comes from `FLOTILLA_BIN` (the Makefile sets it). The playground tells through its ready file where it listens
//! and which process is which store.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest a cluster may take to serve its first write.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);

/// A running cluster of three stores and a scheduler.
pub struct Playground {
    binary: String,
    process: Child,
    dir: tempfile::TempDir,
    ready: String,
}

impl Playground {
    /// Starts a cluster and waits until it serves.
    ///
    /// # Panics
    /// When the binary is missing or the cluster does not come up: the test cannot go on.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&["--stores", "3"])
    }

    /// The same with arguments of `flotilla playground`.
    ///
    /// # Panics
    /// As above.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let binary = std::env::var("FLOTILLA_BIN")
            .expect("FLOTILLA_BIN names the flotilla binary (run through `make published-client`)");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ready_file = dir.path().join("ready");
        let log = std::fs::File::create(dir.path().join("playground.log")).expect("a log file");
        let mut process = Command::new(&binary)
            .args(["playground", "--port", "0"])
            .args(args)
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the playground starts");
        let ready = wait_for_file(&ready_file, &mut process);
        Self { binary, process, dir, ready }
    }

    /// The schedulers' addresses, `host:port`.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        json_strings(&self.ready, "endpoints")
    }

    /// The first scheduler's address.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.endpoints().into_iter().next().expect("the ready file names an endpoint")
    }

    /// Runs a verb; whether it succeeded.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> bool {
        let output = Command::new(&self.binary)
            .args(["--endpoints", &self.endpoints().join(",")])
            .args(args)
            .output()
            .expect("flotilla runs");
        output.status.success()
    }

    /// Every region, in key order.
    ///
    /// # Panics
    /// When the cluster cannot tell: the test cannot go on.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        let output = Command::new(&self.binary)
            .args(["--endpoints", &self.endpoints().join(",")])
            .args(["--output", "json", "region", "ls"])
            .output()
            .expect("flotilla region ls runs");
        let found: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("region ls prints JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let region = |region: &serde_json::Value| Region {
            id: text(&region["id"]),
            stores: region["peers"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|peer| text(&peer["store"]))
                .collect(),
        };
        found.as_array().expect("a list").iter().map(region).collect()
    }

    /// The process id of the store that leads most regions.
    ///
    /// # Panics
    /// When the cluster cannot tell: the test cannot go on.
    #[must_use]
    pub fn leading_store_pid(&self) -> u32 {
        let output = Command::new(&self.binary)
            .args(["--endpoints", &self.endpoint(), "status", "--output", "json"])
            .output()
            .expect("flotilla status runs");
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        // One object per store: {"address":"…","id":"3","leaders":2,…}.
        let stores = status.split("{\"address\":\"").skip(1);
        let led =
            stores.filter_map(|s| Some((number_after(s, "\"leaders\":")?, s.split('"').next()?)));
        let (_, address) = led.max().expect("the status lists stores");
        // One object per process: {"address":"…","log":"…","name":"store-1","pid":"4711"}.
        let processes = self.ready.split("{\"address\":\"").skip(1);
        let found = processes
            .filter(|p| p.starts_with(address))
            .find_map(|p| number_after(p, "\"pid\":\""));
        found.expect("the ready file lists every store")
    }

    /// Where the cluster keeps its data and its log.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }
}

/// A region as `flotilla region ls` shows it.
#[derive(Clone, Debug)]
pub struct Region {
    /// Its id.
    pub id: String,
    /// The stores of its peers.
    pub stores: Vec<String>,
}

/// The boundary that begins with the first eight bytes of a key, as the command line takes it: it lies between all keys
/// with these eight bytes and the next ones.
#[must_use]
pub fn boundary(key: &str) -> String {
    let group: String = key.bytes().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("x'{group:0<16}ff0000000000000000f7'")
}

impl Drop for Playground {
    fn drop(&mut self) {
        // SIGTERM, so that it stops its children; SIGKILL if it does not within a few seconds.
        signal("-TERM", self.process.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Sends a signal by name to a process.
pub fn signal(name: &str, pid: u32) {
    Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status().ok();
}

fn wait_for_file(path: &std::path::Path, process: &mut Child) -> String {
    let deadline = Instant::now() + READY_WAIT_MAX;
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && text.trim_end().ends_with('}')
        {
            return text;
        }
        if let Ok(Some(status)) = process.try_wait() {
            panic!("the playground ended with {status} before it was ready");
        }
        assert!(
            Instant::now() < deadline,
            "the playground was not ready within {READY_WAIT_MAX:?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every string of the array `"name":[…]`; the ready file is small and ours, so no parser is brought in for it.
fn json_strings(text: &str, name: &str) -> Vec<String> {
    let Some(at) = text.find(&format!("\"{name}\"")) else { return Vec::new() };
    let Some(open) = text[at..].find('[') else { return Vec::new() };
    let list = &text[at + open + 1..];
    let list = &list[..list.find(']').unwrap_or(list.len())];
    list.split(',')
        .map(|s| s.trim().trim_matches('"').to_owned())
        .filter(|s| !s.is_empty())
        .collect()
}

/// The number right after `mark`.
fn number_after(text: &str, mark: &str) -> Option<u32> {
    let rest = &text[text.find(mark)? + mark.len()..];
    rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

//! The harness of the course's cluster tests (projects 2b, 2c and 3b), in virtual time.
//!
//! Same parameters as the course: five stores, one region over everything, ticks of 50 ms, elections after
//! 10 ticks, heartbeats every 2. Clients run for five seconds, three times over; meanwhile the network may lose messages and
//! fall apart; afterwards all stores may crash at once. Peers may come and go meanwhile, one after the other, and regions be
//! cut when they grow. The scheduler, one node that never fails, gives ids and knows where the regions are; its own
//! decisions are not carried out, as the course's stand-in makes none.
//!
//! Differences: a crash here loses everything that was not synced, which a killed process on a living machine would not. A
//! new peer comes as a learner and gets its vote when it has caught up. A peer id is used once, so a peer that comes back to
//! a store comes under a new one. Keys are short enough to differ within eight bytes, since raw keys that do not are never
//! parted.
//!
//! The loss compounds as it does in the course: with an unreliable network and no partitions, every round of chaos adds a
//! filter that drops 10.1 % of what is left, and none is removed until the clients stop.

use super::call::{Call, Outcome};
use super::cluster::{CallOptions, Cluster, Notice, Setup};
use super::invariants::Broken;
use super::knobs::{DiskKnobs, Knobs, ReadMode};
use super::layout::Layout;
use super::network::NetworkKnobs;
use super::rng::{Rng, Stream};
use super::run::store_config;
use super::time::Nanos;
use super::trace::Timeline;
use bytes::Bytes;

/// The election timeout of the course's test configuration.
pub const ELECTION_TIMEOUT: Nanos = Nanos::millis(500);
/// What one filter drops, per mille.
const FILTER_LOSS_PER_MILLE: u64 = 101;
/// The wake-up at which the network changes; clients wake by their own numbers.
const WAKE_CHAOS: u64 = u64::MAX;
/// The wake-up at which the membership is looked at.
const WAKE_CONFCHANGE: u64 = u64::MAX - 1;
/// A client's pause between two calls.
const PAUSE: Nanos = Nanos::millis(5);

/// The columns of the course's table.
#[derive(Clone, Copy, Debug, Default)]
pub struct GenericTest {
    /// Concurrent clients.
    pub clients: u64,
    /// Messages are lost.
    pub unreliable: bool,
    /// All stores crash at the end of each iteration.
    pub crash: bool,
    /// The stores fall into two random groups, again and again.
    pub partitions: bool,
    /// Entries after which logs are compacted.
    pub max_raft_log: Option<u64>,
    /// Peers come and go.
    pub confchange: bool,
    /// Regions are cut above 300 bytes.
    pub split: bool,
}

/// A cluster as the course starts it.
pub fn cluster(seed: u64, stores: usize, max_raft_log: Option<u64>) -> Cluster {
    cluster_with_regions(seed, stores, max_raft_log, (144 << 20, 96 << 20))
}

/// The same, whose regions are cut above so many bytes into parts of so many.
pub fn cluster_with_regions(
    seed: u64,
    stores: usize,
    max_raft_log: Option<u64>,
    (region_max_bytes, region_part_bytes): (u64, u64),
) -> Cluster {
    let knobs = Knobs {
        stores,
        spares: 0,
        schedulers: 1,
        replicas: stores,
        regions: 1,
        groups: 1,
        tick: Nanos::millis(50),
        election_timeout_ticks: 10,
        heartbeat_interval_ticks: 2,
        log_gc_entries: max_raft_log.unwrap_or(128_000),
        message_entries_bytes_max: 1 << 20,
        ready_committed_bytes_max: 1 << 20,
        inflight_messages_max: 256,
        read_mode: ReadMode::Lease,
        clients: 0,
        think: PAUSE,
        reads_per_mille: 0,
        astray_per_mille: 0,
        hasty: false,
        probes: false,
        keys: 0,
        network: NetworkKnobs::CALM,
        disk: DiskKnobs::CALM,
        drift_ppm_max: 0,
        apply_mean: Nanos::micros(50),
        faults: Vec::new(),
        fault_interval: Nanos::secs(1),
        operations: Vec::new(),
        operation_interval: Nanos::secs(1),
        region_max_bytes,
        hibernate_ticks: 0,
        report_ticks: 2,
        merge_timeout_ticks: 40,
        balance: false,
        merge_small: false,
        fault_phase: Nanos::ZERO,
    };
    let mut store_config = store_config(seed, &knobs);
    store_config.log_gc_ticks = 1;
    store_config.region_part_bytes = region_part_bytes;
    store_config.split_check_ticks = 2;
    let layout = Layout::single(stores);
    let setup =
        Setup { seed, knobs, layout, store_config, timeline: Timeline::none(), record: false };
    let mut cluster = Cluster::new(setup);
    cluster.set_attempt_timeout(Nanos::secs(1));
    cluster.spare_the_scheduler();
    cluster
}

/// The patience of the course's client: ten tries or five seconds, whichever is more.
pub fn patience(now: Nanos) -> CallOptions {
    CallOptions { deadline: Some(now + Nanos::secs(5)), attempts_min: 10, repeat_writes: true }
}

fn timed_out(call: &Call, outcome: &Outcome) -> Broken {
    Broken::new("request timeout", format!("{call:?} ended as {outcome:?}"))
}

/// A blocking client for scripts.
pub trait BlockingClient {
    /// Sets a key.
    fn must_put(&mut self, key: &str, value: &str) -> Result<(), Broken>;
    /// Reads a key and compares.
    fn must_get(&mut self, key: &str, value: Option<&str>) -> Result<(), Broken>;
    /// Removes a key.
    fn must_delete(&mut self, key: &str) -> Result<(), Broken>;
    /// The values of a range, one after the other.
    fn must_scan(&mut self, start: &str, end: &str) -> Result<String, Broken>;
    /// Waits, up to six seconds, until the engine of one store holds `value` under `key`.
    fn must_store(&mut self, store: usize, key: &str, value: Option<&str>) -> Result<(), Broken>;
}

impl BlockingClient for Cluster {
    fn must_put(&mut self, key: &str, value: &str) -> Result<(), Broken> {
        let (key, value) = (bytes(key), bytes(value));
        must_write(self, Call::Put { key, value, session: None })
    }

    fn must_get(&mut self, key: &str, value: Option<&str>) -> Result<(), Broken> {
        let call = Call::Get { key: bytes(key) };
        let options = patience(self.now());
        match self.ask_and_wait(call.clone(), options)? {
            Outcome::Value(found) if found == value.map(bytes) => Ok(()),
            Outcome::Value(found) => {
                let what = format!("{key} holds {found:?}, not {value:?}");
                Err(Broken::new("wrong value", what))
            }
            outcome => Err(timed_out(&call, &outcome)),
        }
    }

    fn must_delete(&mut self, key: &str) -> Result<(), Broken> {
        must_write(self, Call::Delete { key: bytes(key) })
    }

    fn must_scan(&mut self, start: &str, end: &str) -> Result<String, Broken> {
        let call = Call::Scan { start: bytes(start), end: bytes(end) };
        let options = patience(self.now());
        match self.ask_and_wait(call.clone(), options)? {
            Outcome::Pairs(pairs) => Ok(concatenated(&pairs)),
            outcome => Err(timed_out(&call, &outcome)),
        }
    }

    fn must_store(&mut self, store: usize, key: &str, value: Option<&str>) -> Result<(), Broken> {
        for _ in 0..300 {
            if self.stored(store, key.as_bytes()) == value.map(bytes) {
                return Ok(());
            }
            self.sleep(Nanos::millis(20))?;
        }
        let found = self.stored(store, key.as_bytes());
        let what = format!("store {} holds {found:?} under {key}, not {value:?}", store + 1);
        Err(Broken::new("wrong value", what))
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn must_write(cluster: &mut Cluster, call: Call) -> Result<(), Broken> {
    let options = patience(cluster.now());
    match cluster.ask_and_wait(call.clone(), options)? {
        Outcome::Written => Ok(()),
        outcome => Err(timed_out(&call, &outcome)),
    }
}

fn concatenated(pairs: &[(Bytes, Bytes)]) -> String {
    pairs.iter().map(|(_, value)| String::from_utf8_lossy(value)).collect()
}

/// One of the course's concurrent clients: the keys it has written, and what they must read as.
#[derive(Clone, Debug, Default)]
struct CourseClient {
    written: u64,
    expected: String,
    busy: bool,
}

fn key(client: u64, number: u64) -> String {
    format!("{client} {number:04}")
}

struct Generic {
    test: GenericTest,
    cluster: Cluster,
    clients: Vec<CourseClient>,
    rng: Rng,
    running: bool,
    filters: u32,
    changing: Option<PeerChange>,
}

/// A change of peers under way: asked for until it is seen.
#[derive(Clone, Copy, Debug)]
struct PeerChange {
    region: u64,
    store: usize,
    /// Add a peer there, or remove the one that is.
    add: bool,
}

/// Runs one row of the course's table.
///
/// # Panics
/// When the test fails, with the seed and the reason.
pub fn generic_test(name: &str, test: GenericTest) {
    // The name is the seed, so that tests differ and stay as they are.
    let seed = name.bytes().fold(2024, |seed: u64, byte| seed.wrapping_mul(131) + u64::from(byte));
    let mut generic = Generic {
        test,
        cluster: match test.split {
            true => cluster_with_regions(seed, 5, test.max_raft_log, (300, 200)),
            false => cluster(seed, 5, test.max_raft_log),
        },
        clients: Vec::new(),
        rng: Rng::new(seed, Stream::Faults),
        running: false,
        filters: 0,
        changing: None,
    };
    let passed = generic.run();
    assert_eq!(passed, Ok(()), "{name} with seed {seed} at {}", generic.cluster.now());
}

impl Generic {
    fn run(&mut self) -> Result<(), Broken> {
        self.cluster.sleep(ELECTION_TIMEOUT.times(2))?;
        for _ in 0..3 {
            self.work()?;
            if self.test.crash {
                self.crash_all()?;
            }
            self.verify()?;
            if let Some(limit) = self.test.max_raft_log {
                self.check_log_sizes(limit)?;
            }
            let first = &self.cluster.regions()[0];
            if self.test.split && first.end_key.is_empty() {
                return Err(Broken::new("regions are cut", format!("{first:?} was not")));
            }
        }
        Ok(())
    }

    /// Five seconds of clients, with chaos in the network if the test wants it.
    fn work(&mut self) -> Result<(), Broken> {
        self.clients = vec![CourseClient::default(); self.test.clients as usize];
        self.running = true;
        let chaos = self.test.unreliable || self.test.partitions;
        for client in 0..self.test.clients {
            self.cluster.wake_after(Nanos::ZERO, client);
        }
        if chaos {
            self.cluster.wake_after(Nanos::millis(300), WAKE_CHAOS);
        }
        if self.test.confchange {
            self.cluster.wake_after(Nanos::millis(100), WAKE_CONFCHANGE);
        }
        self.go_on_until(self.cluster.now() + Nanos::secs(5))?;
        self.running = false;
        if chaos {
            self.cluster.clear_network();
            self.filters = 0;
            self.go_on_until(self.cluster.now() + ELECTION_TIMEOUT)?;
        }
        while self.clients.iter().any(|client| client.busy) {
            self.go_on_until(self.cluster.now() + Nanos::millis(10))?;
        }
        Ok(())
    }

    fn go_on_until(&mut self, end: Nanos) -> Result<(), Broken> {
        while let Some(notice) = self.cluster.run_until(end)? {
            match notice {
                Notice::Wake(_) if !self.running => {}
                Notice::Wake(WAKE_CHAOS) => self.change_network(),
                Notice::Wake(WAKE_CONFCHANGE) => self.change_peers(),
                Notice::Wake(client) => self.begin(client),
                Notice::Done { client, call, outcome } => self.done(client, &call, &outcome)?,
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: u64) {
        let client = &mut self.clients[number as usize];
        client.busy = true;
        let call = if self.rng.chance(500) {
            let value = format!("x {number} {} y", client.written);
            Call::Put {
                key: bytes(&key(number, client.written)),
                value: bytes(&value),
                session: None,
            }
        } else {
            Call::Scan { start: bytes(&key(number, 0)), end: bytes(&key(number, client.written)) }
        };
        let options = patience(self.cluster.now());
        self.cluster.submit(number, call, options);
    }

    fn done(&mut self, number: u64, call: &Call, outcome: &Outcome) -> Result<(), Broken> {
        let client = &mut self.clients[number as usize];
        client.busy = false;
        match (call, outcome) {
            (Call::Put { value, .. }, Outcome::Written) => {
                client.expected.push_str(&String::from_utf8_lossy(value));
                client.written += 1;
            }
            (Call::Scan { .. }, Outcome::Pairs(pairs)) => {
                let found = concatenated(pairs);
                if found != client.expected {
                    let what = format!(
                        "client {number} reads {found:?} and has written {:?}",
                        client.expected
                    );
                    return Err(Broken::new("wrong value", what));
                }
            }
            _ => return Err(timed_out(call, outcome)),
        }
        self.cluster.wake_after(PAUSE, number);
        Ok(())
    }

    /// One round of chaos.
    fn change_network(&mut self) {
        let stores = 5;
        if self.test.partitions {
            self.cluster.clear_network();
            self.filters = 0;
            let (left, right): (Vec<usize>, Vec<usize>) =
                (0..stores).partition(|_| self.rng.chance(500));
            self.cluster.partition(&left, &right);
        }
        if self.test.unreliable {
            self.filters += 1;
            let passed = (0..self.filters)
                .fold(1_000_000, |passed, _| passed * (1000 - FILTER_LOSS_PER_MILLE) / 1000);
            self.cluster.set_loss(1000 - passed / 1000);
        }
        let pause = ELECTION_TIMEOUT + self.rng.span(Nanos::ZERO, Nanos::millis(200));
        self.cluster.wake_after(pause, WAKE_CHAOS);
    }

    /// Asks again for the change under way, or begins the next one.
    fn change_peers(&mut self) {
        let pause = match self.changing {
            Some(PeerChange { region, store, add }) => {
                if self.cluster.is_voter(region, store) == Some(!add) {
                    self.cluster.ask_for_peer(region, store, add);
                    Nanos::millis(50)
                } else {
                    // It is done, or the region is gone.
                    self.changing = None;
                    self.rng.span(Nanos::ZERO, Nanos::millis(200))
                }
            }
            None => {
                let regions = self.cluster.regions();
                let region = self.rng.pick(&regions).clone();
                let store = self.rng.below(5) as usize;
                let there = self.cluster.is_voter(region.id, store) == Some(true);
                if !there || region.peers.len() > 1 {
                    self.changing = Some(PeerChange { region: region.id, store, add: !there });
                }
                Nanos::ZERO
            }
        };
        self.cluster.wake_after(pause.max(Nanos::millis(1)), WAKE_CONFCHANGE);
    }

    fn crash_all(&mut self) -> Result<(), Broken> {
        (0..5).for_each(|store| self.cluster.stop_store(store));
        self.cluster.sleep(ELECTION_TIMEOUT)?;
        (0..5).try_for_each(|store| self.cluster.start_store(store))
    }

    /// Everything a client wrote is there, once and in order; then it is removed.
    fn verify(&mut self) -> Result<(), Broken> {
        for (number, client) in self.clients.clone().iter().enumerate() {
            let number = number as u64;
            let found = self.cluster.must_scan(&key(number, 0), &key(number, client.written))?;
            if found != client.expected {
                let what = format!(
                    "client {number} finds {found:?} and had written {:?}",
                    client.expected
                );
                return Err(Broken::new("wrong value", what));
            }
            for written in 0..client.written {
                self.cluster.must_delete(&key(number, written))?;
            }
        }
        Ok(())
    }

    fn check_log_sizes(&mut self, limit: u64) -> Result<(), Broken> {
        self.cluster.sleep(Nanos::secs(1))?;
        check_log_sizes(&self.cluster, limit)
    }
}

/// No peer's log holds more than twice `limit` applied entries.
pub fn check_log_sizes(cluster: &Cluster, limit: u64) -> Result<(), Broken> {
    for region in cluster.regions() {
        for store in 0..cluster.knobs().stores {
            let apply = cluster.view(store, region.id).apply;
            let held = apply.applied_index.0 - apply.truncated_index.0;
            if held > 2 * limit {
                let id = region.id;
                let what =
                    format!("store {} holds {held} applied entries of region {id}", store + 1);
                return Err(Broken::new("log is compacted", what));
            }
        }
    }
    Ok(())
}

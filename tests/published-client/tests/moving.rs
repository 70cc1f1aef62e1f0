//! The published client's raw client over many regions that split, merge, move and change leaders while it works: every answer
//! is checked against a model.
//!
//! Each worker has a part of the key space to itself, so every answer has one right value. What is left out is what the
//! published client cannot do over several regions whoever serves it: reverse scans (they stay within one region here) and
//! scans that reach the end of the key space (there is a region above all keys here, which is left alone).
//!
//! `FLOTILLA_PUBLISHED_SECONDS` sets how long it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flotilla_published_client::{Playground, boundary};
use tikv_client::{KvPair, RawClient};

const WORKERS: usize = 4;
const GROUPS: u32 = 200;
const REGIONS_MIN: usize = 50;
const SECONDS: u64 = 30;

/// Keys that share their first eight bytes lie in one region for ever.
fn key(worker: usize, group: u32, n: u32) -> String {
    format!("w{worker}{group:06}/{n}")
}

/// A step of a random sequence (splitmix64).
fn dice(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn below(state: &mut u64, n: u32) -> u32 {
    u32::try_from(dice(state) % u64::from(n)).expect("it is below a small number")
}

type Model = BTreeMap<String, String>;

fn plain(pairs: Vec<KvPair>) -> Vec<(String, String)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("ours");
    pairs.into_iter().map(|p| (text(p.0.into()), text(p.1))).collect()
}

fn owned<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<(String, String)> {
    pairs.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What a worker has seen.
#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    /// Errors that the client's own retries did not outlast, by the call that ended with them.
    errors: Vec<String>,
}

struct Worker {
    number: usize,
    client: RawClient,
    seed: u64,
    model: Model,
    tally: Tally,
}

impl Worker {
    fn key(&mut self) -> String {
        let (group, n) = (below(&mut self.seed, GROUPS), below(&mut self.seed, 3));
        key(self.number, group, n)
    }

    fn value(&mut self) -> String {
        format!("{:x}", dice(&mut self.seed)).repeat(4)
    }

    /// A span of the worker's keys of at most so many groups.
    fn span(&mut self, groups: u32) -> (String, String) {
        let start = below(&mut self.seed, GROUPS);
        let end = start + below(&mut self.seed, groups) + 1;
        (key(self.number, start, 0), format!("w{}{end:06}", self.number))
    }

    /// Notes an error. A read is over then; a write is made again until it is acknowledged.
    fn failed(&mut self, call: &str, error: &tikv_client::Error) {
        self.tally.errors.push(format!("{call}: {error}"));
    }

    async fn turn(&mut self) {
        self.tally.calls += 1;
        match below(&mut self.seed, 16) {
            0..=2 => self.get().await,
            3..=6 => self.put().await,
            7 => self.delete().await,
            8 | 9 => self.batch_put().await,
            10 => self.batch_get().await,
            11 => self.batch_delete().await,
            12 => self.delete_range().await,
            13 => self.scan().await,
            14 => self.batch_scan().await,
            _ => self.scan_reverse().await,
        }
    }

    async fn get(&mut self) {
        let key = self.key();
        match self.client.get(key.clone()).await {
            Ok(found) => {
                let want = self.model.get(&key).map(|value| value.clone().into_bytes());
                assert_eq!(found, want, "get {key}");
            }
            Err(error) => self.failed("get", &error),
        }
    }

    async fn put(&mut self) {
        let (key, value) = (self.key(), self.value());
        while let Err(error) = self.client.put(key.clone(), value.clone()).await {
            self.failed("put", &error);
        }
        self.model.insert(key, value);
    }

    async fn delete(&mut self) {
        let key = self.key();
        while let Err(error) = self.client.delete(key.clone()).await {
            self.failed("delete", &error);
        }
        self.model.remove(&key);
    }

    async fn batch_put(&mut self) {
        let count = below(&mut self.seed, 60) + 1;
        let pairs: Model = (0..count).map(|_| (self.key(), self.value())).collect();
        while let Err(error) = self.client.batch_put(pairs.clone()).await {
            self.failed("batch_put", &error);
        }
        self.model.extend(pairs);
    }

    async fn batch_get(&mut self) {
        let keys: Vec<String> = (0..40).map(|_| self.key()).collect();
        match self.client.batch_get(keys.clone()).await {
            Ok(found) => {
                let found: Model = plain(found).into_iter().collect();
                let known = |key: &String| Some((key.clone(), self.model.get(key)?.clone()));
                let want: Model = keys.iter().filter_map(known).collect();
                assert_eq!(found, want, "batch_get");
            }
            Err(error) => self.failed("batch_get", &error),
        }
    }

    async fn batch_delete(&mut self) {
        let keys: Vec<String> = (0..20).map(|_| self.key()).collect();
        while let Err(error) = self.client.batch_delete(keys.clone()).await {
            self.failed("batch_delete", &error);
        }
        keys.iter().for_each(|key| drop(self.model.remove(key)));
    }

    async fn delete_range(&mut self) {
        let (start, end) = self.span(20);
        while let Err(error) = self.client.delete_range(start.clone()..end.clone()).await {
            self.failed("delete_range", &error);
        }
        self.model.retain(|key, _| *key < start || *key >= end);
    }

    async fn scan(&mut self) {
        let (start, end) = self.span(80);
        match self.client.scan(start.clone()..end.clone(), 10_240).await {
            Ok(found) => {
                let want = owned(self.model.range(start.clone()..end.clone()));
                assert_eq!(plain(found), want, "scan {start}..{end}");
            }
            Err(error) => self.failed("scan", &error),
        }
        let (start, end) = self.span(80);
        match self.client.scan_keys(start.clone()..end.clone(), 7).await {
            Ok(found) => {
                let found: Vec<Vec<u8>> = found.into_iter().map(Into::into).collect();
                let want = self.model.range(start.clone()..end.clone()).take(7);
                let want: Vec<Vec<u8>> = want.map(|(k, _)| k.clone().into_bytes()).collect();
                assert_eq!(found, want, "scan_keys {start}..{end}");
            }
            Err(error) => self.failed("scan_keys", &error),
        }
    }

    async fn batch_scan(&mut self) {
        let (start, end) = self.span(30);
        let ranges = vec![start.clone()..end.clone()];
        match self.client.batch_scan(ranges, 10_240).await {
            Ok(found) => {
                let want = owned(self.model.range(start.clone()..end.clone()));
                assert_eq!(plain(found), want, "batch_scan {start}..{end}");
            }
            Err(error) => self.failed("batch_scan", &error),
        }
    }

    /// Within one group: it is in one region, whatever happens.
    async fn scan_reverse(&mut self) {
        let group = below(&mut self.seed, GROUPS);
        let (start, end) = (key(self.number, group, 0), key(self.number, group, 9));
        match self.client.scan_reverse(start.clone()..end.clone(), 100).await {
            Ok(found) => {
                let want = owned(self.model.range(start.clone()..end.clone()).rev());
                assert_eq!(plain(found), want, "scan_reverse {start}..{end}");
            }
            Err(error) => self.failed("scan_reverse", &error),
        }
    }
}

async fn work(number: usize, client: RawClient, until: Instant) -> Tally {
    let model = Model::new();
    let tally = Tally::default();
    let mut worker = Worker { number, client, seed: number as u64 + 1, model, tally };
    while Instant::now() < until {
        worker.turn().await;
    }
    worker.tally
}

/// Where the groups could be parted.
fn cuts() -> Vec<String> {
    let group = |worker: usize, group: u32| boundary(&key(worker, group, 0));
    let inner = (0..WORKERS).flat_map(|w| (0..GROUPS).step_by(14).map(move |g| group(w, g)));
    inner.chain([boundary("zzzzzzzz")]).collect()
}

/// Asks for one change after the other, until told to stop. How many the scheduler agreed to, by kind.
fn stir(playground: &Playground, stop: &AtomicBool) -> [u32; 4] {
    let mut seed = 99;
    let mut agreed = [0; 4];
    while !stop.load(Ordering::Relaxed) {
        let regions = playground.regions();
        // The last one stays where it is: above all keys.
        let at = below(&mut seed, u32::try_from(regions.len() - 1).expect("few")) as usize;
        let region = &regions[at];
        let from = region.stores[below(&mut seed, 3) as usize].clone();
        let stores = regions.iter().flat_map(|region| &region.stores);
        let elsewhere = stores.cloned().find(|store| !region.stores.contains(store));
        let few = regions.len() <= REGIONS_MIN + 4;
        let (kind, done) = match below(&mut seed, 8) {
            0 | 1 if few => {
                let cut = boundary(&key(below(&mut seed, 4) as usize, below(&mut seed, GROUPS), 0));
                (0, playground.run(&["region", "split", "--at", &cut, "--no-wait"]))
            }
            0..=3 if at + 2 < regions.len() && !few => {
                let target = &regions[at + 1].id;
                (1, playground.run(&["region", "merge", &region.id, target, "--no-wait"]))
            }
            4 | 5 if elsewhere.is_some() => {
                let to = elsewhere.expect("just looked at");
                let args =
                    ["region", "move", &region.id, "--from", &from, "--to", &to, "--no-wait"];
                (2, playground.run(&args))
            }
            _ => {
                (3, playground.run(&["region", "transfer-leader", &region.id, &from, "--no-wait"]))
            }
        };
        agreed[kind] += u32::from(done);
    }
    agreed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_right_while_regions_split_merge_and_move() {
    let playground = Arc::new(Playground::start_with(&["--stores", "5"]));
    let mut split = vec!["region".to_owned(), "split".to_owned()];
    split.extend(cuts().into_iter().flat_map(|cut| ["--at".to_owned(), cut]));
    let split: Vec<&str> = split.iter().map(String::as_str).collect();
    assert!(playground.run(&split), "the first cuts");
    let started = Instant::now();
    while playground.regions().len() < REGIONS_MIN {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", playground.regions().len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let seconds = std::env::var("FLOTILLA_PUBLISHED_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let until = Instant::now() + Duration::from_secs(seconds);
    let client = RawClient::new(playground.endpoints()).await.expect("the client connects");
    let workers: Vec<_> =
        (0..WORKERS).map(|n| tokio::spawn(work(n, client.clone(), until))).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let stirrer = {
        let (playground, stop) = (Arc::clone(&playground), Arc::clone(&stop));
        std::thread::spawn(move || stir(&playground, &stop))
    };
    let mut total = Tally::default();
    for worker in workers {
        let tally = worker.await.expect("every answer was right");
        total.calls += tally.calls;
        total.errors.extend(tally.errors);
    }
    stop.store(true, Ordering::Relaxed);
    let agreed = stirrer.join().expect("the stirrer ends");
    let regions = playground.regions().len();
    println!(
        "{} calls over {regions} regions, {} errors; splits, merges, moves, transfers: {agreed:?}",
        total.calls,
        total.errors.len()
    );
    assert!(agreed.iter().all(|count| *count > 0), "the regions stood still: {agreed:?}");
    assert!(regions >= REGIONS_MIN - 10, "{regions} regions are left");
    assert!(total.calls > 500, "only {} calls", total.calls);
    assert!(total.errors.is_empty(), "{:#?}", total.errors);
}

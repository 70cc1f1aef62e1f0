//! The leader kill: how long nobody can write after `kill -9` of the process that leads.
//!
//! The same script for both systems, each time on a fresh cluster: 32 clients put in a closed loop with a short timeout
//! and go on to the next server (or to the one the refusal names) when theirs fails. What counts is the longest time
//! between two successful puts, from the kill on.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proto::kvrpcpb;
use proto::tikvpb::tikv_client::TikvClient;
use tokio::task::LocalSet;
use tonic::transport::Channel;

use super::cluster::{Playground, kill};
use super::data::Dice;
use super::etcd::{self, EtcdCluster};
use super::wire::etcdserverpb::kv_client::KvClient;
use super::{BenchError, connect_lazily, ours};

const CLIENTS: usize = 32;
/// Our stores' settings that give etcd's defaults: heartbeats every 100 ms, elections after 1000 ms or more.
pub(super) const ELECTION: [&str; 3] = ["tick_ms=50", "heartbeat_ticks=2", "election_ticks=20"];
/// Of one put, so that a client does not wait for a dead server.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Before the next try at another server.
const PAUSE: Duration = Duration::from_millis(10);
/// Under load before the kill.
const BEFORE: Duration = Duration::from_millis(1500);
/// Under load after it: no system that we compare takes longer.
const AFTER: Duration = Duration::from_millis(6000);

/// When puts succeeded.
#[derive(Default)]
struct Successes {
    times: RefCell<Vec<Instant>>,
    stopped: Cell<bool>,
}

impl Successes {
    /// The longest time without a success from `from` to `to`.
    fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let times = self.times.borrow();
        let marks = times.iter().copied().filter(|time| (from..=to).contains(time));
        let mut gap = Duration::ZERO;
        let mut last = from;
        for mark in marks.chain([to]) {
            gap = gap.max(mark.duration_since(last));
            last = mark;
        }
        gap
    }
}

/// Kills the leading store of a fresh cluster of ours.
pub(super) async fn ours(directory: &Path, seed: u64) -> Result<Duration, BenchError> {
    let playground = Playground::start(directory, &ELECTION.map(str::to_owned)).await?;
    let (context, leader) = playground.cluster.leader().await?;
    let stores: Vec<(u64, TikvClient<Channel>)> = playground
        .cluster
        .stores()
        .await?
        .into_iter()
        .map(|(id, address)| Ok((id, TikvClient::new(connect_lazily(&address)?))))
        .collect::<Result<_, BenchError>>()?;
    let victim = playground.store_at(&leader)?;
    let first =
        stores.iter().position(|(id, _)| Some(*id) == context.peer.as_ref().map(|p| p.store_id));
    let target = Rc::new(Cell::new(first.unwrap_or(0)));
    let gap = under_load(
        seed,
        || kill(victim),
        |dice, successes| {
            put_to_ours(stores.clone(), context.clone(), Rc::clone(&target), dice, successes)
        },
    );
    let gap = gap.await;
    playground.stop().await;
    Ok(gap)
}

async fn put_to_ours(
    mut stores: Vec<(u64, TikvClient<Channel>)>,
    mut context: kvrpcpb::Context,
    target: Rc<Cell<usize>>,
    dice: Rc<Dice>,
    successes: Rc<Successes>,
) {
    while !successes.stopped.get() {
        let tried = target.get();
        let outcome = ours::try_put(&mut stores[tried].1, &context, &dice, TIMEOUT).await;
        let Err(hint) = outcome else {
            successes.times.borrow_mut().push(Instant::now());
            continue;
        };
        let named =
            hint.as_ref().and_then(|peer| stores.iter().position(|(id, _)| *id == peer.store_id));
        // The first client to notice moves all of them on.
        if target.get() == tried {
            target.set(named.unwrap_or((tried + 1) % stores.len()));
        }
        if hint.is_some() {
            context.peer = hint;
        } else {
            context.peer = None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Kills the leading member of a fresh etcd cluster.
pub(super) async fn etcd(
    binary: &Path,
    directory: &Path,
    seed: u64,
) -> Result<Duration, BenchError> {
    std::fs::create_dir_all(directory)?;
    let mut cluster = EtcdCluster::start(binary, directory).await?;
    let victim = cluster.leader().await?;
    let clients: Vec<KvClient<Channel>> = cluster
        .addresses()
        .iter()
        .map(|address| Ok(KvClient::new(connect_lazily(address)?)))
        .collect::<Result<_, BenchError>>()?;
    let target = Rc::new(Cell::new(victim));
    let pid = cluster.pids()[victim];
    let gap = under_load(
        seed,
        || kill(pid),
        |dice, successes| put_to_etcd(clients.clone(), Rc::clone(&target), dice, successes),
    );
    let gap = gap.await;
    cluster.kill(victim).await?;
    cluster.stop().await;
    Ok(gap)
}

async fn put_to_etcd(
    mut clients: Vec<KvClient<Channel>>,
    target: Rc<Cell<usize>>,
    dice: Rc<Dice>,
    successes: Rc<Successes>,
) {
    while !successes.stopped.get() {
        let tried = target.get();
        match etcd::try_put(&mut clients[tried], &dice, TIMEOUT).await {
            Ok(()) => successes.times.borrow_mut().push(Instant::now()),
            Err(()) => {
                if target.get() == tried {
                    target.set((tried + 1) % clients.len());
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Runs the clients, kills in the middle, and answers the longest gap.
async fn under_load<F: Future<Output = ()> + 'static>(
    seed: u64,
    kill: impl FnOnce(),
    client: impl Fn(Rc<Dice>, Rc<Successes>) -> F,
) -> Duration {
    const KEYS: u64 = 10_000;
    let (dice, successes) = (Rc::new(Dice::new(seed, KEYS)), Rc::new(Successes::default()));
    let tasks = LocalSet::new();
    for _ in 0..CLIENTS {
        tasks.spawn_local(client(Rc::clone(&dice), Rc::clone(&successes)));
    }
    let script = async {
        tokio::time::sleep(BEFORE).await;
        kill();
        let killed = Instant::now();
        tokio::time::sleep(AFTER).await;
        successes.stopped.set(true);
        successes.longest_gap(killed, Instant::now())
    };
    let gap = tasks.run_until(script).await;
    tasks.await;
    gap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_counts_from_the_kill_and_to_the_end() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let successes = Successes::default();
        successes.times.replace(vec![at(10), at(900), at(1000), at(2500), at(2600)]);
        assert_eq!(successes.longest_gap(at(950), at(2700)), Duration::from_millis(1500));
        assert_eq!(successes.longest_gap(at(950), at(9000)), Duration::from_millis(6400));
        let nothing = Successes::default();
        assert_eq!(nothing.longest_gap(at(0), at(700)), Duration::from_millis(700));
    }
}

//! A store dies on which many regions are led: how long until the last of them takes writes again, beside the same kill of
//! etcd's one group.
//!
//! Every region is written in turn by its own client until one write succeeds after the kill; what counts is the region
//! that waits longest.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use proto::kvrpcpb;
use proto::tikvpb::tikv_client::TikvClient;
use tonic::transport::Channel;

use super::super::cluster::{Playground, kill};
use super::super::goals::Levels;
use super::super::kill::{self as one_region, ELECTION};
use super::super::report::{Line, median};
use super::super::{BenchError, connect_lazily};
use super::cut::{cut, pause_balancing};
use super::routes::{Route, spread_key};
use super::{Setting, amount, line};
use crate::context::note;

const KEYS: u64 = 40_000;
/// Kills of each size, at most.
const KILLS_MAX: u32 = 3;
/// Writes under way at once.
const CLIENTS: usize = 32;
/// Of one put, so that nobody waits for a dead server.
const TIMEOUT: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(10);
/// A region that has not come back by then is told as this.
const PATIENCE: Duration = Duration::from_secs(20);

/// Regions led by the victim, what the line says, and its levels.
const SIZES: [(u64, &str, Levels); 2] = [
    (100, "store with 100 leaders kill -9, last region back / etcd", Levels::new(4.0, 2.0, 1.1)),
    (
        1_000,
        "store with 1,000 leaders kill -9, last region back / etcd",
        Levels::new(4.0, 2.0, 1.1),
    ),
];

/// The lines of g14 for many regions.
pub(super) async fn lines(setting: &Setting<'_>) -> Result<Vec<Line>, BenchError> {
    let kills = setting.args.kills.min(KILLS_MAX);
    let place = setting.directory.join("kill-many");
    let mut theirs = Vec::new();
    if let Some(binary) = setting.etcd {
        for number in 0..kills {
            let directory = place.join(format!("etcd-{number}"));
            let gap = one_region::etcd(binary, &directory, u64::from(number)).await?;
            theirs.push(gap.as_secs_f64() * 1e3);
        }
    }
    let mut lines = Vec::new();
    for (regions, title, levels) in SIZES {
        let mut ours = Vec::new();
        for number in 0..kills {
            note(&format!(
                "kill {} of {kills} of a store that leads {regions} regions",
                number + 1
            ));
            let directory = place.join(format!("{regions}-{number}"));
            ours.push(last_back(&directory, regions).await?.as_secs_f64() * 1e3);
            std::fs::remove_dir_all(&directory)?;
        }
        let reference = median(&theirs);
        let ratios: Vec<f64> =
            reference.map_or(Vec::new(), |etcd| ours.iter().map(|gap| gap / etcd).collect());
        let figures = [amount(&ours, "ms"), amount(&theirs, "ms")];
        lines.push(line(("g14-many", title), figures, &ratios, levels));
    }
    Ok(lines)
}

type Stores = BTreeMap<u64, TikvClient<Channel>>;

/// Kills the store that leads the regions of a fresh cluster; how long the last one took to come back.
async fn last_back(directory: &Path, regions: u64) -> Result<Duration, BenchError> {
    let playground = Playground::start(directory, &ELECTION.map(str::to_owned)).await?;
    pause_balancing(&playground.cluster).await?;
    cut(&playground.cluster, regions, KEYS).await?;
    let routes = playground.cluster.routes().await?;
    let addresses = playground.cluster.stores().await?;
    let mut stores = Stores::new();
    for (id, address) in &addresses {
        stores.insert(*id, TikvClient::new(connect_lazily(address)?));
    }
    let victim = most_leading(&routes);
    let address = addresses.get(&victim).map_or("", String::as_str);
    let pid = playground.store_at(address)?;
    let led: Vec<(Route, u64)> = (0..regions)
        .map(|part| part * KEYS / regions + 1)
        .filter_map(|number| Some((holder(&routes, number)?.clone(), number)))
        .filter(|(route, _)| route.leader.store_id == victim)
        .collect();
    kill(pid);
    let killed = Instant::now();
    let mut hands: Vec<Vec<(Route, u64)>> = vec![Vec::new(); CLIENTS];
    for (at, region) in led.into_iter().enumerate() {
        hands[at % CLIENTS].push(region);
    }
    let gaps = hands.into_iter().map(|regions| write_each(regions, stores.clone(), victim, killed));
    let last = futures::future::join_all(gaps).await.into_iter().max();
    playground.stop().await;
    Ok(last.unwrap_or_default())
}

fn most_leading(routes: &[Route]) -> u64 {
    let mut counts = BTreeMap::<u64, usize>::new();
    for route in routes {
        *counts.entry(route.leader.store_id).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(0, |(store, _)| store)
}

fn holder(routes: &[Route], number: u64) -> Option<&Route> {
    let key = spread_key(number, KEYS);
    routes.iter().rev().find(|route| route.region.start_key <= key)
}

/// Writes to each region until it succeeds once; when the last one did, counted from the kill.
async fn write_each(
    mut regions: Vec<(Route, u64)>,
    mut stores: Stores,
    victim: u64,
    killed: Instant,
) -> Duration {
    let mut last = Duration::ZERO;
    let others: Vec<u64> = stores.keys().copied().filter(|id| *id != victim).collect();
    let mut turn = 0;
    while !regions.is_empty() && killed.elapsed() < PATIENCE {
        let mut waiting = Vec::new();
        for (mut route, number) in regions {
            turn += 1;
            let guess = route.leader.store_id;
            let store = if guess == victim { others[turn % others.len()] } else { guess };
            let Some(client) = stores.get_mut(&store) else { continue };
            match put(client, &route, store, number).await {
                Ok(()) => last = killed.elapsed(),
                Err(hint) => {
                    route.leader.store_id = hint.unwrap_or(victim);
                    waiting.push((route, number));
                }
            }
        }
        regions = waiting;
        tokio::time::sleep(PAUSE).await;
    }
    if regions.is_empty() { last } else { PATIENCE }
}

/// One put; a refusal may name the store that leads.
async fn put(
    client: &mut TikvClient<Channel>,
    route: &Route,
    store: u64,
    number: u64,
) -> Result<(), Option<u64>> {
    let mut context = route.context();
    context.peer = route.region.peers.iter().find(|peer| peer.store_id == store).copied();
    let put = kvrpcpb::RawPutRequest {
        context: Some(context),
        key: spread_key(number, KEYS),
        value: bytes::Bytes::from_static(&[b'v'; 256]),
        ..Default::default()
    };
    match tokio::time::timeout(TIMEOUT, client.raw_put(put)).await {
        Ok(Ok(answer)) => match answer.into_inner().region_error {
            None => Ok(()),
            Some(error) => {
                let leader = error.not_leader.and_then(|not_leader| not_leader.leader);
                Err(leader.map(|peer| peer.store_id))
            }
        },
        Ok(Err(_)) | Err(_) => Err(None),
    }
}

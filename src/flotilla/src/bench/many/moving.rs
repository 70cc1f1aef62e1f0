//! What clients feel while regions move (`moving`) and while a lead is handed over (`transfer`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proto::flotillapb::ListOperatorsRequest;
use proto::flotillapb::add_operator_request::{MovePeer, TransferLeader, Wish};
use tokio::task::LocalSet;

use super::super::BenchError;
use super::super::cluster::Playground;
use super::super::data::Dice;
use super::super::goals::Levels;
use super::super::load::{self, Driver, Measurement, Op, Processes, Span};
use super::super::ours::Cluster;
use super::super::report::Line;
use super::cut::{cut, pause_balancing};
use super::routes::Spread;
use super::{Setting, amount, line};
use crate::context::note;

const REGIONS: u64 = 100;
const KEYS: u64 = 100_000;
const CLIENTS: usize = 16;
const ROUNDS_MAX: u32 = 3;
/// A quarter of the regions has moved within this, or the round says nothing.
const MOVES_MAX: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);
/// Transfers of one run, and the time given to each.
const TRANSFERS: usize = 20;
const TRANSFER_SPAN: Duration = Duration::from_millis(1200);

/// The 99th percentile of a put while a quarter of the regions move, against the quiet one.
pub(super) async fn moving(setting: &Setting<'_>) -> Result<Line, BenchError> {
    let directory = setting.directory.join("moving");
    let playground = Playground::start_many(&directory, 4, &[]).await?;
    let cluster = playground.cluster.clone();
    pause_balancing(&cluster).await?;
    cut(&cluster, REGIONS, KEYS).await?;
    let dice = Rc::new(Dice::new(3, KEYS));
    Spread::connect(&cluster).await?.preload(&dice).await?;
    let span = Span {
        warmup: Duration::from_secs_f64(setting.args.warmup.max(0.0)),
        measured: Duration::from_secs_f64(setting.args.seconds.max(0.1)),
    };
    let processes = Processes { measured: playground.pids(), bystanders: Vec::new() };
    let (mut quiet, mut during) = (Vec::new(), Vec::new());
    for round in 0..setting.args.rounds.min(ROUNDS_MAX) {
        note(&format!("moving a quarter of the regions, round {}", round + 1));
        let driver = Spread::connect(&cluster).await?;
        let still = load::run(driver, (Op::Put, CLIENTS), &dice, span, &processes).await;
        let moved = order_moves(&cluster, round).await?;
        // Measured until the last region has arrived, however long that takes.
        let driver = Spread::connect(&cluster).await?;
        let began = Instant::now();
        let mut spans: Vec<Measurement> = Vec::new();
        while spans.is_empty() || (running(&cluster).await? > 0 && began.elapsed() < MOVES_MAX) {
            let span = Span { warmup: Duration::ZERO, ..span };
            let load = (Op::Put, CLIENTS);
            spans.push(load::run(Rc::clone(&driver), load, &dice, span, &processes).await);
        }
        let worst = spans.iter().map(|span| span.p99_us).fold(0.0, f64::max);
        note(&format!("{moved} regions moved in {:.1} s", began.elapsed().as_secs_f64()));
        quiet.push(still.p99_us);
        during.push(worst);
    }
    playground.stop().await;
    let ratios: Vec<f64> =
        during.iter().zip(&quiet).map(|(during, quiet)| during / quiet).collect();
    let figures = [amount(&during, "µs"), amount(&quiet, "µs")];
    let title = "put p99 while 25 of 100 regions move / quiet";
    Ok(line(("moving", title), figures, &ratios, Levels::new(3.0, 2.0, 1.3)))
}

/// Orders one peer of every fourth region to the store that has none; how many.
async fn order_moves(cluster: &Cluster, round: u32) -> Result<usize, BenchError> {
    let mut operations = cluster.operations().await?;
    let stores: Vec<u64> = cluster.stores().await?.into_keys().collect();
    let mut moved = 0;
    for (at, route) in cluster.routes().await?.iter().enumerate() {
        let has = |store: u64| route.region.peers.iter().any(|peer| peer.store_id == store);
        let to = stores.iter().copied().find(|store| !has(*store));
        let from = route.region.peers.iter().find(|peer| peer.id != route.leader.id);
        let (Some(to), Some(from)) = (to, from) else { continue };
        if at % 4 != round as usize % 4 {
            continue;
        }
        let wish = Wish::MovePeer(MovePeer {
            region_id: route.region.id,
            from_store_id: from.store_id,
            to_store_id: to,
        });
        let answer = operations.add_operator(cluster.order(wish)).await?.into_inner();
        moved += usize::from(answer.header.is_none_or(|header| header.error.is_none()));
    }
    Ok(moved)
}

/// Operators that are being carried out.
async fn running(cluster: &Cluster) -> Result<usize, BenchError> {
    let request = ListOperatorsRequest { header: cluster.header(), ..Default::default() };
    let answer = cluster.operations().await?.list_operators(request).await?.into_inner();
    Ok(answer.operators.len())
}

/// The longest time without a successful write around a planned hand-over of the lead.
pub(super) async fn transfer(setting: &Setting<'_>) -> Result<Line, BenchError> {
    let playground = Playground::start(&setting.directory.join("transfer"), &[]).await?;
    let cluster = playground.cluster.clone();
    pause_balancing(&cluster).await?;
    let dice = Rc::new(Dice::new(4, 10_000));
    let driver = Spread::connect(&cluster).await?;
    driver.preload(&dice).await?;
    let writes = Rc::new(Writes::default());
    let tasks = LocalSet::new();
    for client in 0..CLIENTS {
        let (driver, dice, writes) = (Rc::clone(&driver), Rc::clone(&dice), Rc::clone(&writes));
        tasks.spawn_local(async move { writes.keep_on(client, &driver, &dice).await });
    }
    let script = async {
        let mut gaps = Vec::new();
        for _ in 0..TRANSFERS {
            gaps.push(one_transfer(&cluster, &writes).await?);
        }
        writes.stopped.set(true);
        Ok::<_, BenchError>(gaps)
    };
    let gaps = tasks.run_until(script).await;
    writes.stopped.set(true);
    tasks.await;
    playground.stop().await;
    let mut gaps = gaps?;
    gaps.sort_by(f64::total_cmp);
    let title = "leader transfer, longest write gap of 20, ms";
    let worst = gaps.last().copied().unwrap_or_default();
    let mut line = line(
        ("transfer", title),
        [amount(&[worst], "ms"), String::new()],
        &[worst],
        Levels::new(300.0, 100.0, 50.0),
    );
    line.note = format!("median {}", amount(&gaps, "ms"));
    Ok(line)
}

async fn one_transfer(cluster: &Cluster, writes: &Writes) -> Result<f64, BenchError> {
    let key = super::routes::spread_key(0, 10_000);
    let routes = cluster.routes().await?;
    let route = routes.iter().rev().find(|route| route.region.start_key <= key);
    let route = route.ok_or_else(|| BenchError::NotReady("no region".to_owned()))?;
    let to = route.region.peers.iter().find(|peer| peer.id != route.leader.id);
    let to = to.ok_or_else(|| BenchError::NotReady("nobody to hand over to".to_owned()))?;
    let (region_id, to_store_id) = (route.region.id, to.store_id);
    let wish = Wish::TransferLeader(TransferLeader { region_id, to_store_id });
    let began = Instant::now();
    cluster.operations().await?.add_operator(cluster.order(wish)).await?;
    tokio::time::sleep(TRANSFER_SPAN).await;
    while running(cluster).await? > 0 {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(writes.longest_gap(began).as_secs_f64() * 1e3)
}

/// When writes succeeded.
#[derive(Default)]
struct Writes {
    times: RefCell<Vec<Instant>>,
    stopped: Cell<bool>,
}

impl Writes {
    async fn keep_on(&self, client: usize, driver: &Spread, dice: &Dice) {
        while !self.stopped.get() {
            match driver.call(client, Op::Put, dice).await {
                Ok(()) => self.times.borrow_mut().push(Instant::now()),
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    fn longest_gap(&self, from: Instant) -> Duration {
        let now = Instant::now();
        let times = self.times.borrow();
        let mut marks: Vec<Instant> =
            times.iter().copied().filter(|time| *time >= from).chain([now]).collect();
        marks.sort();
        let earlier = std::iter::once(from).chain(marks.iter().copied());
        let gaps = marks.iter().zip(earlier).map(|(mark, before)| mark.duration_since(before));
        gaps.max().unwrap_or_default()
    }
}

//! Throughput against the number of regions (g17), and what ten thousand of them cost while nobody asks for anything
//! (g15, g16, g18): one cluster is cut further and further, beside one that is not cut at all.

use std::rc::Rc;
use std::time::Duration;

use super::super::cluster::{Playground, kill};
use super::super::data::Dice;
use super::super::goals::Levels;
use super::super::load::{self, Op, Processes, Span};
use super::super::report::Line;
use super::super::{BenchError, process};
use super::cut::{cut, pause_balancing};
use super::idle;
use super::routes::Spread;
use super::{Setting, amount, line};
use crate::context::note;

const KEYS: u64 = 40_000;
const CLIENTS: usize = 256;
/// Rounds of each count, at most.
const ROUNDS_MAX: u32 = 3;

/// A number of regions, what its line says, and the floor, the aim and the far aim of its throughput.
const COUNTS: [(u64, &str, Levels); 4] = [
    (10, "put, 256 clients, 10 regions / 1", Levels::new(0.8, 0.95, 1.1)),
    (100, "put, 256 clients, 100 regions / 1", Levels::new(0.7, 0.8, 1.0)),
    (1_000, "put, 256 clients, 1,000 regions / 1", Levels::new(0.6, 0.8, 0.9)),
    (10_000, "put, 256 clients, 10,000 regions / 1", Levels::new(0.5, 0.7, 0.85)),
];

struct Pair {
    one: Playground,
    many: Playground,
    dice: Rc<Dice>,
}

/// The lines of g15 to g18.
pub(super) async fn lines(setting: &Setting<'_>) -> Result<Vec<Line>, BenchError> {
    let start = async |name: &str| -> Result<Playground, BenchError> {
        let playground = Playground::start(&setting.directory.join(name), &[]).await?;
        pause_balancing(&playground.cluster).await?;
        Ok(playground)
    };
    let (one, many) = (start("one").await?, start("many").await?);
    let pair = Pair { one, many, dice: Rc::new(Dice::new(2, KEYS)) };
    for playground in [&pair.one, &pair.many] {
        Spread::connect(&playground.cluster).await?.preload(&pair.dice).await?;
    }
    let mut lines = Vec::new();
    for (regions, title, levels) in COUNTS {
        note(&format!("cutting into {regions} regions"));
        cut(&pair.many.cluster, regions, KEYS).await?;
        if setting.wants("g17") {
            lines.push(throughput(setting, &pair, title, levels).await?);
        }
    }
    lines.extend(idle::lines(setting, &pair.one, &pair.many).await?);
    pair.one.stop().await;
    pair.many.stop().await;
    Ok(lines)
}

async fn throughput(
    setting: &Setting<'_>,
    pair: &Pair,
    title: &'static str,
    levels: Levels,
) -> Result<Line, BenchError> {
    let seconds = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
    let span =
        Span { warmup: seconds(setting.args.warmup), measured: seconds(setting.args.seconds) };
    let (mut ours, mut reference, mut failures) = (Vec::new(), Vec::new(), 0);
    for _ in 0..setting.args.rounds.min(ROUNDS_MAX) {
        for (playground, rates) in [(&pair.many, &mut ours), (&pair.one, &mut reference)] {
            let driver = Spread::connect(&playground.cluster).await?;
            let processes = Processes { measured: playground.pids(), bystanders: bystanders(pair) };
            let load = (Op::Put, CLIENTS);
            let measured = load::run(driver, load, &pair.dice, span, &processes).await;
            failures += measured.failures;
            rates.push(measured.rate);
        }
    }
    let ratios: Vec<f64> = ours.iter().zip(&reference).map(|(many, one)| many / one).collect();
    let figures = [amount(&ours, "/s"), amount(&reference, "/s")];
    let mut line = line(("g17", title), figures, &ratios, levels);
    if failures > 0 {
        line.note = format!("{failures} requests failed");
    }
    Ok(line)
}

fn bystanders(pair: &Pair) -> Vec<process::Pid> {
    pair.one.pids().into_iter().chain(pair.many.pids()).collect()
}

/// Kills the store that leads nothing, so that every region keeps its leader.
pub(super) async fn kill_a_follower(playground: &Playground) -> Result<(), BenchError> {
    let leading: Vec<u64> =
        playground.cluster.routes().await?.iter().map(|route| route.leader.store_id).collect();
    let stores = playground.cluster.stores().await?;
    let least = stores.iter().min_by_key(|(id, _)| leading.iter().filter(|l| l == id).count());
    let (_, address) =
        least.ok_or_else(|| BenchError::NotReady("the cluster has no store".to_owned()))?;
    kill(playground.store_at(address)?);
    Ok(())
}

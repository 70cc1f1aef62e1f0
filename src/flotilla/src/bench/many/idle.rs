//! What many regions cost while nothing happens: processor time and memory of all processes of the cluster.

use std::time::{Duration, Instant};

use super::super::BenchError;
use super::super::cluster::Playground;
use super::super::goals::Levels;
use super::super::process::{CpuMeter, resident_kib};
use super::super::report::Line;
use super::throughput::kill_a_follower;
use super::{Setting, amount, line};
use crate::context::note;

/// Regions of the cluster that is measured.
const REGIONS: f64 = 10_000.0;
/// How long processor time is counted.
const SPAN: Duration = Duration::from_secs(20);
/// Regions may take this long to fall asleep, and this little is what a sleeping cluster uses.
const SETTLE_MAX: Duration = Duration::from_secs(120);
const SETTLED_CORES: f64 = 0.1;
const LOOK: Duration = Duration::from_secs(3);
/// With a store down, before anything is counted.
const DOWN: Duration = Duration::from_secs(60);

/// The lines of g15, g16 and g18. `one` has had the same load on a single region.
pub(super) async fn lines(
    setting: &Setting<'_>,
    one: &Playground,
    many: &Playground,
) -> Result<Vec<Line>, BenchError> {
    let mut lines = Vec::new();
    settle(many).await;
    if setting.wants("g18") {
        lines.push(memory(one, many));
    }
    if setting.wants("g15") {
        let cores = cores(many, SPAN).await;
        let title = "idle cores, 10,000 regions, all processes";
        let levels = Levels::new(0.6, 0.1, 0.03);
        lines.push(line(
            ("g15", title),
            [amount(&[cores], "cores"), String::new()],
            &[cores],
            levels,
        ));
    }
    if setting.wants("g16") {
        kill_a_follower(many).await?;
        note("one store is down, waiting a minute");
        tokio::time::sleep(DOWN).await;
        let cores = cores(many, SPAN).await;
        let title = "idle cores, 10,000 regions, one store down";
        let levels = Levels::new(1.0, 0.3, 0.1);
        lines.push(line(
            ("g16", title),
            [amount(&[cores], "cores"), String::new()],
            &[cores],
            levels,
        ));
    }
    Ok(lines)
}

fn memory(one: &Playground, many: &Playground) -> Line {
    let stores = |playground: &Playground| -> Vec<f64> {
        playground.store_pids().into_iter().map(|pid| resident_kib(pid) as f64).collect()
    };
    let (one, many) = (stores(one), stores(many));
    let each: Vec<f64> =
        many.iter().zip(&one).map(|(many, one)| (many - one).max(0.0) / REGIONS).collect();
    let figures = [amount(&many, "KiB"), amount(&one, "KiB")];
    let title = "memory per idle replica, KiB (resident, beside 1 region)";
    line(("g18", title), figures, &each, Levels::new(40.0, 15.0, 6.0))
}

/// Waits until the cluster is quiet, if it ever is.
async fn settle(playground: &Playground) {
    let began = Instant::now();
    while began.elapsed() < SETTLE_MAX && cores(playground, LOOK).await > SETTLED_CORES {}
}

/// Processors used over a span, on average.
async fn cores(playground: &Playground, span: Duration) -> f64 {
    let (meter, began) = (CpuMeter::start(&playground.pids(), &[]), Instant::now());
    tokio::time::sleep(span).await;
    meter.stop().seconds / began.elapsed().as_secs_f64()
}

//! Everything that a run needs, set up once: the clusters, the echo, the data; and one round over all cells.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::cluster::Playground;
use super::data::Dice;
use super::echo::{EchoDriver, EchoProcess};
use super::etcd::{self, Etcd, EtcdCluster};
use super::goals::{Cell, SLOW_SYNC_MS, System};
use super::load::{self, Measurement, Op, Processes, Span};
use super::ours::{Cluster, Ours, Protocol};
use super::process::Pid;
use super::report::Round;
use super::{Args, BenchError, limits};
use crate::context::note;

/// The counter of a store's status that counts syncs of its log.
const SYNC_COUNTER: &str = "log_syncs";

/// The systems of a run.
pub(super) struct Rig {
    directory: Directory,
    dice: Rc<Dice>,
    span: Span,
    ours: Option<(Option<Playground>, Cluster)>,
    slow: Option<Playground>,
    etcd: Option<EtcdCluster>,
    etcd_binary: Option<PathBuf>,
    echo: Option<EchoProcess>,
}

/// Where the data are; removed at the end when it was made for this run.
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    fn create(given: Option<&Path>) -> Result<Self, BenchError> {
        let base = given.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = base.join(format!("flotilla-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    /// The path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A leftover does no harm.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Rig {
    /// Starts what the cells need.
    pub(super) async fn set_up(args: &Args, cells: &[Cell]) -> Result<Self, BenchError> {
        let needs = |wanted: fn(System) -> bool| cells.iter().any(|cell| wanted(cell.system));
        let directory = Directory::create(args.dir.as_deref())?;
        let dice = Rc::new(Dice::new(1, args.keys));
        let seconds = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
        let span = Span { warmup: seconds(args.warmup), measured: seconds(args.seconds) };
        let mut rig = Self {
            directory,
            dice,
            span,
            ours: None,
            slow: None,
            etcd: None,
            etcd_binary: None,
            echo: None,
        };
        if !args.no_etcd {
            match etcd::find(args.etcd.as_deref()).await {
                Ok(binary) => rig.etcd_binary = Some(binary),
                Err(error) => note(&error.to_string()),
            }
        }
        if needs(System::is_ours) {
            rig.start_ours(args.cluster.as_deref()).await?;
        }
        if needs(|system| system == System::SlowDisk) && args.cluster.is_none() {
            let place = rig.directory.path().join("slow");
            rig.slow = Some(
                Playground::start(&place, &[format!("log_sync_delay_ms={SLOW_SYNC_MS}")]).await?,
            );
        }
        if needs(|system| system == System::Etcd) {
            rig.start_etcd().await?;
        }
        if needs(|system| matches!(system, System::EchoUnary | System::EchoStream)) {
            rig.echo = Some(EchoProcess::start().await?);
        }
        Ok(rig)
    }

    async fn start_ours(&mut self, endpoint: Option<&str>) -> Result<(), BenchError> {
        let (playground, cluster) = match endpoint {
            Some(endpoint) => (None, Cluster::join(endpoint).await?),
            None => {
                let place = self.directory.path().join("ours");
                let playground = Playground::start(&place, &[]).await?;
                let cluster = playground.cluster.clone();
                (Some(playground), cluster)
            }
        };
        note("our cluster is up, loading its keys");
        cluster.preload(&self.dice).await?;
        self.ours = Some((playground, cluster));
        Ok(())
    }

    async fn start_etcd(&mut self) -> Result<(), BenchError> {
        let Some(binary) = &self.etcd_binary else { return Ok(()) };
        let cluster = EtcdCluster::start(binary, &self.directory.path().join("etcd")).await?;
        note(&format!("etcd {} is up, loading its keys", cluster.version().await?));
        Etcd::connect(&cluster).await?.preload(&self.dice).await?;
        self.etcd = Some(cluster);
        Ok(())
    }

    /// Measures every cell once. Odd rounds go backwards, so that nobody always comes first.
    pub(super) async fn round(
        &self,
        cells: &[Cell],
        number: u32,
        of: u32,
    ) -> Result<Round, BenchError> {
        let mut cells = cells.to_vec();
        if number % 2 == 1 {
            cells.reverse();
        }
        let mut round = Round::new();
        for cell in cells {
            let Some(measured) = self.measure(cell).await? else { continue };
            note(&format!(
                "round {} of {of}: {:?} {:?} × {}: {:.0}/s",
                number + 1,
                cell.system,
                cell.op,
                cell.clients,
                measured.rate
            ));
            round.insert(cell, measured);
        }
        Ok(round)
    }

    /// One cell; nothing when its system is not there.
    async fn measure(&self, cell: Cell) -> Result<Option<Measurement>, BenchError> {
        let load = (cell.op, cell.clients);
        let place = self.directory.path().join("limits");
        let processes = self.processes(cell.system);
        let measured = match cell.system {
            System::Stream | System::Unary => {
                let Some((_, cluster)) = &self.ours else { return Ok(None) };
                return self.measure_ours(cluster, cell).await.map(Some);
            }
            System::SlowDisk => {
                let Some(slow) = &self.slow else { return Ok(None) };
                return self.measure_ours(&slow.cluster, cell).await.map(Some);
            }
            System::Etcd => {
                let Some(cluster) = &self.etcd else { return Ok(None) };
                let driver = Etcd::connect(cluster).await?;
                load::run(driver, load, &self.dice, self.span, &processes).await
            }
            System::EchoUnary | System::EchoStream => {
                let Some(echo) = &self.echo else { return Ok(None) };
                let driver = EchoDriver::connect(echo, protocol(cell.system)).await?;
                load::run(driver, load, &self.dice, self.span, &processes).await
            }
            System::SyncedPuts => limits::synced_puts(&place, self.span, self.dice.keys())?,
            System::Replicated => limits::replicated(&place, self.span, self.dice.keys())?,
        };
        Ok(Some(measured))
    }

    async fn measure_ours(&self, cluster: &Cluster, cell: Cell) -> Result<Measurement, BenchError> {
        let counts_syncs = cell.op == Op::Put;
        let driver = Ours::connect(cluster, protocol(cell.system)).await?;
        let load = (cell.op, cell.clients);
        let processes = self.processes(cell.system);
        let before = if counts_syncs { cluster.counters(SYNC_COUNTER).await? } else { Vec::new() };
        let puts_before = driver.answered();
        let mut measured =
            load::run(Rc::clone(&driver), load, &self.dice, self.span, &processes).await;
        if counts_syncs {
            let after = cluster.counters(SYNC_COUNTER).await?;
            let most = after.iter().zip(&before).map(|(after, before)| after - before).max();
            let puts = driver.answered() - puts_before;
            measured.syncs = most.filter(|_| puts > 0).map(|syncs| syncs as f64 / puts as f64);
        }
        Ok(measured)
    }

    /// Whose processor time a cell costs, and who is idle beside it.
    fn processes(&self, system: System) -> Processes {
        let playground = self.ours.as_ref().and_then(|(playground, _)| playground.as_ref());
        let ours = playground.map_or(Vec::new(), Playground::pids);
        let slow = self.slow.as_ref().map_or(Vec::new(), Playground::pids);
        let etcd = self.etcd.as_ref().map_or(Vec::new(), EtcdCluster::pids);
        let echo = self.echo.as_ref().map_or(Vec::new(), EchoProcess::pids);
        let bystanders: Vec<Pid> =
            [&ours, &slow, &etcd, &echo].into_iter().flatten().copied().collect();
        let measured = match system {
            System::Stream | System::Unary => ours,
            System::SlowDisk => slow,
            System::Etcd => etcd,
            System::EchoUnary | System::EchoStream => echo,
            System::SyncedPuts | System::Replicated => Vec::new(),
        };
        Processes { measured, bystanders }
    }

    /// Ends all systems; answers where etcd's binary is and where data may be put.
    pub(super) async fn tear_down(self) -> (Option<PathBuf>, Directory) {
        if let Some((Some(playground), _)) = self.ours {
            playground.stop().await;
        }
        if let Some(playground) = self.slow {
            playground.stop().await;
        }
        if let Some(cluster) = self.etcd {
            cluster.stop().await;
        }
        if let Some(echo) = self.echo {
            echo.stop().await;
        }
        (self.etcd_binary, self.directory)
    }
}

fn protocol(system: System) -> Protocol {
    match system {
        System::Unary | System::EchoUnary => Protocol::Unary,
        System::Stream
        | System::SlowDisk
        | System::EchoStream
        | System::Etcd
        | System::SyncedPuts
        | System::Replicated => Protocol::Stream,
    }
}

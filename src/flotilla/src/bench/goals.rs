//! What is compared with what, and how good is good enough.
//!
//! A *cell* is one system under one load, measured once per round. A *goal* compares two cells of the same round, or
//! takes a cell's own figure. Absolute figures drift from machine to machine and hour to hour; ratios within a round do
//! not. *must* is the floor, *target* the aim, *stretch* where the design should end up.

use super::load::{Measurement, Op};

/// A system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum System {
    /// Our cluster, all requests on one stream.
    Stream,
    /// Our cluster, one call per request.
    Unary,
    /// Our cluster with [`SLOW_SYNC_MS`] added to every sync of the log, by stream.
    SlowDisk,
    /// etcd, three members.
    Etcd,
    /// Bare gRPC, one call per request.
    EchoUnary,
    /// Bare gRPC, one stream.
    EchoStream,
    /// RocksDB alone: 64 threads, each put synced.
    SyncedPuts,
    /// RocksDB alone: three replicas' log and data, 64 entries per sync.
    Replicated,
}

/// Added to every log sync for [`System::SlowDisk`].
pub(super) const SLOW_SYNC_MS: u64 = 2;

impl System {
    /// Whether it is ours.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::Stream | Self::Unary | Self::SlowDisk)
    }
}

/// One system under one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    /// Who.
    pub(super) system: System,
    /// Doing what.
    pub(super) op: Op,
    /// For how many clients.
    pub(super) clients: usize,
}

/// A figure of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// Answers per second.
    Rate,
    /// Median latency.
    P50,
    /// 99th percentile of the latency.
    P99,
    /// Processor time per answer.
    Cpu,
    /// Syncs per put.
    Syncs,
}

impl Metric {
    /// The figure, when it was measured.
    pub(super) fn of(self, measurement: &Measurement) -> Option<f64> {
        match self {
            Self::Rate => Some(measurement.rate),
            Self::P50 => Some(measurement.p50_us),
            Self::P99 => Some(measurement.p99_us),
            Self::Cpu => measurement.cpu_us,
            Self::Syncs => measurement.syncs,
        }
    }

    /// Its unit, for the table.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Rate => "/s",
            Self::P50 | Self::P99 | Self::Cpu => "µs",
            Self::Syncs => "",
        }
    }
}

/// A goal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    /// Its name on the command line.
    pub(super) case: &'static str,
    /// What it says.
    pub(super) title: &'static str,
    /// The figure compared.
    pub(super) metric: Metric,
    /// Ours.
    pub(super) ours: Cell,
    /// The other side of the ratio; none: our figure itself is the goal.
    pub(super) reference: Option<Cell>,
    /// The floor, the aim, and where the design should end up.
    pub(super) levels: Levels,
}

/// The three levels of a goal. Whether more or less is better is told by their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    /// Below it something is wrong.
    pub(super) must: f64,
    /// The aim.
    pub(super) target: f64,
    /// The far aim.
    pub(super) stretch: f64,
}

/// How far a figure gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Not even the generous floor of `--check`.
    Fails,
    /// Not the floor.
    Below,
    /// The floor.
    Must,
    /// The aim.
    Target,
    /// The far aim.
    Stretch,
}

impl Levels {
    /// How generous `--check` is: machines differ, and other processes steal time.
    const SLACK: f64 = 0.7;

    /// A floor, an aim and a far aim.
    pub(super) const fn new(must: f64, target: f64, stretch: f64) -> Self {
        Self { must, target, stretch }
    }

    /// Whether less is better.
    pub(super) fn less_is_better(self) -> bool {
        self.stretch < self.must
    }

    /// Judges a figure. Counts are free of noise, so they get no slack.
    pub(super) fn judge(self, figure: f64, is_count: bool) -> Verdict {
        let reaches = |level: f64| {
            if self.less_is_better() { figure <= level } else { figure >= level }
        };
        let slack = if is_count { 1.0 } else { Self::SLACK };
        let floor = if self.less_is_better() { self.must / slack } else { self.must * slack };
        match () {
            () if reaches(self.stretch) => Verdict::Stretch,
            () if reaches(self.target) => Verdict::Target,
            () if reaches(self.must) => Verdict::Must,
            () if reaches(floor) => Verdict::Below,
            () => Verdict::Fails,
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Fails => "FAILS",
            Self::Below => "below must",
            Self::Must => "must",
            Self::Target => "target",
            Self::Stretch => "stretch",
        })
    }
}

const fn cell(system: System, op: Op, clients: usize) -> Cell {
    Cell { system, op, clients }
}

const PUT: Cell = cell(System::Stream, Op::Put, 256);
const ETCD_PUT: Cell = cell(System::Etcd, Op::Put, 256);
const GET: Cell = cell(System::Stream, Op::Get, 256);
const ETCD_GET: Cell = cell(System::Etcd, Op::Get, 256);
const SCAN: Cell = cell(System::Unary, Op::Scan, 64);

const fn goal(
    case: &'static str,
    title: &'static str,
    (metric, ours, reference): (Metric, Cell, Option<Cell>),
    levels: Levels,
) -> Goal {
    Goal { case, title, metric, ours, reference, levels }
}

/// All goals that are figures of a load; the leader kill (`g14`) is beside them.
pub(super) const GOALS: [Goal; 16] = [
    goal(
        "g1",
        "put, 256 clients, stream / etcd",
        (Metric::Rate, PUT, Some(ETCD_PUT)),
        Levels::new(1.5, 2.5, 4.0),
    ),
    goal(
        "g2",
        "put, 256 clients, unary / etcd",
        (Metric::Rate, cell(System::Unary, Op::Put, 256), Some(ETCD_PUT)),
        Levels::new(1.0, 1.4, 2.0),
    ),
    goal(
        "g3",
        "put p50, 1 client / etcd",
        (Metric::P50, cell(System::Stream, Op::Put, 1), Some(cell(System::Etcd, Op::Put, 1))),
        Levels::new(0.9, 0.6, 0.45),
    ),
    goal(
        "g4",
        "put p99, 64 clients / etcd",
        (Metric::P99, cell(System::Stream, Op::Put, 64), Some(cell(System::Etcd, Op::Put, 64))),
        Levels::new(1.0, 0.5, 0.3),
    ),
    goal(
        "g5",
        "put, 256 clients / RocksDB synced puts, 64 threads",
        (Metric::Rate, PUT, Some(cell(System::SyncedPuts, Op::Put, 64))),
        Levels::new(0.4, 0.75, 1.2),
    ),
    goal(
        "g6",
        "put, 256 clients / storage of 3 replicas, 64 per sync",
        (Metric::Rate, PUT, Some(cell(System::Replicated, Op::Put, 64))),
        Levels::new(0.2, 0.38, 0.6),
    ),
    goal(
        "g7",
        "get, 256 clients, stream / etcd linearizable",
        (Metric::Rate, GET, Some(ETCD_GET)),
        Levels::new(1.5, 3.0, 5.0),
    ),
    goal(
        "g8",
        "get, 256 clients, unary / bare unary echo",
        (
            Metric::Rate,
            cell(System::Unary, Op::Get, 256),
            Some(cell(System::EchoUnary, Op::Get, 256)),
        ),
        Levels::new(0.6, 0.75, 0.85),
    ),
    goal(
        "g9",
        "get, 256 clients, stream / bare stream echo",
        (Metric::Rate, GET, Some(cell(System::EchoStream, Op::Get, 256))),
        Levels::new(0.08, 0.15, 0.25),
    ),
    goal(
        "g10",
        "get p50, 1 client / etcd linearizable",
        (Metric::P50, cell(System::Stream, Op::Get, 1), Some(cell(System::Etcd, Op::Get, 1))),
        Levels::new(0.7, 0.45, 0.3),
    ),
    goal(
        "g11",
        "scan of 100, 64 clients / etcd bounded range",
        (Metric::Rate, SCAN, Some(cell(System::Etcd, Op::Scan, 64))),
        Levels::new(1.2, 2.0, 3.0),
    ),
    goal(
        "g11",
        "scan of 100, 64 clients / bare echo of 100 rows",
        (Metric::Rate, SCAN, Some(cell(System::EchoUnary, Op::Scan, 64))),
        Levels::new(0.3, 0.5, 0.7),
    ),
    goal(
        "g12",
        "put, 256 clients, +2 ms per log sync / without",
        (Metric::Rate, cell(System::SlowDisk, Op::Put, 256), Some(PUT)),
        Levels::new(0.5, 0.8, 0.95),
    ),
    goal(
        "g19",
        "log syncs per put, 256 clients, per store",
        (Metric::Syncs, PUT, None),
        Levels::new(0.2, 0.05, 0.02),
    ),
    goal(
        "g20",
        "CPU per put, 256 clients / etcd",
        (Metric::Cpu, PUT, Some(ETCD_PUT)),
        Levels::new(0.7, 0.35, 0.25),
    ),
    goal(
        "g20",
        "CPU per get, 256 clients / etcd",
        (Metric::Cpu, GET, Some(ETCD_GET)),
        Levels::new(0.7, 0.35, 0.25),
    ),
];

/// The leader kill: longest time without a successful write, as a ratio of the medians.
pub(super) const LEADER_KILL: (&str, Levels) = ("g14", Levels::new(1.6, 1.1, 0.8));

/// Every name that `--cases` takes.
pub(super) fn cases() -> Vec<&'static str> {
    let mut cases: Vec<&str> = GOALS.iter().map(|goal| goal.case).collect();
    cases.push(LEADER_KILL.0);
    cases.extend(super::many::CASES);
    cases.dedup();
    cases
}

/// The cells that these goals need, each once, ours next to its reference, so that both see the same minute.
pub(super) fn cells(goals: &[Goal]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for goal in goals {
        for cell in [Some(goal.ours), goal.reference].into_iter().flatten() {
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_one_way_or_the_other() {
        for Goal { title, levels, .. } in GOALS {
            let Levels { must, target, stretch } = levels;
            let ordered = must < target && target < stretch || must > target && target > stretch;
            assert!(ordered, "{title}");
        }
    }

    #[test]
    fn judges_in_both_directions() {
        let more = Levels::new(1.5, 2.5, 4.0);
        let verdicts = [0.9, 1.2, 1.5, 2.5, 5.0].map(|figure| more.judge(figure, false));
        let all =
            [Verdict::Fails, Verdict::Below, Verdict::Must, Verdict::Target, Verdict::Stretch];
        assert_eq!(verdicts, all);
        let less = Levels::new(0.7, 0.35, 0.25);
        let verdicts = [1.1, 0.9, 0.7, 0.3, 0.1].map(|figure| less.judge(figure, false));
        assert_eq!(verdicts, all);
        assert_eq!(less.judge(0.71, true), Verdict::Fails, "a count has no slack");
    }

    #[test]
    fn every_cell_is_measured_once_per_round() {
        let all = cells(&GOALS);
        let mut unique = all.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(all.len(), unique.len());
        assert!(all.iter().any(|cell| cell.system == System::Etcd));
    }
}

//! From rounds to the table.
//!
//! The ratio of a goal is the median of its per-round ratios, and its range is told beside it. A round in which strangers
//! used more than [`OTHER_CORES_MAX`] of a processor during one of the two cells is not counted, unless all are like that:
//! then all are, and the table says so.

use std::collections::BTreeMap;
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::goals::{Cell, Goal, Levels, Metric, Verdict};
use super::load::Measurement;

/// Above it a cell is noisy.
const OTHER_CORES_MAX: f64 = 0.25;

/// The cells of one round.
pub(super) type Round = BTreeMap<Cell, Measurement>;

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) case: &'static str,
    pub(super) title: &'static str,
    /// Ours and the reference, medians, with their unit.
    pub(super) figures: [String; 2],
    /// Median, least and greatest figure; nothing when it could not be measured.
    pub(super) ratio: Option<[f64; 3]>,
    pub(super) levels: Levels,
    pub(super) verdict: Option<Verdict>,
    /// For people.
    pub(super) note: String,
}

/// The middle one of several figures; the mean of the two middle ones.
pub(super) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[odd / 2]),
        even => Some((sorted[even / 2 - 1] + sorted[even / 2]) / 2.0),
    }
}

/// The line of a goal.
pub(super) fn line(goal: &Goal, rounds: &[Round]) -> Line {
    let mut line = Line {
        case: goal.case,
        title: goal.title,
        figures: [String::new(), String::new()],
        ratio: None,
        levels: goal.levels,
        verdict: None,
        note: String::new(),
    };
    let compared: Vec<Compared> = rounds.iter().filter_map(|round| compare(goal, round)).collect();
    let quiet: Vec<Compared> = compared.iter().copied().filter(|c| !c.noisy).collect();
    let counted = if quiet.is_empty() { &compared } else { &quiet };
    let of = |figure: fn(&Compared) -> f64| counted.iter().map(figure).collect::<Vec<f64>>();
    let ratios = of(|c| c.ratio);
    let Some(middle) = median(&ratios) else {
        line.note = "not measured".to_owned();
        return line;
    };
    if quiet.is_empty() {
        line.note = "every round was noisy".to_owned();
    } else if quiet.len() < compared.len() {
        line.note = format!("{} noisy rounds left out", compared.len() - quiet.len());
    }
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    line.figures[0] = amount(goal.metric, median(&of(|c| c.ours)));
    if goal.reference.is_some() {
        line.figures[1] = amount(goal.metric, median(&of(|c| c.reference)));
    }
    line.ratio = Some([middle, least, greatest]);
    line.verdict = Some(goal.levels.judge(middle, goal.metric == Metric::Syncs));
    line
}

#[derive(Clone, Copy)]
struct Compared {
    ours: f64,
    reference: f64,
    ratio: f64,
    noisy: bool,
}

fn compare(goal: &Goal, round: &Round) -> Option<Compared> {
    let cell = round.get(&goal.ours)?;
    let ours = goal.metric.of(cell)?;
    let noisy = |measurement: &Measurement| measurement.other_cores > OTHER_CORES_MAX;
    let Some(reference) = goal.reference else {
        return Some(Compared { ours, reference: 1.0, ratio: ours, noisy: noisy(cell) });
    };
    let other = round.get(&reference)?;
    let reference = goal.metric.of(other)?;
    let ratio = ours / reference;
    ratio.is_finite().then_some(Compared {
        ours,
        reference,
        ratio,
        noisy: noisy(cell) || noisy(other),
    })
}

fn amount(metric: Metric, figure: Option<f64>) -> String {
    match figure {
        None => String::new(),
        Some(micros) if metric.unit() == "µs" && micros >= 1e3 => {
            format!("{} ms", short(micros / 1e3))
        }
        Some(figure) => format!("{} {}", short(figure), metric.unit()).trim_end().to_owned(),
    }
}

/// Three significant digits, thousands as `k`.
pub(super) fn short(figure: f64) -> String {
    match figure {
        f if f >= 99_950.0 => format!("{:.0}k", f / 1e3),
        f if f >= 9_995.0 => format!("{:.1}k", f / 1e3),
        f if f >= 100.0 => format!("{f:.0}"),
        f if f >= 10.0 => format!("{f:.1}"),
        f if f >= 0.1 => format!("{f:.2}"),
        f => format!("{f:.4}"),
    }
}

/// Prints the table, as Markdown, so that it can be put into a document as it is.
pub(super) fn print(lines: &[Line], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "case",
        "goal",
        "ours",
        "reference",
        "ratio",
        "range",
        "must",
        "target",
        "stretch",
        "reached",
        "",
    ]);
    for line in lines {
        let sign = if line.levels.less_is_better() { "≤" } else { "≥" };
        let [ratio, range] = match line.ratio {
            None => [String::new(), String::new()],
            Some([middle, least, greatest]) => {
                [short(middle), format!("{}–{}", short(least), short(greatest))]
            }
        };
        let [ours, reference] = line.figures.clone();
        let verdict = line.verdict.map_or("–".to_owned(), |verdict| verdict.to_string());
        table.add_row([
            line.case.to_owned(),
            line.title.to_owned(),
            ours,
            reference,
            ratio,
            range,
            format!("{sign} {}", line.levels.must),
            format!("{sign} {}", line.levels.target),
            format!("{sign} {}", line.levels.stretch),
            verdict,
            line.note.clone(),
        ]);
    }
    for column in 2..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")
}

/// Prints every cell's medians: the raw material of the table.
pub(super) fn print_cells(rounds: &[Round], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "system", "load", "clients", "rate/s", "p50 µs", "p99 µs", "CPU µs", "other", "failures",
    ]);
    let mut cells: Vec<&Cell> = rounds.iter().flat_map(|round| round.keys()).collect();
    cells.sort();
    cells.dedup();
    for cell in cells {
        let runs: Vec<&Measurement> = rounds.iter().filter_map(|round| round.get(cell)).collect();
        let middle = |figure: fn(&Measurement) -> Option<f64>| {
            let figures: Vec<f64> = runs.iter().filter_map(|run| figure(run)).collect();
            median(&figures).filter(|&figure| figure > 0.0).map_or("–".to_owned(), short)
        };
        let failures: u64 = runs.iter().map(|run| run.failures).sum();
        let reason = runs.iter().find_map(|run| run.failure.clone()).unwrap_or_default();
        table.add_row([
            format!("{:?}", cell.system),
            format!("{:?}", cell.op),
            cell.clients.to_string(),
            middle(|run| Some(run.rate)),
            middle(|run| Some(run.p50_us)),
            middle(|run| Some(run.p99_us)),
            middle(|run| run.cpu_us),
            middle(|run| Some(run.other_cores)),
            if failures == 0 { "–".to_owned() } else { format!("{failures} ({reason})") },
        ]);
    }
    writeln!(out, "{table}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::goals::GOALS;

    fn round(ours: f64, reference: f64, other_cores: f64) -> Round {
        let measurement = |rate| Measurement { rate, other_cores, ..Measurement::default() };
        let goal = &GOALS[0];
        let reference_cell = goal.reference.expect("g1 has one");
        BTreeMap::from([(goal.ours, measurement(ours)), (reference_cell, measurement(reference))])
    }

    #[test]
    fn the_ratio_is_the_median_of_ratios_not_the_ratio_of_medians() {
        let rounds = [round(10.0, 1.0, 0.0), round(20.0, 10.0, 0.0), round(90.0, 30.0, 0.0)];
        let line = line(&GOALS[0], &rounds);
        assert_eq!(line.ratio, Some([3.0, 2.0, 10.0]));
        assert_eq!(line.verdict, Some(Verdict::Target));
    }

    #[test]
    fn noisy_rounds_are_left_out_unless_all_are() {
        let rounds = [round(10.0, 1.0, 0.5), round(2.0, 1.0, 0.1)];
        assert_eq!(line(&GOALS[0], &rounds).ratio, Some([2.0, 2.0, 2.0]));
        let line = line(&GOALS[0], &rounds[..1]);
        assert_eq!(line.ratio, Some([10.0, 10.0, 10.0]));
        assert!(line.note.contains("noisy"));
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let line = line(&GOALS[0], &[]);
        assert_eq!((line.ratio, line.verdict), (None, None));
        assert_eq!(line.note, "not measured");
    }

    #[test]
    fn figures_are_short() {
        let shown = [123_456.0, 12_345.0, 1_234.0, 12.34, 1.234, 0.0123].map(short);
        assert_eq!(shown, ["123k", "12.3k", "1234", "12.3", "1.23", "0.0123"]);
    }

    #[test]
    fn medians_of_even_numbers_lie_between() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}

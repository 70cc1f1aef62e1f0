//! Many regions: what they cost while idle, what they do to throughput, and what happens to all of them when a store dies.
//!
//! Every case starts a cluster of its own and cuts it at even boundaries ([`cut`]); balancing and merging are paused, so
//! that the number of regions and the places of their leaders stay what the case says. Keys are spread evenly over the
//! regions ([`routes`]), and clients go straight to the leaders, all requests to one store on one stream.

mod cut;
mod idle;
mod kill;
mod moving;
mod routes;
mod throughput;

use std::path::Path;

pub(super) use routes::Route;

use super::goals::Levels;
use super::report::{Line, median, short};
use super::{Args, BenchError};

/// Every case, in the order of the table.
pub(super) const CASES: [&str; 7] = ["g14-many", "g15", "g16", "g17", "g18", "moving", "transfer"];

/// What a case needs to know.
pub(super) struct Setting<'a> {
    /// The flags.
    pub(super) args: &'a Args,
    /// etcd's binary, if it is compared with.
    pub(super) etcd: Option<&'a Path>,
    /// Where data may be put.
    pub(super) directory: &'a Path,
}

impl Setting<'_> {
    fn wants(&self, case: &str) -> bool {
        self.args.cases.is_empty() || self.args.cases.iter().any(|wanted| wanted == case)
    }

    fn wants_any(&self, cases: &[&str]) -> bool {
        cases.iter().any(|case| self.wants(case))
    }
}

/// Runs the cases asked for.
pub(super) async fn lines(setting: &Setting<'_>) -> Result<Vec<Line>, BenchError> {
    let mut lines = Vec::new();
    if setting.wants("g14-many") {
        lines.extend(kill::lines(setting).await?);
    }
    if setting.wants_any(&["g15", "g16", "g17", "g18"]) {
        lines.extend(throughput::lines(setting).await?);
    }
    if setting.wants("moving") {
        lines.push(moving::moving(setting).await?);
    }
    if setting.wants("transfer") {
        lines.push(moving::transfer(setting).await?);
    }
    lines.retain(|line| setting.wants(line.case));
    Ok(lines)
}

/// A line about ratios (or figures that are goals by themselves), one of each round.
fn line(
    (case, title): (&'static str, &'static str),
    figures: [String; 2],
    ratios: &[f64],
    levels: Levels,
) -> Line {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let middle = median(ratios);
    Line {
        case,
        title,
        figures,
        ratio: middle.map(|middle| [middle, least, greatest]),
        levels,
        verdict: middle.map(|middle| levels.judge(middle, false)),
        note: if middle.is_none() { "not measured".to_owned() } else { String::new() },
    }
}

/// The median of some figures with its unit.
fn amount(figures: &[f64], unit: &str) -> String {
    median(figures).map_or(String::new(), |figure| format!("{} {unit}", short(figure)))
}

//! Waiting for what the scheduler has begun, with a bar on a terminal.
//!
//! An operator is looked up by its id until it has ended. One that nobody knows any more was forgotten with the leader that
//! had it; what it left half done, the scheduler's checkers finish or undo.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use client::Error;
use indicatif::{ProgressBar, ProgressStyle};
use proto::flotillapb::{ListOperatorsRequest, Operator, OperatorState};

use super::show;
use crate::admin::Admin;
use crate::cli::duration;
use crate::context::{Context, note};
use crate::failure::Failure;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How far back the history is looked through.
const HISTORY: u32 = 1000;
/// An operator that is neither running nor in the history is looked for so often.
const LOST_LOOKS: u32 = 10;

/// Whether, and how long, a verb waits.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Wait until it is done, at most so long
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_value = "10m",
        default_missing_value = "10m",
        value_parser = duration,
        conflicts_with = "no_wait"
    )]
    wait: Duration,
    /// Do not wait: only begin it
    #[arg(long)]
    no_wait: bool,
}

impl Args {
    /// How long to wait; `None` for not at all.
    pub(super) fn patience(&self) -> Option<Duration> {
        (!self.no_wait).then_some(self.wait)
    }
}

/// A bar on stderr; nothing where that is no terminal.
pub(super) fn bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len}  {msg}  {elapsed}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(length).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A point in time after which waiting has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    started: Instant,
    patience: Duration,
}

impl Deadline {
    /// From now.
    pub(super) fn new(patience: Duration) -> Deadline {
        #[expect(clippy::disallowed_methods, reason = "the user waits in real time")]
        let started = Instant::now();
        Deadline { started, patience }
    }

    /// Sleeps a little; an error once there is no time left.
    pub(super) async fn pause(&self, last: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.started.elapsed() >= self.patience {
            let (budget, last) = (self.patience, last());
            return Err(Failure::Client(Error::Timeout { budget, last }));
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }
}

/// Waits for the operators, if that is wanted, and prints them. An operator that did not end well is a failure.
pub(super) async fn follow(
    context: &mut Context,
    operators: Vec<Operator>,
    wait: &Args,
) -> Result<(), Failure> {
    let admin = context.admin().await?;
    let mut ended = Vec::with_capacity(operators.len());
    match wait.patience() {
        None => ended = operators,
        Some(patience) => {
            let deadline = Deadline::new(patience);
            for operator in operators {
                ended.push(finished(&admin, operator, deadline).await?);
            }
        }
    }
    context.output.records(&show::OPERATOR_COLUMNS, ended.iter().map(show::operator).collect())?;
    let bad = ended.iter().find(|operator| {
        !matches!(operator.state(), OperatorState::Finished | OperatorState::Running)
    });
    match bad {
        None => Ok(()),
        Some(operator) => Err(Failure::Client(Error::Refused(format!(
            "region {}: '{}' was {}: {}",
            operator.region_id,
            operator.description,
            show::state(operator.state()),
            operator.reason
        )))),
    }
}

/// The operator as it ended.
async fn finished(
    admin: &Admin,
    mut operator: Operator,
    deadline: Deadline,
) -> Result<Operator, Failure> {
    let bar = bar(operator.steps.len() as u64);
    let (id, mut lost) = (operator.operator_id, 0);
    while operator.state() == OperatorState::Running {
        let step = operator.steps.get(operator.step as usize);
        let doing = step.unwrap_or(&operator.description).clone();
        bar.set_position(operator.step.into());
        bar.set_message(format!("region {}: {doing}", operator.region_id));
        deadline
            .pause(|| format!("operator {id} is still at '{doing}'; it goes on by itself"))
            .await?;
        match look_up(admin, id).await? {
            Some(found) => (operator, lost) = (found, 0),
            None if lost < LOST_LOOKS => lost += 1,
            None => {
                note(&format!("operator {id} was forgotten: the scheduler has another leader"));
                operator.set_state(OperatorState::Overtaken);
                "its outcome is not known, see `region show`".clone_into(&mut operator.reason);
            }
        }
    }
    bar.finish_and_clear();
    Ok(operator)
}

async fn look_up(admin: &Admin, id: u64) -> Result<Option<Operator>, Failure> {
    for (history, limit) in [(false, 0), (true, HISTORY)] {
        let request = ListOperatorsRequest { header: admin.header(), history, limit };
        let list = admin.ask(|mut client| async move { client.list_operators(request).await });
        let found = list.await?.operators.into_iter().find(|found| found.operator_id == id);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

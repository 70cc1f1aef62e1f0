//! `balance show`, `balance pause`, `balance resume`: the parts of the scheduler that move regions by themselves.

use std::time::Duration;

use proto::flotillapb::balance_request::Action;
use proto::flotillapb::{BalanceRequest, Balancer};
use serde_json::json;

use super::show;
use crate::cli::duration;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Record;

/// What can be done with balancers.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// What each sees and has done
    Show,
    /// Hold one, or all of them
    Pause {
        /// Its name, as `balance show` has it
        balancer: Option<String>,
        /// Only for so long: 10m
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        time: Option<Duration>,
    },
    /// Let one, or all of them, go on
    Resume {
        /// Its name
        balancer: Option<String>,
    },
}

/// Does it, and prints how they are then.
pub(crate) async fn run(context: &mut Context, verb: Verb) -> Result<(), Failure> {
    let (action, balancer, time) = match verb {
        Verb::Show => (Action::Show, None, None),
        Verb::Pause { balancer, time } => (Action::Pause, balancer, time),
        Verb::Resume { balancer } => (Action::Resume, balancer, None),
    };
    let admin = context.admin().await?;
    let request = BalanceRequest {
        header: admin.header(),
        action: action as i32,
        balancer: balancer.unwrap_or_default(),
        pause_ms: time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    };
    let ask = |mut client: crate::admin::Operations| {
        let request = request.clone();
        async move { client.balance(request).await }
    };
    let balancers = admin.ask(ask).await?.balancers;
    let header = ["balancer", "state", "running", "made", "sees"];
    context.output.records(&header, balancers.iter().map(record).collect())
}

fn record(balancer: &Balancer) -> Record {
    let state = match (balancer.paused, balancer.paused_ms_left) {
        (false, _) => "on".to_owned(),
        (true, 0) => "paused".to_owned(),
        (true, left) => format!("paused for {}", show::age(left)),
    };
    let cells = vec![
        balancer.name.clone(),
        state,
        balancer.operators_running.to_string(),
        balancer.operators_made.to_string(),
        balancer.view.clone(),
    ];
    let json = json!({
        "name": balancer.name,
        "paused": balancer.paused,
        "paused_ms_left": balancer.paused_ms_left.to_string(),
        "operators_running": balancer.operators_running.to_string(),
        "operators_made": balancer.operators_made.to_string(),
        "view": balancer.view,
    });
    Record { cells, json }
}

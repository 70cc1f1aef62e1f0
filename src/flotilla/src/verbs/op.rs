//! `op ls`, `op cancel`, `op history`: what the scheduler is doing to regions, and did.

use proto::flotillapb::{CancelOperatorRequest, ListOperatorsRequest};

use super::show;
use crate::context::Context;
use crate::failure::Failure;

/// What can be done with operators.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Those that run
    Ls,
    /// Those that ended, newest first
    History {
        /// At most so many
        #[arg(long, short, default_value_t = 50)]
        limit: u32,
    },
    /// End the one of a region; what it has changed so far stays
    Cancel {
        /// The region
        region: u64,
    },
}

/// Does it.
pub(crate) async fn run(context: &mut Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls => list(context, false, 0).await,
        Verb::History { limit } => list(context, true, limit).await,
        Verb::Cancel { region: region_id } => {
            let admin = context.admin().await?;
            let request = CancelOperatorRequest { header: admin.header(), region_id };
            let cancel =
                admin.ask(|mut client| async move { client.cancel_operator(request).await });
            let ended = cancel.await?.operator.unwrap_or_default();
            context.output.records(&show::OPERATOR_COLUMNS, vec![show::operator(&ended)])
        }
    }
}

async fn list(context: &mut Context, history: bool, limit: u32) -> Result<(), Failure> {
    let admin = context.admin().await?;
    let request = ListOperatorsRequest { header: admin.header(), history, limit };
    let list = admin.ask(|mut client| async move { client.list_operators(request).await });
    let operators = list.await?.operators;
    context.output.records(&show::OPERATOR_COLUMNS, operators.iter().map(show::operator).collect())
}

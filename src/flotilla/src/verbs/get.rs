//! `get KEY`.

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Columns;
use crate::text::show;

/// Prints a value.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The key
    key: String,
}

/// Prints the value; exit code 3 if there is none.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let key = context.key(&args.key)?;
    let value = context.client().await?.get(key.clone()).await?;
    let Some(value) = value else { return Err(Failure::NotFound(show(&key))) };
    let mut pairs = context.output.pairs(Columns::Value);
    pairs.push(&key, &value)?;
    pairs.finish().map(drop)
}

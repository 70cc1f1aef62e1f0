//! `mget KEY…`.

use bytes::Bytes;

use crate::context::{Context, note};
use crate::failure::Failure;
use crate::output::Columns;

/// Prints pairs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The keys
    #[arg(required = true)]
    keys: Vec<String>,
}

/// Prints the pairs that exist, in the order asked; exit code 3 if one does not.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let keys: Result<Vec<Bytes>, Failure> = args.keys.iter().map(|key| context.key(key)).collect();
    let keys = keys?;
    let asked = keys.len();
    let found = context.client().await?.batch_get(keys).await?;
    let mut pairs = context.output.pairs(Columns::Pair);
    for (key, value) in &found {
        pairs.push(key, value)?;
    }
    pairs.finish()?;
    if found.len() == asked {
        return Ok(());
    }
    note(&format!("{} of {asked} keys found", found.len()));
    Err(Failure::NotFound(format!("{} keys", asked - found.len())))
}

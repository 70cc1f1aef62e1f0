//! `del KEY…`.

use bytes::Bytes;

use crate::context::Context;
use crate::failure::Failure;

/// Removes keys.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The keys; they need not exist
    #[arg(required = true)]
    keys: Vec<String>,
}

/// Removes the keys.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let keys: Result<Vec<Bytes>, Failure> = args.keys.iter().map(|key| context.key(key)).collect();
    Ok(context.client().await?.batch_delete(keys?).await?)
}

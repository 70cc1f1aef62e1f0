//! `append KEY SUFFIX`.

use crate::context::Context;
use crate::failure::Failure;

/// Adds to the end of a value.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The key; a missing one counts as empty
    key: String,
    /// What to add; `-` reads all of stdin, `@FILE` a file
    #[arg(allow_negative_numbers = true)]
    suffix: String,
}

/// Appends, and prints the length of the value afterwards.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let (key, suffix) = (context.key(&args.key)?, context.value(&args.suffix)?);
    let length = context.client().await?.append(key, suffix).await?.to_string();
    context.output.value(&serde_json::json!({ "length": length }), &length)
}

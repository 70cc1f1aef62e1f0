//! `put KEY VALUE`.

use crate::context::Context;
use crate::failure::Failure;

/// Sets a value.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The key
    key: String,
    /// The value; `-` reads all of stdin, `@FILE` a file (a value that begins so: `\-`, `\@`)
    #[arg(allow_negative_numbers = true)]
    value: String,
}

/// Sets the value.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let (key, value) = (context.key(&args.key)?, context.value(&args.value)?);
    Ok(context.client().await?.put(key, value).await?)
}

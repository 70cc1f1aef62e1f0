//! `del-range START END`.

use crate::context::Context;
use crate::failure::Failure;
use crate::text::show;
use crate::verbs::scan::Range;

/// Removes a range.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    range: Range,
    /// Remove everything there is
    #[arg(long, conflicts_with_all = ["start", "end", "prefix"])]
    all: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Asks, then removes. Atomic per region, not as a whole.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    if args.range.is_everything() && !args.all {
        let reason = "a range is needed: START END, --prefix, or --all for everything";
        return Err(Failure::Usage(reason.to_owned()));
    }
    let options = args.range.options(context)?;
    if !args.yes {
        let bound = |key: &[u8], open: &str| match key {
            [] => open.to_owned(),
            key => format!("'{}'", show(key)),
        };
        let from = bound(&options.start, "the first key");
        let to = bound(&options.end, "the end");
        context.confirm(&format!("This removes every key from {from} up to {to}."))?;
    }
    Ok(context.client().await?.delete_range(options.start, options.end).await?)
}

//! `export [START [END]]`.

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Columns, Format};
use crate::verbs::scan::Range;

/// Prints everything.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    range: Range,
}

/// Prints the pairs as JSON lines, unless another format is asked for, in constant memory. Not a snapshot: every page is
/// linearizable on its own.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let options = args.range.options(context)?;
    let format = context.global.output.unwrap_or(Format::Jsonl);
    let output = context.output.with_format(format);
    let mut scanner = context.client().await?.scan(options);
    let mut pairs = output.pairs(Columns::Pair);
    while let Some(page) = scanner.next_page().await? {
        for (key, value) in &page {
            pairs.push(key, value)?;
        }
    }
    pairs.finish().map(drop)
}

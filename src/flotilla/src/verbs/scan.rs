//! `scan [START [END]]` and `rscan`.

use client::ScanOptions;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Columns, Format};

/// Pairs shown on a terminal if nobody asks for a number.
const TERMINAL_LIMIT: u64 = 1_000;

/// Prints a range.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) range: Range,
    /// At most so many pairs [default: all; 1000 in a table]
    #[arg(long, short)]
    limit: Option<u64>,
    /// Without the values
    #[arg(long, short)]
    keys_only: bool,
    /// From the last key downwards
    #[arg(long, short)]
    reverse: bool,
}

/// A range of keys.
#[derive(Debug, clap::Args)]
pub(crate) struct Range {
    /// The first key
    #[arg(conflicts_with = "prefix")]
    start: Option<String>,
    /// The first key not wanted
    #[arg(conflicts_with = "prefix")]
    end: Option<String>,
    /// All keys that begin so
    #[arg(long, short)]
    prefix: Option<String>,
}

impl Range {
    /// The options of a scan over the range.
    pub(crate) fn options(&self, context: &Context) -> Result<ScanOptions, Failure> {
        let bound = |typed: &Option<String>| match typed {
            Some(typed) => context.key(typed),
            None => Ok(bytes::Bytes::new()),
        };
        match &self.prefix {
            Some(prefix) => Ok(ScanOptions::prefix(context.key(prefix)?)),
            None => Ok(ScanOptions::range(bound(&self.start)?, bound(&self.end)?)),
        }
    }

    /// Whether nothing was said.
    pub(crate) fn is_everything(&self) -> bool {
        self.start.is_none() && self.end.is_none() && self.prefix.is_none()
    }
}

/// Prints the pairs page by page.
pub(crate) async fn run(context: &mut Context, args: Args, downwards: bool) -> Result<(), Failure> {
    let mut options = args.range.options(context)?;
    let cut = args.limit.is_none() && context.output.format == Format::Table;
    options.limit = if cut { Some(TERMINAL_LIMIT + 1) } else { args.limit };
    options.reverse = args.reverse || downwards;
    options.keys_only = args.keys_only;
    let columns = if args.keys_only { Columns::Key } else { Columns::Pair };
    let mut scanner = context.client().await?.scan(options);
    let mut pairs = context.output.pairs(columns);
    let mut left = if cut { TERMINAL_LIMIT } else { u64::MAX };
    while let Some(page) = scanner.next_page().await? {
        for (key, value) in &page {
            if left == 0 {
                crate::context::note("… there is more: ask with --limit, or pipe it");
                break;
            }
            pairs.push(key, value)?;
            left -= 1;
        }
    }
    pairs.finish().map(drop)
}

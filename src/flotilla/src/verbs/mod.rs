//! The verbs on data, one file each; the same for one command and for a line of the shell.

mod append;
mod del;
mod del_range;
mod export;
mod get;
mod mget;
mod mput;
mod put;
pub(crate) mod scan;
mod status;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;
use crate::load;

/// What can be done with data.
#[derive(Debug, Subcommand)]
pub(crate) enum DataVerb {
    /// Print the value of a key
    Get(get::Args),
    /// Set the value of a key
    Put(put::Args),
    /// Remove keys
    Del(del::Args),
    /// Print the pairs of a range, in order
    Scan(scan::Args),
    /// Print the pairs of a range, from the last key downwards
    Rscan(scan::Args),
    /// Print the pairs of many keys
    Mget(mget::Args),
    /// Set many values
    Mput(mput::Args),
    /// Remove every key of a range
    DelRange(del_range::Args),
    /// Add to the end of a value, exactly once; prints its new length in bytes
    Append(append::Args),
    /// Write records from a file or stdin
    Load(load::Args),
    /// Print every pair as one JSON object per line; `load --format jsonl` reads it back
    Export(export::Args),
    /// Show the cluster; exit code 7 if something is wrong
    Status(status::Args),
}

impl DataVerb {
    /// Does it.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            DataVerb::Get(args) => get::run(context, args).await,
            DataVerb::Put(args) => put::run(context, args).await,
            DataVerb::Del(args) => del::run(context, args).await,
            DataVerb::Scan(args) => scan::run(context, args, false).await,
            DataVerb::Rscan(args) => scan::run(context, args, true).await,
            DataVerb::Mget(args) => mget::run(context, args).await,
            DataVerb::Mput(args) => mput::run(context, args).await,
            DataVerb::DelRange(args) => del_range::run(context, args).await,
            DataVerb::Append(args) => append::run(context, args).await,
            DataVerb::Load(args) => load::run(context, args).await,
            DataVerb::Export(args) => export::run(context, args).await,
            DataVerb::Status(args) => status::run(context, args).await,
        }
    }
}

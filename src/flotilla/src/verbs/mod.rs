//! The verbs on data and on the cluster, one file each; the same for one command and for a line of the shell.

mod append;
mod balance;
pub(crate) mod cluster_config;
mod del;
mod del_range;
mod export;
mod get;
mod members;
mod mget;
mod mput;
mod op;
mod put;
mod region;
pub(crate) mod scan;
mod show;
mod status;
pub(crate) mod store;
mod wait;

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
    Status,
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
            DataVerb::Status => status::run(context).await,
        }
    }
}

/// What can be done with the cluster. `store` and `config` are not here: on the command line they are the names of processes
/// and files as well.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Look at regions; split, merge, move them
    #[command(subcommand)]
    Region(region::Verb),
    /// What the scheduler is doing to regions
    #[command(subcommand)]
    Op(op::Verb),
    /// What moves regions by itself
    #[command(subcommand)]
    Balance(balance::Verb),
    /// The scheduler's processes
    Members,
}

impl ClusterVerb {
    /// Does it.
    pub(crate) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            ClusterVerb::Region(verb) => region::run(context, verb).await,
            ClusterVerb::Op(verb) => op::run(context, verb).await,
            ClusterVerb::Balance(verb) => balance::run(context, verb).await,
            ClusterVerb::Members => members::run(context).await,
        }
    }
}

//! `region …`: look at regions, and change them by hand.
//!
//! Looking asks the scheduler, and for one region the stores of its peers. Changing asks the scheduler for an *operator*: it
//! checks the wish, carries it out in small steps, and says why if it will not.

mod change;
mod check;
mod list;
mod one;

use proto::flotillapb::{ListRegionsRequest, RegionView};

use crate::admin::{Admin, Operations};
use crate::context::Context;
use crate::failure::Failure;

/// What can be done with regions.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List regions in key order
    Ls(list::Args),
    /// Everything about one region, also from its stores
    Show {
        /// The region
        region: u64,
    },
    /// The region that holds a key
    OfKey {
        /// The key
        key: String,
    },
    /// Cut a region in two
    Split(change::Split),
    /// Have a region taken over by its neighbour
    Merge(change::Merge),
    /// Move a region's peer from one store to another
    Move(change::Move),
    /// Hand the lead of a region to the peer on another store
    TransferLeader(change::Transfer),
    /// Spread regions over the stores
    Scatter(change::Scatter),
    /// Have the peers of regions compare their data
    Check(check::Args),
}

/// Does it.
pub(crate) async fn run(context: &mut Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls(args) => list::run(context, args).await,
        Verb::Show { region } => one::by_id(context, region).await,
        Verb::OfKey { key } => one::by_key(context, &key).await,
        Verb::Split(args) => change::split(context, args).await,
        Verb::Merge(args) => change::merge(context, args).await,
        Verb::Move(args) => change::move_peer(context, args).await,
        Verb::TransferLeader(args) => change::transfer(context, args).await,
        Verb::Scatter(args) => change::scatter(context, args).await,
        Verb::Check(args) => check::run(context, args).await,
    }
}

/// The regions that a request asks for.
async fn regions(admin: &Admin, request: ListRegionsRequest) -> Result<Vec<RegionView>, Failure> {
    let ask = |mut client: Operations| {
        let request = ListRegionsRequest { header: admin.header(), ..request.clone() };
        async move { client.list_regions(request).await }
    };
    Ok(admin.ask(ask).await?.regions)
}

/// One region by its id; exit code 3 if there is none.
async fn region(admin: &Admin, region_id: u64) -> Result<RegionView, Failure> {
    let request = ListRegionsRequest { region_id, ..ListRegionsRequest::default() };
    let found = regions(admin, request).await?.into_iter().next();
    found.ok_or_else(|| Failure::NotFound(format!("there is no region {region_id}")))
}

/// The region that holds a key.
async fn region_of(admin: &Admin, key: bytes::Bytes) -> Result<RegionView, Failure> {
    let request = ListRegionsRequest { by_key: true, key, ..ListRegionsRequest::default() };
    let found = regions(admin, request).await?.into_iter().next();
    found.ok_or_else(|| Failure::NotFound("no region of this key is known".to_owned()))
}

//! `region split|merge|move|transfer-leader|scatter`: wishes to the scheduler.

use bytes::Bytes;
use proto::flotillapb::AddOperatorRequest;
use proto::flotillapb::add_operator_request as wish;
use proto::flotillapb::add_operator_request::Wish;
use proto::metapb::Region;

use super::{region, region_of};
use crate::admin::Operations;
use crate::boundary;
use crate::context::{Context, note};
use crate::failure::Failure;
use crate::text::show;
use crate::verbs::wait;

/// Cuts a region.
#[derive(Debug, clap::Args)]
pub(crate) struct Split {
    /// The key that shall begin the right part; the nearest possible boundary is taken, and told
    #[arg(required_unless_present_any = ["at", "region"], conflicts_with_all = ["at", "region"])]
    key: Option<String>,
    /// Exactly here: a memcomparable encoding
    #[arg(long, value_name = "BOUNDARY", conflicts_with = "region")]
    at: Vec<String>,
    /// Where the data of this region are halved
    #[arg(long, value_name = "ID")]
    region: Option<u64>,
    #[command(flatten)]
    wait: wait::Args,
}

/// Has a region taken over.
#[derive(Debug, clap::Args)]
pub(crate) struct Merge {
    /// The region that ends
    source: u64,
    /// Its neighbour, which takes it over
    target: u64,
    #[command(flatten)]
    wait: wait::Args,
}

/// Moves a peer.
#[derive(Debug, clap::Args)]
pub(crate) struct Move {
    /// The region
    region: u64,
    /// The store that its peer leaves
    #[arg(long, value_name = "STORE")]
    from: u64,
    /// The store that gets one
    #[arg(long, value_name = "STORE")]
    to: u64,
    #[command(flatten)]
    wait: wait::Args,
}

/// Hands the lead over.
#[derive(Debug, clap::Args)]
pub(crate) struct Transfer {
    /// The region
    region: u64,
    /// The store whose peer shall lead
    store: u64,
    #[command(flatten)]
    wait: wait::Args,
}

/// Spreads regions.
#[derive(Debug, clap::Args)]
pub(crate) struct Scatter {
    /// The regions
    #[arg(required = true)]
    regions: Vec<u64>,
    #[command(flatten)]
    wait: wait::Args,
}

pub(super) async fn split(context: &mut Context, args: Split) -> Result<(), Failure> {
    let admin = context.admin().await?;
    let (region_id, keys) = match (args.region, &args.key) {
        (Some(id), _) => (id, Vec::new()),
        (None, Some(typed)) => {
            let key = context.key(typed)?;
            let found = region_of(&admin, key.clone()).await?.region.unwrap_or_default();
            let boundary = boundary_for(&key, &found)?;
            note(&format!("region {} is cut at {}", found.id, show(&boundary)));
            (found.id, vec![boundary])
        }
        (None, None) => {
            let keys: Result<Vec<Bytes>, Failure> =
                args.at.iter().map(|typed| context.key(typed)).collect();
            let mut keys = keys?;
            keys.sort_unstable();
            keys.dedup();
            for key in &keys {
                if !boundary::is_exact(key) {
                    let reason = "is no memcomparable encoding; without --at the nearest is found";
                    return Err(Failure::Usage(format!("'{}' {reason}", show(key))));
                }
            }
            let first = keys.first().cloned().unwrap_or_default();
            (region_of(&admin, first).await?.region.unwrap_or_default().id, keys)
        }
    };
    add(context, Wish::Split(wish::Split { region_id, keys }), &args.wait).await
}

/// The boundary to the left of `key`, if it lies inside of the region.
fn boundary_for(key: &[u8], region: &Region) -> Result<Bytes, Failure> {
    let nearest = boundary::below(key);
    let inside = nearest.filter(|boundary| boundary[..] > region.start_key[..]);
    inside.ok_or_else(|| {
        let reason = format!(
            "region {} begins at the nearest possible boundary already: keys that share their first eight bytes stay together",
            region.id
        );
        Failure::Client(client::Error::Refused(reason))
    })
}

pub(super) async fn merge(context: &mut Context, args: Merge) -> Result<(), Failure> {
    let wish = wish::Merge { source_region_id: args.source, target_region_id: args.target };
    add(context, Wish::Merge(wish), &args.wait).await
}

pub(super) async fn move_peer(context: &mut Context, args: Move) -> Result<(), Failure> {
    let Move { region: region_id, from: from_store_id, to: to_store_id, wait } = args;
    let wish = wish::MovePeer { region_id, from_store_id, to_store_id };
    add(context, Wish::MovePeer(wish), &wait).await
}

pub(super) async fn transfer(context: &mut Context, args: Transfer) -> Result<(), Failure> {
    let wish = wish::TransferLeader { region_id: args.region, to_store_id: args.store };
    add(context, Wish::TransferLeader(wish), &args.wait).await
}

pub(super) async fn scatter(context: &mut Context, args: Scatter) -> Result<(), Failure> {
    let admin = context.admin().await?;
    for id in &args.regions {
        // Told before anything moves.
        region(&admin, *id).await?;
    }
    let wish = wish::Scatter { region_ids: args.regions };
    add(context, Wish::Scatter(wish), &args.wait).await
}

async fn add(context: &mut Context, wish: Wish, wait: &wait::Args) -> Result<(), Failure> {
    let admin = context.admin().await?;
    let request = AddOperatorRequest { header: admin.header(), wish: Some(wish) };
    let ask = |mut client: Operations| {
        let request = request.clone();
        async move { client.add_operator(request).await }
    };
    let operators = admin.ask(ask).await?.operators;
    if operators.is_empty() {
        note("nothing is to be done");
    }
    wait::follow(context, operators, wait).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_must_lie_inside_of_the_region() {
        let start = boundary::below(b"user0005").expect("there is one");
        let region = Region { id: 7, start_key: start, ..Region::default() };
        assert!(boundary_for(b"user0006", &region).is_ok());
        let refused = boundary_for(b"user0005/later", &region).expect_err("it begins there");
        assert_eq!(refused.code(), 1);
        assert!(refused.to_string().contains("eight bytes"), "{refused}");
    }
}

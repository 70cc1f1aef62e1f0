//! `status`.

use client::{ClusterStatus, RegionRow, StoreRow};
use serde_json::{Value, json};

use crate::context::{Context, note};
use crate::failure::Failure;
use crate::output::Format;
use crate::text::show;

/// Shows the cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// At most so many regions
    #[arg(long, default_value_t = 50)]
    regions: usize,
}

/// Prints schedulers, stores and regions; exit code 7 if something is wrong.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let status = context.client().await?.status().await?;
    let problems = status.problems();
    match context.output.format {
        Format::Json | Format::Jsonl => {
            context.output.value(&json_of(&status, &problems, args.regions), "")?;
        }
        Format::Table | Format::Plain | Format::Csv | Format::Raw => {
            print_tables(context, &status, args.regions)?;
        }
    }
    match problems.len() {
        0 => Ok(()),
        count => {
            problems.iter().for_each(|problem| note(&format!("! {problem}")));
            Err(Failure::Unhealthy(format!("{count} problem{}", if count == 1 { "" } else { "s" })))
        }
    }
}

fn print_tables(
    context: &Context,
    status: &ClusterStatus,
    regions_max: usize,
) -> Result<(), Failure> {
    let tagged = context.output.format != Format::Table;
    // In lines, the first cell says what kind of line it is.
    let rows = |kind: &str, rows: Vec<Vec<String>>| -> Vec<Vec<String>> {
        let tag = |row: Vec<String>| std::iter::once(kind.to_owned()).chain(row).collect();
        if tagged { rows.into_iter().map(tag).collect() } else { rows }
    };
    let members = status.members.iter().map(|member| {
        let role = if member.leads { "leader" } else { "member" };
        vec![
            member.id.to_string(),
            member.name.clone(),
            member.client_urls.join(" "),
            role.to_owned(),
        ]
    });
    let header = ["scheduler", "name", "address", "role"];
    context.output.rows(&header, &rows("scheduler", members.collect()))?;
    let stores = status.stores.iter().map(store_cells).collect();
    let header = ["store", "address", "state", "regions", "leaders", "up"];
    context.output.rows(&header, &rows("store", stores))?;
    let regions = status.regions.iter().take(regions_max).map(region_cells).collect();
    let header = ["region", "from", "to", "epoch", "peers on stores", "leader"];
    context.output.rows(&header, &rows("region", regions))?;
    if status.regions.len() > regions_max {
        note(&format!("… and {} regions more", status.regions.len() - regions_max));
    }
    Ok(())
}

fn store_cells(row: &StoreRow) -> Vec<String> {
    let (regions, leaders) = match row.counts() {
        Some((regions, leaders)) => (regions.to_string(), leaders.to_string()),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let uptime = row.answer.as_ref().map_or("-".to_owned(), |s| format!("{}s", s.uptime_seconds));
    vec![
        row.id().to_string(),
        row.store.address.clone(),
        state_of(row).to_owned(),
        regions,
        leaders,
        uptime,
    ]
}

fn state_of(row: &StoreRow) -> &'static str {
    match (&row.answer, row.is_up()) {
        (_, true) => "up",
        (Err(_), _) => "unreachable",
        (Ok(status), _) if !status.poisoned.is_empty() => "stopped",
        (Ok(_), _) => "leaving",
    }
}

fn region_cells(row: &RegionRow) -> Vec<String> {
    let epoch = row.region.region_epoch.unwrap_or_default();
    let peers: Vec<String> = row.region.peers.iter().map(|p| p.store_id.to_string()).collect();
    let leader = match row.leader {
        Some(peer) if row.confirmed => format!("store {}", peer.store_id),
        Some(peer) => format!("store {}?", peer.store_id),
        None => "none".to_owned(),
    };
    let bound = |key: &[u8]| if key.is_empty() { "-".to_owned() } else { show(key) };
    vec![
        row.id().to_string(),
        bound(&row.region.start_key),
        bound(&row.region.end_key),
        format!("{}.{}", epoch.conf_ver, epoch.version),
        peers.join(" "),
        leader,
    ]
}

/// Ids and counters as strings: JSON numbers lose the low bits of a u64.
fn json_of(status: &ClusterStatus, problems: &[String], regions_max: usize) -> Value {
    let members = status.members.iter().map(|member| {
        json!({
            "id": member.id.to_string(),
            "name": member.name,
            "client_urls": member.client_urls,
            "leads": member.leads,
        })
    });
    let stores = status.stores.iter().map(|row| {
        let counts = row.counts();
        json!({
            "id": row.id().to_string(),
            "address": row.store.address,
            "state": state_of(row),
            "regions": counts.map(|(regions, _)| regions),
            "leaders": counts.map(|(_, leaders)| leaders),
            "uptime_seconds": row.answer.as_ref().ok().map(|s| s.uptime_seconds.to_string()),
        })
    });
    let regions = status.regions.iter().take(regions_max).map(|row| {
        let epoch = row.region.region_epoch.unwrap_or_default();
        let stores: Vec<String> = row.region.peers.iter().map(|p| p.store_id.to_string()).collect();
        json!({
            "id": row.id().to_string(),
            "start": show(&row.region.start_key),
            "end": show(&row.region.end_key),
            "conf_ver": epoch.conf_ver.to_string(),
            "version": epoch.version.to_string(),
            "stores": stores,
            "leader_store": row.leader.map(|peer| peer.store_id.to_string()),
            "leader_confirmed": row.confirmed,
        })
    });
    json!({
        "cluster_id": status.cluster_id.to_string(),
        "healthy": problems.is_empty(),
        "problems": problems,
        "schedulers": members.collect::<Vec<_>>(),
        "stores": stores.collect::<Vec<_>>(),
        "regions": regions.collect::<Vec<_>>(),
    })
}

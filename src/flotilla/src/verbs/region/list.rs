//! `region ls`.

use proto::flotillapb::{ListRegionsRequest, RegionView};
use serde_json::{Value, json};

use super::regions;
use crate::context::{Context, note};
use crate::failure::Failure;
use crate::output::{Format, Record};
use crate::verbs::scan::Range;
use crate::verbs::show;

/// Regions shown on a terminal if nobody asks for a number.
const TERMINAL_LIMIT: usize = 200;

/// Which regions.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    range: Range,
    /// Only those with a peer on this store
    #[arg(long)]
    store: Option<u64>,
    /// Only those that something is wrong with, or that an operator is changing
    #[arg(long)]
    unsettled: bool,
    /// At most so many [default: all; 200 in a table]
    #[arg(long, short)]
    limit: Option<usize>,
}

/// The columns of [`record`].
pub(super) const COLUMNS: [&str; 9] =
    ["region", "from", "to", "epoch", "leader", "peers on", "size", "keys", "notes"];

/// Prints the regions.
pub(super) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let range = args.range.options(context)?;
    let admin = context.admin().await?;
    let request = ListRegionsRequest {
        store_id: args.store.unwrap_or_default(),
        start_key: range.start,
        end_key: range.end,
        ..ListRegionsRequest::default()
    };
    let mut found = regions(&admin, request).await?;
    if args.unsettled {
        found.retain(|view| !notes(view).is_empty());
    }
    let cut = args.limit.is_none() && context.output.format == Format::Table;
    let limit = if cut { TERMINAL_LIMIT } else { args.limit.unwrap_or(usize::MAX) };
    let total = found.len();
    found.truncate(limit);
    context.output.records(&COLUMNS, found.iter().map(record).collect())?;
    if total > limit && cut {
        note(&format!("… and {} more: ask with --limit, a range, or pipe it", total - limit));
    }
    Ok(())
}

/// A region in a line.
pub(super) fn record(view: &RegionView) -> Record {
    let region = view.region.clone().unwrap_or_default();
    let leader = view.leader.filter(|leader| leader.id != 0);
    let cells = vec![
        region.id.to_string(),
        show::bound(&region.start_key),
        show::bound(&region.end_key),
        show::epoch(&region),
        leader.map_or("-".to_owned(), |leader| leader.store_id.to_string()),
        show::peers(&region),
        show::size(view.approximate_bytes),
        show::count(view.approximate_keys),
        notes(view).join(", "),
    ];
    Record { cells, json: json_of(view) }
}

/// What is unusual about a region.
pub(super) fn notes(view: &RegionView) -> Vec<String> {
    let mut notes = Vec::new();
    if view.leader.is_none_or(|leader| leader.id == 0) {
        notes.push("no leader".to_owned());
    }
    for down in &view.down_peers {
        let store = down.peer.map_or(0, |peer| peer.store_id);
        notes.push(format!("store {store} silent for {} s", down.down_seconds));
    }
    for pending in &view.pending_peers {
        notes.push(format!("store {} catches up", pending.store_id));
    }
    if let Some(operator) = &view.operator {
        notes.push(operator.description.clone());
    }
    notes
}

/// A region for programs.
pub(super) fn json_of(view: &RegionView) -> Value {
    let region = view.region.clone().unwrap_or_default();
    let epoch = region.region_epoch.unwrap_or_default();
    let peers = region.peers.iter().map(|peer| {
        json!({
            "id": peer.id.to_string(),
            "store": peer.store_id.to_string(),
            "role": peer.role().as_str_name(),
        })
    });
    let leader = view.leader.filter(|leader| leader.id != 0);
    let down = view.down_peers.iter().map(|down| {
        json!({
            "store": down.peer.map_or(0, |peer| peer.store_id).to_string(),
            "seconds": down.down_seconds.to_string(),
        })
    });
    json!({
        "id": region.id.to_string(),
        "start": crate::text::show(&region.start_key),
        "end": crate::text::show(&region.end_key),
        "conf_ver": epoch.conf_ver.to_string(),
        "version": epoch.version.to_string(),
        "peers": peers.collect::<Vec<_>>(),
        "leader_store": leader.map(|leader| leader.store_id.to_string()),
        "term": view.term.to_string(),
        "down": down.collect::<Vec<_>>(),
        "pending": view.pending_peers.iter().map(|p| p.store_id.to_string()).collect::<Vec<_>>(),
        "bytes": view.approximate_bytes.to_string(),
        "keys": view.approximate_keys.to_string(),
        "write_bytes_per_second": view.write_bytes_rate.to_string(),
        "read_bytes_per_second": view.read_bytes_rate.to_string(),
        "write_ops_per_second": view.write_ops_rate.to_string(),
        "read_ops_per_second": view.read_ops_rate.to_string(),
        "heard_ms_ago": view.heard_ms_ago.to_string(),
        "operator": view.operator.as_ref().map(show::operator_json),
    })
}

#[cfg(test)]
mod tests {
    use proto::metapb::{Peer, Region};

    use super::*;

    #[test]
    fn a_line_says_what_is_unusual() {
        let peer = |id, store_id| Peer { id, store_id, ..Peer::default() };
        let region = Region { id: 7, peers: vec![peer(1, 1), peer(2, 4)], ..Region::default() };
        let mut view = RegionView { region: Some(region), ..RegionView::default() };
        assert_eq!(notes(&view), ["no leader"]);
        view.leader = Some(peer(1, 1));
        assert!(notes(&view).is_empty());
        view.pending_peers = vec![peer(2, 4)];
        let shown = record(&view);
        assert_eq!(shown.cells.len(), COLUMNS.len());
        assert_eq!(shown.cells[4..6], ["1", "1 4"]);
        assert_eq!(shown.cells[8], "store 4 catches up");
        assert_eq!(shown.json["leader_store"], "1");
        assert_eq!(shown.json["pending"][0], "4");
    }
}

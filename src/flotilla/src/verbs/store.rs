//! `store ls|status|drain|remove|replace|label`: the stores of the cluster.

use proto::flotillapb::change_store_request as change;
use proto::flotillapb::change_store_request::Change;
use proto::flotillapb::{ChangeStoreRequest, ListStoresRequest, StoreLife, StoreView};
use proto::metapb::StoreLabel;
use serde_json::{Value, json};

use super::{show, wait};
use crate::admin::{Admin, Operations};
use crate::context::{Context, note};
use crate::failure::Failure;
use crate::output::Record;

/// What can be done with stores.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List the stores
    Ls {
        /// Also those that were removed
        #[arg(long)]
        all: bool,
    },
    /// Everything about one store
    Status {
        /// The store
        store: u64,
    },
    /// Move everything away from a store, which goes on serving meanwhile
    Drain {
        /// The store
        store: u64,
        /// Stop draining: it is a store like any other again
        #[arg(long, conflicts_with_all = ["wait", "no_wait"])]
        cancel: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        wait: wait::Args,
    },
    /// Take a store out of the cluster for good: one that is empty, or one that is lost
    Remove {
        /// The store
        store: u64,
        /// It cannot be reached and will not come back; its peers are made anew elsewhere
        #[arg(long)]
        lost: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Give the place of a store whose data are lost to a new one
    Replace {
        /// The store whose data are lost
        store: u64,
        /// The new store [default: the one that asks for the same address]
        #[arg(long, value_name = "STORE")]
        with: Option<u64>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Show or change what tells a store from others
    Label {
        /// The store
        store: u64,
        /// NAME=VALUE …
        labels: Vec<String>,
        /// Labels to take away
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        remove: Vec<String>,
    },
}

/// Does it.
pub(crate) async fn run(context: &mut Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls { all } => list(context, all).await,
        Verb::Status { store } => {
            let admin = context.admin().await?;
            let view = one(&admin, store).await?;
            print(context, &view)
        }
        Verb::Drain { store, cancel: true, .. } => {
            change(context, store, Change::Drain(change::Drain { cancel: true })).await
        }
        Verb::Drain { store, cancel: false, yes, wait } => drain(context, store, yes, &wait).await,
        Verb::Remove { store, lost, yes } => remove(context, store, lost, yes).await,
        Verb::Replace { store, with, yes } => {
            if !yes {
                let question =
                    format!("This gives up store {store}: what only its data hold is lost.");
                context.confirm(&question)?;
            }
            let new_store_id = with.unwrap_or_default();
            change(context, store, Change::Replace(change::Replace { new_store_id })).await
        }
        Verb::Label { store, labels, remove } => label(context, store, &labels, remove).await,
    }
}

/// Copies of a region where there are stores enough.
const COPIES: usize = 3;

/// The columns of [`record`].
const COLUMNS: [&str; 10] =
    ["store", "address", "state", "leaders", "regions", "size", "free", "labels", "heard", "notes"];

async fn list(context: &mut Context, all: bool) -> Result<(), Failure> {
    let admin = context.admin().await?;
    let mut stores = stores(&admin, 0).await?;
    stores.retain(|view| all || view.life() != StoreLife::Tombstone);
    context.output.records(&COLUMNS, stores.iter().map(record).collect())
}

/// The stores; 0 is all of them.
pub(super) async fn stores(admin: &Admin, store_id: u64) -> Result<Vec<StoreView>, Failure> {
    let request = ListStoresRequest { header: admin.header(), store_id };
    let ask = |mut client: Operations| async move { client.list_stores(request).await };
    Ok(admin.ask(ask).await?.stores)
}

/// One store; exit code 3 if there is none.
async fn one(admin: &Admin, id: u64) -> Result<StoreView, Failure> {
    let found = stores(admin, id).await?.into_iter();
    let mut found = found.filter(|view| view.store.as_ref().is_some_and(|store| store.id == id));
    found.next().ok_or_else(|| Failure::NotFound(format!("there is no store {id}")))
}

/// What is to be said about a store besides its numbers.
pub(super) fn notes(view: &StoreView) -> Vec<String> {
    let mut notes = Vec::new();
    if matches!(view.life(), StoreLife::Draining | StoreLife::Offline) {
        let (left, total) = (view.drain_peers_left, view.drain_peers_total);
        notes.push(match left {
            0 => "empty".to_owned(),
            _ => format!("{left} of {total} peers left"),
        });
    }
    if let Some(blocker) = view.blockers.first() {
        let more = match view.blockers.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        notes.push(format!("region {}: {}{more}", blocker.region_id, blocker.reason));
    }
    if view.pending_peer_count > 0 {
        notes.push(format!("{} peers catch up", view.pending_peer_count));
    }
    if view.stats.is_some_and(|stats| stats.is_busy) {
        notes.push("busy".to_owned());
    }
    notes
}

/// A store in a line.
fn record(view: &StoreView) -> Record {
    let store = view.store.clone().unwrap_or_default();
    let stats = view.stats.unwrap_or_default();
    let cells = vec![
        store.id.to_string(),
        store.address.clone(),
        show::life(view.life()).to_owned(),
        view.leader_count.to_string(),
        view.region_count.to_string(),
        show::size(view.region_bytes),
        show::size(stats.available),
        show::labels(&store.labels),
        format!("{} ago", show::age(view.heard_ms_ago)),
        notes(view).join(", "),
    ];
    Record { cells, json: json_of(view) }
}

fn print(context: &Context, view: &StoreView) -> Result<(), Failure> {
    let store = view.store.clone().unwrap_or_default();
    let stats = view.stats.unwrap_or_default();
    let free = format!("{} of {}", show::size(stats.available), show::size(stats.capacity));
    let snapshots = format!(
        "{} sent, {} received, {} taken over",
        stats.sending_snap_count, stats.receiving_snap_count, stats.applying_snap_count
    );
    let mut fields = vec![
        ("store", store.id.to_string()),
        ("address", store.address.clone()),
        ("state", show::life(view.life()).to_owned()),
        ("version", store.version.clone()),
        ("labels", show::labels(&store.labels)),
        ("leaders", view.leader_count.to_string()),
        ("regions", view.region_count.to_string()),
        ("data, about", show::size(view.region_bytes)),
        ("data led, about", show::size(view.leader_bytes)),
        ("on disk", show::size(stats.used_size)),
        ("free", free),
        ("snapshots now", snapshots),
        ("last report", format!("{} ago", show::age(view.heard_ms_ago))),
    ];
    fields.extend(notes(view).into_iter().map(|note| ("note", note)));
    for blocker in view.blockers.iter().skip(1) {
        fields.push(("note", format!("region {}: {}", blocker.region_id, blocker.reason)));
    }
    context.output.fields(&fields, &json_of(view))
}

/// A store for programs.
pub(super) fn json_of(view: &StoreView) -> Value {
    let store = view.store.clone().unwrap_or_default();
    let stats = view.stats.unwrap_or_default();
    let labels: serde_json::Map<String, Value> =
        store.labels.iter().map(|l| (l.key.clone(), l.value.clone().into())).collect();
    let blockers = view.blockers.iter().map(
        |blocker| json!({ "region": blocker.region_id.to_string(), "reason": blocker.reason }),
    );
    json!({
        "id": store.id.to_string(),
        "address": store.address,
        "state": show::life(view.life()),
        "version": store.version,
        "labels": labels,
        "leaders": view.leader_count.to_string(),
        "regions": view.region_count.to_string(),
        "bytes": view.region_bytes.to_string(),
        "leader_bytes": view.leader_bytes.to_string(),
        "pending_peers": view.pending_peer_count.to_string(),
        "capacity_bytes": stats.capacity.to_string(),
        "available_bytes": stats.available.to_string(),
        "used_bytes": stats.used_size.to_string(),
        "heard_ms_ago": view.heard_ms_ago.to_string(),
        "drain_peers_total": view.drain_peers_total.to_string(),
        "drain_peers_left": view.drain_peers_left.to_string(),
        "blockers": blockers.collect::<Vec<_>>(),
    })
}

async fn drain(
    context: &mut Context,
    store: u64,
    yes: bool,
    wait: &wait::Args,
) -> Result<(), Failure> {
    if !yes {
        context.confirm(&format!("This moves everything away from store {store}."))?;
    }
    change_quietly(context, store, Change::Drain(change::Drain { cancel: false })).await?;
    let admin = context.admin().await?;
    let others = stores(&admin, 0).await?.into_iter().filter(|view| view.life() == StoreLife::Up);
    let others = others.count();
    if others < COPIES {
        note(&format!("! only {others} other stores are up: regions will have {others} copies"));
    }
    let mut view = one(&admin, store).await?;
    let Some(patience) = wait.patience() else { return print(context, &view) };
    let deadline = wait::Deadline::new(patience);
    let bar = wait::bar(view.drain_peers_total);
    let mut told = Vec::new();
    while !is_empty(&view) {
        bar.set_length(view.drain_peers_total);
        bar.set_position(view.drain_peers_total.saturating_sub(view.drain_peers_left));
        let blockers: Vec<_> =
            view.blockers.iter().map(|b| format!("region {}: {}", b.region_id, b.reason)).collect();
        bar.set_message(blockers.first().cloned().unwrap_or_else(|| format!("store {store}")));
        if blockers != told {
            bar.suspend(|| blockers.iter().for_each(|blocker| note(&format!("! {blocker}"))));
            told = blockers;
        }
        deadline.pause(|| format!("{}; it goes on by itself", notes(&view).join(", "))).await?;
        view = one(&admin, store).await?;
        if !matches!(view.life(), StoreLife::Draining | StoreLife::Offline | StoreLife::Tombstone) {
            bar.finish_and_clear();
            let reason = format!("draining store {store} was cancelled");
            return Err(Failure::Client(client::Error::Refused(reason)));
        }
    }
    bar.finish_and_clear();
    note(&format!("store {store} is empty: `flotilla store remove {store}` takes it out for good"));
    print(context, &view)
}

fn is_empty(view: &StoreView) -> bool {
    view.life() == StoreLife::Tombstone || (view.drain_peers_left == 0 && view.region_count == 0)
}

async fn remove(context: &mut Context, store: u64, lost: bool, yes: bool) -> Result<(), Failure> {
    if !yes {
        let question = match lost {
            true => format!("This gives up store {store}: what only its data hold is lost."),
            false => format!("This takes store {store} out of the cluster for good."),
        };
        context.confirm(&question)?;
    }
    change(context, store, Change::Remove(change::Remove { lost })).await
}

async fn label(
    context: &mut Context,
    store: u64,
    typed: &[String],
    remove: Vec<String>,
) -> Result<(), Failure> {
    let label = |typed: &String| match typed.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok(StoreLabel { key: key.to_owned(), value: value.to_owned() })
        }
        _ => Err(Failure::Usage(format!("'{typed}' is not NAME=VALUE"))),
    };
    let labels = typed.iter().map(label).collect::<Result<Vec<_>, Failure>>()?;
    if labels.is_empty() && remove.is_empty() {
        let admin = context.admin().await?;
        let shown = one(&admin, store).await?.store.unwrap_or_default().labels;
        let record = |label: &StoreLabel| Record {
            cells: vec![label.key.clone(), label.value.clone()],
            json: json!({ "name": label.key, "value": label.value }),
        };
        return context.output.records(&["label", "value"], shown.iter().map(record).collect());
    }
    change(context, store, Change::Label(change::Label { labels, remove })).await
}

/// Changes a store, and prints how it is then.
async fn change(context: &mut Context, store: u64, change: Change) -> Result<(), Failure> {
    let view = change_quietly(context, store, change).await?;
    context.output.records(&COLUMNS, vec![record(&view)])
}

async fn change_quietly(
    context: &mut Context,
    store_id: u64,
    change: Change,
) -> Result<StoreView, Failure> {
    let admin = context.admin().await?;
    let request = ChangeStoreRequest { header: admin.header(), store_id, change: Some(change) };
    let ask = |mut client: Operations| {
        let request = request.clone();
        async move { client.change_store(request).await }
    };
    Ok(admin.ask(ask).await?.store.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proto::flotillapb::DrainBlocker;

    use super::*;

    #[test]
    fn a_line_tells_how_far_a_drain_is_and_what_holds_it_up() {
        let reason = "no other store can take it".to_owned();
        let view = StoreView {
            life: StoreLife::Draining as i32,
            drain_peers_total: 9,
            drain_peers_left: 2,
            blockers: vec![DrainBlocker { region_id: 7, reason }],
            ..StoreView::default()
        };
        let shown = record(&view);
        assert_eq!(shown.cells.len(), COLUMNS.len());
        assert_eq!(shown.cells[2], "draining");
        assert_eq!(shown.cells[9], "2 of 9 peers left, region 7: no other store can take it");
        assert_eq!(shown.json["blockers"][0]["region"], "7");
        assert!(!is_empty(&view));
    }
}

//! `region show`, `region of-key`: one region as the scheduler sees it, and as each of its stores does.

use std::time::Duration;

use futures::future::join_all;
use proto::flotillapb::diagnostics_client::DiagnosticsClient;
use proto::flotillapb::{
    ListStoresRequest, PeerState, RaftRole, RegionStatus, RegionView, StoreStatusRequest, StoreView,
};
use serde_json::{Value, json};

use super::{list, region, region_of};
use crate::admin::{Admin, Operations, describe, open};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Format;
use crate::verbs::show;

/// A store that takes longer to say how it is is shown as silent.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// The status of a store with many regions is long.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Prints a region by its id.
pub(super) async fn by_id(context: &mut Context, id: u64) -> Result<(), Failure> {
    let admin = context.admin().await?;
    let view = region(&admin, id).await?;
    print(context, &admin, view).await
}

/// Prints the region of a key.
pub(super) async fn by_key(context: &mut Context, typed: &str) -> Result<(), Failure> {
    let key = context.key(typed)?;
    let admin = context.admin().await?;
    let view = region_of(&admin, key).await?;
    print(context, &admin, view).await
}

/// A peer as its own store sees it, or why it does not say.
struct Seen {
    peer: proto::metapb::Peer,
    answer: Result<RegionStatus, String>,
}

async fn print(context: &Context, admin: &Admin, view: RegionView) -> Result<(), Failure> {
    let stores = stores(admin).await?;
    let region = view.region.clone().unwrap_or_default();
    let ask = |peer: &proto::metapb::Peer| {
        let store = stores.iter().filter_map(|view| view.store.as_ref());
        let address = store.filter(|s| s.id == peer.store_id).map(|s| s.address.clone()).next();
        let (peer, id) = (*peer, region.id);
        async move { Seen { peer, answer: ask_store(address, id).await } }
    };
    let seen = join_all(region.peers.iter().map(ask)).await;
    let mut json = list::json_of(&view);
    json["on_stores"] = Value::Array(seen.iter().map(Seen::json).collect());
    if matches!(context.output.format, Format::Json | Format::Jsonl) {
        return context.output.value(&json, "");
    }
    context.output.fields(&fields(&view), &json)?;
    let header =
        ["peer", "store", "role", "term", "last", "committed", "applied", "log from", "state"];
    let rows: Vec<_> = seen.iter().map(Seen::cells).collect();
    // In lines, the first cell says that it is about a peer.
    let tagged = rows.into_iter().map(|row| match context.output.format {
        Format::Table => row,
        _ => std::iter::once("peer".to_owned()).chain(row).collect(),
    });
    context.output.rows(&header, &tagged.collect::<Vec<_>>())
}

fn fields(view: &RegionView) -> Vec<(&'static str, String)> {
    let region = view.region.clone().unwrap_or_default();
    let leader = view.leader.filter(|leader| leader.id != 0);
    let rate = |bytes, ops| format!("{}/s in {ops} operations/s", show::size(bytes));
    let mut fields = vec![
        ("region", region.id.to_string()),
        ("from", show::bound(&region.start_key)),
        ("to", show::bound(&region.end_key)),
        ("epoch", show::epoch(&region)),
        ("leader", leader.map_or("-".to_owned(), |l| format!("store {}", l.store_id))),
        ("size, about", show::size(view.approximate_bytes)),
        ("keys, about", show::count(view.approximate_keys)),
        ("written", rate(view.write_bytes_rate, view.write_ops_rate)),
        ("read", rate(view.read_bytes_rate, view.read_ops_rate)),
        ("last report", format!("{} ago", show::age(view.heard_ms_ago))),
    ];
    for note in list::notes(view) {
        fields.push(("note", note));
    }
    if let Some(operator) = &view.operator {
        for (number, step) in operator.steps.iter().enumerate() {
            let mark = match number.cmp(&(operator.step as usize)) {
                std::cmp::Ordering::Less => "done",
                std::cmp::Ordering::Equal => "now",
                std::cmp::Ordering::Greater => "next",
            };
            fields.push(("step", format!("{mark}: {step}")));
        }
    }
    fields
}

async fn stores(admin: &Admin) -> Result<Vec<StoreView>, Failure> {
    let request = ListStoresRequest { header: admin.header(), store_id: 0 };
    let ask = |mut client: Operations| async move { client.list_stores(request).await };
    Ok(admin.ask(ask).await?.stores)
}

async fn ask_store(address: Option<String>, region_id: u64) -> Result<RegionStatus, String> {
    let address = address.ok_or("the scheduler does not know this store")?;
    let question = async {
        let client = DiagnosticsClient::new(open(&address)?);
        let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = client.store_status(StoreStatusRequest {}).await;
        let status = answer.map_err(|status| describe(&status))?.into_inner();
        let here =
            |status: &RegionStatus| status.region.as_ref().is_some_and(|r| r.id == region_id);
        status.regions.into_iter().find(here).ok_or_else(|| "not there (yet)".to_owned())
    };
    match tokio::time::timeout(ASK_TIMEOUT, question).await {
        Ok(answer) => answer,
        Err(_) => Err("does not answer".to_owned()),
    }
}

impl Seen {
    fn cells(&self) -> Vec<String> {
        let who = [self.peer.id.to_string(), show::peer(&self.peer)];
        let rest = match &self.answer {
            Ok(status) => vec![
                role(status).to_owned(),
                status.term.to_string(),
                status.last_index.to_string(),
                status.committed_index.to_string(),
                status.applied_index.to_string(),
                status.first_index.to_string(),
                state(status),
            ],
            Err(reason) => {
                let mut cells = vec!["-".to_owned(); 6];
                cells.push(reason.clone());
                cells
            }
        };
        who.into_iter().chain(rest).collect()
    }

    fn json(&self) -> Value {
        let (peer, store) = (self.peer.id.to_string(), self.peer.store_id.to_string());
        match &self.answer {
            Ok(status) => json!({
                "peer": peer,
                "store": store,
                "role": role(status),
                "state": state(status),
                "term": status.term.to_string(),
                "first_index": status.first_index.to_string(),
                "last_index": status.last_index.to_string(),
                "committed_index": status.committed_index.to_string(),
                "applied_index": status.applied_index.to_string(),
                "hibernating": status.hibernating,
            }),
            Err(reason) => json!({ "peer": peer, "store": store, "error": reason }),
        }
    }
}

fn role(status: &RegionStatus) -> &'static str {
    match status.role() {
        RaftRole::Follower => "follower",
        RaftRole::PreCandidate | RaftRole::Candidate => "candidate",
        RaftRole::Leader => "leader",
    }
}

fn state(status: &RegionStatus) -> String {
    let state = match status.state() {
        PeerState::Normal => "",
        PeerState::Applying => "takes a snapshot over",
        PeerState::Tombstone => "gone",
        PeerState::Merging => "merging",
    };
    match (state, status.hibernating) {
        ("", true) => "asleep".to_owned(),
        ("", false) => "awake".to_owned(),
        (state, _) => state.to_owned(),
    }
}

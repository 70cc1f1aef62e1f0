//! `status`: the cluster at a glance, whatever its size. The stores are asked themselves; the scheduler says what it makes of
//! them. `region ls` and `store status` show the rest.

use std::collections::BTreeMap;

use client::{ClusterStatus, StoreRow};
use proto::flotillapb::{
    ListOperatorsRequest, ListRegionsRequest, Operator, RaftRole, RegionView, StoreLife, StoreView,
};
use serde_json::{Value, json};

use super::{show, store};
use crate::admin::{Admin, Operations};
use crate::context::{Context, note};
use crate::failure::Failure;
use crate::output::Format;

/// Regions named one by one in a problem; of more than these, the number is told.
const NAMED_MAX: usize = 5;

/// Prints schedulers, stores and sums over the regions; exit code 7 if something is wrong.
pub(crate) async fn run(context: &mut Context) -> Result<(), Failure> {
    let status = context.client().await?.status().await?;
    let admin = context.admin().await?;
    let glance = Glance::new(status, Placement::ask(&admin).await?);
    let problems = glance.problems();
    match context.output.format {
        Format::Json | Format::Jsonl => context.output.value(&glance.json(&problems), "")?,
        Format::Table | Format::Plain | Format::Csv | Format::Raw => glance.print(context)?,
    }
    match problems.len() {
        0 => Ok(()),
        count => {
            problems.iter().for_each(|problem| note(&format!("! {problem}")));
            Err(Failure::Unhealthy(format!("{count} problem{}", if count == 1 { "" } else { "s" })))
        }
    }
}

/// What the scheduler makes of the cluster.
#[derive(Debug, Default)]
struct Placement {
    stores: BTreeMap<u64, StoreView>,
    regions: Vec<RegionView>,
    operators: Vec<Operator>,
}

impl Placement {
    async fn ask(admin: &Admin) -> Result<Placement, Failure> {
        let regions = ListRegionsRequest { header: admin.header(), ..Default::default() };
        let regions = |mut client: Operations| {
            let request = regions.clone();
            async move { client.list_regions(request).await }
        };
        let operators = ListOperatorsRequest { header: admin.header(), history: false, limit: 0 };
        let operators =
            |mut client: Operations| async move { client.list_operators(operators).await };
        let stores = store::stores(admin, 0).await?.into_iter();
        let by_id = |view: StoreView| (view.store.as_ref().map_or(0, |store| store.id), view);
        Ok(Placement {
            stores: stores.map(by_id).collect(),
            regions: admin.ask(regions).await?.regions,
            operators: admin.ask(operators).await?.operators,
        })
    }
}

/// Both together.
struct Glance {
    status: ClusterStatus,
    placement: Placement,
}

impl Glance {
    fn new(status: ClusterStatus, placement: Placement) -> Glance {
        Glance { status, placement }
    }

    fn view(&self, row: &StoreRow) -> StoreView {
        self.placement.stores.get(&row.store.id).cloned().unwrap_or_default()
    }

    /// One line each. Empty means healthy.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.status.stores.is_empty() {
            problems.push("no store has joined yet".to_owned());
        }
        for row in &self.status.stores {
            let reason = match &row.answer {
                Ok(status) if !status.poisoned.is_empty() => status.poisoned.clone(),
                Ok(_) => {
                    let view = self.view(row);
                    let Some(blocker) = view.blockers.first() else { continue };
                    let region = blocker.region_id;
                    format!("region {region} does not get away: {}", blocker.reason)
                }
                Err(reason) => reason.clone(),
            };
            problems.push(format!("store {} at {}: {reason}", row.id(), row.store.address));
        }
        if self.status.regions.is_empty() {
            problems.push("there are no regions yet".to_owned());
        }
        let leaderless = self.leaderless();
        if leaderless.len() > NAMED_MAX {
            let count = leaderless.len();
            problems.push(format!("{count} regions: no store says that it leads them"));
        } else {
            let told = leaderless.iter();
            problems.extend(told.map(|id| format!("region {id}: no store says that it leads")));
        }
        problems
    }

    fn leaderless(&self) -> Vec<u64> {
        let regions = self.status.regions.iter();
        regions.filter(|row| !row.confirmed).map(|row| row.region.id).collect()
    }

    /// Sums over the regions: name, for people, for programs.
    fn totals(&self) -> Vec<(&'static str, String, u64)> {
        let regions = &self.placement.regions;
        let sum = |of: fn(&RegionView) -> u64| regions.iter().map(of).sum::<u64>();
        let answers = self.status.stores.iter().filter_map(|row| row.answer.as_ref().ok());
        let led = answers.flat_map(|a| &a.regions).filter(|r| r.role() == RaftRole::Leader);
        let asleep = led.filter(|region| region.hibernating).count() as u64;
        let with = |test: fn(&&RegionView) -> bool| regions.iter().filter(test).count() as u64;
        let plain = |name, number: u64| (name, show::count(number), number);
        let bytes = sum(|view| view.approximate_bytes);
        let written = sum(|view| view.write_bytes_rate);
        let read = sum(|view| view.read_bytes_rate);
        vec![
            plain("regions", self.status.regions.len() as u64),
            plain("without a leader", self.leaderless().len() as u64),
            plain("with a silent peer", with(|view| !view.down_peers.is_empty())),
            plain("with a peer that catches up", with(|view| !view.pending_peers.is_empty())),
            plain("asleep", asleep),
            ("data, one copy, about", show::size(bytes), bytes),
            plain("keys, about", sum(|view| view.approximate_keys)),
            ("written", format!("{}/s", show::size(written)), written),
            ("read", format!("{}/s", show::size(read)), read),
            plain("operators", self.placement.operators.len() as u64),
        ]
    }

    fn print(&self, context: &Context) -> Result<(), Failure> {
        let tagged = context.output.format != Format::Table;
        // In lines, the first cell says what kind of line it is.
        let rows = |kind: &str, rows: Vec<Vec<String>>| -> Vec<Vec<String>> {
            let tag = |row: Vec<String>| std::iter::once(kind.to_owned()).chain(row).collect();
            if tagged { rows.into_iter().map(tag).collect() } else { rows }
        };
        let members = self.status.members.iter().map(|member| {
            let role = if member.leads { "leader" } else { "member" };
            let urls = member.client_urls.join(" ");
            vec![member.id.to_string(), member.name.clone(), urls, role.to_owned()]
        });
        let header = ["scheduler", "name", "address", "role"];
        context.output.rows(&header, &rows("scheduler", members.collect()))?;
        let stores = self.status.stores.iter().map(|row| self.store_cells(row)).collect();
        let header =
            ["store", "address", "state", "leaders", "regions", "size", "free", "up", "notes"];
        context.output.rows(&header, &rows("store", stores))?;
        let totals = self.totals().into_iter();
        let totals = totals.map(|(name, shown, _)| vec![name.to_owned(), shown]).collect();
        context.output.rows(&["total", ""], &rows("total", totals))
    }

    fn store_cells(&self, row: &StoreRow) -> Vec<String> {
        let view = self.view(row);
        let (regions, leaders) = match row.counts() {
            Some((regions, leaders)) => (regions.to_string(), leaders.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let uptime = row.answer.as_ref();
        let uptime = uptime.map_or("-".to_owned(), |s| show::age(s.uptime_seconds * 1000));
        vec![
            row.id().to_string(),
            row.store.address.clone(),
            state_of(row, &view),
            leaders,
            regions,
            show::size(view.region_bytes),
            show::size(view.stats.unwrap_or_default().available),
            uptime,
            store::notes(&view).join(", "),
        ]
    }

    /// Ids and counters as strings: JSON numbers lose the low bits of a u64.
    fn json(&self, problems: &[String]) -> Value {
        let members = self.status.members.iter().map(|member| {
            json!({
                "id": member.id.to_string(),
                "name": member.name,
                "client_urls": member.client_urls,
                "leads": member.leads,
            })
        });
        let stores = self.status.stores.iter().map(|row| {
            let (counts, view) = (row.counts(), self.view(row));
            let uptime = row.answer.as_ref().ok().map(|s| s.uptime_seconds.to_string());
            json!({
                "id": row.id().to_string(),
                "address": row.store.address,
                "state": state_of(row, &view),
                "regions": counts.map(|(regions, _)| regions),
                "leaders": counts.map(|(_, leaders)| leaders),
                "uptime_seconds": uptime,
                "placement": store::json_of(&view),
            })
        });
        let leaderless: Vec<String> = self.leaderless().iter().map(u64::to_string).collect();
        let totals = self.totals().into_iter();
        let totals = totals.map(|(name, _, number)| {
            let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphabetic()).collect();
            (words.join("_").replace("__", "_"), Value::from(number.to_string()))
        });
        json!({
            "cluster_id": self.status.cluster_id.to_string(),
            "healthy": problems.is_empty(),
            "problems": problems,
            "schedulers": members.collect::<Vec<_>>(),
            "stores": stores.collect::<Vec<_>>(),
            "regions_without_leader": leaderless,
            "totals": totals.collect::<serde_json::Map<String, Value>>(),
        })
    }
}

/// What the store says itself comes first.
fn state_of(row: &StoreRow, view: &StoreView) -> String {
    match &row.answer {
        Err(_) if view.life() == StoreLife::Up => "unreachable".to_owned(),
        Err(_) => format!("unreachable, {}", show::life(view.life())),
        Ok(status) if !status.poisoned.is_empty() => "stopped".to_owned(),
        Ok(_) => show::life(view.life()).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use client::RegionRow;
    use proto::flotillapb::StoreStatusResponse;
    use proto::metapb::{Region, Store};

    use super::*;

    fn row(id: u64, answer: Result<StoreStatusResponse, String>) -> StoreRow {
        StoreRow { store: Store { id, ..Store::default() }, answer }
    }

    fn glance(stores: Vec<StoreRow>, leaderless: u64) -> Glance {
        let region = |id| RegionRow {
            region: Region { id, ..Region::default() },
            leader: None,
            confirmed: id >= leaderless,
        };
        let regions = (0..100).map(region).collect();
        let status = ClusterStatus { cluster_id: 1, members: Vec::new(), stores, regions };
        Glance::new(status, Placement::default())
    }

    #[test]
    fn problems_stay_readable() {
        let well = || row(1, Ok(StoreStatusResponse::default()));
        assert!(glance(vec![well()], 0).problems().is_empty());
        let away = row(2, Err("no answer".to_owned()));
        assert_eq!(glance(vec![well(), away], 2).problems().len(), 3);
        assert_eq!(
            glance(vec![well()], 50).problems(),
            ["50 regions: no store says that it leads them"]
        );
        assert_eq!(glance(Vec::new(), 0).problems(), ["no store has joined yet"]);
    }

    #[test]
    fn the_shape_for_programs_is_stable() {
        let shown = glance(vec![row(1, Ok(StoreStatusResponse::default()))], 1);
        let json = shown.json(&[]);
        assert_eq!(json["regions_without_leader"][0], "0");
        assert_eq!(json["stores"][0]["leaders"], 0);
        let names: Vec<&String> = json["totals"].as_object().expect("an object").keys().collect();
        assert_eq!(
            names,
            [
                "asleep",
                "data_one_copy_about",
                "keys_about",
                "operators",
                "read",
                "regions",
                "with_a_peer_that_catches_up",
                "with_a_silent_peer",
                "without_a_leader",
                "written",
            ]
        );
    }
}

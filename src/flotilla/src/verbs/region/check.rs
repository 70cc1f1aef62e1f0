//! `region check`: the peers of a region hash their data at one index of the log and compare. A peer that differs stops its
//! store, so that wrong data are served by nobody.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use proto::flotillapb::diagnostics_client::DiagnosticsClient;
use proto::flotillapb::{
    CheckConsistencyRequest, CheckConsistencyResponse, ListRegionsRequest, ListStoresRequest,
    RegionView,
};
use proto::kvrpcpb;
use serde_json::json;

use super::{region, regions};
use crate::admin::{Admin, Operations, describe, open};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Record;
use crate::verbs::wait::bar;

/// Hashing a large region takes a while.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);
/// A region that moves meanwhile is looked up again.
const ATTEMPTS: usize = 5;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(300);
/// Regions checked at once: each reads all of its data.
const AT_ONCE: usize = 4;

/// Which regions.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The regions
    #[arg(required_unless_present = "all")]
    regions: Vec<u64>,
    /// All there are
    #[arg(long, conflicts_with = "regions")]
    all: bool,
}

/// Checks them, and prints what was compared; exit code 7 if one could not be checked.
pub(super) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let admin = context.admin().await?;
    let ids: Vec<u64> = if args.all {
        let all = regions(&admin, ListRegionsRequest::default()).await?;
        all.iter().filter_map(|view| view.region.as_ref()).map(|region| region.id).collect()
    } else {
        args.regions
    };
    let bar = bar(ids.len() as u64);
    let checks = stream::iter(ids).map(|id| {
        let (admin, bar) = (admin.clone(), bar.clone());
        async move {
            let outcome = check(&admin, id).await;
            bar.inc(1);
            outcome.map(|outcome| (id, outcome))
        }
    });
    let outcomes: Vec<_> = checks.buffered(AT_ONCE).collect().await;
    bar.finish_and_clear();
    let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, Failure>>()?;
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
    let records = outcomes.into_iter().map(|(id, outcome)| record(id, outcome)).collect();
    context.output.records(&["region", "outcome", "at index", "hash"], records)?;
    match failed {
        0 => Ok(()),
        count => Err(Failure::Unhealthy(format!("{count} regions could not be checked"))),
    }
}

fn record(id: u64, outcome: Result<CheckConsistencyResponse, String>) -> Record {
    match outcome {
        Ok(CheckConsistencyResponse { index, hash, .. }) => Record {
            cells: vec![
                id.to_string(),
                "compared".to_owned(),
                index.to_string(),
                format!("{hash:016x}"),
            ],
            json: json!({
                "region": id.to_string(),
                "index": index.to_string(),
                "hash": format!("{hash:016x}"),
            }),
        },
        Err(reason) => Record {
            cells: vec![id.to_string(), reason.clone(), "-".to_owned(), "-".to_owned()],
            json: json!({ "region": id.to_string(), "error": reason }),
        },
    }
}

/// The inner error is that of this region alone.
async fn check(
    admin: &Admin,
    id: u64,
) -> Result<Result<CheckConsistencyResponse, String>, Failure> {
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let view = region(admin, id).await?;
        match ask_leader(admin, &view).await? {
            Ok(CheckConsistencyResponse { region_error: Some(error), .. }) => last = error.message,
            Ok(answer) => return Ok(Ok(answer)),
            Err(reason) => last = reason,
        }
    }
    Ok(Err(last))
}

async fn ask_leader(
    admin: &Admin,
    view: &RegionView,
) -> Result<Result<CheckConsistencyResponse, String>, Failure> {
    let Some(leader) = view.leader.filter(|leader| leader.id != 0) else {
        return Ok(Err("it has no leader".to_owned()));
    };
    let request = ListStoresRequest { header: admin.header(), store_id: leader.store_id };
    let ask = |mut client: Operations| async move { client.list_stores(request).await };
    let stores = admin.ask(ask).await?.stores;
    let Some(store) = stores.into_iter().filter_map(|view| view.store).next() else {
        return Ok(Err(format!("store {} is unknown", leader.store_id)));
    };
    let region = view.region.clone().unwrap_or_default();
    let context = kvrpcpb::Context {
        region_id: region.id,
        region_epoch: region.region_epoch,
        peer: Some(leader),
        ..kvrpcpb::Context::default()
    };
    let question = async {
        let mut client = DiagnosticsClient::new(open(&store.address)?);
        let request = CheckConsistencyRequest { context: Some(context) };
        let answer = client.check_consistency(request).await;
        answer.map(|answer| answer.into_inner()).map_err(|status| describe(&status))
    };
    Ok(match tokio::time::timeout(ASK_TIMEOUT, question).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {ASK_TIMEOUT:?}")),
    })
}

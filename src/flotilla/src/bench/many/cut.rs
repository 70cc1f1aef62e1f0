//! Cutting a fresh cluster into many regions, through the scheduler as an operator would.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::codec;
use proto::flotillapb::add_operator_request::{Split, Wish};
use proto::flotillapb::balance_request::Action;
use proto::flotillapb::{BalanceRequest, ConfigItem, ConfigRequest};

use super::super::BenchError;
use super::super::ours::Cluster;
use super::routes::{Route, prefix};

/// Cuts in one order: the new regions are one entry of the log.
const CUTS_MAX: usize = 128;
/// How often the regions are looked at, and for how long.
const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(240);

/// Stops everything that would change regions by itself.
pub(super) async fn pause_balancing(cluster: &Cluster) -> Result<(), BenchError> {
    let mut operations = cluster.operations().await?;
    let header = cluster.header();
    let pause = BalanceRequest { header, action: Action::Pause as i32, ..Default::default() };
    operations.balance(pause).await?;
    let no_merges = ConfigItem {
        name: "merge_schedule_limit".to_owned(),
        value: "0".to_owned(),
        ..Default::default()
    };
    operations.config(ConfigRequest { header, set: vec![no_merges] }).await?;
    Ok(())
}

/// Cuts the keys into `regions` even parts, `keys` keys in all, and waits until every part has a leader.
pub(super) async fn cut(cluster: &Cluster, regions: u64, keys: u64) -> Result<(), BenchError> {
    let wanted: BTreeSet<Bytes> =
        (1..regions).map(|part| codec::encode(&prefix(part * keys / regions, keys))).collect();
    let began = Instant::now();
    loop {
        let table = cluster.routes().await?;
        let missing = missing(&wanted, &table);
        let led = table.iter().all(|route| route.leader.store_id != 0);
        if missing.is_empty() && led {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let reason = format!("{} cuts are missing after {PATIENCE:?}", missing.len());
            return Err(BenchError::NotReady(reason));
        }
        order(cluster, &table, &missing).await?;
        tokio::time::sleep(PAUSE).await;
    }
}

fn missing(wanted: &BTreeSet<Bytes>, table: &[Route]) -> Vec<Bytes> {
    let starts: BTreeSet<&Bytes> = table.iter().map(|route| &route.region.start_key).collect();
    wanted.iter().filter(|key| !starts.contains(key)).cloned().collect()
}

/// Orders some of the missing cuts in every region that has any, evenly spread, so that a few rounds suffice.
async fn order(cluster: &Cluster, table: &[Route], missing: &[Bytes]) -> Result<(), BenchError> {
    let mut operations = cluster.operations().await?;
    for Route { region, .. } in table {
        let from = missing.partition_point(|key| *key <= region.start_key);
        let to = match region.end_key.is_empty() {
            true => missing.len(),
            false => missing.partition_point(|key| *key < region.end_key),
        };
        let inside = &missing[from..to.max(from)];
        if inside.is_empty() {
            continue;
        }
        let step = inside.len().div_ceil(CUTS_MAX);
        let keys = inside.iter().skip(step / 2).step_by(step).cloned().collect();
        let wish = Wish::Split(Split { region_id: region.id, keys });
        // One that is refused (the last order is still being carried out) is given again.
        let _ = operations.add_operator(cluster.order(wish)).await?;
    }
    Ok(())
}

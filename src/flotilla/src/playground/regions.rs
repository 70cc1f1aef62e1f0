//! Before anybody uses the cluster: `--regions N` cuts the key space of generated keys (`load --generate`) into so many regions;
//! `--region-max-size` tells the scheduler, too, what small is now, or it would merge what the stores have just cut.

use std::time::Duration;

use bytes::Bytes;
use proto::flotillapb::add_operator_request::{Split, Wish};
use proto::flotillapb::{AddOperatorRequest, ConfigItem, ConfigRequest, ListRegionsRequest};
use proto::metapb::Region;

use crate::admin::{Admin, Operations};
use crate::boundary;
use crate::context::note;
use crate::failure::Failure;
use crate::load::generated_key;

/// Cuts in one step: a split is one entry of a log.
const CUTS_AT_ONCE: usize = 64;
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// A region is merged when it is smaller than this part of the largest.
const MERGED_BELOW: u64 = 8;

/// Regions of at most `max_bytes` are not merged again right after they were cut.
pub(super) async fn keep_small(endpoints: &[String], max_bytes: u64) -> Result<(), Failure> {
    let admin = Admin::connect(endpoints, PATIENCE).await?;
    let item = ConfigItem {
        name: "merge_max_bytes".to_owned(),
        value: (max_bytes / MERGED_BELOW).to_string(),
        ..ConfigItem::default()
    };
    let request = ConfigRequest { header: admin.header(), set: vec![item] };
    let ask = |mut client: Operations| {
        let request = request.clone();
        async move { client.config(request).await }
    };
    admin.ask(ask).await.map(drop)
}

/// Cuts until there are `wanted` regions of generated keys. What is cut already is left as it is.
pub(super) async fn cut(endpoints: &[String], wanted: u32) -> Result<(), Failure> {
    let admin = Admin::connect(endpoints, PATIENCE).await?;
    let step = (1_u64 << 32) / u64::from(wanted.max(1));
    let key = |number: u32| generated_key((u64::from(number) * step) << 32);
    let cuts: Vec<_> = (1..wanted).filter_map(|n| boundary::below(&key(n))).collect();
    let work = async {
        for keys in cuts.chunks(CUTS_AT_ONCE) {
            while !cut_some(&admin, keys).await? {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok::<(), Failure>(())
    };
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(outcome) => outcome?,
        Err(_) => note(&format!("the key space is not in {wanted} regions yet, going on")),
    }
    Ok(())
}

/// Asks for those of the cuts that are missing; whether none is.
async fn cut_some(admin: &Admin, keys: &[Bytes]) -> Result<bool, Failure> {
    let mut missing: Vec<Bytes> = Vec::new();
    let mut divided: Option<Region> = None;
    for key in keys {
        let region = find(admin, key.clone()).await?;
        if region.start_key == *key {
            continue;
        }
        if divided.as_ref().is_none_or(|divided| divided.id == region.id) {
            missing.push(key.clone());
            divided = Some(region);
        }
    }
    let Some(divided) = divided else { return Ok(true) };
    let wish = Wish::Split(Split { region_id: divided.id, keys: missing });
    let request = AddOperatorRequest { header: admin.header(), wish: Some(wish) };
    let ask = |mut client: Operations| {
        let request = request.clone();
        async move { client.add_operator(request).await }
    };
    match admin.ask(ask).await {
        // A refusal passes: there is an operator already, or the region has just been cut.
        Ok(_) | Err(Failure::Client(client::Error::Refused(_)) | Failure::NotFound(_)) => Ok(false),
        Err(failure) => Err(failure),
    }
}

async fn find(admin: &Admin, key: Bytes) -> Result<Region, Failure> {
    let request = ListRegionsRequest {
        header: admin.header(),
        by_key: true,
        key,
        ..ListRegionsRequest::default()
    };
    let ask = |mut client: Operations| {
        let request = request.clone();
        async move { client.list_regions(request).await }
    };
    let found = admin.ask(ask).await?.regions.into_iter().next();
    Ok(found.and_then(|view| view.region).unwrap_or_default())
}

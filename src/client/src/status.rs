//! What the cluster looks like, gathered from the scheduler and from every store.

use std::time::Duration;

use futures::future::join_all;
use proto::flotillapb::diagnostics_client::DiagnosticsClient;
use proto::flotillapb::{RaftRole, StoreStatusRequest, StoreStatusResponse};
use proto::ids::{RegionId, StoreId};
use proto::metapb::{Peer, Region, Store, StoreState};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::link::{ANSWER_BYTES_MAX, connect, describe};

const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// The cluster at one moment.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The scheduler's members.
    pub members: Vec<MemberStatus>,
    /// Every store that has not been removed.
    pub stores: Vec<StoreRow>,
    /// Every region, in key order.
    pub regions: Vec<RegionRow>,
}

/// One member of the scheduler.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Whether it leads.
    pub leads: bool,
}

/// One store.
#[derive(Clone, Debug)]
pub struct StoreRow {
    /// As the scheduler knows it.
    pub store: Store,
    /// What it says about itself, or why it does not answer.
    pub answer: std::result::Result<StoreStatusResponse, String>,
}

impl StoreRow {
    /// The store's id.
    pub fn id(&self) -> StoreId {
        StoreId::from(self.store.id)
    }

    /// Whether the store serves.
    pub fn is_up(&self) -> bool {
        let serves = self.answer.as_ref().is_ok_and(|status| status.poisoned.is_empty());
        serves && self.store.state == StoreState::Up as i32
    }

    /// How many peers it holds, and how many of them lead. `None` if it does not answer.
    pub fn counts(&self) -> Option<(usize, usize)> {
        let regions = &self.answer.as_ref().ok()?.regions;
        let leaders = regions.iter().filter(|region| region.role() == RaftRole::Leader).count();
        Some((regions.len(), leaders))
    }
}

/// One region.
#[derive(Clone, Debug)]
pub struct RegionRow {
    /// As the scheduler knows it.
    pub region: Region,
    /// The leader that a store reported as itself, else the scheduler's belief.
    pub leader: Option<Peer>,
    /// Whether a store that answered says that it leads.
    pub confirmed: bool,
}

impl RegionRow {
    /// The region's id.
    pub fn id(&self) -> RegionId {
        RegionId::from(self.region.id)
    }
}

impl ClusterStatus {
    /// Everything that is not as it should be, one line each. Empty means healthy.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.stores.is_empty() {
            problems.push("no store has joined yet".to_owned());
        }
        for row in self.stores.iter().filter(|row| !row.is_up()) {
            let reason = match &row.answer {
                Ok(status) if !status.poisoned.is_empty() => status.poisoned.clone(),
                Ok(_) => "it is leaving the cluster".to_owned(),
                Err(reason) => reason.clone(),
            };
            problems.push(format!("store {} at {}: {reason}", row.id(), row.store.address));
        }
        if self.regions.is_empty() {
            problems.push("there are no regions yet".to_owned());
        }
        for row in self.regions.iter().filter(|row| !row.confirmed) {
            problems.push(format!("region {}: no store says that it leads", row.id()));
        }
        problems
    }
}

impl Client {
    /// Asks the scheduler and every store how they are.
    pub async fn status(&self) -> Result<ClusterStatus> {
        let scheduler = &self.driver.scheduler;
        let (members, leader) = scheduler.members().await.map_err(Error::Unreachable)?;
        let stores = scheduler.stores().await.map_err(Error::Unreachable)?;
        let regions = scheduler.all_regions().await.map_err(Error::Unreachable)?;
        let stores = join_all(stores.into_iter().map(ask_store)).await;
        let regions = regions.into_iter().map(|region| region_row(region, &stores)).collect();
        let leader_id = leader.map(|leader| leader.member_id);
        let members = members.into_iter().map(|member| MemberStatus {
            leads: leader_id == Some(member.member_id),
            name: member.name,
            id: member.member_id,
            client_urls: member.client_urls,
        });
        let members = members.collect();
        Ok(ClusterStatus { cluster_id: scheduler.cluster_id(), members, stores, regions })
    }
}

async fn ask_store(store: Store) -> StoreRow {
    let question = async {
        let channel = connect(&store.address).await?;
        let mut client =
            DiagnosticsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = client.store_status(StoreStatusRequest {}).await;
        answer.map(|answer| answer.into_inner()).map_err(|status| describe(&status))
    };
    let answer = match tokio::time::timeout(ASK_TIMEOUT, question).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {ASK_TIMEOUT:?}")),
    };
    StoreRow { store, answer }
}

/// Of the peers that say they lead, the one with the highest term does.
fn region_row((region, believed): (Region, Option<Peer>), stores: &[StoreRow]) -> RegionRow {
    let reports = stores.iter().filter_map(|row| row.answer.as_ref().ok());
    let leading = reports
        .flat_map(|status| &status.regions)
        .filter(|status| status.role() == RaftRole::Leader)
        .filter(|status| status.region.as_ref().is_some_and(|r| r.id == region.id))
        .max_by_key(|status| status.term);
    let confirmed = leading.and_then(|status| status.peer);
    RegionRow { region, leader: confirmed.or(believed), confirmed: confirmed.is_some() }
}

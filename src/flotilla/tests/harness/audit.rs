//! What must be so once a cluster has come to rest: the key space is tiled, every region has its leader and its replicas,
//! the scheduler and the stores know the same peers, replicas are equal, and no snapshot file is left over.
//!
//! Each point is looked at again and again until it holds; one that never does fails with what is wrong.

use std::collections::BTreeMap;
use std::time::Instant;

use client::{Client, ClusterStatus};
use proto::flotillapb::diagnostics_client::DiagnosticsClient;
use proto::flotillapb::{
    CheckConsistencyRequest, PeerState, RaftRole, RegionStatus, balance_request,
};
use proto::kvrpcpb::Context;
use proto::metapb::{PeerRole, Region};

use super::operations::Operations;
use super::{Cluster, DEADLINE, Node};

/// Everything, with so many replicas of each region.
pub(crate) async fn audit(cluster: &Cluster, client: &Client, replicas: usize) {
    let operations = Operations::new(client, &cluster.endpoints);
    until(cluster, "balancing pauses", async || {
        operations.balance(balance_request::Action::Pause).await
    })
    .await;
    until(cluster, "no operator runs", async || {
        let running = operations.running().await?;
        if running.is_empty() { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await;
    let status = until(cluster, "the cluster comes to rest", async || {
        let status = client.status().await.map_err(|error| error.to_string())?;
        check(&status, replicas)?;
        Ok(status)
    })
    .await;
    consistency(cluster, &status).await;
    // The comparison happens where the other replicas apply it; a store that finds a difference stops, and says so.
    until(cluster, "all stores stand by their replicas", async || {
        check(&client.status().await.map_err(|error| error.to_string())?, replicas)
    })
    .await;
    until(cluster, "no snapshot file is left over", async || {
        cluster.stores.iter().try_for_each(no_orphans)
    })
    .await;
}

/// How often things have happened, over restarts: a store that has started again counts from zero.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    last: BTreeMap<(u64, String), u64>,
    total: BTreeMap<String, u64>,
}

impl Happened {
    /// Takes note of every store's counters.
    pub(crate) fn look(&mut self, status: &ClusterStatus) {
        for row in &status.stores {
            let Ok(answer) = &row.answer else { continue };
            for counter in &answer.counters {
                let last = self.last.entry((row.store.id, counter.name.clone())).or_default();
                let more = counter.value.checked_sub(*last).unwrap_or(counter.value);
                *last = counter.value;
                *self.total.entry(counter.name.clone()).or_default() += more;
            }
        }
    }

    /// The sum over all stores.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.total.get(name).copied().unwrap_or(0)
    }
}

/// Tries until it holds. Panics with the last reason at the deadline.
pub(crate) async fn until<T>(
    cluster: &Cluster,
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    loop {
        match holds().await {
            Ok(found) => return found,
            Err(reason) if started.elapsed() > DEADLINE => {
                panic!("{what}: not within {DEADLINE:?}: {reason}\n{}", cluster.logs())
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

fn check(status: &ClusterStatus, replicas: usize) -> Result<(), String> {
    let problems = status.problems();
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    check_tiling(status)?;
    let mut held: BTreeMap<(u64, u64), &RegionStatus> = BTreeMap::new();
    for row in &status.stores {
        let answer = row.answer.as_ref().map_err(Clone::clone)?;
        for peer in &answer.regions {
            let region = peer.region.as_ref().ok_or("a peer without a region")?;
            held.insert((region.id, row.store.id), peer);
        }
    }
    for row in &status.regions {
        check_region(&row.region, replicas, &mut held)?;
    }
    match held.first_key_value() {
        Some(((region, store), peer)) => {
            Err(format!("store {store} holds a zombie of region {region}: {peer:?}"))
        }
        None => Ok(()),
    }
}

/// No hole, no overlap, from the one end of the key space to the other.
fn check_tiling(status: &ClusterStatus) -> Result<(), String> {
    let mut end = Some(bytes::Bytes::new());
    for row in &status.regions {
        if end.as_ref() != Some(&row.region.start_key) {
            return Err(format!("region {:?} does not begin at {end:?}", row.region));
        }
        end = Some(row.region.end_key.clone()).filter(|end| !end.is_empty());
    }
    match end {
        None => Ok(()),
        Some(end) => Err(format!("nothing behind {end:?}")),
    }
}

/// The scheduler's peers are the stores', they are equal, and one of them leads.
fn check_region(
    region: &Region,
    replicas: usize,
    held: &mut BTreeMap<(u64, u64), &RegionStatus>,
) -> Result<(), String> {
    let id = region.id;
    let voters = region.peers.iter().filter(|peer| peer.role == PeerRole::Voter as i32).count();
    if (voters, region.peers.len()) != (replicas, replicas) {
        return Err(format!("region {id} has not {replicas} voters: {:?}", region.peers));
    }
    let mut digests = Vec::new();
    let mut leaders = 0;
    for peer in &region.peers {
        let store = peer.store_id;
        let Some(found) = held.remove(&(id, store)) else {
            return Err(format!("store {store} does not hold region {id}"));
        };
        if found.region.as_ref() != Some(region) {
            return Err(format!("store {store} knows another region {id}: {found:?}"));
        }
        if found.peer.map(|found| found.id) != Some(peer.id) {
            return Err(format!("store {store} holds another peer of region {id}: {found:?}"));
        }
        if found.state() != PeerState::Normal {
            return Err(format!("region {id} on store {store} is {:?}", found.state()));
        }
        leaders += usize::from(found.role() == RaftRole::Leader);
        digests.push((found.applied_index, found.state_hash));
    }
    digests.dedup();
    match (leaders, &digests[..]) {
        (1, [(_, hash)]) if *hash != 0 => Ok(()),
        _ => Err(format!("region {id}: {leaders} leaders, applied and hashes {digests:?}")),
    }
}

/// Every region compares the data of its replicas.
async fn consistency(cluster: &Cluster, status: &ClusterStatus) {
    for row in &status.regions {
        let what = format!("region {} compares its replicas", row.id());
        until(cluster, &what, async || check_consistency(status, row).await).await;
    }
}

async fn check_consistency(status: &ClusterStatus, row: &client::RegionRow) -> Result<(), String> {
    let leader = row.leader.ok_or("no leader")?;
    let store = status.stores.iter().find(|store| store.store.id == leader.store_id);
    let address = &store.ok_or("the leader's store is unknown")?.store.address;
    let connected = DiagnosticsClient::connect(format!("http://{address}")).await;
    let mut client = connected.map_err(|error| error.to_string())?;
    let context = Context {
        region_id: row.region.id,
        region_epoch: row.region.region_epoch,
        peer: Some(leader),
        ..Context::default()
    };
    let request = CheckConsistencyRequest { context: Some(context) };
    let answer = client.check_consistency(request).await.map_err(|status| status.to_string())?;
    match answer.into_inner().region_error {
        None => Ok(()),
        Some(error) => Err(format!("{error:?}")),
    }
}

fn no_orphans(node: &Node) -> Result<(), String> {
    let dir = node.data_dir.join("snapshots");
    let Ok(files) = std::fs::read_dir(&dir) else { return Ok(()) };
    let left: Vec<String> =
        files.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("{}: {left:?}", node.name)) }
}

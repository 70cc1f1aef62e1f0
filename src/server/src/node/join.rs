//! Becoming a store of a cluster, and again at every start.
//!
//! A new data directory: ask the scheduler which cluster it serves, take a fresh id, write both down durably, and only then
//! appear in public. A crash in between wastes an id and nothing else. A used one knows who it is; a scheduler of another
//! cluster is refused (it would feed the wrong data to the wrong clients).
//!
//! The first regions are created when the scheduler has planned them; a store that was there already has them, or the
//! record that they are gone, and asking again changes nothing.

use std::time::Duration;

use engine::{Cf, Engine};
use prost::Message;
use proto::flotillapb::StoreIdent;
use proto::ids::StoreId;
use proto::metapb;
use raftstore::keys::Key;
use raftstore::worker::Router;
use raftstore::{RegionError, Reply, StoreMsg};
use tokio::sync::oneshot;
use transport::Identity;

use super::RunError;
use crate::scheduler::{Scheduler, SchedulerError};

/// Between attempts to reach the scheduler.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at whether the first regions are planned.
const PLAN_PAUSE: Duration = Duration::from_millis(100);
/// Attempts between two lines about a scheduler that cannot be reached.
const ATTEMPTS_PER_LINE: u32 = 25;

/// Who the data in `engine` says we are.
pub(crate) fn read_identity(engine: &dyn Engine) -> Result<Option<Identity>, RunError> {
    let Some(bytes) = engine.get(Cf::Raft, &Key::StoreIdent.encode())? else { return Ok(None) };
    let StoreIdent { cluster_id, store_id } = StoreIdent::decode(bytes)
        .map_err(|error| RunError::Refused(format!("the store's identity is damaged: {error}")))?;
    Ok(Some(Identity { cluster_id, store_id: store_id.into() }))
}

/// Who we are: as the data says, or newly given by the scheduler and written down.
pub(crate) async fn identify(
    engine: &dyn Engine,
    addresses: &[String],
    log: &slog::Logger,
) -> Result<(Identity, Scheduler), RunError> {
    let scheduler = Scheduler::new(addresses)?;
    if let Some(ours) = read_identity(engine)? {
        // Asked once: a scheduler that is down does not keep a store from serving. One that answers later, and for another
        // cluster, refuses our registration.
        if let Ok(theirs) = scheduler.cluster_id().await
            && theirs != ours.cluster_id
        {
            return Err(foreign(ours.cluster_id, theirs));
        }
        return Ok((ours, scheduler.identified(ours.cluster_id, ours.store_id)));
    }
    let cluster_id = patiently(log, || scheduler.cluster_id()).await?;
    let scheduler = scheduler.identified(cluster_id, StoreId::default());
    let store_id = StoreId::new(patiently(log, || scheduler.alloc_id()).await?);
    raftstore::store::format(engine, cluster_id, store_id)
        .map_err(|error| RunError::Refused(error.to_string()))?;
    slog::info!(log, "new store"; "cluster_id" => cluster_id, "store_id" => store_id.get());
    Ok((Identity { cluster_id, store_id }, scheduler.identified(cluster_id, store_id)))
}

fn foreign(ours: u64, theirs: u64) -> RunError {
    RunError::Refused(format!(
        "the data directory belongs to cluster {ours}, the scheduler serves cluster {theirs}"
    ))
}

/// Registers the store and creates the first regions that are to be here.
pub(crate) async fn join(
    scheduler: &Scheduler,
    store: metapb::Store,
    router: &Router,
    log: &slog::Logger,
) -> Result<(), RunError> {
    register(scheduler, &store, log).await?;
    slog::info!(log, "registered at the scheduler"; "address" => &store.address);
    let regions = loop {
        let answer = patiently(log, || scheduler.initial_regions()).await?;
        if answer.planned {
            break answer.regions;
        }
        slog::debug!(log, "waiting for other stores";
            "registered" => answer.stores_registered, "wanted" => answer.stores_wanted);
        tokio::time::sleep(PLAN_PAUSE).await;
    };
    for region in regions {
        let id = region.id;
        match create(router, region).await {
            Ok(()) => slog::debug!(log, "first region is here"; "region_id" => id),
            Err(RegionError::RegionNotFound { .. }) => {
                slog::debug!(log, "first region has left this store"; "region_id" => id);
            }
            Err(error) => return Err(RunError::Refused(format!("region {id}: {error}"))),
        }
    }
    Ok(())
}

/// Makes the store known. Its address may be another's: then somebody has to decide, and until then this one waits.
async fn register(
    scheduler: &Scheduler,
    store: &metapb::Store,
    log: &slog::Logger,
) -> Result<(), RunError> {
    let mut attempts = 0_u32;
    loop {
        match patiently(log, || scheduler.put_store(store.clone())).await {
            Err(RunError::Scheduler(SchedulerError::Taken(reason))) => {
                if attempts.is_multiple_of(ATTEMPTS_PER_LINE) {
                    slog::warn!(log, "waiting for the address; if the data of the other store are lost, \
                        let this one take its place: flotilla store replace <other> --with <this>";
                        "address" => &store.address, "this" => store.id, "reason" => reason);
                }
                attempts = attempts.wrapping_add(1);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            registered => return registered,
        }
    }
}

async fn create(router: &Router, region: metapb::Region) -> Result<(), RegionError> {
    let (sender, receiver) = oneshot::channel();
    let reply = Reply::new(move |outcome| {
        let _ = sender.send(outcome);
    });
    // A store that has stopped has answered the reply.
    let _ = router.send(StoreMsg::Bootstrap { region, reply });
    receiver.await.unwrap_or(Err(RegionError::StaleCommand))
}

/// Repeats a call until the scheduler can be reached.
async fn patiently<R>(
    log: &slog::Logger,
    mut call: impl AsyncFnMut() -> Result<R, SchedulerError>,
) -> Result<R, RunError> {
    let mut attempts = 0_u32;
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_transient() => {
                if attempts.is_multiple_of(ATTEMPTS_PER_LINE) {
                    slog::warn!(log, "waiting for the scheduler"; "reason" => %error);
                }
                attempts = attempts.wrapping_add(1);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

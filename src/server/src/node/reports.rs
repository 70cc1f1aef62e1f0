//! What a store tells the scheduler: that it lives, and which regions it leads.
//!
//! Region reports go up one stream for ever; while it is broken only the newest report of each region is kept, and all of
//! them are sent again on the next stream, so that a scheduler that was restarted knows every leader at once. Reports
//! carry their term: one that is out of date is refused by the scheduler, not believed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use proto::metapb;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{PeerStats, RegionHeartbeatRequest, RegionHeartbeatResponse, StoreStats};
use raftstore::msg::{RegionHeartbeat, RegionQuestion, SplitRequest};
use raftstore::worker::{Placement, Router};
use raftstore::{Reply, RequestHeader, StoreMsg};
use transport::{Mailbox, MailboxLimits};

use crate::scheduler::Scheduler;

/// Between attempts to reach the scheduler.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Reports that wait for the stream at most.
const QUEUED_MAX: usize = 64 * 1024;

/// Takes the store's reports; the other end is [`Reports::send`].
pub(crate) struct Reports {
    queue: Arc<Mailbox<RegionHeartbeatRequest>>,
    newest: Mutex<BTreeMap<u64, RegionHeartbeatRequest>>,
}

impl Reports {
    pub(crate) fn new() -> Reports {
        let limits = MailboxLimits {
            items_max: QUEUED_MAX,
            bytes_max: usize::MAX,
            batch_bytes_max: usize::MAX,
        };
        Reports { queue: Arc::new(Mailbox::new(limits)), newest: Mutex::default() }
    }

    /// Keeps the stream of region reports open; never ends.
    pub(crate) async fn send(&self, scheduler: &Scheduler, router: &Router, log: &slog::Logger) {
        loop {
            self.queue.clear();
            let again: Vec<_> = self.newest.lock().values().cloned().collect();
            self.queue.push_all(again.into_iter().map(|report| (report, 0)));
            let header = scheduler.header();
            let reports = self.queue.batches().flat_map(stream::iter);
            let reports = reports.map(move |report| RegionHeartbeatRequest { header, ..report });
            let ended = match PdClient::new(scheduler.channel()).region_heartbeat(reports).await {
                Ok(response) => answers(response.into_inner(), router, log).await,
                Err(status) => status.to_string(),
            };
            slog::debug!(log, "stream of region reports ended"; "reason" => ended);
            scheduler.move_on();
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

impl Placement for Reports {
    fn region_heartbeats(&self, heartbeats: Vec<RegionHeartbeat>) {
        let reports: Vec<_> = heartbeats.into_iter().map(report).collect();
        let mut newest = self.newest.lock();
        for report in &reports {
            let id = report.region.as_ref().map_or(0, |region| region.id);
            newest.insert(id, report.clone());
        }
        drop(newest);
        self.queue.push_all(reports.into_iter().map(|report| (report, 0)));
    }

    // The store gives up what is not answered, and asks again.
    fn ask_splits(&self, _: Vec<SplitRequest>) {}
    fn report_splits(&self, _: Vec<Vec<metapb::Region>>) {}
    fn ask_regions(&self, _: Vec<RegionQuestion>) {}
}

fn report(heartbeat: RegionHeartbeat) -> RegionHeartbeatRequest {
    let RegionHeartbeat { region, leader, term, down_peers, pending_peers, flow, .. } = heartbeat;
    let down = |(peer, down_seconds)| PeerStats { peer: Some(peer), down_seconds };
    RegionHeartbeatRequest {
        region: Some((*region).clone()),
        leader: Some(leader),
        term: term.0,
        down_peers: down_peers.into_iter().map(down).collect(),
        pending_peers,
        bytes_written: flow.bytes_written,
        bytes_read: flow.bytes_read,
        keys_written: flow.keys_written,
        keys_read: flow.keys_read,
        approximate_size: heartbeat.approximate_bytes,
        approximate_keys: heartbeat.approximate_keys,
        ..RegionHeartbeatRequest::default()
    }
}

/// Reads the scheduler's answers until the stream ends; says why it did.
async fn answers(
    mut answers: tonic::Streaming<RegionHeartbeatResponse>,
    router: &Router,
    log: &slog::Logger,
) -> String {
    loop {
        match answers.message().await {
            Ok(Some(answer)) => obey(answer, router, log),
            Ok(None) => return "ended by the scheduler".to_owned(),
            Err(status) => return status.to_string(),
        }
    }
}

/// Does what the scheduler asks for. Only transfers of leadership are known to this version.
fn obey(answer: RegionHeartbeatResponse, router: &Router, log: &slog::Logger) {
    let region_id = answer.region_id;
    if let Some(error) = answer.header.and_then(|header| header.error) {
        slog::debug!(log, "region report refused";
            "region_id" => region_id, "reason" => error.message);
        return;
    }
    let Some(to) = answer.transfer_leader.and_then(|transfer| transfer.peer) else {
        slog::warn!(log, "the scheduler asks for something unknown"; "region_id" => region_id);
        return;
    };
    let header = RequestHeader::new(region_id.into(), answer.region_epoch.unwrap_or_default());
    slog::info!(log, "leadership is handed over";
        "region_id" => region_id, "to_store" => to.store_id);
    let (to, reply) = (to.id.into(), Reply::ignored());
    // A store that has stopped need not know.
    let _ = router.send(StoreMsg::TransferLeader { header, to, reply });
}

/// Says that the store lives, at regular intervals; ends with the scheduler's refusal.
pub(crate) async fn heartbeats(
    scheduler: &Scheduler,
    stats: StoreStats,
    period: Duration,
    log: &slog::Logger,
) -> crate::scheduler::SchedulerError {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match scheduler.heartbeat(stats).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => {
                slog::debug!(log, "store report not delivered"; "reason" => %error);
            }
            Err(refusal) => return refusal,
        }
    }
}

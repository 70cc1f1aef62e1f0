//! What a store tells the scheduler of the regions it leads, and the orders that come back on the same stream.
//!
//! Region reports go up one stream for ever; while it is broken only the newest report of each region is kept, and all of
//! them are sent again on the next stream, so that a scheduler that was restarted knows every leader at once. Reports
//! carry their term: one that is out of date is refused by the scheduler, not believed, and is not sent again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use proto::metapb;
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{PeerStats, RegionHeartbeatRequest, RegionHeartbeatResponse, TimeInterval};
use raftstore::StoreMsg;
use raftstore::msg::{Flow, RegionHeartbeat, RegionQuestion, SplitRequest};
use raftstore::worker::{Placement, Router};
use transport::{Mailbox, MailboxLimits};

use super::orders::obey;
use super::questions::{Question, Questions};
use super::stats::unix_seconds;
use crate::scheduler::Scheduler;

/// Between attempts to reach the scheduler.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Reports that wait for the stream at most.
const QUEUED_MAX: usize = 64 * 1024;

/// Takes what the store has to say to the scheduler; the other end is [`Reports::send`].
pub(crate) struct Reports {
    queue: Arc<Mailbox<RegionHeartbeatRequest>>,
    newest: Mutex<BTreeMap<u64, RegionHeartbeatRequest>>,
    /// What clients did in all regions since it was last taken.
    flow: Mutex<Flow>,
    questions: Questions,
}

impl Reports {
    pub(crate) fn new() -> Reports {
        let limits = MailboxLimits {
            items_max: QUEUED_MAX,
            bytes_max: usize::MAX,
            batch_bytes_max: usize::MAX,
        };
        Reports {
            queue: Arc::new(Mailbox::new(limits)),
            newest: Mutex::default(),
            flow: Mutex::default(),
            questions: Questions::new(),
        }
    }

    /// What clients did in the regions led here since this was last asked.
    pub(crate) fn take_flow(&self) -> Flow {
        std::mem::take(&mut *self.flow.lock())
    }

    /// Keeps the stream of region reports open and asks what is to be asked; never ends.
    pub(crate) async fn send(
        &self,
        scheduler: &Arc<Scheduler>,
        router: &Router,
        log: &slog::Logger,
    ) {
        tokio::join!(
            self.keep_open(scheduler, router, log),
            self.questions.answer(scheduler, router, log)
        );
    }

    async fn keep_open(&self, scheduler: &Scheduler, router: &Router, log: &slog::Logger) {
        loop {
            let chosen = scheduler.choose().await;
            self.queue.clear();
            let again: Vec<_> = self.newest.lock().values().cloned().collect();
            self.queue.push_all(again.into_iter().map(|report| (report, 0)));
            let header = scheduler.header();
            let reports = self.queue.batches().flat_map(stream::iter);
            let reports = reports.map(move |report| RegionHeartbeatRequest { header, ..report });
            let stream = PdClient::new(chosen.channel.clone()).region_heartbeat(reports).await;
            let ended = match stream {
                Ok(response) => {
                    // Regions that sleep report rarely; whoever is new wants to know of all.
                    let _ = router.send(StoreMsg::ReportRegions);
                    self.answers(response.into_inner(), router, log).await
                }
                Err(status) => status.to_string(),
            };
            slog::debug!(log, "stream of region reports ended";
                "scheduler" => &chosen.address, "reason" => ended);
            scheduler.doubt(&chosen);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Reads the scheduler's answers until the stream ends; says why it did.
    async fn answers(
        &self,
        mut answers: tonic::Streaming<RegionHeartbeatResponse>,
        router: &Router,
        log: &slog::Logger,
    ) -> String {
        loop {
            match answers.message().await {
                Ok(Some(answer)) => self.answered(answer, router, log),
                Ok(None) => return "ended by the scheduler".to_owned(),
                Err(status) => return status.to_string(),
            }
        }
    }

    fn answered(&self, answer: RegionHeartbeatResponse, router: &Router, log: &slog::Logger) {
        let Some(error) = answer.header.as_ref().and_then(|header| header.error.as_ref()) else {
            return obey(answer, router, log);
        };
        let region_id = answer.region_id;
        slog::debug!(log, "region report refused";
            "region_id" => region_id, "reason" => &error.message);
        let mut newest = self.newest.lock();
        let refused = newest.get(&region_id).and_then(|report| report.region.as_ref());
        if refused.is_some_and(|region| region.region_epoch == answer.region_epoch) {
            newest.remove(&region_id);
        }
    }
}

impl Placement for Reports {
    fn region_heartbeats(&self, heartbeats: Vec<RegionHeartbeat>) {
        let mut flow = self.flow.lock();
        heartbeats.iter().for_each(|heartbeat| add(&mut flow, &heartbeat.flow));
        drop(flow);
        let reports: Vec<_> = heartbeats.into_iter().map(report).collect();
        let mut newest = self.newest.lock();
        for report in &reports {
            let id = report.region.as_ref().map_or(0, |region| region.id);
            newest.insert(id, report.clone());
        }
        drop(newest);
        self.queue.push_all(reports.into_iter().map(|report| (report, 0)));
    }

    fn ask_splits(&self, requests: Vec<SplitRequest>) {
        self.questions.ask(requests.into_iter().map(Question::Split));
    }

    fn report_splits(&self, splits: Vec<Vec<metapb::Region>>) {
        self.questions.ask(splits.into_iter().map(Question::HasSplit));
    }

    fn ask_regions(&self, questions: Vec<RegionQuestion>) {
        self.questions.ask(questions.into_iter().map(Question::Holder));
    }
}

fn add(sum: &mut Flow, flow: &Flow) {
    sum.bytes_written += flow.bytes_written;
    sum.keys_written += flow.keys_written;
    sum.bytes_read += flow.bytes_read;
    sum.keys_read += flow.keys_read;
}

fn report(heartbeat: RegionHeartbeat) -> RegionHeartbeatRequest {
    let RegionHeartbeat { region, leader, term, down_peers, pending_peers, flow, .. } = heartbeat;
    let down = |(peer, down_seconds)| PeerStats { peer: Some(peer), down_seconds };
    let end_timestamp = unix_seconds();
    let start_timestamp = end_timestamp.saturating_sub(flow.interval_ms.div_ceil(1000));
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
        interval: Some(TimeInterval { start_timestamp, end_timestamp }),
        ..RegionHeartbeatRequest::default()
    }
}

//! What a store asks the scheduler while it works: ids for a split, who holds a key now; and the news of a split.
//!
//! Questions wait in a bounded queue and are asked a few at a time, each bounded in time. One that finds no place, or no
//! answer, is dropped: the store asks again when it still wants to know. A failed request for ids is answered with the
//! failure, so that the region may try again.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use proto::metapb;
use proto::pdpb::SplitId;
use raftstore::msg::{RegionQuestion, SplitRequest};
use raftstore::worker::Router;
use raftstore::{NewRegion, StoreMsg};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::scheduler::{Scheduler, SchedulerError};

/// Questions that wait at most.
const QUEUED_MAX: usize = 4096;
/// Questions asked at once.
const ASKED_AT_ONCE: usize = 8;
/// How often the news of a split is tried: until it arrives the scheduler only has the parts' reports, one by one.
const NEWS_ATTEMPTS: usize = 5;
/// Between two of them.
const NEWS_PAUSE: Duration = Duration::from_millis(300);

/// One thing to ask or to tell.
#[derive(Debug)]
pub(super) enum Question {
    /// Ids for the parts.
    Split(SplitRequest),
    /// No question: these are the parts of a region that was split.
    HasSplit(Vec<metapb::Region>),
    /// Who holds the region's start key.
    Holder(RegionQuestion),
}

/// See the module header.
pub(super) struct Questions {
    queue: mpsc::Sender<Question>,
    /// Taken by the one that asks.
    waiting: Mutex<Option<mpsc::Receiver<Question>>>,
}

impl Questions {
    pub(super) fn new() -> Questions {
        let (queue, waiting) = mpsc::channel(QUEUED_MAX);
        Questions { queue, waiting: Mutex::new(Some(waiting)) }
    }

    /// Queues questions; those beyond the bound are dropped.
    pub(super) fn ask(&self, questions: impl Iterator<Item = Question>) {
        for question in questions {
            if self.queue.try_send(question).is_err() {
                return;
            }
        }
    }

    /// Asks for ever, and passes the answers on.
    pub(super) async fn answer(
        &self,
        scheduler: &Arc<Scheduler>,
        router: &Router,
        log: &slog::Logger,
    ) {
        let Some(waiting) = self.waiting.lock().take() else { return };
        let asked = ReceiverStream::new(waiting).for_each_concurrent(ASKED_AT_ONCE, |question| {
            let (scheduler, router, log) = (scheduler.clone(), router.clone(), log.clone());
            async move {
                let answer = match question {
                    Question::Split(request) => Some(ids(&scheduler, request, &log).await),
                    Question::HasSplit(parts) => {
                        tell(&scheduler, parts, &log).await;
                        None
                    }
                    Question::Holder(question) => holder(&scheduler, question, &log).await,
                };
                if let Some(answer) = answer {
                    // A store that has stopped need not know.
                    let _ = router.send(answer);
                }
            }
        });
        asked.await;
    }
}

async fn ids(scheduler: &Scheduler, request: SplitRequest, log: &slog::Logger) -> StoreMsg {
    let (region, parts) = (&request.region, request.keys.len());
    let asked = scheduler.ask_split((**region).clone(), u32::try_from(parts).unwrap_or(u32::MAX));
    let ids = match asked.await {
        Ok(ids) => check(ids, parts, region.peers.len()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(reason) = &ids {
        slog::info!(log, "no ids for a split"; "region_id" => region.id, "reason" => reason);
    }
    StoreMsg::SplitIds { request, ids }
}

/// As many ids as were asked for, none of them 0.
fn check(ids: Vec<SplitId>, parts: usize, peers: usize) -> Result<Vec<NewRegion>, String> {
    let whole = |id: &SplitId| {
        id.new_region_id != 0
            && id.new_peer_ids.len() == peers
            && id.new_peer_ids.iter().all(|peer| *peer != 0)
    };
    if ids.len() != parts || !ids.iter().all(whole) {
        return Err(format!("the scheduler's ids do not fit {parts} parts of {peers} peers"));
    }
    let new = |id: SplitId| NewRegion {
        region: id.new_region_id.into(),
        peers: id.new_peer_ids.into_iter().map(Into::into).collect(),
    };
    Ok(ids.into_iter().map(new).collect())
}

async fn tell(scheduler: &Scheduler, parts: Vec<metapb::Region>, log: &slog::Logger) {
    for _ in 0..NEWS_ATTEMPTS {
        match scheduler.report_split(parts.clone()).await {
            Ok(()) => return,
            Err(error) if error.is_transient() => tokio::time::sleep(NEWS_PAUSE).await,
            Err(refusal) => {
                // Known by other reports already, or overtaken.
                slog::debug!(log, "news of a split refused"; "reason" => %refusal);
                return;
            }
        }
    }
}

async fn holder(
    scheduler: &Scheduler,
    question: RegionQuestion,
    log: &slog::Logger,
) -> Option<StoreMsg> {
    let RegionQuestion { region, peer: _ } = question;
    match scheduler.region_of(region.start_key.clone()).await {
        Ok(holder) => Some(StoreMsg::RegionAnswer { asked: region.id.into(), holder: holder? }),
        Err(error @ SchedulerError::Unreachable { .. }) => {
            slog::debug!(log, "nobody says who holds a region"; "reason" => %error);
            None
        }
        Err(refusal) => {
            slog::info!(log, "nobody says who holds a region";
                "region_id" => region.id, "reason" => %refusal);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(region: u64, peers: &[u64]) -> SplitId {
        SplitId { new_region_id: region, new_peer_ids: peers.to_vec() }
    }

    #[test]
    fn ids_that_do_not_fit_are_not_passed_on() {
        let good = check(vec![id(7, &[8, 9]), id(10, &[11, 12])], 2, 2).expect("they fit");
        assert_eq!(good[1].peers, [11.into(), 12.into()]);
        for bad in [vec![], vec![id(7, &[8])], vec![id(0, &[8, 9])], vec![id(7, &[8, 0])]] {
            assert!(check(bad, 1, 2).is_err());
        }
    }

    #[test]
    fn a_full_queue_drops_questions_and_does_not_wait() {
        let questions = Questions::new();
        questions.ask((0..QUEUED_MAX + 10).map(|_| Question::HasSplit(Vec::new())));
        let mut waiting = questions.waiting.lock().take().expect("nobody asks yet");
        let mut count = 0;
        while waiting.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, QUEUED_MAX);
    }
}

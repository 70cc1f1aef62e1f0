//! Timestamps of the scheduler: unique, and each above every one that was handed out before it was asked for.
//!
//! One stream to the member that leads carries all requests of a client. Whoever waits when it is free is served by one message
//! together with all others; so batches grow with the load. A member that loses the lead ends its stream; then the next one is
//! found and asked for those who still wait, who get later timestamps than they might have, which is as good.
//!
//! Invariant: what the scheduler sends only ever grows, over all streams; an answer that does not is refused, loudly.

use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use proto::limits::TSO_COUNT_MAX;
use proto::pdpb::{TsoRequest, TsoResponse};
use tokio::sync::oneshot;
use tonic::Streaming;

use crate::error::{Error, Result};
use crate::scheduler::{ASK_TIMEOUT, Scheduler};

/// Pause between two searches for a member that serves.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Bits of the counter within one millisecond.
const LOGICAL_BITS: u32 = 18;

type Waiting = oneshot::Sender<Result<u64>>;

/// A handle to the stream; the task behind it ends with the last one.
#[derive(Clone, Debug)]
pub(crate) struct Tso(tokio::sync::mpsc::UnboundedSender<Waiting>);

impl Tso {
    /// Starts the task, which connects when it is first asked. Must be called within a tokio runtime.
    pub(crate) fn start(scheduler: Arc<Scheduler>) -> Tso {
        let (sender, queue) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(Task { scheduler, queue, waiting: Vec::new(), last: 0 }.run());
        Tso(sender)
    }

    /// The next timestamp: milliseconds since 1970, and behind them 18 bits of a counter.
    pub(crate) async fn next(&self, budget: Duration) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        let ended = || Error::Unreachable("the timestamp stream has ended".to_owned());
        self.0.send(reply).map_err(|_| ended())?;
        match tokio::time::timeout(budget, answer).await {
            Ok(answer) => answer.map_err(|_| ended())?,
            Err(_) => {
                let last = "no scheduler gives out timestamps".to_owned();
                Err(Error::Timeout { budget, last })
            }
        }
    }
}

struct Task {
    scheduler: Arc<Scheduler>,
    queue: tokio::sync::mpsc::UnboundedReceiver<Waiting>,
    waiting: Vec<Waiting>,
    /// The largest timestamp ever received.
    last: u64,
}

/// An open stream.
struct Line {
    requests: mpsc::UnboundedSender<TsoRequest>,
    answers: Streaming<TsoResponse>,
}

impl Task {
    async fn run(mut self) {
        let mut line = None;
        while self.gather().await {
            if line.is_none() {
                line = self.connect().await;
            }
            let Some(open) = &mut line else {
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            };
            let header = self.scheduler.header();
            let count = self.waiting.len() as u32;
            let request = TsoRequest { header, count, dc_location: String::new() };
            let answered = match open.requests.unbounded_send(request) {
                Ok(()) => tokio::time::timeout(ASK_TIMEOUT, open.answers.message()).await.ok(),
                Err(_) => None,
            };
            match answered {
                Some(Ok(Some(answer))) => self.hand_out(&answer),
                _ => {
                    line = None;
                    self.scheduler.look_around().await;
                }
            }
        }
    }

    /// Everybody who waits by now and still cares, up to what one message may ask for. False: nobody ever will again.
    async fn gather(&mut self) -> bool {
        self.waiting.retain(|waiting| !waiting.is_closed());
        if self.waiting.is_empty() {
            match self.queue.recv().await {
                Some(first) => self.waiting.push(first),
                None => return false,
            }
        }
        while self.waiting.len() < TSO_COUNT_MAX as usize
            && let Ok(next) = self.queue.try_recv()
        {
            self.waiting.push(next);
        }
        true
    }

    async fn connect(&self) -> Option<Line> {
        let (requests, answers) = self.scheduler.timestamps().await.ok()?;
        Some(Line { requests, answers })
    }

    fn hand_out(&mut self, answer: &TsoResponse) {
        let outcome = self.check(answer);
        let count = self.waiting.len() as u64;
        for (n, waiting) in (1..).zip(std::mem::take(&mut self.waiting)) {
            // Somebody may have gone away.
            let _ = waiting.send(outcome.clone().map(|largest| largest - count + n));
        }
    }

    /// The largest timestamp of the batch.
    fn check(&mut self, answer: &TsoResponse) -> Result<u64> {
        let malformed = |what: String| Err(Error::Malformed(format!("timestamps: {what}")));
        let count = self.waiting.len() as u64;
        if u64::from(answer.count) != count {
            return malformed(format!("{} instead of {count}", answer.count));
        }
        let Some(timestamp) = &answer.timestamp else {
            return malformed("an answer without any".to_owned());
        };
        let parts = (u64::try_from(timestamp.physical), u64::try_from(timestamp.logical));
        let (Ok(physical), Ok(logical)) = parts else {
            return malformed(format!("{timestamp:?} is negative"));
        };
        if logical >> LOGICAL_BITS != 0 || physical >> (64 - LOGICAL_BITS) != 0 {
            return malformed(format!("{timestamp:?} is out of range"));
        }
        let largest = physical << LOGICAL_BITS | logical;
        let last = self.last;
        self.last = largest.max(last);
        if largest.checked_sub(count).is_none_or(|below| below < last) {
            return malformed(format!("{largest} and {} before it come after {last}", count - 1));
        }
        Ok(largest)
    }
}

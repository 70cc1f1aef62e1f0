//! Writes on their way into the log.
//!
//! Requests that arrive between two turns wait in a [`WriteQueue`]; at the turn they are merged, in order, into as few
//! entries as the limits allow. What Raft cannot take now (too much is uncommitted) keeps waiting: back-pressure is delay.
//! What can no longer succeed is answered at once.

use std::collections::VecDeque;

use bytes::Bytes;
use proto::limits::ENTRY_BYTES_MAX;
use raft::Error;

use super::{Context, Peer};
use crate::command::{Command, Epoch, Mutation, Request, WriteResult};
use crate::config::{MERGED_BYTES_MAX, MERGED_REQUESTS_MAX, QUEUED_WRITES_BYTES_MAX};
use crate::error::RegionError;
use crate::msg::WriteRequest;
use crate::planted::{Bug, planted};
use crate::reply::Reply;

/// What one mutation or request costs in an entry beside its keys and values: tags, lengths, numbers. An upper bound.
const PART_OVERHEAD_BYTES: usize = 64;

/// A request that waits, and its share of an entry.
#[derive(Debug)]
struct Queued {
    version: u64,
    request: Request,
    reply: Reply<WriteResult>,
    size_bytes: usize,
}

/// An entry that is ready and that Raft did not take yet.
#[derive(Debug)]
struct Merged {
    version: u64,
    data: Bytes,
    replies: Vec<Reply<WriteResult>>,
}

/// The writes of one region that have not been proposed.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    refused: Option<Merged>,
    waiting: VecDeque<Queued>,
    size_bytes: usize,
}

impl WriteQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.refused.is_none() && self.waiting.is_empty()
    }

    /// Every reply, for an answer that ends the wait.
    pub(super) fn take_replies(&mut self) -> Vec<Reply<WriteResult>> {
        self.size_bytes = 0;
        let refused = self.refused.take().into_iter().flat_map(|merged| merged.replies);
        refused.chain(self.waiting.drain(..).map(|queued| queued.reply)).collect()
    }

    /// The next entry: what Raft refused last time, or as many waiting requests as fit. Requests for another generation
    /// of the region than `epoch` are put into `stale`.
    fn next(&mut self, epoch: Epoch, stale: &mut Vec<Reply<WriteResult>>) -> Option<Merged> {
        match self.refused.take() {
            Some(merged) if merged.version == epoch.version => return Some(merged),
            Some(merged) => stale.extend(merged.replies),
            None => {}
        }
        let (mut requests, mut replies, mut size_bytes) = (Vec::new(), Vec::new(), 0);
        while let Some(queued) = self.waiting.front() {
            let full = size_bytes + queued.size_bytes > MERGED_BYTES_MAX
                || requests.len() == MERGED_REQUESTS_MAX;
            if full && !requests.is_empty() {
                break;
            }
            let Some(queued) = self.waiting.pop_front() else { break };
            self.size_bytes -= queued.size_bytes;
            if queued.version != epoch.version {
                stale.push(queued.reply);
                continue;
            }
            size_bytes += queued.size_bytes;
            requests.push(queued.request);
            replies.push(queued.reply);
        }
        if requests.is_empty() {
            return None;
        }
        let data = Command::Write { epoch, requests }.encode();
        Some(Merged { version: epoch.version, data, replies })
    }
}

/// The share of an entry that `request` takes, and a bit more.
fn request_bytes(request: &Request) -> usize {
    match request {
        Request::Mutate { mutations, .. } => {
            let parts = mutations.iter().map(Mutation::payload_bytes);
            parts.sum::<usize>() + PART_OVERHEAD_BYTES * (1 + mutations.len())
        }
        Request::OpenSession { .. } => PART_OVERHEAD_BYTES,
    }
}

impl Peer {
    /// A client's write: answered at once if it cannot succeed, else queued for the turn.
    pub(crate) fn queue_write(&mut self, write: WriteRequest, context: &Context<'_>) {
        let WriteRequest { header, request, reply } = write;
        if let Err(error) = self.check_leader(&header, context) {
            return reply.fail(error);
        }
        if let Err(error) = self.check_keys(&request) {
            return reply.fail(error);
        }
        let size_bytes = request_bytes(&request);
        if size_bytes > ENTRY_BYTES_MAX {
            let region = self.id;
            let entry_bytes = size_bytes as u64;
            return reply.fail(RegionError::RaftEntryTooLarge { region, entry_bytes });
        }
        if self.writes.size_bytes + size_bytes > QUEUED_WRITES_BYTES_MAX {
            return reply.fail(RegionError::StaleCommand);
        }
        self.load.written(&request);
        self.writes.size_bytes += size_bytes;
        let version = header.epoch.version;
        self.writes.waiting.push_back(Queued { version, request, reply, size_bytes });
    }

    fn check_keys(&self, request: &Request) -> Result<(), RegionError> {
        let Request::Mutate { mutations, .. } = request else { return Ok(()) };
        for mutation in mutations {
            match mutation {
                Mutation::Put { key, .. }
                | Mutation::Delete { key, .. }
                | Mutation::Append { key, .. } => self.check_key(key)?,
                // An empty end means the region's; a longer range is cut to the region when it is applied.
                Mutation::DeleteRange { start, .. } => self.check_key(start)?,
            }
        }
        Ok(())
    }

    fn check_key(&self, key: &Bytes) -> Result<(), RegionError> {
        let region = &self.region;
        if *key >= region.start_key && (region.end_key.is_empty() || *key < region.end_key) {
            Ok(())
        } else {
            Err(RegionError::key_not_in_region(key.clone(), region))
        }
    }

    /// Proposes what waits.
    pub(super) fn propose_writes(&mut self, context: &Context<'_>) {
        let epoch = self.region.region_epoch.unwrap_or_default();
        let epoch = Epoch { conf_ver: epoch.conf_ver, version: epoch.version };
        let mut stale = Vec::new();
        while let Some(merged) = self.writes.next(epoch, &mut stale) {
            // Counting references: the bytes themselves are shared.
            match self.raft.propose(Bytes::new(), merged.data.clone()) {
                Ok(index) => {
                    let replies = answer_early(merged.replies);
                    self.proposals.push(index, self.raft.term(), context.now, replies);
                }
                Err(Error::UncommittedFull { .. }) => {
                    self.writes.refused = Some(merged);
                    break;
                }
                Err(_) => {
                    let error = self.not_leader();
                    merged.replies.into_iter().for_each(|reply| reply.fail(error.clone()));
                }
            }
        }
        for reply in stale {
            reply.fail(self.epoch_not_match());
        }
    }
}

/// The seam of the planted bug that acknowledges what is only proposed.
fn answer_early(replies: Vec<Reply<WriteResult>>) -> Vec<Reply<WriteResult>> {
    if planted(Bug::ReplyBeforeCommit) {
        for reply in replies {
            reply.send(Ok(WriteResult::Applied));
        }
        return Vec::new();
    }
    replies
}

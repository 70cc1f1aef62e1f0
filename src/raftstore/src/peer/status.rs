//! What a peer tells others about itself.

use std::sync::Arc;

use proto::ids::PeerId;
use proto::metapb;
use raft::{LogIndex, ProgressState};

use super::{Context, Peer};
use crate::msg::RegionHeartbeat;

/// One region as this store sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionStatus {
    /// The region as of `applied_index`.
    pub region: Arc<metapb::Region>,
    /// This store's peer.
    pub peer: metapb::Peer,
    /// Its Raft node.
    pub raft: raft::Status,
    /// The last entry applied.
    pub applied_index: LogIndex,
    /// Digest of everything applied; equal on all peers at the same index.
    pub state_hash: u64,
    /// About how many bytes of keys and values it holds.
    pub approximate_bytes: u64,
    /// About how many keys.
    pub approximate_keys: u64,
    /// Whether it waits to be taken over by a neighbour.
    pub merging: bool,
    /// Whether the peer sleeps.
    pub hibernating: bool,
    /// Whether a snapshot is being installed.
    pub installing: bool,
    /// Entries that were proposed here and not yet handed to the applier.
    pub proposals: usize,
}

impl Peer {
    /// This peer's state, for operators and tests.
    pub(crate) fn status(&self) -> RegionStatus {
        let size = self.size.approximate();
        RegionStatus {
            region: self.region.clone(),
            peer: self.me,
            raft: self.raft.status(),
            applied_index: self.applied_index,
            state_hash: self.state_hash,
            approximate_bytes: size.bytes,
            approximate_keys: size.keys,
            merging: self.is_merging(),
            hibernating: self.is_asleep(),
            installing: self.install.is_some(),
            proposals: self.proposals.len(),
        }
    }

    /// The leader's report for the scheduler.
    pub(super) fn heartbeat(&mut self, context: &Context<'_>) -> RegionHeartbeat {
        let flow = self.take_flow(context.now);
        let size = self.size.approximate();
        let (down, pending_peers) = self.ailing(context);
        let ids = down.iter().chain(&pending_peers).map(|peer| PeerId::from(peer.id));
        self.reported_ailing = ids.collect();
        RegionHeartbeat {
            region: self.region.clone(),
            leader: self.me,
            term: self.raft.term(),
            down_peers: down
                .into_iter()
                .map(|peer| (peer, self.down_seconds(&peer, context)))
                .collect(),
            pending_peers,
            approximate_bytes: size.bytes,
            approximate_keys: size.keys,
            flow,
        }
    }

    /// The peers that are silent, and those that could not take part in decisions at once.
    fn ailing(&self, context: &Context<'_>) -> (Vec<metapb::Peer>, Vec<metapb::Peer>) {
        let progress = self.raft.status().progress;
        let timeout_ticks = context.config.election_timeout_ticks;
        // A learner is pending until it follows the log: before, it could not be promoted.
        let lags = |p: &raft::ProgressStatus| match p.state {
            ProgressState::Snapshot => true,
            ProgressState::Probe => p.is_learner,
            ProgressState::Replicate => false,
        };
        let others = || progress.iter().filter(|p| p.id.0 != self.me.id);
        let peer = |p: &raft::ProgressStatus| self.find_peer(PeerId::from(p.id.0)).copied();
        let silent =
            |peer: &metapb::Peer| !self.heard.is_live(peer.id.into(), context.tick, timeout_ticks);
        let down = others().filter_map(peer).filter(silent).collect();
        (down, others().filter(|p| lags(p)).filter_map(peer).collect())
    }

    /// A tick has passed: whoever waits for an ailing peer to recover is told when it has.
    pub(super) fn tick_ailing(&mut self, context: &Context<'_>) {
        if self.reported_ailing.is_empty() {
            return;
        }
        let (down, pending) = self.ailing(context);
        let ids = down.iter().chain(&pending).map(|peer| PeerId::from(peer.id));
        self.heartbeat_due |= !ids.eq(self.reported_ailing.iter().copied());
    }

    /// For how many whole seconds a peer has been silent.
    fn down_seconds(&self, peer: &metapb::Peer, context: &Context<'_>) -> u64 {
        let ticks = self.heard.silent_ticks(peer.id.into(), context.tick).unwrap_or(0);
        ticks.saturating_mul(context.config.tick_ms) / 1000
    }
}

//! What a node is told at start.

use crate::error::ConfigError;
use crate::{LogIndex, NodeId};

/// How a leader proves, before a read, that it is still the leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadOnlyOption {
    /// A round of heartbeats to a majority (Raft thesis §6.4). Depends on no clock.
    #[default]
    Safe,
    /// The election timeout of the followers (§6.4.1). Needs `check_quorum`, and ticks of bounded
    /// drift.
    LeaseBased,
}

/// Settings of one node. `validate` is called by `RawNode::new`.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node. Not 0.
    pub id: NodeId,
    /// Last index the state machine has applied; entries after it are handed out again.
    pub applied: LogIndex,
    /// Ticks without a leader after which a node may campaign; the real one is drawn from `[T,
    /// 2T)`. Default 10.
    pub election_timeout_ticks: u32,
    /// Ticks between heartbeats. Less than the election timeout. Default 2.
    pub heartbeat_interval_ticks: u32,
    /// Ask before campaigning (§9.6), so that a node cut off does not disturb when it returns.
    /// Default true.
    pub pre_vote: bool,
    /// A leader that hears no majority for an election timeout steps down, and followers that hear
    /// a leader refuse votes (§4.2.3). Default true.
    pub check_quorum: bool,
    /// How reads are confirmed. Default `Safe`.
    pub read_only: ReadOnlyOption,
    /// Bytes of entries in one append; at least one entry is sent whatever its size. Default 1 MiB.
    pub message_entries_bytes_max: u64,
    /// Appends in flight to one follower. Default 256.
    pub inflight_messages_max: usize,
    /// Bytes in flight to one follower. Default 8 MiB.
    pub inflight_bytes_max: u64,
    /// Payload bytes a leader keeps uncommitted before it refuses proposals. Default 32 MiB.
    pub uncommitted_bytes_max: u64,
    /// Bytes of committed entries handed out in one Ready; at least one entry whatever its size.
    /// Default 16 MiB.
    pub ready_committed_bytes_max: u64,
    /// Tell followers a new commit index at once, in an append of its own if need be. Otherwise it rides on the next append
    /// or heartbeat, which saves half of the messages when proposals are few; nobody but a follower's own state machine
    /// waits for it. Default true.
    pub commit_broadcast: bool,
    /// Election priority: a voter prefers no candidate of lower priority with an equal log. Default
    /// 0.
    pub priority: i64,
    /// Seed of the election timeouts and of the read contexts. Must differ between the nodes of a
    /// group, and should differ between two starts of one node.
    pub seed: u64,
    /// With `check_quorum`: a node that was active before it restarted grants no vote for one
    /// election timeout, since it may have promised a leader to defend it. Default true.
    pub vote_cooldown_after_restart: bool,
    /// The index a group's replicas are created with. A node that still is in that state was never
    /// active. Default 5.
    pub bootstrap_index: LogIndex,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            id: NodeId(0),
            applied: LogIndex(0),
            election_timeout_ticks: 10,
            heartbeat_interval_ticks: 2,
            pre_vote: true,
            check_quorum: true,
            read_only: ReadOnlyOption::Safe,
            message_entries_bytes_max: 1 << 20,
            inflight_messages_max: 256,
            inflight_bytes_max: 8 << 20,
            uncommitted_bytes_max: 32 << 20,
            ready_committed_bytes_max: 16 << 20,
            commit_broadcast: true,
            priority: 0,
            seed: 0,
            vote_cooldown_after_restart: true,
            bootstrap_index: LogIndex(5),
        }
    }
}

impl Config {
    /// Refuses settings that contradict each other.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id == NodeId(0) {
            return Err(ConfigError::ZeroId);
        }
        if self.heartbeat_interval_ticks == 0 {
            return Err(ConfigError::ZeroHeartbeatInterval);
        }
        if self.election_timeout_ticks <= self.heartbeat_interval_ticks {
            return Err(ConfigError::ElectionTimeoutTooShort {
                election_timeout_ticks: self.election_timeout_ticks,
                heartbeat_interval_ticks: self.heartbeat_interval_ticks,
            });
        }
        if self.inflight_messages_max == 0 || self.inflight_bytes_max == 0 {
            return Err(ConfigError::ZeroInflight);
        }
        if self.read_only == ReadOnlyOption::LeaseBased && !self.check_quorum {
            return Err(ConfigError::LeaseWithoutCheckQuorum);
        }
        Ok(())
    }
}

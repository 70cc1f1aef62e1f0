//! What a replica keeps: log entries, the hard state, the membership and snapshots.

use bytes::Bytes;

use crate::{LogIndex, NodeId, Term};

/// What an entry means to the node that applies it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// A command of the state machine. Empty data is the leader's own first entry of a term: apply
    /// nothing.
    #[default]
    Normal,
    /// One membership change, encoded as `eraftpb.ConfChange`.
    ConfChange,
    /// A membership change, encoded as `eraftpb.ConfChangeV2`. Empty data leaves the joint
    /// membership.
    ConfChangeV2,
}

impl EntryKind {
    /// Whether applying the entry may change the membership.
    pub fn is_conf_change(self) -> bool {
        self != EntryKind::Normal
    }
}

/// One log entry. Payloads are reference counted: cloning an entry copies no bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log.
    pub index: LogIndex,
    /// Term of the leader that created it.
    pub term: Term,
    /// How to apply it.
    pub kind: EntryKind,
    /// The command.
    pub data: Bytes,
    /// Free for the proposer; replicated with the entry.
    pub context: Bytes,
}

/// Bytes charged per entry beside its payload, so that a limit in bytes also limits the number of
/// entries.
pub const ENTRY_OVERHEAD_BYTES: u64 = 24;

impl Entry {
    /// Bytes of the payload alone (data and context).
    pub fn payload_bytes(&self) -> u64 {
        (self.data.len() + self.context.len()) as u64
    }

    /// Bytes this entry counts for in every limit of this crate.
    pub fn size_bytes(&self) -> u64 {
        self.payload_bytes() + ENTRY_OVERHEAD_BYTES
    }
}

/// The part of a node's state that must be on disk before its promises leave (Raft thesis §3.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The node's current term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The highest index it knows to be committed. May lag after a crash; never regresses.
    pub commit: LogIndex,
}

/// Membership of a group. `voters_outgoing` is empty outside a joint change (Raft thesis §4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voters; while joint, the incoming majority.
    pub voters: Vec<NodeId>,
    /// Voters of the outgoing majority while joint.
    pub voters_outgoing: Vec<NodeId>,
    /// Members that replicate and do not vote.
    pub learners: Vec<NodeId>,
    /// Voters of the outgoing majority that become learners when the joint state is left.
    pub learners_next: Vec<NodeId>,
    /// Whether the leader leaves the joint state by itself.
    pub auto_leave: bool,
}

impl ConfState {
    /// A plain membership of voters and learners.
    pub fn simple(
        voters: impl IntoIterator<Item = u64>,
        learners: impl IntoIterator<Item = u64>,
    ) -> ConfState {
        ConfState {
            voters: voters.into_iter().map(NodeId).collect(),
            learners: learners.into_iter().map(NodeId).collect(),
            ..ConfState::default()
        }
    }

    /// Whether `id` is a member in any role.
    pub fn contains(&self, id: NodeId) -> bool {
        self.voters.contains(&id)
            || self.voters_outgoing.contains(&id)
            || self.learners.contains(&id)
            || self.learners_next.contains(&id)
    }
}

/// The state machine at one log position, standing for the whole log up to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry it contains.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
    /// The membership as of that entry.
    pub conf_state: ConfState,
    /// The state machine's own description; opaque here.
    pub data: Bytes,
}

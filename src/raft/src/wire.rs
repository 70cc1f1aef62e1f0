//! The one mapping between the core's types and `eraftpb`, in which the meaning of a field depends
//! on the message type.
//!
//! Towards the wire it cannot fail. From the wire every field is checked: what does not fit its
//! type is refused by name, and nothing here panics. Whether a well-formed message makes sense is
//! decided by [`crate::RawNode::step`]. Tests: `wire/tests.rs` (round trips, hostile input).

use bytes::Bytes;
use prost::Message as _;
use proto::eraftpb;

use crate::{
    Append, AppendResponse, ConfChange, ConfChangeError, ConfChangeKind, ConfChangeV2, ConfState,
    Entry, EntryKind, HardState, LogIndex, Message, MessageBody, NodeId, Reject, Snapshot, Term,
    Transition, VoteRequest, VoteResponse,
};

#[cfg(test)]
mod tests;

/// `Message.context` of a vote request in an election the leader asked for.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

/// Why a protobuf message is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are no protobuf message of the type.
    #[error("malformed protobuf: {0}")]
    Protobuf(String),
    /// The message type is unknown or never travels.
    #[error("message type {0} is not one that travels")]
    MessageType(i32),
    /// The entry type is unknown. It must not be skipped: peers would diverge.
    #[error("entry type {0} is unknown")]
    EntryType(i32),
    /// A field the type needs is missing.
    #[error("field {0} is missing")]
    Missing(&'static str),
}

/// Encodes a message for the wire.
pub fn encode_message(message: Message) -> Bytes {
    Bytes::from(message_to_proto(message).encode_to_vec())
}

/// Decodes a message from the wire. Payloads share the memory of `bytes`.
pub fn decode_message(bytes: Bytes) -> Result<Message, WireError> {
    let message = eraftpb::Message::decode(bytes);
    message_from_proto(message.map_err(|error| WireError::Protobuf(error.to_string()))?)
}

/// The protobuf form of a message.
pub fn message_to_proto(message: Message) -> eraftpb::Message {
    use eraftpb::MessageType as Type;
    let mut wire = eraftpb::Message {
        to: message.to.0,
        from: message.from.0,
        term: message.term.0,
        ..eraftpb::Message::default()
    };
    let kind = match message.body {
        MessageBody::Propose(entries) => {
            wire.entries = entries.into_iter().map(entry_to_proto).collect();
            Type::MsgPropose
        }
        MessageBody::Append(append) => {
            wire.index = append.prev_index.0;
            wire.log_term = append.prev_term.0;
            wire.commit = append.commit.0;
            wire.entries = append.entries.into_iter().map(entry_to_proto).collect();
            Type::MsgAppend
        }
        MessageBody::AppendResponse(response) => {
            put_append_response(&mut wire, response);
            Type::MsgAppendResponse
        }
        MessageBody::RequestVote(request) => {
            put_vote_request(&mut wire, request);
            Type::MsgRequestVote
        }
        MessageBody::RequestVoteResponse(response) => {
            put_vote_response(&mut wire, response);
            Type::MsgRequestVoteResponse
        }
        MessageBody::RequestPreVote(request) => {
            put_vote_request(&mut wire, request);
            Type::MsgRequestPreVote
        }
        MessageBody::RequestPreVoteResponse(response) => {
            put_vote_response(&mut wire, response);
            Type::MsgRequestPreVoteResponse
        }
        MessageBody::Snapshot(snapshot) => {
            wire.snapshot = Some(snapshot_to_proto(snapshot));
            Type::MsgSnapshot
        }
        MessageBody::Heartbeat { commit, context } => {
            (wire.commit, wire.context) = (commit.0, context);
            Type::MsgHeartbeat
        }
        MessageBody::HeartbeatResponse { commit, context } => {
            (wire.commit, wire.context) = (commit.0, context);
            Type::MsgHeartbeatResponse
        }
        MessageBody::TransferLeader => Type::MsgTransferLeader,
        MessageBody::TimeoutNow => Type::MsgTimeoutNow,
        MessageBody::ReadIndex { context } => {
            wire.entries = vec![eraftpb::Entry { data: context, ..eraftpb::Entry::default() }];
            Type::MsgReadIndex
        }
        MessageBody::ReadIndexResponse { index, context } => {
            wire.index = index.0;
            wire.entries = vec![eraftpb::Entry { data: context, ..eraftpb::Entry::default() }];
            Type::MsgReadIndexResp
        }
    };
    wire.msg_type = kind as i32;
    wire
}

/// The core's form of a protobuf message.
pub fn message_from_proto(mut wire: eraftpb::Message) -> Result<Message, WireError> {
    use eraftpb::MessageType as Type;
    let kind = Type::try_from(wire.msg_type).map_err(|_| WireError::MessageType(wire.msg_type))?;
    let (to, from, term) = (NodeId(wire.to), NodeId(wire.from), Term(wire.term));
    let body = match kind {
        Type::MsgPropose => MessageBody::Propose(take_entries(&mut wire)?),
        Type::MsgAppend => MessageBody::Append(Append {
            prev_index: LogIndex(wire.index),
            prev_term: Term(wire.log_term),
            commit: LogIndex(wire.commit),
            entries: take_entries(&mut wire)?,
        }),
        Type::MsgAppendResponse => MessageBody::AppendResponse(take_append_response(&wire)),
        Type::MsgRequestVote => MessageBody::RequestVote(take_vote_request(&wire)),
        Type::MsgRequestVoteResponse => MessageBody::RequestVoteResponse(take_vote_response(&wire)),
        Type::MsgRequestPreVote => MessageBody::RequestPreVote(take_vote_request(&wire)),
        Type::MsgRequestPreVoteResponse => {
            MessageBody::RequestPreVoteResponse(take_vote_response(&wire))
        }
        Type::MsgSnapshot => {
            let snapshot = wire.snapshot.take().ok_or(WireError::Missing("snapshot"))?;
            MessageBody::Snapshot(snapshot_from_proto(snapshot)?)
        }
        Type::MsgHeartbeat => {
            MessageBody::Heartbeat { commit: LogIndex(wire.commit), context: wire.context }
        }
        Type::MsgHeartbeatResponse => {
            MessageBody::HeartbeatResponse { commit: LogIndex(wire.commit), context: wire.context }
        }
        Type::MsgTransferLeader => MessageBody::TransferLeader,
        Type::MsgTimeoutNow => MessageBody::TimeoutNow,
        Type::MsgReadIndex => MessageBody::ReadIndex { context: take_read_context(&mut wire)? },
        Type::MsgReadIndexResp => MessageBody::ReadIndexResponse {
            index: LogIndex(wire.index),
            context: take_read_context(&mut wire)?,
        },
        Type::MsgHup
        | Type::MsgBeat
        | Type::MsgUnreachable
        | Type::MsgSnapStatus
        | Type::MsgCheckQuorum => return Err(WireError::MessageType(wire.msg_type)),
    };
    Ok(Message { to, from, term, body })
}

fn take_entries(wire: &mut eraftpb::Message) -> Result<Vec<Entry>, WireError> {
    std::mem::take(&mut wire.entries).into_iter().map(entry_from_proto).collect()
}

fn take_read_context(wire: &mut eraftpb::Message) -> Result<Bytes, WireError> {
    match wire.entries.pop() {
        Some(entry) if wire.entries.is_empty() => Ok(entry.data),
        _ => Err(WireError::Missing("entries: exactly one read context")),
    }
}

fn put_append_response(wire: &mut eraftpb::Message, response: AppendResponse) {
    wire.index = response.index.0;
    wire.commit = response.commit.0;
    wire.request_snapshot = response.request_snapshot.0;
    if let Some(reject) = response.reject {
        wire.reject = true;
        wire.reject_hint = reject.hint_index.0;
        wire.log_term = reject.hint_term.0;
    }
}

fn take_append_response(wire: &eraftpb::Message) -> AppendResponse {
    AppendResponse {
        index: LogIndex(wire.index),
        reject: wire.reject.then_some(Reject {
            hint_index: LogIndex(wire.reject_hint),
            hint_term: Term(wire.log_term),
        }),
        commit: LogIndex(wire.commit),
        request_snapshot: LogIndex(wire.request_snapshot),
    }
}

fn put_vote_request(wire: &mut eraftpb::Message, request: VoteRequest) {
    wire.index = request.last_index.0;
    wire.log_term = request.last_term.0;
    wire.commit = request.commit.0;
    wire.commit_term = request.commit_term.0;
    wire.priority = request.priority;
    wire.deprecated_priority = request.priority.try_into().unwrap_or(0);
    if request.transfer {
        wire.context = Bytes::from_static(TRANSFER_CONTEXT);
    }
}

fn take_vote_request(wire: &eraftpb::Message) -> VoteRequest {
    let deprecated = i64::try_from(wire.deprecated_priority).unwrap_or(i64::MAX);
    VoteRequest {
        last_index: LogIndex(wire.index),
        last_term: Term(wire.log_term),
        commit: LogIndex(wire.commit),
        commit_term: Term(wire.commit_term),
        priority: if wire.priority != 0 { wire.priority } else { deprecated },
        transfer: wire.context == TRANSFER_CONTEXT,
    }
}

fn put_vote_response(wire: &mut eraftpb::Message, response: VoteResponse) {
    wire.reject = response.reject;
    wire.commit = response.commit.0;
    wire.commit_term = response.commit_term.0;
}

fn take_vote_response(wire: &eraftpb::Message) -> VoteResponse {
    VoteResponse {
        reject: wire.reject,
        commit: LogIndex(wire.commit),
        commit_term: Term(wire.commit_term),
    }
}

/// The protobuf form of an entry.
pub fn entry_to_proto(entry: Entry) -> eraftpb::Entry {
    let kind = match entry.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::ConfChange => eraftpb::EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
    };
    eraftpb::Entry {
        entry_type: kind as i32,
        term: entry.term.0,
        index: entry.index.0,
        data: entry.data,
        context: entry.context,
        sync_log: false,
    }
}

/// The core's form of an entry.
pub fn entry_from_proto(entry: eraftpb::Entry) -> Result<Entry, WireError> {
    let kind = match eraftpb::EntryType::try_from(entry.entry_type) {
        Ok(eraftpb::EntryType::EntryNormal) => EntryKind::Normal,
        Ok(eraftpb::EntryType::EntryConfChange) => EntryKind::ConfChange,
        Ok(eraftpb::EntryType::EntryConfChangeV2) => EntryKind::ConfChangeV2,
        Err(_) => return Err(WireError::EntryType(entry.entry_type)),
    };
    Ok(Entry {
        index: LogIndex(entry.index),
        term: Term(entry.term),
        kind,
        data: entry.data,
        context: entry.context,
    })
}

/// The protobuf form of a hard state.
pub fn hard_state_to_proto(state: HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term.0,
        vote: state.vote.map_or(0, NodeId::get),
        commit: state.commit.0,
    }
}

/// The core's form of a hard state.
pub fn hard_state_from_proto(state: eraftpb::HardState) -> HardState {
    HardState {
        term: Term(state.term),
        vote: NodeId::from_wire(state.vote),
        commit: LogIndex(state.commit),
    }
}

/// The protobuf form of a membership.
pub fn conf_state_to_proto(state: &ConfState) -> eraftpb::ConfState {
    let ids = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect();
    eraftpb::ConfState {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: state.auto_leave,
    }
}

/// The core's form of a membership. Whether it is consistent is checked where it is used.
pub fn conf_state_from_proto(state: eraftpb::ConfState) -> ConfState {
    let ids = |ids: Vec<u64>| ids.into_iter().map(NodeId).collect();
    ConfState {
        voters: ids(state.voters),
        voters_outgoing: ids(state.voters_outgoing),
        learners: ids(state.learners),
        learners_next: ids(state.learners_next),
        auto_leave: state.auto_leave,
    }
}

/// The protobuf form of a snapshot.
pub fn snapshot_to_proto(snapshot: Snapshot) -> eraftpb::Snapshot {
    eraftpb::Snapshot {
        data: snapshot.data,
        metadata: Some(eraftpb::SnapshotMetadata {
            conf_state: Some(conf_state_to_proto(&snapshot.conf_state)),
            index: snapshot.index.0,
            term: snapshot.term.0,
        }),
    }
}

/// The core's form of a snapshot.
pub fn snapshot_from_proto(snapshot: eraftpb::Snapshot) -> Result<Snapshot, WireError> {
    let metadata = snapshot.metadata.ok_or(WireError::Missing("snapshot.metadata"))?;
    let conf_state =
        metadata.conf_state.ok_or(WireError::Missing("snapshot.metadata.conf_state"))?;
    Ok(Snapshot {
        index: LogIndex(metadata.index),
        term: Term(metadata.term),
        conf_state: conf_state_from_proto(conf_state),
        data: snapshot.data,
    })
}

/// A membership change as entry data of kind `ConfChangeV2`.
pub fn encode_conf_change(change: &ConfChangeV2) -> Bytes {
    let transition = match change.transition {
        Transition::Auto => eraftpb::ConfChangeTransition::Auto,
        Transition::Implicit => eraftpb::ConfChangeTransition::Implicit,
        Transition::Explicit => eraftpb::ConfChangeTransition::Explicit,
    };
    let single = |change: &ConfChange| eraftpb::ConfChangeSingle {
        r#type: match change.kind {
            ConfChangeKind::AddVoter => eraftpb::ConfChangeType::AddNode,
            ConfChangeKind::Remove => eraftpb::ConfChangeType::RemoveNode,
            ConfChangeKind::AddLearner => eraftpb::ConfChangeType::AddLearnerNode,
        } as i32,
        node_id: change.node.0,
    };
    let wire = eraftpb::ConfChangeV2 {
        transition: transition as i32,
        changes: change.changes.iter().map(single).collect(),
        context: change.context.clone(),
    };
    Bytes::from(wire.encode_to_vec())
}

/// The membership change in an entry of either kind. Empty data leaves the joint state.
pub fn decode_conf_change(entry: &Entry) -> Result<ConfChangeV2, ConfChangeError> {
    let malformed = |_| ConfChangeError::Malformed;
    match entry.kind {
        EntryKind::Normal => Err(ConfChangeError::Malformed),
        EntryKind::ConfChange => {
            let wire = eraftpb::ConfChange::decode(entry.data.clone()).map_err(malformed)?;
            let change = conf_change_single(wire.change_type, wire.node_id)?;
            let changes = vec![change];
            Ok(ConfChangeV2 { transition: Transition::Auto, changes, context: wire.context })
        }
        EntryKind::ConfChangeV2 => {
            let wire = eraftpb::ConfChangeV2::decode(entry.data.clone()).map_err(malformed)?;
            let transition = match eraftpb::ConfChangeTransition::try_from(wire.transition) {
                Ok(eraftpb::ConfChangeTransition::Auto) => Transition::Auto,
                Ok(eraftpb::ConfChangeTransition::Implicit) => Transition::Implicit,
                Ok(eraftpb::ConfChangeTransition::Explicit) => Transition::Explicit,
                Err(_) => return Err(ConfChangeError::Malformed),
            };
            let changes = wire.changes.iter().map(|c| conf_change_single(c.r#type, c.node_id));
            let changes = changes.collect::<Result<Vec<ConfChange>, ConfChangeError>>()?;
            Ok(ConfChangeV2 { transition, changes, context: wire.context })
        }
    }
}

fn conf_change_single(kind: i32, node: u64) -> Result<ConfChange, ConfChangeError> {
    let kind = match eraftpb::ConfChangeType::try_from(kind) {
        Ok(eraftpb::ConfChangeType::AddNode) => ConfChangeKind::AddVoter,
        Ok(eraftpb::ConfChangeType::RemoveNode) => ConfChangeKind::Remove,
        Ok(eraftpb::ConfChangeType::AddLearnerNode) => ConfChangeKind::AddLearner,
        Err(_) => return Err(ConfChangeError::Malformed),
    };
    if node == 0 {
        Err(ConfChangeError::ZeroId)
    } else {
        Ok(ConfChange { kind, node: NodeId(node) })
    }
}

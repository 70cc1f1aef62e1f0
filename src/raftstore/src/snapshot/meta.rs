//! The description of a snapshot that travels inside the Raft message (`eraftpb.Snapshot.data`).

use bytes::Bytes;
use prost::Message;
use proto::{eraftpb, flotillapb};
use raft::{ConfState, LogIndex, NodeId, Term};

use super::receive::ReceivedSnapshot;
use crate::apply::SnapshotMeta;

/// Of the content's layout ([`super::records`]).
pub(super) const FORMAT_VERSION: u32 = 1;

/// A description that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Not our protobuf.
    #[error("snapshot description is malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A part is missing.
    #[error("snapshot description lacks `{0}`")]
    Missing(&'static str),
    /// Written by a version with another layout.
    #[error("snapshot has format version {0}; this version reads {FORMAT_VERSION}")]
    Version(u32),
}

/// The bytes that stand for `meta` inside the Raft message.
pub fn encode_meta(meta: &SnapshotMeta) -> Bytes {
    to_wire(meta, None).encode_to_vec().into()
}

/// What the bytes inside a Raft message stand for.
pub fn decode_meta(data: Bytes) -> Result<SnapshotMeta, MetaError> {
    from_wire(flotillapb::SnapshotMeta::decode(data)?)
}

/// With the totals of the spool file, once there is one.
pub(super) fn to_wire(
    meta: &SnapshotMeta,
    file: Option<&ReceivedSnapshot>,
) -> flotillapb::SnapshotMeta {
    let numbers = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect();
    let conf_state = &meta.conf_state;
    flotillapb::SnapshotMeta {
        region: Some(meta.region.clone()),
        index: meta.index.0,
        term: meta.term.0,
        conf_state: Some(eraftpb::ConfState {
            voters: numbers(&conf_state.voters),
            learners: numbers(&conf_state.learners),
            voters_outgoing: numbers(&conf_state.voters_outgoing),
            learners_next: numbers(&conf_state.learners_next),
            auto_leave: conf_state.auto_leave,
        }),
        pairs: file.map_or(0, |file| file.pairs),
        bytes: file.map_or(0, |file| file.content_bytes),
        crc32: file.map_or(0, |file| file.crc32),
        format_version: FORMAT_VERSION,
        state_hash: meta.state_hash,
    }
}

pub(super) fn from_wire(wire: flotillapb::SnapshotMeta) -> Result<SnapshotMeta, MetaError> {
    if wire.format_version != FORMAT_VERSION {
        return Err(MetaError::Version(wire.format_version));
    }
    let region = wire.region.ok_or(MetaError::Missing("region"))?;
    let conf_state = wire.conf_state.ok_or(MetaError::Missing("conf_state"))?;
    if region.id == 0 {
        return Err(MetaError::Missing("region.id"));
    }
    if wire.index == 0 {
        return Err(MetaError::Missing("index"));
    }
    let ids = |numbers: Vec<u64>| numbers.into_iter().map(NodeId).collect();
    Ok(SnapshotMeta {
        index: LogIndex(wire.index),
        term: Term(wire.term),
        conf_state: ConfState {
            voters: ids(conf_state.voters),
            voters_outgoing: ids(conf_state.voters_outgoing),
            learners: ids(conf_state.learners),
            learners_next: ids(conf_state.learners_next),
            auto_leave: conf_state.auto_leave,
        },
        region,
        state_hash: wire.state_hash,
    })
}

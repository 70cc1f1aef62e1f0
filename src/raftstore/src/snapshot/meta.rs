//! The description of a snapshot that travels inside the Raft message (`eraftpb.Snapshot.data`).

use bytes::Bytes;
use prost::Message;
use proto::{eraftpb, flotillapb};
use raft::{ConfState, LogIndex, NodeId, Term};

use super::receive::ReceivedSnapshot;
use crate::apply::SnapshotMeta;

/// Of the content's layout ([`super::records`]).
pub(super) const FORMAT_VERSION: u32 = 1;

/// No log gets this far; beyond, arithmetic on positions could wrap.
const POSITION_MAX: u64 = u64::MAX >> 1;

/// A description that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Not our protobuf.
    #[error("snapshot description is malformed: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A part is missing.
    #[error("snapshot description lacks `{0}`")]
    Missing(&'static str),
    /// A part has a value that cannot be.
    #[error("snapshot description has an impossible `{0}`")]
    Impossible(&'static str),
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
    if !region.end_key.is_empty() && region.start_key >= region.end_key {
        return Err(MetaError::Impossible("region.end_key"));
    }
    for (field, number) in [("index", wire.index), ("term", wire.term)] {
        if !(1..=POSITION_MAX).contains(&number) {
            return Err(MetaError::Impossible(field));
        }
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

#[cfg(test)]
mod tests {
    use proto::metapb;

    use super::*;

    fn meta() -> SnapshotMeta {
        SnapshotMeta {
            index: LogIndex(90),
            term: Term(7),
            conf_state: ConfState {
                voters: vec![NodeId(1)],
                voters_outgoing: vec![NodeId(2)],
                learners: vec![NodeId(3)],
                learners_next: vec![NodeId(4)],
                auto_leave: true,
            },
            region: metapb::Region {
                id: 2,
                end_key: Bytes::from_static(b"y"),
                ..Default::default()
            },
            state_hash: 0xfeed,
        }
    }

    #[test]
    fn a_description_survives_the_wire() {
        assert_eq!(decode_meta(encode_meta(&meta())), Ok(meta()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refuse = |change: &dyn Fn(&mut SnapshotMeta)| {
            let mut meta = meta();
            change(&mut meta);
            decode_meta(encode_meta(&meta)).expect_err("must be refused")
        };
        let impossible = MetaError::Impossible;
        assert_eq!(refuse(&|m| m.index = LogIndex(0)), impossible("index"));
        assert_eq!(refuse(&|m| m.index = LogIndex(u64::MAX)), impossible("index"));
        assert_eq!(refuse(&|m| m.term = Term(u64::MAX)), impossible("term"));
        assert_eq!(refuse(&|m| m.region.start_key = "z".into()), impossible("region.end_key"));
        assert_eq!(refuse(&|m| m.region.id = 0), MetaError::Missing("region.id"));
    }
}

//! The wire: every message that crosses a process boundary or a disk, and the few words all layers
//! share.
//!
//! - **Generated** from `proto/*.proto`, one module per package. `metapb`, `errorpb`, `kvrpcpb`,
//!   `tikvpb`, `pdpb`, `keyspacepb` and `raft_serverpb` carry kvproto's names and numbers,
//!   `eraftpb` those of raft-rs 0.7; [`flotillapb`] is ours. Every `bytes` field is
//!   [`bytes::Bytes`]. Service stubs exist with the feature `grpc` only.
//! - **Written**: [`ids`] (typed ids), [`codec`] (memcomparable keys), [`limits`] (what the wire
//!   accepts).
//!
//! Invariants: a field number never changes and is never used twice; `tests/wire.rs` holds
//! hand-made encodings against that. Nothing here decides anything.
//!
//! Left out: kvproto messages that no client of this server sends or reads. Unknown fields are
//! skipped when decoding, unknown methods are answered "unimplemented" by gRPC.

pub mod codec;
pub mod ids;
pub mod limits;

// Generated code calls a package by its protobuf name.
use flotillapb as flotilla;

/// The encoded `FileDescriptorSet` of all packages, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Declares the module of one generated package; generated code answers to no lint.
macro_rules! generated {
    ($(#[$doc:meta])* $module:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, unused_qualifications, unreachable_pub, clippy::all)]
        #[allow(clippy::disallowed_types, clippy::disallowed_methods, clippy::too_many_lines)]
        #[allow(rustdoc::all)]
        pub mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
    };
}

generated! {
    /// Raft messages as raft-rs 0.7 sends them.
    eraftpb, "eraftpb"
}
generated! {
    /// Region errors.
    errorpb, "errorpb"
}
generated! {
    /// Our own package, `flotilla` in protobuf.
    flotillapb, "flotilla"
}
generated! {
    /// Key spaces.
    keyspacepb, "keyspacepb"
}
generated! {
    /// Requests and responses of the key-value services.
    kvrpcpb, "kvrpcpb"
}
generated! {
    /// Stores, regions, peers.
    metapb, "metapb"
}
generated! {
    /// The placement service.
    pdpb, "pdpb"
}
generated! {
    /// The envelope of Raft messages between stores.
    raft_serverpb, "raft_serverpb"
}
generated! {
    /// The key-value service and its batched stream.
    tikvpb, "tikvpb"
}

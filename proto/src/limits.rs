//! What the wire accepts. Every limit has its one home here; a request beyond one is refused with an
//! error that names the field and the limit.
//!
//! The published Rust client decodes at most 4 MiB per message by default and splits its writes into
//! batches of 16 KiB, but sends reads of 100 000 keys at once; the limits leave room for all that.

/// Bytes of a user key.
pub const KEY_BYTES_MAX: usize = 8 << 10;

/// Bytes of a value, also of one that grew by appends.
pub const VALUE_BYTES_MAX: usize = 6 << 20;

/// Mutations in one write request. A 16 KiB batch of two-byte keys is 8192 of them.
pub const BATCH_OPS_MAX: usize = 16 << 10;

/// Keys in one batched read.
pub const BATCH_GET_KEYS_MAX: usize = 128 << 10;

/// Ranges in one batched scan.
pub const BATCH_SCAN_RANGES_MAX: usize = 1 << 10;

/// Rows of one scan, per range. The published client asks for no more.
pub const SCAN_LIMIT_MAX: u32 = 10_240;

/// Bytes of keys and values in one write request: what one log entry of one request may carry.
pub const WRITE_BYTES_MAX: usize = 8 << 20;

/// Encoded bytes of one Raft log entry (several requests merged).
pub const ENTRY_BYTES_MAX: usize = 16 << 20;

/// Bytes of one gRPC message a server decodes.
pub const GRPC_REQUEST_BYTES_MAX: usize = 32 << 20;

/// Requests in one BatchCommandsRequest.
pub const BATCH_COMMANDS_MAX: usize = 4 << 10;

/// Bytes of data in one chunk of a snapshot stream.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 1 << 20;

/// Timestamps in one TSO request: one physical millisecond's worth, less the first.
pub const TSO_COUNT_MAX: u32 = (1 << 18) - 1;

/// Bytes of a store's address.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// Labels of one store.
pub const STORE_LABELS_MAX: usize = 32;

/// Peers of one region in a message from the network.
pub const REGION_PEERS_MAX: usize = 64;

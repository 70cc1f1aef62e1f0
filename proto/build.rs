//! Compiles `proto/*.proto` without a `protoc`: `protox` parses, `tonic-prost-build` generates.
//! Every `bytes` field becomes `bytes::Bytes`, so that keys and values are shared, not copied.

use std::path::PathBuf;
use std::{env, fs};

use protox::prost::Message as _;

const FILES: [&str; 9] = [
    "eraftpb.proto",
    "errorpb.proto",
    "flotilla.proto",
    "keyspacepb.proto",
    "kvrpcpb.proto",
    "metapb.proto",
    "pdpb.proto",
    "raft_serverpb.proto",
    "tikvpb.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;

    let services = env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .build_client(services)
        .build_server(services)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}

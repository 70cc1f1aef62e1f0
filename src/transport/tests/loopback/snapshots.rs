//! Snapshots: whole ones arrive, damaged, disordered, foreign and surplus ones leave nothing behind.

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Cf, Engine, WriteBatch};
use futures::stream;
use proto::eraftpb;
use proto::flotillapb::SnapshotChunk;
use proto::flotillapb::snapshot_chunk::{Data, Header, Part};
use proto::flotillapb::transport_client::TransportClient;
use proto::ids::{PeerId, RegionId};
use proto::metapb::{Peer, Region, RegionEpoch};
use proto::raft_serverpb::RaftMessage;
use raft::{ConfState, LogIndex, Term};
use raftstore::apply::{SnapshotMeta, SnapshotReady};
use raftstore::keys::{self, RawCf};
use raftstore::msg::SnapshotSend;
use raftstore::snapshot::{SnapshotSource, encode_meta};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use crate::harness::{Client, Server, THEM, US, count, eventually, identity};

const REGION: u64 = 5;

fn peer(store_id: u64) -> Peer {
    Peer { id: 10 + store_id, store_id, ..Peer::default() }
}

/// A snapshot of a few megabytes.
fn snapshot() -> SnapshotSend {
    let engine = MemEngine::new();
    let mut batch = WriteBatch::new();
    for number in 0..3000 {
        let key = format!("key{number:06}");
        batch.put(Cf::Raw, keys::raw(RawCf::Default, key.as_bytes()), vec![7; 1000]);
    }
    engine.write(&batch).unwrap();
    let region = Region {
        id: REGION,
        region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
        peers: vec![peer(US), peer(THEM)],
        ..Region::default()
    };
    let meta = SnapshotMeta {
        index: LogIndex(90),
        term: Term(7),
        conf_state: ConfState::simple([10 + US, 10 + THEM], []),
        region,
        state_hash: 1,
    };
    let metadata = eraftpb::SnapshotMetadata { index: 90, term: 7, ..Default::default() };
    let data = encode_meta(&meta);
    let raft = eraftpb::Message {
        snapshot: Some(eraftpb::Snapshot { data, metadata: Some(metadata) }),
        ..eraftpb::Message::default()
    };
    let message = RaftMessage {
        region_id: REGION,
        from_peer: Some(peer(US)),
        to_peer: Some(peer(THEM)),
        message: Some(raft),
        ..RaftMessage::default()
    };
    let to = PeerId::from(10 + THEM);
    let source =
        SnapshotReady { region: RegionId::from(REGION), to, meta, engine: engine.snapshot() };
    SnapshotSend { region: RegionId::from(REGION), to: peer(THEM), message, source }
}

/// All parts of a good stream.
fn parts(cluster_id: u64) -> Vec<Part> {
    let SnapshotSend { message, source, .. } = snapshot();
    let header =
        Header { cluster_id, from_store_id: US, to_store_id: THEM, message: Some(message) };
    let mut source = SnapshotSource::new(source);
    let mut parts = vec![Part::Header(header)];
    parts.extend(std::iter::from_fn(|| source.next_part().unwrap()));
    assert!(parts.len() > 4, "several chunks");
    parts
}

fn data(part: &mut Part) -> &mut Data {
    let Part::Data(data) = part else { panic!("not a data chunk") };
    data
}

async fn send(server: &Server, parts: Vec<Part>) -> Result<(), Status> {
    let mut client = TransportClient::connect(format!("http://{}", server.address)).await.unwrap();
    let chunks = parts.into_iter().map(|part| SnapshotChunk { part: Some(part) });
    client.snapshot(stream::iter(chunks.collect::<Vec<_>>())).await.map(|_| ())
}

#[tokio::test]
async fn a_snapshot_arrives_whole_and_with_its_message() {
    let server = Server::start(identity(7, THEM));
    let client = Client::start(identity(7, US));
    client.knows(&server);
    assert!(client.transport.stream_snapshot(snapshot()).await);
    let arrived = server.inbox.snapshots.lock().clone();
    let [(message, file)] = &arrived[..] else { panic!("{arrived:?}") };
    assert_eq!((message.region_id, file.id.index), (REGION, LogIndex(90)));
    assert!(file.content_bytes > 3_000_000, "{file:?}");
    assert_eq!(server.spooled(), 1);
    assert_eq!(count(&client.counters, "snapshots_sent"), 1);
}

#[tokio::test]
async fn a_snapshot_for_nobody_is_reported_as_failed() {
    let client = Client::start(identity(7, US));
    assert!(!client.transport.stream_snapshot(snapshot()).await);
    assert_eq!(count(&client.counters, "snapshots_failed"), 1);
}

#[tokio::test]
async fn a_damaged_or_disordered_stream_is_refused_and_leaves_nothing() {
    let server = Server::start(identity(7, THEM));
    type Harm = fn(&mut Vec<Part>);
    let harms: [(&str, Code, Harm); 7] = [
        ("a flipped bit", Code::InvalidArgument, |parts| {
            let chunk = data(&mut parts[2]);
            let mut bytes = chunk.data.to_vec();
            bytes[100] ^= 1;
            chunk.data = Bytes::from(bytes);
        }),
        ("a missing chunk", Code::InvalidArgument, |parts| drop(parts.remove(2))),
        ("a repeated chunk", Code::InvalidArgument, |parts| {
            let chunk = parts[2].clone();
            parts.insert(2, chunk);
        }),
        ("a chunk beyond the limit", Code::InvalidArgument, |parts| {
            data(&mut parts[1]).data = Bytes::from(vec![0; (1 << 20) + 1]);
        }),
        ("an early end", Code::Aborted, |parts| parts.truncate(3)),
        ("no header", Code::InvalidArgument, |parts| drop(parts.remove(0))),
        ("another cluster", Code::FailedPrecondition, |parts| *parts = self::parts(8)),
    ];
    for (what, code, harm) in harms {
        let mut parts = parts(7);
        harm(&mut parts);
        let status = send(&server, parts).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {}", status.message());
    }
    assert!(server.inbox.snapshots.lock().is_empty());
    assert_eq!(server.spooled(), 0, "refused streams leave no file");
    send(&server, parts(7)).await.unwrap();
    assert_eq!(server.inbox.snapshots.lock().len(), 1, "a good one still passes");
}

#[tokio::test]
async fn only_so_many_are_received_at_once() {
    let server = Server::start(identity(7, THEM));
    let mut client = TransportClient::connect(format!("http://{}", server.address)).await.unwrap();
    let header = SnapshotChunk { part: parts(7).into_iter().next() };
    // It begins and then falls silent.
    let chunks = stream::iter([header]).chain(stream::pending());
    let slow = tokio::spawn(async move { client.snapshot(chunks).await.map(|_| ()) });
    eventually("the slow one has the place", || server.spooled() == 1).await;
    let status = send(&server, parts(7)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    slow.abort();
    eventually("the place is free again", || server.spooled() == 0).await;
    send(&server, parts(7)).await.unwrap();
}

#[tokio::test]
async fn each_side_keeps_its_rate() {
    // What is beyond the burst of 4 MiB takes its time; how much longer it takes is the machine's business.
    let rate = 8 << 20;
    for (sends, takes) in [(rate, 0), (0, rate)] {
        let server = Server::paced(identity(7, THEM), takes);
        let client = Client::paced(identity(7, US), sends);
        client.knows(&server);
        let start = tokio::time::Instant::now();
        for _ in 0..2 {
            assert!(client.transport.stream_snapshot(snapshot()).await);
        }
        let arrived = server.inbox.snapshots.lock().clone();
        let bytes: u64 = arrived.iter().map(|(_, file)| file.content_bytes).sum();
        let least_ms = (bytes - (4 << 20)) * 1000 / rate;
        let took_ms = start.elapsed().as_millis() as u64;
        assert!(
            took_ms >= least_ms,
            "{bytes} bytes in {took_ms} ms, sending {sends}, taking {takes}"
        );
    }
}

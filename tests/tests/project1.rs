//! Stage 1: a standalone key-value store. The ten scenarios of the course's stage, by name, against the real service over a
//! real socket; only the engine is the one in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::mem::MemEngine;
use engine::{Cf, Engine, KeyRange, WriteBatch};
use proto::kvrpcpb::{
    RawDeleteRequest, RawGetRequest, RawGetResponse, RawPutRequest, RawScanRequest,
};
use proto::tikvpb::tikv_client::TikvClient;
use raftstore::keys::{RawCf, raw, raw_range, raw_user_key};
use server::{Config, Hooks, run_standalone_on};
use tokio::sync::oneshot;
use tonic::transport::Channel;

/// A server on a thread of its own; dropping it stops the server.
struct Server {
    engine: Arc<MemEngine>,
    client: TikvClient<Channel>,
    _stop: oneshot::Sender<()>,
}

impl Server {
    async fn start() -> Server {
        let engine = Arc::new(MemEngine::new());
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell_ready, ready) = oneshot::channel();
        let hooks = Hooks {
            shutdown: Box::pin(async move {
                let _ = stopped.await;
            }),
            on_ready: Box::new(move |ready| {
                let _ = tell_ready.send(ready.address);
            }),
            log: slog::Logger::root(slog::Discard, slog::o!()),
        };
        let config = Config { addr: "127.0.0.1:0".to_owned(), ..Config::default() };
        let serving = engine.clone();
        std::thread::Builder::new()
            .spawn(move || run_standalone_on(&config, serving, hooks))
            .unwrap();
        let address = tokio::time::timeout(Duration::from_secs(30), ready).await.unwrap().unwrap();
        let client = TikvClient::connect(format!("http://{address}")).await.unwrap();
        Server { engine, client, _stop: stop }
    }

    /// Writes past the service.
    fn engine_put(&self, cf: RawCf, key: &[u8], value: &[u8]) {
        let mut batch = WriteBatch::new();
        batch.put(Cf::Raw, raw(cf, key), Bytes::copy_from_slice(value));
        self.engine.write(&batch).unwrap();
    }

    /// Reads past the service.
    fn engine_get(&self, cf: RawCf, key: &[u8]) -> Option<Bytes> {
        self.engine.get(Cf::Raw, &raw(cf, key)).unwrap()
    }

    async fn put(&mut self, cf: &str, key: &'static [u8], value: &'static [u8]) {
        let (key, value, cf) = (Bytes::from_static(key), Bytes::from_static(value), cf.to_owned());
        let request = RawPutRequest { key, value, cf, ..Default::default() };
        let response = self.client.raw_put(request).await.unwrap().into_inner();
        assert_eq!((response.region_error, response.error.as_str()), (None, ""));
    }

    async fn get(&mut self, cf: &str, key: &'static [u8]) -> RawGetResponse {
        let (key, cf) = (Bytes::from_static(key), cf.to_owned());
        let request = RawGetRequest { key, cf, ..Default::default() };
        let response = self.client.raw_get(request).await.unwrap().into_inner();
        assert_eq!((&response.region_error, response.error.as_str()), (&None, ""));
        response
    }

    async fn delete(&mut self, cf: &str, key: &'static [u8]) {
        let (key, cf) = (Bytes::from_static(key), cf.to_owned());
        let request = RawDeleteRequest { key, cf, ..Default::default() };
        let response = self.client.raw_delete(request).await.unwrap().into_inner();
        assert_eq!((response.region_error, response.error.as_str()), (None, ""));
    }

    /// The pairs from `start` on, at most `limit`.
    async fn scan(&mut self, cf: &str, start: &'static [u8], limit: u32) -> Vec<(u8, u8)> {
        let (start_key, cf) = (Bytes::from_static(start), cf.to_owned());
        let request = RawScanRequest { start_key, limit, cf, ..Default::default() };
        let response = self.client.raw_scan(request).await.unwrap().into_inner();
        assert_eq!(response.region_error, None);
        response.kvs.into_iter().map(|pair| (pair.key[0], pair.value[0])).collect()
    }
}

fn found(value: &'static [u8]) -> RawGetResponse {
    RawGetResponse { value: Bytes::from_static(value), ..Default::default() }
}

fn not_found() -> RawGetResponse {
    RawGetResponse { not_found: true, ..Default::default() }
}

#[tokio::test]
async fn test_raw_get_1() {
    let mut server = Server::start().await;
    server.engine_put(RawCf::Default, &[99], &[42]);
    assert_eq!(server.get("default", &[99]).await, found(&[42]));
}

#[tokio::test]
async fn test_raw_get_not_found_1() {
    let mut server = Server::start().await;
    assert_eq!(server.get("default", &[99]).await, not_found());
}

#[tokio::test]
async fn test_raw_put_1() {
    let mut server = Server::start().await;
    server.put("default", &[99], &[42]).await;
    assert_eq!(server.engine_get(RawCf::Default, &[99]).as_deref(), Some(&[42][..]));
    assert_eq!(server.engine.unsynced_batches(), 0, "acknowledged is durable");
}

#[tokio::test]
async fn test_raw_get_after_raw_put_1() {
    let mut server = Server::start().await;
    server.put("default", &[99], &[42]).await;
    server.put("write", &[99], &[44]).await;
    assert_eq!(server.get("default", &[99]).await, found(&[42]));
    assert_eq!(server.get("write", &[99]).await, found(&[44]));
}

#[tokio::test]
async fn test_raw_get_after_raw_delete_1() {
    let mut server = Server::start().await;
    server.put("default", &[99], &[42]).await;
    server.delete("default", &[99]).await;
    assert_eq!(server.get("default", &[99]).await, not_found());
}

#[tokio::test]
async fn test_raw_delete_1() {
    let mut server = Server::start().await;
    server.engine_put(RawCf::Default, &[99], &[42]);
    server.delete("default", &[99]).await;
    assert_eq!(server.engine_get(RawCf::Default, &[99]), None);
}

#[tokio::test]
async fn test_raw_scan_1() {
    let mut server = Server::start().await;
    for key in 1..=5 {
        server.engine_put(RawCf::Default, &[key], &[key * 10]);
    }
    let rows = server.scan("default", &[1], 3).await;
    assert_eq!(rows, [(1, 10), (2, 20), (3, 30)]);
}

#[tokio::test]
async fn test_raw_scan_after_raw_put_1() {
    let mut server = Server::start().await;
    for key in 1..=4 {
        server.engine_put(RawCf::Default, &[key], &[key * 10]);
    }
    server.put("default", &[5], &[50]).await;
    let rows = server.scan("default", &[1], 10).await;
    assert_eq!(rows, [(1, 10), (2, 20), (3, 30), (4, 40), (5, 50)]);
}

#[tokio::test]
async fn test_raw_scan_after_raw_delete_1() {
    let mut server = Server::start().await;
    for key in 1..=5 {
        server.engine_put(RawCf::Default, &[key], &[key * 10]);
    }
    server.delete("default", &[3]).await;
    let rows = server.scan("default", &[1], 10).await;
    assert_eq!(rows, [(1, 10), (2, 20), (4, 40), (5, 50)]);
}

#[tokio::test]
async fn test_iter_with_raw_delete_1() {
    let mut server = Server::start().await;
    for key in 1..=3 {
        server.engine_put(RawCf::Default, &[key], &[key * 10]);
    }
    let range = raw_range(RawCf::Default, &[], &[]);
    let snapshot = server.engine.snapshot();
    let keys = |range: KeyRange| {
        let mut iter = snapshot.iter(Cf::Raw, range);
        let mut keys = Vec::new();
        let mut valid = iter.seek_to_first().unwrap();
        while valid {
            keys.push(raw_user_key(iter.key())[0]);
            valid = iter.next().unwrap();
        }
        keys
    };
    server.delete("default", &[2]).await;
    assert_eq!(keys(range), [1, 2, 3], "a reader that was there before still sees the key");
    assert_eq!(server.scan("default", &[1], 10).await, [(1, 10), (3, 30)]);
}

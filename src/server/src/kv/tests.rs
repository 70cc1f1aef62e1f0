//! The verbs through the services, over a bare in-memory engine: what they do, what they refuse, how a stream behaves.

mod refusals;
mod stream;
mod verbs;

use std::sync::Arc;

use bytes::Bytes;
use engine::mem::MemEngine;
use proto::kvrpcpb::*;
use proto::tikvpb::tikv_server::Tikv;
use tonic::Request;

use super::Verbs;
use super::service::Service;
use crate::backend::standalone::StandaloneBackend;
use crate::counters::Counters;

/// A service over an engine of its own.
struct Store {
    service: Service,
    verbs: Verbs,
    engine: Arc<MemEngine>,
    counters: Arc<Counters>,
}

impl Store {
    fn new() -> Store {
        let engine = Arc::new(MemEngine::new());
        let backend = StandaloneBackend::new(engine.clone()).unwrap();
        let counters = Arc::new(Counters::default());
        let verbs = Verbs::new(Arc::new(backend), counters.clone());
        Store { service: Service::new(verbs.clone()), verbs, engine, counters }
    }

    async fn put(&self, key: &str, value: &str) {
        let (key, value) = (bytes(key), bytes(value));
        let request = RawPutRequest { key, value, ..Default::default() };
        let response = self.service.raw_put(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(response, RawPutResponse::default());
    }

    async fn get(&self, key: &str) -> Option<String> {
        let request = RawGetRequest { key: bytes(key), ..Default::default() };
        let response = self.service.raw_get(Request::new(request)).await.unwrap().into_inner();
        assert_eq!((response.region_error, response.error), (None, String::new()));
        (!response.not_found).then(|| text(&response.value))
    }

    async fn scan(&self, request: RawScanRequest) -> Vec<(String, String)> {
        let response = self.service.raw_scan(Request::new(request)).await.unwrap().into_inner();
        assert_eq!(response.region_error, None);
        rows(response.kvs)
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn rows(pairs: Vec<KvPair>) -> Vec<(String, String)> {
    assert!(pairs.iter().all(|pair| pair.error.is_none()));
    pairs.into_iter().map(|pair| (text(&pair.key), text(&pair.value))).collect()
}

fn pairs(rows: &[(&str, &str)]) -> Vec<KvPair> {
    let pair =
        |(key, value): &(&str, &str)| KvPair { error: None, key: bytes(key), value: bytes(value) };
    rows.iter().map(pair).collect()
}

fn owned(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

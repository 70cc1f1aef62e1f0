//! Data directories that cannot be used, with the real engine: each refused in one clear line.
#![cfg(feature = "rocksdb")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use engine::rocks::{RocksConfig, RocksEngine};
use proto::ids::StoreId;
use server::{Config, RunError, run_standalone, run_store};

fn config(data_dir: &Path) -> Config {
    let (addr, data_dir) = ("127.0.0.1:0".to_owned(), data_dir.to_owned());
    // Nobody listens there: a store that wants more than its data waits for ever.
    let schedulers = vec!["127.0.0.1:1".to_owned()];
    Config { addr, data_dir, schedulers, ..Config::default() }
}

fn log() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

fn open(data_dir: &Path) -> Arc<dyn Engine> {
    Arc::new(RocksEngine::open(&data_dir.join("db"), &RocksConfig::default()).unwrap())
}

/// The line a refused process ends with.
async fn refusal(ended: impl Future<Output = Result<(), RunError>>) -> String {
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    let line = ended.expect("it is refused at once").expect_err("it is refused").to_string();
    assert!(!line.contains('\n'), "one line: {line}");
    line
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _user = open(dir.path());
    let never = std::future::pending();
    let line = refusal(run_store(config(dir.path()), never, log())).await;
    assert!(line.contains("in use by another process"), "{line}");
}

#[tokio::test]
async fn a_bare_engine_does_not_serve_a_stores_data() {
    let dir = tempfile::tempdir().unwrap();
    raftstore::store::format(&*open(dir.path()), 7, StoreId::from(3)).unwrap();
    let never = std::future::pending();
    let line = refusal(run_standalone(config(dir.path()), never, log())).await;
    assert!(line.contains("belongs to store 3 of cluster 7"), "{line}");
}

#[tokio::test]
async fn a_port_in_use_and_a_setting_out_of_bounds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap().to_string();
    let taken = Config { addr: addr.clone(), ..config(dir.path()) };
    let line = refusal(run_standalone(taken, std::future::pending(), log())).await;
    assert!(line.starts_with(&format!("cannot listen on {addr}: ")), "{line}");
    let bad = Config { election_ticks: 1, ..config(dir.path()) };
    let line = refusal(run_store(bad, std::future::pending(), log())).await;
    assert!(line.starts_with("setting `election_ticks` "), "{line}");
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let current = dir.path().join("db").join("CURRENT");
    std::fs::write(&current, "MANIFEST-999999\n").unwrap();
    let line = refusal(run_store(config(dir.path()), std::future::pending(), log())).await;
    assert!(line.contains("MANIFEST-999999"), "{line}");
}

#[tokio::test]
async fn a_process_that_was_stopped_lets_go_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    run_standalone(config(dir.path()), std::future::ready(()), log()).await.unwrap();
    let unreachable = run_store(config(dir.path()), std::future::ready(()), log()).await;
    assert!(unreachable.is_ok(), "told to stop while it waits for a scheduler: {unreachable:?}");
    open(dir.path());
}

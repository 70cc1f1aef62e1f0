//! Temporary.
#![allow(clippy::disallowed_methods)]
mod harness;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use client::{Settings, WriteMode};

#[test]
fn speed() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    rt.block_on(async {
        let cluster = harness::Cluster::start(3).await;
        let base = cluster.client(Settings::default()).await;
        for (name, mode, get) in [("put once", WriteMode::ExactlyOnce, false), ("put plain", WriteMode::Plain, false), ("get", WriteMode::Plain, true)] {
            for clients in [1u64, 64, 256] {
                let done = Arc::new(AtomicU64::new(0));
                let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
                let mut tasks = vec![];
                for c in 0..clients {
                    let (client, done, stop) = (base.with_write_mode(mode), done.clone(), stop.clone());
                    tasks.push(tokio::spawn(async move {
                        let mut n = 0u64;
                        while !stop.load(Ordering::Relaxed) {
                            n += 1;
                            let key = format!("key{:06}", (c * 7919 + n * 31) % 100_000);
                            if get { client.get(key).await.unwrap(); } else { client.put(key, vec![7u8; 256]).await.unwrap(); }
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    }));
                }
                tokio::time::sleep(Duration::from_millis(800)).await;
                let (d0, t0) = (done.load(Ordering::Relaxed), Instant::now());
                tokio::time::sleep(Duration::from_secs(3)).await;
                let rate = (done.load(Ordering::Relaxed) - d0) as f64 / t0.elapsed().as_secs_f64();
                stop.store(true, Ordering::Relaxed);
                for t in tasks { t.await.unwrap(); }
                println!("{name} x{clients}: {rate:.0}/s");
            }
        }
    });
}

//! What this member has counted, for `/metrics`: one text line per number, no labels.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;

use super::driver::{Driver, Role};

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) timestamp_requests: AtomicU64,
    pub(super) timestamps: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) changes_lost: AtomicU64,
    pub(super) leads_begun: AtomicU64,
    pub(super) region_heartbeats: AtomicU64,
    pub(super) instructions: AtomicU64,
    pub(super) forwarded: AtomicU64,
}

/// Adds to a count.
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Metrics {
    fn list(&self) -> [(&'static str, u64); 8] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("timestamp_requests", get(&self.timestamp_requests)),
            ("timestamps", get(&self.timestamps)),
            ("changes", get(&self.changes)),
            ("changes_lost", get(&self.changes_lost)),
            ("leads_begun", get(&self.leads_begun)),
            ("region_heartbeats", get(&self.region_heartbeats)),
            ("instructions", get(&self.instructions)),
            ("forwarded", get(&self.forwarded)),
        ]
    }
}

/// The page.
pub(super) async fn page(State(driver): State<Arc<Driver>>) -> String {
    let mut text = String::new();
    let mut line = |kind: &str, name: &str, value: u64| {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "# TYPE flotilla_scheduler_{name} {kind}\nflotilla_scheduler_{name} {value}"
        );
    };
    for (name, value) in driver.metrics.list() {
        line("counter", name, value);
    }
    for (name, value) in driver.replica.counters() {
        line("counter", name, value);
    }
    let role = driver.role().borrow().clone();
    line("gauge", "leads", matches!(role, Role::Serves(_)).into());
    line("gauge", "has_leader", matches!(role, Role::Serves(_) | Role::Follows(_)).into());
    line("gauge", "members", driver.members.len() as u64);
    line("gauge", "members_active", driver.active().len() as u64);
    if let Some((regions, stores)) = driver.sizes() {
        line("gauge", "regions", regions as u64);
        line("gauge", "stores", stores as u64);
        line("gauge", "heartbeat_streams", driver.instructions.len() as u64);
    }
    text
}

//! The little HTTP that tools of TiKV's world ask for, on the port of the gRPC services.
//!
//! `GET /pd/api/v1/regions` → `{"count": n}`: how many regions there are. Any other path is
//! for gRPC, which answers "unimplemented" to what it does not know.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use super::driver::Driver;
use crate::core::Scheduler;

/// Adds the routes to the gRPC ones.
pub(super) fn routes(grpc: Router, driver: Arc<Driver>) -> Router {
    grpc.merge(Router::new().route("/pd/api/v1/regions", get(regions)).with_state(driver))
}

async fn regions(State(driver): State<Arc<Driver>>) -> impl IntoResponse {
    let count = driver.read(Scheduler::region_count);
    ([(CONTENT_TYPE, "application/json")], format!("{{\"count\": {count}}}\n"))
}

//! Which members have ever taken part. It guards against a member that comes back with an emptied disk.
//!
//! Such a member would vote again in terms in which it has voted, and forget records that count as held by a majority. It
//! looks like one that starts for the first time. So the leader writes down every member that holds some of its log, beside the records
//! and replicated like them, and a member with an empty disk asks the others whether it is on that roll before it takes
//! part: if so, it refuses to start. Members that cannot be asked do not keep it from starting: at the first start of all,
//! nobody can be.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode, Version};
use engine::{Cf, Engine};
use futures::future::join_all;
use proto::ids::StoreId;
use raftstore::command::{Mutation, Request as WriteRequest};
use raftstore::keys::{Key, RawCf};
use tonic::codegen::Service as _;
use tonic::transport::Endpoint;

use super::Error;
use super::driver::Driver;
use super::members::Members;

/// Apart from the scheduler's records.
const FAMILY: RawCf = RawCf::Lock;
/// Where another member is asked.
pub(super) const PATH: &str = "/flotilla/roll/{member}";
/// How long one that is not there may take to say nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// A member's place on the roll, as a user's key.
fn key(member: StoreId) -> bytes::Bytes {
    member.get().to_be_bytes().to_vec().into()
}

/// Whether a member is on the roll, as far as this engine knows.
pub(super) fn is_on(engine: &dyn Engine, member: StoreId) -> Result<bool, engine::Error> {
    let key = Key::Raw(FAMILY, key(member)).encode();
    Ok(engine.get(Cf::Raw, &key)?.is_some())
}

/// Puts members on the roll.
pub(super) fn request(members: &[StoreId]) -> WriteRequest {
    let put = |member: &StoreId| Mutation::Put { cf: FAMILY, key: key(*member), value: "1".into() };
    WriteRequest::Mutate { mutations: members.iter().map(put).collect(), session: None }
}

/// The answer to another member.
pub(super) async fn page(
    State(driver): State<Arc<Driver>>,
    Path(member): Path<u64>,
) -> (StatusCode, &'static str) {
    match driver.replica.is_on_roll(member.into()) {
        Ok(true) => (StatusCode::OK, "yes\n"),
        Ok(false) => (StatusCode::NOT_FOUND, "no\n"),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the engine failed\n"),
    }
}

/// Before a member begins with an empty disk: refuses it if another one has heard it before.
pub(super) async fn check(members: &Members) -> Result<(), Error> {
    let me = members.me();
    let others = members.iter().filter(|(id, _)| *id != me);
    let asked = others.map(|(_, other)| async move {
        let answer = tokio::time::timeout(PATIENCE, ask(&other.peer_address, me)).await;
        (answer == Ok(Some(true))).then_some(other.name.as_str())
    });
    match join_all(asked).await.into_iter().flatten().next() {
        None => Ok(()),
        Some(witness) => Err(Error::Foreign(format!(
            "it is empty, but member {witness} knows that this member held data: with them it lost \
             its votes, and must not take part again as if it never had any"
        ))),
    }
}

/// Whether the member at `address` finds `me` on the roll; `None` if it does not say.
async fn ask(address: &str, me: StoreId) -> Option<bool> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let mut channel = endpoint.connect_timeout(PATIENCE).connect().await.ok()?;
    let mut request = Request::new(tonic::body::Body::new(Body::empty()));
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = PATH.replace("{member}", &me.to_string()).parse().ok()?;
    std::future::poll_fn(|context| channel.poll_ready(context)).await.ok()?;
    match channel.call(request).await.ok()?.status() {
        StatusCode::OK => Some(true),
        StatusCode::NOT_FOUND => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use engine::WriteBatch;
    use engine::mem::MemEngine;

    use super::*;
    use crate::journal;

    #[test]
    fn the_roll_is_kept_apart_from_the_records() {
        let engine = MemEngine::new();
        let WriteRequest::Mutate { mutations, .. } = request(&[StoreId::new(2)]) else { panic!() };
        let mut batch = WriteBatch::new();
        for mutation in mutations {
            let Mutation::Put { cf, key, value } = mutation else { panic!("{mutation:?}") };
            batch.put(Cf::Raw, Key::Raw(cf, key).encode(), value);
        }
        engine.write(&batch).unwrap();
        assert_eq!(is_on(&engine, StoreId::new(2)), Ok(true));
        assert_eq!(is_on(&engine, StoreId::new(3)), Ok(false));
        assert!(journal::load(&engine).unwrap().is_empty());
    }
}

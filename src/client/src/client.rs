//! The public calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::ids::{RegionId, StoreId};
use proto::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use proto::metapb::{Peer, Region};

use crate::core::{Mutation, Pair, Reply, Request, Settings, WriteMode};
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::scanner::{ScanOptions, Scanner};
use crate::scheduler::Scheduler;
use crate::tso::Tso;

/// A connection to a cluster. Clones share connections, region cache and sessions, and may be used side by side.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) driver: Arc<Driver>,
    pub(crate) settings: Settings,
    tso: Tso,
}

impl Client {
    /// Connects to the first of `endpoints` (host:port of schedulers) that answers, and learns of the others from it.
    pub async fn connect(endpoints: &[String], settings: Settings) -> Result<Client> {
        let scheduler = Arc::new(Scheduler::connect(endpoints).await?);
        let tso = Tso::start(Arc::clone(&scheduler));
        let driver = Arc::new(Driver::new(scheduler, settings, entropy()));
        Ok(Client { driver, settings, tso })
    }

    /// The same connections with other times or another write mode.
    pub fn with_settings(&self, settings: Settings) -> Client {
        Client { settings, ..self.clone() }
    }

    /// The same connections with another write mode.
    pub fn with_write_mode(&self, write_mode: WriteMode) -> Client {
        self.with_settings(Settings { write_mode, ..self.settings })
    }

    /// The value of a key.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        let key = key.into();
        check_key(&key)?;
        match self.one(Request::Get { key }).await? {
            Reply::Value(value) => Ok(value),
            other => Err(unexpected(&other)),
        }
    }

    /// Sets the value of a key.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        self.write_one(Mutation::Put { key, value }).await.map(drop)
    }

    /// Removes a key, which need not exist.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        self.write_one(Mutation::Delete { key: key.into() }).await.map(drop)
    }

    /// Adds bytes to the end of a value, exactly once whatever the write mode; a missing key counts as empty. The length
    /// of the value afterwards, in bytes.
    pub async fn append(&self, key: impl Into<Bytes>, suffix: impl Into<Bytes>) -> Result<u64> {
        let (key, suffix) = (key.into(), suffix.into());
        match self.write_one(Mutation::Append { key, suffix }).await? {
            Reply::Appended { length_bytes } => Ok(length_bytes),
            other => Err(unexpected(&other)),
        }
    }

    /// The values of those keys that exist, in the order asked for. Not a snapshot across regions.
    pub async fn batch_get(&self, keys: Vec<Bytes>) -> Result<Vec<Pair>> {
        keys.iter().try_for_each(|key| check_key(key))?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let deadline = self.driver.deadline(&self.settings);
        let request = Request::BatchGet { keys: keys.clone() };
        let mut found = BTreeMap::new();
        for reply in self.driver.batch(request, &self.settings, deadline).await? {
            match reply {
                Reply::Pairs(pairs) => found.extend(pairs),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(keys
            .into_iter()
            .filter_map(|key| found.get(&key).cloned().map(|value| (key, value)))
            .collect())
    }

    /// Sets many values; atomic per region and message, not as a whole.
    pub async fn batch_put(&self, pairs: Vec<Pair>) -> Result<()> {
        self.write(pairs.into_iter().map(|(key, value)| Mutation::Put { key, value }).collect())
            .await
    }

    /// Removes many keys; atomic per region and message, not as a whole.
    pub async fn batch_delete(&self, keys: Vec<Bytes>) -> Result<()> {
        self.write(keys.into_iter().map(|key| Mutation::Delete { key }).collect()).await
    }

    /// Carries out mutations; atomic per region and message, not as a whole. If some took effect and others did not, the
    /// error is `Undetermined`.
    pub async fn write(&self, mutations: Vec<Mutation>) -> Result<()> {
        mutations.iter().try_for_each(check_mutation)?;
        if mutations.is_empty() {
            return Ok(());
        }
        let deadline = self.driver.deadline(&self.settings);
        self.driver.batch(Request::Write(mutations), &self.settings, deadline).await.map(drop)
    }

    /// Removes every key of [start, end); an empty end is +inf. Atomic per region.
    pub async fn delete_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Result<()> {
        let (start, end) = (start.into(), end.into());
        if !end.is_empty() && start >= end {
            return Ok(());
        }
        self.write(vec![Mutation::DeleteRange { start, end }]).await
    }

    /// Walks a range, page by page. Each page is linearizable; the walk as a whole is not a snapshot.
    pub fn scan(&self, options: ScanOptions) -> Scanner {
        Scanner::new(self.clone(), options)
    }

    async fn write_one(&self, mutation: Mutation) -> Result<Reply> {
        check_mutation(&mutation)?;
        self.one(Request::Write(vec![mutation])).await
    }

    /// One key: it fits its region by its nature.
    async fn one(&self, request: Request) -> Result<Reply> {
        let deadline = self.driver.deadline(&self.settings);
        let reply = self.driver.one(request, &self.settings, deadline).await?;
        Ok(reply.expect("one key always lies within one region"))
    }

    /// A timestamp of the scheduler: unique in the cluster, and above every one that anybody got before this call.
    /// Milliseconds since 1970, and behind them 18 bits of a counter.
    pub async fn timestamp(&self) -> Result<u64> {
        self.tso.next(self.settings.budget).await
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> u64 {
        self.driver.scheduler.cluster_id()
    }

    /// A region and its leader by its id, as the scheduler knows them.
    pub async fn region(&self, id: RegionId) -> Result<Option<(Region, Option<Peer>)>> {
        self.driver.scheduler.region_by_id(id).await.map_err(Error::Unreachable)
    }

    /// Every region with its leader, in key order, as the scheduler knows them.
    pub async fn regions(&self) -> Result<Vec<(Region, Option<Peer>)>> {
        self.driver.scheduler.all_regions().await.map_err(Error::Unreachable)
    }

    /// Where a store listens, as the scheduler knows it.
    pub async fn store(&self, id: StoreId) -> Result<Option<proto::metapb::Store>> {
        self.driver.scheduler.store(id).await.map_err(Error::Unreachable)
    }
}

pub(crate) fn unexpected(reply: &Reply) -> Error {
    let kind = match reply {
        Reply::Value(_) => "a value",
        Reply::Pairs(_) => "pairs",
        Reply::Appended { .. } => "a length",
        Reply::Written => "a bare confirmation",
    };
    Error::Malformed(format!("{kind} is no answer to this request"))
}

fn check_key(key: &[u8]) -> Result<()> {
    let reason = match key.len() {
        0 => "it is empty".to_owned(),
        bytes if bytes > KEY_BYTES_MAX => format!("{bytes} bytes, the limit is {KEY_BYTES_MAX}"),
        _ => return Ok(()),
    };
    Err(Error::InvalidArgument { field: "key", reason })
}

pub(crate) fn check_bound(key: &[u8]) -> Result<()> {
    match key.is_empty() {
        true => Ok(()),
        false => check_key(key),
    }
}

fn check_value(value: &[u8]) -> Result<()> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let reason = format!("{} bytes, the limit is {VALUE_BYTES_MAX}", value.len());
    Err(Error::InvalidArgument { field: "value", reason })
}

fn check_mutation(mutation: &Mutation) -> Result<()> {
    match mutation {
        Mutation::Put { key, value } => check_key(key).and_then(|()| check_value(value)),
        Mutation::Append { key, suffix } => check_key(key).and_then(|()| check_value(suffix)),
        Mutation::Delete { key } => check_key(key),
        Mutation::DeleteRange { start, end } => check_bound(start).and_then(|()| check_bound(end)),
    }
}

/// A seed for the jitter that differs from process to process: from the operating system, by way of the hasher.
fn entropy() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    #[expect(clippy::disallowed_methods, reason = "the edge is where randomness comes from")]
    let state = std::collections::hash_map::RandomState::new();
    state.build_hasher().finish()
}

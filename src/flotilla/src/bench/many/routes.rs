//! Load spread over many regions: which store leads each, and one stream to every store.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use proto::tikvpb::batch_commands_request::{Request, request::Cmd};
use proto::tikvpb::batch_commands_response::Response;
use proto::tikvpb::tikv_client::TikvClient;
use proto::{kvrpcpb, metapb};

use super::super::data::Dice;
use super::super::load::{Driver, Failure, Op};
use super::super::ours::{Cluster, CommandMux, check, open_stream};
use super::super::{BenchError, connect_lazily};

/// The key with a number among `of`: its first eight bytes spread the keys evenly, so that regions can be cut between any
/// two of them.
pub(super) fn spread_key(number: u64, of: u64) -> Bytes {
    Bytes::from(format!("{}{number:08}", String::from_utf8_lossy(&prefix(number, of))))
}

/// The first eight bytes of [`spread_key`].
pub(super) fn prefix(number: u64, of: u64) -> [u8; 8] {
    let place = (u128::from(number) << 32) / u128::from(of.max(1));
    let text = format!("{place:08x}");
    let mut prefix = [b'f'; 8];
    prefix.copy_from_slice(&text.as_bytes()[..8]);
    prefix
}

/// A region and who leads it.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Route {
    /// The region.
    pub(in crate::bench) region: metapb::Region,
    /// Its leader, as last heard.
    pub(in crate::bench) leader: metapb::Peer,
}

impl Route {
    /// The context of a request to the leader.
    pub(in crate::bench) fn context(&self) -> kvrpcpb::Context {
        kvrpcpb::Context {
            region_id: self.region.id,
            region_epoch: self.region.region_epoch,
            peer: Some(self.leader),
            ..Default::default()
        }
    }
}

/// Drives load over all regions.
pub(super) struct Spread {
    cluster: Cluster,
    /// In key order, without gaps.
    table: RefCell<Rc<Vec<Route>>>,
    streams: RefCell<BTreeMap<u64, Rc<CommandMux>>>,
    /// One client at a time looks at the regions anew.
    refreshing: Cell<bool>,
}

impl Spread {
    /// Knows the regions and connects to their leaders.
    pub(super) async fn connect(cluster: &Cluster) -> Result<Rc<Self>, BenchError> {
        let spread = Rc::new(Self {
            cluster: cluster.clone(),
            table: RefCell::default(),
            streams: RefCell::default(),
            refreshing: Cell::new(false),
        });
        spread.refresh().await?;
        Ok(spread)
    }

    async fn refresh(&self) -> Result<(), BenchError> {
        let table = self.cluster.routes().await?;
        let stores = self.cluster.stores().await?;
        let mut streams = BTreeMap::new();
        for (store, address) in stores {
            let client = TikvClient::new(connect_lazily(&address)?);
            streams.insert(store, Rc::new(open_stream(client).await?));
        }
        self.table.replace(Rc::new(table));
        self.streams.replace(streams);
        Ok(())
    }

    /// Writes every key once.
    pub(super) async fn preload(&self, dice: &Dice) -> Result<(), BenchError> {
        const PAIRS: u64 = 256;
        let put = |number| {
            let key = spread_key(number, dice.keys());
            self.send(key.clone(), move |context| {
                Cmd::RawPut(kvrpcpb::RawPutRequest {
                    context,
                    key,
                    value: dice.value(),
                    ..Default::default()
                })
            })
        };
        for first in (0..dice.keys()).step_by(PAIRS as usize) {
            let puts = (first..(first + PAIRS).min(dice.keys())).map(put);
            for outcome in futures::future::join_all(puts).await {
                outcome.map_err(|Failure(reason)| {
                    BenchError::NotReady(format!("preload: {reason}"))
                })?;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        key: Bytes,
        command: impl FnOnce(Option<kvrpcpb::Context>) -> Cmd,
    ) -> Result<(), Failure> {
        let route = locate(&self.table.borrow(), &key).cloned();
        let route = route.ok_or_else(|| Failure("no region holds the key".to_owned()))?;
        let stream = self.streams.borrow().get(&route.leader.store_id).map(Rc::clone);
        let stream = stream.ok_or_else(|| Failure("the leader's store is unknown".to_owned()))?;
        let request = Request { cmd: Some(command(Some(route.context()))) };
        match stream.call(request).await {
            Ok(Response { cmd: Some(answer) }) => check(answer),
            Ok(Response { cmd: None }) => Err(Failure("an empty response".to_owned())),
            Err(_) => Err(Failure("the stream ended".to_owned())),
        }
    }
}

fn locate<'a>(table: &'a [Route], key: &[u8]) -> Option<&'a Route> {
    let after = table.partition_point(|route| route.region.start_key <= key);
    table.get(after.checked_sub(1)?)
}

impl Driver for Spread {
    async fn call(&self, _client: usize, op: Op, dice: &Dice) -> Result<(), Failure> {
        let key = spread_key(dice.number(), dice.keys());
        let outcome = self
            .send(key.clone(), |context| match op {
                Op::Put => Cmd::RawPut(kvrpcpb::RawPutRequest {
                    context,
                    key,
                    value: dice.value(),
                    ..Default::default()
                }),
                Op::Get | Op::Scan => {
                    Cmd::RawGet(kvrpcpb::RawGetRequest { context, key, ..Default::default() })
                }
            })
            .await;
        if outcome.is_err() && !self.refreshing.replace(true) {
            // If it fails, the next failure tries again.
            let _ = self.refresh().await;
            self.refreshing.set(false);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_their_numbers_and_differ_in_their_prefix() {
        let of = 10_000;
        for number in 1..of {
            let (before, key) = (spread_key(number - 1, of), spread_key(number, of));
            assert!(before < key && before[..8] != key[..8], "{number}");
        }
    }

    #[test]
    fn a_key_belongs_to_the_last_region_that_begins_before_it() {
        let region = |start: &'static str| Route {
            region: metapb::Region { start_key: start.into(), ..Default::default() },
            leader: metapb::Peer::default(),
        };
        let table = [region(""), region("b"), region("d")];
        let found = |key: &[u8]| locate(&table, key).map(|route| route.region.start_key.clone());
        assert_eq!(found(b"a"), Some(Bytes::from("")));
        assert_eq!(found(b"b"), Some(Bytes::from("b")));
        assert_eq!(found(b"zz"), Some(Bytes::from("d")));
        assert!(locate(&[], b"a").is_none());
    }
}

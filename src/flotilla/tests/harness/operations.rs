//! What an operator asks of the scheduler: splits, merges, moves, transfers, drains. Always of the member that leads.

use std::time::Duration;

use client::Client;
use proto::flotillapb::add_operator_request::{self as wish, Wish};
use proto::flotillapb::change_store_request::{self as change, Change};
use proto::flotillapb::operations_client::OperationsClient;
use proto::flotillapb::{
    AddOperatorRequest, BalanceRequest, ChangeStoreRequest, ConfigItem, ConfigRequest,
    ListOperatorsRequest, ListStoresRequest, Operator, StoreView, balance_request,
};
use proto::metapb::Region;
use proto::pdpb::{RequestHeader, ResponseHeader};
use tonic::transport::Channel;

use super::ledger::dice;
use super::wait_for_async;

/// The admin service.
pub(crate) struct Operations {
    client: Client,
    endpoints: Vec<String>,
}

/// What a refusal says.
type Answer<T> = Result<T, String>;

impl Operations {
    pub(crate) fn new(client: &Client, endpoints: &[String]) -> Operations {
        Operations { client: client.clone(), endpoints: endpoints.to_vec() }
    }

    #[expect(clippy::unnecessary_wraps, reason = "that is what the field takes")]
    fn header(&self) -> Option<RequestHeader> {
        Some(RequestHeader { cluster_id: self.client.cluster_id(), sender_id: 0 })
    }

    /// The first member that answers; the error of the last one otherwise.
    async fn ask<T>(
        &self,
        ask: impl AsyncFn(OperationsClient<Channel>) -> Result<T, tonic::Status>,
    ) -> Answer<T> {
        let mut last = String::new();
        for endpoint in &self.endpoints {
            let answer = async {
                let connected = OperationsClient::connect(format!("http://{endpoint}")).await;
                let client = connected.map_err(|error| error.to_string())?;
                let client = client.max_decoding_message_size(64 << 20);
                ask(client).await.map_err(|status| status.to_string())
            };
            match tokio::time::timeout(Duration::from_secs(5), answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(reason)) => last = reason,
                Err(_) => last = format!("{endpoint}: no answer"),
            }
        }
        Err(last)
    }

    /// Asks for a change of regions.
    pub(crate) async fn wish(&self, wish: Wish) -> Answer<Vec<Operator>> {
        let request = AddOperatorRequest { header: self.header(), wish: Some(wish) };
        let answer = self.ask(async |mut client| client.add_operator(request.clone()).await);
        let answer = answer.await?.into_inner();
        checked(answer.header)?;
        Ok(answer.operators)
    }

    /// Asks for a change of a store.
    pub(crate) async fn change_store(&self, store_id: u64, change: Change) -> Answer<()> {
        let request = ChangeStoreRequest { header: self.header(), store_id, change: Some(change) };
        let answer = self.ask(async |mut client| client.change_store(request.clone()).await);
        checked(answer.await?.into_inner().header)
    }

    /// Begins to empty a store.
    pub(crate) async fn drain(&self, store_id: u64) -> Answer<()> {
        self.change_store(store_id, Change::Drain(change::Drain { cancel: false })).await
    }

    /// The stores as the scheduler sees them.
    pub(crate) async fn stores(&self) -> Answer<Vec<StoreView>> {
        let request = ListStoresRequest { header: self.header(), store_id: 0 };
        let answer = self.ask(async |mut client| client.list_stores(request).await);
        let answer = answer.await?.into_inner();
        checked(answer.header)?;
        Ok(answer.stores)
    }

    /// Operators that run.
    pub(crate) async fn running(&self) -> Answer<Vec<Operator>> {
        let request = ListOperatorsRequest { header: self.header(), history: false, limit: 0 };
        let answer = self.ask(async |mut client| client.list_operators(request).await);
        let answer = answer.await?.into_inner();
        checked(answer.header)?;
        Ok(answer.operators)
    }

    /// Stops or resumes all balancing.
    pub(crate) async fn balance(&self, action: balance_request::Action) -> Answer<()> {
        let request = BalanceRequest {
            header: self.header(),
            action: action as i32,
            balancer: String::new(),
            pause_ms: 0,
        };
        let answer = self.ask(async |mut client| client.balance(request.clone()).await);
        checked(answer.await?.into_inner().header)
    }

    /// Sets a setting of the whole cluster.
    pub(crate) async fn configure(&self, name: &str, value: &str) -> Answer<()> {
        let item =
            ConfigItem { name: name.to_owned(), value: value.to_owned(), ..ConfigItem::default() };
        let request = ConfigRequest { header: self.header(), set: vec![item] };
        let answer = self.ask(async |mut client| client.config(request.clone()).await);
        checked(answer.await?.into_inner().header)
    }

    /// Cuts regions until there are so many, at keys of the ledger's kind. Panics at the deadline.
    pub(crate) async fn split_until(&self, wanted: usize) {
        let mut seed = 7;
        wait_for_async("enough regions", async || {
            let regions = self.client.regions().await.ok()?;
            if regions.len() >= wanted {
                return Some(());
            }
            for (region, _) in regions {
                let region_id = region.id;
                let keys = vec![boundary(&mut seed, &region)?];
                // Refused where it is being cut already.
                let _ = self.wish(Wish::Split(wish::Split { region_id, keys })).await;
            }
            None
        })
        .await;
    }

    /// Asks for one random change of one random region; whether the scheduler agreed.
    pub(crate) async fn stir(&self, seed: &mut u64) -> bool {
        match self.some_wish(seed).await {
            Some(wish) => self.wish(wish).await.is_ok(),
            None => false,
        }
    }

    async fn some_wish(&self, seed: &mut u64) -> Option<Wish> {
        let regions = self.client.regions().await.ok()?;
        let at = dice(seed) as usize % regions.len();
        let region = &regions[at].0;
        let region_id = region.id;
        let stores: Vec<u64> =
            self.stores().await.ok()?.iter().filter_map(|s| Some(s.store.as_ref()?.id)).collect();
        let some_store = stores[dice(seed) as usize % stores.len()];
        let some_peer = region.peers[dice(seed) as usize % region.peers.len()].store_id;
        Some(match dice(seed) % 8 {
            0 | 1 => Wish::Split(wish::Split { region_id, keys: vec![boundary(seed, region)?] }),
            2..=4 => {
                let target = regions.get(at + 1).or_else(|| regions.get(at.checked_sub(1)?))?;
                let target_region_id = target.0.id;
                Wish::Merge(wish::Merge { source_region_id: region_id, target_region_id })
            }
            5 | 6 => {
                let (from_store_id, to_store_id) = (some_peer, some_store);
                Wish::MovePeer(wish::MovePeer { region_id, from_store_id, to_store_id })
            }
            _ => Wish::TransferLeader(wish::TransferLeader { region_id, to_store_id: some_peer }),
        })
    }
}

/// A boundary inside of the region: the encoding of eight hex digits.
fn boundary(seed: &mut u64, region: &Region) -> Option<bytes::Bytes> {
    let cut = (0..200).map(|_| {
        let digits = format!("{:08x}", dice(seed) >> 32);
        proto::codec::encode(digits.as_bytes())
    });
    let inside = |key: &bytes::Bytes| {
        *key > region.start_key && (region.end_key.is_empty() || *key < region.end_key)
    };
    cut.into_iter().find(inside)
}

fn checked(header: Option<ResponseHeader>) -> Answer<()> {
    match header.and_then(|header| header.error) {
        Some(error) => Err(error.message),
        None => Ok(()),
    }
}

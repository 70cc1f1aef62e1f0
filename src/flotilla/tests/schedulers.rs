//! Three schedulers as real processes: killed while they lead, one after the other, started again, frozen. Timestamps grow,
//! ids stay unique, clients and stores go on, and a scheduler without a majority says so.
//!
//! Needs the engine with a disk: a member that forgets everything may not come back.
#![cfg(feature = "rocksdb")]
#![allow(clippy::disallowed_methods, reason = "real processes need real time")]

mod harness;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use client::{Client, Settings};
use harness::{DEADLINE, Node, free_ports, wait_for_async};
use nix::sys::signal::{Signal, kill};
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{
    AllocIdRequest, GetMembersRequest, GetMembersResponse, RequestHeader, TsoRequest,
};
use tempfile::TempDir;

/// Leaders killed.
const FAILOVERS: usize = 4;

/// Three schedulers, and three stores that know all of them.
struct Fleet {
    schedulers: Vec<Node>,
    _stores: Vec<Node>,
    endpoints: Vec<String>,
    _dir: TempDir,
}

impl Fleet {
    async fn start() -> Fleet {
        let dir = tempfile::tempdir().expect("a directory");
        let ports: Vec<String> =
            free_ports(6).iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let (endpoints, addresses) = ports.split_at(3);
        let peers: Vec<String> =
            (1..).zip(endpoints).map(|(number, address)| format!("s{number}={address}")).collect();
        let peers = peers.join(",");
        let scheduler = |(number, address): (usize, &String)| {
            let name = format!("s{number}");
            let args = ["scheduler", "--name", &name, "--peers", &peers, "--addr", address];
            Node::new(&name, dir.path(), &args)
        };
        let all = endpoints.join(",");
        let store = |(number, address): (usize, &String)| {
            let args = ["store", "--addr", address, "--schedulers", &all];
            Node::new(&format!("store-{number}"), dir.path(), &args)
        };
        let mut schedulers: Vec<Node> = (1..).zip(endpoints).map(scheduler).collect();
        let mut stores: Vec<Node> = (1..).zip(addresses).map(store).collect();
        schedulers.iter_mut().chain(&mut stores).for_each(Node::start);
        let fleet = Fleet { schedulers, _stores: stores, endpoints: endpoints.to_vec(), _dir: dir };
        fleet.client().await;
        fleet
    }

    /// A client that knows nothing yet, once a write of it works.
    async fn client(&self) -> Client {
        wait_for_async("a cluster that serves", async || {
            let client = Client::connect(&self.endpoints, Settings::default()).await.ok()?;
            client.delete("schedulers/probe").await.ok()?;
            Some(client)
        })
        .await
    }

    async fn members(&self, at: usize) -> Option<GetMembersResponse> {
        let ask = async {
            let mut pd = PdClient::connect(format!("http://{}", self.endpoints[at])).await.ok()?;
            pd.get_members(GetMembersRequest::default()).await.ok()
        };
        Some(tokio::time::timeout(Duration::from_secs(5), ask).await.ok()??.into_inner())
    }

    /// The scheduler that leads, as it says itself.
    async fn leader(&self) -> (usize, Option<RequestHeader>) {
        wait_for_async("a scheduler that leads", async || {
            for at in 0..self.endpoints.len() {
                let Some(members) = self.members(at).await else { continue };
                let cluster_id = members.header?.cluster_id;
                if members.leader?.client_urls == [format!("http://{}", self.endpoints[at])] {
                    return Some((at, Some(RequestHeader { cluster_id, sender_id: 0 })));
                }
            }
            None
        })
        .await
    }

    /// A timestamp and an id, from whoever leads.
    async fn draw(&self) -> (u64, u64) {
        wait_for_async("a timestamp and an id", async || {
            let (at, header) = self.leader().await;
            let mut pd = PdClient::connect(format!("http://{}", self.endpoints[at])).await.ok()?;
            let request = TsoRequest { header, count: 1, ..Default::default() };
            let answers = pd.tso(futures::stream::iter([request])).await.ok()?;
            let timestamp = answers.into_inner().message().await.ok()??.timestamp?;
            let id = pd.alloc_id(AllocIdRequest { header }).await.ok()?.into_inner().id;
            Some(((timestamp.physical as u64) << 18 | timestamp.logical as u64, id))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaders_are_killed_and_nothing_is_handed_out_twice() {
    let mut fleet = Fleet::start().await;
    let client = fleet.client().await;
    let (mut last, mut ids) = (0, BTreeSet::new());
    for round in 0..FAILOVERS {
        for _ in 0..3 {
            let (timestamp, id) = fleet.draw().await;
            assert!(timestamp > last, "round {round}: {timestamp} after {last}");
            assert!(ids.insert(id), "round {round}: id {id} twice");
            last = timestamp;
        }
        let (leader, _) = fleet.leader().await;
        fleet.schedulers[leader].kill();
        let killed = Instant::now();
        // A client that has its routes does not notice; one that has none waits for the next leader.
        client.put(format!("round/{round}"), "old client").await.expect("stores serve");
        fleet.client().await;
        let (timestamp, id) = fleet.draw().await;
        assert!(timestamp > last && ids.insert(id), "round {round}, after the kill");
        assert!(killed.elapsed() < DEADLINE / 2, "a failover took {:?}", killed.elapsed());
        last = timestamp;
        fleet.schedulers[leader].start();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_frozen_leader_is_replaced_and_follows_when_it_thaws() {
    let mut fleet = Fleet::start().await;
    let (before, _) = fleet.draw().await;
    let (leader, _) = fleet.leader().await;
    let frozen = fleet.schedulers[leader].pid();
    kill(frozen, Signal::SIGSTOP).expect("it runs");
    let next = wait_for_async("another leader", async || {
        let other = (leader + 1) % 3;
        let named = fleet.members(other).await?.leader?.client_urls;
        (named != [format!("http://{}", fleet.endpoints[leader])]).then_some(other)
    })
    .await;
    kill(frozen, Signal::SIGCONT).expect("it is there");
    let (after, _) = fleet.draw().await;
    assert!(after > before, "{after} after {before}");
    wait_for_async("all name one leader", async || {
        let ours = fleet.members(leader).await?.leader?.client_urls;
        (fleet.members(next).await?.leader?.client_urls == ours).then_some(())
    })
    .await;
    assert!(fleet.schedulers[leader].is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_a_majority_stores_serve_and_the_scheduler_says_what_is_wrong() {
    let mut fleet = Fleet::start().await;
    let client = fleet.client().await;
    client.put("k", "v").await.expect("it serves");
    let (before, _) = fleet.draw().await;
    let (leader, header) = fleet.leader().await;
    let lost: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    lost.iter().for_each(|at| fleet.schedulers[*at].kill());
    wait_for_async("the survivor gives up", async || {
        fleet.members(leader).await.is_none().then_some(())
    })
    .await;
    // Routes are known: nobody needs a scheduler.
    client.put("k", "w").await.expect("stores serve without a scheduler");
    let read = client.get("k").await.expect("stores serve without a scheduler");
    assert_eq!(read.as_deref(), Some(&b"w"[..]));
    fleet.schedulers[lost[0]].start();
    let (after, _) = fleet.draw().await;
    assert!(after > before, "{after} after {before}");
    assert_eq!(fleet.leader().await.1, header, "another cluster id");
    assert_eq!(fleet.client().await.get("k").await.expect("it serves").as_deref(), Some(&b"w"[..]));
}

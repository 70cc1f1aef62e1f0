//! Looking at a cluster and changing it, through the binary: regions cut, joined, moved by hand; stores emptied, removed,
//! replaced; every refusal with its code and its reason.

#![allow(clippy::disallowed_methods, reason = "real processes need real time")]

mod harness;

use std::collections::BTreeSet;
use std::process::Output;

use harness::{Cluster, Playground, command, wait_for};
use serde_json::Value;

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The data on stdout of a command that must work.
fn ok(playground: &Playground, args: &[&str]) -> String {
    let output = playground.flotilla(args);
    assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The same as JSON.
fn json(playground: &Playground, args: &[&str]) -> Value {
    let text = ok(playground, &[args, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

/// A command that must fail so, and say these words.
fn refused(playground: &Playground, args: &[&str], expected: i32, words: &[&str]) {
    let output = playground.flotilla(args);
    let text = stderr(&output);
    assert_eq!(code(&output), expected, "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?}: stdout is for data");
    for word in words {
        assert!(text.contains(word), "{args:?} does not mention '{word}': {text}");
    }
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("no id in {value}")).to_owned()
}

fn region_of(playground: &Playground, key: &str) -> Value {
    json(playground, &["region", "of-key", key])
}

fn stores_of(region: &Value) -> Vec<String> {
    let peers = region["peers"].as_array().expect("a list").iter();
    peers.map(|peer| peer["store"].as_str().expect("an id").to_owned()).collect()
}

/// Nothing but what the test orders happens.
fn hold(playground: &Playground) {
    ok(playground, &["balance", "pause"]);
    wait_for("no operator runs", || {
        let running = json(playground, &["op", "ls"]);
        running.as_array().expect("a list").is_empty().then_some(())
    });
}

#[test]
fn regions_are_cut_and_joined_and_led_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let playground = Playground::start(dir.path(), &["--stores", "3"]);
    hold(&playground);
    for number in 0..40 {
        ok(&playground, &["put", &format!("user{number:04}:name"), &format!("v{number}")]);
    }
    let data = ok(&playground, &["scan"]);

    // Cut at a key: the key begins the right part, and the boundary taken is told.
    let cut = playground.flotilla(&["region", "split", "user0020:name"]);
    assert_eq!(code(&cut), 0, "{}", stderr(&cut));
    assert!(stderr(&cut).contains("user002/\\xff"), "{}", stderr(&cut));
    let (left, right) = wait_for("two regions", || {
        let left = region_of(&playground, "user0019:name");
        let right = region_of(&playground, "user0020");
        (id(&left) != id(&right)).then_some((left, right))
    });
    assert_eq!(left["end"], right["start"]);
    assert_eq!(ok(&playground, &["scan"]), data, "over the boundary nothing is missing");

    // And again in the middle of its data, and exactly where it is said.
    ok(&playground, &["region", "split", "--region", &id(&left)]);
    let halves = wait_for("the halves", || {
        let first = region_of(&playground, "user0001");
        (id(&first) != id(&region_of(&playground, "user0019"))).then_some(first)
    });
    assert_eq!(id(&halves), id(&left), "the left part keeps the id");
    ok(&playground, &["region", "split", "--at", "user0030\\xff\\0\\0\\0\\0\\0\\0\\0\\0\\xf7"]);
    wait_for("the exact boundary", || {
        let found = region_of(&playground, "user0031");
        (found["start"] == "user0030\\xff\\0\\0\\0\\0\\0\\0\\0\\0\\xf7").then_some(())
    });

    // The lead of one goes where it is told to.
    let region = region_of(&playground, "user0025");
    let leader = region["leader_store"].as_str().expect("it is led").to_owned();
    let other = stores_of(&region).into_iter().find(|store| *store != leader).unwrap();
    ok(&playground, &["region", "transfer-leader", &id(&region), &other]);
    wait_for("another leader", || {
        (region_of(&playground, "user0025")["leader_store"] == other.as_str()).then_some(())
    });

    // What was cut is joined again.
    let (source, target) = (id(&region_of(&playground, "user0035")), id(&region));
    ok(&playground, &["region", "merge", &source, &target]);
    wait_for("one region again", || {
        let joined = region_of(&playground, "user0035");
        (id(&joined) == target && id(&region_of(&playground, "user0025")) == target).then_some(())
    });
    assert_eq!(ok(&playground, &["scan"]), data);
    let checked = ok(&playground, &["region", "check", "--all"]);
    assert!(checked.lines().all(|line| line.contains("compared")), "{checked}");
    assert_eq!(code(&playground.flotilla(&["region", "show", &source])), 3, "it has ended");

    shapes_are_stable(&playground);
    refusals_say_why(&playground);
}

/// The fields that programs rely on.
fn shapes_are_stable(playground: &Playground) {
    let has = |value: &Value, fields: &[&str]| {
        let object = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
        for field in fields {
            assert!(object.contains_key(*field), "no '{field}' in {value}");
        }
    };
    let regions = json(playground, &["region", "ls"]);
    let region_fields = [
        "id",
        "start",
        "end",
        "conf_ver",
        "version",
        "peers",
        "leader_store",
        "term",
        "down",
        "pending",
        "bytes",
        "keys",
        "operator",
    ];
    has(&regions[0], &region_fields);
    has(&regions[0]["peers"][0], &["id", "store", "role"]);
    let shown = json(playground, &["region", "show", &id(&regions[0])]);
    has(&shown, &["on_stores"]);
    has(&shown["on_stores"][0], &["store", "role", "applied_index", "hibernating"]);
    let stores = json(playground, &["store", "ls"]);
    assert_eq!(stores.as_array().map(Vec::len), Some(3));
    let store_fields = [
        "id",
        "address",
        "state",
        "labels",
        "leaders",
        "regions",
        "bytes",
        "capacity_bytes",
        "available_bytes",
        "heard_ms_ago",
        "drain_peers_total",
        "drain_peers_left",
        "blockers",
    ];
    has(&stores[0], &store_fields);
    has(&json(playground, &["op", "history"])[0], &["id", "region", "steps", "step", "state"]);
    has(&json(playground, &["balance", "show"])[0], &["name", "paused", "view"]);
    has(&json(playground, &["config", "get"])[0], &["name", "value", "default", "meaning"]);
    has(&json(playground, &["members"])[0], &["id", "name", "client_urls", "leads"]);
    let status = json(playground, &["status"]);
    has(&status, &["cluster_id", "healthy", "problems", "schedulers", "stores", "totals"]);

    // In a pipe: one record per line, TAB separated, as many cells as there are columns.
    let plain = ok(playground, &["region", "ls"]);
    assert!(plain.lines().all(|line| line.split('\t').count() == 9), "{plain}");
    assert!(ok(playground, &["store", "ls"]).lines().all(|line| line.split('\t').count() == 10));
    let limited = ok(playground, &["region", "ls", "--limit", "1"]);
    assert_eq!(limited.lines().count(), 1);
    let below = ok(playground, &["region", "ls", "user0000", "user0001"]);
    assert_eq!(below.lines().count(), 1, "{below}");

    // Settings of the running cluster, there and back.
    ok(playground, &["config", "set", "leader_schedule_limit=3"]);
    let changed = json(playground, &["config", "get", "leader_schedule_limit"]);
    assert_eq!(changed[0]["value"], "3");
    ok(playground, &["store", "label", "1", "zone=a", "host=h1"]);
    let labels = json(playground, &["store", "status", "1"]);
    assert_eq!(labels["labels"]["zone"], "a");
    ok(playground, &["store", "label", "1", "--remove", "zone,host"]);
    let paused = json(playground, &["balance", "pause", "--for", "10m"]);
    assert!(paused.as_array().expect("a list").iter().all(|b| b["paused"] == true), "{paused}");
}

fn refusals_say_why(playground: &Playground) {
    let no = |args: &[&str], code, words: &[&str]| refused(playground, args, code, words);
    let region = id(&region_of(playground, "user0020"));
    let far = id(&json(playground, &["region", "ls"])[0]);
    // What is not there.
    no(&["region", "show", "77777"], 3, &["77777"]);
    no(&["region", "split", "--region", "77777"], 3, &["77777"]);
    no(&["region", "merge", &region, "77777"], 3, &["77777"]);
    no(&["region", "scatter", &region, "77777"], 3, &["77777"]);
    no(&["region", "check", "77777"], 3, &["77777"]);
    no(&["region", "transfer-leader", "77777", "1"], 3, &["77777"]);
    no(&["store", "status", "77777"], 3, &["77777"]);
    no(&["store", "drain", "77777", "--yes"], 3, &["77777"]);
    no(&["store", "label", "77777", "zone=a"], 3, &["77777"]);
    no(&["region", "move", &region, "--from", "77777", "--to", "1"], 3, &["77777"]);
    no(&["region", "transfer-leader", &region, "77777"], 3, &["77777"]);
    no(&["op", "cancel", "77777"], 3, &["77777"]);
    no(&["config", "get", "leader_schedule_limits"], 3, &["leader_schedule_limit`?"]);
    no(&["config", "set", "leader_schedule_limits=3"], 3, &["leader_schedule_limit`?"]);
    // What cannot be.
    no(&["config", "set", "leader_schedule_limit=many"], 1, &["leader_schedule_limit", "many"]);
    no(&["region", "merge", &far, &region], 1, &["neighbour"]);
    no(&["region", "merge", &region, &region], 1, &[]);
    no(&["region", "split", "user0020:other"], 1, &["eight bytes"]);
    no(&["balance", "pause", "no-such-balancer"], 1, &["no-such-balancer"]);
    no(&["op", "cancel", &region], 1, &["no operator"]);
    no(&["store", "remove", "1", "--yes"], 1, &["drain"]);
    // What is not said properly, and what nobody has confirmed.
    no(&["store", "drain", "1"], 2, &["--yes"]);
    no(&["store", "remove", "1", "--lost"], 2, &["--yes"]);
    no(&["store", "replace", "1"], 2, &["--yes"]);
    no(&["store", "label", "1", "zone"], 2, &["NAME=VALUE"]);
    no(&["region", "split", "--at", "user0020"], 2, &["encoding"]);
    no(&["region", "split"], 2, &["<KEY>"]);
    no(&["config", "set", "leader_schedule_limit"], 2, &["NAME=VALUE"]);
    no(&["store", "list"], 2, &["ls"]);
}

#[test]
fn a_region_moves_and_a_store_is_emptied_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--stores", "4", "--regions", "6"];
    let playground = Playground::start(dir.path(), &args);
    ok(&playground, &["load", "--generate", "3000", "--value-bytes", "100"]);
    hold(&playground);
    let data = ok(&playground, &["scan"]);
    assert_eq!(data.lines().count(), 3000);

    let region = region_of(&playground, "8");
    let here = stores_of(&region);
    let all = json(&playground, &["store", "ls"]);
    let all: Vec<String> = all.as_array().unwrap().iter().map(id).collect();
    let to = all.iter().find(|store| !here.contains(store)).expect("three of four");
    let (region, from) = (id(&region), here[0].clone());
    ok(&playground, &["region", "move", &region, "--from", &from, "--to", to]);
    let moved: BTreeSet<String> = stores_of(&region_of(&playground, "8")).into_iter().collect();
    assert!(moved.contains(to) && !moved.contains(&from), "{moved:?}");
    refused(&playground, &["region", "move", &region, "--from", &from, "--to", to], 1, &[]);
    assert_eq!(ok(&playground, &["scan"]), data);

    // Everything leaves one store while it goes on serving; then it can be taken out for good.
    ok(&playground, &["balance", "resume"]);
    ok(&playground, &["store", "drain", to, "--yes", "--wait=2m"]);
    let drained = json(&playground, &["store", "status", to]);
    assert_eq!((&drained["state"], &drained["regions"]), (&"draining".into(), &"0".into()));
    assert!(ok(&playground, &["region", "ls", "--store", to]).is_empty());
    assert_eq!(ok(&playground, &["scan"]), data);
    ok(&playground, &["store", "remove", to, "--yes"]);
    assert_eq!(json(&playground, &["store", "ls"]).as_array().map(Vec::len), Some(3));
    assert_eq!(json(&playground, &["store", "ls", "--all"]).as_array().map(Vec::len), Some(4));
    wait_for("its process has ended", || {
        let status = playground.flotilla(&["status"]);
        (code(&status) == 0).then_some(())
    });
    assert_eq!(ok(&playground, &["scan"]), data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_data_are_lost_is_replaced() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client(client::Settings::default()).await;
    for number in 0..50 {
        client.put(format!("key{number:04}"), "v").await.unwrap();
    }
    let run = |args: &[&str]| {
        let mut command = command(cluster.dir.path());
        command.args(args).env("FLOTILLA_ENDPOINTS", cluster.endpoints.join(","));
        command.output().expect("it ends")
    };
    let list = || -> Vec<Value> {
        let output = run(&["store", "ls", "--all", "-o", "json"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    // The one that is not asked to serve the key space's end alone: any will do.
    let before: Vec<String> = list().iter().map(id).collect();
    let address = cluster.stores[1].address().to_owned();
    let lost = list().iter().find(|store| store["address"] == address.as_str()).map(id);
    let lost = lost.expect("it is registered");

    // The process dies, its disk is empty, and it starts again at the same address: somebody has to decide.
    let mut store = cluster.stores.remove(1);
    store.kill();
    std::fs::remove_dir_all(&store.data_dir).ok();
    store.start();
    wait_for("a store that waits for the address", || {
        let log = store.log();
        (log.contains("waiting for the address") && log.contains("store replace")).then_some(())
    });
    let early = run(&["store", "replace", &lost, "--yes"]);
    assert!(code(&early) == 0 || stderr(&early).contains("heard of"), "{}", stderr(&early));
    wait_for("a store that counts as lost", || {
        (code(&run(&["store", "replace", &lost, "--yes"])) == 0).then_some(())
    });
    let new = wait_for("the new store", || {
        let up =
            list().into_iter().find(|s| s["address"] == address.as_str() && s["state"] == "up");
        up.map(|store| id(&store)).filter(|id| !before.contains(id))
    });
    assert_ne!(new, lost);
    wait_for("the old store is gone and its peers are elsewhere", || {
        let gone = list().iter().any(|store| id(store) == lost && store["state"] == "tombstone");
        let output = run(&["region", "ls", "-o", "json"]);
        let regions: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
        let whole = |region: &Value| {
            let stores = stores_of(region);
            stores.len() == 3
                && !stores.contains(&lost)
                && region["pending"].as_array().is_some_and(Vec::is_empty)
        };
        (gone && !regions.is_empty() && regions.iter().all(whole)).then_some(())
    });
    for number in 0..50 {
        let value = client.get(format!("key{number:04}")).await.unwrap();
        assert_eq!(value.as_deref(), Some(&b"v"[..]));
    }
}

/// Only an engine with a disk survives a kill.
#[cfg(feature = "rocksdb")]
#[test]
fn a_killed_store_of_a_playground_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let playground = Playground::start(dir.path(), &["--stores", "3"]);
    ok(&playground, &["put", "a", "1"]);
    let addresses = |state: &str| -> Vec<String> {
        let status = playground.flotilla(&["status", "-o", "json"]);
        let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
        let stores = status["stores"].as_array().expect("a list").iter();
        let stores = stores.filter(|s| s["state"].as_str().is_some_and(|s| s.starts_with(state)));
        stores.map(|store| store["address"].as_str().expect("text").to_owned()).collect()
    };
    refused(&playground, &["playground", "kill", "store-9"], 3, &["store-1, store-2, store-3"]);
    refused(&playground, &["playground", "start", "store-2"], 1, &["store-2 runs"]);
    ok(&playground, &["playground", "kill", "store-2"]);
    wait_for("a store that is missed", || (addresses("unreachable").len() == 1).then_some(()));
    ok(&playground, &["put", "a", "2"]);
    ok(&playground, &["playground", "start", "store-2"]);
    wait_for("three stores again", || (code(&playground.flotilla(&["status"])) == 0).then_some(()));
    assert_eq!(addresses("up").len(), 3);
    // Its new process can be made to fail as well.
    ok(&playground, &["playground", "pause", "store-2"]);
    ok(&playground, &["playground", "resume", "store-2"]);
    assert_eq!(ok(&playground, &["get", "a"]), "2\n");
}

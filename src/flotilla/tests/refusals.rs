//! What a server process refuses to start on, and how: one clear line, exit code 1 (2 for its settings).

#![allow(clippy::disallowed_methods, reason = "real processes need real time")]

mod harness;

use std::process::{Output, Stdio};

use harness::{Node, command, free_ports, wait_for_async};

/// Runs a server that is expected to give up, quietly but for the reason.
fn run(dir: &std::path::Path, args: &[&str]) -> Output {
    let mut command = command(dir);
    command.args(args).arg("--log-level=critical").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let started = std::time::Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if started.elapsed() > harness::DEADLINE {
            child.kill().expect("it can be killed");
            panic!("{args:?}: it runs, and should not");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.wait_with_output().expect("it has ended")
}

fn one_line(output: &Output, code: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "one line:\n{text}");
    assert!(text.starts_with("error: "), "{text}");
    for word in words {
        assert!(text.contains(word), "'{word}' is not mentioned: {text}");
    }
}

/// What is refused here is what was found on a disk.
#[cfg(feature = "rocksdb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_refuses_what_is_not_its_own() {
    let mut first = harness::Cluster::start(1).await;
    let mut second = harness::Cluster::start(1).await;
    let port = free_ports(1)[0];
    let addr = format!("127.0.0.1:{port}");
    let dir = first.dir.path().to_owned();

    let data = first.stores[0].data_dir.display().to_string();
    let in_use =
        ["store", "--addr", &addr, "--schedulers", &first.endpoints[0], "--data-dir", &data];
    one_line(&run(&dir, &in_use), 1, &[&data]);

    first.stores[0].kill();
    let foreign =
        ["store", "--addr", &addr, "--schedulers", &second.endpoints[0], "--data-dir", &data];
    one_line(&run(&dir, &foreign), 1, &["cluster"]);

    let standalone = ["store", "--standalone", "--addr", &addr, "--data-dir", &data];
    one_line(&run(&dir, &standalone), 1, &["belongs to store"]);

    let state = first.schedulers[0].data_dir.display().to_string();
    let busy = ["scheduler", "--addr", &addr, "--data-dir", &state];
    one_line(&run(&dir, &busy), 1, &[&state]);

    // The refused attempts have changed nothing: the store goes on with its data.
    first.stores[0].start();
    first.client(client::Settings::default()).await;

    second.stores[0].kill();
    let data = second.stores[0].data_dir.display().to_string();
    let broken =
        ["store", "--addr", &addr, "--schedulers", &second.endpoints[0], "--data-dir", &data];
    let database = second.stores[0].data_dir.join("db");
    let current = database.join("CURRENT");
    let manifest = std::fs::read_to_string(&current).expect("the file is there");
    std::fs::write(&current, b"nonsense\n").expect("the file is there");
    one_line(&run(&dir, &broken), 1, &["CURRENT"]);
    std::fs::write(&current, &manifest).expect("the file is there");
    std::fs::write(database.join(manifest.trim()), b"nonsense").expect("the file is there");
    one_line(&run(&dir, &broken), 1, &["MANIFEST"]);
}

#[test]
fn settings_that_make_no_sense_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.toml");
    let path = file.display().to_string();
    std::fs::write(&file, "tick = 20\n").unwrap();
    one_line(&run(dir.path(), &["store", "--config", &path]), 2, &["`tick`", "`tick_ms`", &path]);
    std::fs::write(&file, "tick_ms = \"often\"\n").unwrap();
    one_line(&run(dir.path(), &["store", "--config", &path]), 2, &["often"]);
    std::fs::write(&file, "election_ticks = 4\n").unwrap();
    one_line(&run(dir.path(), &["store", "--config", &path]), 2, &["election_ticks"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_run_over_a_bare_engine() {
    let dir = tempfile::tempdir().unwrap();
    let addr = format!("127.0.0.1:{}", free_ports(1)[0]);
    let mut node = Node::new("bare", dir.path(), &["store", "--standalone", "--addr", &addr]);
    node.start();
    let url = format!("http://{addr}");
    let mut tikv = wait_for_async("a bare engine that serves", async || {
        proto::tikvpb::tikv_client::TikvClient::connect(url.clone()).await.ok()
    })
    .await;
    let put =
        proto::kvrpcpb::RawPutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    let answer = tikv.raw_put(put).await.expect("it serves").into_inner();
    assert_eq!(answer.error, "");
    let get = proto::kvrpcpb::RawGetRequest { key: "k".into(), ..Default::default() };
    let answer = tikv.raw_get(get).await.expect("it serves").into_inner();
    assert_eq!(&answer.value[..], b"v");
}

//! Real data: the machine's Debian package index (some 60 000 stanzas; made-up ones where there is none) goes in with `flotilla
//! load` while the leading store is killed; afterwards every get and every prefix scan agrees with what went in.

mod harness;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use harness::{Playground, wait_for};

/// Fewer stanzas than this are not worth the name.
const STANZAS_MIN: usize = 10_000;
/// Keys asked for in one `mget`.
const KEYS_PER_CALL: usize = 500;

/// Package name → stanza, as `flotilla load` stores it.
fn stanzas(index: &str) -> BTreeMap<String, String> {
    let name = |stanza: &str| {
        let line = stanza.lines().find_map(|line| line.strip_prefix("Package:"))?;
        Some(line.trim().to_owned())
    };
    let paragraphs = index.split("\n\n").map(|p| p.trim_matches('\n')).filter(|p| !p.is_empty());
    paragraphs.filter_map(|p| Some((name(p)?, format!("{p}\n")))).collect()
}

/// The index of the machine's package manager, or one made up in its shape.
fn package_index() -> BTreeMap<String, String> {
    let dump = Command::new("apt-cache").arg("dumpavail").stderr(Stdio::null()).output();
    let real = dump.map(|d| stanzas(&String::from_utf8_lossy(&d.stdout))).unwrap_or_default();
    if real.len() >= STANZAS_MIN {
        return real;
    }
    let made_up = (0..60_000_u32).map(|i| {
        let (name, text) =
            (format!("package-{:05x}", i.wrapping_mul(40_503) % 99_991), "x".repeat(700));
        format!("Package: {name}\nVersion: {i}\nDescription: {text}\n .\n more of it")
    });
    stanzas(&made_up.collect::<Vec<_>>().join("\n\n"))
}

/// The pairs of `-o jsonl`, by key.
fn records(output: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(output).expect("the index is text");
    let one = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("one JSON object a line");
        let field = |name: &str| record[name].as_str().expect("text").to_owned();
        (field("key"), field("value"))
    };
    text.lines().map(one).collect()
}

fn leading_store(playground: &Playground) -> i32 {
    wait_for("a store that leads", || {
        let output = playground.flotilla(&["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let stores = status["stores"].as_array()?;
        let leads = |s: &&serde_json::Value| s["leaders"].as_u64().is_some_and(|n| n > 0);
        let address = stores.iter().find(leads)?["address"].as_str()?.to_owned();
        let processes = playground.report["processes"].as_array()?;
        let process = processes.iter().find(|p| p["address"] == address.as_str())?;
        process["pid"].as_str()?.parse().ok()
    })
}

#[test]
fn the_package_index_goes_in_while_the_leader_is_killed() {
    let index = package_index();
    let dir = tempfile::tempdir().expect("a directory");
    let playground = Playground::start(dir.path(), &["--stores", "3"]);
    let victim = leading_store(&playground);

    let input = index.values().cloned().collect::<Vec<_>>().join("\n");
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            playground.flotilla_with(&["load", "--format", "debian-stanzas"], input.as_bytes())
        });
        wait_for("a first part of the index", || {
            let output =
                playground.flotilla(&["scan", "--limit", "2000", "--keys-only", "-o", "jsonl"]);
            (output.stdout.split(|b| *b == b'\n').count() > 1_000).then_some(())
        });
        assert!(!load.is_finished(), "the load is over before the blow: it proves nothing");
        let pid = nix::unistd::Pid::from_raw(victim);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
        let output = load.join().expect("the load ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });

    let keys: Vec<&str> = index.keys().map(String::as_str).collect();
    for chunk in keys.chunks(KEYS_PER_CALL) {
        let got = records(&playground.flotilla(&[&["mget", "-o", "jsonl"], chunk].concat()).stdout);
        assert_eq!(got.len(), chunk.len(), "every key of {:?}.. is there", chunk.first());
        assert!(got.iter().all(|(key, value)| index[key] == *value), "with its stanza");
    }
    let prefixes: std::collections::BTreeSet<String> =
        index.keys().map(|key| key.chars().take(1).collect()).collect();
    for prefix in prefixes {
        let scan = ["scan", "--prefix", &prefix, "--limit", "1000000", "-o", "jsonl"];
        let got = records(&playground.flotilla(&scan).stdout);
        let want = index.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let want: BTreeMap<String, String> = want.map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(got.len(), want.len(), "prefix {prefix}");
        assert!(got == want, "prefix {prefix}: some stanza differs");
    }
}

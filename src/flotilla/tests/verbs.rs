//! The verbs as a user runs them: one process per command, against a playground.

mod harness;

use std::process::Output;

use harness::{Playground, command};

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The data on stdout of a command that must work.
fn ok(playground: &Playground, args: &[&str]) -> String {
    let output = playground.flotilla(args);
    assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
    stdout(&output)
}

#[test]
fn the_verbs_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let playground = Playground::start(dir.path(), &[]);

    // One key.
    assert_eq!(ok(&playground, &["put", "a", "1"]), "");
    assert_eq!(ok(&playground, &["get", "a"]), "1\n");
    assert_eq!(ok(&playground, &["get", "a", "-o", "json"]), "{\"key\":\"a\",\"value\":\"1\"}\n");
    assert_eq!(ok(&playground, &["append", "a", "23"]), "3\n");
    assert_eq!(ok(&playground, &["--plain-writes", "append", "new", "x"]), "1\n");
    assert_eq!(ok(&playground, &["get", "a", "-o", "raw"]), "123");
    assert_eq!(ok(&playground, &["del", "a", "new", "never-there"]), "");
    let absent = playground.flotilla(&["get", "a"]);
    assert_eq!((code(&absent), stdout(&absent).as_str()), (3, ""));
    assert!(stderr(&absent).contains("not found"), "{}", stderr(&absent));

    // Many keys and ranges.
    ok(&playground, &["mput", "k1", "v1", "k2", "v2", "k3", "v3", "\\xff\\xff", "end"]);
    assert_eq!(ok(&playground, &["mget", "k3", "k1"]), "k3\tv3\nk1\tv1\n");
    assert_eq!(code(&playground.flotilla(&["mget", "k1", "nope"])), 3);
    assert_eq!(ok(&playground, &["scan", "k1", "k3"]), "k1\tv1\nk2\tv2\n");
    assert_eq!(ok(&playground, &["scan", "--prefix", "k", "--keys-only"]), "k1\nk2\nk3\n");
    assert_eq!(ok(&playground, &["rscan", "--limit", "2"]), "\\xff\\xff\tend\nk3\tv3\n");
    assert_eq!(ok(&playground, &["scan", "--reverse", "k1", "k3"]), "k2\tv2\nk1\tv1\n");
    assert_eq!(ok(&playground, &["scan", "--hex", "--prefix", "6b", "-l", "1"]), "k1\tv1\n");

    // What removes a range asks first, and nobody is there to answer.
    let unasked = playground.flotilla(&["del-range", "--prefix", "k"]);
    assert_eq!(code(&unasked), 2, "{}", stderr(&unasked));
    assert_eq!(code(&playground.flotilla(&["del-range", "--yes"])), 2, "no range is no range");
    ok(&playground, &["del-range", "--prefix", "k", "--yes"]);
    assert_eq!(
        ok(&playground, &["scan", "-o", "json"]),
        "[{\"key_b64\":\"//8=\",\"value\":\"end\"}]\n"
    );
    ok(&playground, &["del-range", "--all", "--yes"]);
    assert_eq!(ok(&playground, &["scan"]), "");

    bytes_survive(&playground);
    large_values_are_read_back(&playground);
    mistakes_are_told(&playground);
    load_and_export(&playground);
    silence_has_its_own_codes(&playground);
    status_is_healthy_until_a_store_dies(&playground);
    assert_eq!(playground.stop(), Some(0));
}

fn bytes_survive(playground: &Playground) {
    let value: Vec<u8> = (0..=255).collect();
    let put = playground.flotilla_with(&["put", "x'00ff0a'", "-"], &value);
    assert_eq!(code(&put), 0, "{}", stderr(&put));
    assert_eq!(playground.flotilla(&["get", "\\0\\xff\\n", "-o", "raw"]).stdout, value);
    let shown = ok(playground, &["get", "x'00ff0a'"]);
    ok(playground, &["put", "copy", shown.trim_end_matches('\n')]);
    assert_eq!(playground.flotilla(&["get", "copy", "-o", "raw"]).stdout, value);
    ok(playground, &["del", "copy", "x'00ff0a'"]);
}

/// Values that do not fit into one answer of a scan together, and one that does not even alone.
fn large_values_are_read_back(playground: &Playground) {
    let sizes = [1_500_000, 1_500_000, 5_500_000, 1_500_000, 10];
    let keys = ["big0", "big1", "big2", "big3", "big4"];
    for (key, size) in keys.iter().zip(sizes) {
        let value = vec![key.as_bytes()[3]; size];
        let put = playground.flotilla_with(&["put", key, "-"], &value);
        assert_eq!(code(&put), 0, "{}", stderr(&put));
    }
    let expected: String = keys
        .iter()
        .zip(sizes)
        .map(|(key, size)| format!("{key}\t{}\n", key[3..].repeat(size)))
        .collect();
    let same = |args: &[&str]| assert!(ok(playground, args) == expected, "{args:?} differs");
    same(&["scan", "--prefix", "big"]);
    same(&["mget", "big0", "big1", "big2", "big3", "big4"]);
    let reverse = ok(playground, &["rscan", "--prefix", "big"]);
    let reversed: String = expected.lines().rev().map(|line| format!("{line}\n")).collect();
    assert!(reverse == reversed, "rscan differs");
    ok(playground, &["del-range", "--prefix", "big", "--yes"]);
}

fn mistakes_are_told(playground: &Playground) {
    let told = |args: &[&str], expected_code: i32, words: &[&str]| {
        let output = playground.flotilla(args);
        let text = stderr(&output);
        assert_eq!(code(&output), expected_code, "{args:?}: {text}");
        assert_eq!(stdout(&output), "", "{args:?}: stdout is for data");
        for word in words {
            assert!(text.contains(word), "{args:?} does not mention '{word}': {text}");
        }
    };
    told(&["scan", "--revers"], 2, &["--reverse"]);
    told(&["gett", "k"], 2, &["get"]);
    told(&["put", "", "v"], 1, &["key", "empty"]);
    told(&["put", &"k".repeat(9_000), "v"], 1, &["key", "9000", "8192"]);
    told(&["get", "\\q"], 2, &["\\q"]);
    told(&["put", "k", "@/no/such/file"], 1, &["/no/such/file"]);
    told(&["mput", "a", "b", "c"], 2, &["c"]);
    told(&["playground", "--schedulers", "2"], 2, &["even"]);
    let big = vec![b'v'; (6 << 20) + 1];
    let output = playground.flotilla_with(&["put", "big", "-"], &big);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("6291456"), "{}", stderr(&output));
    let nowhere = playground.flotilla(&["get", "k", "--endpoints", "127.0.0.1:1"]);
    assert_eq!(code(&nowhere), 4, "{}", stderr(&nowhere));
}

fn load_and_export(playground: &Playground) {
    let stanza =
        |n: usize| format!("Package: pkg{n:04}\nVersion: {n}\nDescription: the {n}th\n .\n more\n");
    let input: String = (0..500).map(|n| stanza(n) + "\n").collect();
    let args = ["load", "--format", "debian-stanzas", "--batch", "7"];
    let load = playground.flotilla_with(&args, input.as_bytes());
    assert_eq!(code(&load), 0, "{}", stderr(&load));
    assert!(stderr(&load).contains("500 records"), "{}", stderr(&load));
    assert_eq!(
        playground.flotilla(&["get", "pkg0123", "-o", "raw"]).stdout,
        stanza(123).as_bytes()
    );
    assert_eq!(ok(playground, &["scan", "--prefix", "pkg049", "-k"]).lines().count(), 10);

    let exported = ok(playground, &["export"]);
    assert_eq!(exported.lines().count(), 500);
    let plain = ok(playground, &["scan"]);
    ok(playground, &["del-range", "--all", "--yes"]);
    let again = playground.flotilla_with(&["load"], exported.as_bytes());
    assert_eq!(code(&again), 0, "{}", stderr(&again));
    assert_eq!(ok(playground, &["export"]), exported);
    ok(playground, &["del-range", "--all", "--yes"]);
    let again = playground.flotilla_with(&["load", "--format", "tsv"], plain.as_bytes());
    assert_eq!(code(&again), 0, "{}", stderr(&again));
    assert_eq!(ok(playground, &["export"]), exported);

    let bad = playground.flotilla_with(&["load"], b"{\"key\":\"a\",\"value\":\"1\"}\nnonsense\n");
    assert_eq!(code(&bad), 1);
    assert!(stderr(&bad).contains("line 2"), "{}", stderr(&bad));
}

/// With every store paused nobody answers: a write that went out is undetermined, anything else may be tried again.
fn silence_has_its_own_codes(playground: &Playground) {
    let signal_all = |signal| {
        for pid in playground.store_pids() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
        }
    };
    let run = |args: &[&str]| {
        let output = playground.flotilla(&[args, &["--timeout", "700ms"]].concat());
        (code(&output), stderr(&output))
    };
    ok(playground, &["put", "k", "before"]);
    signal_all(nix::sys::signal::Signal::SIGSTOP);
    let get = run(&["get", "k"]);
    let put = run(&["put", "k", "during"]);
    let plain = run(&["put", "k", "during", "--plain-writes"]);
    signal_all(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(get.0, 5, "{}", get.1);
    assert_eq!(put.0, 5, "not even the session was opened: {}", put.1);
    assert_eq!(plain.0, 9, "{}", plain.1);
    assert!(plain.1.contains("undetermined"), "{}", plain.1);
    let value = ok(playground, &["get", "k"]);
    assert!(value == "before\n" || value == "during\n", "{value}");
}

fn status_is_healthy_until_a_store_dies(playground: &Playground) {
    let status: serde_json::Value = harness::wait_for("a healthy cluster", || {
        let output = playground.flotilla(&["status", "-o", "json"]);
        (code(&output) == 0).then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    });
    assert_eq!(status["stores"].as_array().map(Vec::len), Some(3));
    assert_eq!(status["healthy"], true);
    assert!(status["cluster_id"].is_string(), "a u64 is text in JSON");
    let victim = nix::unistd::Pid::from_raw(playground.store_pids()[0]);
    nix::sys::signal::kill(victim, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    let output = playground.flotilla(&["status"]);
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    assert!(stdout(&output).contains("unreachable"), "{}", stdout(&output));
    // And nobody notices otherwise.
    ok(playground, &["put", "after", "the kill"]);
    assert_eq!(ok(playground, &["get", "after"]), "the kill\n");
}

/// Only an engine with a disk keeps anything.
#[cfg(feature = "rocksdb")]
#[test]
fn a_playground_runs_a_command_and_keeps_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let run = |script: &str, place: &[&str]| {
        let exec = format!("{} {script}", harness::binary().display());
        let mut command = command(dir.path());
        command.args(["playground", "--port", "0", "--exec", &exec]).args(place);
        command.output().expect("it ends")
    };
    let data = dir.path().join("kept");
    let kept = ["--data-dir", data.to_str().expect("UTF-8")];
    let put = run("put stays here", &kept);
    assert_eq!(code(&put), 0, "{}", stderr(&put));
    let get = run("get stays", &kept);
    assert_eq!((code(&get), stdout(&get).as_str()), (0, "here\n"), "{}", stderr(&get));
    let gone = run("get stays", &["--ephemeral"]);
    assert_eq!(code(&gone), 3, "the code of the command: {}", stderr(&gone));
}

#[test]
fn a_running_playground_is_found_without_an_address() {
    let dir = tempfile::tempdir().unwrap();
    let playground = Playground::start(dir.path(), &["--stores", "1"]);
    let run = |args: &[&str]| command(dir.path()).args(args).output().expect("it ends");
    let put = run(&["put", "found", "yes"]);
    assert_eq!(code(&put), 0, "{}", stderr(&put));
    assert_eq!(playground.stop(), Some(0));
    let gone = run(&["get", "found", "--endpoints", ""]);
    assert_ne!(code(&gone), 0);
}

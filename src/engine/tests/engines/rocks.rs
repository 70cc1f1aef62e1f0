//! What only the real engine can show: locks, damaged files, failing disks, and restarts from what a kill left.
//!
//! A killed process is imitated by copying its directory while it runs: the copy is what the page cache held. Disks fail
//! through links: writing to `/dev/full` answers "no space left", syncing `/dev/null` answers "invalid argument".

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use engine::rocks::{MEMORY_BUDGET_BYTES_MIN, RocksConfig, RocksEngine};
use engine::{Cf, Engine, Error, WriteBatch};
use tempfile::TempDir;

fn open(path: &Path) -> engine::Result<RocksEngine> {
    let config =
        RocksConfig { memory_budget_bytes: MEMORY_BUDGET_BYTES_MIN, ..RocksConfig::default() };
    RocksEngine::open(path, &config)
}

fn put(engine: &RocksEngine, number: u32) -> engine::Result<()> {
    let mut batch = WriteBatch::new();
    let key = format!("key-{number:05}");
    batch.put(Cf::Raw, key.clone(), format!("value of {key}"));
    batch.put(Cf::Raft, key, number.to_be_bytes().to_vec());
    engine.write(&batch)
}

/// How many of the puts 0, 1, 2, … are there, asserting that they are a prefix, whole and right.
fn count_prefix(engine: &RocksEngine) -> engine::Result<u32> {
    let mut count = 0;
    for number in 0..1_000 {
        let key = format!("key-{number:05}");
        let (data, log) =
            (engine.get(Cf::Raw, key.as_bytes())?, engine.get(Cf::Raft, key.as_bytes())?);
        assert_eq!(data.is_some(), log.is_some(), "a batch is atomic");
        let Some(data) = data else { continue };
        assert_eq!(data, format!("value of {key}"));
        assert_eq!(count, number, "a prefix");
        count += 1;
    }
    Ok(count)
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).expect("a directory").map(|e| e.expect("an entry").path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// What a kill of the process would leave.
fn copy_while_open(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("a temporary directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let name = path.file_name().expect("a file name");
            fs::copy(&path, to.path().join(name)).expect("a copy");
        }
    }
    to
}

/// A directory as left by a kill after 100 unsynced puts, and its only log file.
fn killed_after_100_puts() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = open(directory.path()).expect("opens");
    (0..100).for_each(|number| put(&engine, number).expect("write"));
    let copy = copy_while_open(directory.path());
    let logs = files(copy.path(), "log");
    let log = logs.into_iter().find(|log| fs::metadata(log).expect("a file").len() > 0);
    (copy, log.expect("a log with records"))
}

fn flip_byte(file: &Path, position: usize) {
    let mut bytes = fs::read(file).expect("readable");
    bytes[position] ^= 0x40;
    fs::write(file, bytes).expect("writable");
}

#[test]
fn unsynced_writes_survive_the_kill_of_the_process() {
    let (directory, _) = killed_after_100_puts();
    let engine = open(directory.path()).expect("opens");
    assert_eq!(count_prefix(&engine), Ok(100));
}

#[test]
fn a_log_cut_short_anywhere_leaves_a_prefix_of_whole_batches() {
    let mut last = 0;
    for percent in [0, 1, 33, 50, 77, 99] {
        let (directory, log) = killed_after_100_puts();
        let file = fs::OpenOptions::new().write(true).open(&log).expect("writable");
        let full_bytes = file.metadata().expect("a file").len();
        file.set_len(full_bytes * percent / 100).expect("cut");
        let engine = open(directory.path()).expect("an incomplete last record is no damage");
        let count = count_prefix(&engine).expect("readable");
        assert!((last..100).contains(&count), "{count} puts from {percent} % of the log");
        last = count;
    }
    assert!(last > 90);
}

#[test]
fn a_log_damaged_in_the_middle_is_refused_not_shortened() {
    let (directory, log) = killed_after_100_puts();
    let middle = fs::metadata(&log).expect("a file").len() / 2;
    flip_byte(&log, middle as usize);
    let error = open(directory.path()).expect_err("refused");
    assert!(matches!(error, Error::Corruption { .. }), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
fn a_directory_in_use_is_refused_with_one_clear_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let first = open(directory.path()).expect("opens");
    let error = open(directory.path()).expect_err("refused");
    assert_eq!(error, Error::Locked { path: directory.path().to_owned() });
    assert_eq!(
        error.to_string(),
        format!("data directory {} is in use by another process", directory.path().display())
    );
    put(&first, 0).expect("the first is undisturbed");
    drop(first);
    open(directory.path()).expect("free again");
}

#[test]
fn data_without_a_current_file_are_refused_not_begun_anew() {
    let (directory, _) = killed_after_100_puts();
    fs::remove_file(directory.path().join("CURRENT")).expect("removed");
    let error = open(directory.path()).expect_err("refused");
    assert!(error.to_string().contains("no CURRENT file"), "{error}");
    assert!(!files(directory.path(), "log").is_empty(), "nothing was touched");
}

#[test]
fn a_damaged_manifest_or_current_file_is_refused() {
    for damage in ["CURRENT", "MANIFEST"] {
        let (directory, _) = killed_after_100_puts();
        let entries = fs::read_dir(directory.path()).expect("a directory");
        let file = entries
            .map(|entry| entry.expect("an entry").path())
            .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(damage)))
            .expect("the file");
        let length = fs::metadata(&file).expect("a file").len() as usize;
        flip_byte(&file, length / 2);
        let error = open(directory.path()).expect_err("refused");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
}

#[test]
fn a_foreign_layout_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    drop(rocksdb::DB::open_cf(&options, directory.path(), ["strange"]).expect("opens"));
    let error = open(directory.path()).expect_err("refused");
    assert!(matches!(error, Error::Incompatible { .. }), "{error}");
    assert!(error.to_string().contains("strange"), "{error}");
}

#[test]
fn wrong_bytes_in_a_file_are_an_error_and_never_a_value() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = open(directory.path()).expect("opens");
    (0..1_000).for_each(|number| put(&engine, number).expect("write"));
    engine.flush().expect("flush");
    drop(engine);
    let mut refused = 0;
    let sizes = files(directory.path(), "sst").into_iter().map(|file| {
        let size = fs::metadata(&file).expect("a file").len() as usize;
        (file.file_name().expect("a name").to_owned(), size)
    });
    for (name, size) in sizes.collect::<Vec<_>>() {
        for part in 0..6 {
            let damaged = copy_while_open(directory.path());
            flip_byte(&damaged.path().join(&name), size * part / 6);
            // Right bytes or an error: `count_prefix` asserts that no other bytes come back.
            let outcome = open(damaged.path()).and_then(|engine| count_prefix(&engine));
            match outcome {
                Ok(count) => assert_eq!(count, 1_000, "nothing is silently missing"),
                Err(Error::Corruption { .. } | Error::Io { .. }) => refused += 1,
                Err(other) => panic!("unexpected: {other}"),
            }
        }
    }
    assert!(refused >= 6, "only {refused} damages were noticed");
}

/// Makes the next log file a link to `device`, and RocksDB begin it.
fn switch_log_to(engine: &RocksEngine, device: &str) {
    let last = files(engine.path(), "log").pop().expect("a log");
    let number: u64 = last.file_stem().expect("a stem").to_string_lossy().parse().expect("digits");
    for next in number + 1..number + 20 {
        let _ = symlink(device, engine.path().join(format!("{next:06}.log")));
    }
    engine.flush().expect("flush");
}

fn drop_links(directory: &Path) {
    for log in files(directory, "log") {
        if fs::symlink_metadata(&log).expect("a file").is_symlink() {
            fs::remove_file(log).expect("removed");
        }
    }
}

#[test]
fn a_failed_write_poisons_the_engine_and_a_restart_heals_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = open(directory.path()).expect("opens");
    put(&engine, 0).expect("write");
    engine.sync().expect("sync");
    switch_log_to(&engine, "/dev/full");
    let first = put(&engine, 1).expect_err("the disk is full");
    assert!(matches!(first, Error::Io { .. }), "{first}");
    drop_links(directory.path());
    for refused in [put(&engine, 2), engine.sync(), engine.flush()] {
        assert_eq!(refused, Err(Error::Poisoned(first.to_string())));
    }
    let ingest = engine.ingest(Cf::Raw, &mut std::iter::once(Ok(("a".into(), "b".into()))));
    assert!(matches!(ingest, Err(Error::Poisoned(_))));
    assert_eq!(
        engine.get(Cf::Raw, b"key-00000").expect("reads go on"),
        Some("value of key-00000".into())
    );
    drop(engine);
    let engine = open(directory.path()).expect("opens");
    assert!((1..=2).contains(&count_prefix(&engine).expect("readable")));
    put(&engine, 1).expect("accepts writes again");
}

#[test]
fn a_failed_sync_poisons_the_engine() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = open(directory.path()).expect("opens");
    put(&engine, 0).expect("write");
    engine.sync().expect("sync");
    switch_log_to(&engine, "/dev/null");
    put(&engine, 1).expect("the write itself succeeds");
    let first = engine.sync().expect_err("the sync does not");
    drop_links(directory.path());
    assert_eq!(engine.sync(), Err(Error::Poisoned(first.to_string())));
    assert_eq!(put(&engine, 2), Err(Error::Poisoned(first.to_string())));
    assert_eq!(engine.counters().syncs, 1);
    drop(engine);
    let engine = open(directory.path()).expect("opens");
    assert!(count_prefix(&engine).expect("readable") >= 1, "what was synced is there");
}

#[test]
fn snapshots_keep_the_database_open() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = open(directory.path()).expect("opens");
    put(&engine, 0).expect("write");
    let snapshot = engine.snapshot();
    drop(engine);
    assert!(snapshot.get(Cf::Raw, b"key-00000").expect("readable").is_some());
    assert!(matches!(open(directory.path()), Err(Error::Locked { .. })));
    drop(snapshot);
    open(directory.path()).expect("opens");
}

#[test]
fn leftovers_of_bulk_loads_are_removed_on_open() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let leftover = directory.path().join("ingest").join("7.sst");
    fs::create_dir(directory.path().join("ingest")).expect("created");
    fs::write(&leftover, "half a file").expect("written");
    let engine = open(directory.path()).expect("opens");
    assert!(!leftover.exists());
    engine.ingest(Cf::Raw, &mut std::iter::once(Ok(("a".into(), "b".into())))).expect("ingest");
    let refused = engine.ingest(
        Cf::Raw,
        &mut [("b", ""), ("a", "")].map(|(k, v)| Ok((k.into(), v.into()))).into_iter(),
    );
    assert_eq!(refused, Err(Error::Unsorted { position: 1 }));
    let left = fs::read_dir(directory.path().join("ingest")).expect("a directory").count();
    assert_eq!(left, 0);
    assert_eq!(engine.counters().ingests, 1);
}

#[test]
fn bulk_loads_are_durable_while_older_writes_may_be_lost() {
    let (directory, _) = killed_after_100_puts();
    let engine = open(directory.path()).expect("opens");
    let key = "key-00050";
    engine
        .ingest(Cf::Raw, &mut std::iter::once(Ok((key.into(), "loaded".into()))))
        .expect("ingest");
    let copy = copy_while_open(directory.path());
    for log in files(copy.path(), "log") {
        fs::OpenOptions::new().write(true).open(log).expect("writable").set_len(0).expect("cut");
    }
    let after = open(copy.path()).expect("opens");
    assert_eq!(after.get(Cf::Raw, key.as_bytes()).expect("readable"), Some("loaded".into()));
}

#[test]
fn memory_stays_near_its_budget() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let engine = open(directory.path()).expect("opens");
    for number in 0..600_u64 {
        let mut batch = WriteBatch::new();
        // Bytes that do not compress: 96 MiB in all, six times the budget.
        let mut state = number;
        let value: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(160 << 10)
        .collect();
        batch.put(Cf::Raw, number.to_be_bytes().to_vec(), value);
        engine.write(&batch).expect("write");
        let used = engine.memory_bytes();
        assert!(used <= 3 * MEMORY_BUDGET_BYTES_MIN, "{used} bytes in use after {number} batches");
    }
    assert!(engine.approximate_size_bytes(Cf::Raw, b"", b"").expect("a size") > 32 << 20);
}

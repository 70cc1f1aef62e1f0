//! Runs every script of `tests/testscripts` over both engines; they must print the same.
//!
//! Keys and values are text; `0x…` stands for bytes. `make golden` writes the expected output anew.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use engine::{Cf, Iter, KeyRange, Snapshot, WriteBatch};

use crate::lab::{Lab, MemLab, backward, forward};

#[derive(goldenscript::Command)]
enum Command {
    /// Begins a batch: `put`, `delete` and `delete_range` collect until `write`.
    Batch,
    /// Writes the batch.
    Write,
    /// Sets a key. put CF KEY VALUE
    Put { cf: String, key: String, value: String },
    /// Removes a key. delete CF KEY
    Delete { cf: String, key: String },
    /// Removes `[start, end)`. delete_range CF START END
    DeleteRange { cf: String, start: String, end: String },
    /// Loads pairs in the order given. ingest CF KEY=VALUE…
    Ingest { cf: String, pairs: Vec<(String, String)> },
    /// Reads a key. get CF KEY [at=SNAPSHOT]
    Get {
        cf: String,
        key: String,
        #[arg(key)]
        at: Option<String>,
    },
    /// Prints the pairs of a range. scan CF [from=KEY] [to=KEY] [reverse=true] [at=SNAPSHOT]
    Scan {
        cf: String,
        #[arg(key)]
        from: Option<String>,
        #[arg(key)]
        to: Option<String>,
        #[arg(key, optional)]
        reverse: bool,
        #[arg(key)]
        at: Option<String>,
    },
    /// Moves a cursor. walk CF (first|last|next|prev|seek/KEY|back/KEY)… [from=KEY] [to=KEY] [at=SNAPSHOT]
    Walk {
        cf: String,
        steps: Vec<String>,
        #[arg(key)]
        from: Option<String>,
        #[arg(key)]
        to: Option<String>,
        #[arg(key)]
        at: Option<String>,
    },
    /// Takes a snapshot. snapshot NAME
    Snapshot(String),
    /// Makes everything written durable.
    Sync,
    /// Drops all snapshots, ends the process and starts it anew.
    Reopen,
}

struct Runner {
    lab: Box<dyn Lab>,
    batch: Option<WriteBatch>,
    snapshots: BTreeMap<String, Arc<dyn Snapshot>>,
}

impl Runner {
    fn new(lab: impl Lab + 'static) -> Self {
        Self { lab: Box::new(lab), batch: None, snapshots: BTreeMap::new() }
    }

    fn change(&mut self, change: impl FnOnce(&mut WriteBatch)) -> engine::Result<()> {
        if let Some(batch) = &mut self.batch {
            change(batch);
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        change(&mut batch);
        self.lab.engine().write(&batch)
    }

    fn snapshot(&self, name: Option<&String>) -> Result<Arc<dyn Snapshot>, Box<dyn Error>> {
        match name {
            None => Ok(self.lab.engine().snapshot()),
            Some(name) => Ok(Arc::clone(self.snapshots.get(name).ok_or("no such snapshot")?)),
        }
    }

    fn get(&self, cf: Cf, key: &str, at: Option<&String>) -> Result<String, Box<dyn Error>> {
        let key = parse_bytes(key)?;
        let snapshot = self.snapshot(at)?;
        let value = snapshot.get(cf, &key)?;
        if at.is_none() {
            assert_eq!(self.lab.engine().get(cf, &key)?, value, "engine and snapshot agree");
        }
        let value = value.map_or("none".to_owned(), |value| print_bytes(&value));
        Ok(format!("{} → {value}\n", print_bytes(&key)))
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let mut output = String::new();
        match command {
            Command::Batch => self.batch = Some(WriteBatch::new()),
            Command::Write => {
                let batch = self.batch.take().ok_or("no batch was begun")?;
                self.lab.engine().write(&batch)?;
                writeln!(output, "{} operations", batch.len())?;
            }
            Command::Put { cf, key, value } => {
                let (cf, key, value) = (parse_cf(cf)?, parse_bytes(key)?, parse_bytes(value)?);
                self.change(|batch| batch.put(cf, key, value))?;
            }
            Command::Delete { cf, key } => {
                let (cf, key) = (parse_cf(cf)?, parse_bytes(key)?);
                self.change(|batch| batch.delete(cf, key))?;
            }
            Command::DeleteRange { cf, start, end } => {
                let (cf, start, end) = (parse_cf(cf)?, parse_bytes(start)?, parse_bytes(end)?);
                self.change(|batch| batch.delete_range(cf, start, end))?;
            }
            Command::Ingest { cf, pairs } => {
                let pairs: Result<Vec<_>, Box<dyn Error>> =
                    pairs.iter().map(|(k, v)| Ok((parse_bytes(k)?, parse_bytes(v)?))).collect();
                self.lab.engine().ingest(parse_cf(cf)?, &mut pairs?.into_iter().map(Ok))?;
            }
            Command::Get { cf, key, at } => {
                output = self.get(parse_cf(cf)?, key, at.as_ref())?;
            }
            Command::Scan { cf, from, to, reverse, at } => {
                let snapshot = self.snapshot(at.as_ref())?;
                let mut iter = snapshot.iter(parse_cf(cf)?, parse_range(from, to)?);
                let pairs = if *reverse { backward(&mut *iter)? } else { forward(&mut *iter)? };
                for (key, value) in pairs {
                    writeln!(output, "{} = {}", print_bytes(&key), print_bytes(&value))?;
                }
            }
            Command::Walk { cf, steps, from, to, at } => {
                let snapshot = self.snapshot(at.as_ref())?;
                let mut iter = snapshot.iter(parse_cf(cf)?, parse_range(from, to)?);
                for name in steps {
                    let stands = step(&mut *iter, name)?;
                    assert_eq!(stands, iter.valid());
                    let at = if stands { print_bytes(iter.key()) } else { "nowhere".to_owned() };
                    writeln!(output, "{name} → {at}")?;
                }
            }
            Command::Snapshot(name) => {
                self.snapshots.insert(name.clone(), self.lab.engine().snapshot());
            }
            Command::Sync => self.lab.engine().sync()?,
            Command::Reopen => {
                self.snapshots.clear();
                self.lab.reopen();
            }
        }
        Ok(output)
    }
}

fn step(iter: &mut dyn Iter, name: &str) -> Result<bool, Box<dyn Error>> {
    let (verb, key) = name.split_once('/').unwrap_or((name, ""));
    Ok(match verb {
        "first" => iter.seek_to_first()?,
        "last" => iter.seek_to_last()?,
        "next" => iter.next()?,
        "prev" => iter.prev()?,
        "seek" => iter.seek(&parse_bytes(key)?)?,
        "back" => iter.seek_for_prev(&parse_bytes(key)?)?,
        _ => return Err(format!("unknown step {verb}").into()),
    })
}

fn parse_cf(name: &str) -> Result<Cf, Box<dyn Error>> {
    Cf::ALL.into_iter().find(|cf| cf.name() == name).ok_or_else(|| "unknown family".into())
}

fn parse_range(from: &Option<String>, to: &Option<String>) -> Result<KeyRange, Box<dyn Error>> {
    let lower = from.as_deref().map_or(Ok(Bytes::new()), parse_bytes)?;
    Ok(KeyRange { lower, upper: to.as_deref().map(parse_bytes).transpose()? })
}

fn parse_bytes(text: &str) -> Result<Bytes, Box<dyn Error>> {
    let Some(digits) = text.strip_prefix("0x") else {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    };
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    pairs.map(byte).collect()
}

fn print_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic()) => format!("{text:?}"),
        _ => bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

#[test]
fn scripts_print_the_same_on_every_engine() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testscripts");
    let mut scripts: Vec<_> = std::fs::read_dir(directory)
        .expect("the directory of scripts")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        let input = std::fs::read_to_string(&script).expect("a script");
        goldenscript::run(&mut Runner::new(MemLab::new()), &script).expect("runs in memory");
        #[cfg(feature = "rocksdb")]
        {
            let mut runs = [Runner::new(crate::lab::RocksLab::new()), Runner::new(MemLab::new())];
            let [rocks, mem] = runs.each_mut().map(|runner| {
                goldenscript::generate(runner, &input).expect("runs on both engines")
            });
            assert_eq!(rocks, mem, "{}: RocksDB (left) and memory differ", script.display());
        }
        #[cfg(not(feature = "rocksdb"))]
        drop(input);
    }
}

//! Runs `testscripts/*`: one behaviour per script, told by keywords, the outcome printed and
//! reviewed.
//!
//! After a deliberate change of behaviour: `UPDATE_GOLDENFILES=1 cargo test -p flotilla-raft --test
//! scripts`, then read the difference. Commands are the variants of [`Command`].

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests speak up"
)]

mod display;
mod group;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use goldenscript::Context;
use raft::{LogIndex, NodeId};

use group::{Group, Settings};

#[derive(goldenscript::Command)]
enum Command {
    /// Creates a group: nodes 1 to COUNT, of which the given ones are voters (all, if none is
    /// given).
    Nodes {
        count: u64,
        #[arg(optional)]
        voters: Vec<u64>,
        /// Comma-separated.
        #[arg(key, optional)]
        learners: String,
        /// Settings by name, as in `Settings`.
        #[arg(key, optional)]
        with: String,
    },
    /// Replaces a node by one whose log has entries of these terms.
    Log {
        id: u64,
        #[arg(optional)]
        terms: Vec<u64>,
        #[arg(key)]
        term: Option<u64>,
        #[arg(key)]
        vote: Option<u64>,
        #[arg(key, optional)]
        commit: u64,
    },
    /// The node campaigns.
    Campaign(u64),
    /// Proposes commands.
    Propose(u64, Vec<String>),
    /// Time passes at one node.
    Tick(u64, Option<u64>),
    /// Time passes everywhere, message exchange included.
    Run(u64),
    /// Takes one Ready and prints it. Its write is under way.
    Ready(u64),
    /// Completes writes of a node.
    Persist(u64, Option<u64>),
    /// Applies what was handed out.
    Apply(u64, Option<u64>),
    /// Delivers queued messages that fit.
    Deliver {
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        to: Option<u64>,
        #[arg(key)]
        kind: Option<String>,
        #[arg(key)]
        count: Option<usize>,
    },
    /// Drops queued messages that fit.
    Drop {
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        to: Option<u64>,
        #[arg(key)]
        kind: Option<String>,
    },
    /// Queues messages that fit a second time.
    Duplicate {
        #[arg(key)]
        from: Option<u64>,
        #[arg(key)]
        to: Option<u64>,
        #[arg(key)]
        kind: Option<String>,
    },
    /// Nobody hears these nodes any more.
    Cut(Vec<u64>),
    /// Everybody hears everybody.
    Heal,
    /// Lets these nodes (all, if none is given) do everything until nothing is left; prints the
    /// messages with tag [trace].
    Stabilize(#[arg(optional)] Vec<u64>),
    /// Prints one line per node.
    Status(#[arg(optional)] Vec<u64>),
    /// Prints the terms and data of a log.
    Entries(u64),
    /// Prints what a leader knows of the members.
    Progress(u64),
    /// Prints the queued messages.
    Queue,
    /// Proposes a membership change: `v4` adds a voter, `l4` a learner, `r4` removes.
    ConfChange {
        id: u64,
        changes: Vec<String>,
        #[arg(key, optional)]
        transition: String,
    },
    /// Proposes to leave the joint state.
    LeaveJoint(u64),
    /// Hands leadership over.
    Transfer(u64, u64),
    /// Asks for read indexes.
    Read(u64, Vec<String>),
    /// Drops the log up to an index.
    Compact(u64, u64),
    /// The state machine's snapshots are not ready, or are again.
    Snapshots { id: u64, ready: bool },
    /// Tells the leader what became of a snapshot.
    ReportSnapshot { id: u64, to: u64, ok: bool },
    /// Tells the leader that a node is unreachable.
    Unreachable(u64, u64),
    /// Asks for a snapshot.
    RequestSnapshot(u64),
    /// Heartbeats now.
    Ping(u64),
    /// The node stops, losing what was not persisted.
    Crash(u64),
    /// The node starts again.
    Restart(u64),
}

#[derive(Default)]
struct Runner {
    group: Group,
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        let group = &mut self.group;
        let mut out = String::new();
        match command {
            Command::Nodes { count, voters, learners, with } => {
                *group = Group::new(*count, voters, learners, Settings::parse(with)?);
            }
            Command::Log { id, terms, term, vote, commit } => {
                group.replace_log(*id, terms, *term, *vote, *commit);
            }
            Command::Campaign(id) => {
                if !group.raw(*id)?.campaign() {
                    writeln!(out, "it may not campaign")?;
                }
            }
            Command::Propose(id, commands) => {
                for data in commands {
                    let index = group.raw(*id)?.propose(Bytes::new(), data.clone().into())?;
                    writeln!(out, "{data} at {index}")?;
                }
            }
            Command::Tick(id, count) => {
                for _ in 0..count.unwrap_or(1) {
                    group.raw(*id)?.tick();
                }
            }
            Command::Run(ticks) => group.run(*ticks),
            Command::Ready(id) => out = group.take_ready(*id)?,
            Command::Persist(id, count) => {
                for _ in 0..count.unwrap_or(1) {
                    group.persist(*id)?;
                }
            }
            Command::Apply(id, count) => out = group.apply(*id, count.unwrap_or(u64::MAX))?,
            Command::Deliver { from, to, kind, count } => {
                let count = count.unwrap_or(usize::MAX);
                for message in group.take_messages(*from, *to, kind.as_deref(), count) {
                    writeln!(out, "{}", group.deliver(message))?;
                }
            }
            Command::Drop { from, to, kind } => {
                for message in group.take_messages(*from, *to, kind.as_deref(), usize::MAX) {
                    writeln!(out, "{}", display::message(&message))?;
                }
            }
            Command::Duplicate { from, to, kind } => {
                group.duplicate(*from, *to, kind.as_deref());
            }
            Command::Cut(ids) => group.cut.extend(ids),
            Command::Heal => group.cut.clear(),
            Command::Stabilize(ids) => {
                let trace = group.stabilize(ids);
                if context.tags.contains("trace") {
                    out = trace;
                }
            }
            other => out = inspect(group, other)?,
        }
        Ok(out)
    }
}

/// Commands that look, and those that are rarely used.
fn inspect(group: &mut Group, command: &Command) -> Result<String, Box<dyn Error>> {
    let mut out = String::new();
    match command {
        Command::Status(ids) => out = group.status(ids),
        Command::Entries(id) => out = display::entries(group.raw(*id)?),
        Command::Progress(id) => out = display::progress(&group.raw(*id)?.status()),
        Command::Queue => {
            for message in &group.queue {
                writeln!(out, "{}", display::message(message))?;
            }
        }
        Command::ConfChange { id, changes, transition } => {
            let change = group::conf_change(changes, transition)?;
            let index = group.raw(*id)?.propose_conf_change(Bytes::new(), &change)?;
            writeln!(out, "change at {index}")?;
        }
        Command::LeaveJoint(id) => {
            let change = raft::ConfChangeV2::leave_joint();
            let index = group.raw(*id)?.propose_conf_change(Bytes::new(), &change)?;
            writeln!(out, "change at {index}")?;
        }
        Command::Transfer(id, to) => group.raw(*id)?.transfer_leader(NodeId(*to)),
        Command::Read(id, contexts) => {
            for context in contexts {
                group.raw(*id)?.read_index(context.clone().into());
            }
        }
        Command::Compact(id, index) => group.compact(*id, LogIndex(*index))?,
        Command::Snapshots { id, ready } => {
            group.raw(*id)?.storage_mut().snapshot_unavailable = !ready;
        }
        Command::ReportSnapshot { id, to, ok } => {
            group.raw(*id)?.report_snapshot(NodeId(*to), *ok);
        }
        Command::Unreachable(id, to) => group.raw(*id)?.report_unreachable(NodeId(*to)),
        Command::RequestSnapshot(id) => group.raw(*id)?.request_snapshot()?,
        Command::Ping(id) => group.raw(*id)?.ping(),
        Command::Crash(id) => group.crash(*id),
        Command::Restart(id) => group.restart(*id),
        _ => unreachable!("handled by the runner"),
    }
    Ok(out)
}

fn script_paths() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts");
    let entries = std::fs::read_dir(&directory).expect("testscripts");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() >= 30, "scripts are missing");
    paths
}

#[test]
fn scripts() {
    let mut failed = Vec::new();
    for path in script_paths() {
        if let Err(error) = goldenscript::run(&mut Runner::default(), &path) {
            failed.push(format!("{}: {error}", path.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The scripts' share of the mutation score: with a defence switched off, some script must come out
/// differently.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_noticed() {
    use raft::planted::{Bug, activate};

    let noticed = |bug: Bug| {
        let differs = |path: &PathBuf| {
            let expected = std::fs::read_to_string(path).expect("a script");
            let outcome = std::panic::catch_unwind(|| {
                goldenscript::generate(&mut Runner::default(), &expected).ok()
            });
            !matches!(outcome, Ok(Some(found)) if found == expected)
        };
        activate(Some(bug));
        let script = script_paths().into_iter().find(differs);
        activate(None);
        script
    };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let scores: Vec<_> = Bug::ALL.iter().map(|bug| (*bug, noticed(*bug))).collect();
    std::panic::set_hook(hook);
    let mut missed = Vec::new();
    for (bug, script) in scores {
        match script {
            Some(path) => println!("{bug:?}: {}", path.file_name().unwrap().display()),
            None => missed.push(bug),
        }
    }
    assert_eq!(missed, LEFT_TO_OTHERS, "planted bugs that no script notices");
}

/// Noticed by `tests/safety` or `tests/persistence.rs` only.
#[cfg(feature = "planted")]
const LEFT_TO_OTHERS: [raft::planted::Bug; 2] =
    [raft::planted::Bug::AsyncAppendAba, raft::planted::Bug::NextBelowMatch];

//! The mapping of administrative commands to `flotillapb`.
//!
//! Invariant: a command that does not use the epoch is written without one, and one that carries an epoch all the same is
//! refused: there is one encoding for each command.

use proto::flotillapb::{self, admin};
use raft::{LogIndex, Term};

use super::{Command, Epoch, UnknownPart};
use crate::msg::NewRegion;

/// # Panics
/// For a write.
pub(super) fn to_wire(command: Command) -> flotillapb::Command {
    let (epoch, cmd) = match command {
        Command::Write { .. } => unreachable!("a write is not an administrative command"),
        Command::CompactLog { index, term } => {
            let compact = admin::CompactLog { index: index.0, term: term.0 };
            (Epoch::default(), admin::Cmd::CompactLog(compact))
        }
        Command::Split { epoch, keys, regions } => {
            let regions = regions.into_iter().map(Into::into).collect();
            (epoch, admin::Cmd::Split(admin::Split { keys, regions }))
        }
        Command::PrepareMerge { epoch, target } => {
            (epoch, admin::Cmd::PrepareMerge(admin::PrepareMerge { target: Some(target) }))
        }
        Command::CommitMerge { epoch, source, index, term } => {
            let (index, term) = (index.0, term.0);
            let commit = admin::CommitMerge { source: Some(source), index, term };
            (epoch, admin::Cmd::CommitMerge(commit))
        }
        Command::RollbackMerge { index } => {
            let rollback = admin::RollbackMerge { index: index.0 };
            (Epoch::default(), admin::Cmd::RollbackMerge(rollback))
        }
        Command::AbandonMerge { epoch, source } => {
            let abandon = admin::AbandonMerge { source_region_id: source.get() };
            (epoch, admin::Cmd::AbandonMerge(abandon))
        }
        Command::ComputeHash => (Epoch::default(), admin::Cmd::ComputeHash(admin::ComputeHash {})),
        Command::VerifyHash { index, hash } => {
            let verify = admin::VerifyHash { index: index.0, hash };
            (Epoch::default(), admin::Cmd::VerifyHash(verify))
        }
    };
    flotillapb::Command {
        conf_ver: epoch.conf_ver,
        version: epoch.version,
        requests: Vec::new(),
        admin: Some(flotillapb::Admin { cmd: Some(cmd) }),
    }
}

pub(super) fn from_wire(epoch: Epoch, cmd: admin::Cmd) -> Result<Command, UnknownPart> {
    let without_epoch = |command| match epoch {
        Epoch { conf_ver: 0, version: 0 } => Ok(command),
        _ => Err(UnknownPart::Admin("epoch")),
    };
    match cmd {
        admin::Cmd::CompactLog(compact) => without_epoch(Command::CompactLog {
            index: LogIndex(compact.index),
            term: Term(compact.term),
        }),
        admin::Cmd::Split(admin::Split { keys, regions }) => {
            if keys.is_empty() || keys.len() != regions.len() {
                return Err(UnknownPart::Admin("regions"));
            }
            let regions = regions.into_iter().map(Into::into).collect();
            Ok(Command::Split { epoch, keys, regions })
        }
        admin::Cmd::PrepareMerge(prepare) => {
            let target = prepare.target.ok_or(UnknownPart::Admin("target"))?;
            Ok(Command::PrepareMerge { epoch, target })
        }
        admin::Cmd::CommitMerge(commit) => Ok(Command::CommitMerge {
            epoch,
            source: commit.source.ok_or(UnknownPart::Admin("source"))?,
            index: LogIndex(commit.index),
            term: Term(commit.term),
        }),
        admin::Cmd::RollbackMerge(rollback) => {
            without_epoch(Command::RollbackMerge { index: LogIndex(rollback.index) })
        }
        admin::Cmd::AbandonMerge(abandon) => {
            Ok(Command::AbandonMerge { epoch, source: abandon.source_region_id.into() })
        }
        admin::Cmd::ComputeHash(_) => without_epoch(Command::ComputeHash),
        admin::Cmd::VerifyHash(verify) => {
            without_epoch(Command::VerifyHash { index: LogIndex(verify.index), hash: verify.hash })
        }
    }
}

impl From<NewRegion> for admin::NewRegion {
    fn from(new: NewRegion) -> admin::NewRegion {
        let peer_ids = new.peers.into_iter().map(Into::into).collect();
        admin::NewRegion { region_id: new.region.get(), peer_ids }
    }
}

impl From<admin::NewRegion> for NewRegion {
    fn from(new: admin::NewRegion) -> NewRegion {
        let peers = new.peer_ids.into_iter().map(Into::into).collect();
        NewRegion { region: new.region_id.into(), peers }
    }
}

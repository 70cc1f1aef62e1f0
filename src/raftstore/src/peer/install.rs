//! Taking over a snapshot from the leader.
//!
//! The file is complete and checked before Raft hears of it. Raft accepts → one log write holds the marker, the new Raft
//! state and an empty log → durable, and the applier has finished what it had in hand → the installer clears the region's
//! data and loads the file → done: the applier is told anew. A crash before the log write leaves the old peer; one after it
//! finds the marker and finishes the installation before the store opens (M9). Until it is done nothing is handed to the
//! applier and nothing is read (M20); Raft goes on meanwhile.

use raft::{Entry, LogIndex, Snapshot};

use super::storage::LogStart;
use super::{Context, Peer, TurnBuilder};
use crate::apply::{ApplyState, ApplyTask};
use crate::planted::{Bug, planted};
use crate::snapshot::{self, ReceivedSnapshot, SnapshotInstall};

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The marker is in this log write.
    Marking(u64),
    /// The marker is durable.
    Marked,
    /// The installer is at work.
    Running,
}

/// A snapshot being installed.
#[derive(Debug)]
pub(super) struct Install {
    what: SnapshotInstall,
    step: Step,
    /// What the applier had been handed before; it must be through with that.
    handed_before: LogIndex,
    /// Committed after the snapshot, for the applier.
    held: Vec<Entry>,
}

impl Install {
    pub(super) fn hold(&mut self, mut entries: Vec<Entry>) {
        self.held.append(&mut entries);
    }
}

/// Why a received snapshot is not even shown to Raft.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SnapshotRefusal {
    #[error("another snapshot is being installed")]
    Busy,
    #[error("the message is not a snapshot")]
    NotASnapshot,
    #[error("its description does not belong to its message: {0}")]
    Mismatch(&'static str),
    #[error(transparent)]
    Meta(#[from] snapshot::MetaError),
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
}

impl Peer {
    /// A snapshot has arrived. If it is refused, the file can go.
    pub(crate) fn receive_snapshot(
        &mut self,
        message: raft::Message,
        file: ReceivedSnapshot,
        context: &Context<'_>,
    ) -> Result<(), (SnapshotRefusal, ReceivedSnapshot)> {
        if self.install.is_some() || self.received.is_some() {
            return Err((SnapshotRefusal::Busy, file));
        }
        if let Err(refusal) = self.check_snapshot(&message) {
            return Err((refusal, file));
        }
        self.received = Some(file);
        self.step(message, context).map_err(|error| {
            let file = self.received.take();
            (SnapshotRefusal::Raft(error), file.expect("it was put there just now"))
        })
    }

    /// What comes from outside is compared with itself and with what this peer knows, before Raft sees it.
    fn check_snapshot(&self, message: &raft::Message) -> Result<(), SnapshotRefusal> {
        let raft::MessageBody::Snapshot(snapshot) = &message.body else {
            return Err(SnapshotRefusal::NotASnapshot);
        };
        let mismatch = |what| Err(SnapshotRefusal::Mismatch(what));
        let meta = snapshot::decode_meta(snapshot.data.clone())?;
        if meta.region.id != self.id.get() {
            return mismatch("region");
        }
        if (meta.index, meta.term) != (snapshot.index, snapshot.term) {
            return mismatch("position");
        }
        if crate::membership::conf_state(&meta.region) != snapshot.conf_state {
            return mismatch("membership");
        }
        if !meta.region.peers.iter().any(|p| p.id == self.me.id && p.store_id == self.me.store_id) {
            return mismatch("this peer is not a member");
        }
        let [old, new] = [&self.region, &meta.region].map(|r| r.region_epoch.unwrap_or_default());
        if new.version < old.version || new.conf_ver < old.conf_ver {
            return mismatch("epoch is older");
        }
        Ok(())
    }

    /// Raft has taken the snapshot: its log begins anew.
    pub(super) fn accept_snapshot(
        &mut self,
        snapshot: &Snapshot,
        context: &Context<'_>,
        out: &mut TurnBuilder,
    ) {
        let file = self.received.take().expect("raft accepts only what was received");
        let meta = snapshot::decode_meta(snapshot.data.clone()).expect("checked on receipt");
        assert!(self.install.is_none(), "one installation at a time");
        assert_eq!(meta.index, snapshot.index, "checked on receipt");
        assert!(meta.index > self.handed_index, "a snapshot never takes back what was handed");
        self.withdraw_delegate(context);
        let start = LogStart { index: meta.index, term: meta.term };
        self.raft.storage_mut().restart_at(start, &mut out.batch);
        self.log_gc.on_restarted();
        let handed_before = std::mem::replace(&mut self.handed_index, meta.index);
        let what = SnapshotInstall { region: self.id, meta, file };
        snapshot::put_marker(&what, &mut out.batch);
        let step = Step::Marking(out.number);
        self.install = Some(Install { what, step, handed_before, held: Vec::new() });
    }

    /// Log writes up to `number` are durable.
    pub(super) fn on_install_written(&mut self, number: u64) {
        if let Some(install) = &mut self.install
            && matches!(install.step, Step::Marking(at) if at <= number)
        {
            install.step = Step::Marked;
        }
    }

    /// Whether the installer can begin.
    pub(super) fn install_is_ready(&self) -> bool {
        self.install.as_ref().is_some_and(|install| {
            let idle = install.handed_before == self.applied_index && !self.registering;
            install.step == Step::Marked && (idle || planted(Bug::InstallWhileApplying))
        })
    }

    /// Lets the installer begin, if it can and may.
    pub(super) fn start_install(&mut self, out: &mut TurnBuilder) {
        if !self.install_is_ready() || out.installs_left == 0 {
            return;
        }
        let Some(install) = &mut self.install else { return };
        install.step = Step::Running;
        out.installs_left -= 1;
        out.turn.installs.push(install.what.clone());
    }

    /// Whether the installer is at work for this peer.
    fn is_installing(&self) -> bool {
        self.install.as_ref().is_some_and(|install| install.step == Step::Running)
    }

    /// The installer is done, and what it did is durable.
    pub(crate) fn on_installed(&mut self, context: &Context<'_>) {
        assert!(self.is_installing(), "nothing was being installed");
        let Some(Install { what: SnapshotInstall { meta, .. }, held, .. }) = self.install.take()
        else {
            return;
        };
        let state = ApplyState {
            state_hash: meta.state_hash,
            ..ApplyState::initial(meta.index, meta.term)
        };
        self.applied_index = meta.index;
        self.applied_term = meta.term;
        self.state_hash = meta.state_hash;
        let (region, peer) = (meta.region.clone(), self.peer_id());
        self.registering = true;
        self.tasks.push(ApplyTask::Register { region, peer, state });
        if !held.is_empty() {
            let (region, proposals) = (self.id, self.proposals.take_up_to(self.handed_index));
            self.tasks.push(ApplyTask::Committed { region, entries: held, proposals });
        }
        self.set_region(meta.region, context);
        self.size.forget();
        self.raft.advance_apply_to(meta.index);
        self.observe_lead(context);
        self.publish_delegate(context);
    }

    /// A file that Raft had no use for.
    pub(super) fn discard_refused_snapshot(&mut self, out: &mut TurnBuilder) {
        out.turn.discarded_snapshots.extend(self.received.take());
    }
}

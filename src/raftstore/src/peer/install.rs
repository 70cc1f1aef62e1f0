//! Taking over a snapshot from the leader.
//!
//! The file is complete and checked before Raft hears of it. Raft accepts → one log write holds the marker, the new Raft
//! state and an empty log → durable, and the applier has finished what it had in hand → the installer clears the region's
//! data and loads the file → done: the applier is told anew. A crash before the log write leaves the old peer; one after it
//! finds the marker and finishes the installation before the store opens (M9). Until it is done nothing is handed to the
//! applier and nothing is read (M20); Raft goes on meanwhile.

use proto::ids::RegionId;
use proto::metapb;
use raft::{Entry, LogIndex, Snapshot};

use super::storage::LogStart;
use super::{Context, Peer, TurnBuilder};
use crate::apply::{ApplyState, ApplyTask};
use crate::planted::{Bug, planted};
use crate::snapshot::{self, MergedAway, ReceivedSnapshot, SnapshotInstall};

/// A snapshot file that Raft has not decided about.
#[derive(Debug)]
pub(super) struct Received {
    file: ReceivedSnapshot,
    /// The regions that end with its installation.
    merged: Vec<MergedAway>,
}

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
    /// Merged regions that are not destroyed yet; `None` until the store has been asked to.
    victims_left: Option<Vec<RegionId>>,
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
        merged: Vec<MergedAway>,
        context: &Context<'_>,
    ) -> Result<(), (SnapshotRefusal, ReceivedSnapshot)> {
        if self.install.is_some() || self.received.is_some() {
            return Err((SnapshotRefusal::Busy, file));
        }
        if let Err(refusal) = self.check_snapshot(&message) {
            return Err((refusal, file));
        }
        self.received = Some(Received { file, merged });
        self.step(message, context).map_err(|error| {
            let received = self.received.take().expect("it was put there just now");
            (SnapshotRefusal::Raft(error), received.file)
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
        if !self.is_initialized() {
            return Ok(());
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
        let received = self.received.take().expect("raft accepts only what was received");
        let Received { file, merged } = received;
        let meta = snapshot::decode_meta(snapshot.data.clone()).expect("checked on receipt");
        assert!(self.install.is_none(), "one installation at a time");
        assert_eq!(meta.index, snapshot.index, "checked on receipt");
        assert!(meta.index > self.handed_index, "a snapshot never takes back what was handed");
        self.withdraw_delegate(context);
        let start = LogStart { index: meta.index, term: meta.term };
        self.raft.storage_mut().restart_at(start, &mut out.batch);
        self.log_gc.on_restarted();
        let handed_before = std::mem::replace(&mut self.handed_index, meta.index);
        let peer = meta.region.peers.iter().find(|peer| peer.id == self.me.id);
        let peer = *peer.expect("checked on receipt");
        let what = SnapshotInstall { region: self.id, peer, meta, file, merged };
        snapshot::put_marker(&what, &mut out.batch);
        let step = Step::Marking(out.number);
        let (held, victims_left) = (Vec::new(), None);
        self.install = Some(Install { what, step, handed_before, held, victims_left });
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
            let alone = install.victims_left.as_ref().is_some_and(Vec::is_empty);
            install.step == Step::Marked
                && (alone || planted(Bug::MergedRegionSurvives))
                && (idle || planted(Bug::InstallWhileApplying))
        })
    }

    /// Once the marker is durable, and what the applier had in hand is applied, which may need them: the merged regions that
    /// must be destroyed before the installer begins. Told once.
    pub(crate) fn take_victims(&mut self) -> Vec<RegionId> {
        if !self.has_victims() {
            return Vec::new();
        }
        let Some(install) = &mut self.install else { return Vec::new() };
        let merged = install.what.merged.iter().map(|merged| RegionId::from(merged.region.id));
        install.victims_left.insert(merged.collect()).clone()
    }

    /// A merged region is destroyed, or was never there.
    pub(crate) fn on_victim_gone(&mut self, victim: RegionId) {
        if let Some(left) = self.install.as_mut().and_then(|install| install.victims_left.as_mut())
        {
            left.retain(|region| *region != victim);
        }
    }

    /// The region whose data are being replaced, as it will be.
    pub(crate) fn arriving_region(&self) -> Option<&metapb::Region> {
        self.install.as_ref().map(|install| &install.what.meta.region)
    }

    /// Whether the store must be asked for merged regions to be destroyed.
    pub(super) fn has_victims(&self) -> bool {
        self.install.as_ref().is_some_and(|install| {
            let idle = install.handed_before == self.applied_index && !self.registering;
            let idle = idle || planted(Bug::InstallWhileApplying);
            install.step == Step::Marked && install.victims_left.is_none() && idle
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
        self.snapshot_epoch = meta.region.region_epoch;
        // No snapshot is made of a frozen region: while this peer was away, its merge was rolled back.
        self.merging = None;
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
    pub(crate) fn take_refused_snapshot(&mut self) -> Option<ReceivedSnapshot> {
        self.received.take().map(|received| received.file)
    }

    pub(super) fn discard_refused_snapshot(&mut self, out: &mut TurnBuilder) {
        out.turn.discarded_snapshots.extend(self.take_refused_snapshot());
    }
}

//! Snapshots on their way: streamed in parts, spooled, installed. A stream breaks off when its link is cut or the receiver is
//! gone, and the sender is told either way.

use super::Cluster;
use crate::sim::event::{Event, StoreEvent};
use crate::sim::invariants::Broken;
use crate::sim::layout::store_place;
use crate::sim::matrix::Change;
use crate::sim::time::Nanos;
use engine::Engine;
use proto::flotillapb::snapshot_chunk::Part;
use proto::ids::{PeerId, RegionId};
use proto::raft_serverpb::RaftMessage;
use raftstore::msg::{SnapshotSend, StoreMsg};
use raftstore::snapshot::{
    self, ReceiveLimits, ReceivedSnapshot, SnapshotFiles, SnapshotInstall, SnapshotReceiver,
    SnapshotSource,
};

impl Cluster {
    /// Sends a snapshot: all parts arrive together, some time from now, or never.
    pub(super) fn send_snapshot(&mut self, from: usize, send: SnapshotSend) -> Result<(), Broken> {
        self.happened(Change::Snapshot);
        let SnapshotSend { region, to, message, source } = send;
        self.watch(from, &message)?;
        let place = store_place(to.store_id);
        let peer = PeerId::from(to.id);
        let mut source = SnapshotSource::new(source);
        let mut parts = Vec::new();
        while let Ok(Some(part)) = source.next_part() {
            parts.push(part);
        }
        if self.process_rng.chance(self.network.knobs().loss_per_mille) {
            parts.pop();
        }
        let election = self.knobs.election_timeout();
        let mut extra = self.process_rng.span(Nanos::ZERO, Nanos(election.0 / 2));
        let mut awaited = true;
        let faulty = self.nemesis.is_active();
        if faulty && self.process_rng.chance(200) {
            // A long stream, whose sender may lose patience first.
            extra += self.process_rng.span(Nanos::ZERO, election.times(6));
            if self.process_rng.chance(500) {
                awaited = false;
                let soon = Nanos(extra.0 / 4);
                self.schedule(from, soon, StoreEvent::SnapshotSent(region, peer, false));
            }
        }
        match self.network.deliveries(self.queue.now(), from, place).first() {
            Some(at) => {
                let event = StoreEvent::Snapshot(Box::new(message), parts, awaited);
                self.queue.at(*at + extra, Event::Store { store: place, life: None, event });
            }
            None => self.schedule(from, extra, StoreEvent::SnapshotSent(region, peer, false)),
        }
        Ok(())
    }

    /// All parts of a snapshot are here.
    pub(super) fn snapshot_arrives(
        &mut self,
        store: usize,
        message: RaftMessage,
        parts: Vec<Part>,
        awaited: bool,
    ) {
        let received = receive(self.processes[store].files(), &message, parts);
        if awaited {
            self.snapshot_ended(&message, received.is_some());
        }
        if let Some(file) = received {
            self.counts.snapshots += 1;
            self.tell(store, StoreMsg::SnapshotReceived { message, file });
        }
    }

    /// The answer of a stream reaches the sender; without one it notices that the connection broke.
    pub(super) fn snapshot_ended(&mut self, message: &RaftMessage, ok: bool) {
        let from = store_place(message.from_peer.as_ref().map_or(0, |peer| peer.store_id));
        let to = PeerId::from(message.to_peer.as_ref().map_or(0, |peer| peer.id));
        let region = RegionId::from(message.region_id);
        let delay = self.process_rng.span(Nanos::micros(100), Nanos::millis(5));
        if from < self.processes.len() {
            self.schedule(from, delay, StoreEvent::SnapshotSent(region, to, ok));
        }
    }

    /// The installer carries out an installation, or its disk fails in the middle.
    pub(super) fn install(&mut self, store: usize, install: SnapshotInstall) {
        let region = RegionId::from(install.meta.region.id);
        let process = &self.processes[store];
        if self.nemesis.may_fail_syncs() && self.process_rng.chance(100) {
            if self.process_rng.chance(500) {
                process.engine.fail_next_sync("injected failure while a snapshot is installed");
            } else {
                process.engine.fail_next_write("injected failure while a snapshot is installed");
            }
        }
        let installed = snapshot::install(
            process.engine.as_ref() as &dyn Engine,
            process.files().as_ref() as &dyn SnapshotFiles,
            &install,
        );
        let now = self.queue.now();
        self.trace.event(now, 0x400 + store as u64, install.meta.index.0);
        self.trace.line(now, |line| {
            line.push_str(&format!(
                "s{} installs r{region} at {}: {}",
                store + 1,
                install.meta.index,
                if installed.is_ok() { "done" } else { "FAILED" },
            ));
        });
        match installed {
            Ok(_) => self.tell(store, StoreMsg::SnapshotInstalled { region }),
            Err(error) => {
                self.tell(store, StoreMsg::WriteFailed { reason: error.to_string() });
            }
        }
    }
}

fn receive(
    files: std::sync::Arc<dyn SnapshotFiles>,
    message: &RaftMessage,
    parts: Vec<Part>,
) -> Option<ReceivedSnapshot> {
    let mut receiver = SnapshotReceiver::begin(files, ReceiveLimits::default(), message).ok()?;
    let mut received = None;
    for part in parts {
        received = receiver.take(part).ok()?;
    }
    received
}

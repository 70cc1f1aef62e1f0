//! Handles for scripted tests: cut the network by hand, stop and start stores, ask and wait.

use super::{CallOptions, Cluster, Notice};
use crate::sim::call::{Call, Outcome};
use crate::sim::faults::Keep;
use crate::sim::invariants::Broken;
use crate::sim::network::NetworkKnobs;
use crate::sim::time::Nanos;
use bytes::Bytes;
use engine::{Cf, Engine};
use raftstore::keys;

/// The client that scripts speak as.
const SCRIPT_CLIENT: u64 = 1_000_000;

impl Cluster {
    /// Cuts every link between two groups of stores, both ways.
    pub fn partition(&mut self, left: &[usize], right: &[usize]) {
        for (from, to) in left.iter().flat_map(|from| right.iter().map(move |to| (*from, *to))) {
            self.network.cut(from, to);
            self.network.cut(to, from);
        }
    }

    /// Loses this share of all messages between stores.
    pub fn set_loss(&mut self, loss_per_mille: u64) {
        let calm = NetworkKnobs::CALM;
        self.network.set_knobs(NetworkKnobs { loss_per_mille, ..calm });
    }

    /// Whole links, no loss.
    pub fn clear_network(&mut self) {
        self.network.heal();
    }

    /// Ends a store's process with loss of power: nothing that was not synced survives.
    pub fn stop_store(&mut self, store: usize) {
        self.crash(store, Keep::None);
    }

    /// Starts it again.
    pub fn start_store(&mut self, store: usize) -> Result<(), Broken> {
        self.start(store)
    }

    /// Lets time pass; nobody but the script may be calling.
    pub fn sleep(&mut self, span: Nanos) -> Result<(), Broken> {
        let end = self.now() + span;
        while self.run_until(end)?.is_some() {}
        Ok(())
    }

    /// Asks, and waits for the outcome; nobody but the script may be calling.
    pub fn ask_and_wait(&mut self, call: Call, options: CallOptions) -> Result<Outcome, Broken> {
        self.submit(SCRIPT_CLIENT, call, options);
        let far = self.now() + Nanos::secs(3600);
        while let Some(notice) = self.run_until(far)? {
            if let Notice::Done { client: SCRIPT_CLIENT, outcome, .. } = notice {
                return Ok(outcome);
            }
        }
        Err(Broken::new("I14 liveness", "a call did not end within an hour"))
    }

    /// What a store's disk holds under a key, without asking anybody.
    pub fn stored(&self, store: usize, key: &[u8]) -> Option<Bytes> {
        self.processes[store].engine.get(Cf::Raw, &keys::raw(self.cf, key)).ok().flatten()
    }
}
